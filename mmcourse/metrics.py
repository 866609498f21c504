"""How good is it? Arrays in, floats out.

Taught in 07_contrastive_learning, 09_retrieval and 14_evaluation.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pdist

Scores = Float[Tensor, "Q G"]
Relevant = Bool[Tensor, "Q G"]


def ranks(scores: Scores, relevant: Relevant | None = None) -> Int[Tensor, " Q"]:
    """Return the place, from 1, of each query's best relevant item.

    Without ``relevant``, query q belongs to item q alone. A tie counts against the
    query: a wrong item of equal score stands before the right one, so that a model
    which gives all items one score is not rewarded.
    """
    relevant = _relevant(scores, relevant)
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~relevant).sum(dim=1)


def recall_at_k(scores: Scores, k: int, relevant: Relevant | None = None) -> float:
    """Return the share of queries with a relevant item among their ``k`` best.

    R@k = |{q : rank_q <= k}| / Q, with ``ranks`` as defined there.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k={k} of {scores.shape[1]} items: choose from 1 to all")
    return (ranks(scores, relevant) <= k).float().mean().item()


def median_rank(scores: Scores, relevant: Relevant | None = None) -> float:
    """Return the place that half of the queries reach or better; 1 is perfect."""
    return ranks(scores, relevant).float().quantile(0.5).item()


def mean_reciprocal_rank(scores: Scores, relevant: Relevant | None = None) -> float:
    """Return the mean of 1 / rank over the queries; 1 is perfect."""
    return (1 / ranks(scores, relevant)).mean().item()


def mean_average_precision(scores: Scores, relevant: Relevant | None = None) -> float:
    """Return the mean over queries of AP, which asks for all relevant items, early.

    AP_q is the mean over q's relevant items of the precision at their place: the share
    of relevant items from the first place to this one. Ties as in ``ranks``.
    """
    relevant = _relevant(scores, relevant)
    wrong_first = relevant.int().argsort(dim=1, stable=True)
    scores, relevant = (x.gather(1, wrong_first) for x in (scores, relevant))
    hit = relevant.gather(1, scores.argsort(dim=1, descending=True, stable=True))
    place = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = hit.cumsum(dim=1) / place
    return ((precision * hit).sum(dim=1) / hit.sum(dim=1)).mean().item()


def _relevant(scores: Tensor, relevant: Tensor | None) -> Tensor:
    """Return which item answers which query, after checking both tables."""
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        raise ValueError("the scores must be a tensor (queries, items)")
    queries, items = scores.shape
    if not scores.isfinite().all():
        raise ValueError("the scores hold NaN or infinity: ranks need finite numbers")
    if relevant is None:
        if queries > items:
            raise ValueError(
                f"{queries} queries but {items} items: query q belongs to item q, so "
                "there must be at least as many items"
            )
        return torch.eye(queries, items, dtype=torch.bool, device=scores.device)
    if relevant.shape != scores.shape or relevant.dtype != torch.bool:
        raise ValueError(
            f"relevant is {relevant.dtype} {tuple(relevant.shape)}: booleans "
            f"{tuple(scores.shape)} are needed, as the scores"
        )
    if not relevant.any(dim=1).all():
        query = int((~relevant.any(dim=1)).nonzero()[0])
        raise ValueError(f"query {query} has no relevant item: leave the query out")
    return relevant


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
