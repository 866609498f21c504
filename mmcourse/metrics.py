"""How good is it? Arrays in, floats out.

Taught in 07_contrastive_learning, 09_retrieval and 14_evaluation.
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pdist


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


# --- how a common space is filled: rows of length 1 -------------------------------


def alignment(a: Float[Tensor, "B D"], b: Float[Tensor, "B D"]) -> float:
    """Return how far partners are apart, E|a_i - b_i|^2: 0 is best, 2 is chance.

    Wang and Isola, 2020, arXiv 2005.10242.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"{tuple(a.shape)} and {tuple(b.shape)}: row i goes with row i"
        )
    _check_directions(a, b)
    return (a - b).square().sum(dim=1).mean().item()


def uniformity(x: Float[Tensor, "B D"], t: float = 2.0) -> float:
    """Return log E exp(-t |x_i - x_j|^2) over different rows: 0 is collapse.

    The lower, the more evenly the rows fill the sphere; about -2t in many dimensions.
    """
    _check_directions(x)
    if len(x) < 2:
        raise ValueError(f"{len(x)} rows: at least 2 have a distance")
    squared = pdist(x).square()
    return (-t * squared).exp().mean().log().item()


def modality_gap(a: Float[Tensor, "A D"], b: Float[Tensor, "B D"]) -> float:
    """Return the distance of two modalities' mean embeddings: Liang et al., 2022.

    arXiv 2203.02053. Large where each modality fills a region of its own.
    """
    _check_directions(a, b)
    return (a.mean(dim=0) - b.mean(dim=0)).norm().item()


def _check_directions(*embeddings: Tensor) -> None:
    for x in embeddings:
        length = x.norm(dim=-1)
        if not ((length - 1).abs() < 1e-2).all():  # NaN fails as well
            raise ValueError(
                f"rows of length {length.min():.3g} to {length.max():.3g}, not 1: use "
                "torch.nn.functional.normalize(x, dim=-1) first"
            )
