"""What the tests share: quiet libraries, the real assets, a cache of a test's own."""

import gc
import os

# Before any import of a library that reads them; kernels inherit them too.
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")  # no window, whatever the machine
if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: threads would wait on each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from types import SimpleNamespace

import pytest
import torch

from mmcourse import assets

CUDA = torch.cuda.is_available()


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """A cache folder that is empty, beside the real assets."""
    real, path = assets.root(), assets.path

    def real_path(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(assets, "root", lambda: real)
            return path(name)

    monkeypatch.setattr(assets, "path", real_path)
    monkeypatch.setattr(assets, "root", lambda: tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def leaves_files_open():
    """Datasets leaves a folder's metadata file to the garbage collector: collect here.

    Otherwise the warning comes in whatever test is running then.
    """
    yield
    gc.collect()


def _there(device: str, dtype: str):
    needs = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no GPU here")]
    marks = needs if device == "cuda" else []
    return pytest.param((device, dtype), marks=marks, id=f"{device}-{dtype}")


@pytest.fixture(
    params=[
        _there("cpu", "float32"),
        _there("cuda", "float32"),
        _there("cuda", "bfloat16"),
    ]
)
def place(request):
    """A device, a dtype and the tolerance that goes with it."""
    device, dtype = request.param
    rough = dtype == "bfloat16"
    return SimpleNamespace(
        device=torch.device(device),
        dtype=getattr(torch, dtype),
        close={"rtol": 5e-2, "atol": 5e-2} if rough else {"rtol": 1e-4, "atol": 1e-5},
    )
