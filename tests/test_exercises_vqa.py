"""Right answers of several styles pass; wrong ones are refused, many by name."""

import random
from collections import Counter, defaultdict
from itertools import combinations, groupby
from statistics import mode

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

from mmcourse import datasets, scenes
from mmcourse.exercises import engine
from mmcourse.exercises.vqa import AND_TIES, EXERCISES, FAULTS, QUESTIONS
from mmcourse.metrics import vqa_accuracy

# --- right answers ----------------------------------------------------------------


def blind_as_in_the_solution(train, asked):
    own, every = {}, Counter()
    for question, answer in train:
        own.setdefault(question, Counter())[answer] += 1
        every[answer] += 1
    counts = [own.get(question, every) for question in asked]
    return [max(sorted(c), key=c.get) for c in counts]


def blind_by_mode(train, asked):
    own = defaultdict(list)
    for question, answer in sorted(train):
        own[question].append(answer)
    return [mode(own.get(q) or sorted(a for _, a in train)) for q in asked]


def blind_by_sorting(train, asked):
    out = []
    for question in asked:
        given = [a for q, a in train if q == question] or [a for _, a in train]
        ranked = sorted(Counter(given).items(), key=lambda pair: (-pair[1], pair[0]))
        out.append(ranked[0][0])
    return out


def blind_by_numpy(train, asked):
    questions, answers = np.array(train).T

    def most(given):
        names, counts = np.unique(given, return_counts=True)
        return str(names[counts.argmax()])

    every = most(answers)
    own = {q: most(answers[questions == q]) for q in set(asked) & {*questions}}
    return [own.get(q, every) for q in asked]


def bags_as_in_the_solution(tokens, mask, vocab):
    words = F.one_hot(tokens, vocab) * mask[..., None]
    return words.sum(dim=1).float()


def bags_by_bincount(tokens, mask, vocab):
    rows = zip(tokens, mask, strict=True)
    return torch.stack([row[m].bincount(minlength=vocab).float() for row, m in rows])


def bags_by_scattering(tokens, mask, vocab):
    counts = torch.zeros(len(tokens), vocab)
    return counts.scatter_add(1, tokens, mask.float())


def bags_by_loop(tokens, mask, vocab):
    counts = np.zeros((len(tokens), vocab))
    for b, row in enumerate(tokens.tolist()):
        for word, real in zip(row, mask[b].tolist(), strict=True):
            counts[b, word] += real
    return counts


def bags_by_comparing(tokens, mask, vocab):
    shown = tokens.masked_fill(~mask, -1)
    return torch.stack([(shown == v).sum(1) for v in range(vocab)], dim=1).double()


def accuracy_as_in_the_solution(answer, humans):
    subsets = [humans[:i] + humans[i + 1 :] for i in range(len(humans))]
    return sum(min(s.count(answer) / 3, 1) for s in subsets) / len(humans)


def accuracy_by_combinations(answer, humans):
    return np.mean([min(1, s.count(answer) / 3) for s in combinations(humans, 9)])


def accuracy_by_removing(answer, humans):
    total = 0
    for human in humans:
        others = humans.copy()
        others.remove(human)
        total += min(others.count(answer), 3)
    return total / 30


def accuracy_by_subtracting(answer, humans):
    same = torch.tensor([human == answer for human in humans]).float()
    return ((same.sum() - same) / 3).clamp(max=1).mean()


def accuracy_in_closed_form(answer, humans):
    return min(0.3 * humans.count(answer), 1)


def accuracy_by_package(answer, humans):
    return vqa_accuracy([answer], [humans])[0]


def consistent_as_in_the_solution(right, group):
    every = [right[group == g].all() for g in group.unique()]
    return torch.stack(every).float().mean()


def consistent_by_dict(right, group):
    good = {}
    for r, g in zip(right.tolist(), group.tolist(), strict=True):
        good[g] = good.get(g, True) and r
    return sum(good.values()) / len(good)


def consistent_by_sets(right, group):
    return 1 - len({*group[~right].tolist()}) / len({*group.tolist()})


def consistent_by_sorting(right, group):
    pairs = sorted(zip(group.tolist(), right.tolist(), strict=True))
    runs = [[r for _, r in run] for _, run in groupby(pairs, key=lambda pair: pair[0])]
    return np.mean([all(run) for run in runs])


def consistent_by_scattering(right, group):
    _, place = group.unique(return_inverse=True)
    least = torch.ones(int(place.max()) + 1)
    return least.scatter_reduce(0, place, right.float(), "amin").mean()


RIGHT = {
    "blind_answers": [
        blind_as_in_the_solution,
        blind_by_mode,
        blind_by_sorting,
        blind_by_numpy,
    ],
    "bag_of_words": [
        bags_as_in_the_solution,
        bags_by_bincount,
        bags_by_scattering,
        bags_by_loop,
        bags_by_comparing,
    ],
    "challenge_accuracy": [
        accuracy_as_in_the_solution,
        accuracy_by_combinations,
        accuracy_by_removing,
        accuracy_by_subtracting,
        accuracy_in_closed_form,
        accuracy_by_package,
    ],
    "consistent": [
        consistent_as_in_the_solution,
        consistent_by_dict,
        consistent_by_sets,
        consistent_by_sorting,
        consistent_by_scattering,
    ],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    assert [e.points for e in EXERCISES] == [2, 1, 2, 1]
    for exercise in EXERCISES:
        told = [*exercise.mistakes]
        assert len(MISTAKES[exercise.id]) == len(told)
        for said in MISTAKES[exercise.id]:  # each names one message and no other
            assert said in told or sum(said in message for message in told) == 1, said


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_fixed_inputs_alone_tell_all_mistakes_apart(exercise):
    assert_told_apart(exercise)


# --- the inputs are such that a mistake can be made in one way only ---------------

BLIND, BAGS, ACCURACY, CONSISTENT = EXERCISES


def drawn(exercise):
    return [a for _ in range(20) for a in exercise.arguments()]


def test_the_rarest_answer_is_never_tied():
    for train, asked in drawn(BLIND):
        for given in [train, *([p for p in train if p[0] == q] for q in asked)]:
            counts = sorted(Counter(a for _, a in given).values())
            assert len(counts) < 2 or counts[0] < counts[1]


def test_questions_are_asked_twice_and_some_are_unknown_and_answers_tied():
    ties = 0
    for train, asked in drawn(BLIND)[len(BLIND.fixed) :]:
        known = {q for q, _ in train}
        assert {*asked} - known and {*asked} & known
        for question in known:
            counts = Counter(a for q, a in train if q == question)
            ties += [*counts.values()].count(max(counts.values())) > 1
    assert ties > 100


def test_padding_holds_words_and_the_word_0_is_real():
    padded, real = Counter(), Counter()
    for tokens, mask, vocab in drawn(BAGS):
        assert len({*tokens.shape, vocab}) == 3 and mask.any(1).all()
        padded.update(tokens[~mask].tolist())
        real.update(tokens[mask].tolist())
    assert len(padded) > 6 and real[0] > 20


def test_the_scored_answer_shares_no_first_place_and_has_no_half():
    seen = set()
    for answer, humans in drawn(ACCURACY):
        same = humans.count(answer)
        assert len(humans) == 10 and same != 5
        counts = Counter(humans)
        best = [h for h in counts if counts[h] == max(counts.values())]
        assert best == [answer] or answer not in best
        seen.add(same)
    assert seen >= {0, 1, 2, 3, 4, 6, 10}


def test_no_group_has_just_a_half():
    for right, group in drawn(CONSISTENT):
        parts = [right[group == g].float() for g in group.unique()]
        assert all(part.mean() != 0.5 for part in parts)
        assert 1 < max(map(len, parts)) < len(right)


# --- the exercises, the package and the data --------------------------------------


def test_challenge_accuracy_is_the_one_of_the_package():
    for answer, humans in drawn(ACCURACY):
        due = float(vqa_accuracy([answer], [humans]))
        assert ACCURACY.reference(answer, humans) == pytest.approx(due)
    worth = [ACCURACY.reference("a", ["a"] * n + ["b"] * (10 - n)) for n in range(11)]
    assert worth == pytest.approx([0, 0.3, 0.6, 0.9] + [1] * 7)


def test_the_examples_worked_out_by_hand():
    assert BLIND.reference(*BLIND.fixed[0]) == ["circle", "no", "no"]
    assert BLIND.reference(*BLIND.fixed[1]) == ["a", "a", "a"]
    assert BLIND.reference(*BLIND.fixed[2]) == ["x", "x", "y", "y", "x"]
    assert BLIND.reference(*BLIND.fixed[3]) == ["h", "m", "k", "q", "h"]
    rows = [[1, 1, 2, 0, 0, 0], [0, 0, 0, 0, 3, 0]]
    assert BAGS.reference(*BAGS.fixed[0]).tolist() == rows
    accuracies = [ACCURACY.reference(*a) for a in ACCURACY.fixed]
    assert accuracies == pytest.approx([0.9, 1, 0.3, 0.6, 1, 0, 1, 1])
    shares = [float(CONSISTENT.reference(*a)) for a in CONSISTENT.fixed]
    assert shares == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 4, 1 / 2])


# --- wrong answers, written as a learner would ------------------------------------


def first_in_the_alphabet(answers):
    return min(answers, key=lambda a: (-answers.count(a), a))


def by_most_common(answers):
    return Counter(answers).most_common(1)[0][0]


def given(train, question):
    return [a for q, a in train if q == question]


def blind(own, other):
    """Return what ``own(answers)`` gives, or ``other(train)`` where there are none."""

    def answer(train, asked):
        lists = [given(train, q) for q in asked]
        return [own(answers) if answers else other(train) for answers in lists]

    return answer


def of_all(most):
    return lambda train: most([a for _, a in train])


def both(most):
    return blind(most, of_all(most))


def with_count(most):
    return lambda answers: (most(answers), Counter(answers)[most(answers)])


def votes(train, most):
    return [most(given(train, q)) for q in dict(train)]


def by_all_counts(most):
    def answer(train, asked):
        every = [a for _, a in train]
        out = []
        for question in asked:
            known = {*given(train, question)} or {*every}
            out.append(most([a for a in every if a in known]))
        return out

    return answer


def blind_mistakes(most):
    """Return answers that are mistaken, by how they break ties."""
    return {
        "gets the same answer": lambda t, asked: [of_all(most)(t)] * len(asked),
        "the last answer that train": lambda t, asked: [
            dict(t).get(q, of_all(most)(t)) for q in asked
        ],
        "the first answer that train": lambda t, asked: [
            dict(t[::-1]).get(q, of_all(most)(t)) for q in asked
        ],
        "most frequent in all of train": by_all_counts(most),
        "you give an empty answer": blind(most, lambda t: ""),
        "you leave out a question": lambda t, asked: [
            most(given(t, q)) for q in asked if given(t, q)
        ],
        "each known question vote once": blind(most, lambda t: most(votes(t, most))),
        "each answer to a question count once": blind(
            most,
            lambda t: most([a for i, (q, a) in enumerate(t) if (q, a) not in t[:i]]),
        ),
        "asked twice": lambda t, asked: both(most)(
            t, [q for i, q in enumerate(asked) if q not in asked[:i]]
        ),
        "with their counts": blind(with_count(most), of_all(with_count(most))),
        "a dict": lambda t, asked: {q: both(most)(t, [q])[0] for q in asked},
    }


def whole(said):
    """Return the message that holds ``said``."""
    return next(message for message in FAULTS if said in message)


def last_brought_up(answers):
    ranked = sorted(Counter(answers).items(), key=lambda pair: pair[1])
    return ranked[-1][0]


BLINDS = {
    "that train holds first": both(by_most_common),
    "that train brings up last": both(last_brought_up),
    "yours is the last in it": both(lambda x: max(x, key=lambda a: (x.count(a), a))),
    "for a question that train doesn't hold, too": blind(
        first_in_the_alphabet, of_all(by_most_common)
    ),
    "the rarest answer": both(lambda x: Counter(x).most_common()[-1][0]),
} | {
    whole(said) + end: answer
    for end, most in (("", first_in_the_alphabet), (AND_TIES, by_most_common))
    for said, answer in blind_mistakes(most).items()
}


def counted(tokens, mask, vocab):
    return torch.zeros(len(tokens), vocab).scatter_add(1, tokens, mask.float())


def without_adding_up(tokens, mask, vocab):
    counts = torch.zeros(len(tokens), vocab)
    for row, ids, real in zip(counts, tokens, mask, strict=True):
        row[ids[real]] += 1  # each id once, however often it is in there
    return counts


def from_the_left(tokens, mask, vocab):
    rows = zip(tokens, mask.sum(1).tolist(), strict=True)
    return torch.stack([t[:n].bincount(minlength=vocab) for t, n in rows]).float()


def each_token(tokens, mask, vocab):
    return torch.eye(vocab)[tokens] * mask.unsqueeze(-1)


BAG_MISTAKES = {
    "padding is counted": lambda t, m, v: each_token(t, m | ~m, v).sum(1),
    "inverted": lambda t, m, v: counted(t, ~m, v),
    "which words are there": without_adding_up,
    "shares of the real tokens": lambda t, m, v: counted(t, m, v) / m.sum(1)[:, None],
    "average over the places": lambda t, m, v: counted(t, m, v) / t.shape[1],
    "hidden tokens to 0": lambda t, m, v: F.one_hot(t * m, v).sum(1).float(),
    "don't count the word with id 0": lambda t, m, v: counted(t, m & (t != 0), v),
    "from the left": from_the_left,
    "these are counts of the whole batch": lambda t, m, v: (
        t[m].bincount(minlength=v).float()
    ),
    "each row has the counts of the whole batch": lambda t, m, v: torch.stack(
        [t[m].bincount(minlength=v).float()] * len(t)
    ),
    "over the questions, axis 0": lambda t, m, v: each_token(t, m, v).sum(0),
    "one-hot rows of each token": each_token,
    "questions are the columns": lambda t, m, v: counted(t, m, v).T,
}


def subsets_of(humans):
    return [[h for j, h in enumerate(humans) if j != i] for i in range(len(humans))]


def scored(score, join=np.mean, subsets=subsets_of):
    """Return join(score(how many of a subset agree)) over subsets."""
    return lambda answer, humans: join(
        [score(sum(h == answer for h in some)) for some in subsets(humans)]
    )


def third(same):
    return min(1, same / 3)


def removed_once_each(answer, humans):
    values = []
    for human in set(humans):
        others = humans.copy()
        others.remove(human)
        values.append(third(others.count(answer)))
    return sum(values) / len(values)


ACCURACIES = {
    "nobody is left out": lambda a, humans: third(humans.count(a)),
    "the share of the humans": lambda a, humans: np.mean([h == a for h in humans]),
    "be worth more than 1": scored(lambda same: same / 3),
    "more than half": lambda a, humans: humans.count(a) >= 5.5,
    "the most frequent answer": lambda a, humans: a == by_most_common(humans),
    "whether anybody": lambda a, humans: any(h == a for h in humans),
    "whether three of the ten": lambda a, humans: humans.count(a) > 2,
    "you give nothing": scored(lambda same: same > 2),
    "all who gave the same answer": scored(
        third, subsets=lambda x: [[h for h in x if h != left] for left in x]
    ),
    "each different answer once": removed_once_each,
    "only the first human": lambda a, humans: third(humans[1:].count(a)),
    "only the last human": lambda a, humans: third(humans[:9].count(a)),
    "you keep one human": lambda a, humans: humans.count(a) / 30,
    "the worst of": scored(third, min),
    "you add up": scored(third, sum),
    "by nine": scored(third, lambda values: sum(values) / 9),
    "compare whole answers": lambda a, humans: np.mean(
        [third(sum(a in h for h in some)) for some in combinations(humans, 9)]
    ),
}


def grouped(right, group):
    parts = defaultdict(list)
    for r, g in zip(right.tolist(), group.tolist(), strict=True):
        parts[g].append(r)
    return [*parts.values()]


def mean_of(score):
    """Return the mean of ``score(which are right in a group)``."""
    return lambda right, group: np.mean(
        [float(score(p)) for p in grouped(right, group)]
    )


def of_several(right, group):
    return np.mean([all(part) for part in grouped(right, group) if part[1:]])


def by_size(right, group):
    parts = grouped(right, group)
    return sum(len(part) for part in parts if all(part)) / len(right)


def good(right, group):
    return sum(all(part) for part in grouped(right, group))


def numbered_without_wrong_ones(right, group):
    least = torch.ones(int(group.max()) + 1)
    return least.scatter_reduce(0, group, right.float(), "amin").mean()


def numbered_by_counting(right, group):
    size, hits = group.bincount(), group.bincount(weights=right.double())
    return ((size > 0) & (hits == size)).double().mean()


def side_by_side(right, group):
    pairs = zip(group.tolist(), right.tolist(), strict=True)
    runs = groupby(pairs, key=lambda pair: pair[0])
    return np.mean([all(r for _, r in run) for _, run in runs])


def last_by_dict(right, group):
    values = dict(zip(group.tolist(), right.tolist(), strict=True)).values()
    return sum(values) / len(values)


SHARES = {
    "the share of the questions": lambda right, group: right.double().mean(),
    "one right wording": mean_of(any),
    "more than half": mean_of(lambda part: round(np.mean(part))),
    "average the groups' shares": mean_of(np.mean),
    "groups of one question": of_several,
    "large groups count more": by_size,
    "by the number of questions": lambda r, g: good(r, g) / len(r),
    "this is how many groups": good,
    "for a group that is all right": numbered_without_wrong_ones,
    "for a group that is wrong": numbered_by_counting,
    "all wrong, too": mean_of(lambda part: len(set(part)) == 1),
    "with something wrong": lambda r, g: len({*g[~r].tolist()}) / len({*g.tolist()}),
    "side by side": side_by_side,
    "the last wording": last_by_dict,
    "the first wording": mean_of(lambda part: part[0]),
}

MISTAKES = {
    "blind_answers": BLINDS,
    "bag_of_words": BAG_MISTAKES,
    "challenge_accuracy": ACCURACIES,
    "consistent": SHARES,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


@each_mistake({"blind_answers": BLINDS})
def test_ties_are_only_told_of_where_they_are_mistaken(id, told, answer):
    said = engine.check(id, answer).lines[-1]
    assert said.endswith(AND_TIES) == told.endswith(AND_TIES)


@pytest.mark.parametrize("exercise", EXERCISES[1:], ids=lambda e: e.id)
def test_an_answer_that_is_nearly_right_is_refused(exercise):
    assert_refused(exercise, lambda due: due + 1e-3, lambda due: [due])


def test_blind_answers_that_are_nearly_right_are_refused():
    assert_refused(BLIND, lambda due: due[::-1], lambda due: due[:-1], tuple)


@pytest.mark.parametrize("seed", range(8))
def test_ties_that_are_broken_by_luck_are_refused(seed):
    """As by ``max(set(answers), key=answers.count)``: a set has no order."""
    order = random.Random(seed).sample(range(1000), 1000)

    def lucky(answers):
        names = sorted({*answers}, key=lambda a: order[sum(a.encode()) % 1000])
        return max(names, key=answers.count)

    for most in (lucky, lambda answers: max({*answers}, key=answers.count)):
        report = engine.check("blind_answers", both(most))
        assert report.status == "incorrect", report


@pytest.mark.parametrize("nothing", [None, "", 0])
def test_who_has_no_answer_to_an_unseen_question_is_told_so(nothing):
    for most in (first_in_the_alphabet, by_most_common):
        answer = blind(most, lambda train: nothing)
        told = "doesn't hold gets an" if nothing != "" else "you give an empty answer"
        assert_told("blind_answers", told, answer)


def test_who_forgets_that_a_question_may_be_unseen_is_told_where_it_stops():
    report = engine.check("blind_answers", lambda t, asked: [dict(t)[q] for q in asked])
    assert "it stops with KeyError" in report.lines[-1]


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert [*right] == ["blind-model", "encode-once", "held-out-pairs"]
    assert right["blind-model"] == "about 67 %"
    assert right["encode-once"].startswith("late fusion")
    assert right["held-out-pairs"] == "yellow"


def test_every_answer_has_a_reply_of_its_own():
    for asked in QUESTIONS:
        replies = [*asked.answers.values()]
        assert 3 <= len(replies) == len(set(replies)) and all(replies)


def test_the_numbers_that_the_questions_name():
    easy = datasets.easy_vqa()
    part = {s: [q for row in easy[s]["questions"] for q in row] for s in easy}
    train = [(q["question"], q["answer"]) for q in part["train"]]
    asked, due = zip(*((q["question"], q["answer"]) for q in part["test"]), strict=True)
    assert len(easy["test"]) == 1000 and len(asked) == 9673
    assert len({answer for _, answer in train}) == 13

    blind = blind_as_in_the_solution(train, asked)
    right = np.array(blind) == np.array(due)
    assert round(float(right.mean()), 2) == 0.67
    most = by_most_common([answer for _, answer in train])
    assert round(due.count(most) / len(due), 2) == 0.37
    kinds = np.array([q["kind"] for q in part["test"]])
    by_kind = {kind: right[kinds == kind].mean() for kind in {*kinds.tolist()}}
    assert by_kind["colour"] < 1 / 8 + 0.01 and by_kind["shape"] < 1 / 3 + 0.02
    assert 0.24 < np.isin(kinds, ["colour", "shape"]).mean() < 0.27
    said = dict(zip(asked, blind, strict=True))
    assert said["is there a red shape?"] == "no"
    assert said["is there not a red shape?"] == "yes"


def test_the_scenes_have_the_pairs_that_the_question_names():
    assert ("blue", "triangle") in scenes.HELD_OUT
    blue = {shape for colour, shape in scenes.SEEN if colour == "blue"}
    triangles = {colour for colour, shape in scenes.SEEN if shape == "triangle"}
    assert blue == {"circle", "square"} and triangles == {"red", "green", "yellow"}
