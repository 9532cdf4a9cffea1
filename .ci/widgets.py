"""Do the widgets of chapter 19 work in a browser? Needs Chromium, jupyterlab, and Playwright from PyPI.

    python .ci/widgets.py [--pages 19c_explore.studio ...] [--out FOLDER] [--chromium PATH]

Opens the cells that show a widget in JupyterLab, runs all, moves every slider and menu, draws and cancels in the studio,
saves a picture and opens it again. Prints seconds; screenshots go to FOLDER. Pages and kernels are copies: nothing is changed.
"""
import argparse, json, os, re, socket, subprocess, sys, tempfile, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = '19b_explore.process', '19c_explore.studio', '19d_explore.inside'
SETTINGS = {'notebook-extension/tracker': dict(windowingMode='none'),
    'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False)}


def source(cell): return ''.join(cell['source'])


def playground(path, pages):
    "Write a notebook of all cells that show a widget, with the imports of their pages; how many there are"
    kept, shown = [dict(cell_type='code', metadata={}, outputs=[], execution_count=None, source='from pathlib import Path')], 0
    for page in pages:
        for c in json.loads((ROOT/'nbs'/f'{page}.ipynb').read_text(encoding='utf-8'))['cells']:
            s = source(c)
            if c['cell_type'] != 'code' or not (re.match(r'#\| hide\s+(import|from)', s) or re.search(r'\bshow\(', s) and '#| fig-alt' in s): continue
            shown += 'show(' in s; kept.append(dict(c, outputs=[], execution_count=None))
    path.write_text(json.dumps(dict(cells=kept, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')), nbformat=4, nbformat_minor=5)))
    return shown


@contextmanager
def lab(folder):
    "A JupyterLab on a free port of this machine, with its own settings; its address"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    for k, v in SETTINGS.items():
        f = folder/'settings/@jupyterlab'/f'{k}.jupyterlab-settings'; f.parent.mkdir(parents=True, exist_ok=True); f.write_text(json.dumps(v))
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), JUPYTERLAB_SETTINGS_DIR=str(folder/'settings'),
        JUPYTER_CONFIG_DIR=str(folder/'config'))
    env.pop('IN_TEST', None)
    log = open(folder/'lab.log', 'w')
    p = subprocess.Popen([sys.executable, '-m', 'jupyter', 'lab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}',
        '--IdentityProvider.token=T', f'--ServerApp.root_dir={folder}'], env=env, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token=T'); break
            except OSError: time.sleep(.5)
        yield f'http://127.0.0.1:{port}/lab/tree/play.ipynb?token=T'
    finally: p.terminate(); p.wait(30); log.close()


class Browser:
    "What a user does with the widgets of a page"
    def __init__(self, page, out): self.page, self.out, self.done = page, out, []
    def say(self, what, t0): print(f'{time.time()-t0:6.1f} s  {what}', flush=True); self.done.append(what)
    def shot(self, name): self.page.screenshot(path=str(self.out/f'{name}.png'))
    def until(self, true, what, seconds=180):
        t0 = time.time()
        while not true():
            if time.time() - t0 > seconds: self.shot('failed'); raise SystemExit(f'waited {seconds} s in vain: {what}')
            self.page.wait_for_timeout(50)
    def boxes(self): return self.page.locator('.jp-OutputArea-output .widget-vbox:not(.widget-vbox .widget-vbox)')

    def run_all(self, n):
        t0 = time.time()
        self.page.locator('.lm-MenuBar-item', has_text=re.compile('^Run$')).click()
        self.page.locator('.lm-Menu-item', has_text=re.compile('^Run All Cells')).first.click(); self.shot('running')
        self.until(lambda: self.boxes().count() >= n and all(self.boxes().nth(k).locator('img').count() for k in range(n)), f'{n} widgets', 420)
        self.say(f'run all: {n} widgets', t0)

    def panel(self, k):
        "Move every slider and menu of a panel, and wait for another picture each time"
        box = self.boxes().nth(k); box.scroll_into_view_if_needed()
        picture = lambda: box.locator('img').first.get_attribute('src')
        for i in range(box.locator('.noUi-handle').count()):
            was, t0, h = picture(), time.time(), box.locator('.noUi-handle').nth(i)
            name = box.locator('.widget-slider .widget-label').nth(i).inner_text()
            h.focus(); h.press('End'); self.page.wait_for_timeout(500)
            if picture() == was: h.press('Home')
            self.until(lambda: picture() != was, f'panel {k}: slider {name}'); self.say(f'panel {k}: slider {name}', t0); self.settled(picture)
        for i in range(box.locator('select').count()):
            was, t0, m = picture(), time.time(), box.locator('select').nth(i)
            m.select_option(index=(m.evaluate('e => e.selectedIndex') + 1) % m.locator('option').count())
            self.until(lambda: picture() != was, f'panel {k}: menu {i}'); self.say(f'panel {k}: menu {i}', t0); self.settled(picture)
        self.shot(f'panel{k}')

    def settled(self, picture):
        "Wait until a picture has not changed for a second"
        was, since = picture(), time.time()
        while time.time() - since < 1:
            self.page.wait_for_timeout(100)
            if picture() != was: was, since = picture(), time.time()

    def press(self, box, name): box.locator('button', has_text=re.compile(f'^ *{name}')).first.click()

    def upload(self, box, file):
        with self.page.expect_file_chooser() as chooser: self.press(box, 'Open')
        chooser.value.set_files(str(file))

    def studio(self, k, folder):
        "Move the sliders, draw, cancel, save, open, and refuse an empty prompt"
        box = self.boxes().nth(k); box.scroll_into_view_if_needed()
        line = lambda: ' '.join(box.locator('.widget-html-content').all_inner_texts())
        busy = lambda: box.locator('button', has_text='Draw').first.is_disabled()
        for i in range(box.locator('.noUi-handle').count()):
            r, h = box.locator('.widget-readout').nth(i), box.locator('.noUi-handle').nth(i); was = r.inner_text()
            h.focus(); h.press('ArrowRight'); self.until(lambda: r.inner_text() != was, 'a slider of the studio')
        t0 = time.time(); strip = lambda: box.locator('img').count(); had = strip(); self.press(box, 'Draw')
        self.until(lambda: strip() > had, 'a picture in the strip'); self.say('studio: a picture', t0); self.shot('studio_drawn')
        r = box.locator('.widget-readout').nth(1); r.click(); r.fill('100'); r.press('Enter')
        src = lambda: box.locator('img').first.get_attribute('src'); was = src(); self.press(box, 'Draw')
        self.until(lambda: busy() and src() != was, 'the first step'); t0 = time.time(); self.press(box, 'Cancel')
        self.until(lambda: 'stopped after step' in line(), 'Cancel'); self.say(f'studio: {line()}', t0); self.shot('studio_cancelled')
        self.press(box, 'Save'); self.until(lambda: 'saved to' in line(), 'Save'); path = line().split('saved to ')[1].strip()
        prompt = box.locator('input[type=text]').first; was = prompt.input_value(); prompt.fill(''); prompt.press('Enter'); self.press(box, 'Draw')
        self.until(lambda: 'prompt is empty' in line(), 'an empty prompt'); self.shot('studio_empty')
        t0 = time.time(); self.upload(box, path)
        self.until(lambda: prompt.input_value() == was, 'settings from the saved picture'); self.say('studio: settings from a saved picture', t0)
        self.upload(box, folder/'play.ipynb')
        self.until(lambda: 'no PNG' in line(), 'a file that is no picture'); self.shot('studio_opened')


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=Path('widgets')); ap.add_argument('--pages', nargs='+', default=PAGES); ap.add_argument('--chromium', default='/usr/bin/chromium')
    args = ap.parse_args(); args.out.mkdir(parents=True, exist_ok=True)
    try: from playwright.sync_api import sync_playwright
    except ImportError: sys.exit('Playwright is missing: pip install playwright (no browser needs to be downloaded; --chromium names yours)')
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as pw:
        folder = Path(tmp); n = playground(folder/'play.ipynb', args.pages); t0 = time.time()
        with lab(folder) as url:
            chrome = pw.chromium.launch(executable_path=args.chromium, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'])
            page = chrome.new_page(viewport=dict(width=1300, height=1000)); page.set_default_timeout(120_000)
            errors = []; page.on('pageerror', lambda e: errors.append(str(e)))
            page.goto(url); page.locator('.jp-Notebook').first.wait_for(); b = Browser(page, args.out); b.say('JupyterLab is open', t0)
            page.locator('.jp-NotebookPanel .jp-Toolbar-kernelName', has_text='Python').wait_for()
            page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').first.wait_for(); page.wait_for_timeout(3000); b.run_all(n)
            for k in range(n): b.studio(k, folder) if b.boxes().nth(k).locator('button', has_text='Cancel').count() else b.panel(k)
            b.say(f'all of {len(b.done)} checks; errors of the page: {errors or "none"}', t0); chrome.close()


if __name__ == '__main__': main()
