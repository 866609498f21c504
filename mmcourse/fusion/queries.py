"""Hybrid-level fusion by queries: a few learned tokens read a modality for another.

The bridges of Flamingo and BLIP-2 between a picture and a language model. Taught in
05_fusion and 13_vision_language_model.
"""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmcourse.attention import MultiHeadAttention
from mmcourse.fusion.hybrid import (
    CrossBlock,
    Mask,
    Stream,
    TokenFusion,
    Tokens,
    join,
    mean,
)
from mmcourse.transformer import MLP


class PerceiverResampler(nn.Module):
    """Any number of tokens in, ``latents`` tokens out, at a cost linear in N.

    Learned latents z read [z; x] layer after layer. Jaegle et al., 2021 (Perceiver),
    arXiv 2103.03206; Alayrac et al., 2022 (Flamingo), arXiv 2204.14198.
    """

    def __init__(self, dim: int, heads: int = 4, latents: int = 8, depth: int = 2):
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(latents, dim))
        self.blocks = nn.ModuleList(
            CrossBlock(dim, heads, with_self=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tokens, mask: Mask | None = None) -> Float[Tensor, "B K D"]:
        """Resample tokens; ``mask`` is True where real."""
        z = repeat(self.latents, "k d -> b k d", b=len(x))
        for block in self.blocks:
            z = block(z, x, mask)
        return self.norm(z)


class GatedCrossAttention(TokenFusion):
    """The first modality reads the others, resampled, through gates that start shut.

    At the start it is the mean of the first modality's tokens, whatever the others say:
    a pretrained stream is not disturbed. A learned token stands in where the first is
    missing. Alayrac et al., 2022 (Flamingo), arXiv 2204.14198.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        heads: int = 4,
        depth: int = 1,
        latents: int = 8,
    ):
        super().__init__(modalities)
        self.resamplers = nn.ModuleList(
            PerceiverResampler(dim, heads, latents) for _ in self.modalities[1:]
        )
        self.blocks = nn.ModuleList(
            CrossBlock(dim, heads, gated=True) for _ in range(depth)
        )
        self.absent = nn.Parameter(0.02 * torch.randn(dim))

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Read through the gates; then pool the first modality."""
        (x, real), *others = streams
        if real is not None:
            first = torch.arange(x.shape[1], device=x.device) == 0
            stand_in = ~real.any(dim=1, keepdim=True) & first
            x, real = torch.where(stand_in[..., None], self.absent, x), real | stand_in
        context, mask = self._context(others)
        for block in self.blocks:
            x = block(x, context, mask)
        return mean(x, real)

    def _context(self, others: list[Stream]) -> Stream:
        latents = []
        for resampler, (x, real) in zip(self.resamplers, others, strict=True):
            z = resampler(x, real)
            if real is not None:
                real = repeat(real.any(dim=1), "b -> b k", k=z.shape[1])
            latents.append((z, real))
        return join(latents)


def qformer_mask(queries: int, text: int, kind: str) -> Bool[Tensor, "N N"]:
    """Say who sees whom in [queries; text]: the three objectives differ by this alone.

    "unimodal" (contrast): each sees only its own kind. "causal" (captioning): queries
    see queries, a word sees the queries and the words so far. "full" (matching): all
    see all.
    """
    kinds = ("unimodal", "causal", "full")
    if kind not in kinds:
        raise ValueError(f"kind={kind!r}: choose from {kinds}")
    is_query = torch.arange(queries + text) < queries
    same = is_query[:, None] == is_query[None]
    if kind == "unimodal":
        return same
    if kind == "full":
        return torch.ones_like(same)
    earlier = torch.ones_like(same).tril()
    return is_query[None] | (~is_query[:, None] & earlier)


class QFormer(TokenFusion):
    """Learned queries look into the first modality and talk with the others.

    Self-attention over [queries; others] under ``qformer_mask``; in every second block
    the queries cross-attend to the first modality; an MLP for queries and one for the
    rest. Pooled are the queries. Li et al., 2023 (BLIP-2), arXiv 2301.12597.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        heads: int = 4,
        depth: int = 2,
        queries: int = 8,
        kind: str = "full",
    ):
        super().__init__(modalities)
        qformer_mask(1, 1, kind)
        self.kind = kind
        self.queries = nn.Parameter(0.02 * torch.randn(queries, dim))
        self.blocks = nn.ModuleList(
            _QFormerBlock(dim, heads, cross=i % 2 == 0, last=i == depth - 1)
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def fuse(self, streams: list[Stream]) -> Float[Tensor, "B D"]:
        """Ask; then pool the queries."""
        (context, context_mask), *others = streams
        text, real = join(others)
        q = repeat(self.queries, "q d -> b q d", b=len(text))
        mask = self._mask(q, text, real)
        for block in self.blocks:
            q, text = block(q, text, mask, context, context_mask)
        return self.norm(q).mean(dim=1)

    def _mask(self, q: Tensor, text: Tensor, real: Tensor | None) -> Tensor | None:
        if real is None and self.kind == "full":
            return None
        mask = qformer_mask(q.shape[1], text.shape[1], self.kind).to(text.device)
        mask = mask.expand(len(q), -1, -1)
        if real is None:
            return mask
        return mask & torch.cat([real.new_ones(q.shape[:2]), real], dim=1)[:, None]


class _QFormerBlock(nn.Module):
    """``last``: only the queries go on, so that nothing is computed for the others."""

    def __init__(self, dim: int, heads: int, *, cross: bool, last: bool):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), MultiHeadAttention(dim, heads)
        self.norm_text = None if last else nn.LayerNorm(dim)
        self.mlp_text = None if last else MLP(dim, 4 * dim)
        self.norm_cross = nn.LayerNorm(dim) if cross else None
        self.cross = MultiHeadAttention(dim, heads) if cross else None
        self.norm_query, self.mlp_query = nn.LayerNorm(dim), MLP(dim, 4 * dim)

    def forward(
        self,
        q: Float[Tensor, "B Q D"],
        text: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B N N"] | None,
        context: Float[Tensor, "B K D"],
        context_mask: Bool[Tensor, "B K"] | None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B L D"]]:
        n, x = q.shape[1], torch.cat([q, text], dim=1)
        seen = self.norm(x)
        if self.norm_text is None:
            q = q + self.attention(
                seen[:, :n], seen, None if mask is None else mask[:, :n]
            )
        else:
            x = x + self.attention(seen, None, mask)
            q, text = x.split([n, text.shape[1]], dim=1)
        if self.cross is not None:
            q = q + self.cross(self.norm_cross(q), context, context_mask)
        q = q + self.mlp_query(self.norm_query(q))
        if self.mlp_text is not None:
            text = text + self.mlp_text(self.norm_text(text))
        return q, text
