import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import psutil
import pytest

from mmcourse import assets, doctor

GOOD_TORCH = """
import warnings
__version__ = "2.15.0+cu132"
class version: cuda = "13.2"
class cuda:
    def is_available():
        {warning}
        return False
class backends:
    class mps:
        def is_available(): return False
"""
OLD_DRIVER = (
    "warnings.warn('CUDA initialization: The NVIDIA driver on your system is too old "
    "(found version 11040). Please update your GPU driver.')"
)
NMS = "raise RuntimeError('operator torchvision::nms does not exist')"
SMI = """
| NVIDIA-SMI 470.82.01    Driver Version: 470.82.01    CUDA Version: {newest}     |
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a torch and a torchvision of one's own before the real ones."""

    def install(torch: str = GOOD_TORCH.format(warning=""), torchvision: str = ""):
        (tmp_path / "torch.py").write_text(torch)
        (tmp_path / "torchvision.py").write_text(torchvision or "__version__ = '0.29'")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return doctor.probe_torch()

    return install


def test_all_is_well(fake):
    seen = fake()
    check = doctor.check_torch(seen)
    assert (check.ok, check.mend) == (True, "")
    assert check.found == "torch 2.15.0+cu132, torchvision 0.29"
    assert doctor.check_gpu(seen).found == "none: the course runs on the CPU"


def test_torchvision_of_another_build(fake):
    check = doctor.check_torch(fake(torchvision=NMS))
    assert not check.ok and check.required
    assert "operator torchvision::nms does not exist" in check.found
    assert "different builds" in check.mend
    assert f"{sys.executable} -m pip install --force-reinstall" in check.mend


@pytest.mark.parametrize(
    ("torch", "found", "mend"),
    [
        (
            "import nowhere",
            "ModuleNotFoundError: No module named 'nowhere'",
            "make cour",
        ),
        ("raise OSError('libcudart')", "OSError: libcudart", "install both anew"),
        ("import os; os._exit(7)", "exit code 7", "install both anew"),
    ],
)
def test_torch_that_does_not_import(fake, torch, found, mend):
    check = doctor.check_torch(fake(torch))
    assert not check.ok
    assert found in check.found
    assert mend in check.mend


def test_torch_that_hangs(monkeypatch):
    def hang(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "more than 120 s" in doctor.check_torch(doctor.probe_torch()).found


def test_a_driver_too_old_in_torchs_words(fake, monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: ("470.82.01", "11.4"))
    seen = fake(GOOD_TORCH.format(warning=OLD_DRIVER))
    check = doctor.check_gpu(seen)
    assert not check.ok and not check.required
    assert check.found == "NVIDIA driver 470.82.01 is too old for CUDA 13.2"
    assert "update the driver to one for CUDA 13.2" in check.mend
    assert doctor.check_torch(seen).ok


@pytest.mark.parametrize(
    ("newest", "build", "ok"), [("11.4", "13.2", False), ("13.0", "13.2", True)]
)
def test_a_driver_too_old_in_nvidia_smis_words(monkeypatch, newest, build, ok):
    done = SimpleNamespace(stdout=SMI.format(newest=newest))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert doctor.nvidia_driver() == ("470.82.01", newest)
    seen = {"torch": "2.15.0", "build": build, "warnings": []}
    assert doctor.check_gpu(seen).ok is ok


def test_a_gpu_that_torch_was_not_built_for(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: ("580.1", "13.0"))
    seen = {"torch": "2.13.0+cpu", "build": None, "warnings": []}
    assert "built without CUDA" in doctor.check_gpu(seen).found


def test_a_gpu_is_named():
    check = doctor.check_gpu({"gpu": "NVIDIA H100, 85 GB", "warnings": []})
    assert (check.ok, check.found) == (True, "NVIDIA H100, 85 GB")


@pytest.mark.parametrize(
    ("free", "ok", "required"),
    [(8, True, False), (3.5, False, False), (2, False, True)],
)
def test_memory(monkeypatch, free, ok, required):
    now = SimpleNamespace(available=free * 1e9, total=16e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: now)
    check = doctor.check_memory()
    assert (check.ok, check.required, check.mend == "") == (ok, required, ok)


@pytest.mark.parametrize(("free", "ok"), [(50, True), (0.5, False)])
def test_disk(monkeypatch, tmp_path, free, ok):
    monkeypatch.setenv("MMCOURSE_DATA", str(tmp_path / "not" / "made" / "yet"))
    room = SimpleNamespace(free=free * 1e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    check = doctor.check_disk()
    assert check.ok is ok
    assert f"{free:.1f} GB free at {tmp_path}" == check.found


def test_assets(monkeypatch):
    def row(name: str, present: bool) -> SimpleNamespace:
        return SimpleNamespace(name=name, present=present, size_mb=31)

    monkeypatch.setattr(assets, "status", lambda: [row("minilm", True)])
    assert doctor.check_assets().ok
    rows = [row("minilm", True), row("openmoji", False)]
    monkeypatch.setattr(assets, "status", lambda: rows)
    check = doctor.check_assets()
    assert check.found == "1 of 2 missing: openmoji"
    assert "`mmcourse assets` (31 MB" in check.mend


def test_widgets_of_another_version(monkeypatch):
    real = metadata.version
    assert doctor.check_jupyter().ok
    monkeypatch.setattr(
        metadata, "version", lambda n: "1.0" if n == "jupyterlab_widgets" else real(n)
    )
    check = doctor.check_jupyter()
    assert not check.ok
    assert "asks for jupyterlab_widgets~=3" in check.found
    assert check.found.endswith("there is 1.0")


def test_no_jupyterlab(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    check = doctor.check_jupyter()
    assert check.found == "no jupyterlab"
    assert "--upgrade jupyterlab" in check.mend


def test_python_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    check = doctor.check_python()
    assert not check.ok and check.required
    assert check.found.startswith("3.10.2 at ")


def test_a_missing_program_is_no_fault(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_program("chromium", "PDF", "apt install chromium")
    assert not check.ok and not check.required
    browser = tmp_path / "google-chrome"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)
    assert doctor.check_program("chromium", "PDF", "apt").found == str(browser)


def test_the_whole_report(monkeypatch):
    monkeypatch.setattr(
        doctor, "probe_torch", lambda: {"error": "none", "warnings": []}
    )
    checks = doctor.diagnose()
    names = [check.name for check in checks]
    assert names[:2] == ["Python", "torch"]
    assert len(set(names)) == len(names)
    assert all(check.ok == (check.mend == "") for check in checks)
