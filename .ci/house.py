"""Is the house in order? Measures and links of the pages, and what the covers of chapters pass on (standard library only).

    python .ci/house.py             every page and module with its numbers, then what is out of order
    python .ci/house.py --numbers   numbers in prose that stand in no output and in no code of their page
"""
import ast, json, re, statistics, subprocess, sys
from readme import ROOT

NBS, PKG = ROOT/'nbs', ROOT/'dit_clipped'
REFUSAL, HEADING = re.compile(r'\btest_fail\('), re.compile(r'(?m)^## ')
PLUMBING = re.compile(r'#\s*\|\s*(hide|default_exp|eval: *false)')


def source(cell): return ''.join(cell['source'])


def cells(page): return json.loads(page.read_text(encoding='utf-8'))['cells']


def pages(): return sorted(NBS.glob('[0-9]*.ipynb'))


def book():
    "All pages a reader may open"
    return [NBS/'index.ipynb', *pages(), *sorted((NBS/'tutorials').glob('*.ipynb'))]


def drawn(cell): return any(k.startswith('image/') for o in cell.get('outputs', []) for k in o.get('data', {}))


def measured(page):
    "Cells, words, tests, figures; refusals outside Edge cases; visible code cells up to the first picture; Edge cases left open"
    d = dict(cells=0, words=0, tests=0, figures=0, refusals=0, first=None, unfolded=0, longest=0)
    edge = visible = 0
    for c in cells(page):
        s = source(c)
        d['cells'] += 1
        if c['cell_type'] == 'markdown':
            d['words'] += len(re.sub(r'<[^>]+>|!?\[!?\[?[^\]]*\]\([^)]*\)', '', s).split())
            if HEADING.search(s): edge = bool(re.search(r'(?mi)^##+ .*edge cases', s))
            continue
        d['tests'] += len(re.findall(r'\btest_\w+\s*\(', s))
        d['figures'] += drawn(c)
        d['longest'] = max(d['longest'], sum(bool(l.strip()) and not re.match(r'\s*#\s*\|', l) for l in s.splitlines()))
        if edge:
            d['unfolded'] += not c['metadata'].get('jupyter', {}).get('source_hidden')
            continue
        d['refusals'] += len(REFUSAL.findall(s))
        if PLUMBING.search(s): continue
        visible += 1
        if drawn(c) and d['first'] is None: d['first'] = visible
    return d


def modules(): return {f.relative_to(PKG).as_posix(): len(f.read_text(encoding='utf-8').splitlines()) for f in PKG.rglob('*.py') if f.name != '_modidx.py'}


def check_sizes():
    "A page has at most 110 cells, 3 refusals outside Edge cases, a picture within six visible code cells; a module at most 300 lines"
    bad, bare, m = [], [], {p: measured(p) for p in pages()}
    for p, d in m.items():
        if d['cells'] > 110: bad.append(f'{p.name}: {d["cells"]} cells, at most 110')
        if d['refusals'] > 3: bad.append(f'{p.name}: {d["refusals"]} refusals outside Edge cases, at most 3')
        if d['unfolded']: bad.append(f'{p.name}: {d["unfolded"]} edge cases are not folded')
        if d['first'] is None: bare.append(p.name)
        elif d['first'] > 6: bad.append(f'{p.name}: the first picture comes with visible code cell {d["first"]}, at most 6')
    if len(bare) > 20: bad.append(f'{len(bare)} pages without a picture, at most 20: {bare}')
    lines = modules()
    bad += [f'{k}: {v} lines, at most 300' for k, v in lines.items() if v > 300]
    middle = statistics.median(v for k, v in lines.items() if not k.endswith('__init__.py'))
    return bad + ([f'modules have {middle} lines in the median, at most 200'] if middle > 200 else [])


def check_order():
    "A badge opens its own page, a link is called like its page, and every Next leads to the next page"
    bad, order = [], [p.name for p in pages()]
    for p in book():
        text = '\n'.join(source(c) for c in cells(p) if c['cell_type'] == 'markdown')
        at = p.relative_to(NBS).as_posix()
        for m in re.findall(r'colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/nbs/([^)\s]+)', text):
            if m != at and p.name != 'index.ipynb': bad.append(f'{at}: the badge opens {m}')
        if p.name != 'index.ipynb' and f'nbs/{at})' not in text: bad.append(f'{at}: no badge')
        for label, target in re.findall(r'\[`?(\d\d[a-z]?(?:_[\w.]+)?)`?\]\((?:\.\./)?([\w.]+)\.ipynb', text):
            if not target.startswith(label): bad.append(f'{at}: [{label}] leads to {target}')
        if p.name in order[:-1]:
            n = re.findall(r'Next:? \[[^\]]*\]\(([^)]+)\)', text)
            want = order[order.index(p.name)+1]
            if not n or n[-1] != want: bad.append(f'{at}: Next leads to {n[-1] if n else "no page"}, not to {want}')
    return bad


def check_alt():
    "Every figure has words for those who cannot see it"
    return [f'{p.name} cell {c.get("id")}: no fig-alt' for p in book() for c in cells(p) if drawn(c) and '#| fig-alt:' not in source(c)]


def exported(file):
    "`__all__` of a module, and the methods it patches into classes: (class, method)"
    tree = ast.parse(file.read_text(encoding='utf-8'))
    names = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__'), [])
    methods = []
    for n in tree.body:
        if not isinstance(n, ast.FunctionDef): continue
        if not any('patch' == (getattr(d, 'id', '') or getattr(getattr(d, 'func', None), 'id', '')) for d in n.decorator_list): continue
        hint = n.args.args[0].annotation if n.args.args else None
        methods += [(h.id, n.name) for h in ast.walk(hint) if isinstance(h, ast.Name)] if hint else []
    return names, methods


PROBE = '''
import importlib, json, sys
package, names, methods, first = json.loads(sys.argv[1])
m = importlib.import_module(package)
loaded = [k for k in sys.modules if k.startswith(package + '.')]
bad = [f'{package}: importing it alone loads {loaded}'] if loaded else []
getattr(m, first)
for n in names:
    if not hasattr(m, n): bad.append(f'{package}.{n} is missing')
for c, n in methods:
    if hasattr(m, c) and not hasattr(getattr(m, c), n): bad.append(f'{package}.{c}.{n} is missing after asking for {first}')
print(json.dumps(bad))
'''


def check_covers():
    "In a fresh process: a cover is light, passes on every public name of its pages, and the first name brings every patched method"
    bad = []
    for init in sorted(PKG.glob('*/__init__.py')):
        if init.parent.name == 'shipped': continue
        mine, _ = exported(init)
        parts = [exported(f) for f in sorted(init.parent.glob('*.py')) if f != init]
        theirs, methods = [n for p in parts for n in p[0]], [m for p in parts for m in p[1]]
        package = f'dit_clipped.{init.parent.name}'
        if set(mine) != set(theirs): bad.append(f'{package}: its cover and its pages differ in {sorted(set(mine) ^ set(theirs))}')
        if len(set(theirs)) != len(theirs): bad.append(f'{package}: two pages export {[n for n in set(theirs) if theirs.count(n) > 1]}')
        if not theirs: continue
        r = subprocess.run([sys.executable, '-c', PROBE, json.dumps([package, theirs, methods, theirs[0]])], capture_output=True, text=True, cwd=ROOT)
        bad += json.loads(r.stdout.splitlines()[-1]) if r.returncode == 0 else [f'{package}: {r.stderr[-300:]}']
    return bad


def check_files():
    "Every module is exported from a page that exists; none is left over"
    pats = {f'{m[1].strip().replace(".", "/")}.py' for p in pages() for c in cells(p) for m in [re.search(r'#\s*\|\s*default_exp\s+(\S+)', source(c))] if m}
    have = {k for k in modules() if not k.startswith('shipped/') and k != '__init__.py'}
    return [f'{k}: no page exports it' for k in sorted(have-pats)] + [f'{k}: its page did not export it' for k in sorted(pats-have)]


NUMBER = re.compile(r'(?<![\w.,/:#-])(\d{1,3}(?:,\d{3})+|\d+\.\d+|\d+(?=\s*%))(?![\w./-]*\w)')
ELSEWHERE = re.compile(r'LOG|arXiv|paper|published|et al|\(20\d\d|Table|http|doi')


def numbers_of(text):
    "Every number of code or output, 10_000 and 10,000 alike"
    text = re.sub(r'(?<=\d)_(?=\d)', '', text)
    return [float(m.replace(',', '')) for m in re.findall(r'-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d*\.\d+(?:e-?\d+)?|-?\d+(?:e-?\d+)?', text)]


def denied(page):
    "(cell, number, sentence) of prose whose number stands, rounded or as a percentage, in no output and no code of its page, and has no source"
    known = []
    for c in cells(page):
        if c['cell_type'] == 'markdown': continue
        texts = [source(c)] + [''.join(o.get('text', [])) + ''.join(o.get('data', {}).get('text/plain', [])) for o in c.get('outputs', [])]
        known += [v for t in texts for v in numbers_of(t)]
    out = []
    for c in cells(page):
        if c['cell_type'] != 'markdown' or re.search(r'## Try it|^\*\*\d\. ', source(c)): continue   # exercises have checks
        for raw in re.split(r'(?<=[.:;!?])\s', re.sub(r'\$\$?[^$]*\$\$?|\|[^\n]*\|', ' ', source(c), flags=re.S)):
            if ELSEWHERE.search(raw): continue
            sentence = re.sub(r'`[^`]*`|!?\[[^\]]*\]\([^)]*\)', ' ', raw)
            for m in NUMBER.finditer(sentence):
                n, half = float(m[1].replace(',', '')), .51*10**-len(m[1].partition('.')[2])
                percent = re.match(r'\s*%', sentence[m.end():])
                near = [v for v in known if abs(abs(v)-n) <= half or percent and abs(100*abs(v)-n) <= half]
                if not near: out.append((c.get('id'), m[1], ' '.join(sentence.split())[:110]))
    return out


def check_numbers(): return [f'{p.name} {i}: {n} in "{s}"' for p in book() for i, n, s in denied(p)]


CHECKS = [('sizes of pages and modules', check_sizes), ('badges, links and reading order', check_order), ('every figure has a fig-alt', check_alt),
          ('covers pass on every name and method', check_covers), ('modules and pages belong together', check_files),
          ('numbers in prose stand on their page', check_numbers)]


def main():
    if '--numbers' in sys.argv: return print('\n'.join(check_numbers()))
    for p in book():
        d = measured(p)
        print(f'{p.name:40}', *(f'{k} {v}' for k, v in d.items()))
    for name, f in CHECKS:
        bad = f()
        print('ok' if not bad else 'FAILED', name)
        for b in bad: print('    ', b)


if __name__ == '__main__': main()
