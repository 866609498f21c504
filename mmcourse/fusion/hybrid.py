"""Hybrid-level fusion: modalities meet in the middle, token by token, more than once.

Each takes sequences of tokens (B, N_m, D) and their masks, and pools at the end: the
mean over a modality's real tokens, then over the modalities that are there. Taught in
05_fusion and 06_multimodal_transformer.
"""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmcourse.attention import MultiHeadAttention
from mmcourse.fusion.base import Fusion
from mmcourse.fusion.feature import WeightedSum
from mmcourse.transformer import MLP, Block, Encoder

Tokens = Float[Tensor, "B N D"]
Mask = Bool[Tensor, "B N"] | None
# The tokens of one modality, their own number, and which are real: None for every
# stream where all are, which spares the attention its masks.
Stream = tuple[Float[Tensor, "B _ D"], Bool[Tensor, "B _"] | None]


class TokenFusion(Fusion):
    """Give ``fuse`` one stream per modality; a missing one is a masked token."""

    tokens = True

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor] | None = None
    ) -> Float[Tensor, "B D"]:
        """Fuse sequences (B, N_m, D) with masks (B, N_m); see ``Fusion``."""
        if self.here(features, present) is None:
            return self.fuse([(features[name], None) for name in self.modalities])
        return self.fuse(self._streams(features, present or {}))

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Fuse the streams, in the order of ``modalities``."""
        raise NotImplementedError

    def _streams(self, features: dict[str, Tensor], present: dict) -> list[Stream]:
        one = next(iter(features.values()))
        nothing = one.new_zeros(len(one), 1, one.shape[-1])
        streams = []
        for name in self.modalities:
            x = features.get(name, nothing)
            real = present.get(name)
            if real is None:
                real = torch.full(x.shape[:2], name in features, device=x.device)
            # What a masked token holds, NaN even, must not reach anything.
            streams.append((torch.where(real[..., None], x, nothing[:, :1]), real))
        return streams


def join(streams: list[Stream]) -> Stream:
    """Put streams end to end: one sequence and its mask."""
    tokens, masks = zip(*streams, strict=True)
    mask = None if masks[0] is None else torch.cat(masks, dim=1)
    return torch.cat(tokens, dim=1), mask


def pool(streams: list[Stream]) -> Float[Tensor, "B D"]:
    """Average each modality's real tokens, then the modalities that have any."""
    means = torch.stack([mean(x, real) for x, real in streams], dim=1)
    return mean(means, _here(streams))


def _here(streams: list[Stream]) -> Bool[Tensor, "B M"] | None:
    if streams[0][1] is None:
        return None
    return torch.stack([real.any(dim=1) for _, real in streams], dim=1)


def mean(x: Tokens, real: Mask) -> Float[Tensor, "B D"]:
    """Average the real tokens of each row; zeros where there is none."""
    if real is None:
        return x.mean(dim=1)
    weight = real[..., None].to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class CrossBlock(nn.Module):
    """Queries look at a context, then an MLP; both are added to the queries.

    x + tanh(a) attend(norm(x), norm(c)), then x + tanh(b) mlp(norm(x)). With ``gated``
    a and b are learned and start at 0, so that the block starts as the identity
    (Flamingo: Alayrac et al., 2022, arXiv 2204.14198); without, the tanh are 1.
    ``with_self``: keys and values are those of [x; c] (Perceiver resampler).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int | None = None,
        *,
        gated: bool = False,
        with_self: bool = False,
    ):
        super().__init__()
        self.with_self = with_self
        self.norm, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim if hidden is None else hidden)
        self.gates = nn.Parameter(torch.zeros(2)) if gated else None

    def forward(
        self,
        x: Tokens,
        context: Float[Tensor, "B K D"],
        mask: Bool[Tensor, "B K"] | None = None,
    ) -> Tokens:
        """Read the context; ``mask`` is True for its real tokens."""
        a, b = (1.0, 1.0) if self.gates is None else self.gates.tanh()
        q, c = self.norm(x), self.norm_context(context)
        if self.with_self:
            c = torch.cat([q, c], dim=1)
            if mask is not None:
                mask = torch.cat([mask.new_ones(x.shape[:2]), mask], dim=1)
        x = x + a * self.attention(q, c, mask)
        return x + b * self.mlp(self.norm_mlp(x))


class CoAttention(TokenFusion):
    """Streams that exchange keys and values: each asks, all the others answer.

    A layer: x_m <- x_m + attend(x_m, others), MLP; then self-attention, MLP, in every
    stream at once. Lu et al., 2019 (ViLBERT), arXiv 1908.02265.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, heads: int = 4, depth: int = 1
    ):
        super().__init__(modalities)
        each = range(len(self.modalities))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "cross": nn.ModuleList(CrossBlock(dim, heads) for _ in each),
                    "own": nn.ModuleList(Block(dim, heads) for _ in each),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Exchange, think, exchange again; then pool."""
        masks = [real for _, real in streams]
        for layer in self.layers:
            crossed = []
            for i, (x, _) in enumerate(streams):
                context, mask = join(streams[:i] + streams[i + 1 :])
                crossed.append(layer["cross"][i](x, context, mask))
            own = zip(layer["own"], crossed, masks, strict=True)
            streams = [(block(x, real), real) for block, x, real in own]
        return pool([(self.norm(x), real) for x, real in streams])


class CrossModal(TokenFusion):
    """A Transformer for each ordered pair: the target asks, a source answers.

    Z <- Z + attend(Z, X_source), MLP, where the source stays as it came in at every
    layer. A target's streams are joined along their width and pass self-attention.
    Tsai et al., 2019 (MulT), arXiv 1906.00295.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, heads: int = 4, depth: int = 1
    ):
        super().__init__(modalities)
        m = len(self.modalities)
        self.pairs = nn.ModuleDict(
            {
                f"{source}_to_{target}": nn.ModuleList(
                    CrossBlock(dim, heads) for _ in range(depth)
                )
                for target in self.modalities
                for source in self.modalities
                if source != target
            }
        )
        self.mix = nn.ModuleList(nn.Linear((m - 1) * dim, dim) for _ in range(m))
        self.own = nn.ModuleList(Encoder(dim, 1, heads) for _ in range(m))

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Let each modality read every other one; then pool."""
        out = []
        for i, (target, (x, real)) in enumerate(
            zip(self.modalities, streams, strict=True)
        ):
            read = []
            for source, (context, mask) in zip(self.modalities, streams, strict=True):
                if source != target:
                    z = x
                    for block in self.pairs[f"{source}_to_{target}"]:
                        z = block(z, context, mask)
                    read.append(z)
            mixed = self.mix[i](torch.cat(read, dim=-1))
            out.append((self.own[i](mixed, real), real))
        return pool(out)


class Bottleneck(TokenFusion):
    """All that modalities tell each other passes through a few shared tokens.

    A layer: [x_m; z_m] <- block_m([x_m; z]) in each modality, then z is the mean of the
    z_m. The first ``alone`` layers are without z. A modality's attention costs
    (N_m + Z)^2 instead of (N_1 + ... + N_M)^2.
    Nagrani et al., 2021 (MBT), arXiv 2107.00135.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        heads: int = 4,
        depth: int = 2,
        alone: int = 0,
        shared: int = 4,
    ):
        super().__init__(modalities)
        if not 0 <= alone < depth or shared < 1:
            raise ValueError(
                f"depth={depth}, alone={alone}, shared={shared}: at least one layer "
                "with at least one shared token is needed"
            )
        each = range(len(self.modalities))
        self.layers = nn.ModuleList(
            nn.ModuleList(Block(dim, heads) for _ in each) for _ in range(depth)
        )
        self.alone = alone
        self.shared = nn.Parameter(0.02 * torch.randn(shared, dim))
        self.norm = nn.LayerNorm(dim)

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Pass through the layers; then pool."""
        z = repeat(self.shared, "z d -> b z d", b=len(streams[0][0]))
        for i, layer in enumerate(self.layers):
            if i < self.alone:
                parts = zip(layer, streams, strict=True)
                streams = [(block(x, real), real) for block, (x, real) in parts]
            else:
                streams, z = self._layer(layer, streams, z)
        return pool([(self.norm(x), real) for x, real in streams])

    def _layer(self, layer, streams: list[Stream], z: Float[Tensor, "B Z D"]):
        updated, copies = [], []
        for block, (x, real) in zip(layer, streams, strict=True):
            shared = None if real is None else real.new_ones(z.shape[:2])
            both, mask = join([(x, real), (z, shared)])
            x, own = block(both, mask).split([x.shape[1], z.shape[1]], dim=1)
            updated.append((x, real))
            copies.append(own)
        flat = torch.stack(copies, dim=1).flatten(2)
        return updated, mean(flat, _here(streams)).view_as(z)


class SeveralDepths(TokenFusion):
    """Fuse early, in the middle and late at once, and learn how much each depth counts.

    Every modality passes its own blocks; the pooled vectors of every depth, the input
    included, are fused by a feature-level ``fusion``, and softmax weights add them up.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        heads: int = 4,
        depth: int = 2,
        fusion=WeightedSum,
    ):
        super().__init__(modalities)
        each = range(len(self.modalities))
        self.layers = nn.ModuleList(
            nn.ModuleList(Block(dim, heads) for _ in each) for _ in range(depth)
        )
        self.fusions = nn.ModuleList(fusion(modalities, dim) for _ in range(depth + 1))
        self.scores = nn.Parameter(torch.zeros(depth + 1))

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Fuse at every depth; add up by weight."""
        fused = [self._fused(self.fusions[0], streams)]
        for layer, fusion in zip(self.layers, self.fusions[1:], strict=True):
            parts = zip(layer, streams, strict=True)
            streams = [(block(x, real), real) for block, (x, real) in parts]
            fused.append(self._fused(fusion, streams))
        weights = self.scores.softmax(dim=0)
        return torch.einsum("l,lbd->bd", weights, torch.stack(fused))

    def _fused(self, fusion: Fusion, streams: list[Stream]) -> Float[Tensor, "B D"]:
        means = [mean(x, real) for x, real in streams]
        here = _here(streams)
        present = None
        if here is not None:
            present = dict(zip(self.modalities, here.unbind(dim=1), strict=True))
        return fusion(dict(zip(self.modalities, means, strict=True)), present)
