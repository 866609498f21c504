"""The exercises and questions of 00_welcome."""

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question
from mmcourse.metrics import recall_at_k


def _rows(rng: np.random.Generator, n: int, d: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(n, d)) * rng.uniform(0.5, 3, (n, 1)))


def _cosines(a, b):
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def _softmaxed(scores):
    return scores.softmax(dim=1).diagonal().log().neg().mean()


COSINES = Exercise(
    id="cosines",
    reference=_cosines,
    inputs=lambda rng: (_rows(rng, 3, 5), _rows(rng, 4, 5)),
    fixed=(
        (
            torch.tensor([[3.0, 4.0], [0.0, 2.0]]),
            torch.tensor([[1.0, 0.0], [2.0, 2.0]]),
        ),
    ),
    properties={
        "a vector and itself have the cosine 1": lambda f: torch.allclose(
            torch.as_tensor(f(torch.eye(3) * 5, torch.eye(3) * 2)), torch.eye(3)
        ),
    },
    mistakes={
        "you took the dot products, but the vectors keep their lengths: divide each "
        "row by its length first": lambda a, b: a @ b.T,
        "you normalised the columns (dim=0): each vector is a row, so its length is "
        "taken along dim=1": lambda a, b: (
            F.normalize(a, dim=0) @ F.normalize(b, dim=0).T
        ),
        "you normalised only the first of the two: the second keeps its lengths": (
            lambda a, b: F.normalize(a, dim=1) @ b.T
        ),
        "your matrix is transposed: rows belong to a, columns to b": (
            lambda a, b: _cosines(b, a)
        ),
        "you divided by the squared length: take its square root (or use .norm())": (
            lambda a, b: (a / (a**2).sum(1, True)) @ (b / (b**2).sum(1, True)).T
        ),
    },
)

BEST_K = Exercise(
    id="best_k",
    reference=lambda scores, k: scores.argsort(descending=True)[:k],
    inputs=lambda rng: (torch.from_numpy(rng.permutation(9) - 4.5), 3),
    fixed=((torch.tensor([0.1, 0.9, 0.5, 0.7]), 2),),
    mistakes={
        "these are the places of the smallest scores: sort descending": (
            lambda scores, k: scores.argsort()[:k]
        ),
        "the right places, but the best one comes last: turn the order round": (
            lambda scores, k: scores.argsort()[-k:]
        ),
        "these are the scores, not the places where they stand": (
            lambda scores, k: scores.sort(descending=True).values[:k]
        ),
        "you leave the very best one out: places start at 0": (
            lambda scores, k: scores.argsort(descending=True)[1 : k + 1]
        ),
    },
)

RECALL = Exercise(
    id="recall",
    reference=lambda scores, k: recall_at_k(scores, k),
    inputs=lambda rng: (torch.from_numpy(rng.normal(size=(12, 12)) + np.eye(12)), 3),
    fixed=((torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.2, 0.7]]), 1),),
    properties={
        "with k = all items every query finds its own": lambda f: (
            float(f(torch.randn(6, 6), 6)) == 1
        ),
        "it never falls when k grows": lambda f: (
            lambda s: float(f(s, 1)) <= float(f(s, 2)) <= float(f(s, 4))
        )(torch.randn(8, 8)),
    },
    mistakes={
        "you went down the columns: a row holds the scores of one query": (
            lambda scores, k: recall_at_k(scores.T, k)
        ),
        "you counted the hits: divide by the number of queries": (
            lambda scores, k: recall_at_k(scores, k) * len(scores)
        ),
        "you looked only at the single best item, whatever k is": (
            lambda scores, k: recall_at_k(scores, 1)
        ),
        "one item too many: the k best are [:k], not [:k + 1]": (
            lambda scores, k: recall_at_k(scores, min(k + 1, len(scores)))
        ),
        "you took the items with the lowest scores: the best are the highest": (
            lambda scores, k: recall_at_k(-scores, k)
        ),
    },
)

CONTRASTIVE_LOSS = Exercise(
    id="contrastive_loss",
    reference=lambda scores: (_softmaxed(scores) + _softmaxed(scores.T)) / 2,
    inputs=lambda rng: (torch.from_numpy(rng.normal(size=(5, 5)) * 2),),
    fixed=((torch.tensor([[2.0, 0.0], [1.0, 3.0]]),),),
    properties={
        "equal scores give the loss of a guess, ln B": lambda f: (
            abs(float(f(torch.zeros(8, 8))) - np.log(8)) < 1e-4
        ),
        "adding 100 to every score changes nothing (exp must not overflow)": lambda f: (
            lambda s: abs(float(f(s)) - float(f(s + 100))) < 1e-3
        )(torch.randn(4, 4)),
    },
    mistakes={
        "only one direction: each picture picks its text too, so do it again with the "
        "transpose and average": _softmaxed,
        "only one direction, that of the columns: rows pick as well": (
            lambda scores: _softmaxed(scores.T)
        ),
        "you added the two directions: take their mean": (
            lambda scores: _softmaxed(scores) + _softmaxed(scores.T)
        ),
        "you took the probabilities themselves: a loss is minus their logarithm": (
            lambda scores: (
                -(
                    scores.softmax(1).diagonal().mean()
                    + scores.softmax(0).diagonal().mean()
                )
                / 2
            )
        ),
        "you summed over the batch: take the mean": (
            lambda s: len(s) * (_softmaxed(s) + _softmaxed(s.T)) / 2
        ),
        "the sign is turned: the loss must fall as the right pairs score higher": (
            lambda scores: -(_softmaxed(scores) + _softmaxed(scores.T)) / 2
        ),
    },
    points=2,
)

EXERCISES = (COSINES, BEST_K, RECALL, CONTRASTIVE_LOSS)

QUESTIONS = (
    Question(
        id="untrained",
        text=(
            "Both encoders are excellent, and neither has met the other. We put "
            "random projections on top so that the lengths fit. How often will a "
            "text find its picture among the 263 at the first place?"
        ),
        answers={
            "about 1 time in 263": (
                "The two spaces were learnt apart: nothing says that direction 17 of "
                "the text space has to do with direction 17 of the picture space."
            ),
            "about half the time: both encoders know what a dog is": (
                "Each knows, but in a language of its own. Nobody has told them that "
                "these vectors mean the same as those."
            ),
            "never": (
                "Close, but a guess hits now and then: 1 time in 263. A model that is "
                "never right would know something."
            ),
        },
        right=0,
    ),
    Question(
        id="other-hand",
        text=(
            "We train on OpenMoji's drawings alone and search among Twemoji's drawings "
            "of the unseen things. What happens to R@10?"
        ),
        answers={
            "nothing: a dog is a dog": (
                "To you. The projection has learnt which features matter in drawings "
                "with OpenMoji's black outlines, and Twemoji has none."
            ),
            "it falls, but stays far above chance": (
                "New things drawn by a new hand are two steps away from the training "
                "data. That is called a shift of domain."
            ),
            "it falls to chance": (
                "That would mean that nothing of what was learnt is about the things "
                "themselves. A good part is."
            ),
        },
        right=1,
    ),
)
