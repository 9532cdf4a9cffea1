"""The checks that decide whether a change lands (standard library only).

    python .ci/checks.py --all      run the README's test command, then every check; last line `N passed, N failed`
    python .ci/checks.py --static   only the checks of the tree, in an environment that has the package and its dev tools
    python .ci/checks.py --wheel    only: the wheel installs into an empty environment and draws
    python .ci/checks.py --lowest   print pip constraints: the lowest versions settings.ini allows
"""
import json, os, re, subprocess, sys, tempfile, time, venv, zipfile
from pathlib import Path
from house import CHECKS
from hub import trial
from readme import ROOT, relinked, settings, stale, tracked

NBS, PKG = ROOT/'nbs', ROOT/'dit_clipped'
BIN = 'Scripts' if os.name == 'nt' else 'bin'
MACHINE = re.compile(r'(?:^|[\s"\'(=:])/(?:root|tmp|home|work|farm|Users)/')
HEAVY = 'torch torchvision diffusers open_clip gradio datasets accelerate matplotlib sklearn'.split()
results = []


def report(name, faults):
    "Count one check; `faults` is a list of what is wrong with it"
    results.append((name, not faults))
    print(('ok      ' if not faults else 'FAILED  ')+name, flush=True)
    for f in list(faults)[:12]: print('          '+str(f), flush=True)


def sh(cmd, cwd=ROOT, env=None, timeout=None):
    "Run `cmd` in bash; (exit code, stdout and stderr together)"
    r = subprocess.run(['bash', '-c', cmd], cwd=cwd, env=env, timeout=timeout, text=True, errors='replace',
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return r.returncode, r.stdout


def start_commands():
    "The commands under the README's heading Start"
    part = re.split(r'(?m)^## ', (ROOT/'README.md').read_text(encoding='utf-8').split('\n## Start\n')[1])[0]
    blocks = re.findall(r'(?ms)^```(?:bash|sh)\n(.*?)\n```', part)
    return [l for b in blocks for l in b.replace('\\\n', ' ').splitlines() if l.strip()]


def notebooks(): return sorted(p for p in NBS.rglob('*.ipynb') if not any(s[0] in '._' for s in p.relative_to(NBS).parts))


def cells(p): return json.loads(p.read_text(encoding='utf-8'))['cells']


def directives(cell): return re.findall(r'(?m)^\s*#\s*\|\s*([\w-]+:?[ \t]*\S*)', ''.join(cell['source']))


def skipped():
    "Print how many cells nbdev_test skips, by reason"
    flags, seen = settings()['tst_flags'].split(), {}
    for p in notebooks():
        for c in cells(p):
            if c['cell_type'] != 'code': continue
            why = [d for d in map(str.strip, directives(c)) if d in flags or re.match(r'eval:\s*false', d)]
            if 'gpu' in why: why = ['run by .ci/gpu.py, not yet on a GPU']
            guard = '/content' in ''.join(c['source'])
            if why: seen.setdefault('install cell for Colab' if guard else why[0], []).append(p.name)
    for why, names in seen.items(): print(f'skipped cells, {why}: {len(names)} in {", ".join(sorted(set(names)))}')
    print(f'skipped cells: {sum(map(len, seen.values()))}', flush=True)


def test_command():
    "Run the README's test command and count notebook by notebook from what really ran"
    cmd, t0 = start_commands()[1], time.time()
    print('$', cmd, flush=True)
    rc, out = sh(cmd)
    print(out[-20000:], flush=True)
    fence = out.split('nbdev Tests Failed On The Following Notebooks:')
    failed = set(re.findall(r'(?m)^\t(\S+\.ipynb)$', fence[1])) if len(fence) > 1 else set()
    done = {Path(m).name for m in re.findall(r'(?m)^- Completed (.+\.ipynb)$', out)}
    ended = len(fence) > 1 or bool(re.search(r'(?m)^Success\.$', out))
    for p in notebooks():
        fault = 'failed' if p.name in failed else '' if ended and p.name in done else 'did not run to its end'
        report(f'notebook {p.relative_to(NBS)}', [fault] if fault else [])
    report('the test command exits with 0', [] if rc == 0 else [f'exit code {rc}'])
    print(f'the test command took {time.time()-t0:.0f} s, installation included', flush=True)


def state(): return sh('git status --porcelain -uall; git diff | git hash-object --stdin')[1]


def check_export():
    "nbdev_clean and nbdev_export leave nothing to commit"
    before = state()
    rc, out = sh('nbdev_clean && nbdev_export')
    return ([out[-800:]] if rc else []) + ([] if state() == before else [sh('git status --porcelain -uall; git diff --stat')[1]])


def check_readme():
    changed, old = stale()
    return [f'{f.relative_to(ROOT)}: run python .ci/readme.py' for f in [*changed, *old]]


def check_start():
    n = len(start_commands())
    return [] if n == 2 else [f'the section Start holds {n} commands, not 2']


def check_links(): return [f'{f.relative_to(ROOT)}: a link is not as settings.ini says; run python .ci/readme.py --links' for f, _ in relinked()]


def check_targets():
    "Relative links of the pages lead to files that exist"
    bad = []
    for p in notebooks():
        text = '\n'.join(''.join(c['source']) for c in cells(p) if c['cell_type'] == 'markdown')
        for m in re.findall(r'\]\((?!https?:|#|mailto:)([^)\s]+)\)', text):
            if not (p.parent/m.split('#')[0]).exists(): bad.append(f'{p.name}: {m} does not exist')
    return bad


def patched(line):
    "Is this pyflakes' word about a method that @patch adds to another class of the same module?"
    m = re.match(r"(\S+?):(\d+):\d+:? redefinition of unused", line)
    if not m: return False
    n, lines = int(m[2]), (ROOT/m[1]).read_text(encoding='utf-8').splitlines()
    return any(l.startswith('@patch') for l in lines[n-2:n])


def check_flakes():
    rc, out = sh(f'{sys.executable} -m pyflakes dit_clipped .ci')
    return [l for l in out.splitlines() if not patched(l)] if rc else []


def check_outputs():
    "Kept outputs hold no error, no stderr and no path of a machine"
    bad = []
    for p in notebooks():
        code = [c for c in cells(p) if c['cell_type'] == 'code']
        if code and not any(c['outputs'] for c in code): bad.append(f'{p.name}: no outputs kept')
        for c in code:
            for o in c['outputs']:
                head = f'{p.name} cell {c.get("id")}'
                if o['output_type'] == 'error': bad.append(f'{head}: an error')
                if o.get('name') == 'stderr': bad.append(f'{head}: stderr')
                if MACHINE.search('\n'.join(o.get('text', [])+o.get('data', {}).get('text/plain', []))): bad.append(f'{head}: a machine path')
    return bad


def check_paths():
    "No tracked text names a path of a machine"
    hit = re.compile(r'(?:^|[^A-Za-z0-9_.])/(?:root|work|farm)/')
    files = tracked('.py', '.md', '.ini', '.toml', '.yml', '.yaml', '.ipynb', '.txt', '.in')
    return [f.relative_to(ROOT) for f in files if hit.search(f.read_text(encoding='utf-8')) and f != Path(__file__).resolve()]


def check_import():
    "`import dit_clipped` loads nothing heavy"
    code = f'import sys, dit_clipped; print([m for m in {HEAVY} if m in sys.modules])'
    rc, out = sh(f'{sys.executable} -c "{code}"')
    return [] if rc == 0 and out.strip() == '[]' else [out.strip()]


def check_pickles():
    "Every torch.load of the package reads weights only"
    src = {f: f.read_text(encoding='utf-8') for f in PKG.rglob('*.py')}
    return [f.relative_to(PKG) for f, s in src.items() for call in re.findall(r'torch\.load\((?:[^()]|\([^()]*\))*\)', s) if 'weights_only=True' not in call]


def check_gpu():
    "Small, on the CPU: the table comes with the report; (faults, seconds)"
    t0 = time.time()
    with tempfile.TemporaryDirectory() as d:
        rc, out = sh(f'{sys.executable} .ci/gpu.py --tiny --out "{d}"', timeout=600)
        print('\n'.join(out.splitlines()[-60:]), flush=True)
    return ([f'exit code {rc}'] if rc else []), time.time()-t0


def static():
    for name, f in [('nbdev_clean and nbdev_export leave no diff', check_export), ('README.md is made from index.ipynb', check_readme),
                    ('Start holds two commands', check_start), ('owner and branch of all links come from settings.ini', check_links),
                    ('relative links lead somewhere', check_targets), ('pyflakes', check_flakes), ('kept outputs', check_outputs),
                    ('no machine paths in the tree', check_paths), ('import dit_clipped is light', check_import),
                    ('no pickle that can run code', check_pickles), *CHECKS]: report(name, f())
    faults, secs = check_gpu()
    report(f'the GPU command runs in small ({secs:.0f} s)', faults)
    for name, faults in trial(): report(f'Hub stand-in: {name}', faults)


def built(out):
    "Wheel and sdist of the tree in folder `out`, from a clean copy"
    src = Path(out)/'src'
    for f in filter(Path.is_file, tracked('')):
        new = src/f.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(f.read_bytes())
    rc, log = sh(f'{sys.executable} -m pip install -q build && {sys.executable} -m build -q --outdir "{out}" "{src}"')
    return next(Path(out).glob('*.whl'), None), next(Path(out).glob('*.tar.gz'), None), log if rc else ''


def wheel():
    "The wheel carries its data, installs into an empty environment and does the README's main job"
    with tempfile.TemporaryDirectory() as tmp:
        whl, sdist, log = built(tmp)
        data = [f.relative_to(PKG/'shipped').as_posix() for f in (PKG/'shipped').rglob('*') if f.is_file()]
        names = zipfile.ZipFile(whl).namelist() if whl else []
        lost = [d for d in data if f'dit_clipped/shipped/{d}' not in names]
        report('wheel and sdist are built and carry the package data', [log] if log else [f'missing: {lost}'] if lost or not sdist else [])
        if not whl: return
        venv.create(f'{tmp}/venv', with_pip=True)
        env = {**os.environ, 'PATH': f'{tmp}/venv/{BIN}:'+os.environ['PATH'], 'VIRTUAL_ENV': f'{tmp}/venv'}
        home = Path(tmp)/'home'
        home.mkdir()
        rc, log = sh(f'python -m pip install -q "{whl}" && python -m pip check', home, env)
        report('the wheel installs into an empty environment', [log[-800:]] if rc else [])
        job, t0 = '&&'.join(start_commands()[0].split('&&')[1:]).strip(), time.time()
        rc, log = sh(job, home, env)
        pngs = [p for p in home.glob('*.png') if p.stat().st_size > 500]
        report(f'the README\'s main job leaves a picture ({time.time()-t0:.0f} s)', [] if rc == 0 and pngs else [log[-1500:]])
        rc, log = sh('dit_clipped_train --data digits --out runs/digits --quiet', home, env)
        report('the wheel trains the digits', [log[-800:]] if rc else [])
        if not rc: evaluation(home)


def evaluation(home):
    "The drawn digits are read back by a classifier of real scans"
    rc, log = sh('dit_clipped_evaluate --ckpt runs/digits', home)
    got = re.search(r'guided[^\n]*?(\d+\.\d)%', log)
    print(log[-1500:], flush=True)
    report('at least 95% of 200 guided digits are read as asked', [] if rc == 0 and got and float(got[1]) >= 95 else [log[-800:]])


def lowest():
    "pip constraints with the lower bound of every core requirement; the dev tools choose their own fastcore"
    cfg = settings()
    dev = {re.match(r'[\w-]+', r)[0] for r in cfg['dev_requirements'].split()}
    for r in cfg['requirements'].split():
        name, low = re.match(r'([\w-]+)>=([\d.]+)', r).groups()
        if name not in dev: print(f'{name}=={low}' + ('.*' if low.count('.') == 1 else ''))


def main():
    if '--lowest' in sys.argv: return lowest()
    jobs = dict([('--static', [skipped, static]), ('--wheel', [wheel]), ('--all', [test_command, skipped, static, wheel])])
    todo = [f for k, fs in jobs.items() if k in sys.argv for f in fs]
    if not todo: sys.exit(__doc__)
    for f in todo: f()
    bad = sum(not ok for _, ok in results)
    print(f'{len(results)-bad} passed, {bad} failed', flush=True)
    sys.exit(1 if bad or not results else 0)


if __name__ == '__main__': main()
