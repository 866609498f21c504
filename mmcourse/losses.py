"""Objectives: pure functions of tensors, each under its equation.

Contrast: InfoNCE, van den Oord et al., 2018, arXiv 1807.03748, in both directions as in
CLIP, Radford et al., 2021, arXiv 2103.00020; NT-Xent, Chen et al., 2020, 2002.05709;
SigLIP, Zhai et al., 2023, 2303.15343; VSE++, Faghri et al., 2018, 1707.05612; several
positives per row, Yang et al., 2022, 2204.03610. Matching: ALBEF, Li et al., 2021,
2107.07651. Filling in: BERT, Devlin et al., 2019, 1810.04805; MAE, He et al., 2022,
2111.06377; CoCa, Yu et al., 2022, 2205.01917. Taught in 07_contrastive_learning and
08_multimodal_pretraining; ``info_nce`` is met first in 00_welcome.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100  # a label that counts for nothing, as in torch and transformers

# --- contrast: rows of length 1, ``scale`` is one over the temperature ------------


def info_nce(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    ids: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Pull row i of ``a`` and of ``b`` together, push all other pairs apart.

    L = (CE(S, i) + CE(S^T, i)) / 2 with S_ij = scale * a_i . b_j: each row must pick
    its partner out of the batch, in both directions. At chance L is ln B. With ``ids``,
    rows of one id are partners of one another, and each has an equal share in the
    target (UniCL); without, the second picture of one caption counts as a wrong answer.
    """
    check_pairs(a, b, scale, ids)
    scores = scale * a @ b.T
    if ids is None:
        partner = torch.arange(len(a), device=a.device)
    else:
        partner = same(ids).to(scores.dtype)
        partner = partner / partner.sum(dim=1, keepdim=True)
    return (F.cross_entropy(scores, partner) + F.cross_entropy(scores.T, partner)) / 2


def nt_xent(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
) -> Float[Tensor, ""]:
    """Contrast two views of each item: SimCLR's normalised, temperature-scaled loss.

    Each of the 2B views must pick its other view out of the 2B - 1 that are not itself;
    so views of one kind are pushed apart as well, which ``info_nce`` doesn't do. At
    chance L is ln(2B - 1).
    """
    check_pairs(a, b, scale)
    views = torch.cat([a, b])
    scores = scale * views @ views.T
    itself = torch.eye(len(views), dtype=torch.bool, device=a.device)
    other = torch.arange(len(views), device=a.device).roll(len(a))
    return F.cross_entropy(scores.masked_fill(itself, -torch.inf), other)


def siglip(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    ids: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Ask of every pair by itself: do these two belong together?

    L = -1/B sum_ij log sigmoid(z_ij (scale * a_i . b_j + bias)), z_ii = 1, others -1.
    The sum has B^2 terms but is divided by B. No softmax: a pair doesn't need to know
    the rest of the batch. With ``ids``, z_ij = 1 for all rows of one id.
    """
    check_pairs(a, b, scale, ids)
    ids = torch.arange(len(a), device=a.device) if ids is None else ids
    sign = torch.where(same(ids), 1.0, -1.0).to(a.dtype)
    return -F.logsigmoid(sign * (scale * a @ b.T + bias)).sum() / len(a)


def triplet(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    margin: float = 0.2,
    hardest: bool = True,
    ids: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Ask that a pair beats every other pair of its row and column by a margin.

    L = 1/B sum_i [max_j h(s_ij - s_ii) + max_j h(s_ji - s_ii)], h(x) = max(0, margin
    + x), over j that are no partners of i: VSE++. With ``hardest=False`` a sum over j
    in place of the maximum, which starts more surely; begin with it.
    """
    check_pairs(a, b, 1.0, ids)
    ids = torch.arange(len(a), device=a.device) if ids is None else ids
    scores = a @ b.T
    right = scores.diagonal()

    def cost(scores: Tensor) -> Tensor:
        hinge = (margin + scores - right[:, None]).clamp(min=0)
        hinge = hinge.masked_fill(same(ids), 0.0)
        return hinge.amax(dim=1) if hardest else hinge.sum(dim=1)

    return (cost(scores) + cost(scores.T)).mean()


def same(ids: Int[Tensor, " B"]) -> Bool[Tensor, "B B"]:
    """Say which rows have one id and are partners."""
    return ids[:, None] == ids[None, :]


# --- matching: does this text belong to this picture? -----------------------------


def hard_negatives(
    scores: Float[Tensor, "B B"], ids: Int[Tensor, " B"] | None = None
) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Draw a wrong text for each picture and a wrong picture for each text.

    ``scores`` of pictures (rows) with texts (columns); j is drawn for i with the
    probability softmax_j(s_ij) over all that are no partners, so those that are
    mistaken for right come most often. Draws from torch's global generator.
    """
    ids = torch.arange(len(scores), device=scores.device) if ids is None else ids
    partners = same(ids)
    if partners.all(dim=1).any():
        row = int(partners.all(dim=1).nonzero()[0])
        raise ValueError(f"row {row} has no negative: all {len(ids)} rows share its id")
    wrong = scores.detach().float().masked_fill(partners, -torch.inf)
    texts, pictures = (s.softmax(dim=1).multinomial(1)[:, 0] for s in (wrong, wrong.T))
    return texts, pictures


def matching(
    right: Float[Tensor, "B 2"], wrong: Float[Tensor, "W 2"]
) -> Float[Tensor, ""]:
    """Tell pairs that belong together from pairs that don't: ITM.

    Cross-entropy of two logits (no, yes), over the B right and W wrong pairs; ALBEF
    has W = 2B. Always saying no has the accuracy 2/3: compare with that.
    """
    label = torch.cat([right.new_ones(len(right)), wrong.new_zeros(len(wrong))]).long()
    return F.cross_entropy(torch.cat([right, wrong]), label)


# --- filling in what was hidden, and writing on -----------------------------------


def masked_lm(
    logits: Float[Tensor, "B L V"], labels: Int[Tensor, "B L"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Name the hidden tokens: cross-entropy where ``labels`` isn't -100.

    With ``smoothing`` e the target is 1 - e on the label and e shared out evenly over
    all V tokens: Szegedy et al., 2015, arXiv 1512.00567.
    """
    if (labels == IGNORE).all():
        raise ValueError("no token is hidden: the mean of nothing is NaN")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing}: a share, from 0 to below 1")
    how = {"ignore_index": IGNORE, "label_smoothing": smoothing}
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **how)


def masked_image(
    predicted: Float[Tensor, "B N P"],
    patches: Float[Tensor, "B N P"],
    hidden: Bool[Tensor, "B N"],
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """Paint the hidden patches: the mean squared error over them alone.

    With ``normalise`` each patch is first given mean 0 and variance 1 of its own
    pixels, as MAE does: shapes count, brightness doesn't. A guess of 0 then has about
    1, and less where patches are small or flat.
    """
    if not hidden.any():
        raise ValueError("no patch is hidden: the mean of nothing is NaN")
    if normalise:
        mean = patches.mean(dim=-1, keepdim=True)
        variance = patches.var(dim=-1, keepdim=True)
        patches = (patches - mean) / (variance + 1e-6).sqrt()
    error = (predicted - patches).square().mean(dim=-1)
    return error[hidden].mean()


def caption(
    logits: Float[Tensor, "B L V"],
    tokens: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B L"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Write on: logits at token n must name token n + 1, where that one is real.

    At chance L is ln V; without ``smoothing``, which is ``masked_lm``'s, exp(L) is the
    perplexity.
    """
    labels = tokens if mask is None else tokens.masked_fill(~mask, IGNORE)
    return masked_lm(logits[:, :-1], labels[:, 1:], smoothing)


def coca(
    contrast: Float[Tensor, ""], captions: Float[Tensor, ""], weight: float = 2.0
) -> Float[Tensor, ""]:
    """Contrast and write at once: L = contrast + weight * caption, CoCa's weights."""
    return contrast + weight * captions


# --- what a user gets wrong -------------------------------------------------------


def check_pairs(
    a: Tensor, b: Tensor, scale: Tensor | float, ids: Tensor | None = None
) -> None:
    """Refuse what is not pairs of finite rows of length 1, and a scale of 0 or less."""
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"a is {tuple(a.shape)}, b is {tuple(b.shape)}: they are pairs, so two "
            "tensors of one shape (B, D) are needed"
        )
    if ids is not None and ids.shape != a.shape[:1]:
        raise ValueError(f"ids is {tuple(ids.shape)}: one id for each of {len(a)} rows")
    if not scale > 0:
        raise ValueError(f"scale={float(scale):.3g}: one over a temperature is above 0")
    for name, x in (("a", a), ("b", b)):
        if not x.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity: look where it comes from")
        length = x.detach().float().norm(dim=-1)
        if not torch.allclose(length, torch.ones_like(length), atol=1e-2):
            raise ValueError(
                f"{name} has rows of length {length.min():.3g} to {length.max():.3g}, "
                "not 1: use torch.nn.functional.normalize(x, dim=-1) first"
            )
