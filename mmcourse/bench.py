"""``mmcourse bench``: how long things take here, ours beside the library's.

Ours and the peers run in one process on the same input, one after the other in each
round, so that whatever else the machine does hits all of them; what counts is the
ratio. Timings are measured on request and never by a test: machines are noisy.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcourse.device import MIB, Stopwatch

if TYPE_CHECKING:
    import torch

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler talks to stderr
TRIES, ROUNDS = 3, 15


@dataclass(frozen=True)
class Timing:
    """The median of some tries in seconds, their spread, and the bar to stay under."""

    name: str
    median: float
    spread: float
    bar: float


@dataclass(frozen=True)
class Race:
    """Ours against a peer: medians (s), the ratio's median and quartiles, memory (MiB).

    ``share`` is the part of the device's measured matrix-product speed that ours
    reaches, None where the work isn't counted.
    """

    name: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    our_mib: float
    their_mib: float
    share: float | None = None


def race(
    name: str,
    ours: Callable[[], object],
    peers: dict[str, Callable[[], object]],
    device: "torch.device",
    rounds: int = ROUNDS,
) -> Iterator[Race]:
    """Time ours and the peers in turn, after a warm-up, and compare round by round."""
    runs = {"ours": ours, **peers}
    for run in runs.values():
        run(), run()
    taken: dict[str, list[float]] = {who: [] for who in runs}
    for i in range(rounds):
        for who in list(runs)[:: 1 if i % 2 == 0 else -1]:  # nobody is always first
            with Stopwatch() as watch:
                runs[who]()
            taken[who].append(watch.seconds)
    memory = {who: peak_of(run, device) for who, run in runs.items()}
    median = {who: statistics.median(t) for who, t in taken.items()}
    share = _share(ours, median["ours"], device) if device.type == "cuda" else None
    for peer in peers:
        ratios = [a / b for a, b in zip(taken["ours"], taken[peer], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        times = (median["ours"], median[peer], middle, low, high)
        yield Race(name, peer, *times, memory["ours"], memory[peer], share)


def peak_of(run: Callable[[], object], device: "torch.device") -> float:
    """Return the most memory, in MiB, that the tensors made by ``run`` held at once."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as seen:
        run()
    events = seen.profiler.kineto_results.events()
    steps = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, size in steps:
        held += size
        peak = max(peak, held)
    return peak / MIB


def _share(run: Callable, seconds: float, device: "torch.device") -> float:
    """Divide the speed of ``run`` by that of a large matrix product, both in FLOP/s."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    n = 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    best = min(_seconds(lambda: a @ a) for _ in range(10))
    return counter.get_total_flops() / seconds / (2 * n**3 / best)


def _seconds(run: Callable) -> float:
    with Stopwatch() as watch:
        run()
    return watch.seconds


def both_ways(
    name: str,
    modules: dict[str, Callable],
    inputs: tuple,
    device: "torch.device",
    rounds: int = ROUNDS,
) -> Iterator[Race]:
    """Race forward passes, then a forward and a backward pass; the first is ours."""
    import torch

    bf16 = device.type == "cuda"

    def forward(f: Callable):
        def run():
            with torch.no_grad(), torch.autocast(device.type, enabled=bf16):
                f(*inputs)

        return run

    def training(f: Callable):
        def run():
            with torch.autocast(device.type, enabled=bf16):
                out = f(*inputs)
            out.float().sum().backward()

        return run

    for label, way in (("forward", forward), ("forward + backward", training)):
        runs = {who: way(f) for who, f in modules.items()}
        ours = runs.pop("ours")
        yield from race(f"{name}, {label}", ours, runs, device, rounds)


# --- the races --------------------------------------------------------------------


def foundations(device: "torch.device | None" = None) -> Iterator[Timing]:
    """Time what every notebook waits for: imports, the emoji set built and loaded."""
    python = [sys.executable, "-c"]
    yield _time("python alone", lambda: _run([*python, "pass"]), bar=float("inf"))
    yield _time("import mmcourse", lambda: _run([*python, "import mmcourse"]), bar=0.2)
    command = [sys.executable, "-m", "mmcourse.cli", "--help"]
    yield _time("mmcourse --help", lambda: _run(command), bar=0.5)

    from mmcourse import assets, datasets

    assets.path("openmoji")
    before = os.environ.get("MMCOURSE_DATA")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "assets").symlink_to(assets.root() / "assets")
        os.environ["MMCOURSE_DATA"] = folder
        try:
            yield _time("openmoji(64) built", datasets.openmoji, bar=15.0, tries=1)
            yield _time("openmoji(64) loaded", datasets.openmoji, bar=1.0)
        finally:
            os.environ.pop("MMCOURSE_DATA")
            if before is not None:
                os.environ["MMCOURSE_DATA"] = before


def attention(device: "torch.device") -> Iterator[Race]:
    """Our multi-head attention against torch's, with and without a causal mask."""
    import torch

    from mmcourse.attention import MultiHeadAttention

    batch, n, dim, heads = 8, 256, 384, 6
    ours = MultiHeadAttention(dim, heads).to(device)
    theirs = torch.nn.MultiheadAttention(dim, heads, batch_first=True).to(device)
    x = torch.randn(batch, n, dim, device=device)
    later = torch.ones(n, n, device=device, dtype=torch.bool).triu(1)
    for name, causal in (("attention", False), ("causal attention", True)):
        kwargs = {"is_causal": True, "attn_mask": later} if causal else {}

        def peer(x, kwargs=kwargs):
            return theirs(x, x, x, need_weights=False, **kwargs)[0]

        modules = {"ours": lambda x, c=causal: ours(x, causal=c), "torch": peer}
        yield from both_ways(f"{name} {batch}x{n}x{dim}", modules, (x,), device)


def encoder(device: "torch.device") -> Iterator[Race]:
    """Our encoder against torch's, with a mask of padding as real batches have."""
    import torch

    from mmcourse.transformer import Encoder

    batch, n, dim, heads, depth = 8, 128, 384, 6, 6
    ours = Encoder(dim, depth, heads).to(device).eval()
    layer = torch.nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
    )
    norm, nested = torch.nn.LayerNorm(dim), {"enable_nested_tensor": False}
    theirs = torch.nn.TransformerEncoder(layer, depth, norm, **nested)
    theirs = theirs.to(device).eval()
    x = torch.randn(batch, n, dim, device=device)
    lengths = torch.linspace(n // 2, n, batch, device=device).long()
    mask = torch.arange(n, device=device) < lengths[:, None]
    modules = {
        "ours": lambda x: ours(x, mask),
        "torch": lambda x: theirs(x, src_key_padding_mask=~mask),
    }
    yield from both_ways(
        f"encoder {batch}x{n}x{dim}, {depth} deep", modules, (x,), device
    )


def vit(device: "torch.device") -> Iterator[Race]:
    """Our vision transformer against timm's and transformers', the same weights."""
    import timm
    import torch

    from mmcourse.vit import ViT

    batch = 256 if device.type == "cuda" else 8
    x = torch.randn(batch, 3, 224, 224, device=device)
    for name, rounds in (("vit_tiny_patch16_224", 15), ("vit_base_patch16_224", 7)):
        theirs = timm.create_model(name, pretrained=False).to(device).eval()
        ours = ViT.from_timm(theirs).to(device)
        modules = {"ours": ours.logits, "timm": theirs, "transformers": _hf(ours)}
        yield from both_ways(f"{name} x {batch}", modules, (x,), device, rounds)
        if device.type == "cuda":
            compiled = {who: torch.compile(f) for who, f in modules.items()}
            yield from both_ways(f"{name} x {batch}, compiled", compiled, (x,), device)


def _hf(ours):
    """Make transformers' ViT of the same size, on its SDPA attention."""
    from transformers import ViTConfig, ViTForImageClassification

    c = ours.config
    config = ViTConfig(
        hidden_size=c.dim,
        num_hidden_layers=c.depth,
        num_attention_heads=c.heads,
        intermediate_size=c.hidden,
        num_labels=c.classes,
        attn_implementation="sdpa",
    )
    model = ViTForImageClassification(config).eval()
    model = model.to(next(ours.parameters()).device)
    return lambda x: model(x).logits


def generation(device: "torch.device") -> Iterator[Race]:
    """Our ``generate`` against transformers', SmolLM2's shape, 64 new tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mmcourse.generation import generate
    from mmcourse.transformer import Decoder

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    theirs = LlamaForCausalLM(config).eval().to(device)
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    ours = Decoder.from_llama(theirs).to(device)
    for batch in (1, 8):
        prompt = torch.randint(0, 49152, (batch, 32), device=device)

        def peer(prompt=prompt):
            with torch.no_grad():
                return theirs.generate(prompt, max_new_tokens=64)

        name = f"generate 64 tokens, batch {batch}, 135M"
        runs = {"transformers": peer}
        yield from race(name, lambda p=prompt: generate(ours, p, 64), runs, device, 7)


RACES = {
    "foundations": foundations,
    "attention": attention,
    "encoder": encoder,
    "vit": vit,
    "generate": generation,
}


def tables(results: list[Timing | Race]) -> Iterator[list[tuple[str, ...]]]:
    """Lay out the timings and the races, the heads first."""
    timings = [r for r in results if isinstance(r, Timing)]
    races = [r for r in results if isinstance(r, Race)]
    if timings:
        rows = [(t.name, f"{t.median:.3f} s", f"{t.spread:.3f} s") for t in timings]
        bars = ["" if t.bar == float("inf") else f"under {t.bar:g} s" for t in timings]
        rows = [(*row, bar) for row, bar in zip(rows, bars, strict=True)]
        yield [("what", "median", "spread", "bar"), *rows]
    if races:
        heads = ("race", "peer", "ours", "theirs", "ours / theirs", "peak memory")
        yield [(*heads, "share of peak"), *(_row(r) for r in races)]


def _row(r: Race) -> tuple[str, ...]:
    times = (f"{r.ours * 1e3:.1f} ms", f"{r.theirs * 1e3:.1f} ms")
    ratio = f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})"
    memory = f"{r.our_mib:.0f} / {r.their_mib:.0f} MiB"
    return (
        r.name,
        r.peer,
        *times,
        ratio,
        memory,
        "" if r.share is None else f"{r.share:.0%}",
    )


def report(results: list[Timing | Race], readme: Path, device: str) -> None:
    """Write the races into the README, between its two marks."""
    text = readme.read_text(encoding="utf-8")
    start, end = "<!-- bench -->\n", "<!-- /bench -->"
    before, _, rest = text.partition(start)
    _, mark, after = rest.partition(end)
    if mark == "":
        raise ValueError(f"{readme.name} has no {start.strip()} and {end}: add them")
    rows = [row for table in tables(results) if len(table[0]) > 4 for row in table]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    table = "\n".join([f"Measured on {device}.", "", *lines])
    readme.write_text(f"{before}{start}{table}\n{end}{after}", encoding="utf-8")


def save(results: list[Timing | Race], path: Path, device: str) -> None:
    """Write what was measured as JSON, with the device's name."""
    rows = [{"kind": type(r).__name__, **asdict(r)} for r in results]
    text = json.dumps({"device": device, "results": rows}, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def _time(name: str, run: Callable, bar: float, tries: int = TRIES) -> Timing:
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return Timing(name, statistics.median(taken), max(taken) - min(taken), bar)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
