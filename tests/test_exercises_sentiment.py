"""Right answers of several styles pass; wrong ones are refused, many by name."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import (
    assert_refused,
    assert_right,
    assert_told,
    assert_told_apart,
    each_answer,
    each_mistake,
)

from mmcourse.exercises.sentiment import EXERCISES, QUESTIONS
from mmcourse.tasks import sentiment

# --- right answers ----------------------------------------------------------------


def semitones_as_in_the_solution(f0):
    return 12 * (f0[f0 > 0] / 100).log2()


def semitones_by_loop(f0):
    return torch.tensor([12 * math.log2(f / 100) for f in f0.tolist() if f > 0])


def semitones_by_natural_logarithm(f0):
    voiced = f0[f0 != 0]
    return 12 * (voiced.log() - math.log(100)) / math.log(2)


def semitones_by_numpy(f0):
    f0 = f0.numpy()
    return 12 * np.log2(f0[f0 > 0] / 100)


def correlation_as_in_the_solution(x, lag):
    head, tail = x[: len(x) - lag], x[lag:]
    return (head * tail).sum() / (head.square().sum() * tail.square().sum()).sqrt()


def correlation_as_a_cosine(x, lag):
    return F.cosine_similarity(x[: len(x) - lag], x[lag:], dim=0)


def correlation_by_loop(x, lag):
    pairs = [*zip(x.tolist(), x.tolist()[lag:], strict=False)]
    top = sum(a * b for a, b in pairs)
    return top / math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))


def correlation_by_negative_index(x, lag):
    head, tail = x[:-lag], x[lag:]
    return (head * tail).sum() / (head.norm() * tail.norm())


def correlation_by_norms(x, lag):
    a, b = x.narrow(0, 0, len(x) - lag), x.narrow(0, lag, len(x) - lag)
    return a @ b / a.norm() / b.norm()


def soft_as_in_the_solution(ratings):
    counts = torch.bincount(torch.tensor(ratings) + 4, minlength=9)
    return counts / len(ratings)


def soft_by_counter(ratings):
    counts = Counter(ratings)
    return torch.tensor([counts[k] / len(ratings) for k in range(-4, 5)])


def soft_by_one_hot(ratings):
    return F.one_hot(torch.tensor(ratings) + 4, 9).float().mean(dim=0)


def soft_by_numpy(ratings):
    return np.histogram(ratings, np.arange(-4.5, 5))[0] / len(ratings)


def shares_as_in_the_solution(value):
    everyone = frozenset().union(*value)
    shares = dict.fromkeys(everyone, 0.0)
    orders = [*permutations(everyone)]
    for order in orders:
        there = frozenset()
        for who in order:
            shares[who] += (value[there | {who}] - value[there]) / len(orders)
            there |= {who}
    return shares


def shares_by_weights(value):
    players = max(value, key=len)
    m, shares = len(players), defaultdict(float)
    for who in players:
        shares[who] = sum(
            (v - value[s - {who}]) / (m * math.comb(m - 1, len(s) - 1))
            for s, v in value.items()
            if who in s
        )
    return shares


def shares_by_formula_for_three(value):
    a, b, c = sorted(max(value, key=len))

    def one(a, b, c):
        v = {key: value[frozenset(key)] for key in [(), (a,), (b,), (c,)]}
        ab, ac, bc = (value[frozenset(s)] for s in ((a, b), (a, c), (b, c)))
        first, last = v[a,] - v[()], value[frozenset((a, b, c))] - bc
        return first / 3 + (ab - v[b,] + ac - v[c,]) / 6 + last / 3

    return {a: one(a, b, c), b: one(b, a, c), c: one(c, a, b)}


RIGHT = {
    "semitones": [
        semitones_as_in_the_solution,
        semitones_by_loop,
        semitones_by_natural_logarithm,
        semitones_by_numpy,
    ],
    "autocorrelation": [
        correlation_as_in_the_solution,
        correlation_as_a_cosine,
        correlation_by_loop,
        correlation_by_norms,
        correlation_by_negative_index,
    ],
    "soft_label": [
        soft_as_in_the_solution,
        soft_by_counter,
        soft_by_one_hot,
        soft_by_numpy,
        sentiment.histogram,
    ],
    "shapley_shares": [
        shares_as_in_the_solution,
        shares_by_weights,
        shares_by_formula_for_three,
        sentiment.shapley,
    ],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    assert [e.points for e in EXERCISES] == [1, 2, 1, 3]
    for exercise in EXERCISES:
        told = [*exercise.mistakes]
        assert len(MISTAKES[exercise.id]) == len(told)
        for said in MISTAKES[exercise.id]:  # each names one message and no other
            assert sum(said in message for message in told) == 1, said


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_fixed_inputs_alone_tell_all_mistakes_apart(exercise):
    assert_told_apart(exercise)


# --- the inputs, and the examples worked out by hand ------------------------------

TONES, CORRELATION, SOFT, SHARES = EXERCISES


def drawn(exercise):
    return [a for _ in range(20) for a in exercise.arguments()]


def test_each_recording_has_pauses_and_no_raters_agree_on_the_rounded_mean():
    for (f0,) in drawn(TONES):
        assert (f0 == 0).any() and (f0 > 0).sum() > 2
    for (ratings,) in drawn(SOFT):
        assert {*ratings} <= {*range(-4, 5)} and len({*ratings}) > 1
        most = max(set(ratings), key=ratings.count)
        assert round(np.mean(ratings)) != most


def test_the_examples_worked_out_by_hand():
    assert TONES.reference(*TONES.fixed[0]).tolist() == [0, 12, -12]
    values = [CORRELATION.reference(*a) for a in CORRELATION.fixed[:2]]
    assert values == pytest.approx([10 / math.sqrt(145), 2 / math.sqrt(261)])
    shares = SOFT.reference(*SOFT.fixed[0]).tolist()
    assert shares == pytest.approx([0, 0, 0, 0, 0.2, 0, 0.2, 0.6, 0])
    third, sixth = Fraction(1, 3), Fraction(1, 6)
    a = third * 4 + sixth * (3 + 5) + third * 3
    b = third * 1 + sixth * (0 + 3) + third * 1
    c = third * 0 + sixth * (1 + 2) + third * 2
    shares = SHARES.reference(*SHARES.fixed[0])
    assert shares == pytest.approx({"a": float(a), "b": float(b), "c": float(c)})


# --- wrong answers, written as a learner would ------------------------------------


def voiced(f0):
    return f0[f0 > 0]


def sides(x, lag):
    return x[: len(x) - lag], x[lag:]


def divided(below):
    def answer(x, lag):
        a, b = sides(x, lag)
        return torch.dot(a, b) / below(a, b, x)

    return answer


def energy(x):
    return (x**2).sum()


def counted(ratings):
    counts = torch.zeros(9)
    for r in ratings:
        counts[r + 4] += 1
    return counts


def hard(score):
    label = torch.zeros(9)
    label[score + 4] = 1
    return label


def per_player(share):
    def answer(value):
        everyone = max(value, key=len)
        return {who: share(value, everyone, who) for who in everyone}

    return answer


def adds(value, before, who):
    before = frozenset(before)
    return value[before | {who}] - value[before]


def in_orders(value, orders, divide):
    shares = dict.fromkeys(max(value, key=len), 0.0)
    for order in orders:
        for i, who in enumerate(order):
            shares[who] += adds(value, order[:i], who) / divide
    return shares


def all_orders(value):
    return [*permutations(sorted(max(value, key=len)))]


def normalised(value):
    shares = shares_as_in_the_solution(value)
    total = sum(shares.values())
    return {who: share / total for who, share in shares.items()}


def never_first(value, everyone, who):
    a, b = everyone - {who}
    return (
        adds(value, [a], who)
        + adds(value, [b], who)
        + 2 * adds(value, everyone - {who}, who)
    ) / 4


def by_strength_alone(value):
    everyone = max(value, key=len)
    alone = {who: adds(value, [], who) for who in everyone}
    total = value[everyone] - value[frozenset()]
    return {who: total * x / sum(alone.values()) for who, x in alone.items()}


MISTAKES = {
    "semitones": {
        "with -inf": lambda f0: 12 * torch.log2(f0 / 100),
        "with 0": lambda f0: 12 * torch.log2(f0.where(f0 > 0, 100) / 100),
        "these are octaves": lambda f0: torch.log2(voiced(f0) / 100),
        "natural logarithm": lambda f0: 12 * torch.log(voiced(f0) / 100),
        "base 10": lambda f0: 12 * torch.log10(voiced(f0) / 100),
        "above 1 Hz": lambda f0: 12 * torch.log2(voiced(f0)),
        "this voice's own mean": lambda f0: (
            12 * (torch.log2(voiced(f0)) - torch.log2(voiced(f0)).mean())
        ),
        "differences in Hz": lambda f0: voiced(f0) - 100,
        "upside down": lambda f0: 12 * torch.log2(100 / voiced(f0)),
    },
    "autocorrelation": {
        "this is the sum of products": divided(lambda a, b, x: 1),
        "this is the mean of the products": lambda x, lag: (
            sides(x, lag)[0] * sides(x, lag)[1]
        ).mean(),
        "the whole frame": divided(lambda a, b, x: energy(x)),
        "without the root": divided(lambda a, b, x: energy(a) * energy(b)),
        "the beginning alone": divided(lambda a, b, x: energy(a)),
        "the end alone": divided(lambda a, b, x: energy(b)),
        "the mean of both energies": divided(
            lambda a, b, x: (energy(a) + energy(b)) / 2
        ),
        "goes on at its beginning": lambda x, lag: (
            torch.dot(x, torch.roll(x, lag)) / energy(x)
        ),
        "one too long": lambda x, lag: correlation_as_a_cosine(x, lag + 1),
        "one too short": lambda x, lag: correlation_as_a_cosine(x, lag - 1),
        "this is Pearson's r": lambda x, lag: torch.corrcoef(
            torch.stack(sides(x, lag))
        )[0, 1],
        "you keep the sign away": lambda x, lag: correlation_as_a_cosine(x, lag).abs(),
        "the frame turned round": lambda x, lag: F.cosine_similarity(
            x[: len(x) - lag], x.flip(0)[: len(x) - lag], dim=0
        ),
    },
    "soft_label": {
        "these are counts": counted,
        "you divide by 9": lambda r: counted(r) / 9,
        "a softmax": lambda r: torch.softmax(counted(r), 0),
        "the most frequent score everything": lambda r: hard(
            max(sorted(set(r)), key=r.count)
        ),
        "the rounded mean": lambda r: hard(round(np.mean(r))),
        "from 4 to -4": lambda r: torch.tensor(
            [r.count(4 - i) / len(r) for i in range(9)]
        ),
        "begin at -5": lambda r: torch.tensor(
            [r.count(k) / len(r) for k in (4, *range(-4, 4))]
        ),
        "from the end for negative": lambda r: torch.tensor(
            [r.count(i if i < 5 else i - 9) / len(r) for i in range(9)]
        ),
        "that nobody gave": lambda r: torch.tensor(
            [r.count(k) / len(r) for k in sorted(set(r))]
        ),
        "the largest count": lambda r: counted(r) / counted(r).max(),
        "equal shares": lambda r: torch.tensor(
            [(k in r) / len(set(r)) for k in range(-4, 5)]
        ),
        "you add one": lambda r: (counted(r) + 1) / (counted(r) + 1).sum(),
    },
    "shapley_shares": {
        "taken away from all": per_player(
            lambda v, every, who: v[every] - v[every - {who}]
        ),
        "this is what each reaches alone": per_player(
            lambda v, every, who: v[frozenset([who])] - v[frozenset()]
        ),
        "v of each alone": per_player(lambda v, every, who: v[frozenset([who])]),
        "your subsets all weigh the same": per_player(
            lambda v, every, who: sum(adds(v, s, who) for s in v if who not in s) / 4
        ),
        "this is one order only": lambda v: in_orders(v, all_orders(v)[:1], 1),
        "you add over the orders": lambda v: in_orders(v, all_orders(v), 1),
        "you divide by their sum": normalised,
        "in which one comes first": per_player(never_first),
        "without its sign": lambda v: {
            who: abs(x) for who, x in shares_by_weights(v).items()
        },
        "you share out v(all)": by_strength_alone,
    },
}


@each_mistake(MISTAKES)
def test_known_mistakes_are_recognised(id, told, answer):
    assert_told(id, told, answer)


def test_a_result_changed_a_little_is_refused():
    for exercise in (TONES, SOFT):
        assert_refused(exercise, lambda x: x + 0.01, lambda x: x[:-1])
    assert_refused(CORRELATION, lambda x: x + 0.01)
    assert_refused(SHARES, lambda x: {k: v + 0.01 for k, v in x.items()})


# --- the exercises and the package ------------------------------------------------


def test_the_autocorrelation_finds_the_period_that_the_package_finds():
    rate, f0 = 8000, 160.0
    time = torch.arange(round(0.04 * rate)) / rate
    x = torch.sin(2 * math.pi * f0 * time) + 0.5 * torch.sin(4 * math.pi * f0 * time)
    x = 0.5 * (x - x.mean())
    best = max(range(16, 100), key=lambda lag: CORRELATION.reference(x, lag))
    assert best == rate / f0
    assert sentiment.pitch(x, rate)[0] == pytest.approx(f0, rel=0.01)


def test_each_question_has_one_right_answer_and_a_reply_to_each():
    assert [q.id for q in QUESTIONS] == ["words-alone", "octave", "left-out"]
    for asked in QUESTIONS:
        assert len({*asked.answers.values()}) == len(asked.answers) == 3


def test_shares_of_a_game_in_which_two_of_three_decide():
    """The question "left-out": leaving out one shows nothing, each has a third."""
    players = ("face", "voice", "words")
    sets = [frozenset(s) for k in range(4) for s in combinations(players, k)]
    value = {s: float(len(s) >= 2) for s in sets}
    lost = [
        value[frozenset(players)] - value[frozenset(players) - {p}] for p in players
    ]
    assert lost == [0, 0, 0]
    assert sentiment.shapley(value) == pytest.approx(dict.fromkeys(players, 1 / 3))
