"""Exercises and questions of 06_multimodal_transformer: tokens, lots, shares."""

import math

import numpy as np
import torch
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw numbers large enough for the softmax to take sides."""
    return torch.from_numpy(1.5 * rng.normal(size=shape)).float()


def _sizes(rng: np.random.Generator, *choices: int) -> list[int]:
    """Draw an order of sizes that all differ, so that axes can't be mistaken."""
    return rng.permutation(choices).tolist()


def _lots(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw truths, False at least once in each row of more than one, and True once."""
    truth = torch.from_numpy(rng.random(shape) < 0.5)
    rows = torch.arange(shape[0])
    one = torch.from_numpy(rng.integers(shape[1], size=shape[0]))
    truth[rows, (one + 1) % shape[1]], truth[rows, one] = False, True
    return truth


def _boolean(x) -> bool:
    return np.asarray(x).dtype == bool


# --- join_tokens ----------------------------------------------------------------------


def _join(tokens: list, masks: list) -> tuple:
    return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)


def _joined(change):
    """Return a join of what ``change`` makes of the mask of each modality."""
    return lambda tokens, masks: _join(tokens, [change(m) for m in masks])


def _tokens_input(rng: np.random.Generator) -> tuple:
    batch, dim, *lengths = _sizes(rng, 2, 3, 4, 5, 6)
    lengths = lengths[: int(rng.integers(2, 4))]
    tokens = [_normal(rng, batch, n, dim) for n in lengths]
    return tokens, [_lots(rng, batch, n) for n in lengths]


def _without_padding(tokens: list, masks: list) -> tuple:
    x, mask = _join(tokens, masks)
    return x[mask], mask[mask]


def _in_order(f) -> bool:
    lengths = (3, 1, 2)
    tokens = [torch.full((1, n, 1), float(n)) for n in lengths]
    joined, _ = f(tokens, [torch.ones(1, n, dtype=torch.bool) for n in lengths])
    return np.asarray(joined).ravel().tolist() == [3, 3, 3, 1, 2, 2]


JOIN_TOKENS = Exercise(
    "join_tokens",
    _join,
    _tokens_input,
    fixed=(
        (
            [torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[7.0], [8.0], [9.0]]])],
            [torch.tensor([[True, False]]), torch.tensor([[True, True, False]])],
        ),
        ([torch.ones(2, 3, 4)], [torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()]),
    ),
    properties={
        "the mask stays boolean": lambda f: _boolean(
            f(*_tokens_input(np.random.default_rng(0)))[1]
        ),
        "each modality's tokens stay together, in the order of the list": _in_order,
    },
    mistakes={
        "the mask is missing: return it after the tokens, or nobody knows which of "
        "them are real": lambda x, m: torch.cat(x, dim=1),
        "the two changed places: tokens first, then the mask": lambda x, m: _join(m, x),
        "both come in reverse: keep the order of the list": lambda x, m: _join(
            x[::-1], m[::-1]
        ),
        "the masks come in another order than the tokens: then one modality hides "
        "another's tokens": lambda x, m: _join(x, m[::-1]),
        "the mask is True everywhere: padding would be read. Join the given "
        "ones": _joined(torch.ones_like),
        "the mask is turned round: it stays True where a token is real": _joined(
            torch.logical_not
        ),
        "your mask says whether a modality is there at all: one that is there has "
        "padding too, so keep one truth a token": _joined(
            lambda m: m.any(dim=1, keepdim=True).expand_as(m)
        ),
        "padded tokens became zero: a zero token still gets attention. Leave the "
        "tokens alone, the mask hides them": lambda x, m: (
            torch.cat(x, dim=1) * torch.cat(m, dim=1)[..., None],
            torch.cat(m, dim=1),
        ),
        "padded tokens are cut out, and the rows run into each other: keep them all, "
        "the mask hides them": _without_padding,
        "the tokens lie in one line, without rows: join along the tokens, "
        "dim=1": lambda x, m: (
            torch.cat([t.flatten(0, 1) for t in x]),
            torch.cat([t.flatten() for t in m]),
        ),
    },
)

# --- drop_lots ------------------------------------------------------------------------


def _luckiest(present: Tensor, luck: Tensor) -> Tensor:
    """Mark the present modality of each row that has the greatest luck."""
    luck = luck.masked_fill(~present, -1.0)
    return luck == luck.amax(dim=1, keepdim=True)


def _drop(present: Tensor, luck: Tensor, p: float) -> Tensor:
    return present & ((luck >= p) | _luckiest(present, luck))


def _best_of_all(luck: Tensor) -> Tensor:
    return luck == luck.amax(dim=1, keepdim=True)


def _everything_back(present: Tensor, luck: Tensor, p: float) -> Tensor:
    kept = present & (luck >= p)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present)


def _first(present: Tensor) -> Tensor:
    return present & (present.cumsum(dim=1) == 1)


def _first_back(present: Tensor, luck: Tensor, p: float) -> Tensor:
    kept = present & (luck >= p)
    return torch.where(kept.any(dim=1, keepdim=True), kept, _first(present))


def _lots_input(rng: np.random.Generator) -> tuple:
    rows, modalities = _sizes(rng, 4, 5)
    present = _lots(rng, rows, modalities)
    luck = torch.from_numpy(rng.random((rows, modalities))).float()
    return present, luck, float(rng.choice((0.3, 0.5, 0.7)))


_HERE = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0]]).bool()
_LUCK = torch.tensor(
    [[0.9, 0.5, 0.2], [0.1, 0.3, 0.2], [0.1, 0.4, 0.8], [0.6, 0.3, 0.2]]
)

_NOTHING = torch.tensor([[False, False, False]])

DROP_LOTS = Exercise(
    "drop_lots",
    _drop,
    _lots_input,
    fixed=(
        (_HERE, _LUCK, 0.5),
        (_HERE, torch.where(_LUCK < 0.3, torch.tensor(0.0), _LUCK), 0.0),
        (torch.tensor([[True]]), torch.tensor([[0.25]]), 0.75),
    ),
    properties={
        "no row loses everything": lambda f: bool(f(_HERE, _LUCK, 0.95).any(1).all()),
        "what is missing stays missing": lambda f: (
            not bool((f(_HERE, _LUCK, 0.25) & ~_HERE).any())
        ),
        "a row that has nothing keeps nothing (are there brackets around the or? `&` "
        "binds tighter than `|`)": lambda f: (
            not bool(f(_NOTHING, _LUCK[:1], 0.5).any())
        ),
    },
    mistakes={
        "a row can lose everything: the present modality with the greatest luck always "
        "stays": lambda here, luck, p: here & (luck >= p),
        "you keep those with little luck and drop the lucky: drop where luck < "
        "p": lambda here, luck, p: here & ((luck < p) | _luckiest(here, luck)),
        "you keep those with little luck, and a row can lose everything: drop where "
        "luck < p, but never the luckiest": lambda here, luck, p: here & (luck < p),
        "what is missing comes back: no luck makes a modality that isn't there, so "
        "end with `present &`": lambda here, luck, p: (
            (luck >= p) | _luckiest(here, luck)
        ),
        "the luckiest of the row may be one that is missing: look for it among the "
        "present ones, or a row can still lose everything": lambda here, luck, p: (
            here & ((luck >= p) | _best_of_all(luck))
        ),
        "the luckiest of the row comes back where it is missing: look for it among the "
        "present ones": lambda here, luck, p: (here & (luck >= p)) | _best_of_all(luck),
        "you drop where luck <= p: then luck of exactly p is dropped too, and p = 0 "
        "still drops something": lambda here, luck, p: (
            here & ((luck > p) | _luckiest(here, luck))
        ),
        "a row that would be empty gets everything back: only its luckiest stays, or "
        "the model rarely practises with one alone": _everything_back,
        "a row that would be empty gets its first modality back: then the first is "
        "seen more than the others. Keep the luckiest": _first_back,
        "the first modality always stays: then the model never learns to do without "
        "it. Keep the luckiest": lambda here, luck, p: (
            here & ((luck >= p) | _first(here))
        ),
        "only the luckiest stays: all with luck >= p stay too": lambda here, luck, p: (
            _luckiest(here, luck)
        ),
        "you look for the luckiest row of each modality: every row keeps its own "
        "luckiest, dim=1": lambda here, luck, p: (
            here & ((luck >= p) | _luckiest(here.T, luck.T).T)
        ),
        "nothing is dropped: this is `present`": lambda here, luck, p: here,
    },
    points=2,
)

# --- attention_share ------------------------------------------------------------------


def _per_span(share):
    """Return ``share`` (B,) of the weights of each span's tokens, as (B, M)."""
    return lambda weights, spans: torch.stack(
        [share(weights, slice(*span)) for span in spans], dim=1
    )


_SHARE = _per_span(lambda w, s: w[..., s].sum(dim=-1).mean(dim=(1, 2)))


def _share_of_shares(weights: Tensor, spans: list) -> Tensor:
    share = _SHARE(weights, spans)
    return share / share.sum(dim=1, keepdim=True)


def _share_input(rng: np.random.Generator) -> tuple:
    """Draw weights whose last token belongs to no modality."""
    batch, heads, queries, modalities = _sizes(rng, 2, 3, 4, 5)
    lengths = rng.integers(2, 5, size=modalities)
    ends = np.cumsum(lengths).tolist()
    weights = _normal(rng, batch, heads, queries, ends[-1] + 1).softmax(dim=-1)
    return weights, list(zip([0, *ends[:-1]], ends, strict=True))


def _even(*shape: int) -> Tensor:
    return torch.full(shape, 1 / shape[-1])


ATTENTION_SHARE = Exercise(
    "attention_share",
    _SHARE,
    _share_input,
    fixed=(
        (
            torch.tensor(
                [[[[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]], [[1.0, 0, 0], [0.5, 0.5, 0]]]]
            ),
            [(0, 1), (1, 3)],
        ),
        (torch.tensor([[[[0.125, 0.25, 0.5, 0.125]]]]), [(1, 3)]),
    ),
    properties={
        "where the spans cover all tokens, the shares add up to 1": lambda f: (
            torch.allclose(
                f(torch.randn(2, 3, 4, 7).softmax(-1), [(0, 2), (2, 3), (3, 7)]).sum(1),
                torch.ones(2),
            )
        ),
        "where all tokens get the same, a modality's share is its share of the "
        "tokens": lambda f: torch.allclose(
            f(_even(1, 2, 3, 10), [(0, 2), (2, 3), (3, 10)]),
            torch.tensor([[0.2, 0.1, 0.7]]),
        ),
    },
    mistakes={
        "you average over the tokens of a modality: its share is the sum over them. "
        "Many tokens may well get more": _per_span(
            lambda w, s: w[..., s].mean((1, 2, 3))
        ),
        "you take the strongest token of each modality: add all of them up": _per_span(
            lambda w, s: w[..., s].amax(dim=-1).mean(dim=(1, 2))
        ),
        "you add heads and queries up: average over both, as the weights of each query "
        "in each head add up to 1": _per_span(lambda w, s: w[..., s].sum((1, 2, 3))),
        "the heads are added up: average over them too": _per_span(
            lambda w, s: w[..., s].sum(dim=(1, 3)).mean(dim=1)
        ),
        "the queries are added up: average over them too": _per_span(
            lambda w, s: w[..., s].sum(dim=(2, 3)).mean(dim=1)
        ),
        "only the first head is read: average over all": _per_span(
            lambda w, s: w[:, 0, :, s].sum(dim=-1).mean(dim=1)
        ),
        "only the first query is read: average over all": _per_span(
            lambda w, s: w[:, :, 0, s].sum(dim=-1).mean(dim=1)
        ),
        "only the last query is read: average over all": _per_span(
            lambda w, s: w[:, :, -1, s].sum(dim=-1).mean(dim=1)
        ),
        "you cut the queries, not the keys: a span counts along the last axis": (
            _per_span(lambda w, s: w[:, :, s].sum(dim=2).mean(dim=(1, 2)))
        ),
        "a span is (start, stop), not (start, length)": _per_span(
            lambda w, s: w[..., s.start : s.start + s.stop].sum(-1).mean((1, 2))
        ),
        "one token too many: `stop` is the first that no longer belongs to the "
        "modality": _per_span(
            lambda w, s: w[..., s.start : s.stop + 1].sum(-1).mean((1, 2))
        ),
        "you divide by what the modalities get together: a token outside all spans "
        "takes its share away from them": _share_of_shares,
        "this is (M, B): a row for each item, a column for each "
        "modality": lambda w, spans: _SHARE(w, spans).T,
        "the average runs over the items too: each has its own share, (B, M)": (
            lambda w, spans: _SHARE(w, spans).mean(dim=0)
        ),
    },
    points=2,
)

# --- shift_right ----------------------------------------------------------------------


def _shifted(tokens: Tensor, begin: int) -> Tensor:
    return torch.cat([torch.full_like(tokens[:, :1], begin), tokens[:, :-1]], dim=1)


def _labels(tokens: Tensor, mask: Tensor, ignore: int = -100) -> Tensor:
    return tokens.masked_fill(~mask, ignore)


def _shift(tokens: Tensor, mask: Tensor, begin: int) -> tuple:
    return _shifted(tokens, begin), _labels(tokens, mask)


def _one_ahead(tokens: Tensor, mask: Tensor, begin: int) -> tuple:
    ahead = torch.roll(_labels(tokens, mask), -1, dims=1)
    return tokens, torch.cat([ahead[:, :-1], torch.full_like(tokens[:, :1], -100)], 1)


def _shifted_left(tokens: Tensor, mask: Tensor, begin: int) -> tuple:
    inputs = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], begin)], dim=1)
    return inputs, _labels(tokens, mask)


def _not_cut(tokens: Tensor, mask: Tensor, begin: int) -> tuple:
    inputs = torch.cat([torch.full_like(tokens[:, :1], begin), tokens], dim=1)
    return inputs, _labels(tokens, mask)


def _one_too_many(tokens: Tensor, mask: Tensor, begin: int) -> tuple:
    real = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], dim=1)
    return _shifted(tokens, begin), _labels(tokens, real)


def _texts_input(rng: np.random.Generator) -> tuple:
    """Draw texts of lengths that differ, padded by a token other than 0."""
    rows, length = _sizes(rng, 3, 5)
    tokens = torch.from_numpy(rng.integers(10, 99, size=(rows, length)))
    lengths = torch.from_numpy(rng.integers(1, length, size=rows))
    mask = torch.arange(length) < lengths[:, None]
    padding, begin = rng.permutation(range(1, 9))[:2].tolist()
    return tokens.masked_fill(~mask, padding), mask, begin


_TEXTS = (
    torch.tensor([[11, 12, 13, 3], [21, 3, 0, 0]]),
    torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
    2,
)

SHIFT_RIGHT = Exercise(
    "shift_right",
    _shift,
    _texts_input,
    fixed=(_TEXTS, (torch.tensor([[5]]), torch.tensor([[True]]), 9)),
    properties={
        "a position reads the token before the one that it should predict": lambda f: (
            np.asarray(f(*_TEXTS)[0])[:, 1:].tolist() == _TEXTS[0][:, :-1].tolist()
        ),
        "as many labels count as there are real tokens": lambda f: (
            int((np.asarray(f(*_TEXTS)[1]) != -100).sum()) == int(_TEXTS[1].sum())
        ),
    },
    mistakes={
        "the inputs are not shifted: each position reads the very token that it should "
        "predict, and copying makes the loss 0": lambda t, m, b: (t, _labels(t, m)),
        "you shift to the left: each position reads the token after the one that it "
        "should predict": _shifted_left,
        "the last token moved to the front, where `begin` belongs": lambda t, m, b: (
            torch.roll(t, 1, dims=1),
            _labels(t, m),
        ),
        "you put `begin` before the tokens and keep the last one: nothing is left to "
        "predict from it. Inputs end at tokens[:, :-1]": _not_cut,
        "`begin` stands in place of the first token: put it before, so that the first "
        "token is read too": lambda t, m, b: (
            torch.cat([torch.full_like(t[:, :1], b), t[:, 1:]], dim=1),
            _labels(t, m),
        ),
        "you shift the labels too: then each position only repeats what it has just "
        "read": lambda t, m, b: (
            _shifted(t, b),
            _labels(_shifted(t, b), m),
        ),
        "you read the tokens and predict one ahead, without `begin`: then nothing "
        "teaches the first token": _one_ahead,
        "padding counts as a label: the model would learn to write padding. Set it to "
        "-100, which cross entropy leaves out": lambda t, m, b: (_shifted(t, b), t),
        "padding gets the label 0, which is a token like any other: cross entropy "
        "leaves out -100": lambda t, m, b: (_shifted(t, b), _labels(t, m, 0)),
        "padding gets the label -1: cross entropy leaves out -100, and stops at any "
        "other negative number": lambda t, m, b: (_shifted(t, b), _labels(t, m, -1)),
        "the mask is turned round: it is True for real tokens, and the others become "
        "-100": lambda t, m, b: (_shifted(t, b), _labels(t, ~m)),
        "the mask has moved along with the inputs: it belongs to the labels as it is, "
        "or the first padding counts": _one_too_many,
        "-100 stands in the inputs: it is a sign for the loss, and no row of an "
        "embedding has that number": lambda t, m, b: (
            _shifted(_labels(t, m), b),
            _labels(t, m),
        ),
        "-100 stands in the inputs, where the mask is False: it is a sign for the "
        "loss, and no row of an embedding has that number": lambda t, m, b: (
            _labels(_shifted(t, b), m),
            _labels(t, m),
        ),
        "the two changed places: inputs first, then labels": lambda t, m, b: _shift(
            t, m, b
        )[::-1],
        "the labels are missing: return them after the inputs": lambda t, m, b: (
            _shifted(t, b)
        ),
    },
    points=2,
)

# --- cross_attend ---------------------------------------------------------------------


def _cross(  # the keywords are what can go wrong in it
    x, context, mask, w_q, w_k, w_v,
    *, width=None, fill=-math.inf, axis=-1, hide=True, project=True, mix=True,
) -> Tensor:  # fmt: skip
    q, k = x @ w_q, context @ w_k
    width = q.shape[-1] if width is None else width
    weights = q @ k.mT / math.sqrt(width)
    weights = weights.masked_fill(~mask[:, None], fill).softmax(dim=axis)
    weights = weights.masked_fill(~mask[:, None], 0.0) if hide else weights
    return weights @ (context @ w_v if project else context) if mix else weights


def _wrong(**fault):
    return lambda *arguments: _cross(*arguments, **fault)


def _masked(change):
    """Return attention with ``change(mask)`` for a mask."""
    return lambda x, context, mask, *w: _cross(x, context, change(mask), *w)


def _masked_late(x, context, mask, w_q, w_k, w_v) -> Tensor:
    every = torch.ones_like(mask)
    weights = _cross(x, context, every, w_q, w_k, w_v, mix=False)
    return (weights * mask[:, None]) @ (context @ w_v)


def _zero_context(x, context, mask, *w) -> Tensor:
    return _cross(x, context * mask[..., None], torch.ones_like(mask), *w)


def _context_input(rng: np.random.Generator) -> tuple:
    """Draw a batch whose last row may read nothing, the others not everything."""
    n, d, e, a = _sizes(rng, 2, 3, 6, 7)
    x, context, mask = _normal(rng, 4, n, d), _normal(rng, 4, 5, e), _lots(rng, 4, 5)
    last = torch.arange(4)[:, None] == 3
    weights = [_normal(rng, d, a), _normal(rng, e, a), _normal(rng, e, a)]
    return x, context, mask & ~last, *(w / 2 for w in weights)


def _padding_is_invisible(f) -> bool:
    x, context, mask, *w = _context_input(np.random.default_rng(0))
    other = torch.where(mask[..., None], context, torch.randn_like(context))
    return torch.allclose(f(x, context, mask, *w), f(x, other, mask, *w), atol=1e-4)


def _nothing_gives_zeros(f) -> bool:
    x, context, mask, *w = _context_input(np.random.default_rng(1))
    return not bool(f(x, context, torch.zeros_like(mask), *w).any())


_MISSING = torch.tensor([[True, True, False], [False, False, False]])

CROSS_ATTEND = Exercise(
    "cross_attend",
    _cross,
    _context_input,
    fixed=(
        (  # q = (2 ln 3, 0, 0, 0), scores 0 and ln 3, weights 1/4 and 3/4; then nothing
            torch.ones(2, 1, 1),
            torch.tensor([[0.0], [1.0], [9.0]]).expand(2, 3, 1),
            _MISSING,
            torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]]),
            torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            torch.tensor([[4.0, 0.0, 0.0, 8.0]]),
        ),
    ),
    properties={
        "what stands behind the mask changes nothing": _padding_is_invisible,
        "a row that has nothing to read gives zeros": _nothing_gives_zeros,
    },
    mistakes={
        "you forgot the scaling: divide the scores by sqrt(A), the root of the width "
        "of a query": _wrong(width=1),
        "you divide by A itself: its square root is due": lambda *a: _cross(
            *a, width=a[3].shape[1] ** 2
        ),
        "you divide by sqrt(D), the root of the width of x: queries and keys have the "
        "width A": lambda *a: _cross(*a, width=a[0].shape[2]),
        "you divide by sqrt(E), the root of the width of the context: queries and keys "
        "have the width A": lambda *a: _cross(*a, width=a[1].shape[2]),
        "you divide by the root of the number of keys: A is the width of "
        "one": lambda *a: _cross(*a, width=a[1].shape[1]),
        "the mask is not used: padding and what is missing are read too": _masked(
            torch.ones_like
        ),
        "the mask is turned round: it is True for what may be read, so hide the "
        "others": _masked(torch.logical_not),
        "you mask after the softmax: the weights that are left no longer sum to 1. "
        "Mask the scores before it": _masked_late,
        "what is hidden has no value, but still takes weight from the rest: whether "
        "you set the context to 0 or the scores, e^0 = 1. Fill the scores with "
        "-inf": _zero_context,
        "hidden scores become 0, but e^0 = 1, so they still get weight: fill with "
        "-inf": _wrong(fill=0.0, hide=False),
        "a row that has nothing to read is NaN: its softmax is 0/0. Set weights behind "
        "the mask to 0 afterwards": _wrong(hide=False),
        "a row that has nothing to read looks at everything alike: a large negative "
        "number instead of -inf only hides the NaN. Zeros are due": _wrong(
            fill=-1e9, hide=False
        ),
        "your softmax runs over the queries: each query shares out a weight of 1 among "
        "the keys, dim=-1": _wrong(axis=-2),
        "keys and values changed places: w_k makes what is compared, w_v what is "
        "mixed": lambda x, c, m, q, k, v: _cross(x, c, m, q, v, k),
        "you mix the context itself, of width E: the values are context @ w_v": _wrong(
            project=False
        ),
        "you mix the keys: the values are context @ w_v": lambda x, c, m, q, k, v: (
            _cross(x, c, m, q, k, k)
        ),
        "these are the weights: multiply them with the values, context @ w_v": _wrong(
            mix=False
        ),
    },
    points=3,
)

EXERCISES = (JOIN_TOKENS, DROP_LOTS, ATTENTION_SHARE, SHIFT_RIGHT, CROSS_ATTEND)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "no-picture",
        "A row of a batch comes without a picture. What should the decoder read in its "
        "place?",
        {
            "a black picture": "That is a picture. Its tokens get attention like any "
            "other's, and say with conviction that all is dark.",
            "the mean of all pictures": "Nobody ever showed a mean picture in "
            "training, and it is still an opinion about this row. It knows nothing of "
            "the row.",
            "a copy of the sound's tokens": "Then the sound speaks twice, and once in "
            "a place where the decoder has learnt to expect pixels.",
            "nothing": "The batch still needs numbers there, but the mask takes their "
            "tokens out of the softmax: weight 0, whatever they are. The row is "
            "computed as if the picture did not exist.",
        },
        right=3,
    ),
    Question(
        "dropout-price",
        "One model trains with modality dropout of 0.5, one without. What does it "
        "do to accuracy, with all modalities there and with one missing?",
        {
            "it costs a lot where all modalities are there: it saw only half": (
                "What is dropped comes back in the next epoch. And rows with less "
                "teach each encoder to be of use by itself."
            ),
            "it costs little where all are there, and pays where one is missing": (
                "With everything there, the difference is small. Where a modality is "
                "missing, one model has practised and the other meets it for the first "
                "time."
            ),
            "it costs nothing and brings nothing: the mask handles what is missing": (
                "The mask keeps the missing one from being read. It doesn't teach the "
                "others to decide alone."
            ),
            "it pays everywhere: dropout is regularisation": "A little, perhaps, where "
            "data are few. Don't count on it: where all are there, the model trains "
            "for a case that it isn't tested on.",
        },
        right=1,
    ),
    Question(
        "attention-is-share",
        "The decoder gives 60 % of its attention to the picture's tokens. Does the "
        "picture explain 60 % of the answer?",
        {
            "yes: the weights of a query add up to 1": "They do, and say how the "
            "reading was shared out. What was read may be long or short, and may have "
            "changed the answer or not.",
            "yes, after dividing by the number of tokens": "That mends one thing: a "
            "modality of many tokens gets much attention by number alone. The lengths "
            "of the values, and what later layers make of them, stay outside.",
            "no: weights say what is read, not what it changed": "A weight multiplies "
            "a value, which may be short, and blocks that follow can ignore it. The "
            "number of tokens plays a part too. To know what the picture changed, take "
            "it away.",
            "no: the true share is always larger, as the picture's tokens also read "
            "each other": "They do read each other, but that makes the share neither "
            "larger nor smaller. It is another quantity altogether.",
        },
        right=2,
    ),
)
