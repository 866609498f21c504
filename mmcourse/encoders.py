"""Encoders: a modality goes in, tokens (B, N, D) and their mask (B, N) come out.

``pool`` makes one vector (B, D) of them. ``TextEncoder`` is ours, to train or to hold
BERT's weights. The others are pretrained and frozen: their ``embed`` takes any number
of pictures or sentences and keeps the answer on disk, so that nothing is encoded
twice. Taught in 00_welcome, 03_transformer and 08_multimodal_pretraining.

EfficientNet: Tan & Le, 2019, arXiv 1905.11946. MiniLM: Wang et al., 2020, arXiv
2002.10957. Sentence embeddings by mean pooling: Reimers & Gurevych, 2019, arXiv
1908.10084. Universal Sentence Encoder: Yang et al., 2019, arXiv 1907.04307.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from mmcourse import assets, pretrained
from mmcourse.tokenizers import pad
from mmcourse.transformer import ACTIVATIONS, MLP, Encoder, TokenEmbedding


def mean_pool(
    tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B D"]:
    """Average the real tokens of each row: sum_n m_n x_n / sum_n m_n."""
    _check_real(mask)
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)


def last_pool(
    tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
) -> Float[Tensor, "B D"]:
    """Take the last real token of each row."""
    _check_real(mask)
    last = mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def _check_real(mask: Bool[Tensor, "B N"]) -> None:
    if not mask.any(dim=1).all():
        row = int((~mask.any(dim=1)).nonzero()[0])
        raise ValueError(f"row {row} of the mask is all padding: nothing to pool")


@dataclass(frozen=True)
class TextEncoderConfig:
    """What a text encoder is made of; BERT's differences are ``from_bert``'s.

    ``causal`` lets a token see only those before it, as CLIP's text tower does; then
    ``pool`` takes the "last" real token, which saw them all, not the "mean".
    """

    vocab: int
    length: int
    dim: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int | None = None
    positions: str = "learned"
    pre_norm: bool = True
    embed_norm: bool = False
    norm_eps: float = 1e-5
    activation: str = "gelu"
    causal: bool = False
    pool: str = "mean"
    dropout: float = 0.0

    def __post_init__(self):
        """Refuse a pooling or an activation that there isn't."""
        if self.pool not in ("mean", "last"):
            raise ValueError(f'pool={self.pool!r}: choose "mean" or "last"')
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation={self.activation!r}: choose from {[*ACTIVATIONS]}"
            )


class TextEncoder(nn.Module):
    """Token and position embeddings, then an encoder: BERT, small or real.

    Devlin et al., 2019, arXiv 1810.04805.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = c = config
        norm = partial(nn.LayerNorm, eps=c.norm_eps)
        self.embed = TokenEmbedding(c.vocab, c.length, c.dim, c.positions)
        self.embed_norm = norm(c.dim) if c.embed_norm else nn.Identity()
        kwargs = {"pre_norm": c.pre_norm, "norm": norm, "dropout": c.dropout}
        kwargs["mlp"] = partial(MLP, activation=ACTIVATIONS[c.activation])
        self.encoder = Encoder(c.dim, c.depth, c.heads, hidden=c.hidden, **kwargs)

    def forward(
        self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Encode token ids; ``mask`` is True where real, None where all are."""
        x = self.embed_norm(self.embed(tokens))
        x = self.encoder(x, mask, causal=self.config.causal)
        return x, torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask

    def pool(
        self, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        """Make one vector of a text: the mean of its real tokens, or the last one."""
        pooled = {"mean": mean_pool, "last": last_pool}
        return pooled[self.config.pool](tokens, mask)

    @classmethod
    def from_bert(cls, model: nn.Module) -> "TextEncoder":
        """Copy the weights of transformers' BertModel (MiniLM is one)."""
        config, tensors = pretrained.of_bert(model)
        return pretrained.load(cls(TextEncoderConfig(**config)), tensors, "from_bert")


class ConvEncoder(nn.Module):
    """A few convolutions, trained from nothing: a square picture to a grid of tokens.

    Each of ``widths`` halves the picture: its layer looks at every second place, and
    after the last one more lets neighbours meet; or, ``pooled``, it looks everywhere
    and keeps the largest of four. Tokens come row by row, each with a learned place.
    Convolutions before attention make it easier to train: Xiao et al., 2021, arXiv
    2106.14881.
    """

    def __init__(
        self, size: int, widths: Sequence[int] = (32, 64), *, pooled: bool = False
    ):
        super().__init__()
        self.size, self.width = size, widths[-1]
        into = [3, *widths]
        if pooled:
            out, strides, last = [*widths], [1] * len(widths), [nn.MaxPool2d(2)]
        else:
            out, strides, last = [*widths, self.width], [2] * len(widths) + [1], []
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU(), *last
                )
                for i, o, s in zip(into, out, strides, strict=False)
            )
        )
        side = size // 2 ** len(widths)
        self.place = nn.Parameter(0.02 * torch.randn(side**2, self.width))

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode pictures with values in [0, 1]."""
        if image.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"pictures of {tuple(image.shape[1:])}: this encoder takes "
                f"(3, {self.size}, {self.size}); resize them"
            )
        tokens, mask = _grid_tokens(self.layers(image * 2 - 1))
        return tokens + self.place, mask

    pool = staticmethod(mean_pool)


class EfficientNet(nn.Module):
    """EfficientNet-Lite0, trained on ImageNet: a picture to a grid of features.

    ``embed`` shrinks or enlarges any picture to ``size`` pixels and gives the mean of
    every stage: early ones see colours and edges, the last one sees things.
    """

    name = "efficientnet-lite0"
    width = 16 + 24 + 40 + 112 + 320 + 1280  # five stages and the last features

    def __init__(self, model: nn.Module, size: int = 128):
        super().__init__()
        self.model, self.size = model.eval().requires_grad_(False), size

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode pictures with values in [0, 1] to their last features, D = 1,280."""
        return _grid_tokens(self.model.forward_features(image * 2 - 1))

    pool = staticmethod(mean_pool)

    def embed(self, images: Sequence[Image.Image], batch: int = 32) -> Tensor:
        """Encode PIL pictures: (n, 1792), from the cache where seen before."""
        arrays = [np.asarray(picture(i, p, self.size)) for i, p in enumerate(images)]
        raw = [a.tobytes() for a in arrays]
        return cached(self, f"-{self.size}", raw, arrays, batch)

    def _batch(self, arrays: list[np.ndarray]) -> Tensor:
        image = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255
        last, stages = self.model.forward_intermediates(image * 2 - 1)
        grids = [*stages, last]
        return torch.cat([self.pool(*_grid_tokens(g)) for g in grids], dim=-1)


def _grid_tokens(grid: Float[Tensor, "B D H W"]) -> tuple[Tensor, Tensor]:
    tokens = rearrange(grid, "b d h w -> b (h w) d")
    return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: six Transformer layers, a sentence to 384 numbers."""

    name, width = "minilm-l6", 384

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    def forward(
        self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Encode token ids."""
        out = self.model(input_ids=tokens, attention_mask=mask.long())
        return out.last_hidden_state, mask

    pool = staticmethod(mean_pool)

    def embed(self, texts: Sequence[str], batch: int = 128) -> Tensor:
        """Encode sentences: (n, 384) of length 1, cached."""
        return _embed_texts(self, texts, batch)

    def _batch(self, texts: list[str]) -> Tensor:
        coded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        out = self(coded["input_ids"], coded["attention_mask"].bool())
        return F.normalize(self.pool(*out), dim=-1)


class MultilingualUSE(nn.Module):
    """Universal Sentence Encoder: 16 languages in one space of 512 numbers.

    Token embeddings and three stacks of n-gram convolutions (2, 3 and 5 tokens wide),
    summed, divided by sqrt(L), then a small network. ``weights`` are those of the
    asset's npz file, ``tokenizer`` a sentencepiece processor.
    """

    name, width = "use-multilingual-3", 512
    contexts = ((2, 0), (3, 1), (5, 2))  # n-gram width, how many of it lie to the left

    def __init__(self, weights: dict[str, np.ndarray], tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        chunks = [weights[f"q{i}"] for i in range(1, 18)]
        table = np.stack(chunks, 1).reshape(-1, chunks[0].shape[1])  # id 17 r + i
        self.register_buffer("table", torch.from_numpy(table))
        for name, value in weights.items():
            if name[0] != "q":
                self.register_buffer(name, torch.from_numpy(np.array(value)))

    def forward(
        self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Encode token ids; padding counts for nothing."""
        chunk = tokens % len(self.scale)  # the table is quantised in 17 parts
        x = self.table[tokens] * self.scale[chunk, None] + self.lo[chunk, None]
        parts = self._projected(x).chunk(len(self.contexts), -1)
        ngrams = [
            self._ngrams(h, mask.unsqueeze(-1), n, left)
            for h, (n, left) in zip(parts, self.contexts, strict=True)
        ]
        features = torch.cat([x, *ngrams], dim=-1)
        features = self._norm(features, self.ln_g, self.ln_b)
        return features @ self.cnn_W + self.cnn_b, mask

    def pool(
        self, tokens: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B D"]:
        """Sum the real tokens over sqrt(L), apply the network on top, normalise."""
        real = mask.unsqueeze(-1)
        x = (tokens * real).sum(dim=1) / real.sum(dim=1).sqrt()
        h = F.relu(x @ self.p1 + F.relu(x @ self.d0) @ self.d1)
        z = torch.tanh(h @ self.p3 + F.relu(h @ self.d2) @ self.d3)
        return F.normalize(z, dim=-1)

    def embed(self, texts: Sequence[str], batch: int = 128) -> Tensor:
        """Encode sentences of any of its 16 languages: (n, 512) of length 1, cached.

        Of a text in letters that it never saw the embedding says nothing: refuse it by
        ``require_known`` where somebody waits for an answer.
        """
        return _embed_texts(self, texts, batch)

    def require_known(self, text: str) -> None:
        """Refuse a text of which no token is known."""
        known = self.tokenizer
        empty = {known.unk_id(), known.piece_to_id("▁")}
        if set(known.encode(text)) <= empty:
            raise ValueError(
                f"{text[:40]!r} holds no letter that this encoder knows: write it in "
                "one of its 16 languages, such as English or Chinese"
            )

    def _batch(self, texts: list[str]) -> Tensor:
        ids = [self.tokenizer.encode(t, add_bos=True, add_eos=True) for t in texts]
        return self.pool(*self(*pad(ids)))

    def _norm(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], gain, bias, float(self.eps))

    def _projected(self, x: Tensor) -> Tensor:
        """Project to the inputs of the three stacks, normalised as one vector."""
        h = x @ self._joined("proj") + self._joined("proj_b")
        return self._norm(h, self._joined("ln_g"), self._joined("ln_b"))

    def _joined(self, name: str) -> Tensor:
        return torch.cat([getattr(self, f"{name}{n}") for n, _ in self.contexts], -1)

    def _ngrams(self, h: Tensor, real: Tensor, n: int, left: int) -> Tensor:
        """Two residual convolutions over windows of ``n`` tokens."""
        w = dict(self.named_buffers())
        for i in (1, 2):
            kernel = rearrange(w[f"w{i}_{n}"], "(n c) d -> d c n", n=n)
            padded = F.pad((h * real).mT, (left, n - 1 - left))
            h = h + F.relu(F.conv1d(padded, kernel, w[f"b{i}_{n}"]).mT)
        return h


@cache
def efficientnet(size: int = 128) -> EfficientNet:
    """Load EfficientNet-Lite0 into timm's model: the same tensors in the same order."""
    import timm

    path = assets.path("efficientnet") / "efficientnet-lite0-57934424.pth"
    weights = torch.load(path, weights_only=True, map_location="cpu")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return EfficientNet(model.to(memory_format=torch.channels_last), size)


@cache
def minilm() -> MiniLM:
    """Load all-MiniLM-L6-v2 from its asset with transformers."""
    from transformers import AutoModel, AutoTokenizer

    folder = assets.path("minilm")
    with pretrained.without_bars():
        model = AutoModel.from_pretrained(folder, attn_implementation="sdpa")
    return MiniLM(model, AutoTokenizer.from_pretrained(folder))


@cache
def multilingual_use() -> MultilingualUSE:
    """Load the multilingual Universal Sentence Encoder from its asset."""
    from sentencepiece import SentencePieceProcessor

    folder = assets.path("use")
    tokenizer = SentencePieceProcessor(model_file=str(folder / "sp.model"))
    with np.load(folder / "weights.npz", allow_pickle=False) as weights:
        return MultilingualUSE(dict(weights), tokenizer)


def picture(i: int, image: Image.Image, size: int) -> Image.Image:
    """Return picture number ``i`` in colour, ``size`` pixels square."""
    try:
        image = image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"picture {i} can't be read: {error}") from error
    same = image.size == (size, size)
    return image if same else image.resize((size, size), Image.Resampling.BICUBIC)


def _embed_texts(encoder: nn.Module, texts: Sequence[str], batch: int) -> Tensor:
    if isinstance(texts, str):
        raise ValueError("embed takes a list of texts, not one: write [text]")
    for i, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {i} is empty: there is nothing to encode")
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # less padding
    ordered = [texts[i] for i in by_length]
    contents = [text.encode() + b"\0" for text in ordered]
    features = cached(encoder, "", contents, ordered, batch)
    return features[torch.tensor(by_length).argsort()]


@torch.no_grad()  # not inference_mode: a layer can be trained on what comes back
def cached(encoder, variant: str, contents: list[bytes], items: list, batch: int):
    """Return features (n, D) from disk; or compute them and write them atomically."""
    if len(items) == 0:
        raise ValueError("nothing to encode: the list is empty")
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:20]
    path = assets.root() / "cache" / f"{encoder.name}{variant}-{digest}.safetensors"
    if path.exists():
        return load_file(path)["features"]
    starts = range(0, len(items), batch)
    bar = tqdm(starts, desc=encoder.name, leave=False, disable=len(starts) < 2 or None)
    features = torch.cat([encoder._batch(items[s : s + batch]) for s in bar])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({"features": features.contiguous()}, part)
    part.replace(path)
    return features
