"""Ranks and what is made of them, against a loop, scikit-learn and numbers by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    label_ranking_average_precision_score,
    mean_absolute_error,
    top_k_accuracy_score,
)

from mmcourse.metrics import (
    accuracy_by,
    alignment,
    expected_calibration_error,
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    modality_gap,
    mosi_metrics,
    normalise_answer,
    ranks,
    recall_at_k,
    uniformity,
    vqa_accuracy,
)

# By hand: the own scores are 0.9, 0.2, 0.5; places 1, 3 and (after a tie) 2.
HAND = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.2, 0.4], [0.5, 0.1, 0.5]])


unchecked_ranks = getattr(ranks, "__wrapped__", ranks)  # by its own message alone


def naive_ranks(scores):
    """One plus the number of other items that score at least as much."""
    return [
        1 + sum(float(row[j]) >= float(row[q]) for j in range(len(row)) if j != q)
        for q, row in enumerate(scores)
    ]


def test_by_hand():
    assert ranks(HAND).tolist() == [1, 3, 2]
    assert recall_at_k(HAND, 1) == pytest.approx(1 / 3)
    assert recall_at_k(HAND, 2) == pytest.approx(2 / 3)
    assert median_rank(HAND) == 2
    assert mean_reciprocal_rank(HAND) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 6), st.integers(0, 999), st.booleans())
def test_ranks_equal_a_loop(queries, more, seed, tied):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(size=(queries, queries + more))).float()
    scores = scores.round() if tied else scores
    assert ranks(scores).tolist() == naive_ranks(scores)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_recall_equals_scikit_learns_top_k_accuracy(k):
    scores = torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    theirs = top_k_accuracy_score(np.arange(40), scores.numpy(), k=k)
    assert recall_at_k(scores, k) == pytest.approx(theirs)


def test_a_model_that_gives_all_items_one_score_earns_nothing():
    scores = torch.zeros(5, 9)
    assert ranks(scores).tolist() == [9] * 5
    assert recall_at_k(scores, 8) == 0.0


def test_the_order_of_the_pairs_does_not_matter():
    scores = torch.randn(12, 12, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    moved = ranks(scores[order][:, order])
    assert moved.tolist() == ranks(scores)[order].tolist()


def test_perfect_scores():
    assert recall_at_k(torch.eye(4), 1) == 1.0
    assert median_rank(torch.eye(4)) == mean_reciprocal_rank(torch.eye(4)) == 1.0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="3 queries but 2 items"):
        ranks(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranks(torch.full((2, 2), float("nan")))
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k={k} of 3 items"):
            recall_at_k(HAND, k)


# --- several right items per query ------------------------------------------------

# By hand: the right items stand at places 1 and 4, and at 2 (after a tie) and 3.
SEVERAL = torch.tensor([[0.9, 0.4, 0.7, 0.5], [0.6, 0.6, 0.5, 0.1]])
RIGHT = torch.tensor([[True, True, False, False], [True, False, True, False]])


def test_several_right_items_by_hand():
    assert ranks(SEVERAL, RIGHT).tolist() == [1, 2]
    assert recall_at_k(SEVERAL, 1, RIGHT) == 0.5
    assert median_rank(SEVERAL, RIGHT) == 1.5
    assert mean_reciprocal_rank(SEVERAL, RIGHT) == pytest.approx(0.75)
    by_hand = ((1 / 1 + 2 / 4) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    assert mean_average_precision(SEVERAL, RIGHT) == pytest.approx(by_hand)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 999), st.booleans())
def test_several_right_items_equal_a_loop(queries, items, seed, tied):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(size=(queries, items))).float()
    scores = scores.round() if tied else scores
    relevant = torch.from_numpy(rng.random((queries, items)) < 0.4)
    relevant[
        torch.arange(queries), torch.from_numpy(rng.integers(0, items, queries))
    ] = True
    first, precisions = [], []
    for row, right in zip(scores.tolist(), relevant.tolist(), strict=True):
        order = sorted(range(items), key=lambda j: (-row[j], right[j]))
        places = [n for n, j in enumerate(order, 1) if right[j]]
        first.append(places[0])
        precisions.append(np.mean([n / place for n, place in enumerate(places, 1)]))
    assert ranks(scores, relevant).tolist() == first
    precision = mean_average_precision(scores, relevant)
    assert precision == pytest.approx(np.mean(precisions), abs=1e-5)


def test_average_precision_equals_scikit_learns():
    rng = np.random.default_rng(0)
    relevant = rng.random((30, 50)) < 0.1
    relevant[:, 0] |= ~relevant.any(axis=1)
    scores = rng.normal(size=(30, 50))
    theirs = label_ranking_average_precision_score(relevant, scores)
    ours = mean_average_precision(torch.tensor(scores).float(), torch.tensor(relevant))
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_one_right_item_each_is_the_default():
    assert mean_average_precision(HAND) == pytest.approx(mean_reciprocal_rank(HAND))
    assert torch.equal(ranks(HAND), ranks(HAND, torch.eye(3).bool()))


def test_a_table_of_right_items_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="query 1 has no relevant item"):
        ranks(HAND, torch.tensor([[True] * 3, [False] * 3, [True] * 3]))
    with pytest.raises(ValueError, match="as the scores"):
        unchecked_ranks(HAND, torch.ones(2, 3).bool())


# --- how a common space is filled -------------------------------------------------

unchecked = getattr(alignment, "__wrapped__", alignment)  # by its own message alone
CORNERS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def directions(n, seed=0, dim=4):
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def test_alignment_by_hand():
    assert alignment(CORNERS, CORNERS) == 0
    turned = CORNERS[[1, 0, 2]]  # squared distances 2, 2 and 0
    assert alignment(CORNERS, turned) == pytest.approx(4 / 3)


def test_uniformity_by_hand_and_by_a_loop():
    pairs = [2.0, 4.0, 2.0]  # squared distances of three corners
    expected = np.log(np.mean(np.exp(-2 * np.array(pairs))))
    assert uniformity(CORNERS) == pytest.approx(expected, rel=1e-5)
    x = directions(6)
    apart = [
        np.exp(-3 * float((x[i] - x[j]).square().sum()))
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    assert uniformity(x, 3.0) == pytest.approx(np.log(np.mean(apart)), rel=1e-5)


def test_collapse_and_spread_are_told_apart():
    point = directions(1).expand(50, -1)
    assert uniformity(point) == pytest.approx(0, abs=1e-6)
    assert uniformity(directions(500, dim=256)) == pytest.approx(-4, abs=0.1)


def test_the_gap_is_the_distance_of_the_means():
    assert modality_gap(CORNERS, CORNERS[[2, 0, 1]]) == pytest.approx(0, abs=1e-6)
    assert modality_gap(CORNERS[:1], CORNERS[2:]) == pytest.approx(2)
    assert modality_gap(CORNERS[:2], CORNERS[:1]) == pytest.approx(0.5**0.5)


def test_a_rotation_changes_none_of_them():
    a, b = directions(9, 1), directions(9, 2)
    turn = torch.linalg.qr(directions(4, 3)).Q
    for measure, sides in ((alignment, 2), (uniformity, 1), (modality_gap, 2)):
        before = measure(*(a, b)[:sides])
        after = measure(*(a @ turn, b @ turn)[:sides])
        assert after == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize(
    "call, why",
    [
        (lambda: unchecked(CORNERS, CORNERS[:2]), "row i goes with row i"),
        (lambda: alignment(2 * CORNERS, CORNERS), "length 2 to 2, not 1"),
        (lambda: uniformity(CORNERS * torch.nan), "not 1"),
        (lambda: uniformity(CORNERS[:1]), "1 rows: at least 2"),
        (lambda: modality_gap(CORNERS, 0 * CORNERS), "length 0 to 0, not 1"),
    ],
)
def test_what_is_no_direction_is_refused(call, why):
    with pytest.raises(ValueError, match=why):
        call()


# --- answers to questions ---------------------------------------------------------


@pytest.mark.parametrize(
    "raw, compared",
    [
        ("  The Two\tdogs ", "2 dogs"),
        ("None", "0"),
        ("a", ""),
        ("1,000", "1000"),  # a comma between digits
        ("red,blue", "red blue"),  # no space at any comma: each becomes one
        ("red, green,blue", "red greenblue"),  # official: then all commas go
        ("left-hand side", "left hand side"),
        ("2.5 m.", "2.5 m"),
        (".5", ".5"),
        ("it's 2:50", "it's 2:50"),  # neither ' nor :
        ("yes?!", "yes"),
        ("dont", "dont"),  # the official table is left out
        ("", ""),
    ],
)
def test_an_answer_is_normalised(raw, compared):
    assert normalise_answer(raw) == compared


def naive_vqa(answer, humans):
    """The official loop: leave each one out, and count the others."""
    answer, humans = normalise_answer(answer), [normalise_answer(h) for h in humans]
    each = []
    for i in range(len(humans)):
        others = humans[:i] + humans[i + 1 :]
        each.append(min(1, sum(other == answer for other in others) / 3))
    return np.mean(each)


def test_vqa_accuracy_by_hand():
    humans = [["yes"] * n + ["no"] * (10 - n) for n in range(11)]
    by_hand = [0, 0.3, 0.6, 0.9, *[1] * 7]
    assert vqa_accuracy(["Yes."] * 11, humans).tolist() == pytest.approx(by_hand)


@settings(deadline=None)
@given(st.integers(4, 12), st.integers(0, 999))
def test_vqa_accuracy_equals_the_official_loop(n, seed):
    rng = np.random.default_rng(seed)
    said = ["two", "2", "The dog", "dog", "a cat", "red-green"]
    answers = rng.choice(said, 5).tolist()
    humans = [rng.choice(said, n).tolist() for _ in answers]
    expected = [naive_vqa(*pair) for pair in zip(answers, humans, strict=True)]
    assert vqa_accuracy(answers, humans).tolist() == pytest.approx(expected)


def test_few_humans():
    humans = [["dog"], ["dog"], ["dog"] * 2, ["dog", "cat"], ["dog"] * 3]
    answers = ["A dog", "cat", "dog", "dog", "dog"]
    assert vqa_accuracy(answers, humans).tolist() == [1, 0, 1, 0.5, 1]
    two_of_three = vqa_accuracy(["dog"], [["dog", "dog", "cat"]]).item()
    assert two_of_three == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_accuracy_by_kind():
    kinds = ["shape", "count", "shape", "count", "shape"]
    right = [True, False, True, True, False]
    by_hand = {"count": pytest.approx(1 / 2), "shape": pytest.approx(2 / 3)}
    for correct in (right, np.array(right), torch.tensor(right).float()):
        groups = accuracy_by(correct, kinds)
        assert groups == by_hand
        assert list(groups) == ["count", "shape"]
    assert accuracy_by([0.25, 0.75], ["a", "a"]) == {"a": 0.5}


@pytest.mark.parametrize(
    "call, why",
    [
        (lambda: vqa_accuracy(["a"], [["a"], ["b"]]), "1 answers but 2 lists"),
        (lambda: vqa_accuracy([], []), "0 answers"),
        (lambda: vqa_accuracy(["yes"], ["yes"]), r"humans\[0\] = 'yes' is no list"),
        (lambda: vqa_accuracy(["a", "b"], [["a"], []]), r"humans\[1\] = \[\] is no"),
        (lambda: accuracy_by([1, 0, 1], ["a", "b"]), r"correct is \(3,\), not \(2,\)"),
        (lambda: accuracy_by([[1], [0]], ["a", "b"]), r"correct is \(2, 1\)"),
    ],
)
def test_answers_that_do_not_fit_are_refused(call, why):
    with pytest.raises(ValueError, match=why):
        call()


# --- how strong a feeling is ------------------------------------------------------


def their_mosi_metrics(predicted, true):
    """What MMSA reports, by scikit-learn, scipy and numpy."""

    def steps(most):
        return [np.round(np.clip(x, -most, most)) for x in (true, predicted)]

    has0 = true >= 0, predicted >= 0
    non0 = true[true != 0] > 0, predicted[true != 0] > 0
    return {
        "mae": mean_absolute_error(true, predicted),
        "corr": pearsonr(true, predicted).statistic,
        "acc2_has0": accuracy_score(*has0),
        "f1_has0": f1_score(*has0, average="weighted"),
        "acc2_non0": accuracy_score(*non0),
        "f1_non0": f1_score(*non0, average="weighted"),
        "acc5": accuracy_score(*steps(2)),
        "acc7": accuracy_score(*steps(3)),
    }


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 9999), st.booleans())
def test_mosi_metrics_equal_scikit_learn_and_scipy(n, seed, halves):
    """Halves are where rounding and zeros matter."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(-3, 3, n)
    predicted = true + 2 * rng.normal(size=n)
    if halves:
        true, predicted = np.round(true * 2) / 2, np.round(predicted * 2) / 2
    true[:2], predicted[:2] = [-1, 1], [2, -4]  # neither side is constant
    theirs = their_mosi_metrics(predicted, true)
    assert mosi_metrics(predicted, true) == pytest.approx(theirs, abs=1e-9)
    tensors = torch.tensor(predicted), torch.tensor(true)
    assert mosi_metrics(*tensors) == mosi_metrics(predicted, true)


def test_mosi_metrics_by_hand():
    true = [-3.0, -0.4, 0.0, 0.6, 2.5]
    predicted = [-4.0, 0.1, -0.1, 1.4, 1.5]
    measured = mosi_metrics(predicted, true)
    assert measured["mae"] == pytest.approx((1 + 0.5 + 0.1 + 0.8 + 1) / 5)
    assert measured["acc2_has0"] == pytest.approx(3 / 5)  # -0.4 and 0 are wrong
    assert measured["acc2_non0"] == pytest.approx(3 / 4)  # -0.4 is wrong
    assert measured["acc7"] == 1  # 2.5 and 1.5 both round to the even 2
    # Positive: 2 of 2 found, 3 predicted; negative: 1 of 2 found, 1 predicted.
    f1 = (2 * 2 / (3 + 2) + 2 * 1 / (1 + 2)) / 2
    assert measured["f1_non0"] == pytest.approx(f1)


def test_a_perfect_and_a_constant_model():
    true = torch.tensor([-2.2, 0.0, 1.3, 3.0])
    perfect = mosi_metrics(true, true)
    assert perfect.pop("mae") == 0
    assert list(perfect.values()) == pytest.approx([1] * 7)
    mean = mosi_metrics(true.mean().expand(4), true)
    assert mean["corr"] == 0
    assert mean["acc2_has0"] == pytest.approx(3 / 4)
    assert mean["f1_has0"] == pytest.approx(3 / 4 * 6 / 7)
    assert mosi_metrics([1.0], [2.0])["corr"] == 0


@pytest.mark.parametrize(
    "predicted, true, why",
    [
        ([[1.0], [2.0]], [1.0, 2.0], r"predicted is \(2, 1\), true \(2,\)"),
        ([1.0], [1.0, 2.0], r"predicted is \(1,\), true \(2,\)"),
        ([], [], "one number for each item"),
        ([0.0, 1.0], [-4.0, 1.0], "true is -4 to 1: scale it to -3 to 3"),
        ([0.0, 1.0], [float("nan"), 1.0], "true is nan"),
        ([0.0, float("nan")], [1.0, 1.0], "predicted holds NaN"),
        ([1.0, 2.0], [0.0, 0.0], "all 2 true values are 0"),
    ],
)
def test_what_is_no_feeling_is_refused(predicted, true, why):
    with pytest.raises(ValueError, match=why):
        mosi_metrics(predicted, true)


# --- confidence -------------------------------------------------------------------


def naive_calibration(p, label, bins):
    """Item by item into (0, 1/b], (1/b, 2/b], ...; then bin by bin."""
    kept = [[] for _ in range(bins)]
    for row, true in zip(p.double().tolist(), label.tolist(), strict=True):
        sure = max(row)
        place = next(b for b in range(bins) if sure * bins <= b + 1 or b == bins - 1)
        kept[place].append((sure, row.index(sure) == true))
    gaps = (
        len(b) * abs(np.mean([s for s, _ in b]) - np.mean([r for _, r in b]))
        for b in kept
        if b
    )
    return sum(gaps) / len(p)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9999))
def test_calibration_error_equals_a_loop(n, bins, seed):
    torch.manual_seed(seed)
    p, label = (3 * torch.randn(n, 3)).softmax(dim=1), torch.randint(3, (n,))
    wanted = naive_calibration(p, label, bins)
    assert expected_calibration_error(p, label, bins) == pytest.approx(wanted, abs=1e-6)


def test_calibration_error_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    label = torch.tensor([0, 1, 0, 0])
    # Sure by 0.9 and half right; by 0.6 and right; by 1 and right. All else is empty.
    wanted = (2 * 0.4 + 0.4 + 0) / 4
    assert expected_calibration_error(p, label) == pytest.approx(wanted, abs=1e-6)
    one = expected_calibration_error(p[3:], 1 - label[3:])
    assert one == 1 and expected_calibration_error(p[3:], label[3:]) == 0


@pytest.mark.parametrize(
    "p, label, bins, why",
    [
        (torch.ones(2, 2), torch.zeros(2).long(), 10, "no probabilities"),
        (torch.full((2, 2), torch.nan), torch.zeros(2).long(), 10, "no probabilities"),
        (torch.full((2, 2), 0.5), torch.zeros(3).long(), 10, "a label for each row"),
        (torch.full((2, 2), 0.5), torch.zeros(2).long(), 0, "bins=0"),
        (torch.zeros(0, 2), torch.zeros(0).long(), 10, "at least one row"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(p, label, bins, why):
    call = getattr(
        expected_calibration_error, "__wrapped__", expected_calibration_error
    )
    with pytest.raises(ValueError, match=why):
        call(p, label, bins)
