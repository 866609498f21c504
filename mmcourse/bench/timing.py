"""How a race is timed: in turns, after a warm-up, compared round by round."""

import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcourse.device import MIB, Stopwatch

if TYPE_CHECKING:
    import torch

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler talks to stderr
ROUNDS = 15


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


@dataclass(frozen=True)
class Memory:
    """Peak memory (MiB) against the batch, ours and the plain formula's, if tried."""

    name: str
    batch: int
    ours: float
    plain: float | None


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


def hf_sizes(width: int, depth: int, heads: int) -> dict[str, int]:
    """Name a transformer's sizes as transformers does, four times as wide inside."""
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }
