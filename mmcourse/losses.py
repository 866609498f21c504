"""Objectives: pure functions of tensors, each under its equation.

InfoNCE: van den Oord et al., 2018, arXiv 1807.03748; in both directions with a learned
temperature as in CLIP, Radford et al., 2021, arXiv 2103.00020. Taught in
07_contrastive_learning, met first in 00_welcome.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def info_nce(
    a: Float[Tensor, "B D"], b: Float[Tensor, "B D"], scale: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """Pull row i of ``a`` and of ``b`` together, push all other pairs apart.

    L = (CE(S, i) + CE(S^T, i)) / 2 with S_ij = scale * a_i . b_j: each row must pick
    its partner out of the batch, in both directions. ``a`` and ``b`` have rows of
    length 1; ``scale`` is one over the temperature. At chance L is ln B.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} rows, b has {len(b)}: they are pairs")
    if not scale > 0:
        raise ValueError(f"scale={float(scale):.3g}: one over a temperature is above 0")
    for name, x in (("a", a), ("b", b)):
        if not x.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity: look where it comes from")
        length = x.detach().norm(dim=-1)
        if not torch.allclose(length, torch.ones_like(length), atol=1e-3):
            raise ValueError(
                f"{name} has rows of length {length.min():.3g} to {length.max():.3g}, "
                "not 1: use torch.nn.functional.normalize(x, dim=-1) first"
            )
    scores = scale * a @ b.T
    partner = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(scores, partner) + F.cross_entropy(scores.T, partner)) / 2
