"""Exercises and questions of 02_self_attention: weights, masks, heads."""

import math

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmcourse.attention import attention, causal_mask
from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw numbers large enough for the softmax to take sides."""
    return torch.from_numpy(1.5 * rng.normal(size=shape)).float()


# --- scaled_attention -----------------------------------------------------------------


def _mix(q, k, v, scale=None, axis=-1) -> Tensor:
    """Attend; the keywords are what can go wrong in it."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return (q @ k.mT * scale).softmax(dim=axis) @ v


def _three(rng: np.random.Generator) -> tuple:
    d = int(rng.choice((2, 3, 9)))  # 4 would let a constant 2 pass for its root
    return _normal(rng, 3, d), _normal(rng, 5, d), _normal(rng, 5, d)


def _takes_the_width_of_keys(f) -> bool:
    q, k, v = torch.randn(2, 9), torch.randn(5, 9), torch.randn(5, 4)
    return torch.allclose(torch.as_tensor(f(q, k, v)), _mix(q, k, v), atol=1e-4)


SCALED_ATTENTION = Exercise(
    "scaled_attention",
    lambda q, k, v: attention(q, k, v)[0],
    _three,
    fixed=(
        (
            torch.tensor([[2.0, 0.0, 0.0, 0.0]]),
            torch.tensor([[0.0, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 1]]),
            torch.tensor([[0.0, 0, 1, 2], [8, 0, 1, 2], [0, 8, 1, 2]]),
        ),
    ),
    properties={
        "where all keys are equal, a query gets the mean of the values": lambda f: (
            lambda v: torch.allclose(
                torch.as_tensor(f(torch.randn(2, 4), torch.ones(5, 4), v)),
                v.mean(dim=0).expand(2, 4),
                atol=1e-4,
            )
        )(torch.randn(5, 4)),
        "the values' width changes no weight: d_k is the width of a "
        "key": _takes_the_width_of_keys,
    },
    mistakes={
        "you forgot the scaling: divide the scores by the square root of the width "
        "d_k of a key": lambda q, k, v: _mix(q, k, v, scale=1),
        "you divide by d_k itself: its square root is due, since it is the standard "
        "deviation of a score that grows with sqrt(d_k)": lambda q, k, v: _mix(
            q, k, v, scale=1 / q.shape[-1]
        ),
        "you multiply by sqrt(d_k): the scores must be made smaller, so "
        "divide": lambda q, k, v: _mix(q, k, v, scale=math.sqrt(q.shape[-1])),
        "you divide by 2, the root of the width 4 in the example: take the root of "
        "whatever width the keys have, q.shape[-1]": lambda q, k, v: _mix(
            q, k, v, scale=0.5
        ),
        "you divide by the square root of the number of keys: d_k is the width of one "
        "key, q.shape[-1]": lambda q, k, v: _mix(q, k, v, scale=len(k) ** -0.5),
        "your softmax runs over the queries: each query shares out a weight of 1 among "
        "the keys, along the last axis": lambda q, k, v: _mix(q, k, v, axis=0),
        "you divide after the softmax: scale the scores, then take their "
        "softmax": lambda q, k, v: _mix(q, k, v, scale=1) / math.sqrt(q.shape[-1]),
        "keys and values changed places: queries are compared with the keys, and the "
        "values are what is mixed": lambda q, k, v: _mix(q, v, k),
        "these are the weights: multiply them with the values": lambda q, k, v: (
            attention(q, k, v)[1]
        ),
    },
)

# --- looks_back -----------------------------------------------------------------------


def _square(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool)


LOOKS_BACK = Exercise(
    "looks_back",
    lambda n: causal_mask(n, n),
    lambda rng: (int(rng.integers(2, 9)),),
    fixed=((4,), (1,)),
    properties={
        "the first token sees itself alone": lambda f: (
            np.asarray(f(4))[0].tolist() == [True, False, False, False]
        ),
        "the last token sees everything": lambda f: bool(np.asarray(f(4))[3].all()),
    },
    mistakes={
        "off by one: a token can't see itself. The diagonal belongs to what is "
        "allowed": lambda n: _square(n).tril(-1),
        "off by one: each token sees the next one, and that is what it should predict. "
        "Stop at the diagonal": lambda n: _square(n).tril(1),
        "your mask is transposed: row n is what query n sees, so the allowed part lies "
        "below the diagonal": lambda n: _square(n).triu(),
        "your mask is inverted: here True means that a query may look. "
        "(nn.MultiheadAttention means the opposite)": lambda n: _square(n).triu(1),
        "everything is allowed: hide the tokens to the right of the diagonal": _square,
    },
)

# --- masked_weights -------------------------------------------------------------------


def _masked(scores, mask, fill=-math.inf, axis=-1) -> Tensor:
    return scores.masked_fill(~mask, fill).softmax(dim=axis)


def _right(scores, mask) -> Tensor:
    return _masked(scores, mask).masked_fill(~mask, 0.0)


def _renormalised(scores, mask) -> Tensor:
    kept = scores.softmax(dim=-1) * mask
    return kept / (kept.sum(dim=-1, keepdim=True) + 1e-9)


def _hidden(rng: np.random.Generator) -> tuple:
    """Draw scores and a mask: no row all True, one all False, no column all False."""
    keys = int(rng.integers(3, 7))
    mask = rng.random((keys + 1, keys)) < 0.5
    for i in range(keys):
        mask[i, i], mask[i, (i + 1) % keys] = True, False
    mask[-1] = False
    return _normal(rng, keys + 1, keys), torch.from_numpy(mask)


MASKED_WEIGHTS = Exercise(
    "masked_weights",
    _right,
    _hidden,
    fixed=(
        (
            torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
            torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]]).bool(),
        ),
        (  # what is hidden is far larger: little is left to renormalise
            torch.tensor([[0.0, 1.0, 20.0], [20.0, 1.0, 0.0]]),
            torch.tensor([[1, 1, 0], [0, 1, 1]]).bool(),
        ),
    ),
    properties={
        "a row that may look somewhere sums to 1": lambda f: torch.allclose(
            torch.as_tensor(f(torch.randn(4, 4), causal_mask(4, 4))).sum(-1),
            torch.ones(4),
            atol=1e-5,
        ),
        "a score behind the mask changes nothing": lambda f: (
            lambda s, m: torch.allclose(
                torch.as_tensor(f(s, m)), torch.as_tensor(f(s + 9.0 * ~m, m)), atol=1e-5
            )
        )(torch.randn(4, 4), causal_mask(4, 4)),
    },
    mistakes={
        "your mask is inverted: True says where a query may look, so fill the scores "
        "where it is False": lambda s, m: _masked(s, ~m),
        "you mask after the softmax: the weights that are left no longer sum to 1. "
        "Mask the scores before it": lambda s, m: s.softmax(dim=-1) * m,
        "you renormalise after the softmax, with a small number against 0/0: where a "
        "hidden score is far larger, that number is no longer small beside what is "
        "left. Mask the scores before the softmax": _renormalised,
        "a row whose keys are all hidden is NaN: its softmax is 0/0. Set weights "
        "behind the mask to 0 afterwards": _masked,
        "a row whose keys are all hidden looks at all of them alike: a large negative "
        "number instead of -inf only hides the NaN. Zeros are due": lambda s, m: (
            _masked(s, m, fill=-1e9)
        ),
        "hidden scores become 0, but e^0 = 1, so they still get weight: fill with "
        "-inf": lambda s, m: _masked(s, m, fill=0.0),
        "your softmax runs over the queries: the weights of one query, a row, sum to 1 "
        "(dim=-1)": lambda s, m: _masked(s, m, axis=0),
        "the mask is not used: every key gets weight": lambda s, m: s.softmax(dim=-1),
    },
    points=2,
)

# --- split_heads ----------------------------------------------------------------------


def _batch(rng: np.random.Generator) -> tuple:
    heads, width = int(rng.integers(2, 4)), int(rng.integers(4, 6))
    return _normal(rng, 2, 7, heads * width), heads


def _cut(pattern: str):
    """Return a function that splits by an einops pattern in which h is the heads."""
    return lambda x, heads: rearrange(x, pattern, h=heads)


SPLIT_HEADS = Exercise(
    "split_heads",
    _cut("b n (h d) -> b h n d"),
    _batch,
    fixed=((torch.arange(12.0).reshape(1, 3, 4), 2),),
    properties={
        "head 0 of a token is the first part of its own numbers": lambda f: (
            lambda x: torch.equal(torch.as_tensor(f(x, 2))[0, 0], x[0, :, :2])
        )(torch.randn(1, 3, 4)),
    },
    mistakes={
        "a bare reshape mixes tokens and heads: cut the last axis, (B, N, H, d), then "
        "swap N and H": lambda x, h: x.reshape(len(x), h, x.shape[1], -1),
        "the axes are still (B, N, H, d): swap N and H, so that each head holds a "
        "sequence": _cut("b n (h d) -> b n h d"),
        "your heads take every H-th number: the last axis is (H, d), with a head's "
        "numbers side by side": _cut("b n (d h) -> b h n d"),
        "tokens and numbers are swapped inside each head: (B, H, N, d) was asked "
        "for": _cut("b n (h d) -> b h d n"),
        "you made D / H heads of width H: there are `heads` of width "
        "D / heads": lambda x, h: rearrange(x, "b n (w h) -> b w n h", h=h),
        "heads come before the batch: (B, H, N, d) was asked for": _cut(
            "b n (h d) -> h b n d"
        ),
    },
)

# --- multi_head -----------------------------------------------------------------------


def _heads(  # the keywords are what can go wrong in it
    x, w_q, w_k, w_v, w_o, heads, mask,
    *, width=None, bare_split=False, bare_merge=False, pattern="(h d)", project=True,
    real="b 1 1 n", fill=-math.inf, after=False, axis=-1,
) -> Tensor:  # fmt: skip
    (batch, n, dim), d = x.shape, x.shape[-1] // heads
    width = d if width is None else width

    def split(t: Tensor) -> Tensor:
        if bare_split:
            return t.reshape(batch, heads, n, d)
        return rearrange(t, f"b n {pattern} -> b h n d", h=heads)

    q, k, v = split(x @ w_q), split(x @ w_k), split(x @ w_v)
    scores = q @ k.mT / math.sqrt(width)
    seen = rearrange(mask, f"b n -> {real}")
    if not after:
        scores = scores.masked_fill(~seen, fill)
    weights = scores.softmax(dim=axis)
    out = (weights * seen if after else weights) @ v
    out = out if bare_merge else rearrange(out, f"b h n d -> b n {pattern}")
    return out.reshape(batch, n, dim) @ (w_o if project else torch.eye(dim))


def _wrong(**fault):
    return lambda *arguments: _heads(*arguments, **fault)


def _projected(rng: np.random.Generator) -> tuple:
    heads, n = int(rng.integers(2, 4)), int(rng.integers(5, 8))
    dim = int(rng.choice((3, 5))) * heads  # 4 would let a constant 2 pass for its root
    weights = [_normal(rng, dim, dim) / 3 for _ in range(4)]
    lengths = torch.from_numpy(rng.integers(2, n, size=2))
    return _normal(rng, 2, n, dim), *weights, heads, torch.arange(n) < lengths[:, None]


def _padding_is_invisible(f) -> bool:
    x, *weights, heads, mask = _projected(np.random.default_rng(0))
    other = torch.where(mask[..., None], x, torch.randn_like(x))
    one, two = (torch.as_tensor(f(y, *weights, heads, mask))[mask] for y in (x, other))
    return torch.allclose(one, two, atol=1e-4)


MULTI_HEAD = Exercise(
    "multi_head",
    _heads,
    _projected,
    fixed=(_projected(np.random.default_rng(1)),),
    properties={
        "what stands in the padding changes no real token": _padding_is_invisible,
    },
    mistakes={
        "you forgot the scaling: divide the scores by sqrt(D / H), the root of a "
        "head's width": _wrong(width=1),
        "you scale by the root of the whole width D: a head's queries have only D / H "
        "numbers": lambda *a: _heads(*a, width=a[0].shape[-1]),
        "you divide by D / H itself: its square root is due": lambda *a: _heads(
            *a, width=(a[0].shape[-1] // a[5]) ** 2
        ),
        "you split the heads by a bare reshape, which mixes tokens and heads: "
        "(B, N, D) to (B, N, H, d), then swap N and H": _wrong(bare_split=True),
        "you join the heads by a bare reshape: swap H and N back first, so that a "
        "token's heads lie side by side": _wrong(bare_merge=True),
        "both reshapes are bare, splitting and joining: each mixes tokens and heads, "
        "so swap N and H after one and before the other": _wrong(
            bare_split=True, bare_merge=True
        ),
        "w_o is missing: the joined heads pass through one more matrix": _wrong(
            project=False
        ),
        "your mask is inverted: it is True for real tokens, so hide the "
        "others": lambda *a: _heads(*a[:-1], ~a[-1]),
        "the mask is not used: no query may look at padding": lambda *a: _heads(
            *a[:-1], torch.ones_like(a[-1])
        ),
        "you mask after the softmax: the weights that are left no longer sum to 1. "
        "Mask the scores before it": _wrong(after=True),
        "hidden scores become 0, but e^0 = 1, so padding still gets weight: fill with "
        "-inf": _wrong(fill=0.0),
        "you mask queries, not keys: put the new axes before the last, "
        "mask[:, None, None, :]": _wrong(real="b 1 n 1"),
        "you mask queries, not keys, and padded queries look at all keys alike: put "
        "the new axes before the last, mask[:, None, None, :]": _wrong(
            real="b 1 n 1", fill=-1e9
        ),
        "rows of the padding are 0: queries there are computed like the others, only "
        "keys are hidden": lambda *a: _heads(*a) * a[-1][..., None],
        "rows of the padding are NaN: queries there are computed like the others, only "
        "keys are hidden": lambda *a: _heads(*a).masked_fill(
            ~a[-1][..., None], math.nan
        ),
        "your softmax runs over the queries: dim=-1, so that each query's weights sum "
        "to 1": _wrong(axis=-2, fill=-1e9),
        "your heads take every H-th number: cut the width into H parts, each with its "
        "numbers side by side, (B, N, H, d)": _wrong(pattern="(d h)"),
        "w_o is transposed: the joined heads @ w_o (nn.Linear stores the "
        "transpose)": lambda x, q, k, v, o, *a: _heads(x, q, k, v, o.mT, *a),
        "queries and keys changed places: row n of the scores is for query n, q @ "
        "k.mT": lambda x, q, k, *a: _heads(x, k, q, *a),
        "you multiply by the transposed matrices: here q = x @ w_q (nn.Linear stores "
        "the transpose)": lambda x, q, k, v, o, *a: _heads(
            x, q.mT, k.mT, v.mT, o.mT, *a
        ),
        "keys and values changed places: w_k makes what is compared, w_v what is "
        "mixed": lambda x, q, k, v, *a: _heads(x, q, v, k, *a),
    },
    points=3,
)

EXERCISES = (SCALED_ATTENTION, LOOKS_BACK, MASKED_WEIGHTS, SPLIT_HEADS, MULTI_HEAD)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "wide-keys",
        "Queries and keys hold independent numbers with mean 0 and variance 1. You "
        "make them 64 times as wide, from d_k = 4 to 256. What happens to the spread "
        "(standard deviation) of a score q . k?",
        {
            "nothing: each number keeps its variance": "Each number does, but a score "
            "is a sum over d_k products, and sums of more terms spread more.",
            "it becomes 8 times as large": "Variances of independent terms add up, so "
            "the variance is d_k and its root, the spread, grows with sqrt(64) = 8.",
            "it becomes 64 times as large": "That is the variance. The spread is its "
            "square root.",
            "it shrinks: positive and negative terms cancel": "They cancel in the "
            "mean, which stays 0. The distance from the mean still grows.",
        },
        right=1,
    ),
    Question(
        "who-bites",
        'You take MiniLM\'s position numbers away and encode "the dog bites the man" '
        'and "the man bites the dog", each as the mean of its token vectors. What is '
        "the cosine of the two?",
        {
            "clearly below 1: the sentences mean different things": "They do, but "
            "without positions the model never learns which word came first.",
            "1": "Attention treats its input as a set. The same words give the same "
            "vectors in another order, and the mean forgets the order too.",
            "about 0: without positions nothing is left": "The words are left. A bag "
            "of words still says what a sentence is about.",
        },
        right=1,
    ),
    Question(
        "he-thanked",
        'In "He thanked the king and the queen", He can\'t be the king. Of the two '
        "nouns, which does the head that we found look at more, from He?",
        {
            "both alike: neither is the one": "A head that resolved pronouns would do "
            "that. This one was chosen by a score that never asked for it.",
            "the king": "It looks for a noun that agrees in gender, whether or not it "
            "can be meant. Our search could not tell the two skills apart.",
            "the queen": "That would take the rule of grammar that forbids the king, "
            "and then a leap: the queen can't be He either.",
        },
        right=1,
    ),
)
