"""``mmcourse bench``: how long things take here, ours beside the library's.

Ours and the peers run in one process on the same input, one after the other in each
round, so that whatever else the machine does hits all of them; what counts is the
ratio. Timings are measured on request and never by a test: machines are noisy.
"""

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mmcourse.bench import components, contrastive, fusions
from mmcourse.bench.timing import Memory, Race, Timing

Result = Timing | Race | Memory
RACES = {
    "foundations": components.foundations,
    "attention": components.attention,
    "encoder": components.encoder,
    "vit": components.vit,
    "generate": components.generation,
    "caption": components.captioning,
    "fusion": fusions.fusion,
    "multimodal": fusions.multimodal,
    "contrastive": contrastive.contrastive,
    "memory": contrastive.large_batches,
}


def tables(results: list[Result]) -> Iterator[list[tuple[str, ...]]]:
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
        if all(r.share is None for r in races):
            yield [heads, *(_row(r) for r in races)]
        else:
            shares = ["" if r.share is None else f"{r.share:.0%}" for r in races]
            rows = [(*_row(r), s) for r, s in zip(races, shares, strict=True)]
            yield [(*heads, "share of peak"), *rows]

    if memories := [r for r in results if isinstance(r, Memory)]:
        yield [("loss", "batch", "in chunks", "plain"), *_growth(memories)]


def _growth(memories: list[Memory]) -> Iterator[tuple[str, ...]]:
    """Lay out memory against batch, and the exponent p of memory ~ batch^p."""
    sides = {}
    for side in ("ours", "plain"):
        points = [(m.batch, getattr(m, side)) for m in memories]
        sides[side] = [(b, mib) for b, mib in points if mib is not None]
    for m in memories:
        plain = "" if m.plain is None else f"{m.plain:,.0f} MiB"
        yield m.name, f"{m.batch:,}", f"{m.ours:,.0f} MiB", plain
    if all(len(points) > 2 for points in sides.values()):
        slopes = [_exponent(points[-3:]) for points in sides.values()]
        yield "exponent, of the last three", "", *(f"{slope:.2f}" for slope in slopes)


def _exponent(points: list[tuple[int, float]]) -> float:
    x, y = (list(map(math.log, values)) for values in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def _row(r: Race) -> tuple[str, ...]:
    times = (f"{r.ours * 1e3:.1f} ms", f"{r.theirs * 1e3:.1f} ms")
    ratio = f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})"
    return r.name, r.peer, *times, ratio, f"{r.our_mib:.0f} / {r.their_mib:.0f} MiB"


def report(results: list[Result], readme: Path, device: str) -> None:
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


def save(result: Result, path: Path, device: str) -> list[Result]:
    """Add a result to the JSON and return all there are of this device.

    The file is replaced whole after every race: a run that is killed loses none that
    had ended, and races can be run apart.
    """
    kept: dict[tuple, Result] = {}
    for known in [*_stored(path, device), result]:
        own = getattr(known, "peer", getattr(known, "batch", None))
        kept[known.name, own] = known
    results = list(kept.values())
    rows = [{"kind": type(r).__name__, **asdict(r)} for r in results]
    text = json.dumps({"device": device, "results": rows}, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
    return results


def _stored(path: Path, device: str) -> list[Result]:
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["device"] != device:
        return []
    kinds = {kind.__name__: kind for kind in (Timing, Race, Memory)}
    return [kinds[row.pop("kind")](**row) for row in stored["results"]]
