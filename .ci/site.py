"""The book as a static site, where no Quarto is: every page as HTML, formulas as MathML; nothing is fetched, by the build or by a reader.

    python .ci/site.py OUT             build, then check
    python .ci/site.py --check OUT     only the check: links, anchors, pictures, formulas, titles
    python .ci/site.py --quarto        write the same reading order into the sidebar of nbs/_quarto.yml
    python .ci/site.py --look OUT      in Chromium at 390 and 1280 pixels: no page scrolls sideways; screenshots of some in OUT/shots (wants playwright)

Needs nbconvert, and latex2mathml for the formulas. `#| hide` is dropped; folded cells are <details>; definitions keep their source and get an anchor of their name.
"""
import argparse, base64, html, json, os, re, shutil, struct, sys, time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from readme import ROOT, settings

NBS, HERE = ROOT/'nbs', Path(__file__).resolve().parent
DIRECTIVE = re.compile(r'^\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*)$')
ANSI = re.compile(r'\x1b\[[0-9;]*m')
BADGE = re.compile(r'\[!\[Open In Colab\]\([^)]*\)\]\(([^)]*)\)', re.I)
NAME = re.compile(r'(?m)^(?:@patch\w*(?:\(.*\))?\n(?:@.*\n)*def (?P<method>\w+)\(\s*\w+\s*:\s*(?P<owner>\w+)|(?:async )?def (?P<def>[A-Za-z]\w*)|class (?P<cls>[A-Za-z]\w*)|(?P<const>[A-Z][A-Z0-9_]{2,})\s*(?::[^=\n]+)?=(?!=))')


def slug(text):
    "The anchor pandoc makes of a heading"
    s = re.sub(r'[^\w\s.-]', '', html.unescape(re.sub(r'<[^>]+>', '', text))).lower()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', s.strip())) or 'section'


class Page:
    "One notebook, and what the site says of it"
    def __init__(self, path):
        self.path, self.cells = path, json.loads(path.read_text(encoding='utf-8'))['cells']
        self.file = path.relative_to(NBS).as_posix(); self.html = re.sub(r'ipynb$', 'html', self.file)
        head = next((''.join(c['source']) for c in self.cells if c['cell_type'] == 'markdown'), '')
        m, s = re.search(r'(?m)^# +(.+)$', head), re.search(r'(?m)^> +(.+)$', head)
        n = re.match(r'\d\d[a-z]?', path.name)
        self.title = re.sub(r'[`*]', '', m[1]).strip() if m else ''
        self.label = f'{n[0]} {self.title}' if n else self.title
        self.subtitle = re.sub(r'[`*]|\$', '', s[1]) if s else ''
        cfg = settings(); self.source = f'https://github.com/{cfg["user"]}/{cfg["repo"]}/blob/{cfg["branch"]}/nbs/{self.file}'
        self.toc, self.ids = [], Counter()


def directives(lines):
    "Directives at the top of a cell, and its other lines"
    found = [m for l in lines for m in [DIRECTIVE.match(l)] if m]
    return {m[1]: m[2].strip() for m in found}, [l for l in lines if not DIRECTIVE.match(l)]


def defined(page):
    "Names that the page exports"
    for c in page.cells:
        if c['cell_type'] != 'code': continue
        d, lines = directives(''.join(c['source']).splitlines())
        if d.keys() & {'export', 'exports'} and 'hide' not in d: yield from names('\n'.join(lines))


def names(source): return [f'{m["owner"]}.{m["method"]}' if m['method'] else m['def'] or m['cls'] or m['const'] for m in NAME.finditer(source)]


def reading_order():
    "Parts with their chapters, each a list of pages, as nbs/index.ipynb lists them; what it lists not comes last"
    left = {p.relative_to(NBS).as_posix(): Page(p) for p in [*sorted(NBS.glob('*.ipynb')), *sorted((NBS/'tutorials').glob('*.ipynb'))]}
    index = left.pop('index.ipynb'); parts = [dict(name='Start', chapters=[[index]])]
    for line in '\n'.join(''.join(c['source']) for c in index.cells if c['cell_type'] == 'markdown').splitlines():
        if m := re.match(r'\*\*(.+?)\*\*', line): head = m[1]
        found = [left.pop(t) for t in re.findall(r'\]\(([\w./]+\.ipynb)\)', line) if t in left] if line.startswith('|') else []
        if not found: continue
        if parts[-1]['name'] != head: parts.append(dict(name=head, chapters=[]))
        parts[-1]['chapters'].append(found)
    if left: parts.append(dict(name='More', chapters=[[p] for p in left.values()]))
    for p in parts: p['name'] = p['name'][0].upper() + p['name'][1:]
    return parts


def formulas():
    "A function TeX -> MathML, or None"
    try: from latex2mathml.converter import convert
    except ImportError: return None
    return convert


def renderer(page, out, known):
    "Markdown of one page -> HTML"
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    tex = formulas()

    class Renderer(IPythonRenderer):
        def formula(self, body, display):
            body = html.unescape(body).strip()
            if tex: return tex(body, display=display)
            return f'$${html.escape(body)}$$' if display == 'block' else f'${html.escape(body)}$'
        def inline_math(self, body):
            m = self.formula(body, 'inline')
            return f'<span class="wide">{m}</span>' if len(body) > 40 else m
        def block_math(self, body): return f'<div class="formula">{self.formula(body, "block")}</div>'
        def latex_environment(self, name, body): return self.block_math(f'\\begin{{{name}}}{body}\\end{{{name}}}')
        def paragraph(self, text): return text if text.startswith('<div') and text.endswith('</div>') else super().paragraph(text)
        def table(self, text): return f'<div class="scroll"><table>{text}</table></div>'
        def codespan(self, text):
            code, at = f'<code>{html.escape(html.unescape(text))}</code>', known.get(re.sub(r'\(.*\)$', '', text))
            return f'<a class="name" href="{self.to(at[0].html)}#{at[1]}">{code}</a>' if at and at[0] is not page else code
        def to(self, target): return os.path.relpath(target, Path(page.html).parent)
        def link(self, text, url, title=None): return super().link(re.sub(r'</?a\b[^>]*>', '', text), self.target(url), title)
        def target(self, url):
            if re.match(r'[a-z]+:|#', url): return url
            path, _, anchor = url.partition('#'); f = (page.path.parent/unquote(path)).resolve()
            if f.suffix == '.ipynb' and f.is_relative_to(NBS): return self.to(f.relative_to(NBS).with_suffix('.html')) + (f'#{anchor}' if anchor else '')
            return f'{page.source.split("/blob/")[0]}/blob/{settings()["branch"]}/{f.relative_to(ROOT).as_posix()}' if f.exists() and f.is_relative_to(ROOT) else url
        def image(self, text, url, title=None):
            f = (page.path.parent/unquote(url)).resolve()
            if ':' not in url and f.exists():
                to = out/f.relative_to(NBS); to.parent.mkdir(parents=True, exist_ok=True); shutil.copyfile(f, to)
            return f'<img src="{html.escape(url)}" alt="{html.escape(re.sub("<[^>]+>", "", text))}"{size(f)}>'
        def heading(self, text, level, **attrs):
            text = re.sub(r'</?a\b[^>]*>', '', text); id = taken(page, slug(text))
            if level == 2: page.toc.append((id, text))
            return f'<h{level} id="{id}">{text}<a class="anchor" href="#{id}" aria-label="Link to this section">#</a></h{level}>\n'
    return MarkdownWithMath(renderer=Renderer(escape=False)).render


def taken(page, id):
    "`id`, or with a number after it where the page has it already"
    page.ids[id] += 1
    return id if page.ids[id] == 1 else f'{id}-{page.ids[id]-1}'


def size(f):
    "Width and height of a PNG, so that nothing jumps while the page loads"
    if f.suffix != '.png' or not f.exists(): return ''
    w, h = struct.unpack('>II', f.read_bytes()[16:24])
    return f' width="{w}" height="{h}"'


def outputs(page, cell, alt, out):
    "What a cell printed and drew; pictures go to files"
    parts = []
    for k, o in enumerate(cell['outputs']):
        data = o.get('data', {}); text = ''.join(o.get('text', data.get('text/plain', [])))
        kind = next((m for m in ('image/png', 'image/jpeg') if m in data), None)
        if kind:
            f = out/Path(page.html).with_suffix('')/f'{cell["id"]}-{k}.{kind[6:]}'; f.parent.mkdir(parents=True, exist_ok=True)
            f.write_bytes(base64.b64decode(''.join(data[kind])))
            src = f.relative_to((out/page.html).parent).as_posix()
            parts.append(f'<figure><img src="{src}" alt="{html.escape(alt)}" loading="lazy"{size(f)}></figure>')
        elif text.strip(): parts.append(f'<pre>{html.escape(ANSI.sub("", text)).rstrip()}</pre>')
    return f'<div class="out">{"".join(parts)}</div>' if parts else ''


def title(lines):
    "What the summary of a folded cell says"
    m = re.match(r'#@title\s+(.+)', lines[0]) if lines else None
    return m[1] if m else 'Imports' if all(re.match(r'(import|from)\s|\s|$|#', l) for l in lines) else 'Code'


def cell_html(page, cell, out, dress):
    "A code cell as Quarto would show it"
    d, lines = directives(''.join(cell['source']).splitlines())
    if d.keys() & {'hide', 'default_exp'}: return ''
    fold = d.get('code-fold') == 'true' or cell['metadata'].get('jupyter', {}).get('source_hidden')
    head = title(lines)
    if lines and lines[0].startswith('#@title'): lines = lines[1:]
    source = '\n'.join(lines).strip('\n')
    code = dress(source) if source else ''
    ids = [taken(page, n) for n in names(source)] if d.keys() & {'export', 'exports'} else []
    flags = [k for k in ('gpu', 'net', 'slow') if k in d]
    note = f'<p class="note">Not run here: needs {dict(gpu="a GPU", net="the network", slow="patience")[flags[0]]}.</p>' if flags else ''
    shown = f'{code}{note}{outputs(page, cell, d.get("fig-alt", ""), out)}'
    if fold: shown = f'<details class="fold"><summary>{html.escape(head)}</summary>{shown}</details>'
    marks = ''.join(f'<a id="{i}"></a>' for i in ids)
    return f'<div class="cell{" def" if ids and not fold else ""}">{marks}{shown}</div>' if code or shown else ''


def build(out):
    "Write the site to folder `out`; its pages in reading order"
    from jinja2 import Environment
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import Python3Lexer
    parts = reading_order(); pages = [p for part in parts for c in part['chapters'] for p in c]
    out.mkdir(parents=True, exist_ok=True)
    where = {}
    for p in pages:
        for n in defined(p): where.setdefault(n, []).append(p)
    known = {n: (ps[0], n) for n, ps in where.items() if len(ps) == 1}
    light, dark = HtmlFormatter(style='default'), HtmlFormatter(style='github-dark')
    dress = lambda s: highlight(s, Python3Lexer(), light)
    css = (HERE/'site.css').read_text(encoding='utf-8')
    (out/'site.css').write_text(css + light.get_style_defs('.highlight') + '\n@media (prefers-color-scheme:dark) {\n' + dark.get_style_defs('.highlight') + '\n}\n', encoding='utf-8')
    template, cfg = Environment(trim_blocks=False).from_string((HERE/'site.html').read_text(encoding='utf-8')), settings()
    def write(page, body, before, after):
        f = out/page.html; f.parent.mkdir(parents=True, exist_ok=True)
        up = '../'*(len(Path(page.html).parts) - 1)
        f.write_text(template.render(page=page, body=body, before=before, after=after, up=up, parts=parts, name=cfg['repo'], version=cfg['version']), encoding='utf-8')
    for k, page in enumerate(pages):
        md, body = renderer(page, out, known), []
        for c in page.cells:
            if c['cell_type'] == 'markdown':
                text = BADGE.sub(rf'<p class="badge"><a href="\1">Open in Colab</a> <a href="{page.source}">Notebook</a></p>', ''.join(c['source']))
                body.append(md(text))
            elif c['cell_type'] == 'code': body.append(cell_html(page, c, out, dress))
        write(page, '\n'.join(filter(None, body)), pages[k-1] if k else None, pages[k+1] if k+1 < len(pages) else None)
    listing = Page(NBS/'index.ipynb')
    listing.html, listing.title, listing.label, listing.subtitle = 'names.html', 'All names', 'All names', 'Every exported name and the page that builds it'
    rows = ''.join(f'<li><a href="{p.html}#{n}"><code>{n}</code></a> {html.escape(p.label)}</li>' for n in sorted(where, key=str.lower) for p in where[n])
    write(listing, f'<h1>All names</h1><p>Every name that the pages export, and the page that builds it.</p><ul>{rows}</ul>', None, None)
    return pages


def quarto(write):
    "nbs/_quarto.yml with the sidebar in reading order: write it, or say whether it is so already"
    f, q = NBS/'_quarto.yml', lambda s: json.dumps(s, ensure_ascii=False)
    lines = ['    contents:']
    for part in reading_order():
        lines.append(f'      - section: {q(part["name"])}\n        contents:')
        for chapter in part['chapters']:
            one, at = len(chapter) == 1, [f'text: {q(p.label)}\n{{0}}href: {p.file}' for p in chapter]
            if one: lines.append('          - ' + at[0].format(' '*12))
            else: lines += [f'          - section: {q(chapter[0].label)}\n            contents:', *['              - ' + a.format(' '*16) for a in at]]
    mark = '  # made by .ci/site.py --quarto'
    old = f.read_text(encoding='utf-8')
    text = old.split(mark)[0].rstrip() + '\n' + mark + '\n  sidebar:\n    style: floating\n    collapse-level: 1\n' + '\n'.join(lines) + '\n'
    if write: f.write_text(text, encoding='utf-8')
    return text == old


class Reader(HTMLParser):
    "Ids, links, pictures, title and text of one built page"
    def __init__(self, text):
        super().__init__(); self.ids, self.links, self.images, self.faults, self.title, self.words, self.inside = set(), [], [], [], '', [], []
        self.maths = self.blocks = 0; self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag not in ('meta', 'link', 'img', 'input', 'br', 'hr'): self.inside.append(tag)
        if a.get('id'):
            if a['id'] in self.ids: self.faults.append(f'two elements called #{a["id"]}')
            self.ids.add(a['id'])
        if tag == 'a' and 'href' in a: self.links.append(a['href'])
        if tag == 'link' and a.get('rel') == 'stylesheet': self.links.append(a['href'])
        if tag == 'img':
            self.images.append(a.get('src', ''))
            if not a.get('alt'): self.faults.append(f'{a.get("src")}: no alt')
        self.maths += tag == 'math'; self.blocks += tag == 'details' and a.get('class') == 'fold'
        if tag == 'merror': self.faults.append('a formula that is not understood')
    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag: pass
    def handle_data(self, data):
        if 'title' in self.inside: self.title += data
        elif 'math' in self.inside and '\\' in data: self.faults.append(f'unrendered in a formula: {data}')
        elif not {'pre', 'code', 'style', 'script', 'math'} & set(self.inside): self.words.append(data)


def check(out):
    "What is broken in a built site, and its figures"
    read = {f.relative_to(out).as_posix(): Reader(f.read_text(encoding='utf-8')) for f in sorted(out.rglob('*.html'))}
    bad, outside, n = [], Counter(), Counter()
    for at, r in read.items():
        here = (out/at).parent; bad += [f'{at}: {x}' for x in r.faults]
        if not r.title.split('·')[0].strip(): bad.append(f'{at}: no title')
        text = ''.join(r.words)
        bad += [f'{at}: unrendered formula {m}' for m in re.findall(r'\$\$?[^$\n]{1,60}\$|\\\([^)]*\\\)|\\begin\{', text)]
        for url in r.links + r.images:
            if re.match(r'[a-z]+:', url): outside[url] += 1; continue
            path, _, anchor = unquote(url).partition('#')
            f = (here/path).resolve() if path else out/at
            if not f.is_file() or not f.is_relative_to(out.resolve()) and path: bad.append(f'{at}: {url} does not exist'); continue
            if anchor and anchor not in read[f.resolve().relative_to(out.resolve()).as_posix()].ids: bad.append(f'{at}: {url}: no such anchor')
        n += Counter(pages=1, links=len(r.links), images=len(r.images), formulas=r.maths, folded=r.blocks)
    lost = [p.relative_to(NBS) for p in NBS.rglob('*.ipynb') if not any(s[0] in '._' for s in p.relative_to(NBS).parts) and not (out/p.relative_to(NBS)).with_suffix('.html').exists()]
    bad += [f'{p}: not in the site' for p in lost]
    n['MB'] = round(sum(f.stat().st_size for f in out.rglob('*') if f.is_file())/1e6)
    return bad, outside, n


def look(out, chromium, shots):
    "Every page in a browser: none scrolls sideways at 390 and 1280 pixels; screenshots of `shots`"
    from playwright.sync_api import sync_playwright
    bad = []; (out/'shots').mkdir(exist_ok=True)
    with sync_playwright() as pw:
        chrome = pw.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'])
        for width, scheme in (390, 'light'), (1280, 'light'), (390, 'dark'):
            page = chrome.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
            for f in sorted(out.rglob('*.html')):
                at = f.relative_to(out).as_posix()
                if scheme == 'dark' and at not in shots: continue
                page.goto(f.resolve().as_uri()); w = page.evaluate('document.scrollingElement.scrollWidth')
                if w > width: bad.append(f'{at}: {w} pixels wide on a screen of {width}')
                broken = page.evaluate('[...document.images].filter(i => i.loading != "lazy" && i.complete && !i.naturalWidth).map(i => i.src)')
                bad += [f'{at}: the browser cannot show {b}' for b in broken]
                if at in shots: page.screenshot(path=str(out/'shots'/f'{at.replace("/", "-")}-{width}-{scheme}.png'))
            page.close()
        chrome.close()
    return bad


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('out', type=Path, nargs='?', default=Path('_site')); ap.add_argument('--quarto', action='store_true'); ap.add_argument('--check', action='store_true'); ap.add_argument('--look', action='store_true')
    ap.add_argument('--chromium', default='/usr/bin/chromium'); ap.add_argument('--shots', nargs='+', default=['index.html', '08_losses.html', '04b_blocks.adaln.html', 'names.html'])
    args = ap.parse_args(); t0 = time.time()
    if args.quarto: quarto(True); return
    if not (args.check or args.look):
        if not formulas(): print('latex2mathml is missing (pip install latex2mathml): formulas stay TeX')
        build(args.out); print(f'{time.time()-t0:.1f} s to build')
    bad, outside, n = check(args.out)
    if not quarto(False): bad.append('nbs/_quarto.yml is not in reading order: run python .ci/site.py --quarto')
    if args.look: bad += look(args.out, args.chromium, args.shots)
    if args.check:
        for url, k in sorted(outside.items()): print(f'{k:5} {url}')
    print(f'{", ".join(f"{v:,} {k}" for k, v in n.items())}; {len(outside)} addresses outside, not fetched; {time.time()-t0:.1f} s')
    for b in bad: print('BROKEN ', b)
    sys.exit(bool(bad))


if __name__ == '__main__': main()
