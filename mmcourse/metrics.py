"""How good is it? Arrays in, floats out. Taught in 09_retrieval and 14_evaluation."""

from jaxtyping import Float, Int
from torch import Tensor


def ranks(scores: Float[Tensor, "Q G"]) -> Int[Tensor, " Q"]:
    """Return the place, from 1, of each query's own item: query q belongs to item q.

    A tie counts against the query: an item of equal score stands before its own, so
    that a model which gives all items one score is not rewarded.
    """
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        raise ValueError("the scores must be a tensor (queries, items)")
    queries, items = scores.shape
    if queries > items:
        raise ValueError(
            f"{queries} queries but {items} items: query q belongs to item q, so there "
            "must be at least as many items"
        )
    if not scores.isfinite().all():
        raise ValueError("the scores hold NaN or infinity: ranks need finite numbers")
    own = scores.diagonal().unsqueeze(1)
    return (scores >= own).sum(dim=1)


def recall_at_k(scores: Float[Tensor, "Q G"], k: int) -> float:
    """Return the share of queries whose own item is among their ``k`` best.

    R@k = |{q : rank_q <= k}| / Q, with ``ranks`` as defined there.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k={k} of {scores.shape[1]} items: choose from 1 to all")
    return (ranks(scores) <= k).float().mean().item()


def median_rank(scores: Float[Tensor, "Q G"]) -> float:
    """Return the place that half of the queries reach or better; 1 is perfect."""
    return ranks(scores).float().quantile(0.5).item()


def mean_reciprocal_rank(scores: Float[Tensor, "Q G"]) -> float:
    """Return the mean of 1 / rank over the queries; 1 is perfect."""
    return (1 / ranks(scores)).mean().item()
