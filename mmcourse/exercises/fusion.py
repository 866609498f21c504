"""Exercises and questions of 05_fusion: sums, votes, products, gates, low rank."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw numbers large enough for the softmax to take sides."""
    return torch.from_numpy(1.5 * rng.normal(size=shape)).float()


def _sizes(rng: np.random.Generator, *choices: int) -> list[int]:
    """Draw an order of sizes that all differ, so that axes can't be mistaken."""
    return rng.permutation(choices).tolist()


# --- weighted_sum ---------------------------------------------------------------------


def _add_up(features: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("m,mbd->bd", weights, features)


def _weighted(weigh):
    """Return a weighted sum whose weights are ``weigh(scores)``."""
    return lambda features, scores: _add_up(features, weigh(scores))


_SUM = _weighted(lambda s: s.softmax(dim=0))


def _sum_input(rng: np.random.Generator) -> tuple:
    m, batch, dim = _sizes(rng, 2, 3, 5)
    return _normal(rng, m, batch, dim), _normal(rng, m)


WEIGHTED_SUM = Exercise(
    "weighted_sum",
    _SUM,
    _sum_input,
    fixed=(
        (  # weights 1/4 and 3/4
            torch.tensor([[[4.0, 0.0, 8.0]], [[0.0, 4.0, 8.0]]]),
            torch.tensor([0.0, math.log(3)]),
        ),
        (torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([-5.0])),
    ),
    properties={
        "where all modalities say the same, that comes out: the weights add up to "
        "1": lambda f: torch.allclose(
            f(torch.ones(3, 2, 4), torch.tensor([2.0, 0.0, -1.0])), torch.ones(2, 4)
        ),
        "7 more on every score changes nothing": lambda f: (
            lambda x, s: torch.allclose(f(x, s), f(x, s + 7), atol=1e-4)
        )(torch.randn(3, 2, 4), torch.randn(3)),
    },
    mistakes={
        "you weigh by the scores themselves: they can be negative and don't add up to "
        "1. Take their softmax": _weighted(lambda s: s),
        "you divide the scores by their sum: a negative score still gives a negative "
        "weight, and a sum of 0 breaks it. Take their softmax": _weighted(
            lambda s: s / s.sum()
        ),
        "your weights are e^score: divide by their sum, or the result grows with the "
        "scores": _weighted(lambda s: s.exp()),
        "your weights come from a sigmoid, each by itself: those of a softmax share "
        "out a whole of 1": _weighted(lambda s: s.sigmoid()),
        "these are logarithms of weights, all negative: softmax, not log_softmax": (
            _weighted(lambda s: s.log_softmax(dim=0))
        ),
        "the scores are not used: this is the plain mean": _weighted(
            lambda s: torch.full_like(s, 1 / len(s))
        ),
        "the scores are not used: this is the plain sum": _weighted(torch.ones_like),
        "you take the modality with the best score alone: then nothing tells the other "
        "scores which way to learn": _weighted(
            lambda s: F.one_hot(s.argmax(), len(s)).to(s)
        ),
        "you average after weighing: the weights add up to 1 already, so add, and "
        "don't divide by M again": lambda x, s: _SUM(x, s) / len(s),
        "these are the weighted vectors one by one, (M, B, D): add them up along "
        "m": lambda x, s: x * s.softmax(dim=0)[:, None, None],
    },
)

# --- average_present ------------------------------------------------------------------


def _heard(logits: Tensor, present: Tensor) -> Tensor:
    """Return probabilities (B, M, C), 0 where a modality is missing."""
    there = present[..., None]
    return logits.masked_fill(~there, 0.0).softmax(dim=-1) * there


def _count(present: Tensor) -> Tensor:
    return present.sum(dim=1, keepdim=True)


def _average(logits: Tensor, present: Tensor) -> Tensor:
    return _heard(logits, present).sum(dim=1) / _count(present)


def _average_logits(logits: Tensor, present: Tensor) -> Tensor:
    kept = logits.masked_fill(~present[..., None], 0.0)
    return kept.sum(dim=1) / _count(present)


def _over_modalities(logits: Tensor, present: Tensor) -> Tensor:
    p = logits.masked_fill(~present[..., None], -math.inf).softmax(dim=1)
    return p.sum(dim=1) / _count(present)


def _times_zero(logits: Tensor, present: Tensor) -> Tensor:
    return (logits.softmax(-1) * present[..., None]).sum(dim=1) / _count(present)


def _hidden_by_infinity(logits: Tensor, present: Tensor) -> Tensor:
    p = logits.masked_fill(~present[..., None], -math.inf).softmax(dim=-1)
    return (p * present[..., None]).sum(dim=1) / _count(present)


def _votes(logits: Tensor, present: Tensor) -> Tensor:
    best = F.one_hot(_heard(logits, present).argmax(dim=-1), logits.shape[-1])
    return (best * present[..., None]).sum(dim=1) / _count(present)


def _present_input(rng: np.random.Generator) -> tuple:
    """Draw logits; of the missing ones some are NaN, and some look like real ones."""
    batch, m, classes = _sizes(rng, 3, 4, 5)
    present = torch.from_numpy(rng.random((batch, m)) < 0.5)
    rows, one = torch.arange(batch), torch.from_numpy(rng.integers(m, size=batch))
    present[rows, one], present[rows, (one + 1) % m] = True, False
    present[0] = True  # the other rows lack something
    logits = _normal(rng, batch, m, classes)
    nan = ~present & torch.from_numpy(rng.random((batch, m)) < 0.5)
    return logits.masked_fill(nan[..., None], math.nan), present


_LOGITS = torch.tensor(
    [  # p = (3/4, 1/4), (1/4, 3/4) and (1/8, 7/8)
        [[math.log(3), 0.0], [0.0, math.log(3)], [0.0, math.log(7)]],
        [[math.log(3), 0.0], [5.0, -5.0], [0.0, math.log(7)]],
        [[math.log(3), 0.0], [0.0, 0.0], [math.nan, math.nan]],
    ]
)
_THERE = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0]]).bool()

AVERAGE_PRESENT = Exercise(
    "average_present",
    _average,
    _present_input,
    fixed=(
        (_LOGITS, _THERE),
        (torch.tensor([[[0.0, math.log(9)]]]), torch.tensor([[True]])),
    ),
    properties={
        "every row adds up to 1": lambda f: torch.allclose(
            f(_LOGITS, _THERE).sum(dim=1), torch.ones(3)
        ),
        "what stands in the place of a missing modality changes nothing": lambda f: (
            torch.allclose(
                f(_LOGITS, _THERE),
                f(_LOGITS.where(_THERE[..., None], torch.tensor(9.0)), _THERE),
            )
        ),
    },
    mistakes={
        "NaN times 0 is NaN: a missing modality that holds NaN gets through a product "
        "with `present`. Replace it by torch.where or masked_fill": _times_zero,
        "rows that lack something are NaN: where all classes are -inf, the softmax is "
        "0/0. Hide the missing after the softmax, or fill with a number before "
        "it": _hidden_by_infinity,
        "`present` is not used: a missing modality has its say like the others": (
            lambda z, here: z.softmax(dim=-1).mean(dim=1)
        ),
        "you leave out what is NaN: a missing modality may hold ordinary numbers as "
        "well. Ask `present`": lambda z, here: z.softmax(dim=-1).nanmean(dim=1),
        "a missing modality votes with equal probabilities for all classes: it should "
        "have no say, or rows that lack something look unsure": lambda z, here: (
            z.masked_fill(~here[..., None], 0.0).softmax(dim=-1).mean(dim=1)
        ),
        "you divide by M, also where a modality is missing: divide by how many the row "
        "has, or it no longer adds up to 1": lambda z, here: _heard(z, here).mean(
            dim=1
        ),
        "you add up: divide by how many modalities the row has": lambda z, here: _heard(
            z, here
        ).sum(dim=1),
        "`present` is turned round: True says that a modality is there": lambda z, a: (
            _average(z.nan_to_num(), ~a)
        ),
        "you average the logits and take the softmax afterwards: that is a product of "
        "probabilities, where one modality can veto. Softmax first": lambda z, here: (
            _average_logits(z, here).softmax(dim=-1)
        ),
        "these are logits: take the softmax of each modality first": _average_logits,
        "your softmax runs over the modalities: one modality's classes add up to 1, "
        "dim=-1": _over_modalities,
        "you count votes: average the probabilities, which also say how sure a "
        "modality is": _votes,
        "these are logarithms: probabilities were asked for": lambda z, here: _average(
            z, here
        ).log(),
    },
    points=2,
)

# --- product_of_experts ---------------------------------------------------------------


def _log_product(logits: Tensor, prior: Tensor, times: int) -> Tensor:
    """Return log prod_m p_m / prior^times, not normalised."""
    return logits.log_softmax(dim=-1).sum(dim=1) - times * prior.log()


def _product(logits: Tensor, prior: Tensor) -> Tensor:
    return _log_product(logits, prior, logits.shape[1] - 1).softmax(dim=-1)


def _divided(times):
    """Return the product divided by the prior to the power of ``times(M)``."""
    return lambda z, prior: _log_product(z, prior, times(z.shape[1])).softmax(dim=-1)


def _mean_of_logs(logits: Tensor, prior: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1).mean(dim=1).softmax(dim=-1)


def _averaged_voices(logits: Tensor, prior: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=-1).mean(dim=1)
    return (log_p - (logits.shape[1] - 1) * prior.log()).softmax(dim=-1)


def _experts_input(rng: np.random.Generator) -> tuple:
    batch, m, classes = _sizes(rng, 3, 4, 5)
    prior = torch.from_numpy(rng.dirichlet([3.0] * classes)).float().clamp(min=0.02)
    return _normal(rng, batch, m, classes), prior / prior.sum()


def _survives_a_quarrel(f) -> bool:
    sure = torch.tensor([[[1000.0, 0.0], [0.0, 1000.0]]])
    return torch.allclose(f(sure, torch.full((2,), 0.5)), torch.tensor(0.5), atol=1e-3)


PRODUCT_OF_EXPERTS = Exercise(
    "product_of_experts",
    _product,
    _experts_input,
    fixed=(
        (  # the prior is (3/4, 1/4), and so is every p but one, (1/4, 3/4)
            torch.tensor(
                [
                    [[math.log(3), 0.0], [0.0, math.log(3)]],
                    [[math.log(3), 0.0], [math.log(3), 0.0]],
                ]
            ),
            torch.tensor([0.75, 0.25]),
        ),
        (torch.tensor([[[math.log(4), 0.0]]]), torch.tensor([0.25, 0.75])),
    ),
    properties={
        "experts who know no more than the prior leave it as it is": lambda f: (
            lambda prior: torch.allclose(
                f(prior.log().expand(2, 3, 4), prior), prior, atol=1e-5
            )
        )(torch.tensor([0.1, 0.2, 0.3, 0.4])),
        (
            "two experts, each quite sure of another class, leave both at 1/2 (NaN? "
            "Add logarithms and let softmax normalise them: their exp is 0 everywhere)"
        ): _survives_a_quarrel,
    },
    mistakes={
        "the prior is not divided out: each expert has it inside, so a frequent class "
        "counts M times": _divided(lambda m: 0),
        "you divide by the prior M times: it should count once in the end, so M - 1 "
        "times": _divided(lambda m: m),
        "you divide by the prior once, however many experts there are: M - 1 times "
        "leaves one of M": _divided(lambda m: 1),
        "you multiply by the prior: a frequent class then counts even more often. "
        "Divide": _divided(lambda m: 1 - m),
        "you subtract the prior, not its logarithm: a division is a subtraction of "
        "logarithms": lambda z, prior: (
            z.log_softmax(dim=-1).sum(dim=1) - (z.shape[1] - 1) * prior
        ).softmax(dim=-1),
        "a row doesn't add up to 1: divide by its sum": lambda z, prior: _log_product(
            z, prior, z.shape[1] - 1
        ).exp(),
        "these are logarithms: probabilities were asked for": lambda z, prior: _product(
            z, prior
        ).log(),
        "you average the logits and leave the prior in: the mean forgets how many "
        "experts agree. Add logarithms, then take the prior out M - 1 "
        "times": _mean_of_logs,
        "you average the logarithms before you divide by the prior: a product is their "
        "sum": _averaged_voices,
        "you average the probabilities: multiply them, so that one expert can "
        "veto": lambda z, prior: z.softmax(dim=-1).mean(dim=1),
        "you multiply logits: two negative ones make a positive one. Probabilities "
        "are multiplied, which means that logits are added": lambda z, prior: (
            z.prod(dim=1) - (z.shape[1] - 1) * prior.log()
        ).softmax(dim=-1),
        "your softmax runs over the experts: one expert's classes add up to 1, "
        "dim=-1": lambda z, prior: (
            z.log_softmax(dim=1).sum(dim=1) - (z.shape[1] - 1) * prior.log()
        ).softmax(dim=-1),
    },
    points=2,
)

# --- gated_unit -----------------------------------------------------------------------


def _gated(
    x, y, w_x, w_y, w_z, *, bend=torch.tanh, squash=torch.sigmoid, swap=False
) -> Tensor:
    """Mix by gates; the keywords are what can go wrong in it."""
    z = squash(torch.cat([y, x] if swap else [x, y], dim=1) @ w_z)
    return z * bend(x @ w_x) + (1 - z) * bend(y @ w_y)


def _linear(x: Tensor) -> Tensor:
    return x


def _parts(x, y, w_x, w_y, w_z) -> tuple[Tensor, Tensor, Tensor]:
    z = (torch.cat([x, y], dim=1) @ w_z).sigmoid()
    return z, torch.tanh(x @ w_x), torch.tanh(y @ w_y)


def _mixed(mix):
    """Return ``mix`` of the gate z and the hidden vectors h_x and h_y."""
    return lambda *arguments: mix(*_parts(*arguments))


def _bent_late(x, y, w_x, w_y, w_z) -> Tensor:
    return torch.tanh(_gated(x, y, w_x, w_y, w_z, bend=_linear))


def _gate_input(rng: np.random.Generator) -> tuple:
    batch, d, e, k = _sizes(rng, 2, 3, 4, 6)
    x, y, w_z = _normal(rng, batch, d), _normal(rng, batch, e), _normal(rng, d + e, k)
    return x, y, _normal(rng, d, k) / 2, _normal(rng, e, k) / 2, w_z / 2


def _shuts(f) -> bool:
    x, y, w_x, w_y = (
        torch.ones(3, 2),
        torch.randn(3, 4),
        torch.eye(2, 5),
        torch.ones(4, 5),
    )
    shut = torch.cat([torch.full((2, 5), -20.0), torch.zeros(4, 5)])
    return torch.allclose(f(x, y, w_x, w_y, shut), torch.tanh(y @ w_y), atol=1e-5)


def _stands_half_open(f) -> bool:
    x, y, w_x, w_y = (
        torch.randn(3, 2),
        torch.randn(3, 4),
        torch.eye(2, 5),
        torch.eye(4, 5),
    )
    mean = (torch.tanh(x @ w_x) + torch.tanh(y @ w_y)) / 2
    return torch.allclose(f(x, y, w_x, w_y, torch.zeros(6, 5)), mean, atol=1e-5)


GATED_UNIT = Exercise(
    "gated_unit",
    _gated,
    _gate_input,
    fixed=(
        (  # h_x = tanh(ln 3) = 0.8, h_y = tanh(ln 2) = 0.6, z = 3/4
            torch.tensor([[math.log(3)]]),
            torch.tensor([[math.log(2), 0.0]]),
            torch.tensor([[1.0]]),
            torch.tensor([[1.0], [5.0]]),
            torch.tensor([[1.0], [0.0], [7.0]]),
        ),
    ),
    properties={
        "where the gate is shut (z = 0), h_y alone gets through": _shuts,
        "where w_z is 0, the gate is half open: the mean of h_x and "
        "h_y": _stands_half_open,
    },
    mistakes={
        "the gate is turned round: z belongs to h_x and 1 - z to h_y": _mixed(
            lambda z, h_x, h_y: (1 - z) * h_x + z * h_y
        ),
        "one gate z lets both through: h_y gets what h_x leaves, 1 - z": _mixed(
            lambda z, h_x, h_y: z * (h_x + h_y)
        ),
        "h_y has no gate: it passes as far as h_x does not, 1 - z": _mixed(
            lambda z, h_x, h_y: z * h_x + h_y
        ),
        "h_y is missing: add (1 - z) h_y": _mixed(lambda z, h_x, h_y: z * h_x),
        "the gate is not used: this is h_x + h_y, the same for every item": _mixed(
            lambda z, h_x, h_y: h_x + h_y
        ),
        "the gated vectors lie side by side, (B, 2K): add them up": _mixed(
            lambda z, h_x, h_y: torch.cat([z * h_x, (1 - z) * h_y], dim=1)
        ),
        "this is the gate z: mix h_x and h_y by it": _mixed(lambda z, h_x, h_y: z),
        "you joined [y; x]: the first D rows of w_z belong to x": lambda *a: _gated(
            *a, swap=True
        ),
        "the tanh is missing: h_x = tanh(x w_x), so that neither side wins by its "
        "scale": lambda *a: _gated(*a, bend=_linear),
        "you bend after mixing: the tanh belongs to each side, before the "
        "gate": _bent_late,
        "the gate has no sigmoid: z must lie between 0, shut, and 1, open": lambda *a: (
            _gated(*a, squash=_linear)
        ),
        "your gate is a softmax over its K numbers: each of them opens by itself, a "
        "sigmoid": lambda *a: _gated(*a, squash=lambda s: s.softmax(dim=-1)),
        "tanh and sigmoid changed places: the gate needs (0, 1), the hidden vectors "
        "(-1, 1)": lambda *a: _gated(*a, bend=torch.sigmoid, squash=torch.tanh),
        "your gate is a tanh: at -1 it turns h_x round. A sigmoid lies between 0 and "
        "1": lambda *a: _gated(*a, squash=torch.tanh),
        "your hidden vectors come from a sigmoid: tanh, which can be negative": (
            lambda *a: _gated(*a, bend=torch.sigmoid)
        ),
    },
    points=2,
)

# --- low_rank_fusion ------------------------------------------------------------------


def _one(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0), value=1.0)


def _zero(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0))


def _one_at_the_end(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1), value=1.0)


def _ranks(x, y, f_x, f_y, pad_x=_one, pad_y=_one) -> tuple[Tensor, Tensor]:
    """Return both sides for each rank, (R, B, K); the keywords can go wrong."""
    return pad_x(x) @ f_x, pad_y(y) @ f_y


def _fused(mix, *pads):
    """Return ``mix`` of the two sides, after padding x and y as ``pads`` say."""
    return lambda *arguments: mix(*_ranks(*arguments, *pads))


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=0)


_LOW_RANK = _fused(_sum_of_products)


def _quarters(rng: np.random.Generator, *shape: int) -> Tensor:
    """Draw multiples of 1/4: their sums and products are exact in any order."""
    return (4 * _normal(rng, *shape)).round() / 4


def _factors_input(rng: np.random.Generator) -> tuple:
    rank, batch, d, e, k = _sizes(rng, 2, 3, 4, 5, 6)
    factors = _quarters(rng, rank, d + 1, k), _quarters(rng, rank, e + 1, k)
    return _quarters(rng, batch, d), _quarters(rng, batch, e), *factors


def _equals_the_full_tensor(f) -> bool:
    x, y, f_x, f_y = _factors_input(np.random.default_rng(0))
    whole = torch.einsum("rik,rjk->ijk", f_x, f_y)
    due = torch.einsum("bi,bj,ijk->bk", _one(x), _one(y), whole)
    return torch.allclose(f(x, y, f_x, f_y), due, atol=1e-3)


def _keeps_the_constants(f) -> bool:
    x, y, f_x, f_y = _factors_input(np.random.default_rng(1))
    due = (f_x[:, 0] * f_y[:, 0]).sum(dim=0)
    got = f(0 * x, 0 * y, f_x, f_y)
    return torch.allclose(got, due.expand(got.shape), atol=1e-4)


LOW_RANK_FUSION = Exercise(
    "low_rank_fusion",
    _LOW_RANK,
    _factors_input,
    fixed=(
        (  # rank 1: (1 + 2 * 10) * (2 + 3 * 5) = 357
            torch.tensor([[2.0]]),
            torch.tensor([[3.0]]),
            torch.tensor([[[1.0], [10.0]]]),
            torch.tensor([[[2.0], [5.0]]]),
        ),
        (  # rank 2: 3 * (-1) + 4 * 5 = 17, and 1 * 0 + (-2) * 1 = -2
            torch.tensor([[2.0]]),
            torch.tensor([[0.0, 1.0]]),
            torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 2.0], [2.0, -2.0]]]),
            torch.tensor(
                [
                    [[0.0, 0.0], [9.0, 9.0], [-1.0, 0.0]],
                    [[2.0, 1.0], [9.0, 9.0], [3.0, 0.0]],
                ]
            ),
        ),
    ),
    properties={
        "where x and y are 0, the rows of the ones are left: sum_r f_x[r, 0] * "
        "f_y[r, 0]": _keeps_the_constants,
        "it equals the product with the full tensor of (D + 1) (E + 1) K "
        "numbers": _equals_the_full_tensor,
    },
    mistakes={
        "the ones are missing: row 0 of each factor belongs to a 1, which keeps x and "
        "y by themselves among the products": _fused(_sum_of_products, _zero, _zero),
        "x has no 1 before it: without it, what y says by itself is lost": _fused(
            _sum_of_products, _zero, _one
        ),
        "y has no 1 before it: without it, what x says by itself is lost": _fused(
            _sum_of_products, _one, _zero
        ),
        "your 1 stands at the end: it comes first, as row 0 of a factor belongs to "
        "it": _fused(_sum_of_products, _one_at_the_end, _one_at_the_end),
        "you add the ranks up before multiplying: that is one product of sums, as of "
        "rank 1. Multiply in each rank, then add": _fused(
            lambda a, b: a.sum(dim=0) * b.sum(dim=0)
        ),
        "you add the two sides: multiply them, or no feature of x meets one of "
        "y": _fused(lambda a, b: (a + b).sum(dim=0)),
        "you average over the ranks: add them up": _fused(
            lambda a, b: (a * b).mean(dim=0)
        ),
        "you multiply the ranks with each other: that is of a high degree in x. Within "
        "a rank multiply, over ranks add": _fused(lambda a, b: (a * b).prod(dim=0)),
        "only the first rank is used: add up all R": _fused(lambda a, b: (a * b)[0]),
        "these are the products of each rank, (R, B, K): add them up along r": _fused(
            lambda a, b: a * b
        ),
        "the ranks come after the batch and are not added up, (B, R, K)": _fused(
            lambda a, b: (a * b).transpose(0, 1)
        ),
    },
    points=3,
)

EXERCISES = (
    WEIGHTED_SUM,
    AVERAGE_PRESENT,
    PRODUCT_OF_EXPERTS,
    GATED_UNIT,
    LOW_RANK_FUSION,
)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "xor-vote",
        "The label is u xor v, of two fair coins. Modality a shows u alone, modality b "
        "shows v alone. Each gets the best classifier there can be, and their "
        "probabilities are averaged with the best weights. What accuracy?",
        {
            "50 %": "Whatever u is, v makes either label as likely. So each classifier "
            "answers (1/2, 1/2) at best, and so does every weighted average of them. "
            "What only both together know, no sum of two opinions can say.",
            "75 %: each sees half of what matters": "Half of what matters is worth "
            "nothing here. Who knows u and not v knows nothing about u xor v.",
            "100 %: together they have all the information": "Together they do, but "
            "each decides before they meet. What meets is two opinions, not two coins.",
            "it depends on the weights": "Average (1/2, 1/2) and (1/2, 1/2) with any "
            "weights that add up to 1. What comes out?",
        },
        right=0,
    ),
    Question(
        "missing-as-zero",
        "A Concat model was trained on rows that had all three modalities. Now a "
        "picture is missing, and somebody feeds one whose pixels are all 0, before "
        "they are centred. What does the model see?",
        {
            "nothing: zeros add nothing to a sum": "A black picture passes through an "
            "encoder with biases and normalisation. What comes out is not zero.",
            "a real picture that happens to be black": "It has never met a missing "
            "one. It takes the black picture at its word, with the conviction of a "
            "real one, and that can outvote what the others know.",
            "an average picture, so it falls back on the others": "Zero is the "
            "average only where pixels were centred, and an average picture is one "
            "more picture it has never seen.",
            "that something is missing, so it becomes unsure": "Nothing tells it. To "
            "say 'missing' you need a mask or a learned vector, and rows in training "
            "that used it.",
        },
        right=1,
    ),
    Question(
        "lazy",
        "Typed letters, nearly without errors, and noisy sound are trained together "
        "until the training loss is almost 0. How good is the sound's encoder now, "
        "beside one trained on sound alone?",
        {
            "better: the letters taught it": "Letters could teach only through the "
            "loss. Once they explain the label, the loss has nothing left to say to "
            "anyone.",
            "as good: it saw the same sounds and the same labels": "It saw them, but "
            "an encoder learns from its gradient, and that is scaled by the error that "
            "is left. Whose work makes it small here?",
            "worse": "The letters soon explain the label, and the gradient of both "
            "fades before the sound's encoder has learnt its part. A small loss of the "
            "whole says nothing about the parts: test each alone.",
        },
        right=2,
    ),
)
