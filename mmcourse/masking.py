"""What is hidden from a model so that it learns to fill it in.

Tokens as in BERT, Devlin et al., 2019, arXiv 1810.04805; patches as in MAE, He et al.,
2022, arXiv 2111.06377. Both draw from torch's global generator. Taught in
08_multimodal_pretraining, with ``masked_lm`` and ``masked_image`` of mmcourse.losses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmcourse.losses import IGNORE


def hide_tokens(
    tokens: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B L"],
    mask_id: int,
    vocab: int,
    specials: Sequence[int] = (),
    share: float = 0.15,
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Hide a share of the real tokens; return what the model sees, and the labels.

    Of those chosen 80 % become ``mask_id``, 10 % any token, 10 % stay: the model can't
    tell which it must name. Padding and ``specials`` are never chosen; labels are the
    tokens where chosen and -100 elsewhere. A row with something to hide hides at least
    one token, so that short texts teach as well.
    """
    _check_share(share)
    able = mask & ~torch.isin(tokens, tokens.new_tensor([*specials, mask_id]))
    draw = torch.rand(tokens.shape, device=tokens.device).masked_fill(~able, 2.0)
    chosen = (draw < share) | (draw == draw.amin(dim=1, keepdim=True))
    chosen &= able
    fate = torch.rand(tokens.shape, device=tokens.device)
    seen = tokens.masked_fill(chosen & (fate < 0.8), mask_id)
    swapped = chosen & (fate >= 0.8) & (fate < 0.9)
    seen = torch.where(swapped, torch.randint_like(tokens, vocab), seen)
    return seen, tokens.masked_fill(~chosen, IGNORE)


class Hidden(NamedTuple):
    """Which patches a model sees, which are hidden, and how to put them back.

    ``kept`` (B, K) are the places of the visible patches; ``restore`` (B, N) says where
    in [visible, hidden] each patch lies; ``hidden`` (B, N) is True where hidden.
    """

    kept: Int[Tensor, "B K"]
    restore: Int[Tensor, "B N"]
    hidden: Bool[Tensor, "B N"]


def hide_patches(
    rows: int, patches: int, share: float = 0.75, device: torch.device | None = None
) -> Hidden:
    """Draw which of N ``patches`` are hidden in each of B ``rows``: share * N of them.

    The order of random numbers is a random order; its first (1 - share) N are kept.
    """
    _check_share(share)
    keep = int(patches * (1 - share))
    if keep < 1 or keep == patches:
        raise ValueError(
            f"share={share} of {patches} patches leaves {keep} visible: at least one "
            "must be seen and one hidden"
        )
    order = torch.rand(rows, patches, device=device).argsort(dim=1)
    restore = order.argsort(dim=1)
    return Hidden(order[:, :keep], restore, restore >= keep)


def pick(x: Float[Tensor, "B N D"], places: Int[Tensor, "B K"]) -> Tensor:
    """Take tokens by their places: (B, K, D)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share={share}: choose it between 0 and 1")
