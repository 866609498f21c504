"""Right answers of several styles pass; wrong ones are refused, many by name."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_refused, assert_right, assert_told, each_answer, each_mistake

from mmcourse import losses, metrics
from mmcourse.dual_encoder import zero_shot_classifier
from mmcourse.exercises.contrastive_learning import EXERCISES, QUESTIONS

# --- right answers ----------------------------------------------------------------


def triplet_as_in_the_solution(scores, margin):
    right = scores.diagonal()
    wrong = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -torch.inf)
    rows = (margin + wrong.amax(dim=1) - right).clamp(min=0)
    columns = (margin + wrong.amax(dim=0) - right).clamp(min=0)
    return (rows + columns).mean()


def triplet_by_loop(scores, margin):
    n, total = len(scores), 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        total += max(0.0, margin + max(scores[i, j] for j in others) - scores[i, i])
        total += max(0.0, margin + max(scores[j, i] for j in others) - scores[i, i])
    return total / n


def triplet_by_clamping_first(scores, margin):
    right = scores.diag()
    rows = F.relu(margin + scores - right[:, None]).fill_diagonal_(0)
    columns = F.relu(margin + scores - right[None, :]).fill_diagonal_(0)
    return rows.max(dim=1).values.mean() + columns.max(dim=0).values.mean()


def triplet_by_package(scores, margin):
    eye = torch.eye(len(scores))  # a_i . b_j = s_ij with a = S, b = I, unnormalised
    unchecked = getattr(losses.triplet, "__wrapped__", losses.triplet)
    checks, losses.check_pairs = losses.check_pairs, lambda *args: None
    try:
        return unchecked(scores, eye, margin)
    finally:
        losses.check_pairs = checks


def nt_as_in_the_solution(a, b, temperature):
    views = torch.cat([a, b])
    scores = views @ views.T / temperature
    scores = scores.masked_fill(torch.eye(len(views), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(views)).roll(len(a)))


def nt_by_loop(a, b, temperature):
    n, views = len(a), [*a, *b]
    total = 0.0
    for i in range(2 * n):
        e = [math.exp(float(views[i] @ v) / temperature) for v in views]
        total -= math.log(e[(i + n) % (2 * n)] / (sum(e) - e[i]))
    return total / (2 * n)


def nt_by_package(a, b, temperature):
    return losses.nt_xent(a, b, 1 / temperature)


def nt_in_numpy(a, b, temperature):
    views = np.concatenate([a.numpy(), b.numpy()])
    e = np.exp(views @ views.T / temperature)
    np.fill_diagonal(e, 0)
    other = np.roll(np.arange(len(views)), len(a))
    return -np.log(e[np.arange(len(views)), other] / e.sum(axis=1)).mean()


def targets_as_in_the_solution(ids):
    same = (ids[:, None] == ids[None, :]).float()
    return same / same.sum(dim=1, keepdim=True)


def targets_by_loop(ids):
    rows = [[float(i == j) for j in ids.tolist()] for i in ids.tolist()]
    return torch.tensor([[v / sum(row) for v in row] for row in rows])


def targets_by_softmax(ids):
    return torch.where(ids[:, None] == ids, 0.0, -torch.inf).softmax(dim=1)


def targets_by_normalize(ids):
    return F.normalize(ids.eq(ids[:, None]).float(), p=1, dim=1)


def uniform_as_in_the_solution(x, t):
    return (-t * F.pdist(x).square()).exp().mean().log()


def uniform_by_cosines(x, t):
    n = len(x)
    e = torch.exp(-t * (2 - 2 * x @ x.T)).fill_diagonal_(0)
    return torch.log(e.sum() / (n * (n - 1)))


def uniform_by_loop(x, t):
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    e = [math.exp(-t * float((x[i] - x[j]).square().sum())) for i, j in pairs]
    return math.log(sum(e) / len(e))


def uniform_by_package(x, t):
    return metrics.uniformity(x, t)


def shot_as_in_the_solution(pictures, prompts):
    classes = F.normalize(prompts, dim=-1).mean(dim=1)
    return pictures @ F.normalize(classes, dim=-1).T


def shot_by_loop(pictures, prompts):
    classes = []
    for texts in prompts:
        total = sum(text / text.norm() for text in texts)
        classes.append(total / total.norm())
    return torch.stack([torch.stack([p @ c for c in classes]) for p in pictures])


def shot_by_sum(pictures, prompts):
    classes = F.normalize(F.normalize(prompts, dim=2).sum(dim=1), dim=1)
    return torch.einsum("be,ce->bc", pictures, classes)


def shot_by_package(pictures, prompts):
    texts = iter(prompts.flatten(0, 1))
    names = [str(c) for c in range(len(prompts))]
    templates = ["{}" + "!" * t for t in range(prompts.shape[1])]
    rows = zero_shot_classifier(
        lambda asked: torch.stack([next(texts) for _ in asked]), names, templates
    )
    return pictures @ rows.T


RIGHT = {
    "hardest_triplet": [
        triplet_as_in_the_solution,
        triplet_by_loop,
        triplet_by_clamping_first,
        triplet_by_package,
    ],
    "nt_xent": [nt_as_in_the_solution, nt_by_loop, nt_by_package, nt_in_numpy],
    "partner_targets": [
        targets_as_in_the_solution,
        targets_by_loop,
        targets_by_softmax,
        targets_by_normalize,
    ],
    "evenness": [
        uniform_as_in_the_solution,
        uniform_by_cosines,
        uniform_by_loop,
        uniform_by_package,
    ],
    "zero_shot": [
        shot_as_in_the_solution,
        shot_by_loop,
        shot_by_sum,
        shot_by_package,
    ],
}


@each_answer(RIGHT)
def test_right_answers_pass(id, answer):
    assert_right(id, answer)


def test_each_exercise_has_answers_and_mistakes():
    assert [e.id for e in EXERCISES] == list(RIGHT) == list(MISTAKES)
    assert len(QUESTIONS) == 3


# --- wrong answers, written as a learner would ------------------------------------


def hinge(rows_and_columns):
    """Average what a function of the scores and the right ones makes of each way."""

    def loss(scores, margin):
        ways = [rows_and_columns(s, s.diag(), margin) for s in (scores, scores.T)]
        return sum(ways) / len(scores)

    return loss


def others(scores):
    """Return the scores of the wrong pairs, (B, B - 1)."""
    off = ~torch.eye(len(scores), dtype=torch.bool)
    return scores[off].view(len(scores), -1)


TRIPLETS = {
    "beats itself": hinge(lambda s, r, m: F.relu(m + s.max(1).values - r).sum()),
    "you put 0 in the place": hinge(
        lambda s, r, m: F.relu(m + (s - s.diag().diag()).max(1).values - r).sum()
    ),
    "only the rows are asked": lambda s, m: F.relu(
        m + others(s).max(1).values - s.diag()
    ).mean(),
    "you add up all negatives": hinge(
        lambda s, r, m: F.relu(m + others(s) - r[:, None]).sum()
    ),
    "you average over all negatives": hinge(
        lambda s, r, m: F.relu(m + others(s) - r[:, None]).mean(1).sum()
    ),
    "cut at 0": hinge(lambda s, r, m: (m + others(s).max(1).values - r).sum()),
    "turned round": hinge(
        lambda s, r, m: F.relu(r - others(s).max(1).values + m).sum()
    ),
    "the margin is subtracted": hinge(
        lambda s, r, m: F.relu(others(s).max(1).values - r - m).sum()
    ),
    "the margin is not used": hinge(
        lambda s, r, m: F.relu(others(s).max(1).values - r).sum()
    ),
    "the mean of both directions": hinge(
        lambda s, r, m: F.relu(m + others(s).max(1).values - r).sum() / 2
    ),
    "divide by B": hinge(
        lambda s, r, m: F.relu(m + others(s).max(1).values - r).sum() * len(s)
    ),
    "the easiest negative": hinge(
        lambda s, r, m: F.relu(m + others(s).min(1).values - r).sum()
    ),
}


def log_p(a, b, temperature, scale=None):
    """Return log softmax over all views but the view itself, (2B, 2B)."""
    x = torch.vstack([a, b])
    s = x @ x.T * (1 / temperature if scale is None else scale)
    return s.fill_diagonal_(-math.inf).log_softmax(1)


def pick(matrix, n):
    """Return the entries of each view with its other view."""
    return torch.cat([matrix.diagonal(n), matrix.diagonal(-n)])


def plain(a, b, t):
    x = torch.vstack([a, b])
    return x @ x.T / t


def right_left_out(a, b, t):
    n, s = len(a), plain(a, b, t)
    e = s.exp().fill_diagonal_(0)
    right = pick(s, n)
    return (e.sum(1) - right.exp()).log().sub(right).mean()


NT = {
    "compared with itself": lambda a, b, t: (
        -pick(plain(a, b, t).log_softmax(1), len(a)).mean()
    ),
    "asked to find itself": lambda a, b, t: (
        -(plain(a, b, t).log_softmax(1).diag().mean())
    ),
    "you put 0 on the diagonal": lambda a, b, t: (
        -pick(plain(a, b, t).fill_diagonal_(0).log_softmax(1), len(a)).mean()
    ),
    "you multiply by the temperature": lambda a, b, t: (
        -pick(log_p(a, b, t, scale=t), len(a)).mean()
    ),
    "the temperature is not used": lambda a, b, t: (
        -pick(log_p(a, b, t, scale=1.0), len(a)).mean()
    ),
    "only the first views are asked": lambda a, b, t: (
        -(log_p(a, b, t).diagonal(len(a)).mean())
    ),
    "as in CLIP": lambda a, b, t: losses.info_nce(a, b, 1 / t),
    "only one way": lambda a, b, t: -((a @ b.T / t).log_softmax(1).diag().mean()),
    "the right answer is missing": right_left_out,
    "you add up over the 2B views": lambda a, b, t: -pick(log_p(a, b, t), len(a)).sum(),
    "you divide the sum by B": lambda a, b, t: (
        -pick(log_p(a, b, t), len(a)).sum() / len(a)
    ),
    "the sign is wrong": lambda a, b, t: pick(log_p(a, b, t), len(a)).mean(),
}


def shared(ids):
    return torch.stack([ids == i for i in ids]).float()


TARGETS = {
    "`ids` is not used": lambda ids: torch.eye(len(ids)),
    "these are ones for partners": shared,
    "you divide by B": lambda ids: shared(ids) / len(ids),
    "no partner of itself": lambda ids: F.normalize(
        shared(ids).fill_diagonal_(0), p=1, dim=1
    ),
    "a share, too": lambda ids: torch.softmax(shared(ids), -1),
    "turned round": lambda ids: F.normalize(1 - shared(ids), p=1, dim=1),
    "all entries together": lambda ids: shared(ids) / shared(ids).sum(),
}


def spread(change):
    """Return log mean e^(...) of what ``change`` makes of squared distances and t."""
    return lambda x, t: change(F.pdist(x).square(), t)


UNIFORM = {
    "compared with itself as well": lambda x, t: (
        torch.cdist(x, x).square().mul(-t).exp().mean().log()
    ),
    "not squared": lambda x, t: (-t * F.pdist(x)).exp().mean().log(),
    "the logarithm is missing": spread(lambda d, t: (-t * d).exp().mean()),
    "you average the logarithms": spread(lambda d, t: (-t * d).exp().log().mean()),
    "the sign is wrong": spread(lambda d, t: (d * t).exp().mean().log()),
    "t is not used": spread(lambda d, t: (-d).exp().mean().log()),
    "you divide by t": spread(lambda d, t: (-d / t).exp().mean().log()),
    "you add up": lambda x, t: (
        (-t * torch.cdist(x, x).square()).exp().fill_diagonal_(0).sum().log()
    ),
    "1 - cosine": lambda x, t: (
        torch.exp(-t * (1 - x @ x.T)).fill_diagonal_(0).sum().log()
        - math.log(len(x) * (len(x) - 1))
    ),
    "lower is better": spread(lambda d, t: -(-t * d).exp().mean().log()),
}


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


SHOTS = {
    "is not normalised again": lambda x, p: torch.einsum(
        "be,cte->bct", x, unit(p)
    ).mean(-1),
    "the longest has the most": lambda x, p: x @ unit(p.sum(1)).T,
    "nothing is normalised": lambda x, p: x @ p.mean(1).T,
    "each class's best prompt": lambda x, p: torch.stack(
        [(x @ unit(c).T).max(dim=1).values for c in p], dim=1
    ),
    "only the first prompt": lambda x, p: x @ unit(p[:, 0]).T,
    "classes in rows": lambda x, p: unit(unit(p).mean(1)) @ x.T,
    "these are probabilities": lambda x, p: F.softmax(x @ unit(unit(p).mean(1)).T, 1),
    "the chosen classes": lambda x, p: (x @ unit(unit(p).mean(1)).T).max(1).indices,
}

MISTAKES = {
    "hardest_triplet": TRIPLETS,
    "nt_xent": NT,
    "partner_targets": TARGETS,
    "evenness": UNIFORM,
    "zero_shot": SHOTS,
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
    assert right["loss-at-chance"] == "nothing was learnt"
    assert right["only-positives"] == "all embeddings move to one point"
    assert right["low-temperature"] == "for the few that score highest"


def test_the_numbers_that_the_questions_name():
    assert round(math.log(128), 2) == 4.85 and round(math.log(64), 2) == 4.16
    assert round(math.exp(0.1 / 0.1), 1) == 2.7
    assert round(math.exp(0.1 / 0.01), -3) == 22_000


def test_where_one_side_repeats_ids_change_nothing():
    """Why the notebook lets both sides vary: exact copies leave the loss as it is."""
    torch.manual_seed(0)
    ids = torch.tensor([0, 0, 1, 2, 2, 2])
    a = F.normalize(torch.randn(6, 5), dim=1).requires_grad_()
    b = F.normalize(torch.randn(3, 5), dim=1)[ids]
    plain, shared = (losses.info_nce(a, b, 9.0, given) for given in (None, ids))
    torch.testing.assert_close(plain, shared)
    both = [torch.autograd.grad(loss, a)[0] for loss in (plain, shared)]
    torch.testing.assert_close(*both)
