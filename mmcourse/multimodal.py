"""Whole models: an encoder per modality, and one place where they meet.

``LateFusion`` encodes, pools and fuses. ``MultimodalTransformer`` lets a shared decoder
read the tokens of all encoders at once, to classify or to write: cross attention as in
Vaswani et al., 2017, arXiv 1706.03762; learned queries as in DETR, Carion et al., 2020,
arXiv 2005.12872; modality dropout as in ModDrop, Neverova et al., 2014, arXiv
1501.00102. Taught in 05_fusion and 06_multimodal_transformer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.encoders import TextEncoder, TextEncoderConfig
from mmcourse.generation import generate
from mmcourse.signals import (
    AudioEncoder,
    AudioEncoderConfig,
    VideoEncoder,
    VideoEncoderConfig,
)
from mmcourse.transformer import Decoder, DecoderConfig, Encoder
from mmcourse.vit import ViT, ViTConfig

Batch = Mapping[str, Tensor]
Encoded = tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]

KEYS = {"text": "tokens", "image": "image", "audio": "audio", "video": "video"}
ENCODERS = {
    "text": TextEncoder,
    "image": ViT,
    "audio": AudioEncoder,
    "video": VideoEncoder,
}

# --- what a batch holds -----------------------------------------------------------


def present(batch: Batch, modalities: Sequence[str]) -> Bool[Tensor, "B M"]:
    """Say which modality each row has.

    That is ``batch["present"]``, or all where there is none; less the modalities that
    the batch lacks, and texts without a real token. No row may have none.
    """
    given = {m: batch[KEYS[m]] for m in modalities if KEYS[m] in batch}
    rows = {KEYS[m]: len(x) for m, x in given.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(
            f"rows in the batch: {rows}; as many of each are needed, of at least one "
            f"of {[KEYS[m] for m in modalities]}"
        )
    x = next(iter(given.values()))
    here = x.new_tensor([m in given for m in modalities], dtype=torch.bool)
    here = here.expand(len(x), -1)
    if (table := batch.get("present")) is not None:
        if table.shape != here.shape or table.dtype != torch.bool:
            raise ValueError(
                f"present is {table.dtype} {tuple(table.shape)}: booleans "
                f"{tuple(here.shape)} are needed, a column for each of {modalities}"
            )
        here = here & table
    if "text" in given and "mask" in batch:
        is_text = here.new_tensor([m == "text" for m in modalities])
        here = here & (batch["mask"].any(dim=1, keepdim=True) | ~is_text)
    if not torch.compiler.is_compiling() and not here.any(dim=1).all():
        row = int((~here.any(dim=1)).nonzero()[0])
        raise ValueError(f"row {row} has none of {modalities}: leave it out")
    return here


def inputs(
    batch: Batch, modalities: Sequence[str], here: Bool[Tensor, "B M"]
) -> dict[str, tuple[Tensor, ...]]:
    """Take what each encoder is called with out of the batch.

    A row without the modality gets zeros, so that nothing of what stands there, be it
    NaN, can leak; that they aren't read as a black picture is up to the masks.
    """
    found = {}
    for i, name in enumerate(modalities):
        if (key := KEYS[name]) in batch:
            x = batch[key]
            shape = (-1, *(1,) * (x.ndim - 1))
            x = torch.where(here[:, i].view(shape), x, torch.zeros_like(x))
            _check(key, x)
            found[name] = (x,)
    if "text" in found and "mask" in batch:
        found["text"] += (batch["mask"] & here[:, [modalities.index("text")]],)
    return found


def _check(key: str, x: Tensor) -> None:
    if key == "tokens":
        return
    if not x.is_floating_point():
        raise ValueError(f"{key} is {x.dtype}: floats are needed, pixels in [0, 1]")
    if not torch.compiler.is_compiling() and not x.isfinite().all():
        row = int((~x.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{key} of row {row} holds NaN or infinity: mend it, or say in "
            "batch['present'] that it is missing"
        )


# --- encoders, a fusion, a head ---------------------------------------------------


class LateFusion(nn.Module):
    """Each modality by itself first, then together: head(fusion(encoders)).

    ``encoders`` by modality, all of one width; ``fusion`` of mmcourse.fusion. A
    fusion of vectors gets pooled tokens. For a fusion of decisions give a dict of
    heads, one per modality: they stand before it, and it has the last word.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        head: nn.Module | Mapping[str, nn.Module],
    ):
        super().__init__()
        _known(encoders)
        self.modalities = tuple(encoders)
        self.encoders, self.fusion = nn.ModuleDict(encoders), fusion
        decides = isinstance(head, Mapping | nn.ModuleDict)
        if decides and set(head) != set(encoders):
            raise ValueError(f"heads for {[*head]}: one each for {[*encoders]}")
        self.heads = nn.ModuleDict(head if decides else {})
        self.head = nn.Identity() if decides else head

    def forward(self, batch: Batch) -> Float[Tensor, "B V"]:
        """Classify the rows of a batch, each by the modalities that it has."""
        here = present(batch, self.modalities)
        features, real = {}, {}
        for name, given in inputs(batch, self.modalities, here).items():
            there = here[:, self.modalities.index(name)]
            features[name], real[name] = self._features(name, given, there)
        return self.head(self.fusion(features, real))

    def _features(self, name: str, given: tuple, there: Tensor) -> tuple:
        """Return tokens and where they are real, or one vector and whether it is."""
        tokens, mask = self.encoders[name](*given)
        if self.fusion.tokens:
            return tokens, mask & there[:, None]
        # A missing row is pooled like any other: ``there`` keeps it out of the fusion.
        vector = self.encoders[name].pool(tokens, mask | ~there[:, None])
        return (self.heads[name](vector) if self.heads else vector), there


def _known(modalities: Mapping) -> None:
    unknown = sorted(set(modalities) - set(KEYS))
    if unknown or len(modalities) == 0:
        raise ValueError(f"modalities {[*modalities]}: choose from {[*KEYS]}")


# --- a shared decoder -------------------------------------------------------------


@dataclass(frozen=True)
class MultimodalConfig:
    """What a multimodal Transformer is made of.

    An encoder's config for each modality it takes. The decoder classifies with
    ``queries`` learned tokens where ``classes`` > 0, and writes texts of at most
    ``length`` tokens where ``vocab`` > 0; it may do both. In training each modality
    of a row is dropped with the probability ``modality_dropout``, never all.
    """

    text: TextEncoderConfig | None = None
    image: ViTConfig | None = None
    audio: AudioEncoderConfig | None = None
    video: VideoEncoderConfig | None = None
    dim: int = 128
    depth: int = 2
    heads: int = 4
    hidden: int | None = None
    dropout: float = 0.0
    modality_dropout: float = 0.0
    classes: int = 0
    queries: int = 1
    vocab: int = 0
    length: int = 32

    def __post_init__(self):
        """Refuse a model that reads nothing or says nothing."""
        if len(self.modalities) == 0:
            raise ValueError(f"no modality: give a config for some of {[*KEYS]}")
        if self.classes < 1 and self.vocab < 1:
            raise ValueError(
                f"classes={self.classes}, vocab={self.vocab}: the decoder classifies "
                "or writes, so make one of them greater than 0"
            )
        if self.queries < 1:
            raise ValueError(f"queries={self.queries}: at least 1 is needed")
        if not 0 <= self.modality_dropout < 1:
            raise ValueError(
                f"modality_dropout={self.modality_dropout}: choose from 0 to below 1"
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model takes: the columns of ``batch["present"]``."""
        return tuple(name for name in KEYS if getattr(self, name) is not None)

    def tokens(self, name: str) -> int:
        """Return the most tokens that a modality's encoder gives."""
        c = getattr(self, name)
        if name == "text":
            return c.length
        return c.side**2 + c.prefix if name == "image" else c.tokens


class Context(NamedTuple):
    """What the decoder reads: all encoders' tokens in one row, which of them are real.

    ``spans`` says where each modality lies: ``weights[..., spans["audio"]].sum(-1)`` is
    the share of the attention that goes to the sound.
    """

    tokens: Float[Tensor, "B K D"]
    mask: Bool[Tensor, "B K"]
    spans: dict[str, slice]


class MultimodalTransformer(nn.Module):
    """An encoder per modality, and a decoder that reads all their tokens at once.

    k = [E_m(x_m) W_m + p_m + e_m for each modality m]: projected to one width, with a
    place and the modality's own vector added. The decoder's blocks attend to k, which
    is masked where a row lacks the modality. A missing one is not a zero: it is not
    read at all.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.config = c = config
        self.modalities = c.modalities
        self.encoders, self.project = nn.ModuleDict(), nn.ModuleDict()
        self.position, self.modality = nn.ParameterDict(), nn.ParameterDict()
        for m in c.modalities:
            own = getattr(c, m)
            self.encoders[m] = ENCODERS[m](own)
            self.project[m] = nn.Linear(own.dim, c.dim)
            self.position[m] = nn.Parameter(0.02 * torch.randn(c.tokens(m), c.dim))
            self.modality[m] = nn.Parameter(0.02 * torch.randn(c.dim))
        sizes = {"dim": c.dim, "depth": c.depth, "heads": c.heads}
        kwargs = sizes | {"hidden": c.hidden, "dropout": c.dropout, "cross": True}
        if c.vocab > 0:
            self.decoder = Decoder(DecoderConfig(c.vocab, c.length, **kwargs))
        else:  # the same blocks, without words
            self.decoder = Encoder(**kwargs)
        if c.classes > 0:
            self.queries = nn.Parameter(0.02 * torch.randn(c.queries, c.dim))
            self.head = nn.Linear(c.dim, c.classes)

    def encode_text(
        self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Encoded:
        """Encode token ids; ``mask`` is True where real."""
        return self._encode("text", tokens, mask)

    def encode_image(self, image: Float[Tensor, "B C H W"]) -> Encoded:
        """Encode pictures."""
        return self._encode("image", image)

    def encode_audio(self, audio: Float[Tensor, "B T"]) -> Encoded:
        """Encode sounds."""
        return self._encode("audio", audio)

    def encode_video(self, video: Float[Tensor, "B F C H W"]) -> Encoded:
        """Encode clips."""
        return self._encode("video", video)

    def _encode(self, name: str, *given: Tensor | None) -> Encoded:
        if name not in self.modalities:
            raise ValueError(f"no encoder of {name}: this model has {self.modalities}")
        x, mask = self.encoders[name](*given)
        n, room = x.shape[1], len(self.position[name])
        if n > room:
            raise ValueError(f"{n} tokens of {name}, but positions for {room}")
        x = self.project[name](x) + self.position[name][:n] + self.modality[name]
        return x, mask

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Encode what the batch has; the masks say what each row has of it."""
        here = present(batch, self.modalities)
        given = inputs(batch, self.modalities, here)
        if self.training and self.config.modality_dropout > 0:
            here = drop_modalities(here, self.config.modality_dropout)
        encoded = {}
        for name, parts in given.items():
            x, mask = self._encode(name, *parts)
            encoded[name] = x, mask & here[:, [self.modalities.index(name)]]
        return encoded

    def fuse(self, encoded: Mapping[str, Encoded]) -> Context:
        """Lay the modalities' tokens side by side for the decoder to read."""
        spans, start = {}, 0
        for name, (x, _) in encoded.items():
            spans[name] = slice(start, start := start + x.shape[1])
        tokens, masks = zip(*encoded.values(), strict=True)
        return Context(torch.cat(tokens, dim=1), torch.cat(masks, dim=1), spans)

    def forward(self, batch: Batch) -> Float[Tensor, "..."]:
        """Return the logits of the classes (B, V) of a model that classifies.

        One that only writes returns ``write`` of ``batch["target"]``, (B, L, V).
        """
        context = self.fuse(self.encode(batch))
        if self.config.classes > 0:
            return self.classify(context)
        return self.write(batch["target"], context)

    def read(
        self, x: Float[Tensor, "B N D"], context: Context
    ) -> Float[Tensor, "B N D"]:
        """Let tokens that see each other read the context, block after block."""
        for block in self.decoder.blocks:
            x = block(x, None, context.tokens, context.mask)
        return self.decoder.norm(x)

    def classify(self, context: Context) -> Float[Tensor, "B V"]:
        """Let the query tokens read; their mean decides."""
        if self.config.classes < 1:
            raise ValueError("classes=0: this model writes, it doesn't classify")
        x = self.queries.expand(len(context.tokens), -1, -1)
        return self.head(self.read(x, context).mean(dim=1))

    def write(
        self, tokens: Int[Tensor, "B L"], context: Context
    ) -> Float[Tensor, "B L V"]:
        """Return the logits of the token after each of ``tokens``."""
        self._writes()
        return self.decoder(tokens, context.tokens, context.mask)

    @torch.no_grad()
    def generate(
        self, batch: Batch, prompt: Int[Tensor, "B L"], steps: int, **how
    ) -> Int[Tensor, "B L2"]:
        """Go on from the prompt by up to ``steps`` tokens about what the batch holds.

        ``how`` holds keywords of ``mmcourse.generation.generate``. Nothing is dropped,
        in training mode either.
        """
        self._writes()
        training = self.training
        self.eval()
        try:
            context = self.fuse(self.encode(batch))
            how |= {"context": context.tokens, "context_mask": context.mask}
            return generate(self.decoder, prompt, steps, **how)
        finally:
            self.train(training)

    def _writes(self) -> None:
        if self.config.vocab < 1:
            raise ValueError("vocab=0: this model classifies, it doesn't write")


def drop_modalities(
    here: Bool[Tensor, "B M"], probability: float
) -> Bool[Tensor, "B M"]:
    """Drop each modality of each row by lot; the luckiest of a row always stays."""
    luck = torch.rand(here.shape, device=here.device).masked_fill(~here, -1.0)
    best = luck == luck.amax(dim=1, keepdim=True)
    return here & ((luck >= probability) | best)
