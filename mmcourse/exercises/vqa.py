"""Exercises and questions of 11_vqa: blind, bags of words, accuracy, consistency.

What a model gets that sees no picture, how often each word is asked with, the VQA
challenge's accuracy, and whether other words get the same answer. The fixed inputs of
each exercise alone tell all of its mistakes apart.
"""

from collections import Counter
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _near(one, other) -> bool:
    """Tell whether two tensors or numbers agree, as far as float32 can say."""
    one, other = (torch.as_tensor(x).detach().double() for x in (one, other))
    return torch.allclose(one, other, atol=1e-5)


# --- blind_answers --------------------------------------------------------------------

Train = list[tuple[str, str]]  # questions with their answers


def _most(answers: list[str]) -> str:
    """Return the most frequent answer; of equally frequent ones the alphabet's first.

    The other ways to choose, below, are mistakes.
    """
    return max(sorted(set(answers)), key=answers.count)


def _earliest(answers: list[str]) -> str:
    """Return, of equally frequent answers, the one that train holds first."""
    return max(answers, key=answers.count)


def _latest(answers: list[str]) -> str:
    """Return, of equally frequent answers, the one that train brings up last."""
    return max(reversed([*Counter(answers)]), key=answers.count)


def _from_behind(answers: list[str]) -> str:
    """Return, of equally frequent answers, the alphabet's last."""
    return max(sorted(set(answers), reverse=True), key=answers.count)


def _rarest(answers: list[str]) -> str:
    return min(sorted(set(answers)), key=answers.count)


def _every(train: Train) -> list[str]:
    return [answer for _, answer in train]


def _own(train: Train) -> dict[str, list[str]]:
    """Return the answers that train gives to each question."""
    own: dict[str, list[str]] = {}
    for question, answer in train:
        own.setdefault(question, []).append(answer)
    return own


def _blind(seen=_most, unseen=lambda train: _most(_every(train))):
    """Return what answers by ``seen(its answers)``, or else by ``unseen(train)``."""

    def answers(train: Train, asked: list[str]) -> list:
        own, other = _own(train), unseen(train)
        return [seen(own[q]) if q in own else other for q in asked]

    return answers


def _unseen(most):
    """Return what gives the most frequent answer of all to an unseen question."""
    return lambda train: most(_every(train))


def _only_known(train: Train, asked: list[str], most) -> list[str]:
    own = _own(train)
    return [most(own[q]) for q in asked if q in own]


def _by_all_of_train(most):
    """Return what chooses, of a question's answers, the most frequent one of train."""

    def answers(train: Train, asked: list[str]) -> list[str]:
        own, every = _own(train), _every(train)
        return [most([a for a in every if a in own.get(q, every)]) for q in asked]

    return answers


# Faults that come with either way to break ties: a function of that way.
FAULTS = {
    "every question gets the same answer, the most frequent one of all of train: count "
    "the answers to each question on their own": lambda most: (
        lambda train, asked: [most(_every(train)) for _ in asked]
    ),
    "you take the last answer that train gives to a question: the most frequent one": (
        lambda most: _blind(lambda answers: answers[-1], _unseen(most))
    ),
    "you take the first answer that train gives to a question: the most frequent one": (
        lambda most: _blind(lambda answers: answers[0], _unseen(most))
    ),
    "of a question's answers you take the one that is most frequent in all of train: "
    "count how often this question gets it": _by_all_of_train,
    "you give an empty answer to a question that train doesn't hold: give it the most "
    "frequent one of all of train": lambda most: _blind(most, lambda train: ""),
    "you leave out a question that train doesn't hold: give it the most frequent "
    "answer of all of train": lambda most: (
        lambda train, asked: _only_known(train, asked, most)
    ),
    "for a question that train doesn't hold you let each known question vote once: "
    "count all answers of train": lambda most: _blind(
        most, lambda train: most([most(a) for a in _own(train).values()])
    ),
    "for a question that train doesn't hold you let each answer to a question count "
    "once: count all answers of train": lambda most: _blind(
        most, lambda train: most([a for _, a in dict.fromkeys(train)])
    ),
    "you answer only once what is asked twice: one answer for each of `asked`, in its "
    "order": lambda most: (
        lambda train, asked: _blind(most, _unseen(most))(train, [*dict.fromkeys(asked)])
    ),
    "these are answers with their counts: `most_common(1)[0][0]` is the answer alone": (
        lambda most: _blind(
            lambda answers: (most(answers), answers.count(most(answers))),
            lambda train: (
                most(_every(train)),
                _every(train).count(most(_every(train))),
            ),
        )
    ),
    "this is a dict of questions: return a list, one answer for each of `asked`": (
        lambda most: (
            lambda train, asked: dict(
                zip(asked, _blind(most, _unseen(most))(train, asked), strict=True)
            )
        )
    ),
}
AND_TIES = ". And of equally frequent answers, the first in the alphabet is due"

WORDS = ("yes", "no", "red", "blue", "green", "circle", "square", "triangle", "gray")


def _pairs(question: str, answers: str) -> Train:
    return [(question, answer) for answer in answers.split()]


def _asked_input(rng: np.random.Generator) -> tuple:
    """Draw questions whose most frequent answers are often tied, the rarest never."""
    questions = [f"{form} {n}?" for form in ("is it", "what is") for n in (1, 2, 3)]
    while True:
        train = []
        for question in questions[1:]:
            counts = [(3, 2, 1), (2, 2, 1), (3, 3, 1), (2, 2, 2, 1)][rng.integers(4)]
            words = rng.permutation(WORDS)[: len(counts)].tolist()
            train += [(question, w) for w in np.repeat(words, counts).tolist()]
        train = [train[i] for i in rng.permutation(len(train))]
        least = sorted(Counter(_every(train)).values())[:2]
        if least[0] < least[1]:
            asked = [*questions, *rng.choice(questions, 3).tolist()]
            return train, [asked[i] for i in rng.permutation(len(asked))]


TWO_FORMS = [
    *_pairs("is it red?", "no yes no no yes"),
    *_pairs("what shape is it?", "square circle triangle square circle"),
]

BLIND_ANSWERS = Exercise(
    "blind_answers",
    _blind(),
    _asked_input,
    fixed=(
        # circle and square, 2 of 5 each; no 3 of 5; no 3 of 10
        (TWO_FORMS, ["what shape is it?", "is it red?", "how large is it?"]),
        (  # b, a, d and c are tied, for "1" and in all of train
            _pairs("1", "b a d c c d a b e"),
            ["1", "2", "1"],
        ),
        (  # x is the most frequent of all, but two of three questions have most often y
            [
                *_pairs("3", "z x x x x x"),
                *_pairs("1", "y y x"),
                *_pairs("2", "x y y"),
            ],
            ["3", "0", "2", "1", "0"],
        ),
        (  # m and k are tied in all of train; k is an answer to three questions
            [
                *_pairs("1", "m m m m k k z"),
                *_pairs("2", "p p k h h"),
                *_pairs("3", "k q q"),
            ],
            ["2", "1", "4", "3", "2"],
        ),
    ),
    properties={
        "a question that train doesn't hold gets an answer, too": lambda f: all(
            isinstance(answer, str) and answer for answer in f(TWO_FORMS, ["who?"])
        ),
        "the order of train does not matter": lambda f: (
            f(TWO_FORMS, ["what shape is it?", "who?"])
            == f(TWO_FORMS[::-1], ["what shape is it?", "who?"])
        ),
    },
    mistakes={
        "of equally frequent answers, the first in the alphabet is due: yours is the "
        "one that train holds first": _blind(_earliest, _unseen(_earliest)),
        "of equally frequent answers, the first in the alphabet is due: yours is the "
        "one that train brings up last": _blind(_latest, _unseen(_latest)),
        "of equally frequent answers, the first in the alphabet is due: yours is the "
        "last in it": _blind(_from_behind, _unseen(_from_behind)),
        "for a question that train doesn't hold, too, the first in the alphabet is due "
        "of equally frequent answers": _blind(_most, _unseen(_earliest)),
        "you take the rarest answer: the most frequent one": _blind(
            _rarest, _unseen(_rarest)
        ),
        **{told: fault(_most) for told, fault in FAULTS.items()},
        **{told + AND_TIES: fault(_earliest) for told, fault in FAULTS.items()},
    },
    points=2,
)

# --- bag_of_words ---------------------------------------------------------------------


def _bags(tokens: Tensor, mask: Tensor, vocab: int) -> Tensor:
    return _one_hot(tokens, mask, vocab).sum(dim=1)


def _one_hot(tokens: Tensor, mask: Tensor, vocab: int) -> Tensor:
    return (F.one_hot(tokens, vocab) * mask[..., None]).float()


def _without(bags: Tensor, id: int) -> Tensor:
    return bags * (torch.arange(bags.shape[1]) != id)


def _token_input(rng: np.random.Generator) -> tuple:
    """Draw sizes that all differ; what is padding may hold any id, and 0 is a word."""
    b, length = int(rng.integers(2, 5)), int(rng.integers(5, 8))
    vocab = int(rng.integers(8, 11))
    tokens = torch.from_numpy(rng.integers(0, vocab, (b, length)))
    real = torch.from_numpy(rng.integers(2, length, (b, 1)))
    return tokens, torch.arange(length) < real, vocab


ASKED = (
    torch.tensor([[1, 1, 2, 3], [0, 3, 3, 3], [2, 1, 0, 0]]),
    torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
)

BAG_OF_WORDS = Exercise(
    "bag_of_words",
    _bags,
    _token_input,
    fixed=(
        (  # 2 twice, 1 and 0 once; 4 three times
            torch.tensor([[2, 1, 2, 0, 3], [4, 4, 4, 0, 0]]),
            torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool(),
            6,
        ),
        (  # padding in front
            torch.tensor([[5, 3, 0, 1], [2, 2, 6, 1], [0, 6, 0, 0]]),
            torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool(),
            7,
        ),
    ),
    properties={
        "every row sums to the number of real tokens": lambda f: _near(
            f(*ASKED, 4).sum(dim=1), ASKED[1].sum(dim=1)
        ),
        "the order of the words does not matter": lambda f: _near(
            f(*ASKED, 4), f(ASKED[0].flip(1), ASKED[1].flip(1), 4)
        ),
    },
    mistakes={
        "padding is counted: only where the mask is True": lambda tokens, mask, v: (
            _bags(tokens, mask | True, v)
        ),
        "the mask is inverted: it is True where a token is real": (
            lambda tokens, mask, v: _bags(tokens, ~mask, v)
        ),
        "this is which words are there, 0 or 1: count how often (`counts[ids] += 1` "
        "adds 1 to an id that is there twice, and not 2)": (
            lambda tokens, mask, v: (_bags(tokens, mask, v) > 0).float()
        ),
        "these are shares of the real tokens: counts, so don't divide": (
            lambda tokens, mask, v: _bags(tokens, mask, v) / mask.sum(1, keepdim=True)
        ),
        "you average over the places: add up": lambda tokens, mask, v: _one_hot(
            tokens, mask, v
        ).mean(dim=1),
        "you set hidden tokens to 0, and count them as the word with id 0": (
            lambda tokens, mask, v: _bags(tokens * mask, mask | True, v)
        ),
        "you don't count the word with id 0: the mask tells padding, not the id": (
            lambda tokens, mask, v: _without(_bags(tokens, mask, v), 0)
        ),
        "you take as many tokens from the left as are real: they stand where the mask "
        "is True, which may be on the right": lambda tokens, mask, v: _bags(
            tokens, mask.sort(dim=1, descending=True).values, v
        ),
        "these are counts of the whole batch: a row of its own for each question": (
            lambda tokens, mask, v: _bags(tokens, mask, v).sum(dim=0)
        ),
        "each row has the counts of the whole batch: each question has its own": (
            lambda tokens, mask, v: (
                _bags(tokens, mask, v).sum(dim=0).expand(len(tokens), -1)
            )
        ),
        "you add up over the questions, axis 0: add up over the words, axis 1": (
            lambda tokens, mask, v: _one_hot(tokens, mask, v).sum(dim=0)
        ),
        "these are one-hot rows of each token: add up over the words, axis 1": _one_hot,
        "questions are the columns: a row for each question, a column for each id": (
            lambda tokens, mask, v: _bags(tokens, mask, v).T
        ),
    },
)

# --- challenge_accuracy ---------------------------------------------------------------


def _enough(others: list[str], answer: str) -> float:
    return min(others.count(answer) / 3, 1.0)


def _left_out(humans: list[str]) -> list[list[str]]:
    """Return the subsets that leave one human out."""
    return [humans[:i] + humans[i + 1 :] for i in range(len(humans))]


def _mean(values: list) -> float:
    return sum(values) / len(values)


def _over_subsets(score=_enough, subsets=_left_out, join=_mean):
    """Return what joins ``score(others, answer)`` of ``subsets(humans)``."""
    return lambda answer, humans: float(
        join([score(others, answer) for others in subsets(humans)])
    )


def _once_each(humans: list[str]) -> list[list[str]]:
    return [_left_out(humans)[humans.index(h)] for h in dict.fromkeys(humans)]


def _human_input(rng: np.random.Generator) -> tuple:
    """Draw ten answers: what is scored has no five, and shares no first place."""
    while True:
        answer, *others = rng.permutation(["red", "blue", "green", "gray"]).tolist()
        same = int(rng.choice([0, 1, 2, 3, 4, 6]))
        others.append(f"dark {answer}")
        humans = [answer] * same + rng.choice(others, 10 - same).tolist()
        if same != max(humans.count(other) for other in others):
            return answer, rng.permutation(humans).tolist()


def _humans(text: str) -> list[str]:
    """Return ten answers: r, g, b and y are colours, d is dark red."""
    names = {"r": "red", "g": "green", "b": "blue", "y": "yellow", "d": "dark red"}
    return [names[letter] for letter in text]


THREE = _humans("rgggbrgggr")

CHALLENGE_ACCURACY = Exercise(
    "challenge_accuracy",
    _over_subsets(),
    _human_input,
    fixed=(
        ("red", THREE),  # 3 of 10: 0.9
        ("green", THREE),  # 6 of 10: 1
        ("red", _humans("rgggbbgbgg")),  # the one who agrees comes first
        ("red", _humans("dggbbggdrr")),  # the two who agree come last
        ("red", _humans("rbrgrygrby")),  # 4, and no other answer as often
        ("yellow", THREE),  # nobody
        ("red", _humans("rrrrrrrrrr")),
        ("red", _humans("rrdgrrrrrb")),
    ),
    properties={
        "one who agrees is worth 0.3, and four are worth 1": lambda f: (
            _near(f("red", _humans("ggggrbbbbb")), 0.3)
            and _near(f("red", _humans("rgrgrbbbrb")), 1)
        ),
        "the order of the humans does not matter": lambda f: all(
            _near(f("red", THREE), f("red", THREE[i:] + THREE[:i])) for i in range(10)
        ),
    },
    mistakes={
        "nobody is left out: average over the ten subsets of nine humans": (
            lambda answer, humans: _enough(humans, answer)
        ),
        "this is the share of the humans who agree: three are enough for 1": (
            lambda answer, humans: humans.count(answer) / len(humans)
        ),
        "your subsets can be worth more than 1: take min(same / 3, 1) of each": (
            _over_subsets(lambda others, answer: others.count(answer) / 3)
        ),
        "this is whether most humans say so, more than half: three are enough for 1": (
            lambda answer, humans: float(humans.count(answer) > len(humans) / 2)
        ),
        "this is whether it is the most frequent answer: another one can be right, too "
        "(three are enough for 1)": lambda answer, humans: float(
            humans.count(answer) == max(map(humans.count, humans))
        ),
        "this is whether anybody says so: one who agrees is worth a third": (
            lambda answer, humans: float(answer in humans)
        ),
        "this is whether three of the ten agree: fewer are worth same / 3, and one is "
        "left out each time": lambda answer, humans: float(humans.count(answer) >= 3),
        "you give nothing where only one or two of a subset agree: give same / 3": (
            _over_subsets(lambda others, answer: others.count(answer) >= 3)
        ),
        "with a human you leave out all who gave the same answer: leave out one human, "
        "by place": _over_subsets(
            subsets=lambda humans: [[h for h in humans if h != one] for one in humans]
        ),
        "you leave out each different answer once: each human once": _over_subsets(
            subsets=_once_each
        ),
        "only the first human is left out: each one in turn": _over_subsets(
            subsets=lambda humans: [humans[1:]]
        ),
        "only the last human is left out: each one in turn": _over_subsets(
            subsets=lambda humans: [humans[:-1]]
        ),
        "you keep one human: leave one out, and keep nine": _over_subsets(
            subsets=lambda humans: [[one] for one in humans]
        ),
        "this is the worst of the ten subsets: their mean": _over_subsets(join=min),
        "you add up: divide by the ten subsets": _over_subsets(join=sum),
        "you divide by nine: there are ten subsets": _over_subsets(
            join=lambda values: sum(values) / (len(values) - 1)
        ),
        "'dark red' isn't 'red': compare whole answers": (
            _over_subsets(
                lambda others, answer: min(sum(answer in o for o in others) / 3, 1)
            )
        ),
    },
    points=2,
)

# --- consistent -----------------------------------------------------------------------


def _split(right: Tensor, group: Tensor) -> list[Tensor]:
    """Return which answers are right in each group, in the order of their numbers."""
    return [right[group == g] for g in group.unique()]


def _over_groups(score=lambda one: one.all(), groups=_split):
    """Return the mean over ``groups(right, group)`` of what each one scores."""

    def share(right: Tensor, group: Tensor) -> Tensor:
        scores = [float(score(one)) for one in groups(right, group)]
        return torch.tensor(scores).mean()

    return share


def _all_numbers(right: Tensor, group: Tensor) -> list[Tensor]:
    """Return a group for each number up to the highest, some of them empty."""
    return [right[group == g] for g in range(int(group.max()) + 1)]


def _neighbours(right: Tensor, group: Tensor) -> list[Tensor]:
    """Return what stands side by side in one group."""
    runs = groupby(range(len(group)), key=group.tolist().__getitem__)
    return [right[[*places]] for _, places in runs]


def _group_input(rng: np.random.Generator) -> tuple:
    """Draw groups of 1, 2, 3 and 5, mixed, some numbers left out.

    Of two, both or none are right, so that no group has just a half.
    """
    sizes = (1, 1, 2, 2, 3, 3, 5, 5)
    numbers = 1 + rng.permutation(12)[: len(sizes)]
    group = np.repeat(numbers, sizes)
    while True:
        right = [[bool(rng.integers(2))] * n for n in (1, 1, 2, 2)]
        right += [(rng.random(n) < 0.75).tolist() for n in (3, 3, 5, 5)]
        if 2 <= sum(map(all, right)) <= 6:
            break
    order = rng.permutation(len(group))
    mixed = (np.concatenate(right)[order], group[order])
    return tuple(map(torch.from_numpy, mixed))


PARTS = torch.tensor([True, True, False, True, True, True, False, True])
MIXED = torch.tensor([0, 1, 0, 2, 2, 1, 3, 2])

CONSISTENT = Exercise(
    "consistent",
    _over_groups(),
    _group_input,
    fixed=(
        (  # group 0 is all right, group 1 is not: 1 of 2
            torch.tensor([True, True, True, False, True]),
            torch.tensor([0, 0, 1, 1, 1]),
        ),
        (PARTS, torch.tensor([4, 2, 2, 4, 7, 2, 9, 7])),  # 2 is cut, 9 is wrong
        (PARTS, torch.tensor([3, 3, 5, 5, 5, 1, 1, 1])),
        (~PARTS, torch.tensor([0, 5, 2, 2, 2, 0, 7, 5])),
        (torch.tensor([True, True, False, True]), torch.tensor([6, 6, 6, 8])),
    ),
    properties={
        "where all is right, the share is 1": lambda f: _near(
            f(PARTS | True, MIXED), 1
        ),
        "the order of the questions does not matter": lambda f: _near(
            f(PARTS, MIXED), f(PARTS.flip(0), MIXED.flip(0))
        ),
        "the groups' numbers do not matter": lambda f: _near(
            f(PARTS, MIXED), f(PARTS, 9 - 2 * MIXED)
        ),
    },
    mistakes={
        "this is the share of the questions: the share of groups that are right in "
        "every wording": lambda right, group: right.float().mean(),
        "one right wording is enough for you: every wording has to be right": (
            _over_groups(lambda one: one.any())
        ),
        "more than half is enough for you: every wording has to be right": _over_groups(
            lambda one: one.float().mean() > 0.5
        ),
        "you average the groups' shares: one wrong answer makes a group 0": (
            _over_groups(lambda one: one.float().mean())
        ),
        "you leave out the groups of one question: they count, too": _over_groups(
            groups=lambda right, group: [
                one for one in _split(right, group) if len(one) > 1
            ]
        ),
        "you let large groups count more than small ones: take the share of groups, "
        "not of the questions in them": lambda right, group: _over_groups(
            groups=lambda r, g: [one for one in _split(r, g) for _ in one]
        )(right, group),
        "you divide by the number of questions: by that of the groups": (
            lambda right, group: (
                _over_groups()(right, group) * len(group.unique()) / len(group)
            )
        ),
        "this is how many groups are right: divide by the number of groups": (
            lambda right, group: _over_groups()(right, group) * len(group.unique())
        ),
        "you take a number that no question has for a group that is all right: look "
        "only at `group.unique()`": _over_groups(groups=_all_numbers),
        "you take a number that no question has for a group that is wrong: look only "
        "at `group.unique()`": _over_groups(
            lambda one: len(one) > 0 and one.all(), _all_numbers
        ),
        "you count a group that is all wrong, too: every wording has to be right": (
            _over_groups(lambda one: one.all() or not one.any())
        ),
        "this is the share of groups with something wrong: one minus it": _over_groups(
            lambda one: not one.all()
        ),
        "a group's questions needn't stand side by side: sort them first, or look for "
        "`group == g`": _over_groups(groups=_neighbours),
        "you look at the last wording of each group alone: look at every one": (
            _over_groups(lambda one: one[-1])
        ),
        "you look at the first wording of each group alone: look at every one": (
            _over_groups(lambda one: one[0])
        ),
    },
)

EXERCISES = (BLIND_ANSWERS, BAG_OF_WORDS, CHALLENGE_ACCURACY, CONSISTENT)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "blind-model",
        "A picture of easy-VQA shows one shape in one colour. Its questions have 13 "
        "answers, and the most frequent one is right for 37 % of them. How well does a "
        "model do that reads the question and never sees the picture?",
        {
            "about 37 %": "That is one answer for all questions, and a shape or a "
            "colour is asked for by a quarter of them: yes or no makes no sense there. "
            "A question's words tell more than this.",
            "about 67 %": "The words tell which answers make sense: a colour, a shape, "
            "yes or no. And with eight colours, 'is there a red shape?' is mostly no, "
            "'is there not a red shape?' mostly yes. Which colour or shape it is, a "
            "blind model can only guess. Choosing the answer that train gives to a "
            "question most often gets 67 %: this, not 37 %, is what a model has to "
            "beat before we say that it sees.",
            "about 95 %": "A quarter of the questions ask for the colour, one of 8, or "
            "for the shape, one of 3. Words alone leave little but a guess there.",
        },
        right=1,
    ),
    Question(
        "encode-once",
        "1,000 pictures, and 9,673 questions about them. Tokens that are joined attend "
        "to each other both ways. Which fusion lets each picture be encoded once, so "
        "that the large part runs 1,000 times and only a small one 9,673 times?",
        {
            "early fusion: picture and words go through all layers together": "From "
            "the first layer on, what becomes of the picture depends on the question. "
            "The whole network runs on picture and question again, 9,673 times.",
            "late fusion, or words that attend to the encoded picture": "The picture's "
            "encoder never sees a question, so what it gives can be kept for all of "
            "them. The words, and what joins the two, run 9,673 times.",
            "cross-attention in which the picture's tokens attend to the words": "This "
            "is the other direction: now the picture's tokens change with the "
            "question. Only what lies before the first such layer can be kept.",
            "any of them, if what was computed is stored": "With early fusion, what is "
            "stored belongs to one picture and one question: it only helps where that "
            "very question comes again for that very picture.",
        },
        right=1,
    ),
    Question(
        "held-out-pairs",
        "In train, triangles are red, green or yellow, and blue things are circles or "
        "squares. Now a VQA model is asked 'what colour is the triangle?', and it is a "
        "blue one. Which answer would be most worrying, since habit alone explains it?",
        {
            "blue": "This is what the picture shows, and habit speaks against it: no "
            "triangle was blue in train. A model that often says so, and only of blue "
            "ones, has looked.",
            "yellow": "Red, green and yellow are what such questions are answered with "
            "in train, so a model needn't look to say so. One such answer can be a "
            "colour misread; if they are many more than on pairs that were in train, "
            "it is a habit. So count both.",
            "circle": "In train no question for a colour has such an answer, so it is "
            "no habit: it has misread what is asked for.",
        },
        right=1,
    ),
)
