"""One command for the GPU: proves its branches, measures its speed, leaves a table.

    python .ci/gpu.py [--out DIR] [--wheels DIR] [--tiny] [--parts a,b] [--minutes 9]
                       [--train-shipped MINUTES [--captioned DIR]]

Parts, the most valuable first; each runs in processes of its own, with a limit, and stops in time for the next:
    cells      every `#| gpu` cell of the pages; on its page it may use other such cells only; it must run on a CPU too
    proofs     the CUDA branches of the package: precisions, workers, resume, out of memory, seeds, pictures, compile
    train      training steps of the zoo beside diffusers' DiT: pictures/s, memory, share of the matmul peak
    sample     XL/2 in 50 guided steps, and the shipped model: one picture, and many
    compiled   `train` again with torch.compile, block by block, while time is left
    shipped    only with --train-shipped: the preset for so many minutes, on top of --minutes, and its exam; with
               --captioned DIR the model of captioned pictures instead (tutorial `emoji`), from what DIR holds:
               cache/ (dit_clipped_encode --keep_text), vae/ and text_encoder/, trained before
It has not run on a GPU yet; when it has, LOG.md holds its table.
Exit code: 0; 1 when a cell, a proof or a measurement failed or a proof did not run; 2 without CUDA (and no --tiny).
What is done stands in DIR/results.json after every row, so a kill loses nothing; table.md comes after every part.
DIR is $OUT where that is set, else gpu_out. --tiny: the same code in small sizes on the CPU, in about a minute.

Needed are torch, torchvision, einops, numpy, pillow, matplotlib, safetensors, accelerate, huggingface_hub and tqdm;
the package is taken from this tree. What else it needs travels as wheels in the folder of --wheels: they are unpacked
into a temporary folder, and nothing is installed. Fetch them here, for Python 3.12 there, into .whl (which git ignores):
    pip download -q --no-deps --only-binary=:all: --python-version 3.12 -d .whl "fastcore<2"           # 0.1 MB
    pip download -q --no-deps --only-binary=:all: --python-version 3.12 -d .whl diffusers importlib_metadata \\
        lazy-importer zipp open_clip_torch ftfy wcwidth timm                                          # 11.6 MB more
The second line is for --train-shipped and for rows beside diffusers; those also need regex, requests and pyyaml there.
Leave out what is there already: a wheel goes before what is installed. On a borrowed machine that carries .whl there
and $OUT back, in two calls of ten minutes at most:
    PYTHONUNBUFFERED=1 python3 .ci/gpu.py --wheels .whl
    PYTHONUNBUFFERED=1 python3 .ci/gpu.py --wheels .whl --parts shipped --train-shipped 6
Then `unzip` all pipeline_N.zip in one place (elsewhere the folder itself lies in DIR).
"""
import argparse, ast, builtins, contextlib, io, json, linecache, os, re, signal, subprocess, sys, tempfile, time
import traceback, types, zipfile
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
PARTS = dict(cells=110, proofs=120, train=100, sample=70, compiled=130) # shares of --minutes; of nine: seconds
JOB = dict(cells=75, proofs=75, train=70, sample=60, compiled=80)      # seconds that one job of a part may take
MUST = 'cells', 'proofs', 'shipped'                                    # parts of which nothing may be left out
EXAM = 120                                                             # seconds after --train-shipped for the exam


def whole(path, text):
    "Write a file that is there whole or not at all"
    tmp = Path(f'{path}.tmp')
    tmp.write_text(text, encoding='utf-8')
    os.replace(tmp, path)


class Results:
    "What is known so far, in DIR/results.json; parent and child write it in turns"
    def __init__(self, out): self.file = Path(out)/'results.json'
    def read(self): return json.loads(self.file.read_text(encoding='utf-8'))
    def write(self, d): whole(self.file, json.dumps(d, indent=1))
    def start(self, part, job):
        self.write(self.read() | dict(running=dict(part=part, job=job, since=time.time())))
    def add(self, part, job, row):
        d = self.read()
        d['rows'].append(dict(part=part, job=job) | row)
        self.write(d)
    def end(self, part, job):
        d = self.read()
        d['done'].append([part, job])
        self.write(d | dict(running=None))


# Cells of the pages

def cell_sources(page):
    "[(id, source)] of the page's `#| gpu` cells"
    cells = enumerate(json.loads(page.read_text('utf-8'))['cells'])
    found = [(c.get('id', str(k)), ''.join(c['source'])) for k, c in cells if c['cell_type'] == 'code']
    return [(i, s) for i, s in found if re.search(r'(?m)^\s*#\s*\|\s*gpu\s*$', s)]


def gpu_pages(folder=ROOT/'nbs'):
    "Pages with such cells, hidden folders aside"
    pages = sorted(Path(folder).rglob('*.ipynb'))
    return [p for p in pages if not any(s[0] in '._' for s in p.relative_to(folder).parts) and cell_sources(p)]


def run_cell(name, source, space):
    "Plain exec; the row"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    said, t0 = io.StringIO(), time.time()
    try:
        code = compile(source, name, 'exec')
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said): exec(code, space)
        ok = True
    except BaseException:
        ok = False
        said.write(traceback.format_exc())
    print(f'--- {name}\n{said.getvalue()}', flush=True)
    return dict(name=name, ok=ok, said=last(said.getvalue(), 1 if ok else 3), seconds=time.time()-t0)


def last(text, n):
    "The last `n` lines in one, without bars and the arrows of tracebacks"
    lines = [l.strip() for l in re.sub(r'[^\n]*\r', '', text).splitlines() if l.strip(' ^~')]
    return ' / '.join(lines[-n:])[-400:]


def run_page(page):
    "The cells of a page in order, in one namespace, from the page's folder"
    main = types.ModuleType('__main__')
    main.display = print
    old, here = sys.modules['__main__'], os.getcwd()
    sys.modules['__main__'] = main            # classes of a cell must be found there by DataLoader workers
    os.chdir(page.parent)
    try:
        for i, s in cell_sources(page): yield run_cell(f'{page.name} {i}', s, vars(main))
    finally:
        sys.modules['__main__'] = old
        os.chdir(here)


def unknown(source, space):
    "Names that a cell reads and that neither it, nor `space`, nor Python knows; its own are added to `space`"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), 'imports', 'exec'), space)
    nodes = list(ast.walk(tree))
    names = [n for n in nodes if isinstance(n, ast.Name)]
    own = {n.id for n in names if not isinstance(n.ctx, ast.Load)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    own |= {n.name for n in nodes if isinstance(getattr(n, 'name', None), str)}
    space |= dict.fromkeys(own - space.keys())
    return sorted({n.id for n in names} - space.keys() - {*dir(builtins), 'display'})


def check_page(page):
    "Do the cells parse, are their imports there, do they need nothing but each other?"
    space = {}
    for i, s in cell_sources(page):
        t0, name = time.time(), f'{page.name} {i}'
        try: lost = unknown(s, space)
        except Exception as e: bad = f'{type(e).__name__}: {e}'
        else: bad = f'no gpu cell of this page defines {", ".join(lost)}' if lost else ''
        yield dict(name=name, ok=not bad, said=bad or 'imports and names are there', seconds=time.time()-t0)


def rehearse(page):
    "Without a GPU: what stands on its own is run on the CPU, which every such cell must stand"
    rows = list(check_page(page))
    yield from run_page(page) if all(r['ok'] for r in rows) else rows


SAMPLE = {'good.ipynb': ['#| gpu\nimport math\nx = [2.]', 'y = 1/0', '#| gpu\nx += [math.sqrt(x[0]*2)]\nprint("made", x[1])'],
          'bad.ipynb': ['# | gpu\nraise ValueError("as it should")', '#| gpu\nprint(nowhere)']}


def runner():
    "Two sample notebooks: are cells found, run in order in one namespace, and is a failure told?"
    with tempfile.TemporaryDirectory() as d:
        for name, sources in SAMPLE.items():
            cells = [dict(cell_type='code', id=f'c{k}', source=s.splitlines(True)) for k, s in enumerate(sources)]
            (Path(d)/name).write_text(json.dumps(dict(cells=cells)), 'utf-8')
        pages = gpu_pages(d)
        ran, seen = ([r for p in pages for r in f(p)] for f in (run_page, check_page))
    good = [r['ok'] for r in ran] == [False, False, True, True] and ran[3]['said'] == 'made 2.0'
    told = 'ValueError: as it should' in ran[0]['said'] and [r['ok'] for r in seen] == [True, False, True, True]
    yield dict(name='the runner of cells', ok=good and told, said=f'{len(ran)} sample cells of {len(pages)} pages', seconds=0.)


# A part, in a process of its own

def cell_jobs(tiny):
    jobs = {str(p.relative_to(ROOT)): lambda p=p: (rehearse if tiny else run_page)(p) for p in gpu_pages()}
    return (jobs or {'pages with gpu cells': nothing}) | (dict(runner=runner) if tiny else {})


def nothing(): yield dict(name='pages with gpu cells', ok=None, said='no page has one yet', seconds=0.)


def jobs_of(part, a):
    "{job: fn() -> rows, as they come}"
    if part == 'cells': return cell_jobs(a.tiny)
    import gpu_parts
    return gpu_parts.jobs_of(part, a)


def child(a):
    "Run the named jobs of one part; what comes is written at once"
    results, jobs = Results(a.out), jobs_of(a.part, a)
    for job in json.loads(a.jobs):
        results.start(a.part, job)
        print(f'=== {a.part}: {job}', flush=True)
        try:
            for row in jobs[job](): results.add(a.part, job, row)
        except BaseException as e:
            traceback.print_exc()
            results.add(a.part, job, dict(name=job, ok=False, said=f'{type(e).__name__}: {e}'[:400], seconds=0.))
        results.end(a.part, job)


# The parent

def unpack(wheels, site):
    "Unpack the wheels that fit this Python into the folder `site`; names of the others"
    mine, left = f'cp{sys.version_info[0]}{sys.version_info[1]}', []
    for w in sorted(Path(wheels).glob('*.whl')):
        python, abi, platform = w.stem.split('-')[-3:]
        fits = {'py3', mine} & {*python.split('.')} or abi == 'abi3'
        if fits: zipfile.ZipFile(w).extractall(site)
        else: left.append(w.name)
    return left


def environment(a, site, part):
    path = [str(ROOT), str(site), os.environ.get('PYTHONPATH', '')]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, path)), MPLBACKEND='Agg', HF_HUB_OFFLINE='1')
    env |= dict(CUDA_VISIBLE_DEVICES='', ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1') if a.tiny else {}
    return env | (dict(CUBLAS_WORKSPACE_CONFIG=':4096:8') if part == 'proofs' else {})


def stop(p):
    "End a child and all that it started"
    with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGKILL)
    p.wait()


def show(row):
    mark = {True: 'ok', False: 'FAILED', None: '-'}[row['ok']]
    print(f"{mark:>6}  {row['part']:<8}  {row['name']:<34} {row['seconds']:6.1f} s  {row['said']}", flush=True)


def watch(p, results, limit, until):
    "Wait for a child, showing its rows; why it was stopped, or None"
    shown, why = len(results.read()['rows']), None
    while not why:
        over = p.poll() is not None
        d = results.read()
        for row in d['rows'][shown:]: show(row)
        shown, run, now = len(d['rows']), d['running'], time.time()
        if over: return None
        if now > until: why = 'out of time'
        elif run and now - run['since'] > limit: why = f'stopped after {limit:.0f} s'
        else: time.sleep(.2)
    return why


def spawn(a, part, jobs, site):
    cmd = [sys.executable, str(HERE), '--part', part, '--jobs', json.dumps(jobs), '--out', str(a.out)]
    cmd += ['--tiny']*a.tiny + (['--train-shipped', str(a.train_shipped)] if a.train_shipped else [])
    cmd += ['--captioned', str(a.captioned.resolve())] if a.captioned else []
    with open(a.out/'log.txt', 'a') as log:
        return subprocess.Popen(cmd, cwd=ROOT, env=environment(a, site, part), stdin=subprocess.DEVNULL, stdout=log,
                                stderr=log, preexec_fn=os.setpgrp)    # a group to kill; no session that would outlive us


def missed(results, part, job, why, failed):
    row = dict(name=job, ok=False if failed else None, said=why, seconds=0.)
    results.add(part, job, row)
    results.end(part, job)
    show(dict(row, part=part))


def after(results, p, part, why, n):
    "Take down what a child left: one row for the job that it did not end"
    run, log = results.read()['running'], (results.file.parent/'log.txt').read_text('utf-8', 'replace')
    died = f'ended with exit code {p.returncode}: {last(log[log.rfind("==="):], 4)}'
    late = why == 'out of time' and part not in MUST
    if run and run['part'] == part: missed(results, part, run['job'], why or died, not late)
    elif not why and p.returncode: missed(results, part, n, died, True)      # it did not even begin


def run_part(a, results, part, jobs, until, site):
    "All jobs of a part, in as many processes as it takes"
    todo = list(jobs)
    while todo and time.time() < until - 3:
        some = todo[:1] if part == 'cells' else todo
        p = spawn(a, part, some, site)
        try: why = watch(p, results, limit_of(part, a), until)
        finally: stop(p)
        after(results, p, part, why, todo[0])
        done = [j for q, j in results.read()['done'] if q == part]
        todo = [j for j in todo if j not in done]
    for job in todo: missed(results, part, job, 'not begun: out of time', part in MUST)


def limit_of(part, a): return 60*a.train_shipped*1.25 + EXAM if part == 'shipped' else JOB[part]


def table(d):
    "The rows as text"
    about = ', '.join(f'{k} {v}' for k, v in d['about'].items())
    lines = [about, '', '| part | what | | s | |', '|---|---|---|---|---|']
    for r in d['rows']:
        mark = {True: 'ok', False: 'FAILED', None: '-'}[r['ok']]
        lines.append(f"| {r['part']} | {r['name']} | {mark} | {r['seconds']:.1f} | {r['said'].replace('|', '/')} |")
    bad, ok = (sum(r['ok'] is v for r in d['rows']) for v in (False, True))
    return '\n'.join([*lines, '', f'{ok} ok, {bad} failed, {len(d["rows"])-ok-bad} without a figure'])


def about(tiny):
    import platform, torch
    d = dict(torch=torch.__version__, python=platform.python_version(), date=time.strftime('%Y-%m-%d'))
    if tiny: return dict(device='cpu') | d
    p = torch.cuda.get_device_properties(0)
    return dict(device=p.name, capability=f'{p.major}.{p.minor}', memory=f'{p.total_memory/2**30:.0f} GiB',
                cuda=torch.version.cuda) | d


def chosen(a):
    "{part: second at which it ends}"
    parts = a.parts.replace(' ', '').split(',') if a.parts else [*PARTS, *(['shipped'] if a.train_shipped else [])]
    odd = [p for p in parts if p not in (*PARTS, 'shipped')]
    if odd: sys.exit(f'unknown parts {odd}: there are {", ".join(PARTS)}, shipped')
    if ('shipped' in parts) != bool(a.train_shipped): sys.exit('the part shipped and --train-shipped go together')
    if a.captioned and not a.train_shipped: sys.exit('--captioned says what --train-shipped trains: give both')
    lost = [k for k in ('cache/manifest.json', 'vae', 'text_encoder') if a.captioned and not (a.captioned/k).exists()]
    if lost: sys.exit(f'{a.captioned} lacks {", ".join(lost)}')
    share, until, now = sum(PARTS.get(p, 0) for p in parts), {}, 0.
    for p in parts:
        now += (60*a.minutes - 10)*PARTS[p]/share if p in PARTS else limit_of(p, a)
        until[p] = now
    return until


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path(os.environ.get('OUT') or 'gpu_out'))
    p.add_argument('--wheels', type=Path)
    p.add_argument('--tiny', action='store_true')
    p.add_argument('--parts', default='')
    p.add_argument('--minutes', type=float, default=9.)
    p.add_argument('--train-shipped', type=float, default=0., metavar='MINUTES')
    p.add_argument('--captioned', type=Path, metavar='DIR')
    p.add_argument('--part', help=argparse.SUPPRESS)   # a child: this part ...
    p.add_argument('--jobs', help=argparse.SUPPRESS)   # ... and these jobs of it
    return p.parse_args()


def measure(a, results, t0, site):
    for w in unpack(a.wheels, site) if a.wheels else []: print(f'left out, for another Python: {w}')
    try:
        for part, end in chosen(a).items():
            run_part(a, results, part, jobs_of(part, a), t0 + end, site)
            whole(a.out/'table.md', table(results.read()) + '\n')
    finally:
        d = results.read()
        results.write(d | dict(seconds=time.time()-t0))
        whole(a.out/'table.md', table(d) + '\n')


def main():
    a, t0 = arguments(), time.time()
    a.out = a.out.resolve()
    if a.part: return child(a)
    chosen(a)
    import torch
    if not a.tiny and not torch.cuda.is_available():
        print('torch sees no CUDA device here: run this on a machine that has one, or pass --tiny')
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out/'log.txt').write_text('')
    results = Results(a.out)
    results.write(dict(about=about(a.tiny), rows=[], done=[], running=None))
    with tempfile.TemporaryDirectory() as site: measure(a, results, t0, Path(site))
    d = results.read()
    print(f'\n{table(d)}\n{time.time()-t0:.0f} s; rows in {a.out}')
    sys.exit(1 if any(r['ok'] is False for r in d['rows']) or not d['rows'] else 0)


if __name__ == '__main__': main()
