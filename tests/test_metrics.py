"""Ranks and what is made of them, against a loop, scikit-learn and numbers by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from mmcourse.metrics import mean_reciprocal_rank, median_rank, ranks, recall_at_k

# By hand: the own scores are 0.9, 0.2, 0.5; places 1, 3 and (after a tie) 2.
HAND = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.2, 0.4], [0.5, 0.1, 0.5]])


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
