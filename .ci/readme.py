"""README.md from nbs/index.ipynb, and the links of the whole book from settings.ini.

    python .ci/readme.py            write README.md
    python .ci/readme.py --links    rewrite owner, repo and branch in every badge and link, then write README.md
"""
import json, re, subprocess, sys
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
    "Text a cell printed, as an indented block; its pictures stand in nbs/images and are linked in the prose"
    texts = [''.join(o.get('text', o.get('data', {}).get('text/plain', []))) for o in cell['outputs']
             if o['output_type'] in ('stream', 'execute_result') and 'image/png' not in o.get('data', {})]
    return ''.join('\n\n'+'\n'.join('    '+l for l in t.rstrip().splitlines()) for t in texts)


def page():
    "README.md as one string"
    nb = json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))
    parts = ['<!-- Made from nbs/index.ipynb by `python .ci/readme.py`: edit the notebook, not this file. -->']
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown': parts.append(src)
        elif c['cell_type'] == 'code' and not hidden(c): parts.append(f'```python\n{src}\n```{outputs(c)}')
    text = '\n\n'.join(parts)
    return CHAPTER.sub(r'](nbs/\1)', IMAGE.sub(r'\1nbs/images/', text)).strip()+'\n'


def link_patterns(cfg):
    "Pairs (pattern, what it must read) for every address that names the owner, the repository or the branch"
    user, repo, branch = cfg['user'], cfg['repo'], cfg['branch']
    return [(rf'(github\.com/|colab\.research\.google\.com/github/)[\w.-]+/{repo}\b', rf'\g<1>{user}/{repo}'),
            (rf'(/{repo}/(?:blob|tree)/)[\w.-]+', rf'\g<1>{branch}'),
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
    for f in tracked('.ipynb', '.md', '.yml', '.yaml', '.py'):
        old = new = f.read_text(encoding='utf-8')
        for pat, sub in pats: new = re.sub(pat, sub, new)
        if new != old: yield f, new


if __name__ == '__main__':
    if '--links' in sys.argv:
        for f, new in list(relinked()):
            f.write_text(new, encoding='utf-8')
            print('links set in', f.relative_to(ROOT))
    (ROOT/'README.md').write_text(page(), encoding='utf-8')
    print('README.md written from nbs/index.ipynb')
