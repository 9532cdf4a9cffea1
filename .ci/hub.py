"""Does a pipeline come back from the Hub as it went there? The Hub is a stand-in on this machine that speaks its protocol.

    python .ci/hub.py            every check, last line `N passed, N failed`; about a minute on two idle cores
    python .ci/hub.py --serve    only the stand-in, until Ctrl-C; prints what to set

The real client (huggingface_hub) pushes to it and downloads from it in processes of their own, with a token of the stand-in and an empty cache:
nothing leaves this machine. Versions are commits, weights go by LFS; xet, the Hub's newer way to send them, is switched off.
"""
import base64, hashlib, json, os, re, subprocess, sys, tempfile, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
from readme import ROOT

TOKEN, USER = 'hf_standin', 'me'
repos, blobs, seen = {}, {}, []     # name -> dict(private, log of (commit, {path: (bytes, is it LFS)})); sha256 -> bytes; requests
breaking = dict(left=0)             # how many more downloads of weights break in the middle


def commit_of(repo, files): return hashlib.sha1(repr([(k, hashlib.sha256(v[0]).digest()) for k, v in sorted(files.items())] + [len(repo['log'])]).encode()).hexdigest()


def git_oid(data): return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


def entry(path, data, lfs):
    "A file of a repository, as the Hub lists it"
    d = dict(type='file', path=path, size=len(data), oid=git_oid(data))
    return d | (dict(lfs=dict(oid=hashlib.sha256(data).hexdigest(), size=len(data), pointerSize=134)) if lfs else {})


class Hub(BaseHTTPRequestHandler):
    "The part of the Hub's API that create_repo, upload_folder and snapshot_download call"
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): seen.append(f'{self.command} {self.path}')

    def reply(self, code, body=b'', **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for k, v in ({'Content-Length': len(data), 'Content-Type': 'application/json'} | headers).items(): self.send_header(k, str(v))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(data)

    def fail(self, code, kind, text): self.reply(code, dict(error=text), **{'X-Error-Code': kind, 'X-Error-Message': text})

    def body(self):
        if self.headers.get('Transfer-Encoding') != 'chunked': return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        data = b''
        while n := int(self.rfile.readline(), 16): data += self.rfile.read(n); self.rfile.readline()
        self.rfile.readline()
        return data

    def handle_any(self):
        data, path = self.body(), unquote(urlsplit(self.path).path)
        who = self.headers.get('Authorization', '').removeprefix('Bearer ')
        if who and who != TOKEN: return self.reply(401, dict(error='Invalid user token.'))
        for method, pattern, f in ROUTES:
            if method == self.command.replace('HEAD', 'GET') and (m := re.fullmatch(pattern, path)): return f(self, data, who == TOKEN, *m.groups())
        self.fail(404, 'EntryNotFound', f'{self.command} {path} is not spoken here')

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, data, known, *_):
        d = json.loads(data)
        if not known: return self.reply(401, dict(error='Invalid username or password.'))
        if (d.get('organization') or USER) != USER: return self.reply(403, dict(error=f'You have no rights to create a model under {d["organization"]!r}'))
        name, private = f'{USER}/{d["name"]}', d.get('private') or d.get('visibility') == 'private'
        if name in repos: return self.reply(409, dict(error='You already created this model repo', url=self.url(name)))
        repos[name] = repo = dict(private=private, log=[])
        repo['log'].append((commit_of(repo, {}), {'.gitattributes': (b'*.safetensors filter=lfs diff=lfs merge=lfs -text\n', False)}))
        self.reply(200, dict(url=self.url(name), name=name))

    def url(self, name): return f'http://{self.headers["Host"]}/{name}'

    def repo(self, known, name, revision='main'):
        "(repository, commit, files), or None after an error was sent"
        r = repos.get(name)
        if r is None or r['private'] and not known: return self.fail(401, 'RepoNotFound', 'Repository not found')
        hit = r['log'][-1] if revision == 'main' else next((c for c in r['log'] if c[0] == revision), None)
        return (r, *hit) if hit else self.fail(404, 'RevisionNotFound', f'Invalid rev id: {revision}')

    def info(self, data, known, name, revision='main'):
        if got := self.repo(known, name, revision or 'main'):
            r, sha, files = got
            self.reply(200, dict(id=name, modelId=name, sha=sha, private=r['private'], tags=[], siblings=[dict(rfilename=k) for k in files]))

    def tree(self, data, known, name, revision):
        if got := self.repo(known, name, revision): self.reply(200, [entry(k, *v) for k, v in got[2].items()])

    def yaml(self, data, *_):
        text = json.loads(data)['content']
        self.reply(200 if text.startswith('---\n') or '---' not in text else 400, dict(warnings=[], errors=[]))

    def preupload(self, data, known, name, revision):
        if got := self.repo(known, name, revision):
            files = [dict(path=f['path'], uploadMode='lfs' if f['path'].endswith('.safetensors') else 'regular', shouldIgnore=False) for f in json.loads(data)['files']]
            for f in files:
                if f['path'] in got[2]: f['oid'] = entry(f['path'], *got[2][f['path']]).get('lfs', {}).get('oid') or git_oid(got[2][f['path']][0])
            self.reply(200, dict(files=files))

    def batch(self, data, known, name):
        if not known: return self.reply(401, dict(error='Unauthorized'))
        def action(o): return {} if o['oid'] in blobs else dict(actions=dict(upload=dict(href=f'http://{self.headers["Host"]}/lfs/{o["oid"]}')))
        self.reply(200, dict(transfer='basic', objects=[o | action(o) for o in json.loads(data)['objects']]), **{'Content-Type': 'application/vnd.git-lfs+json'})

    def put(self, data, known, oid):
        if hashlib.sha256(data).hexdigest() != oid: return self.reply(400, dict(error='sha256 differs'))
        blobs[oid] = data; self.reply(200)

    def commit(self, data, known, name, revision):
        if not known: return self.reply(401, dict(error='Unauthorized'))
        if not (got := self.repo(known, name, revision)): return
        r, files = got[0], dict(got[2])
        for line in data.splitlines():
            d = json.loads(line); key, v = d['key'], d['value']
            if key == 'file': files[v['path']] = base64.b64decode(v['content']), False
            if key == 'lfsFile': files[v['path']] = blobs[v['oid']], True
            if key == 'deletedFile': del files[v['path']]
        r['log'].append((commit_of(r, files), files)); sha = r['log'][-1][0]
        self.reply(200, dict(success=True, commitOid=sha, commitUrl=f'{self.url(name)}/commit/{sha}'))

    def resolve(self, data, known, name, revision, path):
        if not (got := self.repo(known, name, revision)): return
        _, sha, files = got
        if path not in files: return self.fail(404, 'EntryNotFound', 'Entry not found')
        content, lfs = files[path]
        whole = {'ETag': f'"{hashlib.sha256(content).hexdigest() if lfs else git_oid(content)}"', 'X-Repo-Commit': sha, 'Accept-Ranges': 'bytes'}
        first = int(m[1]) if (m := re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))) else 0
        if first: whole['Content-Range'] = f'bytes {first}-{len(content)-1}/{len(content)}'
        if self.command == 'GET' and lfs and breaking['left']:
            breaking['left'] -= 1; half = content[first:][:max(1, (len(content)-first)//2)]
            self.send_response(206 if first else 200)
            for k, v in (whole | {'Content-Length': len(content)-first}).items(): self.send_header(k, str(v))
            self.end_headers(); self.wfile.write(half); self.wfile.flush(); self.close_connection = True
            return
        self.reply(206 if first else 200, content[first:], **whole)


NAME = r'([\w-]+/[\w.-]+)'
ROUTES = [('POST', '/api/repos/create', Hub.create), ('POST', '/api/validate-yaml', Hub.yaml), ('GET', f'/api/models/{NAME}', Hub.info),
    ('GET', f'/api/models/{NAME}/revision/(.+)', Hub.info), ('GET', f'/api/models/{NAME}/tree/([^/]+)/?', Hub.tree),
    ('POST', f'/api/models/{NAME}/preupload/([^/]+)', Hub.preupload), ('POST', f'/{NAME}\\.git/info/lfs/objects/batch', Hub.batch),
    ('PUT', r'/lfs/(\w+)', Hub.put), ('POST', f'/api/models/{NAME}/commit/([^/]+)', Hub.commit), ('GET', f'/{NAME}/resolve/([^/]+)/(.+)', Hub.resolve)]

BEGIN = 'import hashlib, sys, numpy as np\nfrom dit_clipped.pipeline import DiTClippedPipeline as P, random_pipeline\n'
PUSH = BEGIN + 'print(P.from_pretrained().push_to_hub("me/hearts", license="apache-2.0"))'
DRAW = BEGIN + 'print(hashlib.sha256(np.array(P.from_pretrained({})("a red heart on a blue background", seed=0).images[0])).hexdigest())'


def client(code, home, url, **env):
    "Run code as a user of the stand-in; (exit code, the last line it said)"
    own = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING'))}
    own |= dict(HF_ENDPOINT=url, HF_HOME=str(home), HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_PROGRESS_BARS='1', NO_PROXY='127.0.0.1',
        PYTHONPATH=str(ROOT), HF_TOKEN=TOKEN)
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=home, env=own | env, capture_output=True, text=True, timeout=300)
    return r.returncode, ([l for l in (r.stderr if r.returncode else r.stdout).splitlines() if l.strip()] or [''])[-1]


def started():
    "The stand-in on a free port, and its address"
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f'http://127.0.0.1:{server.server_port}'


def checks(tmp, url):
    "Yield (what was tried, did it go as it should, what was seen)"
    def home(name): (d := tmp/name).mkdir(exist_ok=True); return d
    hearts = DRAW.format('"me/hearts"')
    _, here = client(DRAW.format(''), home('pusher'), url)
    rc, said = client(PUSH, home('pusher'), url)
    yield 'a pipeline is pushed, its repository is private', rc == 0 and repos['me/hearts']['private'], said
    files = repos['me/hearts']['log'][-1][1] if repos else {}
    yield 'weights went by LFS, the card came with them', 'README.md' in files and all(v[1] == k.endswith('.safetensors') for k, v in files.items()), sorted(files)
    rc, said = client(hearts, home('new'), url)
    yield 'opened by name into an empty cache it draws the same picture, bit for bit', rc == 0 and said == here, said
    n = len(seen); rc, said = client(hearts, home('new'), url, HF_HUB_OFFLINE='1')
    yield 'HF_HUB_OFFLINE=1: the same picture from the cache, without one request', said == here and len(seen) == n, f'{said}, {len(seen)-n} requests'
    rc, said = client(PUSH, home('pusher'), url, HF_HUB_OFFLINE='1')
    yield 'HF_HUB_OFFLINE=1: pushing is refused, without one request', rc != 0 and 'could not be pushed' in said and len(seen) == n, said
    rc, said = client(hearts, home('stranger'), url, HF_TOKEN='')
    yield 'without a token the private repository is an error with its name', rc != 0 and 'OSError' in said and 'me/hearts' in said, said
    rc, said = client(PUSH, home('wrong'), url, HF_TOKEN='hf_wrong')
    yield 'a refused token is an error that says what to do', rc != 0 and '401' in said and 'token' in said, said
    rc, said = client(PUSH.replace('me/hearts', 'you/hearts'), home('wrong'), url)
    yield 'the name of someone else is an error', rc != 0 and '403' in said, said
    n = len(repos['me/hearts']['log']); rc, said = client(PUSH, home('pusher'), url)
    yield 'pushed again, unchanged: it works and makes no new version', rc == 0 and len(repos['me/hearts']['log']) == n, said
    rc, said = client(BEGIN + 'print(random_pipeline().push_to_hub("me/hearts"))', home('pusher'), url)
    yield 'pushed again, changed: one version more', rc == 0 and len(repos['me/hearts']['log']) == n+1, said
    first = repos['me/hearts']['log'][n-1][0]
    rc, said = client(DRAW.format(f'"me/hearts", revision="{first}"'), home('old'), url)
    yield 'revision= opens the older version', rc == 0 and said == here, said
    repos['me/open'] = repos['me/hearts'] | dict(private=False)
    rc, said = client(PUSH.replace('me/hearts', 'me/open'), home('pusher'), url)
    yield 'a public repository is not written to unless private=False', rc != 0 and 'is public' in said, said
    breaking['left'] = 1; code = DRAW.format(f'"me/hearts", revision="{first}"')
    rc, said = client(code, home('broken'), url); broke = breaking['left'] == 0
    rc2, said2 = client(code, home('broken'), url)
    yield 'a connection that breaks within the weights: the picture or an OSError, and the picture the next time', \
        broke and (said == here or 'OSError' in said) and said2 == here, f'{said} | {said2}'
    breaking['left'] = 10**6; rc, said = client(code, home('always'), url); breaking['left'] = 0
    rc2, said2 = client(code, home('always'), url)
    yield 'a connection that always breaks is an OSError, and what came is continued later', rc != 0 and 'OSError' in said and said2 == here, f'{said} | {said2}'


def trial():
    "Run every check; (what was tried, faults) for each"
    server, url = started()
    try:
        with tempfile.TemporaryDirectory() as tmp:
            for what, ok, said in checks(Path(tmp), url): yield what, [] if ok else [said]
    finally: server.shutdown()


def main():
    if '--serve' in sys.argv:
        _, url = started(); print(f'export HF_ENDPOINT={url} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1   # and push to {USER}/NAME', flush=True)
        return threading.Event().wait()
    bad = n = 0
    for what, faults in trial():
        n += 1; bad += bool(faults)
        print('ok     ' if not faults else 'FAILED ', what, *faults, flush=True)
    print(f'{n-bad} passed, {bad} failed'); sys.exit(bool(bad))


if __name__ == '__main__': main()
