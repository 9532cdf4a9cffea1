"What .ci/gpu.py runs in its processes: proofs of the CUDA branches, and measurements"
import contextlib, functools, gc, io, math, os, shutil, tempfile, time, zipfile
from pathlib import Path
from statistics import median
import torch

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.cuda.is_available()
DEV = 'cuda' if CUDA else 'cpu'


class Failed(Exception): "A proof that did not hold"


def check(ok, said):
    if not ok: raise Failed(said)


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as d: yield Path(d)


def free():
    "Give back what nobody holds; the next peak is counted from here"
    gc.collect()
    if CUDA: torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()


def sync():
    if CUDA: torch.cuda.synchronize()


# Small trainings for the proofs

def net(deep=False):
    "Digits of 8x8, or (deep) latents of 32x32 with activations worth gigabytes on a GPU"
    from dit_clipped.core import set_seed
    from dit_clipped.dit import DiT, DiTConfig
    set_seed(0)
    d, n, heads = ((384, 12, 6) if deep else (192, 6, 3)) if CUDA else (64, 2, 2)
    size, p, c = (32 if CUDA else 8, 2, 4) if deep else (8, 4, 1)
    return DiT(DiTConfig(input_size=size, patch_size=p, in_channels=c, hidden_size=d, depth=n, num_heads=heads,
                         num_classes=10, class_dropout_prob=0. if deep else .1, learn_sigma=False))


def trainer(out, steps, loss=None, deep=False, data=None, **kw):
    "A Trainer of `net`, ready to fit"
    from dit_clipped.data import Digits
    from dit_clipped.trainer import Trainer
    m = net(deep)
    kw = dict(batch_size=32, lr=1e-3, seed=0, log_every=1, save_every=10**6, progress=False) | kw
    if deep: data = [(torch.randn(4, m.config.input_size, m.config.input_size), k % 10) for k in range(64)]
    return Trainer(m, Digits() if data is None else data, loss or question(), out, steps=steps, **kw)


def question():
    from dit_clipped.losses import DiffusionLoss, Objective
    from dit_clipped.schedule import make_schedule
    return DiffusionLoss(Objective('v', make_schedule('cosine')))


def plain(m, x, y): return (m(x, x.new_full((len(x),), 500.), y) - x).square().mean()   # nothing random in it


def losses(out):
    from dit_clipped.trainer import read_log
    return [r['loss'] for r in read_log(out)]


def apart(a, b):
    "The largest relative difference"
    return max(abs(x - y)/max(abs(x), abs(y), 1e-12) for x, y in zip(a, b, strict=True))


# Proofs: each says a sentence, or raises

def falls(precision):
    "Train digits; what the loss did, and the scaler"
    n = 100
    with folder() as d:
        t = trainer(d, n, precision=precision, lr=3e-3, clip=1.).fit('never')
        l = losses(d)
    first, last = sum(l[:10])/10, sum(l[-10:])/10
    said = f'{precision}: loss {first:.3f} -> {last:.3f} in {n} steps'
    check(all(map(math.isfinite, l)) and last < .8*first, said)
    check(t.scaler.is_enabled() == (precision == 'fp16'), f'{precision}: is the scaler on? {t.scaler.is_enabled()}')
    scale = f', scale {t.scaler.get_scale():g} in the end' if precision == 'fp16' else ''
    return said + scale


def fp16(): return falls('fp16') if CUDA else falls('bf16') + ' (in place of fp16, which needs a GPU)'
def bf16(): return falls('bf16')


class Tagged:
    "Labels that know whether they came through pinned memory"
    seen = []
    def __init__(self, y): self.y = y
    def pin_memory(self): self.y = self.y.pin_memory(); return self
    def to(self, *a, **k): Tagged.seen.append(self.y.is_pinned()); return self.y.to(*a, **k)


def tag(batch): return torch.stack([x for x, _ in batch]), Tagged(torch.tensor([y for _, y in batch]))


def workers():
    "Loaders with workers and pinned memory give the batches of a plain loop"
    from torch.utils.data import DataLoader
    from dit_clipped.data import Digits
    kept, Tagged.seen = {0: [], 2: []}, []
    for n, seen in kept.items():
        def loss(m, x, y, seen=seen): seen.append((x.cpu(), y.cpu())); return plain(m, x, y)
        with folder() as d: trainer(d, 4, loss, data=DataLoader(Digits(), num_workers=n, collate_fn=tag)).fit('never')
    same = all(torch.equal(a, b) for p, q in zip(*kept.values(), strict=True) for a, b in zip(p, q))
    check(same, 'two workers gave other batches than none')
    check(Tagged.seen == [CUDA]*8, f'pinned: {Tagged.seen}, expected {CUDA} of each')
    return f'2 workers give the batches of none; {"all" if CUDA else "none"} came through pinned memory'


def halted(d, precision, stop):
    "Six steps; with `stop`, a grid of random samples on the way, an end at step 3, and a new Trainer"
    def halt(t): t.stop = t.step == 3
    def draw(m): return torch.randn(4, 1, 8, 8, device=DEV).clamp(-1, 1)
    if stop: trainer(d, 6, precision=precision, callbacks=(halt,), sample_fn=draw, sample_every=2).fit('never')
    return trainer(d, 6, precision=precision).fit('auto')


def resume():
    "Stopped and continued is bitwise the run that nobody stopped"
    from dit_clipped.trainer import check_checkpoint
    torch.use_deterministic_algorithms(True)
    kinds = ('no', 'bf16', 'fp16') if CUDA else ('no', 'bf16')
    try:
        for k in kinds:
            with folder() as a, folder() as b:
                s, t = (check_checkpoint(halted(d, k, d == b).saved) for d in (a, b))
                logs = [(d/'log.csv').read_bytes() for d in (a, b)]
                check(s == t, f'{k}: these parts of the checkpoints differ: {[q for q in s if s[q] != t.get(q)]}')
                check(logs[0] == logs[1], f'{k}: the logs differ')
    finally: torch.use_deterministic_algorithms(False)
    return f'weights, average, moments, scaler, random numbers and log equal bit for bit: {", ".join(kinds)}'


def peak(pieces):
    "Bytes that two steps of the deep net take from the GPU, in so many pieces"
    free()
    with folder() as d: trainer(d, 2, plain, deep=True, accumulate=pieces).fit('never')
    return torch.cuda.max_memory_reserved()


@contextlib.contextmanager
def narrow(most):
    "Inside, this process gets `most` bytes of the GPU and no more"
    free()
    torch.cuda.set_per_process_memory_fraction(most/torch.cuda.get_device_properties(0).total_memory)
    try: yield
    finally: torch.cuda.set_per_process_memory_fraction(1.)


def tight(sizes, most):
    "A loss that notes how many pictures it got, and on a CPU plays a GPU on which `most` fit"
    def loss(m, x, y):
        sizes.append(len(x))
        if not CUDA and len(x) > most: raise torch.cuda.OutOfMemoryError('simulated')
        return plain(m, x, y)
    return loss


def memory():
    "A batch that does not fit is halved once, and the run goes on to the same losses"
    sizes, said, b = [], io.StringIO(), 32
    room = [peak(k) for k in (1, 2)] if CUDA else [0, 0]
    with folder() as d, folder() as e:
        with narrow(sum(room)/2) if CUDA else contextlib.nullcontext(), contextlib.redirect_stdout(said):
            trainer(d, 3, tight(sizes, b//2), deep=True).fit('never')
        trainer(e, 3, plain, deep=True, accumulate=2).fit('never')
        off = apart(losses(d), losses(e))
    check(sizes == [b] + [b//2]*6, f'pictures at once: {sizes}, expected {b}, then {b//2} six times')
    check(off < 1e-3, f'the losses are off by {off:.2g}')
    check('out of memory' in said.getvalue(), 'it did not say so')
    how = f'at {sum(room)/2e9:.2f} GB, of {room[0]/1e9:.2f} needed' if CUDA else 'simulated'
    return f'out of memory ({how}): {b} pictures became {b//2}; losses within {off:.1g} of accumulate=2'


def checkpointing():
    "Blocks computed twice: the same losses, less memory"
    got, room = [], []
    for on in (False, True):
        free()
        with folder() as d:
            trainer(d, 3, plain, deep=True, checkpointing=on).fit('never')
            got.append(losses(d))
        room.append(torch.cuda.max_memory_allocated()/1e9 if CUDA else 0.)
    off = apart(*got)
    check(off < 1e-3, f'the losses are off by {off:.2g}')
    check(not CUDA or room[1] < .7*room[0], f'peak {room[0]:.2f} GB without, {room[1]:.2f} GB with it')
    return f'losses within {off:.1g}' + (f'; peak {room[0]:.2f} -> {room[1]:.2f} GB' if CUDA else '')


def nan():
    "A loss that is no number stops the run and is blamed on its own step, though nobody waited for the GPU"
    calls = []
    def loss(m, x, y): calls.append(0); return plain(m, x, y)*(float('nan') if len(calls) == 4 else 1.)
    with folder() as d:
        try: trainer(d, 8, loss, log_every=8).fit('never')
        except FloatingPointError as e: said = str(e)
        else: raise Failed('nothing was raised')
    check('at step 4 ' in said, f'it says: {said[:150]}')
    check(not CUDA or len(calls) == 8, f'{len(calls)} steps were taken: somebody waited for the GPU')
    return f'told at step {len(calls)} that step 4 was no number'


def compiled():
    "torch.compile, block by block: the losses of eager mode"
    from torch._dynamo.utils import counters
    how, got = True if CUDA else 'aot_eager', []
    for c in (False, how):
        counters.clear()
        with folder() as d:
            trainer(d, 6, compile=c).fit('never')
            got.append(losses(d))
    off, graphs = apart(*got), counters['stats']['unique_graphs']
    check(graphs, 'nothing was compiled')
    check(off < 2e-3, f'the losses are off by {off:.2g}')
    return f'{"inductor" if CUDA else how}: graphs for all blocks: {graphs}; losses within {off:.1g}'


def seeds():
    "What is random for a picture comes from its own generator, the same on every device"
    from dit_clipped.sampling import image_noise
    shape = (4, 32, 32)
    for dtype in (torch.float32, torch.bfloat16):
        here, there = (image_noise(range(8)) for _ in range(2))
        for k in range(3):
            a, b = here.draw(shape, 'cpu', dtype), there.draw(shape, DEV, dtype)
            check(b.device.type == DEV and torch.equal(a, b.cpu()), f'draw {k} in {dtype} differs')
    t, u = (question().objective.sample_t(64, torch.Generator().manual_seed(1), d) for d in ('cpu', DEV))
    check(u.device.type == DEV and torch.equal(t, u.cpu()), 'the times differ')
    return f'3 draws of 8 pictures in fp32 and bf16, and 64 times: cpu equals {DEV} bit for bit'


PROMPTS = ['a red heart on a blue background', 'a yellow star on a purple background', 'a white cat on a black background',
           'a green umbrella on a yellow background']


def drawn(device, groups, dtype=torch.float32):
    "The shipped model's pictures of PROMPTS (4,3,64,64) in [0,1], drawn in groups of so many"
    from dit_clipped.pipeline import DiTClippedPipeline
    pipe, k = DiTClippedPipeline.from_pretrained('pictograms', device=device, dtype=dtype), groups
    return torch.cat([pipe(PROMPTS[i:i+k], seed=list(range(i, i+k)), output_type='pt').images.cpu()
                      for i in range(0, 4, k)])


def pictures():
    "The shipped model draws the same in fp32 wherever it runs"
    conv = torch.backends.cudnn.allow_tf32
    here, usual = drawn('cpu', 4), drawn(DEV, 4) if CUDA else None
    torch.backends.cudnn.allow_tf32 = False
    try: there, alone = drawn(DEV, 4), drawn(DEV, 1 if CUDA else 2)
    finally: torch.backends.cudnn.allow_tf32 = conv
    off, single = ((x - there).abs().max().item()*255 for x in (here, alone))
    check(off <= 1 and single <= 1, f'off by {off:.2f}/255 from the cpu, by {single:.2f}/255 in smaller batches')
    said = f'fp32 within {off:.2g}/255 of the cpu, {single:.2g}/255 in smaller batches'
    if not CUDA: return said
    half = (drawn(DEV, 4, torch.bfloat16) - here).abs()*255
    usual = (usual - here).abs().max()*255
    return said + (f'; with TF32 in convolutions, as torch has it, within {usual:.2g}/255; '
                   f'bf16 {half.mean():.2g}/255 in the mean, {half.max():.2g}/255 at most')


def clipped(text, vae):
    from dit_clipped.core import set_seed
    from dit_clipped.dit import create_model
    set_seed(0)
    return create_model('DiT-Clipped-T/4', input_size=16, in_channels=vae.channels, pooled_dim=text.pooled_dim, depth=2,
                        context_dim=text.context_dim, learn_sigma=False)


def captions():
    "Pictures and words to latents on the device, in the loop and as a cache, and trained on"
    from dit_clipped.data import Pictograms
    from dit_clipped.latents import LatentBatch, LatentCache, build_cache
    from dit_clipped.pipeline import DiTClippedPipeline
    from dit_clipped.trainer import Trainer
    n, b = (256, 32) if CUDA else (16, 8)
    pipe, few, end = DiTClippedPipeline.from_pretrained('pictograms'), Pictograms(n), []
    vae, text = pipe.vae, pipe.text_encoder
    kw = dict(precision='bf16', steps=3, batch_size=b, log_every=1, progress=False)
    with folder() as d:
        cache = LatentCache(build_cache(few, vae, text, d/'cache', progress=False), vae, text)
        for k, data, f in (0, few, LatentBatch(vae, text)), (1, cache.loader(), LatentBatch(vae)):
            Trainer(clipped(text, vae), data, pipe_loss(pipe), d/str(k), encode_fn=f, **kw).fit('never')
            end.append(losses(d/str(k))[-1])
        off = encoder_error(few, vae, text, cache)
    check(all(e == e and e < 100 for e in end), f'the losses ended at {end}')
    return f'losses {end[0]:.3f} from pictures, {end[1]:.3f} from a cache; latents, words within {off:.2g} of the cpu'


def pipe_loss(pipe):
    from dit_clipped.losses import DiffusionLoss
    return DiffusionLoss(pipe.objective)


def encoder_error(data, vae, text, cache):
    "Largest difference between what the cache holds and the same encoders on the CPU"
    rows = list(range(8))
    m, pooled, tokens, _ = cache.__getitems__(rows)
    here = vae.to('cpu').moments(torch.stack([data[i][0] for i in rows]))
    y = text.to('cpu')([data[i][1] for i in rows])
    off = max((m - here).abs().max().item(), (pooled - y.pooled).abs().max().item(),
              (tokens - y.tokens[:, :tokens.shape[1]]).abs().max().item())
    check(off < .1, f'the encoders are off by {off:.2g}')      # kept in fp16; convolutions may be TF32
    return off


PROOFS = {f.__name__: f for f in (seeds, pictures, bf16, fp16, resume, memory, nan, workers, captions, checkpointing,
                                  compiled)}


def proof(name):
    "The row of a proof"
    t0 = time.time()
    try: ok, said = True, PROOFS[name]()
    except Failed as e: ok, said = False, str(e)
    free()
    yield dict(name=name, ok=ok, said=said, seconds=time.time()-t0)


# Speed

MODELS = 'DiT-XL/2', 'DiT-B/2', 'DiT-S/2', 'DiT-Clipped-B/2'
SMALL = {} if CUDA else dict(depth=2, hidden_size=32, num_heads=2, input_size=8)
TINY = '' if CUDA else 'tiny '
BATCHES = (64, 128, 256) if CUDA else (2,)


def build(config, twin=False):
    "A DiT on the device, ours or diffusers' of the same shape; made there, which saves seconds"
    from dit_clipped.cli import diffusers_twin
    from dit_clipped.dit import DiT
    with torch.device(DEV): return (diffusers_twin if twin else DiT)(config).to(DEV)


@functools.cache
def matmul_peak():
    "Flop/s of a large bf16 matrix product here"
    n, secs = 8192 if CUDA else 256, []
    a, b = (torch.randn(n, n, device=DEV).to(torch.bfloat16) for _ in range(2))
    for _ in range(30 if CUDA else 4):
        sync(); t0 = time.perf_counter(); a @ b; sync()
        secs.append(time.perf_counter() - t0)
    return 2*n**3/median(secs[len(secs)//3:])


def latents(c, b):
    "x, t and labels or captions, for a config"
    from dit_clipped.conditioning import TextCond
    y = torch.arange(b, device=DEV) % max(1, c.num_classes)
    rand = functools.partial(torch.randn, device=DEV)
    real = torch.ones(b, 77, dtype=torch.bool, device=DEV)
    if c.context_dim: y = TextCond(rand(b, c.pooled_dim), rand(b, 77, c.context_dim), real)
    return rand(b, c.in_channels, c.input_size, c.input_size), torch.arange(b, device=DEV) % 1000, y


def seconds(model, config, b, opt):
    "Median of several steps after some that do not count"
    from dit_clipped.cli import training_step
    data = latents(config, b)
    secs = [training_step(model, *data, opt, torch.bfloat16) for _ in range(12 if CUDA else 3)]
    return median(secs[4 if CUDA else 1:])


def speed(b, secs, flops):
    "The figures of a row, and in words"
    room, top = torch.cuda.max_memory_allocated()/1e9 if CUDA else None, matmul_peak()
    share = flops*b/secs/top
    said = f'{b/secs:.0f} pictures/s, {1e3*secs:.1f} ms a step, ' + (f'peak {room:.1f} GB, ' if CUDA else '')
    return dict(rate=b/secs, ms=1e3*secs, peak_gb=room, share=share, matmul=top,
                said=said + f'{share:.1%} of the {top/1e12:.3g} Tflop/s of a bf16 matmul')


def faster(blocks):
    "torch.compile for each block, as `Trainer(compile=True)` does it; what was compiled before is forgotten"
    torch._dynamo.reset()
    for block in blocks: block.compile(**({} if CUDA else dict(backend='aot_eager')))


def cost(config):
    "Flop of a training step for one picture: multiply-adds, forward and twice that backward"
    from dit_clipped.dit import DiT, gflops
    with torch.device('meta'): return gflops(DiT(config))*1e9*2*3


def measured(name, twin, fast, b):
    "One row; out of memory is an answer"
    from dit_clipped.dit import model_config
    matmul_peak(); free()
    t0, config = time.time(), model_config(name, **SMALL)
    try:
        m = build(config, twin).train()
        if fast: faster(getattr(m, 'blocks', None) or m.transformer_blocks)
        opt = torch.optim.AdamW(m.parameters(), 1e-4, fused=True)
        row = dict(ok=True) | speed(b, seconds(m, config, b, opt), cost(config))
    except torch.cuda.OutOfMemoryError: row = dict(ok=None, said='out of memory: skipped')
    what = f"{TINY}{'diffusers' + chr(39) + ' ' if twin else ''}{name}, batch {b}"
    return dict(name=what, seconds=time.time()-t0) | row


def training(name, twin=False, fast=False, batches=BATCHES):
    "Rows of one model, batch after batch"
    if not twin: yield from (measured(name, False, fast, b) for b in batches); return
    try: import diffusers
    except ImportError as e: yield dict(name=f"diffusers' {name}", ok=None, said=f'{e}'[:200], seconds=0.)
    else: yield from (dict(measured(name, True, fast, b), diffusers=diffusers.__version__) for b in batches)


def timed(f, repeats):
    "Median seconds after one call that does not count"
    secs = []
    for _ in range(repeats + 1):
        sync(); t0 = time.perf_counter(); f(); sync()
        secs.append(time.perf_counter() - t0)
    return median(secs[1:])


def drawing(pipe, n, repeats, what, **kw):
    "The row of drawing `n` pictures at once"
    t0 = time.time()
    secs = timed(lambda: pipe(num_images_per_prompt=n, seed=0, **kw), repeats if CUDA else 1)
    said = f'{secs:.3f} s' if n == 1 else f'{n/secs:.2f} pictures/s, {secs:.2f} s for {n}'
    return dict(name=f'{what}, {n} at once', ok=True, said=said, latency=secs, rate=n/secs, seconds=time.time()-t0)


def sampling(fast=False):
    "XL/2 with random weights: latents, without a decoder"
    from dit_clipped.dit import model_config
    from dit_clipped.losses import Objective
    from dit_clipped.pipeline import DiTClippedPipeline
    from dit_clipped.schedule import make_schedule
    free()
    model, steps = build(model_config('DiT-XL/2', **SMALL)), 50 if CUDA else 2
    obj = Objective('eps', make_schedule('linear'))
    pipe = DiTClippedPipeline(model, obj, config=dict(trained=True)).to(DEV, torch.bfloat16)  # no warning
    how = dict(class_labels=1, num_inference_steps=steps, guidance_scale=4., scheduler='ddim', output_type='latent')
    for n in (1, 32 if CUDA else 2):
        if fast: faster(model.blocks)
        yield drawing(pipe, n, 3, f'{TINY}XL/2, {steps} guided steps, bf16', **how)


def shipped_sampling(dtype):
    from dit_clipped.pipeline import DiTClippedPipeline
    free()
    pipe = DiTClippedPipeline.from_pretrained('pictograms', dtype=getattr(torch, dtype))
    for n in (1, 64 if CUDA else 2):
        yield drawing(pipe, n, 5, f'shipped, {pipe.config["steps"]} steps, {dtype}', prompt=PROMPTS[0], output_type='pt')


# The preset, on this device

def pack(home, out, most=15*2**20):
    "A folder into files of at most so many bytes, which unzip into it again"
    k, room = 0, 0
    for f in sorted(f for f in home.rglob('*') if f.is_file()):
        if not k or room + f.stat().st_size > most: k, room = k + 1, 0
        room += f.stat().st_size
        with zipfile.ZipFile(out/f'pipeline_{k}.zip', 'a') as z: z.write(f, Path('pipeline')/f.relative_to(home))


def preset(minutes, out):
    "Train the shipped model's preset, keep its pipeline, and let it sit its exam"
    from dit_clipped import cli
    t0, run = time.time(), Path(tempfile.mkdtemp())
    cli.train(data='pictograms', out=str(run), minutes=minutes, quiet=True)
    spent, plan = time.time() - t0, (run/'plan.json').read_text()
    if os.environ.get('OUT'): pack(run/'pipeline', out)               # a borrowed machine sends back few files
    else: shutil.copytree(run/'pipeline', out/'pipeline', dirs_exist_ok=True)
    shutil.copy(run/'dit/log.csv', out/'dit_log.csv')
    yield dict(name='training', ok=True, said=f'{spent/60:.1f} of {minutes:g} minutes; plan {plan}', seconds=spent)
    yield from exam(run/'pipeline', out)
    shutil.rmtree(run)


def captioned(minutes, out, home):
    "Train on the latents and captions in `home` with its VAE and text tower, keep the pipeline, and draw with it"
    from dit_clipped import cli
    t0, run, b = time.time(), Path(tempfile.mkdtemp()), 1024 if CUDA else 8
    how = dict(data=f'cache:{home/"cache"}', vae=str(home/'vae'), clip=str(home/'text_encoder'), width=256, depth=8,
               model='DiT-Clipped-T/2', batch_size=b, lr=1e-3, warmup=300, ema_decay=.999, objective='flow', shift=2.,
               logit_normal=(0., 1.2), precision='auto', quiet=True)
    few = 40 if CUDA else 2
    short, longer = (took(lambda n=n: cli.train(out=str(run/f'{n}'), steps=n, **how)) for n in (few, 3*few))
    left, each = 60*minutes - (time.time() - t0), max(longer - short, 1e-3)/(2*few)
    steps = max(few, int(.9*left/each))
    cli.train(out=str(run/'long'), steps=steps, save_every=max(steps//8, 1), sample_every=max(steps//8, 1), **how)
    home = run/'long/pipeline'
    if os.environ.get('OUT'): pack(home, out)
    else: shutil.copytree(home, out/'pipeline', dirs_exist_ok=True)
    shutil.copy(run/'long/log.csv', out/'dit_log.csv')
    for f in sorted((run/'long/samples').glob('*.png'))[-1:]: shutil.copy(f, out/'samples.png')
    yield dict(name='captioned', ok=True, said=f'{steps} steps of {b} at {b/each:,.0f} pictures/s', seconds=time.time()-t0)
    shutil.rmtree(run)


def took(f):
    t0 = time.time()
    f()
    return time.time() - t0


def exam(home, out):
    from dit_clipped import cli
    reader, t0 = ROOT/'nbs/assets/classifier.safetensors', time.time()
    if not reader.is_file():
        yield dict(name='exam', ok=None, said=f'no {reader.relative_to(ROOT)}', seconds=0.)
        return
    one, two = (1000, 500) if CUDA else (8, 4)
    r = cli.evaluate_scenes(str(home), one, two, out=str(out/'exam.png'), classifier=str(reader))
    said = ', '.join(f'{k} {r[k]["all"]:.1%}' for k in ('trained', 'held-out', 'two') if k in r)
    yield dict(name='exam', ok=True, said=f'all right: {said}; plain borders {r["plain"]:.1%}', report=r,
               seconds=time.time()-t0)


def jobs_of(part, a):
    "{job: fn() -> rows, as they come}"
    p = functools.partial
    if part == 'proofs': return {k: p(proof, k) for k in PROOFS}
    pairs = [(m, False) for m in MODELS] + [(m, True) for m in MODELS if 'Clipped' not in m]
    name = {k: ("diffusers' " if k[1] else '') + k[0] for k in pairs}
    if part == 'train': return {name[k]: p(training, *k) for k in pairs}
    if part == 'compiled':              # the largest batch of all models first: compiling is slow, time may run out
        jobs = {f'{name[k]}, batch {b}': p(training, *k, True, (b,)) for b in BATCHES[::-1] for k in pairs}
        return {'XL/2 sampling': p(sampling, True)} | jobs
    if part == 'sample': return dict(XL=sampling) | {f'shipped {d}': p(shipped_sampling, d) for d in ('bfloat16', 'float32')}
    if a.captioned: return dict(captioned=p(captioned, a.train_shipped, a.out, a.captioned))
    return dict(preset=p(preset, a.train_shipped, a.out))
