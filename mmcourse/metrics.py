"""How good is it? Arrays in, floats out.

Taught in 07_contrastive_learning, 09_retrieval, 11_vqa, 12_sentiment and 14_evaluation.
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pdist

Scores = Float[Tensor, "Q G"]
Relevant = Bool[Tensor, "Q G"]
Values = ArrayLike | Tensor  # one number for each item


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


# --- answers to questions ---------------------------------------------------------

NUMBERS = [
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
]
DIGITS = {"none": "0"} | {word: str(n) for n, word in enumerate(NUMBERS)}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalise_answer(text: str) -> str:
    """Return an answer as the VQA challenge compares it: "The two." becomes "2".

    Lower case, no articles, numbers to ten as digits. A mark in ``PUNCTUATION`` goes
    everywhere if one such stands beside a space or if the answer holds a 1,000; else it
    becomes a space. Dots stay before digits. Left out: the table from dont to don't.
    """
    text = bare = " ".join(text.split())
    for mark in PUNCTUATION:
        goes = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text)
        bare = bare.replace(mark, "" if goes else " ")
    bare = re.sub(r"\.(?!\d)", "", bare).lower()
    words = (DIGITS.get(word, word) for word in bare.split())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def vqa_accuracy(
    answers: Sequence[str], humans: Sequence[Sequence[str]]
) -> Float[Tensor, " Q"]:
    """Return each answer's accuracy, 0 to 1: Antol et al., 2015, arXiv 1505.00468.

    Leave one human out: min(1, same / 3), with ``same`` of the others giving this
    answer; then the mean over who is left out. With 10 humans, 1, 2, 3 or 4 who agree
    are worth 0.3, 0.6, 0.9 or 1. With 3 or 2 humans only 2 or 1 are left, and divide in
    place of 3 (officially 1 can't be reached there); one alone has to be met exactly.

    All answers go through ``normalise_answer`` (officially only where humans differ).
    """
    if len(answers) != len(humans) or len(answers) == 0:
        raise ValueError(
            f"{len(answers)} answers but {len(humans)} lists of human answers: "
            "humans[i] lists all answers to question i"
        )
    for i, given in enumerate(humans):
        if isinstance(given, str) or len(given) == 0:
            raise ValueError(
                f"humans[{i}] = {given!r:.40} is no list of answers: for one human "
                "answer write ['yes']"
            )
    pairs = zip(answers, humans, strict=True)
    return torch.tensor([_agreement(answer, given) for answer, given in pairs])


def _agreement(answer: str, humans: Sequence[str]) -> float:
    same = [normalise_answer(human) == normalise_answer(answer) for human in humans]
    if len(same) == 1:
        return float(same[0])
    enough = min(3, len(same) - 1)
    return sum(min((sum(same) - left) / enough, 1) for left in same) / len(same)


def accuracy_by(correct: Values, kinds: Sequence[str]) -> dict[str, float]:
    """Return the mean of ``correct`` over the items of each kind, sorted by name.

    ``correct`` says of each item whether it is right, or its share from 0 to 1.
    """
    values = _column(correct)
    if values.shape != (len(kinds),):
        raise ValueError(
            f"correct is {tuple(values.shape)}, not ({len(kinds)},): one for each kind"
        )
    rows = {kind: [k == kind for k in kinds] for kind in sorted(set(kinds))}
    return {kind: values[rows[kind]].mean().item() for kind in rows}


def _column(x: Values) -> Tensor:
    x = x.detach().cpu() if isinstance(x, Tensor) else x
    return torch.as_tensor(x, dtype=torch.float64)


# --- how strong a feeling is ------------------------------------------------------


def mosi_metrics(predicted: Values, true: Values) -> dict[str, float]:
    """Return what papers on CMU-MOSI report of sentiment from -3 to 3.

    mae; corr, Pearson's r, here 0 where a side is constant (as for a baseline that
    always says the mean). acc7 and acc5: equal once clipped to -3 to 3, or -2 to 2, and
    rounded (0.5 to 0, 1.5 to 2). acc2 and f1, each class weighted by its true items:
    has0 asks negative or not, non0 negative or positive, without the items truly 0. As
    MMSA (Mao et al., 2022, arXiv 2203.12441); MulT's code puts 0 with the negative.
    """
    predicted, true = _column(predicted), _column(true)
    if predicted.ndim != 1 or predicted.shape != true.shape or len(true) == 0:
        raise ValueError(
            f"predicted is {tuple(predicted.shape)}, true {tuple(true.shape)}: one "
            "number for each item; a head of one output needs .squeeze(-1)"
        )
    if not (true.abs() <= 3).all():
        low, high = true.aminmax()
        raise ValueError(f"true is {low:.3g} to {high:.3g}: scale it to -3 to 3")
    if not predicted.isfinite().all():
        raise ValueError("predicted holds NaN or infinity: has the training diverged?")
    felt = true != 0
    if not felt.any():
        raise ValueError(f"all {len(true)} true values are 0: non0 has no items")
    both = torch.stack([predicted, true])
    constant = (both == both[:, :1]).all(dim=1).any()
    has0, non0 = both >= 0, both[:, felt] > 0
    measured = {
        "mae": (predicted - true).abs().mean(),
        "corr": 0.0 if constant else torch.corrcoef(both)[0, 1],
        "acc2_has0": _equal(has0),
        "f1_has0": _weighted_f1(*has0),
        "acc2_non0": _equal(non0),
        "f1_non0": _weighted_f1(*non0),
        "acc5": _equal(both.clamp(-2, 2).round()),
        "acc7": _equal(both.clamp(-3, 3).round()),
    }
    return {name: float(value) for name, value in measured.items()}


def _equal(both: Tensor) -> Tensor:
    return (both[0] == both[1]).double().mean()


def _weighted_f1(predicted: Bool[Tensor, " n"], true: Bool[Tensor, " n"]) -> Tensor:
    """Return the mean over both classes, weighted by true items, of F1.

    F1 = 2TP / (2TP + FP + FN): twice the hits, by those predicted plus those true.
    """
    total = torch.tensor(0.0)
    for p, t in ((predicted, true), (~predicted, ~true)):
        f1 = 2 * (p & t).sum().double() / (p.sum() + t.sum()).clamp(min=1)
        total = total + t.double().mean() * f1
    return total


def expected_calibration_error(
    p: Float[Tensor, "n C"], label: Int[Tensor, " n"], bins: int = 10
) -> float:
    """Return how far confidence is from accuracy, 0 to 1: Guo et al., 2017.

    sum_b n_b / n |accuracy_b - confidence_b| over bins of equal width of the largest
    probability, each with its upper edge; an empty one counts nothing. arXiv
    1706.04599. ``p`` holds probabilities, not logits.
    """
    if bins < 1 or len(p) == 0 or p.shape[:1] != label.shape:
        raise ValueError(
            f"p {tuple(p.shape)}, label {tuple(label.shape)}, bins={bins}: a label for "
            "each row, at least one row and one bin are needed"
        )
    if not ((p >= 0).all() and (p.sum(dim=1) - 1).abs().max() < 1e-3):  # NaN as well
        raise ValueError("rows of p are no probabilities: use logits.softmax(dim=1)")
    confidence, guess = p.double().max(dim=1)
    gap = (guess == label).double() - confidence
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return (gap.new_zeros(bins).index_add(0, place, gap).abs().sum() / len(p)).item()
