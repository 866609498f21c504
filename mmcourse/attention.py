"""Attention: which tokens matter to this one, and how much?

``attention`` is the equation in plain maths; ``MultiHeadAttention`` computes the same
on the fused kernels of torch. Vaswani et al., 2017, arXiv 1706.03762; grouped-query
heads: Ainslie et al., 2023, arXiv 2305.13245. Taught in 02_self_attention.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def attention(
    q: Float[Tensor, "... N D"],
    k: Float[Tensor, "... K D"],
    v: Float[Tensor, "... K E"],
    mask: Bool[Tensor, "... #N K"] | None = None,
) -> tuple[Float[Tensor, "... N E"], Float[Tensor, "... N K"]]:
    """Mix the values, each query by its own weights; return the mixtures and weights.

    softmax(Q K^T / sqrt(d_k)) V. ``mask`` is True where a query may look; a query that
    may look nowhere gets zeros, in its weights and in its output.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        _check_bool(mask)
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(dim=-1)
    if mask is not None:  # a row of -inf alone has the softmax NaN
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ v, weights


def causal_mask(n: int, keys: int, device=None) -> Bool[Tensor, "N K"]:
    """Let each token see itself and what came before; the last query sees all keys."""
    every = torch.ones(n, keys, dtype=torch.bool, device=device)
    return every.tril(diagonal=keys - n)


class KVCache:
    """The keys and values of the tokens so far, in memory laid out once.

    A new token then costs one row of attention instead of the whole matrix. Room for
    ``length`` tokens: (B, H, length, D) each; ``used`` of them are filled.
    """

    def __init__(
        self, batch: int, heads: int, length: int, dim: int, device=None, dtype=None
    ):
        shape = (2, batch, heads, length, dim)
        self.room = torch.empty(shape, device=device, dtype=dtype)
        self.used = 0

    def append(
        self, k: Float[Tensor, "B H N D"], v: Float[Tensor, "B H N D"]
    ) -> tuple[Float[Tensor, "B H K D"], Float[Tensor, "B H K D"]]:
        """Add tokens and return all keys and values so far, as views."""
        end = self.used + k.shape[2]
        if end > self.room.shape[3]:
            raise ValueError(
                f"the cache has room for {self.room.shape[3]} tokens, not {end}: make "
                "it longer, or stop generating"
            )
        self.room[0, :, :, self.used : end] = k
        self.room[1, :, :, self.used : end] = v
        self.used = end
        return self.read()

    def read(self) -> tuple[Float[Tensor, "B H K D"], Float[Tensor, "B H K D"]]:
        """Return the keys and values so far."""
        return self.room[0, :, :, : self.used], self.room[1, :, :, : self.used]

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these rows of the batch, in this order: beam search drops and copies."""
        self.room = self.room[:, rows]


class Attend(nn.Module):
    """Attention on torch's fused kernels, which never store the (N, K) weights.

    Keys and values may have fewer heads: each serves H / h queries in a row. A hook on
    this module sees q, k, v and the mask: ``attention`` gives the weights of the same
    output (``mmcourse.interpret`` does that).
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} is a probability: choose 0 to 1")
        self.dropout = dropout

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B h K D"],
        v: Float[Tensor, "B h K D"],
        mask: Bool[Tensor, "B #H #N K"] | None,
        causal: bool,
    ) -> Float[Tensor, "B H N D"]:
        """Attend; ``causal``: query n sees keys 0 to n, and ``mask`` is None."""
        drop = self.dropout if self.training else 0.0
        kind = {"dropout_p": drop, "enable_gqa": k.shape[1] < q.shape[1]}
        if mask is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **kind)
        # A row without keys would be NaN in some kernels: it looks at all of them,
        # and its output is then set to zero, so that gradients stay clean too.
        some = mask.any(dim=-1, keepdim=True)
        out = F.scaled_dot_product_attention(q, k, v, mask | ~some, **kind)
        return out.masked_fill(~some, 0.0)


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on D / H of the width; then one projection.

    head_h = attention(x W_q^h, c W_k^h, c W_v^h), out = [head_1; ...; head_H] W_o,
    where c is x itself (self-attention) or a ``context`` (cross-attention).
    With ``kv_heads`` < ``heads``, groups of queries share keys and values. ``rotary``
    turns queries and keys by their position (``mmcourse.transformer.Rotary``);
    ``qk_norm`` makes a normalisation for each head's queries and keys. ``qkv_bias`` is
    ``bias`` where None.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        bias: bool = True,
        qkv_bias: bool | None = None,
        rotary: nn.Module | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        _check_heads(dim, heads, kv_heads)
        self.dim, self.heads, self.kv_heads = dim, heads, kv_heads
        self.head_dim = dim // heads
        kv_dim = kv_heads * self.head_dim
        # One product is faster than three; the first ``dim`` rows make the queries.
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.qkv = nn.Linear(dim, dim + 2 * kv_dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.rotary = rotary
        self.q_norm = nn.Identity() if qk_norm is None else qk_norm(self.head_dim)
        self.k_norm = nn.Identity() if qk_norm is None else qk_norm(self.head_dim)
        self.attend = Attend(dropout)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B K D"] | None = None,
        mask: Bool[Tensor, "B K"] | Bool[Tensor, "B N K"] | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Attend from x to itself or to ``context``.

        ``mask`` is True for real keys, (B, K), or where query n may look, (B, N, K).
        ``cache`` keeps the keys and values: of x, all tokens so far; of a context,
        those of the first call, which later calls use again.
        """
        _check_tokens(x, context, self.dim)
        q, k, v = self._project(x, context, cache)
        n, keys = q.shape[2], k.shape[2]
        if mask is not None:
            _check_mask(mask, len(x), n, keys)
            mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
        if causal and n > 1 and (mask is not None or n != keys):
            earlier = causal_mask(n, keys, x.device)
            mask = earlier.expand(len(x), 1, -1, -1) if mask is None else mask & earlier
        out = self.attend(q, k, v, mask, causal and mask is None and n > 1)
        return self.out(rearrange(out, "b h n d -> b n (h d)"))

    def _project(self, x: Tensor, context: Tensor | None, cache: KVCache | None):
        """Return queries (B, H, N, D), and keys and values (B, kv_heads, K, D)."""
        if context is None:
            kv_dim = self.kv_heads * self.head_dim
            parts = self.qkv(x).split([self.dim, kv_dim, kv_dim], dim=-1)
            q, k, v = (self._heads(part) for part in parts)
        else:
            q = self._heads(self._linear(x, slice(0, self.dim)))
            if cache is not None and cache.used > 0:
                return self.q_norm(q), *cache.read()
            both = self._linear(context, slice(self.dim, None))
            k, v = (self._heads(part) for part in both.chunk(2, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None and context is None:
            start = 0 if cache is None else cache.used
            q, k = self.rotary(q, start), self.rotary(k, start)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _linear(self, x: Tensor, rows: slice) -> Tensor:
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(x, self.qkv.weight[rows], bias)

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", d=self.head_dim)


def _check_heads(dim: int, heads: int, kv_heads: int) -> None:
    for name, size in (("dim", dim), ("heads", heads), ("kv_heads", kv_heads)):
        if not hasattr(size, "__index__"):
            raise ValueError(f"{name}={size} is no whole number: give an int")
    if dim < 1:
        raise ValueError(f"dim={dim} leaves no width for a token: choose 1 or more")
    for name, whole, part in (("dim", dim, heads), ("heads", heads, kv_heads)):
        if part < 1 or whole % part != 0:
            other = "heads" if name == "dim" else "kv_heads"
            fit = [n for n in range(1, whole + 1) if whole % n == 0]
            shown = ", ".join(map(str, fit[:8])) + ("..." if len(fit) > 8 else "")
            raise ValueError(
                f"{name}={whole} is not divisible by {other}={part}: choose {other} "
                f"from {shown}"
            )


def _check_tokens(x: Tensor, context: Tensor | None, dim: int) -> None:
    for name, tokens in (("x", x), ("context", context)):
        if tokens is not None and (tokens.ndim != 3 or tokens.shape[-1] != dim):
            raise ValueError(
                f"{name} has the shape {tuple(tokens.shape)}: (B, N, {dim}) is needed, "
                f"rows of tokens of width dim={dim}"
            )
    if context is not None and len(context) != len(x):
        raise ValueError(
            f"x has {len(x)} rows and context {len(context)}: each row of x needs its "
            "own context"
        )


def _check_bool(mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(
            f"the mask holds {mask.dtype}: use mask.bool(), True where a query may look"
        )


def _check_mask(mask: Tensor, batch: int, n: int, keys: int) -> None:
    _check_bool(mask)
    if tuple(mask.shape) not in ((batch, keys), (batch, n, keys)):
        raise ValueError(
            f"the mask has the shape {tuple(mask.shape)}: ({batch}, {keys}) or "
            f"({batch}, {n}, {keys}) is needed, True where a query may look"
        )
