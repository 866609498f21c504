"""Right answers of several styles pass; wrong ones are refused, many by name."""

import heapq
import math
from collections import Counter

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

from mmcourse import generation, losses, scenes
from mmcourse.exercises import engine
from mmcourse.exercises.captioning import EXERCISES, QUESTIONS
from mmcourse.text_metrics import bleu, ngrams, precisions, tokens
from mmcourse.transformer import Decoder, DecoderConfig

# --- right answers ----------------------------------------------------------------


def targets_as_in_the_solution(labels, vocab, share):
    return (1 - share) * F.one_hot(labels, vocab) + share / vocab


def targets_by_writing(labels, vocab, share):
    targets = torch.full((len(labels), vocab), share / vocab)
    targets[torch.arange(len(labels)), labels] += 1 - share
    return targets


def targets_by_mixing(labels, vocab, share):
    own = np.eye(vocab)[labels.numpy()]
    return own + share * (np.full_like(own, 1 / vocab) - own)


def targets_by_loop(labels, vocab, share):
    even = share / vocab
    return [
        [1 - share + even if v == label else even for v in range(vocab)]
        for label in labels.tolist()
    ]


def targets_by_gradient(labels, vocab, share):
    logits = torch.zeros(len(labels), vocab, requires_grad=True)
    how = {"label_smoothing": share, "reduction": "sum"}
    F.cross_entropy(logits, labels, **how).backward()
    return 1 / vocab - logits.grad


def beams_as_in_the_solution(scores, log_p):
    every = scores[:, None] + log_p
    places = every.flatten().topk(len(scores)).indices
    return torch.stack([places // log_p.shape[1], places % log_p.shape[1]], dim=1)


def beams_by_heap(scores, log_p):
    k, vocab = log_p.shape
    pairs = [(b, t) for b in range(k) for t in range(vocab)]
    return heapq.nlargest(k, pairs, lambda p: float(scores[p[0]] + log_p[p]))


def beams_by_numpy(scores, log_p):
    every = scores.numpy()[:, None] + log_p.numpy()
    best = np.argsort(-every, axis=None)[: len(scores)]
    return np.stack(np.unravel_index(best, every.shape), axis=1)


def beams_by_each_beam_first(scores, log_p):
    k = len(scores)
    own = log_p.topk(k, dim=1)  # no more than K of one beam can be among the K best
    places = (scores[:, None] + own.values).flatten().topk(k).indices
    beams = places // k
    return torch.stack([beams, own.indices[beams, places % k]], dim=1)


def beams_by_probabilities(scores, log_p):
    every = scores.exp()[:, None] * log_p.softmax(dim=1)
    places = every.view(-1).argsort(descending=True)[: len(scores)]
    return torch.stack(torch.unravel_index(places, log_p.shape), dim=1)


def precision_as_in_the_solution(words, references, n):
    def count(text):
        return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))

    found, most = count(words), Counter()
    for text in references:
        most |= count(text)
    return (found & most).total() / found.total() if found else 0.0


def precision_by_striking_out(words, references, n):
    right, runs = 0, [words[i : i + n] for i in range(len(words) - n + 1)]
    left = [[t[i : i + n] for i in range(len(t) - n + 1)] for t in references]
    for run in runs:
        right += any(run in some for some in left)
        for some in left:
            if run in some:
                some.remove(run)
    return right / max(len(runs), 1)


def precision_by_strings(words, references, n):
    def runs(text):
        return [" ".join(run) for run in zip(*(text[i:] for i in range(n)))]  # noqa: B905

    said = runs(words)
    if not said:
        return 0
    right = [
        min(said.count(g), max(runs(t).count(g) for t in references)) for g in set(said)
    ]
    return np.sum(right) / len(said)


def hallucinated_as_in_the_solution(said, there):
    wrong = sum(
        (Counter(s) - Counter(t)).total() for s, t in zip(said, there, strict=True)
    )
    total = sum(len(s) for s in said)
    return wrong / total if total > 0 else 0.0


def hallucinated_by_striking_out(said, there):
    wrong = total = 0
    for things, real in zip(said, there, strict=True):
        left = list(real)
        for thing in things:
            total += 1
            if thing in left:
                left.remove(thing)
            else:
                wrong += 1
    return wrong / max(total, 1)


def hallucinated_by_pictures_number(said, there):
    told = Counter((i, x) for i, things in enumerate(said) for x in things)
    real = Counter((i, x) for i, things in enumerate(there) for x in things)
    return 1 - (told & real).total() / told.total() if told else 0


def hallucinated_by_counting(said, there):
    flags = [
        things[: at + 1].count(thing) > real.count(thing)
        for things, real in zip(said, there, strict=True)
        for at, thing in enumerate(things)
    ]
    return torch.tensor(flags).float().mean() if flags else torch.tensor(0.0)


RIGHT = {
    "smooth_targets": [
        targets_as_in_the_solution,
        targets_by_writing,
        targets_by_mixing,
        targets_by_loop,
        targets_by_gradient,
    ],
    "keep_beams": [
        beams_as_in_the_solution,
        beams_by_heap,
        beams_by_numpy,
        beams_by_each_beam_first,
        beams_by_probabilities,
    ],
    "clipped_precision": [
        precision_as_in_the_solution,
        precision_by_striking_out,
        precision_by_strings,
    ],
    "hallucinated": [
        hallucinated_as_in_the_solution,
        hallucinated_by_striking_out,
        hallucinated_by_pictures_number,
        hallucinated_by_counting,
    ],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    assert [e.points for e in EXERCISES] == [1, 2, 2, 1]
    for exercise in EXERCISES:
        told = [*exercise.mistakes]
        assert len(MISTAKES[exercise.id]) == len(told)
        for said in MISTAKES[exercise.id]:  # each names one message and no other
            assert sum(said in message for message in told) == 1, said


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_fixed_inputs_alone_tell_all_mistakes_apart(exercise):
    assert_told_apart(exercise)


def test_no_two_continuations_are_equally_good():
    keep = EXERCISES[1]
    for scores, log_p in keep.arguments():
        every = sums(scores, log_p).flatten().sort().values
        assert every.diff().min() > 1e-5
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(log_p)))


# --- the exercises and the package ------------------------------------------------

SMOOTH, KEEP, PRECISION, _ = (exercise.reference for exercise in EXERCISES)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_smooth_targets_are_those_of_torch_and_of_the_package(share):
    logits, labels = torch.randn(6, 9), torch.randint(9, (6,))
    due = F.cross_entropy(logits, SMOOTH(labels, 9, share))
    torch.testing.assert_close(
        F.cross_entropy(logits, labels, label_smoothing=share), due
    )
    torch.testing.assert_close(losses.masked_lm(logits[None], labels[None], share), due)


def test_keep_beams_step_by_step_writes_what_the_package_does():
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(vocab=7, length=8, dim=16, depth=1, heads=2)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # so that it is less undecided
    rows, scores = torch.tensor([[3]] * 4), torch.tensor([0.0, *[-math.inf] * 3])
    with torch.no_grad():
        for _ in range(5):
            log_p = model(rows)[:, -1].log_softmax(-1)
            beam, token = KEEP(scores, log_p).T
            scores = scores[beam] + log_p[beam, token]
            rows = torch.cat([rows[beam], token[:, None]], dim=1)
    written = generation.generate(model, torch.tensor([[3]]), 5, beams=4)
    assert rows[0].tolist() == written[0].tolist()


def test_clipped_precision_is_the_one_of_bleu():
    rng, compared = np.random.default_rng(0), 0
    for _ in range(200):
        words, *references = (
            rng.choice(["a", "red", "big"], rng.integers(3, 9)).tolist()
            for _ in range(3)
        )
        shares = precisions([words], [references], 4)
        for n in range(1, 5):
            own = PRECISION(words, references, n)
            if own > 0:  # where none is right, BLEU gives credit for some of one
                assert own == pytest.approx(shares[n - 1])
                compared += 1
    assert compared > 500


def test_the_examples_worked_out_by_hand():
    smooth, beams, precision, hallucinated = EXERCISES
    row = [0.05, 0.05, 0.85, 0.05]
    assert SMOOTH(*smooth.fixed[0])[0].tolist() == pytest.approx(row)
    assert KEEP(*beams.fixed[0]).tolist() == [[1, 0], [0, 0]]
    assert KEEP(*beams.fixed[1]).tolist() == [[1, 0], [1, 1]]
    assert [PRECISION(*a) for a in precision.fixed[:2]] == [2 / 7, 4 / 6]
    assert PRECISION(*precision.fixed[-1]) == 0.0
    assert hallucinated.reference(*hallucinated.fixed[0]) == 2 / 5
    assert hallucinated.reference(*hallucinated.fixed[-1]) == 0.0


# --- wrong answers, written as a learner would ------------------------------------


def written(on_label, elsewhere):
    """Return targets with one number on the label and another one elsewhere."""

    def answer(labels, vocab, share):
        targets = torch.full((len(labels), vocab), float(elsewhere(vocab, share)))
        targets[torch.arange(len(labels)), labels] = float(on_label(vocab, share))
        return targets

    return answer


TARGETS = {
    "over the other tokens": written(lambda v, e: 1 - e, lambda v, e: e / (v - 1)),
    "rows don't sum to 1": written(lambda v, e: 1 - e, lambda v, e: e / v),
    "rows sum to more than 1": lambda labels, v, e: F.one_hot(labels, v) + e / v,
    "you spread 1 - share": written(
        lambda v, e: e + (1 - e) / v, lambda v, e: (1 - e) / v
    ),
    "the others have the rest": written(lambda v, e: e, lambda v, e: (1 - e) / (v - 1)),
    "every token gets all of": lambda labels, v, e: F.one_hot(labels, v) * (1 - e) + e,
    "each of the others gets all": written(lambda v, e: 1 - e, lambda v, e: e),
    "is lost": lambda labels, v, e: (1 - e) * torch.eye(v)[labels],
    "nothing is smoothed": lambda labels, v, e: torch.eye(v)[labels],
    "by the number of labels": lambda labels, v, e: (
        torch.eye(v)[labels] * (1 - e) + e / labels.shape[0]
    ),
    "these are logs": lambda labels, v, e: targets_by_writing(labels, v, e).log(),
    "labels are the columns": lambda labels, v, e: (
        (1 - e) * (torch.arange(v)[:, None] == labels).float() + e / v
    ),
}


def sums(scores, log_p):
    return log_p + scores.reshape(-1, 1)


def first(every, k):
    """Return the k first places of a table in order, the highest first."""
    order = torch.sort(every.reshape(-1), descending=True).indices[:k]
    return torch.stack(torch.unravel_index(order, every.shape), dim=-1)


def own_best(scores, log_p):
    return [(beam, int(row.argmax())) for beam, row in enumerate(log_p)]


def cut(divide):
    """Return what ``divide(places, K, V)`` makes of the best places."""

    def answer(scores, log_p):
        places = sums(scores, log_p).reshape(-1).sort(descending=True).indices
        return torch.stack(divide(places[: len(scores)], *log_p.shape), dim=-1)

    return answer


def only_the_best_beam(scores, log_p):
    beam = int(scores.argmax())
    order = log_p[beam].sort(descending=True).indices.tolist()
    return [[beam, token] for token in order[: len(scores)]]


BEAMS = {
    "its own best token: ": own_best,
    "and they are sorted": lambda s, p: sorted(
        own_best(s, p), key=lambda pair: -float(s[pair[0]] + p[pair])
    ),
    "so far is not added": lambda s, p: first(p, len(s)),
    "you multiply": lambda s, p: first(torch.einsum("k,kv->kv", s, p), len(s)),
    "probabilities are added": lambda s, p: first(sums(s.exp(), p.exp()), len(s)),
    "the worst continuations": lambda s, p: first(-sums(s, p), len(s)),
    "the best come last": lambda s, p: first(sums(s, p), len(s)).tolist()[::-1],
    "only the best beam": only_the_best_beam,
    "by the number of beams": cut(lambda x, k, v: [x // k, x % k]),
    "fractions of a beam": cut(lambda x, k, v: [x / v, x % v]),
    "the columns are turned round": cut(lambda x, k, v: [x % v, x // v]),
    "beams and tokens are the rows": lambda s, p: torch.stack(
        [*first(sums(s, p), len(s)).unbind(1)]
    ),
    "places in the flattened table": cut(lambda x, k, v: [*x]),
    "the tokens alone": lambda s, p: [t for _, t in first(sums(s, p), len(s)).tolist()],
    "these are the sums": lambda s, p: sorted(sums(s, p).reshape(-1).tolist())[::-1][
        : len(s)
    ],
}


def runs(text, n, more=0):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1 + more)]


def shared(right, total=len, more=lambda n: 0):
    """Return right(run, its number, its numbers in references), added up, / total.

    ``right`` is asked for each different run.
    """

    def answer(words, references, n):
        said = runs(words, n, more(n))
        others = [runs(text, n, more(n)) for text in references]
        each = (right(said.count(g), [o.count(g) for o in others]) for g in {*said})
        whole = total(said)
        return sum(each) / whole if whole else 0.0

    return answer


def recalled(whole):
    """Return the number of right runs / ``whole(lists of the references' runs)``."""

    def answer(words, references, n):
        said, others = runs(words, n), [runs(text, n) for text in references]
        most = {g: max(o.count(g) for o in others) for o in others for g in o}
        right = sum(min(said.count(g), k) for g, k in most.items())
        total = whole(others, most)
        return right / total if total else 0.0

    return answer


def clip(k, others):
    return min(k, max(others))


def best_text(words, references, n):
    return max(precision_as_in_the_solution(words, [text], n) for text in references)


PRECISIONS = {
    "nothing is clipped": shared(lambda k, others: k if any(others) else 0),
    "to all references together": shared(lambda k, others: min(k, sum(others))),
    "least often": shared(lambda k, others: min(k, *others)),
    "each different n-gram counts once": shared(
        lambda k, others: any(others), lambda said: len({*said})
    ),
    "each right n-gram once": shared(lambda k, others: any(others)),
    "by the n-grams of all references": recalled(
        lambda others, m: sum(map(len, others))
    ),
    "the references' larger counts": recalled(lambda others, m: sum(m.values())),
    "only the first reference": lambda w, r, n: precision_by_striking_out(w, [r[0]], n),
    "one reference for all n-grams": best_text,
    "you average over the references": lambda w, r, n: np.mean(
        [precision_by_striking_out(w, [text], n) for text in r]
    ),
    "these are words": lambda w, r, n: precision_by_striking_out(w, r, 1),
    "by the number of words": lambda w, r, n: (
        precision_by_striking_out(w, r, n) * len(runs(w, n)) / len(w)
    ),
    "the last n-gram is missing": shared(clip, more=lambda n: -1),
    "what is left at the end": shared(clip, more=lambda n: n - 1),
}


def struck(things, real):
    """Return what stays of ``things`` once each of ``real`` has struck one out."""
    left = list(things)
    for thing in real:
        if thing in left:
            left.remove(thing)
    return left


def parts(said, there, change):
    return [change(s, t) for s, t in zip(said, there, strict=True)]


def number(lists):
    return sum(len(one) for one in lists)


def over(part, whole):
    return part / whole if whole else 0.0


def wrong(said, there):
    return number(parts(said, there, struck))


def missed(said, there):
    return wrong(there, said)


def as_sets(lists):
    return [[*dict.fromkeys(one)] for one in lists]


def all_of(lists):
    return [thing for one in lists for thing in one]


HALLUCINATIONS = {
    "CHAIR_s": lambda s, t: np.mean([len(x) > 0 for x in parts(s, t, struck)]),
    "you average the captions' shares": lambda s, t: np.mean(
        parts(s, t, lambda a, b: over(len(struck(a, b)), len(a)))
    ),
    "by the things that are there": lambda s, t: over(wrong(s, t), number(t)),
    "by the number of captions": lambda s, t: wrong(s, t) / len(s),
    "that is left unsaid": lambda s, t: over(missed(s, t), number(t)),
    "you count what is left unsaid": lambda s, t: over(missed(s, t), number(s)),
    "the share that is right": lambda s, t: over(number(s) - wrong(s, t), number(s)),
    "as often as it's said": lambda s, t: over(
        sum(thing not in b for a, b in zip(s, t, strict=True) for thing in a), number(s)
    ),
    "as sets do": lambda s, t: over(wrong(as_sets(s), as_sets(t)), number(as_sets(s))),
    "a wrong thing counts once": lambda s, t: over(
        sum(parts(s, t, lambda a, b: len({*a}.difference(b)))), number(s)
    ),
    "you look in all pictures together": lambda s, t: over(
        len(struck(all_of(s), all_of(t))), number(s)
    ),
    "in any of the pictures": lambda s, t: over(
        sum(thing not in all_of(t) for thing in all_of(s)), number(s)
    ),
    "this is how many": lambda s, t: wrong(s, t),
}

MISTAKES = {
    "smooth_targets": TARGETS,
    "keep_beams": BEAMS,
    "clipped_precision": PRECISIONS,
    "hallucinated": HALLUCINATIONS,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


NUMBERS = [e for e in EXERCISES if e.id != "keep_beams"]


@pytest.mark.parametrize("exercise", NUMBERS, ids=lambda e: e.id)
def test_an_answer_that_is_nearly_right_is_refused(exercise):
    assert_refused(exercise, lambda due: due + 1e-3, lambda due: [due])


def test_beams_that_are_nearly_right_are_refused():
    keep = EXERCISES[1]
    assert_refused(keep, lambda due: due + 1, lambda due: due[:-1], torch.Tensor.float)


def test_who_forgets_that_there_may_be_nothing_is_told_where_it_stops():
    def hallucinated(said, there):
        return wrong(said, there) / number(said)

    def clipped_precision(words, references, n):
        return sum(
            1 for run in runs(words, n) if any(run in runs(t, n) for t in references)
        ) / len(runs(words, n))

    for answer in (hallucinated, clipped_precision):
        report = engine.check(answer.__name__, answer)
        assert "it stops with ZeroDivisionError" in report.lines[-1]


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert [*right] == ["best-of-metrics", "beam-width", "never-seen-pair"]
    assert right["best-of-metrics"] == "the wrong one"
    assert right["beam-width"] == "not necessarily"
    assert right["never-seen-pair"].startswith("a thing it has seen")


def test_every_answer_has_a_reply_of_its_own():
    for asked in QUESTIONS:
        replies = [*asked.answers.values()]
        assert len(replies) == len(set(replies)) == 4 and all(replies)


def test_bleu_prefers_the_caption_that_is_wrong():
    told = [["a large red circle"]]
    mistaken, right = "a large red square", "there is one big round red shape"
    assert all(quoted in QUESTIONS[0].text for quoted in (*told[0], mistaken, right))
    for n in (1, 2, 3, 4):
        assert bleu([mistaken], told, n) > 4 * bleu([right], told, n)
    true = tokens(told[0][0])
    assert (ngrams(tokens(mistaken), 1) & ngrams(true, 1)).total() == 3
    assert (ngrams(tokens(right), 1) & ngrams(true, 1)).total() == 1
    for caption in (mistaken, right):  # unsmoothed BLEU-4 is 0 for both
        assert not ngrams(tokens(caption), 4) & ngrams(true, 4)


def test_the_scenes_have_the_pairs_that_the_question_names():
    assert ("blue", "triangle") in scenes.HELD_OUT
    blue = {shape for colour, shape in scenes.SEEN if colour == "blue"}
    triangles = {colour for colour, shape in scenes.SEEN if shape == "triangle"}
    assert blue == {"circle", "square"} and triangles == {"red", "green", "yellow"}
