"""InfoNCE against a double loop, its gradient, its value at chance, and bad input."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmcourse.losses import info_nce


def pairs(rows=6, width=5, dtype=torch.float64):
    make = torch.Generator().manual_seed(0)
    draw = torch.randn(2, rows, width, generator=make, dtype=torch.float64)
    return F.normalize(draw, dim=-1).to(dtype)


def naive(a, b, scale):
    """The equation with nothing but loops: each row picks its partner, both ways."""
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            scores = [scale * float(x[i] @ y[j]) for j in range(len(y))]
            log_sum = math.log(sum(math.exp(s) for s in scores))
            total += (log_sum - scores[i]) / (2 * len(x))
    return total


@pytest.mark.parametrize("scale", [0.5, 1.0, 14.3])
def test_equals_a_double_loop(scale):
    a, b = pairs()
    assert info_nce(a, b, scale).item() == pytest.approx(naive(a, b, scale), abs=1e-12)


def test_two_pairs_by_hand():
    """S = [[1, 0], [0, 1]] at scale 1: every row has the loss ln(1 + 1/e)."""
    a = torch.eye(2)
    assert info_nce(a, a, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_is_ln_b_where_nothing_tells_the_rows_apart(rows):
    a = F.normalize(torch.ones(rows, 3), dim=-1)
    assert info_nce(a, a, 10.0).item() == pytest.approx(math.log(rows), abs=1e-5)


def test_the_gradient_reaches_both_sides_and_the_scale():
    a, b = pairs()
    scale = torch.tensor(3.0, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (a.clone(), b.clone(), scale)]

    def loss(a, b, scale):
        return info_nce(F.normalize(a, dim=-1), F.normalize(b, dim=-1), scale)

    assert torch.autograd.gradcheck(loss, inputs)


def test_order_and_sides_do_not_matter_but_pairing_does():
    a, b = pairs()
    loss, order = info_nce(a, b, 5.0), torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(info_nce(a[order], b[order], 5.0), loss)
    torch.testing.assert_close(info_nce(b, a, 5.0), loss)
    assert info_nce(a, a, 5.0) < info_nce(a[order], a, 5.0)


def test_a_few_steps_overfit_one_batch():
    a, b = pairs(dtype=torch.float32)
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    optimizer = torch.optim.Adam([a, b], lr=0.1)
    for _ in range(60):
        loss = info_nce(F.normalize(a, dim=-1), F.normalize(b, dim=-1), 10.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_half_precision_counts_as_length_one():
    a, b = pairs(width=64, dtype=torch.float32)
    half = info_nce(*(F.normalize(x.bfloat16(), dim=-1) for x in (a, b)), 1.0)
    assert half.item() == pytest.approx(info_nce(a, b, 1.0).item(), abs=0.05)


@pytest.mark.parametrize("broken", [2.0, 0.0])
def test_rows_that_are_not_of_length_one_are_refused(broken):
    a, b = pairs()
    with pytest.raises(ValueError, match=r"^b has rows of length .*normalize"):
        info_nce(a, b * broken, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
def test_on_cuda_equals_the_cpu():
    a, b = pairs(dtype=torch.float32)
    on_gpu = info_nce(a.cuda(), b.cuda(), 7.0).cpu()
    torch.testing.assert_close(on_gpu, info_nce(a, b, 7.0))


@pytest.mark.parametrize(
    ("a", "b", "scale", "why"),
    [
        (torch.eye(3), torch.eye(3)[:2], 1.0, "a has 3 rows, b has 2"),
        (torch.eye(3), torch.eye(3), -1.0, "scale=-1"),
        (torch.eye(3) * math.nan, torch.eye(3), 1.0, "a holds NaN"),
    ],
)
def test_info_nce_refuses_what_are_no_pairs(a, b, scale, why):
    plain = getattr(
        info_nce, "__wrapped__", info_nce
    )  # shapes aren't checked for users
    with pytest.raises(ValueError, match=why):
        plain(a, b, scale)
