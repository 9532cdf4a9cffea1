"""Does the web page of chapter 20 work? In a browser, under load, and fast? Needs the extra `app`; for the browser Chromium, and Playwright from PyPI.

    python .ci/app.py [--out FOLDER] [--chromium PATH] [--ckpt X]    a visitor in headless Chromium; screenshots go to FOLDER
    python .ci/app.py --load [--visitors 20] [--seconds 180]         many visitors at once, memory, Ctrl-C with requests in flight
    python .ci/app.py --speed                                        from the start to the first picture, and what a warm request costs beside the pipeline

Each starts `dit_clipped_app` on a free port of this machine, and ends it by Ctrl-C.
"""
import argparse, base64, json, os, signal, ssl, statistics, subprocess, sys, tempfile, threading, time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PROMPT = 'a red heart'
RUN = 'from dit_clipped.cli import app_main; app_main()'


class App:
    "A server in a process of its own"
    def __init__(self, *flags):
        from dit_clipped.app import free_port
        self.port = free_port()
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), PYTHONUNBUFFERED='1')
        self.url, self.log, self.t0 = f'http://127.0.0.1:{self.port}/', tempfile.TemporaryFile('w+'), time.time()
        self.p = subprocess.Popen([sys.executable, '-c', RUN, '--port', str(self.port), *flags], stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)
        self.first = self.p.stdout.readline().strip(); self.started = time.time() - self.t0
        if not self.first: sys.exit(f'the server did not start: {self.errors()}')
    def errors(self): self.log.seek(0); return self.log.read()
    def memory(self):
        "Resident megabytes"
        for line in Path(f'/proc/{self.p.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS'): return int(line.split()[1])/1024
    def stop(self):
        "Ctrl-C; what it said, and the seconds it took"
        t = time.time(); self.p.send_signal(signal.SIGINT)
        try: out = self.p.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired: self.p.kill(); sys.exit('Ctrl-C was not obeyed within 60 s')
        return out.strip(), time.time() - t


@contextmanager
def serving(*flags):
    app = App(*flags)
    try: yield app
    finally:
        if app.p.poll() is None: app.stop()
        text = app.errors()
        if 'Traceback' in text: print(text[-3000:])


class Visitor:
    "What a visitor does with the page"
    def __init__(self, page, out): self.page, self.out, self.done = page, out, []
    def say(self, what, t0): print(f'{time.time()-t0:6.1f} s  {what}', flush=True); self.done.append(what)
    def shot(self, name): self.page.screenshot(path=str(self.out/f'{name}.png'), full_page=True)
    def until(self, true, what, seconds=120):
        t0 = time.time()
        while not true():
            if time.time() - t0 > seconds: self.shot('failed'); raise SystemExit(f'waited {seconds} s in vain: {what}; status: {self.line()!r}, toasts: {self.toasts()}')
            self.page.wait_for_timeout(50)
    def line(self): return self.page.locator('#line textarea, #line input').first.input_value()
    def toasts(self): return ' '.join(self.page.locator('.toast-body').all_inner_texts())
    def value(self, what): return self.page.locator(what).first.input_value()
    def prompt(self): return self.value('#prompt textarea')
    def pictures(self): return self.page.locator('#pictures img').evaluate_all('l => l.map(e => e.src)')
    def number(self, label, v):
        b = self.page.get_by_label(f'number input for {label}').first; b.fill(str(v)); b.press('Enter'); b.blur()
    def tab(self, name): self.page.get_by_role('tab', name=name, exact=True).click(); self.page.wait_for_timeout(300)
    def draw(self, kind, what=None):
        "Press Draw, wait for new pictures"
        t0, was = time.time(), self.pictures(); self.page.locator(f'#go-{kind}').click()
        self.until(lambda: self.pictures() and self.pictures() != was and ' s' in self.line() and 'picture' in self.line(), f'{kind}: a picture')
        self.page.wait_for_timeout(300); self.say(f'{what or kind}: {self.line()}', t0); self.shot(f'tab_{kind}')
    def closed_toasts(self):
        for b in self.page.locator('.toast-close').all(): b.click()
        self.until(lambda: not self.toasts(), 'toasts to go')
    def drop(self, zone, name, data):
        "Drop a file as a mouse would"
        self.page.evaluate('''([zone, name, b64]) => {
            const bytes = Uint8Array.from(atob(b64), c => c.charCodeAt(0)), t = new DataTransfer();
            t.items.add(new File([bytes], name, {type: 'image/png'}));
            const at = document.querySelector(zone + ' button') || document.querySelector(zone);
            for (const e of ['dragenter', 'dragover', 'drop']) at.dispatchEvent(new DragEvent(e, {bubbles: true, cancelable: true, dataTransfer: t}));
        }''', [zone, name, base64.b64encode(data).decode()])

    def first(self):
        "Type, draw, download"
        self.page.locator('#prompt textarea').fill('a yellow star on a black background'); self.number('Steps', 6)
        self.draw('draw', 'a picture'); self.page.locator('#pictures img').first.click(); self.page.wait_for_timeout(500)
        with self.page.expect_download() as d: self.page.locator('#pictures').get_by_label('Download').first.click()
        path = self.out/d.value.suggested_filename; d.value.save_as(path); self.shot('enlarged')
        self.page.keyboard.press('Escape')
        if self.page.locator('#pictures').get_by_label('Close').count(): self.page.locator('#pictures').get_by_label('Close').first.click()
        from dit_clipped.app import read_recipe
        r = read_recipe(path.read_bytes()); assert (r.prompt, r.steps) == ('a yellow star on a black background', 6), r
        print('         downloaded', path.name); return path

    def cancelled(self):
        "Previews, progress, Cancel, and a drawing after it"
        self.number('Steps', 100); self.number('Pictures', 4); self.page.locator('#go-draw').click()
        self.until(lambda: self.page.locator('#preview img').count(), 'a preview'); self.shot('preview'); seen = self.line(); t0 = time.time()
        assert 's left' in seen, seen
        self.page.locator('#cancel').click(); self.until(lambda: self.line().startswith('stopped'), 'Cancel'); self.say(f'cancelled at "{seen}"', t0)
        self.number('Steps', 4); self.number('Pictures', 2); self.draw('draw', 'two pictures after Cancel')

    def reloaded(self, path):
        "Settings come back when a picture is dropped"
        t0 = time.time(); self.page.locator('#prompt textarea').fill('a cat'); self.number('Steps', 3); self.drop('#drop', path.name, path.read_bytes())
        self.until(lambda: self.prompt().startswith('a yellow star'), 'settings of a dropped picture'); steps = self.page.get_by_label('number input for Steps').first.input_value()
        assert steps == '6', steps
        self.say(f'dropped: {self.line()}', t0); self.shot('dropped')

    def wrong(self):
        "Wrong input gets a sentence, and no script runs"
        for what, text, said in (('empty prompt', '  ', 'prompt is empty'),):
            t0 = time.time(); self.page.locator('#prompt textarea').fill(text); self.page.locator('#go-draw').click()
            self.until(lambda: said in self.toasts(), what); self.shot('wrong'); self.say(f'{what}: {self.toasts()[:70]!r}', t0); self.closed_toasts()
        t0 = time.time(); self.drop('#drop', 'a.png', b'no picture'); self.until(lambda: 'no PNG' in self.toasts(), 'a file that is no picture'); self.say('a file that is no picture', t0); self.closed_toasts()
        bad = '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> a red heart'
        self.page.locator('#prompt textarea').fill(bad); self.number('Steps', 2); self.draw('draw', 'a prompt that is HTML')
        assert not self.page.evaluate('window.hacked'), 'a script of a prompt ran'

    def tabs(self, path):
        "Every other tab"
        self.page.locator('#prompt textarea').fill('a red heart on a green background'); self.number('Steps', 6); self.number('Pictures', 1)
        self.tab('Picture')
        self.page.locator('[role=tabpanel]:visible input[type=file]').first.set_input_files(str(path)); self.page.locator('[role=tabpanel]:visible img').first.wait_for(); self.draw('img2img')
        self.tab('Brush'); self.page.locator('#brush input[type=file]').first.set_input_files(str(path)); self.page.wait_for_timeout(2500)
        canvas = self.page.locator('#brush canvas').first; canvas.scroll_into_view_if_needed(); b = canvas.bounding_box(); m = self.page.mouse
        m.move(b['x'] + b['width']*.3, b['y'] + b['height']*.3); m.down()
        for k in range(12): m.move(b['x'] + b['width']*(.3 + .4*(k % 4)/3), b['y'] + b['height']*(.3 + .03*k), steps=3)
        m.up(); self.page.wait_for_timeout(800); self.shot('painted'); self.draw('inpaint')
        for name, kind in (('Between', 'interpolate'), ('Grid', 'grid'), ('Words', 'words')): self.tab(name); self.draw(kind)
        self.tab('Draw')

    def dice(self):
        was = self.value('#seed input'); t0 = time.time(); self.page.locator('#dice').click(); self.until(lambda: self.value('#seed input') != was, 'the dice'); self.say(f'dice: seed {self.value("#seed input")}', t0)


def browser(args):
    try: from playwright.sync_api import sync_playwright
    except ImportError: sys.exit('Playwright is missing: pip install playwright (no browser needs to be downloaded; --chromium names yours)')
    args.out.mkdir(parents=True, exist_ok=True); t0 = time.time()
    with serving(*(['--ckpt', args.ckpt] if args.ckpt else [])) as app, sync_playwright() as pw:
        chrome = pw.chromium.launch(executable_path=args.chromium, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'])
        page = chrome.new_page(viewport=dict(width=1200, height=1000), accept_downloads=True); page.set_default_timeout(60_000); v = Visitor(page, args.out)
        errors, away = [], Counter(); page.on('pageerror', lambda e: errors.append(str(e))); page.on('console', lambda m: m.type == 'error' and errors.append(m.text))
        page.on('request', lambda r: away.update([r.url.split('/')[2]]) if r.url.startswith('http') and not r.url.startswith(app.url) else None)
        page.goto(app.url); page.locator('#go-draw').wait_for(); v.say('the page is open', t0); page.wait_for_timeout(1000); v.shot('loaded')
        path = v.first(); v.cancelled(); v.reloaded(path); v.dice(); v.wrong(); v.tabs(path)
        other = chrome.new_page(viewport=dict(width=390, height=844)); other.goto(app.url); other.locator('#go-draw').wait_for(); w = Visitor(other, args.out); other.wait_for_timeout(1000)
        assert not w.pictures() and w.prompt() == PROMPT, 'a second visitor sees the first'
        w.shot('phone'); w.number('Steps', 4); w.draw('draw', 'on a telephone'); w.shot('phone_drawn')
        wide = other.evaluate('document.documentElement.scrollWidth'); print(f'         at 390 pixels the page is {wide} wide'); assert wide <= 390
        print(f'asked of other machines: {dict(away) or "nothing"}; errors of the page: {sorted({e[:160] for e in errors}) or "none"}')
        chrome.close(); out, s = app.stop(); print(f'{out} ({s:.1f} s)'); assert app.p.returncode == 0
        v.say(f'all of {len(v.done) + len(w.done)} checks', t0)


def visit(url, k, end, seen, folder):
    "One visitor: draws one picture after the other until `end`"
    from gradio_client import Client
    client = Client(url, verbose=False, download_files=folder, httpx_kwargs=dict(timeout=60))   # of a busy machine
    while time.time() < end:
        t, place = time.time(), None
        try:
            job = client.submit(prompt='a red heart on a blue background', seed=k, steps=4, api_name='/draw')
            while not job.done():
                s = job.status()
                if s.rank is not None: place = max(place or 0, s.rank)
                time.sleep(.1)
            pictures = job.result()[0]; seen.append((k, time.time() - t, place, Path(pictures[0]['image']).read_bytes()))
        except Exception as e: seen.append((k, time.time() - t, place, f'{type(e).__name__}: {e}'))


def load(args):
    with serving() as app, tempfile.TemporaryDirectory() as folder:
        seen, end, t0 = [], time.time() + args.seconds, time.time()
        crowd = [threading.Thread(target=visit, args=(app.url, k, end, seen, folder), daemon=True) for k in range(args.visitors)]
        for t in crowd: t.start()
        memory = []
        while any(t.is_alive() for t in crowd):
            time.sleep(1); memory.append(app.memory())
            if len(memory) % 15 == 0: print(f'{time.time()-t0:5.0f} s  {len(seen)} answers, {memory[-1]:.0f} MB', flush=True)
            if app.p.poll() is not None: sys.exit(f'the server has crashed: {app.errors()[-2000:]}')
        good = [o for o in seen if isinstance(o[3], bytes)]; bad = Counter(o[3][:100] for o in seen if not isinstance(o[3], bytes))
        waits, third = [o[1] for o in good], len(memory)//3
        print(f'{args.visitors} visitors, {time.time()-t0:.0f} s: {len(good)} pictures, {len(good)/(time.time()-t0):.2f} per second; others: {dict(bad) or "none"}')
        print(f'from asking to having: median {statistics.median(waits):.1f} s, longest {max(waits):.1f} s; {sum(o[2] is not None for o in good)} were told their place, up to {max([o[2] or 0 for o in good])} before them')
        by = {}
        for k, _, _, data in good: by.setdefault(k, set()).add(data)
        print(f'every visitor got the own picture each time: {all(len(v) == 1 for v in by.values()) and len({next(iter(v)) for v in by.values()}) == len(by)}')
        middle, last = statistics.median(memory[third:2*third]), statistics.median(memory[2*third:])
        print(f'memory: {memory[0]:.0f} MB at first, {middle:.0f} MB in the second third, {last:.0f} MB in the last: {last-middle:+.0f} MB')
        from gradio_client import Client
        jobs = [Client(app.url, verbose=False, download_files=folder).submit(prompt='a cat', steps=100, n=4, api_name='/draw') for _ in range(args.visitors)]
        time.sleep(2); out, s = app.stop(); print(f'Ctrl-C: {out} ({s:.1f} s, exit {app.p.returncode})'); told = Counter()
        for j in jobs:
            try: told[j.result(timeout=10)[2].split(';')[-1][:40]] += 1
            except Exception as e: told[str(e)[:60] or type(e).__name__] += 1
        print('the requests in flight were told:', dict(told)); assert app.p.returncode == 0 and not bad


IMPORTS = 'import time; t=time.time(); import torch; a=time.time()-t; t=time.time(); import gradio; print(a, time.time()-t)'


def raw(url, http, *data):
    "The bytes of a picture by two plain HTTP requests and a third for the file"
    job = http.post(f'{url}gradio_api/call/draw', json=dict(data=data)).json()['event_id']
    with http.stream('GET', f'{url}gradio_api/call/draw/{job}') as r: lines = [l for l in r.iter_lines() if l]
    if lines[-2] != 'event: complete': sys.exit(f'no picture came: {lines[-2:]}')
    return http.get(json.loads(lines[-1][len('data: '):])[0][0]['image']['url']).content


def starts(folder):
    "Seconds, medians of three: import torch, Gradio on top, until the page answers, until the first picture is there"
    from gradio_client import Client
    rows, env = [], dict(os.environ, GRADIO_ANALYTICS_ENABLED='False')
    for _ in range(3):
        imports = [*map(float, subprocess.run([sys.executable, '-c', IMPORTS], capture_output=True, text=True, env=env).stdout.split())]
        with serving() as app:
            Client(app.url, verbose=False, download_files=folder).predict(prompt=PROMPT, api_name='/draw'); rows.append((*imports, app.started, time.time() - app.t0))
    return [statistics.median(o) for o in zip(*rows)]


def warm(folder, repeats):
    "Seconds, one row for each repeat: the pipeline, then the same picture by plain HTTP, by a client with one store of certificates, by a client without"
    import httpx
    from dit_clipped.app import running
    from dit_clipped.pipeline import DiTClippedPipeline
    from gradio_client import Client
    pipe, rows = DiTClippedPipeline.from_pretrained(), []
    with running(pipe) as server, httpx.Client(timeout=60) as http:
        kept = Client(server.url, verbose=False, download_files=folder, ssl_verify=ssl.create_default_context()); plain = Client(server.url, verbose=False, download_files=folder)
        c = server.page.ui.shared; first = [o.value for o in c.values()]; at = [*c].index('seed')
        ways = (lambda k: pipe(PROMPT, seed=k), lambda k: raw(server.url, http, *first[:at], k, *first[at + 1:]),
            lambda k: kept.predict(prompt=PROMPT, seed=k, api_name='/draw'), lambda k: plain.predict(prompt=PROMPT, seed=k, api_name='/draw'))
        for k in range(repeats + 2):
            times = [time.perf_counter()]
            for way in ways: way(k); times.append(time.perf_counter())
            rows.append([b - a for a, b in zip(times, times[1:])])
    return rows[2:]


def speed(args):
    with tempfile.TemporaryDirectory() as folder:
        t, g, up, first = starts(folder); rows = warm(folder, args.repeats)
    print(f'import torch {t:.1f} s, Gradio {g:.1f} s on top; the page answers after {up:.1f} s, the first picture is there after {first:.1f} s: {first/(t + g):.2f} times the imports')
    print(f'warm, {len(rows)} in turns, medians; load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; the pipeline {statistics.median(o[0] for o in rows)*1e3:.0f} ms')
    for k, name in enumerate(('plain HTTP', "Gradio's client, certificates read once", "Gradio's client as it comes"), 1):
        print(f'    {name}: {statistics.median(o[k] for o in rows)*1e3:.0f} ms, {statistics.median(o[k] - o[0] for o in rows)*1e3:.0f} ms more than the pipeline')


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, default=Path('app')); ap.add_argument('--chromium', default='/usr/bin/chromium'); ap.add_argument('--ckpt')
    ap.add_argument('--load', action='store_true'); ap.add_argument('--visitors', type=int, default=20); ap.add_argument('--seconds', type=int, default=180)
    ap.add_argument('--speed', action='store_true'); ap.add_argument('--repeats', type=int, default=12)
    args = ap.parse_args()
    load(args) if args.load else speed(args) if args.speed else browser(args)


if __name__ == '__main__': main()
