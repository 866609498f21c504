"""The benchmark measures what it says; how long that takes is no test's business."""

import json
import os
import time
from dataclasses import replace

import pytest
import torch

from mmcourse import bench, datasets
from mmcourse.bench import components, contrastive, fusions, timing


def test_the_median_and_the_spread_are_those_of_the_tries():
    pauses = iter([0.01, 0.05, 0.02])
    taken = components._time("pause", lambda: time.sleep(next(pauses)), bar=1.0)
    assert taken.name == "pause" and taken.bar == 1
    assert taken.median >= 0.02 and taken.spread >= 0.03


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(components.subprocess.CalledProcessError):
        components._run([components.sys.executable, "-c", "raise SystemExit(3)"])


def test_the_set_is_built_anew_and_then_loaded(monkeypatch):
    monkeypatch.setenv("MMCOURSE_DATA", str(datasets.assets.root()))
    seen = []

    def openmoji():
        cache = datasets.assets.root() / "cache"
        seen.append((datasets.assets.root(), cache.exists()))
        cache.mkdir(exist_ok=True)

    before = os.environ["MMCOURSE_DATA"]
    monkeypatch.setattr(datasets, "openmoji", openmoji)
    names = [taken.name for taken in components.foundations()]
    assert names[-2:] == ["openmoji(64) built", "openmoji(64) loaded"]
    assert [there for _, there in seen] == [False, True, True, True]
    assert str(seen[0][0]) != before == os.environ["MMCOURSE_DATA"]


class Clock:
    """A stopwatch on a clock that only the racers move."""

    now = 0.0

    def __enter__(self):
        self.start = Clock.now
        return self

    def __exit__(self, *_):
        self.seconds = Clock.now - self.start


def test_a_race_compares_round_by_round_in_both_orders(monkeypatch):
    monkeypatch.setattr(timing, "Stopwatch", Clock)
    order = []

    def racer(name, seconds):
        def run():
            order.append(name)
            Clock.now += seconds

        return run

    peers = {"slow": racer("slow", 8.0), "fast": racer("fast", 2.0)}
    ours, cpu = racer("ours", 4.0), torch.device("cpu")
    slow, fast = timing.race("wait", ours, peers, cpu, rounds=4)
    assert (slow.peer, slow.ours, slow.theirs, slow.ratio) == ("slow", 4, 8, 0.5)
    assert (fast.peer, fast.low, fast.ratio, fast.high) == ("fast", 2, 2, 2)
    timed = order[6:18]  # after two warm-ups of each
    assert timed[:3] == ["ours", "slow", "fast"] and timed[3:6] == timed[2::-1]
    assert slow.share is None


def test_the_peak_is_what_tensors_hold_at_once():
    kept = []

    def run():
        a = torch.ones(2**18)  # 1 MiB
        b = a + 1
        del a
        kept.append(b + 1)
        kept.clear()

    assert timing.peak_of(run, torch.device("cpu")) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["attention", "encoder", "multimodal"])
def test_the_races_run_and_both_sides_give_the_same_shape(name, monkeypatch):
    shapes = []

    def both_ways(label, modules, inputs, device, rounds=0):
        shapes.append({who: run(*inputs).shape for who, run in modules.items()})
        yield label

    for module in (components, fusions):
        monkeypatch.setattr(module, "both_ways", both_ways)
    labels = list(bench.RACES[name](torch.device("cpu")))
    assert labels and all(len(set(s.values())) == 1 and len(s) == 2 for s in shapes)


def test_both_captioners_write_as_many_tokens_and_are_of_one_size(monkeypatch):
    seen = []

    def race(name, ours, peers, device):
        tokens = {"ours": ours(), **{who: run() for who, run in peers.items()}}
        assert {x.shape[1] for x in tokens.values()} == {33}  # the start, and 32
        (theirs,) = (run.func.__self__ for run in peers.values())
        sizes = [
            sum(p.numel() for p in model.parameters())
            for model in (ours.func.__self__, theirs)
        ]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
        seen.append(name)
        yield name

    monkeypatch.setattr(components, "race", race)
    assert list(components.captioning(torch.device("cpu"))) == seen and len(seen) == 2


def test_tables_json_and_the_readme(tmp_path):
    taken = bench.Timing("import", 0.5, 0.1, 1.0)
    race = bench.Race("vit", "timm", 0.1, 0.2, 0.5, 0.45, 0.55, 10.0, 20.0)
    results = [taken, race]
    first, second = bench.tables(results)
    assert first[1] == ("import", "0.500 s", "0.100 s", "under 1 s")
    assert second[1][2:6] == (
        "100.0 ms",
        "200.0 ms",
        "0.50 (0.45 to 0.55)",
        "10 / 20 MiB",
    )
    path = tmp_path / "new" / "bench.json"
    assert bench.save(taken, path, "cpu") == [taken]
    assert bench.save(race, path, "cpu") == results
    again = replace(race, ratio=0.7)
    assert bench.save(again, path, "cpu") == [taken, again]  # in its place
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["device"] == "cpu" and stored["results"][1]["ratio"] == 0.7
    assert bench.save(race, path, "another") == [race]
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n", encoding="utf-8")
    bench.report(results, readme, "a device")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("a\n<!-- bench -->\nMeasured on a device.")
    assert text.endswith("<!-- /bench -->\nb\n") and "old" not in text
    assert "| vit | timm | 100.0 ms |" in text and "import" not in text
    readme.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="<!-- bench -->"):
        bench.report(results, readme, "a device")


def test_every_fusion_races_against_the_same_numbers(monkeypatch):
    """The naive formulas and ours agree, or their times would say nothing."""
    seen = []

    def both_ways(name, racers, inputs, device, rounds):
        ours, naive = (run(*inputs) for run in racers.values())
        torch.testing.assert_close(ours, naive, rtol=1e-3, atol=1e-4)
        seen.append(name)
        yield name

    monkeypatch.setattr(fusions, "both_ways", both_ways)
    torch.manual_seed(0)
    list(fusions.fusion(torch.device("cpu")))
    assert len(seen) == 21


def test_a_share_of_the_peak_is_shown_where_it_was_measured():
    race = bench.Race("vit", "timm", 0.1, 0.2, 0.5, 0.45, 0.55, 10.0, 20.0)
    (table,) = bench.tables([race, replace(race, share=0.4)])
    assert [row[-1] for row in table] == ["share of peak", "", "40%"]


def test_clip_races_with_one_size_and_one_loss():
    """The three have as many parameters, and ours transformers' loss."""
    sizes = {"image": (16, 2, 2, 4), "text": (16, 1, 2, 8, 40)}
    racers = contrastive.racers(torch.device("cpu"), 3, **sizes)
    counts = [sum(p.numel() for p in m.parameters()) for m, _ in racers.values()]
    assert max(counts) - min(counts) <= 2 * 16  # the class token and its position
    losses = {}
    for who, (model, loss) in racers.items():
        losses[who] = loss()
        losses[who].backward()
        assert all(p.grad is not None for p in model.parameters()), who
    torch.testing.assert_close(losses["ours"], losses["transformers"])


def test_memory_against_the_batch_and_its_exponent(tmp_path):
    cpu = torch.device("cpu")
    found = list(contrastive.large_batches(cpu, [1024, 2048, 4096], 16))
    assert all(m.ours < m.plain for m in found)
    (table,) = bench.tables(found)
    chunks, plain = (float(cell) for cell in table[-1][2:])
    assert chunks < 1.2 and plain > 1.8
    for result in found:
        stored = bench.save(result, tmp_path / "b.json", "cpu")
    assert stored == found
