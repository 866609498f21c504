import random
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from mmcourse import device as d


def on_a_machine_with(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "picked"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_is_picked(monkeypatch, cuda, mps, picked):
    on_a_machine_with(monkeypatch, cuda=cuda, mps=mps)
    monkeypatch.delenv("MMCOURSE_PROFILE", raising=False)
    assert d.pick_device().type == picked
    assert d.pick_device("cpu").type == "cpu"
    assert d.pick_device(torch.device("cpu")).type == "cpu"
    assert d.profile() == ("quick" if picked == "cpu" else "full")


def test_a_preferred_device_that_is_missing_is_refused(monkeypatch):
    on_a_machine_with(monkeypatch, cuda=False, mps=False)
    with pytest.raises(
        ValueError, match=r"'cuda:1' is not on this machine: .* cpu, or"
    ):
        d.pick_device("cuda:1")


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_only_where_it_is_computed_natively(monkeypatch, native):
    def supported(including_emulation: bool) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    wanted = torch.bfloat16 if native else torch.float32
    assert d.pick_dtype(torch.device("cuda")) is wanted
    assert d.pick_dtype(torch.device("cpu")) is torch.float32
    assert d.pick_dtype(torch.device("mps")) is torch.float32


def test_one_seed_gives_one_sequence():
    def draw(seed: int) -> tuple:
        d.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))
    with pytest.raises(ValueError, match="seed=-1 is out of range"):
        d.seed_everything(-1)


def test_the_profile_is_what_the_environment_says(monkeypatch):
    for chosen in ("quick", "full", " Full "):
        monkeypatch.setenv("MMCOURSE_PROFILE", chosen)
        assert d.profile() == chosen.strip().lower()
    monkeypatch.setenv("MMCOURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="MMCOURSE_PROFILE='fast': set it to quick"):
        d.profile()


def test_a_stopwatch_stops():
    with d.Stopwatch() as watch:
        time.sleep(0.01)
        so_far = watch.seconds
    assert 0.01 <= so_far <= watch.seconds == watch.seconds


def test_peak_memory_counts_what_was_held_and_let_go():
    before = psutil.Process().memory_info().rss / d.MIB
    block = np.ones(30 * d.MIB // 8)
    held = psutil.Process().memory_info().rss / d.MIB
    del block
    assert d.peak_memory() >= max(before, held) * 0.98
    assert d.peak_memory(torch.device("cpu")) < 2**20  # MiB, not bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda here")
def test_peak_memory_of_a_gpu():
    torch.ones(10 * d.MIB // 4, device="cuda")
    assert d.peak_memory(torch.device("cuda")) >= 10


def test_the_file_is_light_to_import():
    code = "import sys, mmcourse.device; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
