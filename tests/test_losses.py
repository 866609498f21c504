"""Objectives against loops and libraries, gradients, values at chance, bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from mmcourse import losses
from mmcourse.losses import info_nce, nt_xent, siglip, triplet


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
        (torch.eye(3), torch.eye(3)[:2], 1.0, r"a is \(3, 3\), b is \(2, 3\)"),
        (torch.eye(3), torch.eye(3), -1.0, "scale=-1"),
        (torch.eye(3) * math.nan, torch.eye(3), 1.0, "a holds NaN"),
    ],
)
def test_info_nce_refuses_what_are_no_pairs(a, b, scale, why):
    with pytest.raises(ValueError, match=why):
        unchecked(info_nce)(a, b, scale)


# --- every contrast against loops and libraries -----------------------------------


def loop_nt_xent(a, b, scale):
    views, n, total = torch.cat([a, b]), len(a), 0.0
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        scores = torch.stack([scale * views[i] @ views[j] for j in others])
        right = others.index((i + n) % (2 * n))
        total = total - scores.log_softmax(0)[right] / (2 * n)
    return total


def loop_siglip(a, b, scale, bias, ids=None):
    total, ids = 0.0, list(range(len(a))) if ids is None else ids.tolist()
    for i in range(len(a)):
        for j in range(len(b)):
            sign = 1.0 if ids[i] == ids[j] else -1.0
            logit = sign * (scale * a[i] @ b[j] + bias)
            total = total + torch.log(1 + torch.exp(-logit)) / len(a)
    return total


def loop_triplet(a, b, margin, hardest, ids):
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(a)):
            hinges = [
                F.relu(margin + x[i] @ y[j] - x[i] @ y[i])
                for j in range(len(b))
                if ids[j] != ids[i]
            ]
            worst = torch.stack(hinges).max() if hardest else sum(hinges)
            total = total + worst / len(a)
    return total


def loop_several(a, b, scale, ids):
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(a)):
            log_share = (scale * y @ x[i]).log_softmax(0)
            total = total - log_share[ids == ids[i]].mean() / (2 * len(a))
    return total


IDS = torch.tensor([0, 1, 0, 2, 3, 1])
CASES = {
    "nt_xent": (lambda a, b, s: nt_xent(a, b, s), loop_nt_xent),
    "siglip": (
        lambda a, b, s: siglip(a, b, s, s - 9),
        lambda a, b, s: loop_siglip(a, b, s, s - 9),
    ),
    "siglip, several": (
        lambda a, b, s: siglip(a, b, s, s - 9, IDS),
        lambda a, b, s: loop_siglip(a, b, s, s - 9, IDS),
    ),
    "info_nce, several": (
        lambda a, b, s: info_nce(a, b, s, IDS),
        lambda a, b, s: loop_several(a, b, s, IDS),
    ),
    "triplet": (
        lambda a, b, s: triplet(a, b, 0.3),
        lambda a, b, s: loop_triplet(a, b, 0.3, True, range(6)),
    ),
    "triplet, sum, several": (
        lambda a, b, s: triplet(a, b, 0.3, False, IDS),
        lambda a, b, s: loop_triplet(a, b, 0.3, False, IDS.tolist()),
    ),
}


def value_and_gradients(loss, a, b, scale):
    """A loss and its gradients at a, b (before they are normalised) and the scale."""
    inputs = [x.clone().requires_grad_() for x in (a, b, scale)]
    value = loss(*(F.normalize(x, dim=-1) for x in inputs[:2]), inputs[2])
    value.backward()
    zeros = [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]
    return [value.detach(), *zeros]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scale", [0.7, 14.3])
def test_values_and_gradients_equal_a_loop(case, scale):
    given = (*pairs(), torch.tensor(scale, dtype=torch.float64))
    ours, loop = (value_and_gradients(f, *given) for f in CASES[case])
    assert_same(ours, loop)


@pytest.mark.parametrize("name", ["open_clip", "transformers", "open_clip siglip"])
def test_values_and_gradients_equal_the_libraries(name):
    a, b = pairs(rows=16, width=32, dtype=torch.float32)
    theirs = {
        "open_clip": lambda a, b, s: ClipLoss()(a, b, s),
        "transformers": lambda a, b, s: image_text_contrastive_loss(s * b @ a.T),
        "open_clip siglip": lambda a, b, s: SigLipLoss()(a, b, s, s - 9),
    }[name]
    ours = CASES["siglip"][0] if "siglip" in name else info_nce
    given = (a, b, torch.tensor(7.0))
    assert_same(value_and_gradients(ours, *given), value_and_gradients(theirs, *given))


def test_ids_that_all_differ_change_nothing():
    (a, b), ids = pairs(), torch.randperm(6)
    torch.testing.assert_close(info_nce(a, b, 5.0, ids), info_nce(a, b, 5.0))
    torch.testing.assert_close(siglip(a, b, 5.0, -3.0, ids), siglip(a, b, 5.0, -3.0))


def test_a_second_picture_of_one_caption_is_no_longer_pushed_away():
    """Two pairs of one caption: the plain loss can't fall below ln 2 / B a row."""
    a = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    ids = torch.tensor([7, 7, 8])
    assert info_nce(a, a, 100.0).item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    x = a.clone().requires_grad_()
    info_nce(F.normalize(x, dim=-1), a, 100.0, ids).backward()
    assert x.grad.abs().max() < 1e-4


def test_nt_xent_at_chance_is_ln_of_all_but_itself():
    a = F.normalize(torch.ones(8, 3), dim=-1)
    assert nt_xent(a, a, 10.0).item() == pytest.approx(math.log(15), abs=1e-5)


def test_triplet_is_zero_beyond_the_margin_and_its_bound_where_all_are_one():
    a, same = torch.eye(4), F.normalize(torch.ones(4, 3), dim=-1)
    assert triplet(a, a, 0.2).item() == 0
    assert triplet(same, same, 0.2).item() == pytest.approx(0.4)
    assert triplet(same, same, 0.2, hardest=False).item() == pytest.approx(1.2)


# --- matching ---------------------------------------------------------------------


def test_hard_negatives_are_drawn_by_their_scores_and_are_no_partners():
    torch.manual_seed(0)
    scores = torch.tensor([[9.0, 2.0, 0.0], [0.0, 9.0, 0.0], [1.0, 0.0, 9.0]])
    drawn = [losses.hard_negatives(scores) for _ in range(4000)]
    first = torch.stack([texts for texts, _ in drawn])[:, 0]
    expected = torch.tensor([2.0, 0.0]).softmax(0)[0].item()
    assert (first == 1).float().mean().item() == pytest.approx(expected, abs=0.02)
    pictures = torch.stack([pictures for _, pictures in drawn])
    assert (pictures != torch.arange(3)).all()
    column = torch.tensor([9.0, 0.0, 1.0])[1:].softmax(0)[1].item()
    assert (pictures[:, 0] == 2).float().mean().item() == pytest.approx(
        column, abs=0.02
    )


def test_partners_by_id_are_never_drawn_not_only_the_diagonal():
    torch.manual_seed(0)
    ids = torch.tensor([1, 1, 2, 3])
    scores = torch.full((4, 4), -9.0)
    scores[0, 1] = scores[1, 0] = 50.0
    for _ in range(200):
        texts, pictures = losses.hard_negatives(scores, ids)
        assert (ids[texts] != ids).all() and (ids[pictures] != ids).all()
    with pytest.raises(ValueError, match="row 0 has no negative"):
        losses.hard_negatives(scores, torch.ones(4).long())


def test_matching_is_a_cross_entropy_over_right_and_wrong():
    right, wrong = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    by_hand = [
        -math.log(math.exp(2) / (1 + math.exp(2))),
        -math.log(math.e / (1 + math.e)),
        math.log(2),
    ]
    loss = losses.matching(right, wrong).item()
    assert loss == pytest.approx(sum(by_hand) / 3, abs=1e-6)


# --- filling in -------------------------------------------------------------------


def test_masked_lm_counts_the_hidden_tokens_alone():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, -100, 4], [-100, -100, 0]])
    places = [(0, 0, 1), (0, 2, 4), (1, 2, 0)]
    by_hand = -sum(logits[b, n].log_softmax(0)[v] for b, n, v in places) / 3
    torch.testing.assert_close(losses.masked_lm(logits, labels), by_hand)
    with pytest.raises(ValueError, match="no token is hidden"):
        losses.masked_lm(logits, torch.full((2, 3), -100))


@pytest.mark.parametrize("normalise", [True, False])
def test_masked_image_equals_transformers_mae(normalise):
    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        image_size=16,
        patch_size=4,
        norm_pix_loss=normalise,
    )
    theirs, image = ViTMAEForPreTraining(config), torch.rand(3, 3, 16, 16)
    out = theirs(image)
    given = out.logits.detach().requires_grad_()
    patches = theirs.patchify(image)
    ours = losses.masked_image(given, patches, out.mask.bool(), normalise)
    torch.testing.assert_close(ours, out.loss)
    ours.backward()
    (expected,) = torch.autograd.grad(out.loss, out.logits)
    torch.testing.assert_close(given.grad, expected)


def test_painting_nothing_costs_one_and_visible_patches_nothing():
    patches = torch.rand(2, 9, 48, generator=torch.Generator().manual_seed(0))
    hidden = torch.arange(9).expand(2, 9) > 4
    flat = losses.masked_image(torch.zeros_like(patches), patches, hidden)
    assert flat.item() == pytest.approx(47 / 48, abs=1e-3)  # an unbiased variance
    other = patches + 5.0 * (~hidden)[..., None]
    seen = losses.masked_image(patches, other, hidden, normalise=False)
    assert seen.item() == 0
    with pytest.raises(ValueError, match="no patch is hidden"):
        losses.masked_image(patches, patches, torch.zeros_like(hidden))


def test_caption_shifts_by_one_and_leaves_padding_out():
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 2, 3, 4], [5, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    places = [(0, 0, 2), (0, 1, 3), (0, 2, 4), (1, 0, 2)]
    by_hand = -sum(logits[b, n].log_softmax(0)[v] for b, n, v in places) / 4
    torch.testing.assert_close(losses.caption(logits, tokens, mask), by_hand)
    uniform = losses.caption(torch.zeros(2, 4, 6), tokens)
    assert uniform.item() == pytest.approx(math.log(6), abs=1e-6)


def test_coca_weighs_captions_twice():
    assert losses.coca(torch.tensor(1.5), torch.tensor(2.0)).item() == 5.5


def test_ids_of_another_length_are_refused():
    a, b = pairs()
    with pytest.raises(ValueError, match=r"ids is \(5,\): one id for each of 6 rows"):
        unchecked(info_nce)(a, b, 1.0, torch.arange(5))


def unchecked(f):
    """A function as users call it: jaxtyping checks shapes in these tests alone."""
    return getattr(f, "__wrapped__", f)
