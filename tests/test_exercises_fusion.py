"""Right answers of several styles pass; wrong ones are refused, many by name."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_refused, assert_right, assert_told, each_mistake

from mmcourse.exercises import check
from mmcourse.exercises.fusion import EXERCISES, QUESTIONS
from mmcourse.fusion import Average, Product


def logits_by_name(logits):
    return {str(m): part for m, part in enumerate(logits.unbind(dim=1))}


# --- right answers ----------------------------------------------------------------


def sum_as_in_the_solution(features, scores):
    weights = scores.softmax(dim=0)
    return (weights[:, None, None] * features).sum(dim=0)


def sum_by_loop(features, scores):
    e = [math.exp(s) for s in scores.tolist()]
    return sum(w / sum(e) * x for w, x in zip(e, features, strict=True))


def sum_by_tensordot(features, scores):
    return torch.tensordot(F.softmax(scores, dim=-1), features, dims=1)


def sum_in_numpy(features, scores):
    e = np.exp(scores.numpy() - scores.numpy().max())
    return np.moveaxis(features.numpy(), 0, -1) @ (e / e.sum())


def average_as_in_the_solution(logits, present):
    p = logits.softmax(dim=-1).masked_fill(~present[..., None], 0.0)
    return p.sum(dim=1) / present.sum(dim=1, keepdim=True)


def average_by_loop(logits, present):
    rows = zip(logits, present, strict=True)
    return torch.stack([row[here].softmax(dim=-1).mean(dim=0) for row, here in rows])


def average_by_where(logits, present):
    p = torch.where(present[:, :, None], logits, torch.tensor(0.0)).softmax(dim=2)
    weights = present.float() / present.float().sum(dim=1)[:, None]
    return torch.einsum("bm,bmc->bc", weights, p)


def average_by_nanmean(logits, present):
    hidden = logits.masked_fill(~present[..., None], math.nan)
    return hidden.softmax(dim=-1).nanmean(dim=1)


def average_by_renormalising(logits, present):
    p = torch.where(present[..., None], logits.softmax(dim=-1), 0.0).sum(dim=1)
    return F.normalize(p, p=1, dim=1)


def average_by_package(logits, present):
    names = [str(m) for m in range(max(2, logits.shape[1]))]
    here = {str(m): column for m, column in enumerate(present.unbind(dim=1))}
    return Average(names, logits.shape[2])(logits_by_name(logits), here).exp()


def product_as_in_the_solution(logits, prior):
    log_p = logits.log_softmax(dim=-1).sum(dim=1)
    return (log_p - (logits.shape[1] - 1) * prior.log()).softmax(dim=-1)


def product_of_plain_logits(logits, prior):
    return (logits - prior.log()).sum(dim=1).add(prior.log()).softmax(dim=-1)


def product_by_loop(logits, prior):
    log_p = prior.log()
    for expert in logits.unbind(dim=1):
        log_p = log_p + expert.log_softmax(dim=-1) - prior.log()
    return (log_p - log_p.logsumexp(dim=-1, keepdim=True)).exp()


def product_by_package(logits, prior):
    names = [str(m) for m in range(max(2, logits.shape[1]))]
    fused = Product(names, logits.shape[2], prior)
    return fused(logits_by_name(logits)).exp()


def gate_as_in_the_solution(x, y, w_x, w_y, w_z):
    h_x, h_y = torch.tanh(x @ w_x), torch.tanh(y @ w_y)
    z = torch.sigmoid(torch.cat([x, y], dim=-1) @ w_z)
    return z * h_x + (1 - z) * h_y


def gate_by_lerp(x, y, w_x, w_y, w_z):
    z = 1 / (1 + torch.exp(-(x @ w_z[: x.shape[1]] + y @ w_z[x.shape[1] :])))
    return torch.lerp(torch.tanh(y @ w_y), torch.tanh(x @ w_x), z)


def gate_by_softmax_of_two(x, y, w_x, w_y, w_z):
    z = torch.hstack([x, y]) @ w_z
    gates = torch.stack([z, torch.zeros_like(z)]).softmax(dim=0)
    return (gates * torch.stack([(x @ w_x).tanh(), (y @ w_y).tanh()])).sum(dim=0)


def gate_in_numpy(x, y, w_x, w_y, w_z):
    x, y, w_x, w_y, w_z = (t.numpy() for t in (x, y, w_x, w_y, w_z))
    z = 1 / (1 + np.exp(-np.concatenate([x, y], axis=1) @ w_z))
    return z * np.tanh(x @ w_x) + (1 - z) * np.tanh(y @ w_y)


def low_rank_as_in_the_solution(x, y, f_x, f_y):
    by_x = F.pad(x, (1, 0), value=1.0) @ f_x
    by_y = F.pad(y, (1, 0), value=1.0) @ f_y
    return (by_x * by_y).sum(dim=0)


def low_rank_by_loop(x, y, f_x, f_y):
    one = torch.ones(len(x), 1)
    x, y = torch.cat([one, x], dim=1), torch.cat([one, y], dim=1)
    return sum((x @ u) * (y @ v) for u, v in zip(f_x, f_y, strict=True))


def low_rank_by_biases(x, y, f_x, f_y):
    by_x = f_x[:, :1] + torch.einsum("bd,rdk->rbk", x, f_x[:, 1:])
    by_y = f_y[:, :1] + torch.einsum("bd,rdk->rbk", y, f_y[:, 1:])
    return torch.einsum("rbk,rbk->bk", by_x, by_y)


def low_rank_by_the_full_tensor(x, y, f_x, f_y):
    x, y = (F.pad(t, (1, 0), value=1.0).double() for t in (x, y))
    whole = torch.einsum("rik,rjk->ijk", f_x.double(), f_y.double())
    return torch.einsum("bi,bj,ijk->bk", x, y, whole)


RIGHT = [
    ("weighted_sum", sum_as_in_the_solution),
    ("weighted_sum", sum_by_loop),
    ("weighted_sum", sum_by_tensordot),
    ("weighted_sum", sum_in_numpy),
    ("average_present", average_as_in_the_solution),
    ("average_present", average_by_loop),
    ("average_present", average_by_where),
    ("average_present", average_by_nanmean),
    ("average_present", average_by_renormalising),
    ("average_present", average_by_package),
    ("product_of_experts", product_as_in_the_solution),
    ("product_of_experts", product_of_plain_logits),
    ("product_of_experts", product_by_loop),
    ("gated_unit", gate_as_in_the_solution),
    ("gated_unit", gate_by_lerp),
    ("gated_unit", gate_by_softmax_of_two),
    ("gated_unit", gate_in_numpy),
    ("low_rank_fusion", low_rank_as_in_the_solution),
    ("low_rank_fusion", low_rank_by_loop),
    ("low_rank_fusion", low_rank_by_biases),
    ("low_rank_fusion", low_rank_by_the_full_tensor),
]


@pytest.mark.parametrize("id, answer", RIGHT)
def test_right_answers_of_other_styles_pass(id, answer):
    assert_right(id, answer)


def test_the_package_multiplies_experts_in_the_same_way():
    logits, prior = torch.randn(4, 3, 5), torch.rand(5).softmax(dim=0)
    due = product_as_in_the_solution(logits, prior)
    torch.testing.assert_close(product_by_package(logits, prior), due)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_one_item_of_one_modality_is_no_special_case(exercise):
    def random(*shape):
        return torch.randn(*shape)

    arguments = {
        "weighted_sum": (random(1, 1, 3), random(1)),
        "average_present": (random(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)),
        "product_of_experts": (random(1, 1, 3), torch.tensor([0.2, 0.3, 0.5])),
        "gated_unit": (
            *(random(1, 1), random(1, 1)),
            *(random(n, 3) for n in (1, 1, 2)),
        ),
        "low_rank_fusion": (
            random(1, 1),
            random(1, 1),
            random(1, 2, 3),
            random(1, 2, 3),
        ),
    }[exercise.id]
    got = exercise.reference(*arguments)
    assert got.shape == (1, 3) and got.isfinite().all()
    answer = next(answer for id, answer in RIGHT if id == exercise.id)
    torch.testing.assert_close(got, answer(*arguments))


def test_the_inputs_by_hand():
    due = {
        "weighted_sum": [[1.0, 3.0, 8.0]],
        "average_present": [[0.375, 0.625], [0.4375, 0.5625], [0.75, 0.25]],
        "product_of_experts": [[0.25, 0.75], [0.75, 0.25]],
        "gated_unit": [[0.75]],
        "low_rank_fusion": [[357.0]],
    }
    for exercise in EXERCISES:
        got = exercise.reference(*exercise.fixed[0])
        torch.testing.assert_close(got, torch.tensor(due[exercise.id]))
    rank_two = EXERCISES[4].reference(*EXERCISES[4].fixed[1])
    torch.testing.assert_close(rank_two, torch.tensor([[17.0, -2.0]]))


def test_some_inputs_of_the_average_hold_nan_and_some_ordinary_numbers():
    drawn = [EXERCISES[1].inputs(np.random.default_rng(seed)) for seed in range(20)]
    for logits, present in drawn:
        assert present[0].all() and present.any(dim=1).all()
        assert not present[1:].all(dim=1).any() and not logits[present].isnan().any()
    nan = [logits[~present].isnan().flatten() for logits, present in drawn]
    assert torch.cat(nan).any() and not torch.cat(nan).all()


# --- the same mistakes, as learners write them ------------------------------------


def weigh(features, weights):
    return sum(w * x for w, x in zip(weights, features, strict=True))


SUMS = {
    "by the scores themselves": lambda x, s: weigh(x, s),
    "divide the scores by their sum": lambda x, s: weigh(x, s) / sum(s),
    "e^score": lambda x, s: weigh(x, torch.exp(s)),
    "a sigmoid": lambda x, s: weigh(x, 1 / (1 + torch.exp(-s))),
    "log_softmax": lambda x, s: weigh(x, s - s.logsumexp(0)),
    "plain mean": lambda x, s: torch.mean(x, 0),
    "plain sum": lambda x, s: x.sum(0),
    "best score alone": lambda x, s: x[s.argmax()],
    "don't divide by M": lambda x, s: (s.softmax(0)[:, None, None] * x).mean(0),
    "one by one, (M, B, D)": lambda x, s: torch.einsum("m,mbd->mbd", s.softmax(0), x),
}


def row_by_row(row):
    """Apply ``row(logits (M, C), present (M,))`` to each row."""
    return lambda logits, present: torch.stack(
        [row(z, here) for z, here in zip(logits, present, strict=True)]
    )


def votes(z, here):
    return torch.stack([(one == one.max()).float() for one in z[here]]).mean(0)


def uniform_where_missing(z, here):
    p = torch.full_like(z, 1 / z.shape[1])
    p[here] = z[here].softmax(-1)
    return p.mean(0)


AVERAGES = {
    "NaN times 0": lambda z, here: torch.einsum(
        "bm,bmc->bc", here / here.sum(1, keepdim=True), torch.softmax(z, -1)
    ),
    "the softmax is 0/0": row_by_row(
        lambda z, h: z.masked_fill(~h[:, None], -math.inf).softmax(-1).sum(0) / h.sum()
    ),
    "`present` is not used": row_by_row(lambda z, h: z.softmax(-1).mean(0)),
    "leave out what is NaN": row_by_row(
        lambda z, h: z[~z.isnan().any(-1)].softmax(-1).mean(0)
    ),
    "equal probabilities": row_by_row(uniform_where_missing),
    "you divide by M": row_by_row(lambda z, h: z[h].softmax(-1).sum(0) / len(z)),
    "you add up": row_by_row(lambda z, h: z[h].softmax(-1).sum(0)),
    "a product of probabilities": row_by_row(lambda z, h: z[h].mean(0).softmax(-1)),
    "these are logits": row_by_row(lambda z, h: z[h].mean(0)),
    "over the modalities": row_by_row(lambda z, h: z[h].softmax(0).mean(0)),
    "you count votes": row_by_row(votes),
    "these are logarithms": row_by_row(lambda z, h: z[h].softmax(-1).mean(0).log()),
}


def direct(z, prior, power):
    """Multiply and divide probabilities, as the equation stands."""
    p = z.softmax(-1).prod(dim=1) / prior**power
    return p / p.sum(dim=1, keepdim=True)


PRODUCTS = {
    "the prior is not divided out": lambda z, prior: direct(z, prior, 0),
    "by the prior M times": lambda z, prior: direct(z, prior, z.shape[1]),
    "by the prior once": lambda z, prior: direct(z, prior, 1),
    "you multiply by the prior": lambda z, prior: direct(z, prior, 1 - z.shape[1]),
    "you subtract the prior": lambda z, prior: (
        z.sum(1) - prior * (z.shape[1] - 1)
    ).softmax(-1),
    "doesn't add up to 1": lambda z, prior: (
        z.softmax(-1).prod(dim=1) / prior ** (z.shape[1] - 1)
    ),
    "these are logarithms": lambda z, prior: direct(z, prior, z.shape[1] - 1).log(),
    "forgets how many": lambda z, prior: z.mean(1).softmax(-1),
    "average the logarithms before": lambda z, prior: (
        (z.mean(1).exp() / prior ** (z.shape[1] - 1)).log().softmax(-1)
    ),
    "you average the probabilities": lambda z, prior: (
        sum(z.softmax(-1).unbind(1)) / z.shape[1]
    ),
    "you multiply logits": lambda z, prior: (
        torch.prod(z, 1) - prior.log() * (z.shape[1] - 1)
    ).softmax(-1),
    "over the experts": lambda z, prior: direct(
        z - z.logsumexp(1, keepdim=True) + z.logsumexp(2, keepdim=True),
        prior,
        z.shape[1] - 1,
    ),
}


def gate(x, y, w_x, w_y, w_z):
    """Return x W_x, y W_y and [x; y] W_z, before any function."""
    return x @ w_x, y @ w_y, torch.hstack([x, y]) @ w_z


def gates(mix):
    return lambda *arguments: mix(*gate(*arguments))


def tanh_sigmoid(mix):
    return gates(lambda a, b, c: mix(torch.tanh(a), torch.tanh(b), torch.sigmoid(c)))


def joined_the_other_way(x, y, w_x, w_y, w_z):
    d = y.shape[1]
    z = torch.sigmoid(y @ w_z[:d] + x @ w_z[d:])
    return torch.tanh(x @ w_x) * z + torch.tanh(y @ w_y) * (1 - z)


GATES = {
    "is turned round": tanh_sigmoid(lambda a, b, z: a + z * (b - a)),
    "one gate z lets both": tanh_sigmoid(lambda a, b, z: z * a + z * b),
    "h_y has no gate": tanh_sigmoid(lambda a, b, z: a * z + b),
    "h_y is missing": tanh_sigmoid(lambda a, b, z: a * z),
    "the gate is not used": tanh_sigmoid(lambda a, b, z: a + b),
    "side by side": tanh_sigmoid(lambda a, b, z: torch.hstack([a * z, b - b * z])),
    "this is the gate z": tanh_sigmoid(lambda a, b, z: z),
    "you joined [y; x]": joined_the_other_way,
    "the tanh is missing": gates(lambda a, b, c: b + c.sigmoid() * (a - b)),
    "bend after mixing": gates(lambda a, b, c: (b + c.sigmoid() * (a - b)).tanh()),
    "no sigmoid": gates(lambda a, b, c: b.tanh() + c * (a.tanh() - b.tanh())),
    "a softmax over its K": gates(
        lambda a, b, c: b.tanh() + c.softmax(-1) * (a.tanh() - b.tanh())
    ),
    "changed places": gates(
        lambda a, b, c: b.sigmoid() + c.tanh() * (a.sigmoid() - b.sigmoid())
    ),
    "your gate is a tanh": gates(
        lambda a, b, c: b.tanh() + c.tanh() * (a.tanh() - b.tanh())
    ),
    "come from a sigmoid": gates(
        lambda a, b, c: b.sigmoid() + c.sigmoid() * (a.sigmoid() - b.sigmoid())
    ),
}


def ranks(mix, start_x=1, start_y=1):
    """Mix the lists of both sides by rank; ``start`` 0 leaves the ones' row out."""

    def fused(x, y, f_x, f_y):
        a = [start_x * u[0] + x @ u[1:] for u in f_x]
        b = [start_y * v[0] + y @ v[1:] for v in f_y]
        return mix(torch.stack(a), torch.stack(b))

    return fused


def ones_at_the_end(x, y, f_x, f_y):
    one = torch.ones(len(x), 1)
    a, b = torch.hstack([x, one]) @ f_x, torch.hstack([y, one]) @ f_y
    return (a * b).sum(0)


LOW_RANKS = {
    "the ones are missing": ranks(lambda a, b: (a * b).sum(0), 0, 0),
    "x has no 1": ranks(lambda a, b: (a * b).sum(0), 0, 1),
    "y has no 1": ranks(lambda a, b: (a * b).sum(0), 1, 0),
    "at the end": ones_at_the_end,
    "before multiplying": ranks(lambda a, b: sum(a) * sum(b)),
    "you add the two sides": ranks(lambda a, b: sum(a) + sum(b)),
    "average over the ranks": ranks(lambda a, b: sum(a * b) / len(a)),
    "multiply the ranks": ranks(lambda a, b: torch.prod(a, 0) * torch.prod(b, 0)),
    "only the first rank": ranks(lambda a, b: a[0] * b[0]),
    "add them up along r": ranks(lambda a, b: torch.mul(a, b)),
    "(B, R, K)": ranks(lambda a, b: torch.einsum("rbk,rbk->brk", a, b)),
}

MISTAKES = {
    "weighted_sum": SUMS,
    "average_present": AVERAGES,
    "product_of_experts": PRODUCTS,
    "gated_unit": GATES,
    "low_rank_fusion": LOW_RANKS,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_each_mistake_has_its_own_message_and_is_written_out_above(exercise):
    for told in MISTAKES[exercise.id]:
        assert len([m for m in exercise.mistakes if told in m]) == 1, told
    known = len(exercise.mistakes) - (exercise.id == "average_present")
    assert len(MISTAKES[exercise.id]) == known
    for message, mistake in exercise.mistakes.items():
        assert check(exercise.id, mistake).lines[-1] == f"  ✗ {message}"


def turned_round(logits, present):
    return average_as_in_the_solution(logits.nan_to_num(), ~present)


def test_modalities_turned_round_are_recognised():
    """A row that has everything is 0/0 then, and the others average what is missing."""
    assert "turned round" in check("average_present", turned_round).lines[-1]


def test_a_product_that_vanishes_is_told_to_add_logarithms():
    told = check("product_of_experts", lambda z, p: direct(z, p, z.shape[1] - 1))
    assert "Add logarithms" in told.lines[-1] and told.status == "incorrect"


# --- wrong, and nobody listed it --------------------------------------------------

UNLISTED = [
    ("weighted_sum", lambda x, s: weigh(x, (2 * s).softmax(0))),
    ("weighted_sum", lambda x, s: sum_as_in_the_solution(x, -s)),
    ("weighted_sum", lambda x, s: sum_as_in_the_solution(x, s).squeeze()),
    ("average_present", lambda z, h: average_as_in_the_solution(2 * z, h)),
    ("average_present", lambda z, h: average_as_in_the_solution(z, h).squeeze(0)),
    ("average_present", lambda z, h: torch.ones(len(z), z.shape[2]) / z.shape[2]),
    ("product_of_experts", lambda z, p: direct(z, p, 0.5)),
    ("product_of_experts", lambda z, p: p.expand(len(z), -1)),
    ("gated_unit", lambda *a: gate_as_in_the_solution(*a) ** 2),
    ("gated_unit", lambda x, y, w_x, w_y, w_z: torch.tanh(x @ w_x)),
    ("low_rank_fusion", ranks(lambda a, b: (a * b).sum(0).tanh())),
    ("low_rank_fusion", ranks(lambda a, b: (a * b).sum(0), 2, 1)),
]


@pytest.mark.parametrize("id, answer", UNLISTED)
def test_a_wrong_answer_that_nobody_listed_is_refused(id, answer):
    assert check(id, answer).status == "incorrect"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_an_answer_that_is_nearly_right_is_refused(exercise):
    assert_refused(
        exercise, lambda due: due[:0], lambda due: due + 1e-3, lambda due: due.flip(1)
    )


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert right["xor-vote"] == "50 %"
    assert right["missing-as-zero"] == "a real picture that happens to be black"
    assert right["lazy"] == "worse"


def test_two_classifiers_of_one_coin_each_know_nothing_together():
    """What the question says: averaged with any weights they are at chance."""
    coins = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    label = coins[:, 0] ^ coins[:, 1]
    for column in coins.T:  # the best each can do is the share of label 1
        shares = [label[column == side].double().mean() for side in (0, 1)]
        assert shares == [0.5, 0.5]
