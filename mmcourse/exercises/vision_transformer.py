"""Exercises and questions of 04_vision_transformer: patches, tokens, positions."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape))


# --- embed_patches --------------------------------------------------------------------


def _embed(cut: str, kernel: str = "d c p q -> d (c p q)"):
    """Embed with patches cut, and the weight flattened, in these orders."""

    def embed(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        patches = rearrange(image, cut, p=weight.shape[2], q=weight.shape[3])
        return patches @ rearrange(weight, kernel).T + bias

    return embed


_RIGHT = _embed("c (h p) (w q) -> (h w) (c p q)")


def _embed_input(rng: np.random.Generator) -> tuple:
    colours, rows, columns, side, dim = rng.integers(2, 5, size=5).tolist()
    columns += rows  # never square, so that rows and columns can't be mistaken
    image = _normal(rng, colours, rows * side, columns * side)
    return image, _normal(rng, dim, colours, side, side), _normal(rng, dim)


def _strips(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    width = weight[0].numel()
    return image.reshape(-1, width) @ weight.flatten(1).T + bias


EMBED_PATCHES = Exercise(
    "embed_patches",
    _RIGHT,
    _embed_input,
    fixed=(
        (
            torch.arange(16.0).reshape(1, 4, 4),
            torch.tensor([[0.25, 0.25, 0.25, 0.25], [-1.0, 1.0, 0.0, 0.0]]).reshape(
                2, 1, 2, 2
            ),
            torch.tensor([0.0, 10.0]),
        ),
    ),
    properties={
        "a black picture gives the bias in every token": lambda f: torch.allclose(
            f(torch.zeros(3, 4, 6), torch.ones(5, 3, 2, 2), torch.arange(5.0)),
            torch.arange(5.0).expand(6, 5),
        ),
    },
    mistakes={
        "your patches come column by column: the second token belongs to the patch to "
        "the right of the first, not below it": _embed(
            "c (h p) (w q) -> (w h) (c p q)"
        ),
        "your patches are transposed: inside a patch the pixels come column by column, "
        "but the weight's come row by row": _embed("c (h p) (w q) -> (h w) (c q p)"),
        "your patches are interleaved: you take every N-th pixel instead of "
        "neighbours. A side splits into (patches, pixels), not (pixels, patches)": (
            _embed("c (p h) (q w) -> (h w) (c p q)")
        ),
        "you flatten the patch as (P, P, C) and the weight as (C, P, P): colours come "
        "first in both": _embed("c (h p) (w q) -> (h w) (p q c)"),
        "you flatten the weight as (P, P, C) and the patch as (C, P, P): colours come "
        "first in both": _embed(
            "c (h p) (w q) -> (h w) (c p q)", "d c p q -> d (p q c)"
        ),
        "you cut the picture into strips: reshape alone never takes two rows of one "
        "patch together": _strips,
        "the bias is missing: x_p = W p + b": lambda x, w, b: _RIGHT(x, w, b) - b,
        "too many tokens: your patches overlap. The stride is P, not 1": (
            lambda x, w, b: F.conv2d(x[None], w, b).flatten(2)[0].T
        ),
        "your tokens are columns, (D, N): one token is one row": lambda x, w, b: (
            _RIGHT(x, w, b).T
        ),
        "these are still maps, (D, rows, columns): flatten the grid and put the width "
        "last": lambda x, w, b: F.conv2d(x[None], w, b, stride=w.shape[2])[0],
    },
    points=2,
)

# --- prepend_class --------------------------------------------------------------------


def _first(patches: Tensor, token: Tensor) -> Tensor:
    return torch.cat([token.expand(len(patches), 1, -1), patches], dim=1)


def _last(patches: Tensor, token: Tensor) -> Tensor:
    return torch.cat([patches, token.expand(len(patches), 1, -1)], dim=1)


def _class_input(rng: np.random.Generator) -> tuple:
    batch, n, dim = rng.integers(2, 6, size=3).tolist()
    return _normal(rng, batch, n, dim), _normal(rng, dim), _normal(rng, n + 1, dim)


PREPEND_CLASS = Exercise(
    "prepend_class",
    lambda x, token, at: _first(x, token) + at,
    _class_input,
    fixed=(
        (
            torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]]),
            torch.tensor([9.0, 9.0]),
            torch.tensor([[0.0, 0.5], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]),
        ),
    ),
    properties={
        "there is one token more than there are patches": lambda f: (
            tuple(f(torch.zeros(2, 9, 4), torch.zeros(4), torch.zeros(10, 4)).shape)
            == (2, 10, 4)
        ),
    },
    mistakes={
        "the class token stands at the end: it comes first, before the patches": (
            lambda x, token, at: _last(x, token) + at
        ),
        "the class token has no position: the first row of positions belongs to it": (
            lambda x, token, at: _first(x + at[1:], token)
        ),
        "your positions are off by one: you add the first N to the patches, but row 0 "
        "belongs to the class token": lambda x, token, at: _first(x + at[:-1], token),
        "the first N positions went to the patches and the last to the class token: "
        "join first, then add": lambda x, token, at: _first(
            x + at[:-1], token + at[-1]
        ),
        "positions are added twice to the patches: once, after joining": (
            lambda x, token, at: _first(x + at[1:], token) + at
        ),
        "positions are added twice: once is enough": (
            lambda x, token, at: _first(x, token) + 2 * at
        ),
        "the positions are missing: add them after joining": (
            lambda x, token, at: _first(x, token)
        ),
        "the class token is missing: N patches and it make 1 + N tokens": (
            lambda x, token, at: x + at[1:]
        ),
    },
)

# --- pool_patches ---------------------------------------------------------------------


def _pool_input(rng: np.random.Generator) -> tuple:
    batch, n, dim = rng.integers(3, 6, size=3).tolist()
    prefix = int(rng.integers(2, 4))
    return _normal(rng, batch, prefix + n, dim), prefix


POOL_PATCHES = Exercise(
    "pool_patches",
    lambda tokens, prefix: tokens[:, prefix:].mean(dim=1),
    _pool_input,
    fixed=(
        (torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]]), 1),
        (torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 0),
        (torch.arange(24.0).reshape(2, 4, 3) ** 2, 2),
    ),
    mistakes={
        "your mean includes the class token and the registers: leave the first "
        "`prefix` tokens out": lambda tokens, prefix: tokens.mean(dim=1),
        "you leave out one token, whatever the prefix is: there may be registers, or "
        "no class token": lambda tokens, prefix: tokens[:, 1:].mean(dim=1),
        "you average the prefix and leave the patches out: the patches come after it": (
            lambda tokens, prefix: tokens[:, :prefix].mean(dim=1)
        ),
        "you cut the prefix off at the end: it stands at the beginning": (
            lambda tokens, prefix: tokens[:, : tokens.shape[1] - prefix].mean(dim=1)
        ),
        "this is the class token: the mean of the patches was asked for": (
            lambda tokens, prefix: tokens[:, 0]
        ),
        "you averaged over the width: tokens stand along dim=1": (
            lambda tokens, prefix: tokens[:, prefix:].mean(dim=2)
        ),
        "you averaged over the batch: tokens stand along dim=1": (
            lambda tokens, prefix: tokens[:, prefix:].mean(dim=0)
        ),
        "you summed: divide by the number of patches": (
            lambda tokens, prefix: tokens[:, prefix:].sum(dim=1)
        ),
        "you divide by all tokens: only the patches are counted": (
            lambda tokens, prefix: tokens[:, prefix:].sum(dim=1) / tokens.shape[1]
        ),
    },
)

# --- nearest_labels -------------------------------------------------------------------


def _vote(train: Tensor, labels: Tensor, queries: Tensor, k: int, far=False) -> Tensor:
    places = torch.cdist(queries, train).topk(k, largest=far).indices
    return F.one_hot(labels[places], int(labels.max()) + 1).sum(dim=1).argmax(dim=1)


def _clouds(rng: np.random.Generator) -> tuple:
    labels = torch.from_numpy(rng.permutation(np.repeat([0, 2, 3], 6)))
    centres = _normal(rng, 4, 3)
    train, wanted = centres[labels] + _normal(rng, 18, 3), _normal(rng, 7, 3)
    return train, labels, wanted, 5


def _last_of_equals(train: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    places = torch.cdist(queries, train).topk(k, largest=False).indices
    votes = F.one_hot(labels[places], int(labels.max()) + 1).sum(dim=1)
    return votes.shape[1] - 1 - votes.flip(1).argmax(dim=1)


def _by_product(train: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    places = (queries @ train.T).topk(k).indices
    return F.one_hot(labels[places], int(labels.max()) + 1).sum(dim=1).argmax(dim=1)


def _average(train: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    places = torch.cdist(queries, train).topk(k, largest=False).indices
    return labels[places].double().mean(dim=1).round().long()


_LINE = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [30.0], [50.0]])

NEAREST_LABELS = Exercise(
    "nearest_labels",
    _vote,
    _clouds,
    fixed=(
        (
            _LINE,
            torch.tensor([5, 0, 0, 3, 3, 0, 0]),
            torch.tensor([[-1.0], [9.0], [40.0]]),
            3,
        ),
        (_LINE, torch.tensor([4, 1, 2, 1, 4, 4, 4]), torch.tensor([[0.4]]), 2),
        (_LINE, torch.tensor([0, 2, 1, 2, 0, 1, 1]), torch.tensor([[0.1], [10.1]]), 1),
    ),
    properties={
        "with k = 1 a training picture finds its own label": lambda f: (
            f(_LINE, torch.arange(7), _LINE, 1).tolist() == list(range(7))
        ),
    },
    mistakes={
        "you ask the farthest: a neighbour has a small distance, so topk needs "
        "largest=False": lambda t, y, q, k: _vote(t, y, q, k, far=True),
        "only the very nearest votes, whatever k is": lambda t, y, q, k: _vote(
            t, y, q, 1
        ),
        "one neighbour too many: the k nearest are [:k]": lambda t, y, q, k: _vote(
            t, y, q, k + 1
        ),
        "you leave the nearest out: that is right only where a query is in the "
        "training set itself": lambda t, y, q, k: (
            F.one_hot(
                y[torch.cdist(q, t).argsort(dim=1)[:, 1 : k + 1]], int(y.max()) + 1
            )
            .sum(dim=1)
            .argmax(dim=1)
        ),
        "these are places, not labels: look up labels[places]": lambda t, y, q, k: (
            torch.cdist(q, t).argmin(dim=1)
        ),
        "you average the labels: a 1 and a 7 don't make a 4. Count votes": _average,
        "of equally many votes you take the largest label: the smallest was asked "
        "for": _last_of_equals,
        "you compare by dot product: then long vectors win. Use distances": _by_product,
    },
    points=2,
)

# --- resize_grid ----------------------------------------------------------------------


def _stretch(positions, old, new, **how) -> Tensor:
    grid = rearrange(positions, "(h w) d -> 1 d h w", h=old[0])
    grid = F.interpolate(grid, new, **({"mode": "bilinear"} | how))
    return rearrange(grid, "1 d h w -> (h w) d")


def _as_line(positions: Tensor, old, new) -> Tensor:
    line = F.interpolate(positions.T[None], new[0] * new[1], mode="linear")
    return line[0].T


def _unmoved(positions: Tensor, old, new) -> Tensor:
    grid = positions.reshape(1, -1, *old)  # width and place mixed
    grid = F.interpolate(grid, new, mode="bilinear")
    return grid.reshape(positions.shape[1], -1).T


def _turned_back(positions: Tensor, old, new) -> Tensor:
    grid = rearrange(positions, "(h w) d -> 1 d h w", h=old[0])
    grid = F.interpolate(grid, new, mode="bilinear")
    return grid.reshape(-1, positions.shape[1])


def _columns_first(positions: Tensor, old, new) -> Tensor:
    grid = rearrange(positions, "(w h) d -> 1 d h w", h=old[0])
    grid = F.interpolate(grid, new, mode="bilinear")
    return rearrange(grid, "1 d h w -> (w h) d")


def _grid_input(rng: np.random.Generator) -> tuple:
    rows, columns, dim = (int(n) for n in rng.integers(2, 5, size=3))
    columns += rows
    new = (rows + int(rng.integers(1, 4)), columns + int(rng.integers(1, 4)))
    return _normal(rng, rows * columns, dim), (rows, columns), new


RESIZE_GRID = Exercise(
    "resize_grid",
    _stretch,
    _grid_input,
    fixed=(
        (torch.tensor([[0.0], [8.0], [4.0], [12.0]]), (2, 2), (2, 4)),
        (torch.arange(12.0).reshape(6, 2) ** 2, (2, 3), (4, 5)),
        (torch.arange(32.0).reshape(16, 2) ** 2, (4, 4), (2, 2)),
    ),
    properties={
        "a grid of the same size stays as it is": lambda f: torch.allclose(
            f(torch.arange(12.0).reshape(6, 2), (2, 3), (2, 3)),
            torch.arange(12.0).reshape(6, 2),
        ),
    },
    mistakes={
        "you stretch the sequence: the last patch of a row is no neighbour of the "
        "first of the next. Lay the positions out as a grid": _as_line,
        "you read the grid column by column: positions come row by row": _columns_first,
        "you reshape (h w, D) to (D, h, w) without a transpose: that mixes width and "
        "place": _unmoved,
        "on the way back you reshape (D, h', w') to (h' w', D) without a transpose: "
        "that mixes width and place": _turned_back,
        "you copy the nearest position instead of blending: mode='bilinear'": (
            lambda p, old, new: _stretch(p, old, new, mode="nearest")
        ),
        "you pinned the corners: align_corners=False, as patches are areas, not "
        "points": lambda p, old, new: _stretch(p, old, new, align_corners=True),
        "you interpolate bicubically, as the package does: bilinear was asked for "
        "here": lambda p, old, new: _stretch(p, old, new, mode="bicubic"),
        "`new` is turned round: it is (rows, columns)": lambda p, old, new: _stretch(
            p, old, new[::-1]
        ),
    },
    points=3,
)

EXERCISES = (EMBED_PATCHES, PREPEND_CLASS, POOL_PATCHES, NEAREST_LABELS, RESIZE_GRID)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "no-positions",
        "We set all positions of the patches to zero and shuffle the patches of a "
        "picture. What happens to the class token's output?",
        {
            "it becomes random": "It would, if the model knew where a patch stands. "
            "Which part of it could still tell?",
            "it stays the same": "Attention is a sum over tokens, and the other "
            "layers treat each token alone. Nothing but positions knows the order.",
            "it changes a little: neighbouring patches no longer touch": "Neighbours "
            "have no meaning to attention: every token sees every other, near or far.",
        },
        right=1,
    ),
    Question(
        "few-labels",
        "100 labelled digits of 8 x 8 pixels. A ViT of 2 x 2 patches, a CNN, and one "
        "nearest neighbour in raw pixels, all without augmentation: which comes last?",
        {
            "the nearest neighbour: it learns nothing": "It needn't. The digits are "
            "centred and small, so that equal digits are close in pixels.",
            "the CNN: it is the older design": "Older, but it starts with beliefs "
            "about pictures that are true here. They save labels.",
            "the ViT": "It has to learn from 100 pictures even that neighbouring "
            "patches belong together. It was made for much more data.",
        },
        right=2,
    ),
    Question(
        "shuffled-patches",
        "Patches of all digits are put in one other order, the same for all. Both "
        "networks train anew on ten labels a class. Who loses more accuracy?",
        {
            "the CNN": "Its small kernels look across the borders of patches, where "
            "now pixels meet that don't belong together.",
            "the ViT: its positions are wrong now": "They are learnt anew. For a ViT "
            "that starts from nothing, one order is as good as another.",
            "neither: no information is lost": "None is. But a network also brings "
            "beliefs along, and one of the two believes in neighbours.",
            "both lose everything: nobody could read such digits": "You couldn't, "
            "since you learnt other ones. They train on the new order.",
        },
        right=0,
    ),
)
