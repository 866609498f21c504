"""Exercises and questions of 12_sentiment: semitones, a frame's period, raters, shares.

Pitch as an ear counts it, how like itself a sound is some samples later, how raters
spread, and whose doing a prediction is. The fixed inputs of each exercise alone tell
all of its mistakes apart.
"""

from itertools import combinations, permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question
from mmcourse.tasks.sentiment import shapley


def _near(one, other) -> bool:
    """Tell whether two tensors or numbers agree, as far as float32 can say."""
    one, other = (torch.as_tensor(x).detach().double() for x in (one, other))
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


# --- semitones ------------------------------------------------------------------------


def _semitones(f0: Tensor) -> Tensor:
    return 12 * (f0[f0 > 0] / 100).log2()


def _f0_input(rng: np.random.Generator) -> tuple:
    """Draw pitches below and above 100 Hz, with pauses between them."""
    f0 = 100 * 2 ** rng.uniform(-0.8, 2, int(rng.integers(6, 12)))
    f0[rng.permutation(len(f0))[:2]] = 0
    return (torch.from_numpy(f0),)


SUNG = torch.tensor([100.0, 0.0, 200.0, 50.0])

SEMITONES = Exercise(
    "semitones",
    _semitones,
    _f0_input,
    fixed=(
        (SUNG,),  # 0, 12, -12
        (torch.tensor([0.0, 0.0, 150.0, 141.5, 0.0, 212.0]),),
    ),
    properties={
        "twice the pitch is 12 semitones more": lambda f: _near(
            f(2 * SUNG) - f(SUNG), torch.full((3,), 12.0)
        ),
        "frames without a voice are left out": lambda f: len(f(SUNG)) == 3,
    },
    mistakes={
        "frames without a voice are still there, with -inf: keep those above 0": (
            lambda f0: 12 * (f0 / 100).log2()
        ),
        "frames without a voice are still there, with 0: leave them out": lambda f0: (
            torch.where(f0 > 0, 12 * (f0 / 100).log2(), 0)
        ),
        "these are octaves: an octave has 12 semitones": lambda f0: _semitones(f0) / 12,
        "this is the natural logarithm: an octave is a factor of 2, so take log2": (
            lambda f0: 12 * (f0[f0 > 0] / 100).log()
        ),
        "this is the logarithm to the base 10: an octave is a factor of 2, take log2": (
            lambda f0: 12 * (f0[f0 > 0] / 100).log10()
        ),
        "these are semitones above 1 Hz: divide by 100 Hz first": lambda f0: (
            12 * f0[f0 > 0].log2()
        ),
        "these are semitones above this voice's own mean: above 100 Hz": lambda f0: (
            _semitones(f0) - _semitones(f0).mean()
        ),
        "these are differences in Hz: an ear hears ratios, take log2 of f / 100": (
            lambda f0: f0[f0 > 0] - 100
        ),
        "your ratio is upside down: f / 100, so that a higher voice has more": (
            lambda f0: -_semitones(f0)
        ),
    },
)

# --- autocorrelation ------------------------------------------------------------------


def _sides(x: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    return x[: len(x) - lag], x[lag:]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.square().sum() * b.square().sum()) ** 0.5)


def _autocorrelation(x: Tensor, lag: int) -> float:
    return _cosine(*_sides(x, lag))


def _around(x: Tensor, lag: int) -> float:
    return float((x * x.roll(-lag)).sum() / x.square().sum())


def _product(x: Tensor, lag: int) -> float:
    head, tail = _sides(x, lag)
    return float((head * tail).sum())


def _over(below):
    """Return the product of both sides over ``below(head, tail, x)``."""
    return lambda x, lag: _product(x, lag) / float(below(*_sides(x, lag), x))


def _centred(x: Tensor, lag: int) -> float:
    return _cosine(*(side - side.mean() for side in _sides(x, lag)))


def _frame_input(rng: np.random.Generator) -> tuple:
    """Draw a frame with the mean 0 that grows, and a lag of at least 2."""
    n, lag = int(rng.integers(12, 20)), int(rng.integers(2, 5))
    wave = np.sin(np.arange(n) * rng.uniform(0.6, 1.4)) * np.linspace(0.5, 2, n)
    x = wave + 0.3 * rng.standard_normal(n)
    return torch.from_numpy(x - x.mean()), lag


STEPS = torch.tensor([1.0, -2.0, 0.0, 2.0, -4.0, 3.0])

AUTOCORRELATION = Exercise(
    "autocorrelation",
    _autocorrelation,
    _frame_input,
    fixed=(
        (STEPS, 3),  # (2 + 8 + 0) / sqrt(5 * 29)
        (STEPS, 2),  # (0 - 4 + 0 + 6) / sqrt(9 * 29)
        (torch.tensor([1.0, 0.5, -2.0, 1.0, 0.0, -2.5, 2.0]), 1),
    ),
    properties={
        "a frame that repeats itself after t samples has 1 there, however loud": (
            lambda f: _near(f(torch.cat([STEPS[:3], 3 * STEPS[:3]]), 3), 1)
        ),
    },
    mistakes={
        "this is the sum of products: divide by the root of both energies": _product,
        "this is the mean of the products: divide the sum by the root of both "
        "energies": lambda x, lag: _product(x, lag) / (len(x) - lag),
        "you divide by the energy of the whole frame: take what is left of it on each "
        "side, or long lags come out too small": _over(
            lambda head, tail, x: x.square().sum()
        ),
        "you divide by both energies without the root": _over(
            lambda head, tail, x: head.square().sum() * tail.square().sum()
        ),
        "you divide by the energy of the beginning alone: of both sides": _over(
            lambda head, tail, x: head.square().sum()
        ),
        "you divide by the energy of the end alone: of both sides": _over(
            lambda head, tail, x: tail.square().sum()
        ),
        "you divide by the mean of both energies: the root of their product": _over(
            lambda head, tail, x: (head.square().sum() + tail.square().sum()) / 2
        ),
        "your frame goes on at its beginning (roll): drop what has no partner": _around,
        "your lag is one too long": lambda x, lag: _autocorrelation(x, lag + 1),
        "your lag is one too short": lambda x, lag: _autocorrelation(x, lag - 1),
        "this is Pearson's r: subtract no means, the frame's is 0 already": _centred,
        "you keep the sign away: where the sound is turned round, r is negative": (
            lambda x, lag: abs(_autocorrelation(x, lag))
        ),
        "you multiply with the frame turned round: shift it": lambda x, lag: _cosine(
            x[: len(x) - lag], x.flip(0)[: len(x) - lag]
        ),
    },
    points=2,
)


# --- soft_label -----------------------------------------------------------------------


def _counts(ratings: list[int]) -> Tensor:
    return torch.bincount(torch.tensor(ratings) + 4, minlength=9).float()


def _soft(ratings: list[int]) -> Tensor:
    return _counts(ratings) / len(ratings)


def _one_hot(score: int) -> Tensor:
    return F.one_hot(torch.tensor(score + 4), 9).float()


def _rating_input(rng: np.random.Generator) -> tuple:
    """Draw raters who mostly agree: one score is the most frequent, none is all."""
    while True:
        centre = int(rng.integers(-3, 4))
        drawn = (centre + rng.choice([-1, 0, 0, 0, 1, 2], 9)).clip(-4, 4)
        counts = np.bincount(drawn + 4, minlength=9)
        mean = drawn.mean()
        lopsided = counts.argmax() - 4 != round(mean) and abs(mean) > 0.1
        if (counts == counts.max()).sum() == 1 and lopsided:
            return (rng.permutation(drawn).tolist(),)


SOFT_LABEL = Exercise(
    "soft_label",
    _soft,
    _rating_input,
    fixed=(
        ([3, 3, 3, 2, 0],),  # mode 3, mean 2.2, median 3
        ([2, -1, -1, -1, 2, 1, 3, 0],),  # mode -1, mean 0.6
    ),
    properties={
        "there are nine shares, and they sum to 1": lambda f: (
            _near(f([4, 4, 1]).sum(), 1) and len(f([4, 4, 1])) == 9
        ),
        "the order of the raters does not matter": lambda f: _near(
            f([1, 2, 2, -3]), f([2, -3, 1, 2])
        ),
    },
    mistakes={
        "these are counts: divide by the number of raters": _counts,
        "you divide by 9, the scores: by the number of raters": lambda r: (
            _counts(r) / 9
        ),
        "this is a softmax of the counts: divide them by their sum": lambda r: _counts(
            r
        ).softmax(dim=0),
        "you give the most frequent score everything: that is a hard label": lambda r: (
            _one_hot(_counts(r).argmax().item() - 4)
        ),
        "you give the rounded mean everything: that is a hard label": lambda r: (
            _one_hot(round(sum(r) / len(r)))
        ),
        "your scores run from 4 to -4: the first place is that of -4": lambda r: _soft(
            r
        ).flip(0),
        "your scores begin at -5: the first place is that of -4": lambda r: _soft(
            r
        ).roll(1),
        "you count from the end for negative scores: add 4, so that -4 is place 0": (
            lambda r: _soft(r).roll(-4)
        ),
        "you leave out the scores that nobody gave: all nine have a place": lambda r: (
            _soft(r)[_soft(r) > 0]
        ),
        "you divide by the largest count: by the number of raters": lambda r: (
            _counts(r) / _counts(r).max()
        ),
        "the scores that were given get equal shares: count how often each was": (
            lambda r: (_counts(r) > 0) / (_counts(r) > 0).sum()
        ),
        "you add one to every count first: here these are the raters' shares as they "
        "are": lambda r: (_counts(r) + 1) / (len(r) + 9),
    },
)

# --- shapley_shares -------------------------------------------------------------------

Value = dict[frozenset[str], float]


def _players(value: Value) -> list[str]:
    return sorted(frozenset().union(*value))


def _subsets(players: list[str]) -> list[frozenset[str]]:
    sizes = range(len(players) + 1)
    return [frozenset(s) for k in sizes for s in combinations(players, k)]


def _others(value: Value, who: str) -> list[frozenset[str]]:
    return [s for s in _subsets(_players(value)) if who not in s]


def _each(share):
    """Return what gives each player ``share(value, player)``."""
    return lambda value: {who: share(value, who) for who in _players(value)}


def _added(value: Value, s: frozenset[str], who: str) -> float:
    return value[s | {who}] - value[s]


def _last(value: Value, who: str) -> float:
    return _added(value, frozenset(_players(value)) - {who}, who)


def _equally(value: Value, who: str) -> float:
    added = [_added(value, s, who) for s in _others(value, who)]
    return sum(added) / len(added)


def _in_an_order(value: Value) -> dict[str, float]:
    """Return what each adds in one order only, the alphabet's."""
    there, shares = frozenset(), {}
    for who in _players(value):
        shares[who], there = _added(value, there, who), there | {who}
    return shares


def _without_the_empty(value: Value, who: str) -> float:
    """Leave out the orders in which ``who`` comes first."""
    orders = [o for o in permutations(_players(value)) if o[0] != who]
    added = [_added(value, frozenset(o[: o.index(who)]), who) for o in orders]
    return sum(added) / len(added)


def _scaled(value: Value, scale) -> dict[str, float]:
    shares = shapley(value)
    by = scale(value, shares)
    return {who: share / by for who, share in shares.items()}


def _value_input(rng: np.random.Generator) -> tuple:
    """Draw three players' values: none is empty-handed, and the empty set isn't 0."""
    names = rng.permutation(["face", "voice", "words"]).tolist()
    return ({s: float(rng.uniform(0.5, 4)) for s in _subsets(names)},)


def _game(*values: int | float) -> Value:
    """Return values of the subsets of a, b and c, small ones first."""
    return dict(zip(_subsets(["a", "b", "c"]), map(float, values), strict=True))


SHAPLEY_SHARES = Exercise(
    "shapley_shares",
    shapley,
    _value_input,
    fixed=(
        # a alone reaches 4 of 6, c nothing without the others
        (_game(0, 4, 1, 0, 4, 5, 3, 6),),
        (_game(1, 2, -1, 0.5, 3, 0, 2.5, 1.6),),  # c makes it worse
    ),
    properties={
        "the shares sum to v(all) - v(none)": lambda f: _near(
            sum(f(_game(1, 2, 4, 3, 5, 2, 6, 8)).values()), 7
        ),
        "whoever adds nothing gets nothing": lambda f: _near(
            f(_game(1, 3, 1, 2, 3, 5, 2, 5))["b"], 0
        ),
    },
    mistakes={
        "this is what is lost when one is taken away from all: average over all orders "
        "in which they may come": _each(_last),
        "this is what each reaches alone: average over all orders in which they may "
        "come": _each(lambda value, who: _added(value, frozenset(), who)),
        "this is v of each alone, v(none) not taken off, and one order only": _each(
            lambda value, who: value[frozenset({who})]
        ),
        "your subsets all weigh the same: to be first, or last, is more likely than "
        "each of the middle ones": _each(_equally),
        "this is one order only: average over all of them": _in_an_order,
        "you add over the orders: divide by how many there are": lambda value: _scaled(
            value, lambda v, s: 1 / len([*permutations(s)])
        ),
        "you divide by their sum: the shares sum to v(all) - v(none), not to 1": (
            lambda value: _scaled(value, lambda v, s: sum(s.values()))
        ),
        "you leave out the orders in which one comes first: v(none) counts, too": (
            _each(_without_the_empty)
        ),
        "you take what is added without its sign: one may make things worse": _each(
            lambda value, who: abs(shapley(value)[who])
        ),
        "you share out v(all) by what each reaches alone: average over all orders": (
            lambda value: {
                who: _added(value, frozenset(), who)
                * (value[frozenset(_players(value))] - value[frozenset()])
                / sum(_added(value, frozenset(), w) for w in _players(value))
                for who in _players(value)
            }
        ),
    },
    points=3,
)

EXERCISES = (SEMITONES, AUTOCORRELATION, SOFT_LABEL, SHAPLEY_SHARES)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "words-alone",
        "A model that reads only the words follows people's scores well (r = 0.8 or "
        "more). In the split 'words', voice and face feel the opposite, and the label "
        "goes with the two. Labels there are about 2 in size. How large is the mean "
        "absolute error of the words alone?",
        {
            "about as large as elsewhere": "The words are read as well as before; but "
            "the label has changed its sign, and the model can't know.",
            "about 1: it knows nothing and says 0": "It doesn't know that it knows "
            "nothing. These are words whose feeling is clear, and it says so.",
            "more than 2": "It says more than +1 where the label is about -2, which "
            "is worse than saying 0. A modality that is sure and wrong costs more "
            "than a missing one.",
        },
        right=2,
    ),
    Question(
        "octave",
        "A voice of 200 Hz. A tracker takes the lag at which a frame is most like "
        "itself, and now and then it says 100 Hz. Why?",
        {
            "the frame is too short for 200 Hz": "40 ms hold eight periods of 200 Hz. "
            "Too short a frame harms low voices first.",
            "what repeats after one period also repeats after two": "r is almost as "
            "high there, and a little noise decides. So the first peak that is nearly "
            "the highest is taken, and jumps of an octave are smoothed away.",
            "a voice has overtones": "Overtones of 200 Hz lie at 400, 600 and so on, "
            "above it. All of them repeat after 5 ms.",
        },
        right=1,
    ),
    Question(
        "left-out",
        "Words, voice and face say the same, and any two of them are enough to be "
        "right. You leave out one at a time and see what is lost. What do the three "
        "losses sum to?",
        {
            "to what all three reach": "Shapley's shares do. Leaving out one asks only "
            "what the last to come adds.",
            "to more than that": "That happens where they need each other: each one "
            "then takes everything with it. Here any two do without the third.",
            "to about nothing": "What one knows, the two others know as well, so none "
            "is missed. All three would look useless; averaging over all orders gives "
            "each a third.",
        },
        right=2,
    ),
)
