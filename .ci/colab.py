"""Does every page run on Colab? The machine is a stand-in: torch and ipywidgets 7.7 in a bare Python 3.12, no project, an empty working directory.

    python .ci/colab.py                        all pages
    python .ci/colab.py 02_patches 15a_text    pages whose names begin so
    python .ci/colab.py --again                only pages that failed last time, by the report
    python .ci/colab.py --guards               write into each page the install cell that its imports and files ask for, then stop
    python .ci/colab.py --guarded [PAGES]      as if --guards had been run, without writing a page

Each page installs by its own first cell, pointed at the wheel of this tree and at a stand-in of /content; then its cells run in order, as "Run all" would.
Cells marked gpu, net or slow are left out. Wants nbclient here; the rest is installed under --env. A report stands in --report (JSON).
"""
import argparse, json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path
from readme import ROOT, settings

NBS = ROOT/'nbs'
BASE = 'ipywidgets==7.7.1 ipykernel numpy pillow<12 matplotlib tqdm' # what a bare stand-in of Colab has beside torch; Colab's Pillow is 11, and Gradio's must be below 13
KEEP = 'torch torchvision numpy ipywidgets pillow'.split()          # what installing must leave as it was
GUARD = re.compile(r'^! \[ -e /content \] && .*pip install .*')
EXTRA = {'scikit-learn': r'\bsklearn\b|\bdigit_classifier\b', 'scipy': r'\bscipy\b', 'torchmetrics': r'\btorchmetrics\b', 'torch-fidelity': r'\btorch_fidelity\b',
    'datasets': r'(?:import|from) datasets\b', 'gradio': r'(?:import|from) gradio(?:_client)?\b|\bimport .*\bgradio\b', 'hypothesis': r'(?:import|from) hypothesis\b'}
LEFT_OUT = re.compile(r'(?m)^\s*#\s*\|\s*(gpu|net|slow)\b')
COLOUR = re.compile(r'\x1b\[[0-9;]*m')


def sh(*cmd, **kw): return subprocess.run([str(c) for c in cmd], check=True, text=True, **kw)


def pages(starts):
    "Pages with a Colab badge in reading order, or those whose names begin with one of `starts`, in that order"
    found = [p for p in [*sorted(NBS.glob('*.ipynb')), *sorted((NBS/'tutorials').glob('*.ipynb'))] if 'colab-badge.svg' in p.read_text(encoding='utf-8')]
    chosen = [p for s in starts for p in found if p.name.startswith(Path(s).name.removesuffix('.ipynb'))]
    return list(dict.fromkeys(chosen)) if starts else found


def guard(page):
    "The install cell's line that a page needs: optional packages it imports, and a copy of the files it reads"
    source = '\n'.join(''.join(c['source']) for c in json.loads(page.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code')
    cfg = settings(); bounds = {re.split('[<>=]', r)[0]: f'"{r}"' for r in cfg['app_requirements'].split()}
    extra = ' '.join(bounds.get(k, k) for k, pattern in EXTRA.items() if re.search(pattern, source))
    url = f'https://github.com/{cfg["user"]}/{cfg["repo"]}'
    tag, at = ('', '') if cfg['branch'] == 'main' else (f'-b {cfg["branch"]} ', f'@{cfg["branch"]}')   # the pages of a release install that release
    reads = any((page.parent/f).exists() for f in re.findall(r"""['"]((?:\.\./)?(?:assets|images)/[^'"{]*)['"]""", source))
    up = '..' if page.parent != NBS else '.'
    get = f'git clone -q --depth 1 {tag}{url} repo && pip install -q ./repo {extra}'.strip() + f' && ln -s $PWD/repo/nbs/assets $PWD/repo/nbs/images {up}' if reads \
        else f'pip install -q git+{url}{at} {extra}'.strip()
    return f'! [ -e /content ] && {get}  # install on Colab; does nothing elsewhere'


def write_guards():
    "Set the install line of every page; the pages that changed"
    for p in pages([]):
        old = p.read_text(encoding='utf-8'); nb = json.loads(old)
        for c in nb['cells']:
            if c['cell_type'] == 'code': c['source'] = [guard(p) + '\n'*l.endswith('\n') if GUARD.match(l) else l for l in c['source']]
        new = json.dumps(nb, indent=1, ensure_ascii=False) + '\n'
        if new != old: p.write_text(new, encoding='utf-8'); yield p


def wheel(folder):
    "The wheel of this tree, built from a copy of the tracked files"
    copy = folder/'src'
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\0')
    for n in names:
        if n and (ROOT/n).is_file():
            (copy/n).parent.mkdir(parents=True, exist_ok=True); shutil.copyfile(ROOT/n, copy/n)
    sh(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--wheel-dir', folder, copy)
    return next(folder.glob('*.whl'))


def base(env, python, torch):
    "The stand-in of Colab's machine in folder `env`, made once"
    if not (env/'bin/python').exists():
        sh(python, '-m', 'venv', env)
        sh(env/'bin/pip', 'install', '-q', *torch.split(), *BASE.split())
    return env


def layer(folder, env):
    "A venv in `folder` that sees all of `env`: what a page installs goes into it, and nothing of `env` can be replaced unnoticed"
    sh(env/'bin/python', '-m', 'venv', folder)
    site = next((folder/'lib').glob('python*/site-packages'))
    (site/'base.pth').write_text(str(next((env/'lib').glob('python*/site-packages'))))
    kernel = folder/'share/jupyter/kernels/colab'; kernel.mkdir(parents=True)
    (kernel/'kernel.json').write_text(json.dumps(dict(argv=[str(folder/'bin/python'), '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='colab', language='python')))
    return folder


def frozen(folder):
    "Versions of the packages that must stay as they were"
    out = sh(folder/'bin/python', '-m', 'pip', 'list', '--format=json', capture_output=True).stdout
    return {p['name'].lower(): p['version'] for p in json.loads(out) if p['name'].lower() in KEEP}


def machine(at):
    "Environment of a kernel that runs in layer `at`: no project, no test flag"
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'IN_TEST', 'VIRTUAL_ENV', 'PYTHONHOME')}
    return env | dict(PATH=f'{at/"bin"}:{env["PATH"]}', VIRTUAL_ENV=str(at), JUPYTER_PATH=str(at/'share/jupyter'), MPLBACKEND='module://matplotlib_inline.backend_inline')


def prepared(page, whl, content, guarded):
    "The page as Colab would open it, its install line pointed at the wheel and at a copy of the tree; how many such lines it has, and the kinds of cells left out"
    import nbformat
    nb, guards, out = nbformat.read(page, 4), 0, []
    for c in nb.cells:
        if c.cell_type != 'code': continue
        lines = c.source.splitlines()
        for k, l in enumerate(lines):
            if not GUARD.match(l): continue
            guards += 1; l = guard(page) if guarded else l
            l = re.sub(r'git clone \S+ --depth 1 (?:-b \S+ )?\S+', f'cp -r {whl.parent/"src"}', l.replace('-e /content', f'-e {content}'))
            lines[k] = re.sub(r'git\+https://[^\s"]+|\./repo\b', str(whl), l)
        c.source = '\n'.join(lines)
        if m := LEFT_OUT.search(c.source): out.append(m[1]); c.source = ''
    return nb, guards, out


def run(page, whl, content, at, seconds, guarded):
    "Run a page; what came of it"
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    nb, guards, out = prepared(page, whl, content, guarded)
    said = dict(page=page.relative_to(NBS).as_posix(), ok=False, left_out=out)
    if guards != 1: return said | dict(seconds=0., why=f'{guards} install cells, expected 1')
    t0, old = time.time(), dict(os.environ)
    new = machine(at); os.environ.clear(); os.environ.update(new)
    here = []
    try:
        with tempfile.TemporaryDirectory() as cwd:
            cwd = Path(cwd)/'content'; cwd.mkdir()
            client = NotebookClient(nb, timeout=seconds, kernel_name='colab', resources=dict(metadata=dict(path=str(cwd))))
            client.on_cell_execute = lambda cell, cell_index: here.append((cell_index, cell))
            try: client.execute(); said['ok'] = True
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
                k, cell = here[-1]
                last = f'{e.ename}: {e.evalue}' if isinstance(e, CellExecutionError) else type(e).__name__
                said |= dict(cell=k, id=cell.id, line=next((l for l in cell.source.splitlines() if l.strip() and not l.startswith('#')), ''), why=COLOUR.sub('', last)[:400])
    finally: os.environ.clear(); os.environ.update(old)
    first = next((c for c in nb.cells if c.cell_type == 'code' and str(whl) in c.source), None)
    text = COLOUR.sub('', ''.join(o.get('text', '') for o in (first.outputs if first else [])))
    if 'ERROR' in text: said |= dict(ok=False, why=f'install: {text[-300:]}')
    return said | dict(seconds=round(time.time()-t0, 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('pages', nargs='*')
    ap.add_argument('--env', type=Path, default=Path(tempfile.gettempdir())/'colab_env', help='folder of the stand-in machine; made when missing, kept')
    ap.add_argument('--python', default='python3.12'); ap.add_argument('--torch', default='torch==2.6.0 torchvision==0.21.0')
    ap.add_argument('--fresh', action='store_true', help='a new layer for every page, instead of one for all')
    ap.add_argument('--timeout', type=int, default=600, help='seconds a cell may take'); ap.add_argument('--report', type=Path, default=Path('colab.json'))
    for flag in 'again', 'guards', 'guarded': ap.add_argument(f'--{flag}', action='store_true')
    args = ap.parse_args(); t0 = time.time()
    if args.guards: sys.exit(print(*[f'written {p.relative_to(ROOT)}' for p in write_guards()], sep='\n'))
    done = json.loads(args.report.read_text()) if args.report.exists() and (args.again or args.pages) else {}
    todo = [p for p in pages(args.pages) if not args.again or not done.get(p.relative_to(NBS).as_posix(), {}).get('ok')]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); whl, env = wheel(tmp), base(args.env.resolve(), args.python, args.torch)
        content = tmp/'content'; content.mkdir()
        at, bad = layer(tmp/'layer', env), 0
        before = frozen(at); print(f'{settings()["lib_name"]}: {whl.name}; before: {before}; ready after {time.time()-t0:.0f} s', flush=True)
        for p in todo:
            if args.fresh and at.exists(): shutil.rmtree(at); layer(at, env)
            r = run(p, whl, content, at, args.timeout, args.guarded); after = frozen(at)
            if after != before: r |= dict(ok=False, why=f'versions changed: {after}; {r.get("why", "")}'); shutil.rmtree(at); layer(at, env)   # the next page is judged alone
            done[r['page']] = r; args.report.write_text(json.dumps(done, indent=1)); bad += not r['ok']
            print(f'{r["seconds"]:7.1f} s  {"ok    " if r["ok"] else "FAILED"}  {r["page"]}' + (f'  left out: {", ".join(r["left_out"])}' if r['left_out'] else ''), flush=True)
            if not r['ok']: print(f'           cell {r.get("cell")} {r.get("id")}: {r.get("line", "")}\n           {r["why"]}', flush=True)
        print(f'after: {frozen(at)}')
    print(f'{len(todo)-bad} of {len(todo)} pages run to the end; {time.time()-t0:.0f} s')
    sys.exit(bool(bad))


if __name__ == '__main__': main()
