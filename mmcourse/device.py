"""Pick the device and the precision, seed everything, measure time and memory.

A notebook begins with ``device = pick_device()`` and ``seed_everything(0)``, and runs
unchanged on a laptop and on a GPU. Importing this file doesn't import torch.

Taught in: every notebook; 16_efficiency measures with it.
"""

import os
import random
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

if TYPE_CHECKING:
    import torch

MIB = 2**20


class DeviceError(ValueError):
    """A device that isn't there, with the mend."""


def pick_device(prefer: "str | torch.device | None" = None) -> "torch.device":
    """Return the fastest device there is, of cuda, mps and cpu, or the preferred one.

    Raises DeviceError where the preferred one isn't there.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    names = [name for name, is_there in there.items() if is_there]
    if prefer is None:
        return torch.device(names[0])
    try:
        device = torch.device(prefer)
    except RuntimeError:  # no such kind anywhere
        device = None
    if device is None or device.type not in names:
        raise DeviceError(
            f"prefer={str(prefer)!r} is not on this machine: choose from "
            f"{', '.join(names)}, or run `mmcourse doctor` to see why it isn't found"
        )
    return device


def describe(device: "torch.device") -> str:
    """Name a device as a table of measurements should: its model, or its cores."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def pick_dtype(device: "torch.device") -> "torch.dtype":
    """Return bfloat16 on a GPU that computes in it, else float32.

    bfloat16 keeps the range of float32, so that nothing has to be rescaled. A CPU
    mostly only emulates it, which is slower than float32.
    """
    import torch

    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and have cuDNN choose repeatable algorithms.

    The same seed then gives the same numbers on the same machine; between machines the
    last digits differ. Raises ValueError for a seed that numpy doesn't take.
    """
    import numpy as np
    import torch

    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} is out of range: choose one from 0 to 2**32 - 1")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    # torch.manual_seed would queue a call, with its stack, at every step without a GPU.
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def profile() -> Literal["quick", "full"]:
    """Say how long to train: MMCOURSE_PROFILE, or "full" where there is a GPU.

    "quick" fits a two-core laptop, about a minute a notebook.
    """
    chosen = os.environ.get("MMCOURSE_PROFILE", "").strip().lower()
    if chosen == "":
        chosen = "quick" if pick_device().type == "cpu" else "full"
    if chosen not in ("quick", "full"):
        raise ValueError(f"MMCOURSE_PROFILE={chosen!r}: set it to quick or full")
    return chosen


class Stopwatch:
    """Time a block: ``with Stopwatch() as watch: ...``, then ``watch.seconds``.

    Within the block ``seconds`` is the time so far. A GPU works on after Python has
    gone ahead; the watch waits for it at both ends.
    """

    def __enter__(self) -> "Stopwatch":
        """Start, or start again."""
        _wait_for_gpu()
        self._start, self._end = time.perf_counter(), None
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        _wait_for_gpu()
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds between start and stop, or until now."""
        end = time.perf_counter() if self._end is None else self._end
        return end - self._start


def peak_memory(device: "torch.device | None" = None) -> float:
    """Return the most memory this process has held so far, in MiB.

    Of main memory; with a cuda device, what torch's tensors have held there.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / MIB
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / MIB
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    # Linux: ru_maxrss would count the parent that started us as well.
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1024


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
