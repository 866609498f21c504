"""The loop learns, resumes exactly and keeps its checkpoints whole."""

import math
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from mmcourse import training
from mmcourse.training import (
    History,
    TrainConfig,
    batches,
    evaluating,
    fit,
    learning_rate,
    mean_loss,
    mixup,
)


def data(n=48, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    return {"image": x, "label": (x[:, 0] > 0).long()}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2))


def loss(model, batch):
    return F.cross_entropy(model(batch["image"]), batch["label"])


def run(config, model=None, val=None, **kwargs):
    model = net() if model is None else model
    return fit(model, loss, batches(data(), 8), val, config, **kwargs), model


def test_it_learns_and_tells_the_story():
    val = batches(data(32, seed=1), 16, shuffle=False)
    config = TrainConfig(epochs=12, lr=2e-2)
    history, model = run(config, val=val, measure=lambda m: {"rows": 32.0})
    assert len(history.loss) == len(history.lr) == 12 * 6
    assert [e["step"] for e in history.epochs] == list(range(6, 73, 6))
    assert history.epochs[-1]["val_loss"] < 0.3 < history.epochs[0]["val_loss"]
    assert history.epochs[-1]["rows"] == 32 and not model.training
    ax = history.plot()
    assert len(ax.lines) == 2 and ax.get_xlabel() == "step"


def test_a_seed_decides_everything():
    first, _ = run(TrainConfig(epochs=2))
    again, _ = run(TrainConfig(epochs=2))
    other, _ = run(TrainConfig(epochs=2, seed=1))
    assert first.loss == again.loss != other.loss


def test_the_steps_are_those_of_a_plain_loop():
    """AdamW written out: the same losses on the batches that the loader gave."""
    config = TrainConfig(epochs=2, clip=0.5)
    seen = []

    def spy(model, batch):
        seen.append({k: v.clone() for k, v in batch.items()})
        return loss(model, batch)

    history = fit(net().eval().requires_grad_(), spy, batches(data(), 8), None, config)
    model = net()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ]
    )
    for step, batch in enumerate(seen):
        training.seed_everything(training._seed(0, step, 0))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 12, config)
        value = loss(model, batch)
        assert value.item() == pytest.approx(history.loss[step], abs=1e-6)
        optimizer.zero_grad(), value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    rows = torch.cat([b["image"] for b in seen[:6]])
    assert not torch.equal(rows, data()["image"])  # shuffled,
    assert torch.equal(rows.sort(0)[0], data()["image"].sort(0)[0])  # and complete
    assert not torch.equal(rows, torch.cat([b["image"] for b in seen[6:]]))


@pytest.mark.parametrize("stop", [3, 6, 8, 11])
def test_a_stopped_run_goes_on_with_the_same_losses(tmp_path, stop):
    config = TrainConfig(epochs=3, folder=tmp_path / "a", save_every=1)
    whole, model = run(config)
    calls = 0

    def dying(model, batch):
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return loss(model, batch)

    config = TrainConfig(epochs=3, folder=tmp_path / "b", save_every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(net(), dying, batches(data(), 8), None, config)
    history, resumed = run(config)
    assert history.loss == whole.loss and history.lr == whole.lr
    assert history.epochs == whole.epochs
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    again, _ = run(config)  # nothing is left to do
    assert again.loss == whole.loss


def test_what_is_frozen_is_not_written_and_a_run_goes_on_all_the_same(tmp_path):
    def half():
        model = net()
        model[0].requires_grad_(False)
        return model

    config = TrainConfig(epochs=2, folder=tmp_path, save_every=2)
    whole, model = run(config, half())
    with safe_open(tmp_path / "last.safetensors", "pt") as stored:
        kept = {k for k in stored.keys() if k.startswith("model.")}  # noqa: SIM118
    assert kept == {"model.3.weight", "model.3.bias"}
    again, resumed = run(config, half())
    assert again.loss == whole.loss
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


KILLED = """
import torch, time
from test_training import *
def slow(model, batch):
    time.sleep(0.05)
    return loss(model, batch)
config = TrainConfig(epochs=3, folder={folder!r}, save_every=1)
fit(net(), slow, batches(data(), 8), None, config)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    script = KILLED.format(folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parent
    )
    file = tmp_path / "last.safetensors"
    while not file.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with safe_open(file, "pt") as stored:
        assert len(list(stored.keys())) > 4
    config = TrainConfig(epochs=3, folder=tmp_path, save_every=1)
    history, _ = run(config)
    assert history.loss == run(TrainConfig(epochs=3))[0].loss


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    config = TrainConfig(epochs=2, folder=tmp_path, save_every=2)
    real, saves = training.save_file, []

    def full(tensors, path, metadata):
        saves.append(path)
        if len(saves) > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(training, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(config)
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
    monkeypatch.setattr(training, "save_file", real)
    assert run(config)[0].loss == run(TrainConfig(epochs=2))[0].loss


def test_other_settings_do_not_go_on_from_it(tmp_path):
    run(TrainConfig(epochs=1, folder=tmp_path))
    with pytest.raises(ValueError, match=r"a run with another epochs, lr, steps"):
        run(TrainConfig(epochs=2, lr=1.0, folder=tmp_path))


def test_the_learning_rate_by_hand():
    config = TrainConfig(lr=2.0, warmup=0.2)
    rates = [learning_rate(s, 10, config) for s in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)  # half way down
    assert all(a > b for a, b in pairwise(rates[2:]))
    assert learning_rate(0, 10, TrainConfig(lr=2.0, warmup=0.0)) == 2.0


def test_mixup_blends_pictures_and_labels_alike():
    torch.manual_seed(0)
    batch = {"image": torch.eye(4), "label": torch.arange(4), "audio": torch.ones(4)}
    mixed = mixup(batch, 1.0, 4)
    assert torch.allclose(mixed["image"], mixed["label"])  # label i is picture i here
    assert torch.allclose(mixed["label"].sum(1), torch.ones(4))
    assert mixed["audio"] is batch["audio"] and 0 < mixed["label"].max() < 1
    history, _ = run(TrainConfig(epochs=1, mixup=0.4, classes=2))
    assert history.loss != run(TrainConfig(epochs=1))[0].loss


def test_bf16_trains_close_to_fp32(place):
    config = TrainConfig(epochs=2, precision="bf16")
    rough, model = run(config)
    exact, _ = run(TrainConfig(epochs=2, precision="fp32"))
    assert rough.loss != exact.loss
    assert rough.loss == pytest.approx(exact.loss, abs=0.05)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_mean_loss_weighs_rows_and_puts_the_mode_back():
    model, rows = net(), data(10)
    parts = batches(rows, 4, shuffle=False)  # the last batch holds two
    value = mean_loss(model, loss, parts)
    assert model.training
    with evaluating(model), torch.no_grad():
        assert value == pytest.approx(loss(model, rows).item(), abs=1e-6)
    with pytest.raises(ValueError, match="val holds no batches"):
        mean_loss(model, loss, [])


def test_a_loss_that_is_nan_stops_the_run():
    with pytest.raises(FloatingPointError, match="loss of step 0 is nan: lower lr"):
        fit(
            net(),
            lambda m, b: loss(m, b) * math.nan,
            batches(data(), 8),
            None,
            TrainConfig(epochs=1),
        )


def test_frozen_models_and_ragged_tensors_are_refused():
    with pytest.raises(ValueError, match="Sequential has no parameter to train"):
        run(TrainConfig(epochs=1), net().requires_grad_(False))
    with pytest.raises(ValueError, match="'a': 3, 'b': 2"):
        batches({"a": torch.ones(3), "b": torch.ones(2)}, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"mixup": 0.2}, "mixup=0.2 mixes labels"),
    ],
)
def test_settings_that_cant_train(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_an_empty_history_plots():
    assert History().plot().get_ylabel() == "loss"


def test_gradients_left_by_an_earlier_loop_change_nothing():
    used = net()
    loss(used, data()).backward()
    assert (
        run(TrainConfig(epochs=1), used)[0].loss == run(TrainConfig(epochs=1))[0].loss
    )
