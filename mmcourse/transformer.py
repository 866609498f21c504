"""The Transformer: positions, blocks, an encoder, a decoder, and how text is generated.

Vaswani et al., 2017, arXiv 1706.03762; pre-norm blocks: Xiong et al., 2020, arXiv
2002.04745; RMSNorm: Zhang & Sennrich, 2019, arXiv 1910.07467; gated MLP: Shazeer, 2020,
arXiv 2002.05202; rotary positions: Su et al., 2021, arXiv 2104.09864. Taught in
03_transformer.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse import pretrained
from mmcourse.attention import KVCache, MultiHeadAttention

POSITIONS = ("learned", "sinusoidal", "rotary")

# --- positions --------------------------------------------------------------------


def sinusoidal(positions: Float[Tensor, " N"], dim: int) -> Float[Tensor, "N D"]:
    """Write each position as ``dim`` / 2 pairs of a sine and a cosine.

    p_{n,2i} = sin(n / 10000^(2i/D)), p_{n,2i+1} = cos of the same: fast waves tell
    neighbours apart, slow ones tell the beginning from the end.
    """
    if dim % 2 != 0:
        raise ValueError(f"dim={dim}: sines and cosines come in pairs, choose it even")
    steps = torch.arange(0, dim, 2, device=positions.device) / dim
    angle = positions[:, None] / 10_000**steps
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Rotary(nn.Module):
    """Turn each pair of coordinates of a query or key by an angle that grows with n.

    (x_i, x_{i+D/2}) is turned by n / base^(2i/D), so that a score q_n . k_m depends on
    the distance n - m alone. No parameters. ``dim`` is that of one head.
    """

    def __init__(self, dim: int, length: int, base: float = 10_000.0):
        super().__init__()
        if dim % 2 != 0:
            raise ValueError(f"dim={dim} of a head: pairs are turned, choose it even")
        angle = torch.arange(length)[:, None] / base ** (torch.arange(0, dim, 2) / dim)
        angle = torch.cat([angle, angle], dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(
        self, x: Float[Tensor, "B H N D"], start: int = 0
    ) -> Float[Tensor, "B H N D"]:
        """Turn tokens that stand at ``start``, ``start`` + 1, ..."""
        end = start + x.shape[2]
        if end > len(self.cos):
            raise ValueError(f"{end} tokens, but positions for {len(self.cos)} only")
        cos = self.cos[start:end].to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], -1) * self.sin[start:end].to(cos)


class TokenEmbedding(nn.Module):
    """A row of numbers for each token, and for "learned" and "sinusoidal" each place.

    ``positions="rotary"`` adds none here: the attention layers turn by position.
    """

    def __init__(self, vocab: int, length: int, dim: int, positions: str = "learned"):
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions={positions!r}: choose from {POSITIONS}")
        self.length = length
        self.token = nn.Embedding(vocab, dim)
        nn.init.normal_(self.token.weight, std=0.02)
        if positions == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        else:
            table = None
            if positions == "sinusoidal":
                table = sinusoidal(torch.arange(length).float(), dim)
            self.register_buffer("position", table, persistent=False)

    def forward(self, tokens: Int[Tensor, "B N"], start: int = 0) -> Tensor:
        """Embed tokens (B, N) that stand at ``start``, ...: (B, N, D)."""
        end = start + tokens.shape[1]
        if end > self.length:
            raise ValueError(f"{end} tokens, but there is room for {self.length}")
        x = self.token(tokens)
        return x if self.position is None else x + self.position[start:end]


# --- blocks -----------------------------------------------------------------------


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x): what OpenAI's CLIP took for a GELU."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Bend each number by itself."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


class MLP(nn.Module):
    """Two linear maps with a bend between them, for each token by itself."""

    def __init__(self, dim: int, hidden: int, *, bias: bool = True, activation=nn.GELU):
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.activation = activation()
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """W_2 act(W_1 x)."""
        return self.down(self.activation(self.up(x)))


class GatedMLP(nn.Module):
    """An MLP whose hidden numbers a second product opens and closes (SwiGLU)."""

    def __init__(self, dim: int, hidden: int, *, bias: bool = True, activation=nn.SiLU):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=bias)
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.activation = activation()
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """W_2 (act(W_g x) * W_1 x)."""
        return self.down(self.activation(self.gate(x)) * self.up(x))


class LayerScale(nn.Module):
    """Multiply a branch by a learned number per channel, small at first."""

    def __init__(self, dim: int, start: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """scale * x."""
        return x * self.scale


class Block(nn.Module):
    """Attention, then an MLP, each added to the residual stream x.

    Pre-norm: x + f(norm(x)), which trains at any depth. Post-norm: norm(x + f(x)), as
    in the first Transformer and BERT. With ``cross``, a second attention, to a context,
    stands between the two. ``attention`` holds keywords of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int | None = None,
        *,
        pre_norm: bool = True,
        norm=nn.LayerNorm,
        mlp=MLP,
        bias: bool = True,
        cross: bool = False,
        dropout: float = 0.0,
        layer_scale: float | None = None,
        **attention,
    ):
        super().__init__()
        hidden = 4 * dim if hidden is None else hidden
        self.pre_norm = pre_norm
        kwargs = {"bias": bias, "dropout": dropout}
        self.attention = MultiHeadAttention(dim, heads, **kwargs, **attention)
        self.cross = MultiHeadAttention(dim, heads, **kwargs) if cross else None
        self.mlp = mlp(dim, hidden, bias=bias)
        branches = ["attention", *(["cross"] if cross else []), "mlp"]
        self.norms = nn.ModuleDict({b: norm(dim) for b in branches})
        self.scales = nn.ModuleDict(
            {
                b: nn.Identity()
                if layer_scale is None
                else LayerScale(dim, layer_scale)
                for b in branches
            }
        )
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B K"] | Bool[Tensor, "B N K"] | None = None,
        context: Float[Tensor, "B K2 D"] | None = None,
        context_mask: Bool[Tensor, "B K2"] | None = None,
        *,
        causal: bool = False,
        cache: "BlockCache | None" = None,
    ) -> Float[Tensor, "B N D"]:
        """Apply the block; ``mask`` is over x, ``context_mask`` over the context."""
        own, other = (None, None) if cache is None else cache
        x = self._add(
            x,
            "attention",
            lambda h: self.attention(h, None, mask, causal=causal, cache=own),
        )
        if self.cross is not None and context is not None:
            x = self._add(
                x, "cross", lambda h: self.cross(h, context, context_mask, cache=other)
            )
        return self._add(x, "mlp", self.mlp)

    def _add(self, x: Tensor, branch: str, f) -> Tensor:
        norm, scale = self.norms[branch], self.scales[branch]
        if self.pre_norm:
            return x + self.drop(scale(f(norm(x))))
        return norm(x + self.drop(scale(f(x))))


BlockCache = tuple[KVCache, KVCache | None]  # of the tokens, of the context


class Encoder(nn.Module):
    """A stack of blocks in which every token sees every real one.

    ``block`` holds keywords of ``Block``. Pre-norm stacks end with a norm, since
    their residual stream has never passed one.
    """

    def __init__(self, dim: int, depth: int, heads: int, **block):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, **block) for _ in range(depth))
        norm = block.get("norm", nn.LayerNorm)
        self.norm = norm(dim) if block.get("pre_norm", True) else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B N"] | Bool[Tensor, "B N N"] | None = None,
        *,
        causal: bool = False,
    ) -> Float[Tensor, "B N D"]:
        """Encode tokens; ``mask`` is True where real (B, N) or where to look."""
        for block in self.blocks:
            x = block(x, mask, causal=causal)
        return self.norm(x)


# --- the decoder ------------------------------------------------------------------


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder is made of.

    ``length`` is the most tokens it takes; ``positions`` learned, sinusoidal or rotary;
    ``norm`` layer or rms. The defaults are GPT's; ``Decoder.from_llama`` has Llama's.
    """

    vocab: int
    length: int
    dim: int = 128
    depth: int = 4
    heads: int = 4
    kv_heads: int | None = None
    hidden: int | None = None
    positions: str = "learned"
    rotary_base: float = 10_000.0
    norm: str = "layer"
    norm_eps: float = 1e-5
    gated: bool = False
    bias: bool = True
    pre_norm: bool = True
    cross: bool = False
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        """Refuse what no decoder can be."""
        for name in ("vocab", "length", "dim", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if self.norm not in ("layer", "rms"):
            raise ValueError(f"norm={self.norm!r}: choose layer or rms")


class Decoder(nn.Module):
    """A language model: each token sees those before it and predicts the next.

    With ``cross`` in its config it also attends to a context, such as the tokens of a
    picture. ``forward`` gives logits (B, N, V).
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = c = config
        self.embed = TokenEmbedding(c.vocab, c.length, c.dim, c.positions)
        norm = nn.LayerNorm if c.norm == "layer" else nn.RMSNorm
        norm = partial(norm, eps=c.norm_eps)
        rotary = None
        if c.positions == "rotary":
            rotary = Rotary(c.dim // c.heads, c.length, c.rotary_base)
        self.blocks = nn.ModuleList(
            Block(
                c.dim,
                c.heads,
                c.hidden,
                pre_norm=c.pre_norm,
                norm=norm,
                mlp=GatedMLP if c.gated else MLP,
                bias=c.bias,
                cross=c.cross,
                dropout=c.dropout,
                kv_heads=c.kv_heads,
                rotary=rotary,
            )
            for _ in range(c.depth)
        )
        self.norm = norm(c.dim) if c.pre_norm else nn.Identity()
        self.head = nn.Linear(c.dim, c.vocab, bias=False)
        if c.tied:
            self.head.weight = self.embed.token.weight

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        context: Float[Tensor, "B K D"] | None = None,
        context_mask: Bool[Tensor, "B K"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        cache: list[BlockCache] | None = None,
        last: bool = False,
    ) -> Float[Tensor, "B N2 V"]:
        """Return the logits of each next token; ``mask`` is True where real.

        With a ``cache``, ``tokens`` are only those that it doesn't hold yet. ``last``:
        of the last token alone, N2 = 1; whoever writes needs no others of a prompt.
        """
        x = self.embed(tokens, 0 if cache is None else cache[0][0].used)
        x = self.read(x, context, context_mask, mask=mask, cache=cache, last=last)
        return self.head(x)

    def read(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B K D"] | None = None,
        context_mask: Bool[Tensor, "B K"] | None = None,
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        cache: list[BlockCache] | None = None,
        last: bool = False,
    ) -> Float[Tensor, "B N2 D"]:
        """Return what ``head`` makes logits of, from tokens that are embedded already.

        They needn't come from the table: a picture's may stand among them.
        """
        for i, block in enumerate(self.blocks):
            own = None if cache is None else cache[i]
            x = block(x, mask, context, context_mask, causal=True, cache=own)
        return self.norm(x[:, -1:] if last else x)

    def new_cache(self, batch: int, length: int, keys: int = 0) -> list[BlockCache]:
        """Lay out caches for ``length`` tokens and ``keys`` tokens of a context."""
        like = {"device": self.head.weight.device, "dtype": self.head.weight.dtype}

        def cache(attention: MultiHeadAttention, room: int) -> KVCache:
            return KVCache(batch, attention.kv_heads, room, attention.head_dim, **like)

        return [
            (cache(b.attention, length), cache(b.cross, keys) if keys > 0 else None)
            for b in self.blocks
        ]

    @classmethod
    def from_llama(cls, model: nn.Module) -> "Decoder":
        """Copy the weights of transformers' LlamaForCausalLM (SmolLM2 is one)."""
        config, tensors = pretrained.of_llama(model)
        return pretrained.load(cls(DecoderConfig(**config)), tensors, "from_llama")
