"""Right answers of several styles pass; wrong ones are refused, many by name."""

import numpy as np
import pytest
import torch
from answers import assert_refused, assert_right, assert_told, each_answer, each_mistake

from mmcourse.exercises.retrieval import EXERCISES, QUESTIONS
from mmcourse.metrics import mean_average_precision

# --- right answers ----------------------------------------------------------------


def precision_as_in_the_solution(scores, relevant):
    hit = relevant[scores.argsort(descending=True)].float()
    precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
    return (precision * hit).sum() / hit.sum()


def precision_by_loop(scores, relevant):
    order = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
    found, total = 0, 0.0
    for place, i in enumerate(order, 1):
        if relevant[i]:
            found += 1
            total += found / place
    return total / found


def precision_by_package(scores, relevant):
    return mean_average_precision(scores[None], relevant[None])


def precision_by_counting(scores, relevant):
    own = scores[relevant]
    places = [(scores >= s).sum() for s in own]
    found = [(own >= s).sum() for s in own]
    return np.mean([int(f) / int(p) for f, p in zip(found, places, strict=True)])


def hubs_as_in_the_solution(scores, bank, k):
    return scores - bank.topk(k, dim=0).values.mean(dim=0) / 2


def hubs_by_sorting(scores, bank, k):
    return scores - 0.5 * bank.sort(dim=0, descending=True).values[:k].mean(0)


def hubs_by_loop(scores, bank, k):
    out = scores.clone()
    for j in range(scores.shape[1]):
        out[:, j] -= sum(sorted(bank[:, j].tolist())[-k:]) / k / 2
    return out


def lists_as_in_the_solution(query, rows, centres, lists, probe):
    nearest = (centres @ query).topk(probe).indices
    candidates = torch.isin(lists, nearest).nonzero()[:, 0]
    return candidates[(rows[candidates] @ query).argmax()]


def lists_by_masking(query, rows, centres, lists, probe):
    visited = set((centres @ query).argsort(descending=True)[:probe].tolist())
    seen = torch.tensor([int(i) in visited for i in lists])
    return int((rows @ query).masked_fill(~seen, -torch.inf).argmax())


def lists_by_loop(query, rows, centres, lists, probe):
    near = sorted(range(len(centres)), key=lambda i: -float(centres[i] @ query))[:probe]
    at = [i for i in range(len(rows)) if lists[i] in near]
    return max(at, key=lambda i: float(rows[i] @ query))


def codes_as_in_the_solution(query, codes, centres):
    table = torch.einsum("md,mkd->mk", query.view(len(centres), -1), centres)
    return table[torch.arange(len(centres)), codes].sum(dim=1)


def codes_by_decoding(query, codes, centres):
    rows = [torch.cat([centres[m, c] for m, c in enumerate(code)]) for code in codes]
    return torch.stack(rows) @ query


def codes_by_gathering(query, codes, centres):
    table = (centres * query.view(len(centres), 1, -1)).sum(-1)
    return table.gather(1, codes.T).sum(0)


RIGHT = {
    "average_precision": [
        precision_as_in_the_solution,
        precision_by_loop,
        precision_by_package,
        precision_by_counting,
    ],
    "without_hubs": [hubs_as_in_the_solution, hubs_by_sorting, hubs_by_loop],
    "visit_lists": [lists_as_in_the_solution, lists_by_masking, lists_by_loop],
    "score_codes": [codes_as_in_the_solution, codes_by_decoding, codes_by_gathering],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    for exercise in EXERCISES:
        told = " | ".join(exercise.mistakes)
        assert len(MISTAKES[exercise.id]) == len(exercise.mistakes)
        assert all(said in told for said in MISTAKES[exercise.id])


# --- wrong answers, written as a learner would ------------------------------------


def by_place(change):
    """Return what ``change(found so far, places, hits)`` makes of a ranking."""

    def answer(scores, relevant):
        hits = relevant[torch.sort(scores, descending=True).indices].double()
        places = torch.arange(1, len(hits) + 1).double()
        return change(hits.cumsum(0), places, hits).float()

    return answer


PRECISIONS = {
    "over all places": by_place(lambda f, p, h: (f / p).mean()),
    "by the number of items": by_place(lambda f, p, h: (f / p * h).sum() / len(h)),
    "MRR's part": by_place(lambda f, p, h: 1 / p[h.bool()][0]),
    "reciprocal places": by_place(lambda f, p, h: (1 / p)[h.bool()].mean()),
    "the wrong way round": lambda s, r: precision_as_in_the_solution(-s, r),
    "at the last relevant item": by_place(lambda f, p, h: (f / p)[h.bool()][-1]),
    "counted from 0": by_place(
        lambda f, p, h: (f / (p - 1).clamp(min=1))[h.bool()].mean()
    ),
    "not sorted": lambda s, r: precision_as_in_the_solution(-torch.arange(len(s)), r),
    "you add up": by_place(lambda f, p, h: (f / p)[h.bool()].sum()),
}


def best(bank, k):
    return torch.stack([c.sort(descending=True).values[:k].mean() for c in bank.T])


HUBS = {
    "over all queries of the bank": lambda s, b, k: s - b.mean(0) * 0.5,
    "not halved": lambda s, b, k: s - best(b, k),
    "popularity is added": lambda s, b, k: s + best(b, k) / 2,
    "its rows": lambda s, b, k: s - best(b.T, k).mean() / 2,
    "only each item's best": lambda s, b, k: s - b.max(0).values / 2,
    "the k lowest": lambda s, b, k: s + best(-b, k) / 2,
    "you add up the k best": lambda s, b, k: s - k * best(b, k) / 2,
    "on the queries themselves": lambda s, b, k: s - best(s, k) / 2,
}


def visiting(choose):
    """Return the best row of the lists that ``choose(query, centres, n)`` names."""

    def answer(query, rows, centres, lists, probe):
        chosen = choose(query, centres, probe)
        seen = (lists[:, None] == chosen[None]).any(1)
        return (rows @ query).masked_fill(~seen, -9.0).argmax()

    return answer


def near(query, centres, probe):
    return torch.sort(centres @ query, descending=True).indices[:probe]


def in_lists(query, rows, centres, lists, probe):
    return (lists[:, None] == near(query, centres, probe)).any(1)


LISTS = {
    "the place among the candidates": lambda q, r, c, x, n: (
        r[in_lists(q, r, c, x, n)] @ q
    ).argmax(),
    "every row is compared": lambda q, r, c, x, n: (r @ q).argmax(),
    "count as 0": lambda q, r, c, x, n: torch.where(
        torch.isin(x, near(q, c, n)), r @ q, 0.0
    ).argmax(),
    "only one list": visiting(lambda q, c, n: near(q, c, 1)),
    "farthest": visiting(lambda q, c, n: near(-q, c, n)),
    "the first lists": visiting(lambda q, c, n: torch.arange(n)),
    "the worst candidate": lambda q, r, c, x, n: (
        (r @ q).masked_fill(~in_lists(q, r, c, x, n), 9.0).argmin()
    ),
    "you return the list": lambda q, r, c, x, n: x[visiting(near)(q, r, c, x, n)],
    "you return the cosine": lambda q, r, c, x, n: (r @ q)[
        in_lists(q, r, c, x, n)
    ].max(),
}


def parts(q, c):
    return q.reshape(c.shape[0], c.shape[2])


def looked_up(q, codes, c):
    return torch.stack(
        [(c[m, codes[:, m]] @ parts(q, c)[m]) for m in range(len(c))], dim=1
    )


CODES = {
    "the first part's centres": lambda q, codes, c: looked_up(
        q, codes, torch.stack([c[0]] * len(c))
    ).sum(1),
    "turn and turn about": lambda q, codes, c: sum(
        c[m, codes[:, m]] @ q[m :: len(c)] for m in range(len(c))
    ),
    "you average over the parts": lambda q, codes, c: looked_up(q, codes, c).mean(1),
    "squared distances": lambda q, codes, c: torch.stack(
        [
            sum((c[m, code[m]] - parts(q, c)[m]).square().sum() for m in range(len(c)))
            for code in codes
        ]
    ),
    "only the first part": lambda q, codes, c: looked_up(q, codes, c)[:, 0],
    "the scores of each part": looked_up,
}

MISTAKES = {
    "average_precision": PRECISIONS,
    "without_hubs": HUBS,
    "visit_lists": LISTS,
    "score_codes": CODES,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_an_answer_that_is_nearly_right_is_refused(exercise):
    assert_refused(exercise, lambda due: due + 1e-3, lambda due: due[None])


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert right["which-way-is-harder"] == "they are equal"
    assert right["rerank-recall"] == "R@10"
    assert right["half-the-lists"] == "1 %"


def test_the_numbers_that_the_questions_name():
    assert 2 / 526 == 1 / 263
    rows = round(8 * 1_000_000 / 1024) + 1
    assert rows == 7_813 and rows + 1024 == 8_837
    assert round(1_000_000 / 1024) == 977
