"""``mmcourse doctor``: what the course needs, each thing ok or how to mend it.

Whatever may crash on import (torch beside a torchvision that doesn't match, a driver
older than CUDA) is imported in a process of its own, so that the doctor survives it.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

import psutil

OLDEST = (3, 11)
NOTEBOOK_GB = 3  # what a notebook may take at the most
ADVISED_GB = 4
DISK_GB = 2  # caches and trained weights, once everything is installed
WIDGET_HALVES = ("jupyterlab_widgets", "widgetsnbextension")

# Answers one JSON line, even if torch brings the process down after it.
PROBE = """
import json, warnings
seen = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        import torch
        seen["torch"] = torch.__version__
        seen["build"] = torch.version.cuda
        if torch.cuda.is_available():
            card = torch.cuda.get_device_properties(0)
            seen["gpu"] = f"{card.name}, {card.total_memory / 1e9:.0f} GB"
        elif torch.backends.mps.is_available():
            seen["gpu"] = "Apple's GPU (mps)"
        import torchvision
        seen["torchvision"] = torchvision.__version__
    except BaseException as error:
        seen["error"] = f"{type(error).__name__}: {error}"
seen["warnings"] = [str(one.message) for one in caught]
print("probe:" + json.dumps(seen))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report; ``mend`` is empty where all is well.

    The course can't run while a ``required`` one is not ``ok``.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
    required: bool = True


def diagnose() -> list[Check]:
    """Check everything, in the order in which one would mend it; takes some seconds."""
    seen = probe_torch()
    return [
        check_python(),
        check_torch(seen),
        check_gpu(seen),
        check_memory(),
        check_disk(),
        check_assets(),
        check_jupyter(),
        check_program("marp", "building decks", "npm install @marp-team/marp-cli"),
        check_program("chromium", "PDF and browser tests", "apt install chromium"),
    ]


def check_python() -> Check:
    """Python's version, and where it is."""
    version = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST))
    ok = sys.version_info[:2] >= OLDEST
    mend = f"install Python {oldest} or later, then `make PYTHON=python3.12 course`"
    return Check("Python", ok, f"{version} at {sys.executable}", "" if ok else mend)


def probe_torch() -> dict:
    """Import torch and torchvision in another process and say what came of it.

    Keys: torch, torchvision, build (the CUDA it was built for), gpu, error, warnings.
    """
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return {"error": "importing torch took more than 120 s", "warnings": []}
    for line in done.stdout.splitlines():
        if line.startswith("probe:"):
            return json.loads(line.removeprefix("probe:"))
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return {"error": f"exit code {done.returncode}: {said}", "warnings": []}


def check_torch(seen: dict) -> Check:
    """torch and torchvision import together; recognise the mismatch of two builds."""
    have = [f"{p} {seen[p]}" for p in ("torch", "torchvision") if p in seen]
    error = seen.get("error")
    if error is None:
        return Check("torch", True, ", ".join(have))
    again = f"{sys.executable} -m pip install --force-reinstall torch torchvision"
    if "torchvision::nms does not exist" in error or _is_other_build(error):
        mend = (
            "torch and torchvision are of different builds (a CPU torch beside a CUDA "
            f"torchvision, say): install both anew from one index, `{again}`"
        )
    elif "ModuleNotFoundError" in error:
        mend = "run `make course`, which installs it, and start `.venv/bin/mmcourse`"
    else:
        mend = f"install both anew: `{again}`"
    return Check("torch", False, ", ".join([*have, error]), mend)


def _is_other_build(error: str) -> bool:
    """The same mismatch as torchvision's C++ part reports it."""
    return "torchvision" in error and "undefined symbol" in error


def check_gpu(seen: dict) -> Check:
    """A GPU is welcome, not required; a driver too old for it has a mend of its own."""
    if "gpu" in seen:
        return Check("GPU", True, seen["gpu"], required=False)
    old = [w for w in seen.get("warnings", []) if "driver" in w and "too old" in w]
    driver, newest = nvidia_driver()
    build = seen.get("build")
    if old or (build and newest and _major(newest) < _major(build)):
        found = f"NVIDIA driver {driver or 'unknown'} is too old for CUDA {build}"
        mend = (
            f"update the driver to one for CUDA {build} (nvidia-smi then shows that "
            "`CUDA Version`), or go on: the course runs on the CPU too"
        )
        return Check("GPU", False, found, mend, required=False)
    if driver and build is None and "torch" in seen:
        found = (
            f"NVIDIA driver {driver}, but torch {seen['torch']} is built without CUDA"
        )
        mend = "install torch and torchvision anew from the default index, or go on"
        return Check("GPU", False, found, mend, required=False)
    return Check("GPU", True, "none: the course runs on the CPU", required=False)


def nvidia_driver() -> tuple[str | None, str | None]:
    """The driver's version and the newest CUDA it can run, from nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    driver = re.search(r"Driver Version:\s*([\d.]+)", done.stdout)
    newest = re.search(r"CUDA[\w ]* Version:\s*([\d.]+)", done.stdout)
    return (driver and driver.group(1), newest and newest.group(1))


def _major(version: str) -> int:
    """Within one major version CUDA runs on older drivers too."""
    return int(version.split(".")[0])


def check_memory() -> Check:
    """Free main memory: a notebook takes 3 GB at the most."""
    free = psutil.virtual_memory().available / 1e9
    total = psutil.virtual_memory().total / 1e9
    mend = (
        "close other programs and idle notebooks (menu Kernel, Shut Down All Kernels)"
    )
    ok = free >= ADVISED_GB
    found = f"{free:.1f} GB free of {total:.1f} GB"
    return Check("memory", ok, found, "" if ok else mend, required=free < NOTEBOOK_GB)


def check_disk() -> Check:
    """Room for caches, where the assets lie."""
    from mmcourse import assets

    home = assets.root()
    there = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    mend = f"free {DISK_GB} GB, or set MMCOURSE_DATA to a folder on another disk"
    ok = free >= DISK_GB
    return Check("disk", ok, f"{free:.1f} GB free at {there}", "" if ok else mend)


def check_assets() -> Check:
    """The data and the pretrained weights are unpacked."""
    from mmcourse import assets

    rows = assets.status()
    missing = [row for row in rows if not row.present]
    if not missing:
        return Check("assets", True, f"all {len(rows)}")
    size = sum(row.size_mb for row in missing)
    found = (
        f"{len(missing)} of {len(rows)} missing: {', '.join(r.name for r in missing)}"
    )
    mend = f"run `mmcourse assets` ({size:.0f} MB; without internet `--from room.zip`)"
    return Check("assets", False, found, mend)


def check_jupyter() -> Check:
    """JupyterLab, and widgets whose JavaScript half has the version they ask for."""
    from packaging.requirements import Requirement

    again = f"{sys.executable} -m pip install --upgrade jupyterlab ipywidgets"
    try:
        have = f"JupyterLab {metadata.version('jupyterlab')}"
        have += f", ipywidgets {metadata.version('ipywidgets')}"
        for half in map(Requirement, metadata.requires("ipywidgets") or []):
            if half.name.replace("-", "_") not in WIDGET_HALVES:
                continue
            version = metadata.version(half.name)
            if not half.specifier.contains(version, prereleases=True):
                found = f"{have} asks for {half}, there is {version}"
                return Check("JupyterLab", False, found, f"run `{again}`")
    except metadata.PackageNotFoundError as error:
        return Check("JupyterLab", False, f"no {error.name}", f"run `{again}`")
    return Check("JupyterLab", True, have)


def check_program(name: str, role: str, install: str) -> Check:
    """A program outside Python that only some commands need."""
    path = find_program(name)
    if path is None:
        mend = f"only needed for {role}: `{install}` or what your system has for it"
        return Check(name, False, "not found", mend, required=False)
    return Check(name, True, path, required=False)


def find_program(name: str) -> str | None:
    """Where a program is, under any of its usual names, or in ./node_modules."""
    others = {"chromium": ["chromium-browser", "google-chrome", "chrome"]}
    for one in [name, *others.get(name, [])]:
        path = shutil.which(one) or shutil.which(one, path="node_modules/.bin")
        if path is not None:
            return path
    return None
