"""``mmcourse bench``: how long things take here, as a median beside its bar.

Timings are measured on request and never by a test: machines differ and are noisy.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TRIES = 3


@dataclass(frozen=True)
class Timing:
    """The median of some tries in seconds, their spread, and the bar to stay under."""

    name: str
    median: float
    spread: float
    bar: float


def foundations() -> Iterator[Timing]:
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


def _time(name: str, run: Callable, bar: float, tries: int = TRIES) -> Timing:
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return Timing(name, statistics.median(taken), max(taken) - min(taken), bar)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
