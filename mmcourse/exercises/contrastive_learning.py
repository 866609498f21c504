"""Exercises and questions of 07_contrastive_learning: triplets, views, partners."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _unit(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw rows of length 1."""
    return F.normalize(torch.from_numpy(rng.normal(size=shape)).float(), dim=-1)


# --- hardest_triplet ------------------------------------------------------------------


def _wrongs(scores: Tensor, fill: float = -math.inf) -> Tensor:
    """Put ``fill`` in the place of the right pairs' scores."""
    itself = torch.eye(len(scores), dtype=torch.bool)
    return scores.masked_fill(itself, fill)


def _one_way(scores: Tensor, margin: float) -> Tensor:
    hardest = _wrongs(scores).amax(dim=1)
    return (margin + hardest - scores.diagonal()).clamp(min=0)


def _hardest(scores: Tensor, margin: float) -> Tensor:
    return (_one_way(scores, margin) + _one_way(scores.T, margin)).mean()


def _both_ways(one_way):
    """Return the mean over i of ``one_way`` of the scores and of their transpose."""
    return lambda s, margin: (one_way(s, margin) + one_way(s.T, margin)).mean()


def _hinges(scores: Tensor, margin: float, fill: float = -math.inf) -> Tensor:
    right = scores.diagonal()[:, None]
    return (margin + _wrongs(scores, fill) - right).clamp(min=0)


def _triplet_input(rng: np.random.Generator) -> tuple:
    """Draw cosines; some right pairs win by more than the margin, some lose."""
    scores = rng.uniform(-0.9, 0.5, size=(5, 5))
    scores[np.arange(5), np.arange(5)] = rng.permutation([0.9, 0.8, 0.3, -0.2, -0.6])
    return torch.from_numpy(scores).float(), float(rng.uniform(0.15, 0.3))


HARDEST_TRIPLET = Exercise(
    "hardest_triplet",
    _hardest,
    _triplet_input,
    fixed=(
        (torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.2, 0.7]]), 0.2),
        (torch.tensor([[-0.5, -0.8], [-0.9, -0.6]]), 0.2),
    ),
    properties={
        "where each right pair wins by more than the margin, the loss is 0": lambda f: (
            float(f(torch.eye(4), 0.2)) == 0.0
        ),
        "pictures and texts may change places": lambda f: (
            lambda s: torch.allclose(f(s, 0.2), f(s.T.contiguous(), 0.2))
        )(torch.randn(4, 4)),
    },
    mistakes={
        "the right pair is among the negatives: it beats itself by 0, so the loss "
        "never falls below the margin. Leave the diagonal out": _both_ways(
            lambda s, m: (m + s.amax(dim=1) - s.diagonal()).clamp(min=0)
        ),
        "you put 0 in the place of the right pair: where all wrong pairs score below "
        "0, that 0 is the hardest. Use -inf": _both_ways(
            lambda s, m: _hinges(s, m, 0.0).amax(dim=1)
        ),
        "only the rows are asked: do the same for the columns, and add": lambda s, m: (
            _one_way(s, m).mean()
        ),
        "you add up all negatives: keep the hardest of each row and of each "
        "column": _both_ways(lambda s, m: _hinges(s, m).sum(dim=1)),
        "you average over all negatives: keep the hardest of each row and of each "
        "column": _both_ways(lambda s, m: _hinges(s, m).sum(dim=1) / (len(s) - 1)),
        "a pair that wins by more than the margin makes the loss smaller: cut at 0, "
        "max(0, ...)": _both_ways(
            lambda s, m: m + _wrongs(s).amax(dim=1) - s.diagonal()
        ),
        "right and wrong are turned round: the loss should grow with the wrong "
        "score": _both_ways(
            lambda s, m: (m + s.diagonal() - _wrongs(s).amax(dim=1)).clamp(min=0)
        ),
        "the margin is subtracted: a right pair has to win by it, so add": _both_ways(
            lambda s, m: _one_way(s, -m)
        ),
        "the margin is not used": _both_ways(lambda s, m: _one_way(s, 0.0)),
        "you take the mean of both directions: add them": lambda s, m: (
            _hardest(s, m) / 2
        ),
        "you add up over the batch: divide by B": lambda s, m: _hardest(s, m) * len(s),
        "the easiest negative is kept: take the largest score, not the "
        "smallest": _both_ways(
            lambda s, m: (m + _wrongs(s, math.inf).amin(dim=1) - s.diagonal()).clamp(
                min=0
            )
        ),
    },
    points=2,
)

# --- nt_xent --------------------------------------------------------------------------


def _views(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines (2B, 2B) of all views, which is itself, and each one's other."""
    views = torch.cat([a, b])
    other = torch.arange(len(views)).roll(len(a))
    return views @ views.T, torch.eye(len(views), dtype=torch.bool), other


def _nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    cosines, itself, other = _views(a, b)
    scores = (cosines / temperature).masked_fill(itself, -math.inf)
    return F.cross_entropy(scores, other)


def _nt_variant(change):
    """Return NT-Xent with what ``change(cosines, itself, other, t)`` makes of it."""
    return lambda a, b, t: change(*_views(a, b), t)


def _without_other(cosines: Tensor, itself: Tensor, other: Tensor, t: float) -> Tensor:
    """Leave the right answer out of the sum below the line."""
    scores, rows = cosines / t, torch.arange(len(other))
    hidden = itself.clone()
    hidden[rows, other] = True
    wrong = scores.masked_fill(hidden, -math.inf).logsumexp(dim=1)
    return (wrong - scores[rows, other]).mean()


def _nt_input(rng: np.random.Generator) -> tuple:
    batch, dim = rng.permutation([3, 5]).tolist()
    a, b = _unit(rng, batch, dim), _unit(rng, batch, dim)
    return a, b, float(rng.uniform(0.2, 0.6))


NT_XENT = Exercise(
    "nt_xent",
    _nt_xent,
    _nt_input,
    fixed=(
        (  # cosine 1 with the other view, 0 with the rest
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            0.5,
        ),
        (
            torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]),
            torch.tensor([[0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]),
            0.25,
        ),
    ),
    properties={
        "views that are all alike give chance, ln(2B - 1)": lambda f: math.isclose(
            f(torch.eye(1, 4).repeat(3, 1), torch.eye(1, 4).repeat(3, 1), 0.5),
            math.log(5),
            abs_tol=1e-5,
        ),
        "first and second views may change places": lambda f: (
            lambda a, b: torch.allclose(f(a, b, 0.3), f(b, a, 0.3))
        )(F.normalize(torch.randn(4, 3), dim=1), F.normalize(torch.randn(4, 3), dim=1)),
    },
    mistakes={
        "a view is compared with itself: the cosine is 1, and nothing beats it. Hide "
        "the diagonal": _nt_variant(
            lambda s, i, o, t: F.cross_entropy(s / t, o),
        ),
        "a view is asked to find itself: its right answer is the other view, B places "
        "on": _nt_variant(
            lambda s, i, o, t: F.cross_entropy(s / t, torch.arange(len(o)))
        ),
        "you put 0 on the diagonal: e^0 = 1 still counts. Use -inf": _nt_variant(
            lambda s, i, o, t: F.cross_entropy((s / t).masked_fill(i, 0.0), o)
        ),
        "you multiply by the temperature: divide": _nt_variant(
            lambda s, i, o, t: F.cross_entropy((s * t).masked_fill(i, -math.inf), o)
        ),
        "the temperature is not used": _nt_variant(
            lambda s, i, o, t: F.cross_entropy(s.masked_fill(i, -math.inf), o)
        ),
        "only the first views are asked: all 2B are": lambda a, b, t: F.cross_entropy(
            _nt_scores(a, b, t)[: len(a)], torch.arange(len(a)) + len(a)
        ),
        "first views meet second views only, as in CLIP: here views of one kind are "
        "negatives, too": lambda a, b, t: (
            (
                F.cross_entropy(a @ b.T / t, torch.arange(len(a)))
                + F.cross_entropy(b @ a.T / t, torch.arange(len(a)))
            )
            / 2
        ),
        "first views meet second views only, and only one way": lambda a, b, t: (
            F.cross_entropy(a @ b.T / t, torch.arange(len(a)))
        ),
        "the right answer is missing below the line: the sum runs over all views but "
        "the view itself, and the other view is one of them": _nt_variant(
            _without_other
        ),
        "you add up over the 2B views: take the mean": lambda a, b, t: (
            _nt_xent(a, b, t) * 2 * len(a)
        ),
        "you divide the sum by B: there are 2B views": lambda a, b, t: (
            _nt_xent(a, b, t) * 2
        ),
        "the sign is wrong: minus the logarithm of the probability": lambda a, b, t: (
            -_nt_xent(a, b, t)
        ),
    },
    points=3,
)


def _nt_scores(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    cosines, itself, _ = _views(a, b)
    return (cosines / temperature).masked_fill(itself, -math.inf)


# --- partner_targets ------------------------------------------------------------------


def _same(ids: Tensor) -> Tensor:
    return (ids[:, None] == ids[None, :]).float()


def _targets(ids: Tensor) -> Tensor:
    same = _same(ids)
    return same / same.sum(dim=1, keepdim=True)


def _others_only(ids: Tensor) -> Tensor:
    others = _same(ids) - torch.eye(len(ids))
    return others / others.sum(dim=1, keepdim=True).clamp(min=1)


def _ids_input(rng: np.random.Generator) -> tuple:
    """Draw ids of six rows: one is alone, at least two are partners."""
    ids = np.array([4, 4, 7, *rng.choice([4, 5, 9], size=3)])
    return (torch.from_numpy(rng.permutation(ids)),)


PARTNER_TARGETS = Exercise(
    "partner_targets",
    _targets,
    _ids_input,
    fixed=(
        (torch.tensor([3, 8, 3]),),
        (torch.tensor([5, 6, 7]),),
        (torch.tensor([2, 2, 2, 2]),),
    ),
    properties={
        "every row adds up to 1": lambda f: torch.allclose(
            f(torch.tensor([1, 1, 2, 1])).sum(dim=1), torch.ones(4)
        ),
        "where all ids differ, this is the identity": lambda f: torch.equal(
            f(torch.tensor([9, 4, 1])), torch.eye(3)
        ),
    },
    mistakes={
        "`ids` is not used: rows of one id are partners of each other": lambda ids: (
            torch.eye(len(ids))
        ),
        "these are ones for partners: divide each row by how many it has, so that it "
        "adds up to 1": _same,
        "you divide by B: divide each row by how many partners it has": lambda ids: (
            _same(ids) / len(ids)
        ),
        "a row is no partner of itself: its own text is its partner first of "
        "all": _others_only,
        "your softmax gives strangers a share, too: divide by the sum of the "
        "row": lambda ids: _same(ids).softmax(dim=1),
        "partners are turned round: equal ids belong together": lambda ids: (
            lambda x: x / x.sum(dim=1, keepdim=True).clamp(min=1)
        )(1 - _same(ids)),
        "all entries together add up to 1: each row should": lambda ids: (
            _same(ids) / _same(ids).sum()
        ),
    },
)

# --- evenness -------------------------------------------------------------------------


def _between(x: Tensor) -> Tensor:
    """Return the squared distance of every two different rows."""
    squared = (x[:, None] - x[None, :]).square().sum(dim=-1)
    return squared[~torch.eye(len(x), dtype=torch.bool)]


def _uniformity(x: Tensor, t: float) -> Tensor:
    return (-t * _between(x)).exp().mean().log()


def _uniform_input(rng: np.random.Generator) -> tuple:
    n, dim = rng.permutation([4, 6]).tolist()
    return _unit(rng, n, dim), float(rng.uniform(0.5, 3.0))


EVENNESS = Exercise(
    "evenness",
    _uniformity,
    _uniform_input,
    fixed=(
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 2.0),  # squared distance 4: -8
        (torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), 1.0),
    ),
    properties={
        "rows that are all alike give 0, the worst": lambda f: math.isclose(
            f(torch.eye(1, 3).repeat(5, 1), 2.0), 0.0, abs_tol=1e-6
        ),
        "a rotation changes nothing": lambda f: (
            lambda x, turn: torch.allclose(f(x, 2.0), f(x @ turn, 2.0), atol=1e-5)
        )(
            F.normalize(torch.randn(5, 3), dim=1),
            torch.linalg.qr(torch.randn(3, 3)).Q,
        ),
    },
    mistakes={
        "each row is compared with itself as well, and e^0 = 1 hides how far the "
        "others are: leave the diagonal out": lambda x, t: (
            (-t * (x[:, None] - x[None, :]).square().sum(dim=-1)).exp().mean().log()
        ),
        "the distance is not squared": lambda x, t: (
            (-t * _between(x).sqrt()).exp().mean().log()
        ),
        "the logarithm is missing": lambda x, t: (-t * _between(x)).exp().mean(),
        "you average the logarithms: take the logarithm of the mean, which asks first "
        "of all for those that are close": lambda x, t: -t * _between(x).mean(),
        "the sign is wrong: what is far apart should count little, e^(-t d)": (
            lambda x, t: (t * _between(x)).exp().mean().log()
        ),
        "t is not used": lambda x, t: _uniformity(x, 1.0),
        "you divide by t: multiply": lambda x, t: _uniformity(x, 1 / t),
        "you add up: take the mean over the pairs": lambda x, t: (
            (-t * _between(x)).exp().sum().log()
        ),
        "you take 1 - cosine for the squared distance, which is twice that": (
            lambda x, t: _uniformity(x, t / 2)
        ),
        "lower is better: leave the sign of the logarithm as it is": lambda x, t: (
            -_uniformity(x, t)
        ),
    },
    points=2,
)

# --- zero_shot ------------------------------------------------------------------------


def _classes(prompts: Tensor, first: bool = True, second: bool = True) -> Tensor:
    """Return class vectors (C, E) of prompts (C, T, E)."""
    prompts = F.normalize(prompts, dim=-1) if first else prompts
    mean = prompts.mean(dim=1)
    return F.normalize(mean, dim=-1) if second else mean


def _zero_shot(pictures: Tensor, prompts: Tensor) -> Tensor:
    return pictures @ _classes(prompts).T


def _cosines_of_prompts(pictures: Tensor, prompts: Tensor) -> Tensor:
    return torch.einsum("be,cte->bct", pictures, F.normalize(prompts, dim=-1))


def _shot_input(rng: np.random.Generator) -> tuple:
    """Draw pictures of length 1 and prompts of different lengths."""
    batch, classes, dim = rng.permutation([3, 4, 6]).tolist()
    lengths = torch.from_numpy(rng.uniform(0.3, 3.0, size=(classes, 5, 1))).float()
    return _unit(rng, batch, dim), lengths * _unit(rng, classes, 5, dim)


ZERO_SHOT = Exercise(
    "zero_shot",
    _zero_shot,
    _shot_input,
    fixed=(
        (  # the first class's prompts disagree, the second's agree
            torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]),
            torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 0.5]]]),
        ),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([[[3.0, 4.0]]])),
    ),
    properties={
        "a prompt that is twice as long changes nothing": lambda f: (
            lambda x, p: torch.allclose(f(x, p), f(x, 2 * p), atol=1e-5)
        )(F.normalize(torch.randn(3, 4), dim=1), torch.randn(2, 3, 4)),
        "every score is a cosine, from -1 to 1": lambda f: bool(
            (f(torch.eye(4), 3 * torch.randn(5, 2, 4)).abs() <= 1 + 1e-5).all()
        ),
    },
    mistakes={
        "the mean of a class's prompts is not normalised again: it is the shorter, the "
        "less its prompts agree, and the class is scored lower for it": lambda x, p: (
            x @ _classes(p, second=False).T
        ),
        "the prompts are not normalised before averaging: the longest has the most "
        "say": lambda x, p: x @ _classes(p, first=False).T,
        "nothing is normalised: these are scalar products, not cosines": lambda x, p: (
            x @ _classes(p, False, False).T
        ),
        "you take each class's best prompt: average the prompts": lambda x, p: (
            _cosines_of_prompts(x, p).amax(dim=-1)
        ),
        "only the first prompt is used": lambda x, p: _zero_shot(x, p[:, :1]),
        "these are classes in rows, (C, B): pictures go in rows": lambda x, p: (
            _zero_shot(x, p).T
        ),
        "these are probabilities: return the cosines": lambda x, p: _zero_shot(
            x, p
        ).softmax(dim=-1),
        "these are the chosen classes: return all cosines, (B, C)": lambda x, p: (
            _zero_shot(x, p).argmax(dim=-1)
        ),
    },
    points=2,
)

EXERCISES = (HARDEST_TRIPLET, NT_XENT, PARTNER_TARGETS, EVENNESS, ZERO_SHOT)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "loss-at-chance",
        "You train on batches of 128 pairs. After an hour the InfoNCE loss is 4.85. "
        "What do you know?",
        {
            "it converged, a loss near 5 is good": "A loss is good or bad against "
            "chance, and chance depends on the batch: ln 128 = 4.85.",
            "nothing was learnt": "ln 128 = 4.85 is what equal scores for all give. "
            "Look for a tower that is fed a constant, or features that are all alike. "
            "Pairs that were shuffled apart look so only where there are too many to "
            "learn by heart.",
            "the temperature is too low": "A low temperature with wrong scores gives a "
            "loss far above chance. Exactly ln B means: all scores are equal.",
            "the batch is too small": "A smaller batch would only lower chance: ln 64 "
            "= 4.16. What does the number say about the scores?",
        },
        right=1,
    ),
    Question(
        "only-positives",
        "Somebody drops the negatives: the loss is 1 - cosine of each picture with "
        "its own text, both encoders learn. What happens?",
        {
            "it learns the same, only slower": "What in this loss tells one thing from "
            "another? Find a solution that never looks at its input.",
            "the loss can't fall": "It falls very well. One constant vector for every "
            "input makes it 0.",
            "all embeddings move to one point": "A constant answer has loss 0, and "
            "nothing says no to it: collapse. Negatives are what forbids it.",
            "pictures and texts swap places": "Nothing here tells pictures from texts. "
            "Ask what the cheapest perfect answer would be.",
        },
        right=2,
    ),
    Question(
        "low-temperature",
        "Divide cosines by 0.01 in place of 0.1. For which negatives does the gradient "
        "grow, as a share of the whole?",
        {
            "for all alike: it is only a factor": "A factor inside an exponent isn't a "
            "factor of the result. Compare e^(0.8/t) and e^(0.7/t) for both t.",
            "for the few that score highest": "Shares are softmax(s/t). At t = 0.1, "
            "0.1 more of cosine is 2.7 times the share; at 0.01 it is 22,000 times. A "
            "low temperature mines hard negatives by itself.",
            "for those that are far away": "Their share is e^(s/t) of a low s: the "
            "lower t, the less.",
        },
        right=1,
    ),
)
