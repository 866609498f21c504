"""What all fusions share: their signature, what is missing, and what they cost.

Taught in 05_fusion.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Fusion(nn.Module):
    """One tensor per modality goes in, one vector per item (B, D) comes out.

    ``fusion(features, present)``: ``features[m]`` is a vector (B, D) per item or, where
    ``tokens`` is True, a sequence (B, N, D). ``present[m]`` is True where that vector
    (B,) or token (B, N) is real. A name that ``present`` lacks is there in all rows;
    one that ``features`` lacks is missing from all. No row may miss everything.
    """

    tokens = False

    def __init__(self, modalities: Sequence[str]):
        super().__init__()
        if isinstance(modalities, str) or len(set(modalities)) < max(
            2, len(modalities)
        ):
            raise ValueError(
                f"modalities={modalities!r}: name at least two, each once, such as "
                '("image", "audio")'
            )
        self.modalities = tuple(modalities)

    def here(
        self, features: dict[str, Tensor], present: dict[str, Tensor] | None
    ) -> Bool[Tensor, "B M"] | None:
        """Say which modality each row has; None where every row has all of them."""
        present = {} if present is None else present
        self._check(features, present)
        if len(present) == 0 and len(features) == len(self.modalities):
            return None
        some = next(iter(features.values()))
        table = some.new_zeros(len(some), len(self.modalities), dtype=torch.bool)
        for i, name in enumerate(self.modalities):
            if name in features:
                real = present.get(name)
                any_real = real is None or real.reshape(len(real), -1).any(dim=1)
                table[:, i] = any_real
        if not table.any(dim=1).all():
            row = int((~table.any(dim=1)).nonzero()[0])
            raise ValueError(f"row {row} has none of {self.modalities}: leave it out")
        return table

    def _check(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> None:
        unknown = sorted((features.keys() | present.keys()) - set(self.modalities))
        if unknown or len(features) == 0:
            raise ValueError(
                f"features of {sorted(features)}, present of {sorted(present)}: this "
                f"fusion knows {self.modalities}, and needs at least one"
            )
        shapes = {name: tuple(x.shape) for name, x in features.items()}
        ndim = 3 if self.tokens else 2
        if any(len(s) != ndim for s in shapes.values()):
            wanted = "tokens (B, N, D)" if self.tokens else "vectors (B, D)"
            raise ValueError(f"{type(self).__name__} takes {wanted}, not {shapes}")
        if len({(s[0], s[-1]) for s in shapes.values()}) > 1:
            raise ValueError(f"{shapes}: modalities differ in rows or in width")
        for name, real in present.items():
            wanted = shapes.get(name, tuple(real.shape))[: ndim - 1]
            if tuple(real.shape) != wanted or real.dtype != torch.bool:
                raise ValueError(
                    f"present[{name!r}] is {real.dtype} {tuple(real.shape)}: booleans "
                    f"{wanted} are needed, True where real"
                )


class VectorFusion(Fusion):
    """Feature level: where a modality is missing, a learned vector stands in for it.

    ``neutral``: zeros do, because the operator itself leaves them out.
    """

    def __init__(self, modalities: Sequence[str], dim: int, *, neutral: bool = False):
        super().__init__(modalities)
        self.dim = dim
        absent = torch.zeros(len(self.modalities), dim)
        if neutral:
            self.register_buffer("absent", absent, persistent=False)
        else:
            self.absent = nn.Parameter(absent.normal_(std=0.02))

    def forward(
        self,
        features: dict[str, Tensor],
        present: dict[str, Tensor] | None = None,
    ) -> Float[Tensor, "B D"]:
        """Fuse vectors (B, D), ``present`` (B,) each; see ``Fusion``."""
        here = self.here(features, present)
        return self.fuse(self._filled(features, here), here)

    def fuse(
        self, x: list[Float[Tensor, "B D"]], here: Bool[Tensor, "B M"] | None
    ) -> Float[Tensor, "B D"]:
        """Fuse the vectors, in the order of ``modalities``."""
        raise NotImplementedError

    def _filled(self, features: dict[str, Tensor], here: Tensor | None) -> list[Tensor]:
        if here is None:
            return [features[name] for name in self.modalities]
        nothing = next(iter(features.values())).new_zeros(())
        return [
            torch.where(here[:, i, None], features.get(name, nothing), self.absent[i])
            for i, name in enumerate(self.modalities)
        ]


def weighted(weights: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """w_1 x_1 + ... + w_M x_M; each product is added as it is formed."""
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = torch.addcmul(total, weight, part)
    return total


class Cost(NamedTuple):
    """What a fusion costs: trained numbers, and FLOPs of its products for one item."""

    parameters: int
    flops: int


def cost(fusion: Fusion, features: dict[str, Tensor]) -> Cost:
    """Count parameters, and the FLOPs (2 per multiply-add) of one row of a forward.

    Counted are matrix products and attention, as torch.utils.flop_counter sees them;
    sums, products of elements and FFTs are not.
    """
    rows = len(next(iter(features.values())))
    with FlopCounterMode(display=False) as counter:
        fusion(features)
    parameters = sum(p.numel() for p in fusion.parameters())
    return Cost(parameters, counter.get_total_flops() // rows)
