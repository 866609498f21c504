"""Right answers of several styles pass; wrong ones that nobody listed are refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.exercises import check
from mmcourse.exercises.transformer import EXERCISES


def positions_by_loop(length, dim):
    table = np.zeros((length, dim), dtype=np.float32)
    for n in range(length):
        for i in range(0, dim, 2):
            table[n, i] = math.sin(n / 10_000 ** (i / dim))
            table[n, i + 1] = math.cos(n / 10_000 ** (i / dim))
    return table


def positions_by_logarithm(length, dim):
    speed = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    table = torch.zeros(length, dim)
    table[:, 0::2] = torch.sin(torch.arange(length).unsqueeze(1) * speed)
    table[:, 1::2] = torch.cos(torch.arange(length).unsqueeze(1) * speed)
    return table


def positions_as_cosines(length, dim):
    """sin a is cos(a - pi/2): one table of cosines."""
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(length)[:, None] / 10_000 ** ((channel // 2) * 2 / dim)
    return torch.cos(angle - (channel % 2 == 0) * math.pi / 2)


def positions_by_channel(length, dim):
    channel = np.arange(dim)
    angle = np.arange(length)[:, None] / 10_000 ** (channel / dim)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def step_in_torch(x, f, gain, eps):
    norm = nn.RMSNorm(x.shape[-1], eps=eps, dtype=x.dtype)
    with torch.no_grad():
        norm.weight.copy_(gain)
    return x + f(norm(x))


def step_by_token(x, f, gain, eps):
    rows = [gain * row * torch.rsqrt(row @ row / len(row) + eps) for row in x]
    return f(torch.stack(rows)) + x


def step_by_length(x, f, gain, eps):
    square = torch.linalg.vector_norm(x, dim=1, keepdim=True) ** 2 / x.shape[1]
    return torch.add(x, f(x / torch.sqrt(square + eps) * gain))


def loss_in_torch(logits, tokens):
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0
    )


def loss_by_loop(logits, tokens):
    total, count = 0.0, 0
    for row, ids in zip(logits.softmax(-1).tolist(), tokens.tolist(), strict=True):
        for p, following in zip(row, ids[1:], strict=False):
            if following != 0:
                total, count = total - math.log(p[following]), count + 1
    return total / count


def loss_of_real_places(logits, tokens):
    real = tokens[:, 1:] > 0
    chosen, target = logits[:, :-1][real], tokens[:, 1:][real]
    return -chosen.log_softmax(1)[torch.arange(len(target)), target].mean()


def top_k_by_cutting(logits, temperature, k):
    p = (logits / temperature).exp()
    p[p < p.sort().values[-k]] = 0
    return p / p.sum()


def top_k_by_lists(logits, temperature, k):
    best = sorted(range(len(logits)), key=lambda i: -logits[i])[:k]
    weights = {i: math.exp(logits[i] / temperature) for i in best}
    return [weights.get(i, 0.0) / sum(weights.values()) for i in range(len(logits))]


def nucleus_by_loop(logits, top_p):
    p = logits.softmax(0).tolist()
    kept, total = {}, 0.0
    for i in sorted(range(len(p)), key=p.__getitem__, reverse=True):
        kept[i] = p[i]
        total += p[i]
        if total >= top_p:
            break
    return torch.tensor([kept.get(i, 0.0) / total for i in range(len(p))])


def nucleus_by_shifted_mask(logits, top_p):
    """The way of well-known libraries: cut what lies behind, shifted by one."""
    ordered, order = logits.sort(descending=True)
    cut = ordered.softmax(-1).cumsum(-1) >= top_p
    cut[1:] = cut[:-1].clone()
    cut[0] = False
    logits[order[cut]] = -torch.inf
    return logits.softmax(-1)


@pytest.mark.parametrize(
    "id, answer",
    [
        ("positions_by_hand", positions_by_loop),
        ("positions_by_hand", positions_by_logarithm),
        ("positions_by_hand", positions_as_cosines),
        ("pre_norm_step", step_in_torch),
        ("pre_norm_step", step_by_token),
        ("pre_norm_step", step_by_length),
        ("next_token_loss", loss_in_torch),
        ("next_token_loss", loss_by_loop),
        ("next_token_loss", loss_of_real_places),
        ("top_k_probabilities", top_k_by_cutting),
        ("top_k_probabilities", top_k_by_lists),
        ("nucleus", nucleus_by_loop),
        ("nucleus", nucleus_by_shifted_mask),
    ],
)
def test_right_answers_of_other_styles_pass(id, answer):
    for _ in range(3):  # inputs are random
        report = check(id, answer)
        assert report.status == "correct", report


def joined_waves(length, dim):
    angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, dim, 2) / dim)
    return torch.hstack((torch.sin(angle), torch.cos(angle)))


def centred_step(x, f, gain, eps):
    norm = nn.LayerNorm(x.shape[-1], eps=eps, dtype=x.dtype)
    return x + f(norm(x) * gain)


def eps_beside_the_root(x, f, gain, eps):
    rms = x.square().mean(-1, keepdim=True) ** 0.5
    return x + f(x / (rms + eps) * gain)


def late_gain(x, f, gain, eps):
    return x + gain * f(F.rms_norm(x, x.shape[-1:], eps=eps))


def loss_without_a_minus(logits, tokens):
    log_p = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    return log_p[tokens[:, 1:] != 0].mean()


def loss_in_bits(logits, tokens):
    p = logits[:, :-1].softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    return -p.log2()[tokens[:, 1:] != 0].mean()


def unshifted_loss(logits, tokens):
    return F.cross_entropy(logits.transpose(1, 2), tokens, ignore_index=0)


def heated_the_wrong_way(logits, temperature, k):
    scaled = logits * temperature
    out = torch.zeros_like(scaled)
    best = scaled.topk(k)
    out[best.indices] = best.values.softmax(0)
    return out


def nucleus_without_the_last(logits, top_p):
    p = logits.softmax(-1)
    order = p.argsort(descending=True)
    out = torch.zeros_like(p)
    inside = order[p[order].cumsum(-1) <= top_p]
    out[inside] = p[inside] / p[inside].sum()
    return out


def nucleus_and_one_more(logits, top_p):
    p, order = logits.softmax(-1).sort(descending=True)
    count = int((p.cumsum(-1) < top_p).sum()) + 2
    p[count:] = 0
    return torch.zeros_like(p).scatter(0, order, p / p.sum())


def nucleus_up_to_and_with(logits, top_p):
    """Only where a sum hits p exactly is ``<=`` another thing than ``<``."""
    p, order = logits.softmax(-1).sort(descending=True)
    kept = p * (p.cumsum(-1) - p <= top_p)
    return torch.zeros_like(p).scatter(0, order, kept / kept.sum())


@pytest.mark.parametrize(
    "id, mistaken, said",
    [
        ("positions_by_hand", joined_waves, "they alternate"),
        ("positions_by_hand", positions_by_channel, "with one angle"),
        ("pre_norm_step", centred_step, "you subtract the mean"),
        ("pre_norm_step", eps_beside_the_root, "eps stands outside of the root"),
        ("pre_norm_step", late_gain, "the gain comes too late"),
        ("next_token_loss", loss_without_a_minus, "the minus is missing"),
        ("next_token_loss", loss_in_bits, "logarithm to the base 2"),
        ("next_token_loss", unshifted_loss, "aren't shifted"),
        ("top_k_probabilities", heated_the_wrong_way, "multiply by the temperature"),
        ("nucleus", nucleus_without_the_last, "the token that crosses p is missing"),
        ("nucleus", nucleus_and_one_more, "one token too many"),
        ("nucleus", nucleus_up_to_and_with, "of four equal tokens, two reach p = 0.5"),
    ],
)
def test_a_mistake_is_recognised_in_a_learners_own_words(id, mistaken, said):
    for _ in range(3):
        assert said in check(id, mistaken).lines[-1]


@pytest.mark.parametrize(
    "id, wrong",
    [
        ("positions_by_hand", lambda n, d: positions_by_loop(n, d)[::-1].copy()),
        ("positions_by_hand", lambda n, d: torch.rand(n, d)),
        ("pre_norm_step", lambda x, f, gain, eps: x + f(gain + x)),
        ("pre_norm_step", lambda x, f, gain, eps: x),
        ("next_token_loss", lambda logits, tokens: 2 * loss_in_torch(logits, tokens)),
        ("next_token_loss", lambda logits, tokens: loss_in_torch(logits, tokens) + 1),
        ("top_k_probabilities", lambda z, t, k: (z / t).softmax(0)),
        ("nucleus", lambda z, p: z.softmax(0)),
    ],
)
def test_a_wrong_answer_that_nobody_listed_is_refused(id, wrong):
    assert check(id, wrong).status == "incorrect"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_a_wrong_shape_is_refused(exercise):
    def cut(*arguments):
        return torch.as_tensor(exercise.reference(*arguments)).reshape(-1)[:0]

    assert check(exercise.id, cut).status == "incorrect"


def test_a_report_shows_the_branch_by_name():
    report = check("pre_norm_step", lambda x, f, gain, eps: x + 2 * f(x))
    assert "f=h**2" in report.lines[-1]
    report = check("pre_norm_step", lambda x, f, gain, eps: 1 / 0)
    assert "<function" not in str(report) and "<lambda>" not in str(report)
