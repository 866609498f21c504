"""Evaluation: intervals and tests against scipy, grids against models one knows."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mmcourse.evaluation import (
    Interval,
    bootstrap,
    correct,
    disturb,
    missing_grid,
    noise_grid,
    paired_test,
    predict,
)

# --- intervals and tests ------------------------------------------------------------


def test_bootstrap_is_scipys_percentile_interval():
    values = np.random.default_rng(1).random(150) < 0.7
    ours = bootstrap(values, draws=20_000)
    theirs = stats.bootstrap(
        (values.astype(float),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.mean == values.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [bootstrap(rng.random(100) < 0.6, draws=400, seed=i) for i in range(300)]
    held = np.mean([i.low <= 0.6 <= i.high for i in draws])
    assert 0.9 < held < 0.98


def test_bootstrap_of_equal_values_has_no_width():
    assert bootstrap([1, 1, 1]) == Interval(1.0, 1.0, 1.0)
    assert str(bootstrap([1, 1])) == "1.000 (1.000 to 1.000)"


def test_mcnemar_by_hand():
    """Nine items on which they differ, a wins eight: p = 2 (1 + 9) / 2^9."""
    a = [1] * 8 + [0] + [1] * 5
    b = [0] * 8 + [1] + [1] * 5
    result = paired_test(a, b)
    assert result.difference == pytest.approx(7 / 14)
    assert result.p == pytest.approx(2 * (1 + 9) / 2**9)
    assert result.low > 0


def test_a_model_is_no_better_than_itself():
    a = np.random.default_rng(0).random(50) < 0.5
    assert paired_test(a, a) == (0.0, 0.0, 0.0, 1.0)


def test_other_values_are_tested_as_scipy_does():
    rng = np.random.default_rng(3)
    a = rng.normal(0.4, 1, 30)
    b = rng.normal(0.0, 1, 30)
    ours = paired_test(a, b, draws=20_000).p
    theirs = stats.permutation_test(
        (a - b,),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.01)


def test_one_seed_one_answer():
    values = np.random.default_rng(1).random(40)
    assert bootstrap(values, seed=3) == bootstrap(torch.tensor(values), seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([]), r"values has the shape \(0,\)"),
        (lambda: bootstrap([[1.0]]), r"values has the shape \(1, 1\)"),
        (lambda: bootstrap([1.0, np.nan]), r"values\[1\] isn't finite"),
        (lambda: paired_test([1, 0], [1]), r"2 and 1 values"),
    ],
)
def test_no_interval_of_nonsense(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- models one knows ----------------------------------------------------------------


class Reader(nn.Module):
    """Classifies by the modalities it is shown: each votes for its own first value."""

    modalities = ("text", "image")

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.drop = nn.Dropout(0.9)
        self.shown = []

    def forward(self, batch):
        here = batch.get("present", torch.ones(len(batch["label"]), 2).bool())
        self.shown.append(here)
        text = torch.nn.functional.one_hot(batch["tokens"][:, 0], 3).float()
        image = torch.nn.functional.one_hot(batch["image"].flatten(1)[:, 0].long(), 3)
        votes = text * here[:, :1] + 2.0 * image * here[:, 1:]
        return self.drop(votes)


@pytest.fixture
def batches():
    torch.manual_seed(0)
    made = []
    for _ in range(2):
        label = torch.randint(3, (4,))
        image = label.view(4, 1, 1, 1).expand(4, 1, 2, 2).float()
        tokens = torch.stack([(label + 1) % 3, label], 1)  # the text is always wrong
        mask = torch.ones(4, 2, dtype=torch.bool)
        made.append({"tokens": tokens, "mask": mask, "image": image, "label": label})
    return made


def test_predict_is_quiet_and_puts_the_mode_back(batches):
    model = Reader().train()
    one, labels = predict(model, batches)
    two, _ = predict(model, batches)
    assert torch.equal(one, two)  # no dropout
    assert labels.tolist() == [*batches[0]["label"], *batches[1]["label"]]
    assert model.training
    with pytest.raises(ValueError, match="loader is empty"):
        predict(model, [])


def test_missing_grid_by_hand(batches):
    grid = missing_grid(Reader(), batches, Reader.modalities)
    assert list(grid) == [("text",), ("image",), ("text", "image")]
    assert not grid["text",].any()
    assert grid["image",].all()
    assert grid["text", "image"].all()


def test_missing_grid_leaves_out_what_was_missing_already(batches):
    batches[0]["present"] = torch.tensor([[True, False]] * 4)
    model = Reader()
    missing_grid(model, batches[:1], Reader.modalities)
    assert [m.any(0).tolist() for m in model.shown] == [
        [True, False],
        [False, False],
        [True, False],
    ]
    assert batches[0]["present"].all(0).tolist() == [True, False]  # untouched


def test_noise_grows_and_touches_one_modality(batches):
    for level in (0.0, 0.5, 2.0):
        noisy = disturb(batches[0], "image", level)
        assert torch.equal(noisy["tokens"], batches[0]["tokens"])
        change = (noisy["image"] - batches[0]["image"]).std().item()
        right = level * batches[0]["image"].std().item()
        assert change == pytest.approx(right, rel=0.6)
    same = disturb(batches[0], "image", 2.0), disturb(batches[0], "image", 1.0)
    first, second = (s["image"] - batches[0]["image"] for s in same)
    torch.testing.assert_close(first, 2 * second)


def test_a_text_keeps_its_padding_and_its_vocabulary():
    torch.manual_seed(0)
    tokens = torch.randint(5, 9, (40, 10))
    mask = torch.arange(10) < torch.randint(2, 10, (40, 1))
    tokens[~mask] = 0
    batch = {"tokens": tokens, "mask": mask}
    noisy = disturb(batch, "text", 0.5)["tokens"]
    assert torch.equal(noisy[~mask], tokens[~mask])
    assert set(noisy[mask].tolist()) <= {5, 6, 7, 8}
    changed = (noisy != tokens)[mask].float().mean().item()
    assert changed == pytest.approx(0.5 * 3 / 4, abs=0.08)


def test_noise_grid_is_the_same_every_time(batches):
    one = noise_grid(Reader(), batches, ["image"], [0.0, 0.3])
    two = noise_grid(Reader(), batches, ["image"], [0.0, 0.3])
    assert list(one) == [("image", 0.0), ("image", 0.3)]
    assert all((one[k] == two[k]).all() for k in one)
    assert (one["image", 0.0] == correct(Reader(), batches)).all()


@pytest.mark.parametrize(
    ("modality", "level", "message"),
    [
        ("audio", 0.1, r"modality='audio': the batch holds \['text', 'image'\]"),
        ("image", -1.0, "level=-1.0"),
        ("text", 1.5, "at most 1 for a text"),
    ],
)
def test_noise_of_no_sense_is_refused(batches, modality, level, message):
    with pytest.raises(ValueError, match=message):
        disturb(batches[0], modality, level)


def test_runs_anywhere(batches, place):
    model = Reader().to(place.device)
    assert correct(model, batches).all()
