"""The benchmark measures what it says; how long that takes is no test's business."""

import os
import time

import pytest

from mmcourse import bench, datasets


def test_the_median_and_the_spread_are_those_of_the_tries():
    pauses = iter([0.01, 0.05, 0.02])
    timing = bench._time("pause", lambda: time.sleep(next(pauses)), bar=1.0)
    assert timing.name == "pause" and timing.bar == 1
    assert timing.median >= 0.02 and timing.spread >= 0.03


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(bench.subprocess.CalledProcessError):
        bench._run([bench.sys.executable, "-c", "raise SystemExit(3)"])


def test_the_set_is_built_anew_and_then_loaded(monkeypatch):
    monkeypatch.setenv("MMCOURSE_DATA", str(datasets.assets.root()))
    seen = []

    def openmoji():
        cache = datasets.assets.root() / "cache"
        seen.append((datasets.assets.root(), cache.exists()))
        cache.mkdir(exist_ok=True)

    before = os.environ["MMCOURSE_DATA"]
    monkeypatch.setattr(datasets, "openmoji", openmoji)
    names = [timing.name for timing in bench.foundations()]
    assert names[-2:] == ["openmoji(64) built", "openmoji(64) loaded"]
    assert [there for _, there in seen] == [False, True, True, True]
    assert str(seen[0][0]) != before == os.environ["MMCOURSE_DATA"]
