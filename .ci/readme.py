"""README.md from nbs/index.ipynb, and the links of the whole book from settings.ini.

    python .ci/readme.py            write README.md
    python .ci/readme.py --links    rewrite owner, repo, branch and the release in every badge, link and pinned install line, then write README.md
"""
import base64, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGE = re.compile(r'(\]\(|src=")images/')
CHAPTER = re.compile(r'\]\((?!https?:)((?:tutorials/)?[\w.-]+\.ipynb)\)')


def settings():
    "The values of settings.ini as a mapping"
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def hidden(cell):
    "A cell that readers of the README should not see"
    return any(re.match(r'#\s*\|\s*(hide|export|default_exp|eval:)', l) for l in cell['source'])


def outputs(cell):
    "What a cell printed, as an indented block"
    texts = [''.join(o['text']) for o in cell['outputs'] if o['output_type'] == 'stream']
    return ''.join('\n\n'+'\n'.join('    '+l for l in t.rstrip().splitlines()) for t in texts)


def pictures(cell):
    "The PNG files a cell drew: name in nbs/images -> bytes"
    data = [o['data']['image/png'] for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
    return {f'index-{cell["id"]}-{i}.png': base64.b64decode(''.join(d)) for i, d in enumerate(data)}


def page():
    "README.md as one string, and the pictures it shows: name in nbs/images -> bytes"
    nb = json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))
    parts, pngs = ['<!-- Made from nbs/index.ipynb by `python .ci/readme.py`: edit the notebook, not this file. -->'], {}
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown': parts.append(src)
        if c['cell_type'] != 'code' or hidden(c): continue
        parts.append(f'```python\n{src}\n```{outputs(c)}')
        parts += [f'![What these lines draw](images/{name})' for name in pictures(c)]
        pngs.update(pictures(c))
    text = '\n\n'.join(parts)
    return CHAPTER.sub(r'](nbs/\1)', IMAGE.sub(r'\1nbs/images/', text)).strip()+'\n', pngs


def stale():
    "What is not as nbs/index.ipynb says: README.md, or a picture of it"
    text, pngs = page()
    want = {ROOT/'README.md': text.encode(), **{ROOT/'nbs/images'/n: b for n, b in pngs.items()}}
    old = [f for f in (ROOT/'nbs/images').glob('index-*.png') if f not in want]
    return {f: b for f, b in want.items() if not f.exists() or f.read_bytes() != b}, old


def link_patterns(cfg):
    "Pairs (pattern, what it must read) for every address that names the owner, the repository or the branch"
    user, repo, branch = cfg['user'], cfg['repo'], cfg['branch']
    pinned = rf'(git\+https://github\.com/[\w.-]+/{repo}@)v\d+(?:\.\d+)*'
    return [(rf'(github\.com/|colab\.research\.google\.com/github/)[\w.-]+/{repo}\b', rf'\g<1>{user}/{repo}'),
            (rf'(/{repo}/(?:blob|tree)/)[\w.-]+', rf'\g<1>{branch}'),
            (pinned, rf'\g<1>v{cfg["version"]}'),
            (rf'[\w-]+\.github\.io/{repo}\b', f'{user}.github.io/{repo}'),
            (rf'(img\.shields\.io/github/[\w/-]*?/)[\w.-]+/{repo}\b', rf'\g<1>{user}/{repo}')]


def tracked(*ends):
    "Files git knows or would add, ending in one of `ends`"
    cmd = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    names = subprocess.run(cmd, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\0')
    return [ROOT/n for n in names if n.endswith(ends) and (ROOT/n).exists()]


def relinked():
    "Pairs (file, its text with every link as settings.ini says) for the files where that is a change"
    pats = link_patterns(settings())
    for f in tracked('.ipynb', '.md', '.yml', '.yaml', '.py'):   # what a release says of itself in CHANGELOG.md stays as it was
        old = new = f.read_text(encoding='utf-8')
        for pat, sub in pats if f.name != 'CHANGELOG.md' else pats[:1]: new = re.sub(pat, sub, new)
        if new != old: yield f, new


if __name__ == '__main__':
    if '--links' in sys.argv:
        for f, new in list(relinked()):
            f.write_text(new, encoding='utf-8')
            print('links set in', f.relative_to(ROOT))
    changed, old = stale()
    for f, b in changed.items():
        f.write_bytes(b)
        print('written', f.relative_to(ROOT))
    for f in old: f.unlink()
