"""Feature-level fusion: the modalities' vectors become one before anything is decided.

From a sum to the whole outer product. With three modalities the bilinear ones multiply
three factors. Costs are for M modalities of width D, biases left out. Taught in
05_fusion.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.fusion.base import VectorFusion, weighted

Vectors = list[Float[Tensor, "B D"]]
Here = Bool[Tensor, "B M"] | None


class Concat(VectorFusion):
    """W [norm(x_1); ...; norm(x_M)]: the layer after it decides what matters.

    Each is normalised first, or the one with the largest numbers wins. M D^2 numbers.
    """

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__(modalities, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in self.modalities)
        self.mix = nn.Linear(len(self.modalities) * dim, dim)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Normalise, join, project."""
        parts = [norm(part) for norm, part in zip(self.norms, x, strict=True)]
        return self.mix(torch.cat(parts, dim=-1))


class WeightedSum(VectorFusion):
    """sum_m softmax(w)_m P_m x_m: one learned weight a modality.

    Where one is missing, the softmax runs over the others. M D^2 + M numbers.
    """

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__(modalities, dim, neutral=True)
        self.project = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)
        self.scores = nn.Parameter(torch.zeros(len(self.modalities)))

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Project each and add them up by weight."""
        scores = self.scores
        if here is not None:
            scores = scores.masked_fill(~here, -torch.inf)
        weights = scores.softmax(dim=-1).unsqueeze(-1).unbind(dim=-2)
        projects = zip(self.project, x, strict=True)
        return weighted(weights, [project(part) for project, part in projects])


class Gated(VectorFusion):
    """The gated multimodal unit (GMU): gates open for what is worth hearing here.

    h_m = tanh(W_m x_m); of two: z h_1 + (1 - z) h_2 with z = sigmoid(W_z [x_1; x_2]);
    of more: sum_m z_m h_m, a sigmoid gate each. A missing one's gate is shut. Of two
    3 D^2 numbers, of more M D^2 + M^2 D^2. Arevalo et al., 2017, arXiv 1702.01992.
    """

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__(modalities, dim)
        m = len(self.modalities)
        self.hidden = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)
        self.gate = nn.Linear(m * dim, dim if m == 2 else m * dim)

    def gates(self, x: Vectors, here: Here) -> tuple[Float[Tensor, "B D"], ...]:
        """Return each modality's gate, between 0 (shut) and 1 (open)."""
        z = self.gate(torch.cat(x, dim=-1)).sigmoid()
        if len(x) > 2:
            gates = z.chunk(len(x), dim=-1)
            if here is None:
                return gates
            return tuple(g * here[:, i, None] for i, g in enumerate(gates))
        if here is not None:
            z = z.masked_fill(~here[:, 1, None], 1.0).masked_fill(
                ~here[:, 0, None], 0.0
            )
        return z, 1 - z

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Add up what passes the gates."""
        hidden = [torch.tanh(h(part)) for h, part in zip(self.hidden, x, strict=True)]
        gates = self.gates(x, here)
        return sum(z * h for z, h in zip(gates, hidden, strict=True))


class FiLM(VectorFusion):
    """Feature-wise linear modulation: the others stretch and shift the first.

    gamma * x_1 + beta, with gamma = 1 + sum_m G_m x_m and beta = sum_m B_m x_m. Starts
    as the identity; a missing condition changes nothing. 2 (M - 1) D^2 numbers.
    Perez et al., 2018, arXiv 1709.07871.
    """

    def __init__(self, modalities: Sequence[str], dim: int):
        super().__init__(modalities, dim)
        others = self.modalities[1:]
        self.change = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in others)
        for layer in self.change:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Modulate the first modality by the others."""
        changes = [layer(part) for layer, part in zip(self.change, x[1:], strict=True)]
        if here is not None:
            changes = [c * here[:, i + 1, None] for i, c in enumerate(changes)]
        gamma, beta = sum(changes).chunk(2, dim=-1)
        return x[0] + gamma * x[0] + beta


def _product(factors: list[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def signed_sqrt(x: Tensor) -> Tensor:
    """sign(x) sqrt(|x|), with a slope that stays finite at zero."""
    return x.sign() * (x.abs() + 1e-8).sqrt()


class MLB(VectorFusion):
    """Low-rank bilinear pooling: P (tanh(U_1 x_1) * ... * tanh(U_M x_M)).

    (M + 1) D R numbers, R = ``rank``. Kim et al., 2017, arXiv 1610.04325.
    """

    def __init__(self, modalities: Sequence[str], dim: int, rank: int | None = None):
        super().__init__(modalities, dim)
        rank = dim if rank is None else rank
        self.factors = nn.ModuleList(nn.Linear(dim, rank) for _ in self.modalities)
        self.out = nn.Linear(rank, dim)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Multiply the bent projections."""
        parts = zip(self.factors, x, strict=True)
        return self.out(_product([torch.tanh(factor(part)) for factor, part in parts]))


class MFB(VectorFusion):
    """Factorised bilinear pooling: each output adds up ``k`` products of its own.

    sum-pool_k(U_1 x_1 * ... * U_M x_M), dropout before the pooling, then signed square
    root and length 1. M D^2 k numbers. Yu et al., 2017, arXiv 1708.01471.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, k: int = 5, dropout: float = 0.1
    ):
        super().__init__(modalities, dim)
        self.k = k
        self.factors = nn.ModuleList(nn.Linear(dim, dim * k) for _ in self.modalities)
        self.drop = nn.Dropout(dropout)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Expand, multiply, squeeze."""
        parts = zip(self.factors, x, strict=True)
        expanded = self.drop(_product([factor(part) for factor, part in parts]))
        pooled = reduce(expanded, "b (d k) -> b d", "sum", k=self.k)
        return F.normalize(signed_sqrt(pooled), dim=-1)


class MUTAN(VectorFusion):
    """Tucker fusion: ``rank`` products, added up, of projections that tanh has bent.

    t_m = tanh(W_m x_m) of width T, then sum_r prod_m t_m N_m^r. M D T (1 + R) numbers.
    Ben-younes et al., 2017, arXiv 1705.06676.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, width: int = 64, rank: int = 5
    ):
        super().__init__(modalities, dim)
        self.rank = rank
        each = range(len(self.modalities))
        self.bend = nn.ModuleList(nn.Linear(dim, width) for _ in each)
        self.factors = nn.ModuleList(nn.Linear(width, rank * dim) for _ in each)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Multiply rank by rank, add the ranks up."""
        parts = zip(self.factors, self.bend, x, strict=True)
        products = _product([f(torch.tanh(bend(part))) for f, bend, part in parts])
        return reduce(products, "b (r d) -> b d", "sum", r=self.rank)


def compact_bilinear(
    x: Vectors, places: Int[Tensor, "M D"], signs: Float[Tensor, "M D"], width: int
) -> Float[Tensor, "B S"]:
    """Sketch the outer product of the vectors in ``width`` numbers, never forming it.

    The count sketch Psi x adds signs_i x_i into slot places_i; the sketch of an outer
    product is the circular convolution of the sketches, a product after the FFT:
    irfft(prod_m rfft(Psi_m x_m)). In float32: FFTs know no bfloat16.
    """
    spectra = []
    for part, place, sign in zip(x, places, signs, strict=True):
        sketch = part.new_zeros(len(part), width, dtype=torch.float32)
        sketch = sketch.index_add(1, place, part.float() * sign.float())
        spectra.append(torch.fft.rfft(sketch))
    return torch.fft.irfft(_product(spectra), n=width)


class MCB(VectorFusion):
    """Compact bilinear pooling: the outer product in a sketch of ``width`` numbers.

    Then signed square root, length 1 and a projection. The sketches are random and
    fixed: buffers, saved and never trained. D S numbers, S = ``width``.
    Fukui et al., 2016, arXiv 1606.01847.
    """

    def __init__(self, modalities: Sequence[str], dim: int, width: int = 1024):
        super().__init__(modalities, dim)
        self.width = width
        size = (len(self.modalities), dim)
        self.register_buffer("places", torch.randint(width, size))
        self.register_buffer("signs", 2.0 * torch.randint(2, size) - 1)
        self.out = nn.Linear(width, dim)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Sketch, tame, project."""
        with torch.autocast(x[0].device.type, enabled=False):
            sketch = compact_bilinear(x, self.places, self.signs, self.width)
        sketch = F.normalize(signed_sqrt(sketch), dim=-1)
        return self.out(sketch.to(x[0].dtype))


class TensorFusion(VectorFusion):
    """W vec([1; P_1 x_1] (x) ... (x) [1; P_M x_M]): every product of every subset.

    The 1 keeps the lower orders: single features, pairs, then triples. A missing one is
    [1; 0], which leaves just the terms without it. D (I + 1)^M + M D I numbers, which
    explode with M, hence the narrow projections to I = ``inner`` numbers (None: none).
    Zadeh et al., 2017, arXiv 1707.07250.
    """

    def __init__(self, modalities: Sequence[str], dim: int, inner: int | None = 12):
        super().__init__(modalities, dim, neutral=True)
        m, inside = len(self.modalities), dim if inner is None else inner
        self.project = nn.ModuleList(
            nn.Identity() if inner is None else nn.Linear(dim, inner) for _ in range(m)
        )
        self.out = nn.Linear((inside + 1) ** m, dim)

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Take the outer product and project it."""
        parts = []
        for i, (project, part) in enumerate(zip(self.project, x, strict=True)):
            narrow = project(part)
            if here is not None:  # the projection's bias is no news of what is missing
                narrow = narrow * here[:, i, None]
            parts.append(F.pad(narrow, (1, 0), value=1.0))
        *earlier, outer = parts
        for part in reversed(earlier):  # long rows multiply faster than short ones
            outer = rearrange(part[:, :, None] * outer[:, None], "b i j -> b (i j)")
        return self.out(outer)


class LowRankFusion(VectorFusion):
    """Tensor Fusion whose tensor is a sum of ``rank`` outer products, never formed.

    sum_r prod_m W_m^r [1; x_m]: linear in M. M R (D + 1) D numbers. A missing one is
    [1; 0]. Liu et al., 2018, arXiv 1806.00064.
    """

    def __init__(self, modalities: Sequence[str], dim: int, rank: int = 4):
        super().__init__(modalities, dim, neutral=True)
        self.rank = rank
        # A linear map with a bias is W [1; x]: the bias is the column of the 1.
        self.factors = nn.ModuleList(nn.Linear(dim, rank * dim) for _ in modalities)
        self.bias = nn.Parameter(torch.zeros(dim))

    def fuse(self, x: Vectors, here: Here) -> Float[Tensor, "B D"]:
        """Multiply factor by factor, add the ranks up."""
        mapped = [factor(part) for factor, part in zip(self.factors, x, strict=True)]
        ranks = reduce(_product(mapped), "b (r d) -> b d", "sum", r=self.rank)
        return ranks + self.bias
