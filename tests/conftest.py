"""What the tests share: quiet libraries, the real assets, a cache of a test's own."""

import os

# Before any import of a library that reads them; kernels inherit them too.
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")  # no window, whatever the machine

import pytest

from mmcourse import assets


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
