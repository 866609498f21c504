"""Two encoders, one space: CLIP, small or with real weights.

Radford et al., 2021, arXiv 2103.00020; sigmoid loss: Zhai et al., 2023, 2303.15343;
locked towers: LiT, Zhai et al., 2022, 2111.07991; queue of negatives: MoCo, He et al.,
2020, 1911.05722, for pairs as in ALBEF, Li et al., 2021, 2107.07651. Taught in
07_contrastive_learning.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse import clip_weights, pretrained
from mmcourse.encoders import TextEncoder, TextEncoderConfig
from mmcourse.features import Features, FeaturesConfig
from mmcourse.large_batch import gather
from mmcourse.losses import info_nce, siglip
from mmcourse.vit import ViT, ViTConfig

Batch = Mapping[str, Tensor]
TOWERS = {ViTConfig: ViT, TextEncoderConfig: TextEncoder, FeaturesConfig: Features}
START = {"clip": (math.log(1 / 0.07), 0.0), "siglip": (math.log(10.0), -10.0)}
MAX_LOG_SCALE = math.log(100.0)  # CLIP's bound: a temperature of at least 0.01


@dataclass(frozen=True)
class DualEncoderConfig:
    """The width of the common space, and the loss, "clip" or "siglip".

    ``image`` and ``text`` are the configs of encoders that this package makes; they are
    needed by ``DualEncoder.made``, and to save a model with mmcourse.hub.
    """

    dim: int = 256
    loss: str = "clip"
    image: ViTConfig | FeaturesConfig | None = None
    text: TextEncoderConfig | FeaturesConfig | None = None

    def __post_init__(self):
        """Refuse a space of no width and a loss that there isn't."""
        if self.dim < 1:
            raise ValueError(f"dim={self.dim}: the common space needs a width")
        if self.loss not in START:
            raise ValueError(f"loss={self.loss!r}: choose from {[*START]}")


class DualEncoder(nn.Module):
    """An encoder of pictures and one of texts, projected to directions of one space.

    ``forward`` gives the embeddings of a batch's pairs, ``loss`` contrasts them, and
    ``logits`` scores every picture with every text: scale * cosine + bias.
    """

    def __init__(
        self, image: nn.Module, text: nn.Module, config: DualEncoderConfig | None = None
    ):
        super().__init__()
        self.config = c = DualEncoderConfig() if config is None else config
        self.image, self.text = image, text
        self.to_common = nn.ModuleDict(
            {
                name: nn.Linear(width_of(tower), c.dim, bias=False)
                for name, tower in (("image", image), ("text", text))
            }
        )
        log_scale, bias = START[c.loss]
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.bias = nn.Parameter(torch.tensor(bias)) if c.loss == "siglip" else None
        self.locked: set[str] = set()

    @classmethod
    def made(cls, config: DualEncoderConfig) -> "DualEncoder":
        """Make both encoders by their configs."""
        for name in ("image", "text"):
            if getattr(config, name) is None:
                raise ValueError(f"{name}=None: the config of this encoder is needed")
        towers = [TOWERS[type(c)](c) for c in (config.image, config.text)]
        return cls(*towers, config)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """One over the temperature: exp(log_scale), at most 100."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()

    def encode_image(self, image: Float[Tensor, "B ..."]) -> Float[Tensor, "B E"]:
        """Embed pictures (B, C, H, W), or features (B, D): rows of length 1."""
        return self._encode("image", image)

    def encode_text(
        self,
        tokens: Int[Tensor, "B L"] | Float[Tensor, "B D"],
        mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Embed texts, tokens or features: rows of length 1."""
        return self._encode("text", tokens, mask)

    def forward(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]]:
        """Embed the pictures and the texts of a batch."""
        image = self.encode_image(batch["image"])
        return image, self.encode_text(batch["tokens"], batch.get("mask"))

    def logits(
        self, image: Float[Tensor, "B E"], text: Float[Tensor, "T E"]
    ) -> Float[Tensor, "B T"]:
        """Score each picture with each text: scale * cosine + bias."""
        scores = self.scale * image @ text.T
        return scores if self.bias is None else scores + self.bias

    def loss(
        self, image: Float[Tensor, "B E"], text: Float[Tensor, "B E"], ids=None
    ) -> Float[Tensor, ""]:
        """Contrast pairs, of all processes as one batch; ``ids`` as in info_nce."""
        image, text = gather(image), gather(text)
        ids = None if ids is None else gather(ids)
        if self.bias is None:
            return info_nce(image, text, self.scale, ids)
        return siglip(image, text, self.scale, self.bias, ids)

    def lock(self, name: str) -> "DualEncoder":
        """Freeze one encoder, "image" or "text", and leave its dropout off: LiT."""
        if name not in self.to_common:
            raise ValueError(f"{name!r} is no tower: lock 'image' or 'text'")
        getattr(self, name).requires_grad_(False).eval()
        self.locked.add(name)
        return self

    def train(self, mode: bool = True) -> "DualEncoder":
        """Switch to training, all but locked encoders."""
        super().train(mode)
        for name in self.locked:
            getattr(self, name).eval()
        return self

    def project(
        self, name: str, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B E"]:
        """Pool what the encoder "image" or "text" made, and map it into the space."""
        pooled = getattr(self, name).pool(tokens, mask)
        return F.normalize(self.to_common[name](pooled), dim=-1)

    def _encode(self, name: str, *given: Tensor | None) -> Tensor:
        learns = torch.is_grad_enabled() and name not in self.locked
        with torch.set_grad_enabled(learns):
            tokens, mask = getattr(self, name)(*given)
        return self.project(name, tokens, mask)

    @classmethod
    def from_hf(cls, model: nn.Module) -> "DualEncoder":
        """Copy the weights of transformers' CLIPModel.

        Its texts' last real token is the end of the text; pass ``mask``.
        """
        config, tensors = clip_weights.of_clip(model)
        parts = {"image": ViTConfig, "text": TextEncoderConfig}
        made = {name: kind(**config.pop(name)) for name, kind in parts.items()}
        dual = cls.made(DualEncoderConfig(**config, **made))
        return pretrained.load(dual, tensors, "from_hf")

    def to_hf(self) -> nn.Module:
        """Make transformers' CLIPModel of the same weights, where it has the parts."""
        return clip_weights.to_clip(self)


def width_of(encoder: nn.Module) -> int:
    """How many numbers an encoder's tokens have."""
    if hasattr(encoder, "width"):
        return encoder.width
    if hasattr(encoder, "config") and hasattr(encoder.config, "dim"):
        return encoder.config.dim
    raise ValueError(
        f"{type(encoder).__name__} says neither width nor config.dim: give it a width"
    )


@torch.no_grad()
def zero_shot_classifier(
    embed: Callable[[list[str]], Float[Tensor, "n E"]],
    names: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
) -> Float[Tensor, "C E"]:
    """Make a classifier of class names: one row per class, of length 1.

    A class is the mean of the embeddings of its name in every template, normalised:
    prompt ensembling. Class of a picture: argmax of its cosine with the rows.
    """
    broken = [t for t in templates if t.count("{}") != 1]
    if broken or len(templates) == 0 or len(names) == 0:
        raise ValueError(
            f"{len(names)} names, templates {list(templates)}: a template has one "
            "{} for the name, and at least one of each is needed"
        )
    texts = [t.format(name) for name in names for t in templates]
    by_name = F.normalize(embed(texts), dim=-1).unflatten(0, (len(names), -1))
    return F.normalize(by_name.mean(dim=1), dim=-1)


class MomentumContrast(nn.Module):
    """Many negatives with a small batch: a queue of embeddings of a slow copy.

    The slow copy follows the model, w' = m w' + (1 - m) w, and embeds each batch; its
    last ``size`` embeddings are the negatives. They are a little old, which a slow copy
    makes bearable. ``forward(batch)`` is the loss; the model learns in ``model``.
    """

    def __init__(self, model: DualEncoder, size: int = 4096, momentum: float = 0.995):
        super().__init__()
        if size < 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"size={size}, momentum={momentum}: a queue of at least 1, a momentum "
                "from 0 to below 1"
            )
        self.model, self.momentum = model, momentum
        self.slow = copy.deepcopy(model).requires_grad_(False).eval()
        for name in model.to_common:
            start = F.normalize(torch.randn(size, model.config.dim), dim=-1)
            self.register_buffer(f"{name}_queue", start)

    def train(self, mode: bool = True) -> "MomentumContrast":
        """Switch to training, all but the slow copy."""
        super().train(mode)
        self.slow.eval()
        return self

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """Contrast a batch with the slow copy's batch and queue, both ways."""
        mine = self.model(batch)
        if self.training:
            self._follow()
        with torch.no_grad():
            slow = self.slow(batch)
        partner = torch.arange(len(mine[0]), device=mine[0].device)
        image_keys = torch.cat([slow[0], self.image_queue])
        text_keys = torch.cat([slow[1], self.text_queue])
        loss = F.cross_entropy(self.model.scale * mine[0] @ text_keys.T, partner)
        loss = loss + F.cross_entropy(
            self.model.scale * mine[1] @ image_keys.T, partner
        )
        if self.training:
            size = len(self.image_queue)
            self.image_queue = image_keys[:size]  # the newest first
            self.text_queue = text_keys[:size]
        return loss / 2

    @torch.no_grad()
    def _follow(self) -> None:
        pairs = zip(self.slow.parameters(), self.model.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1 - self.momentum)
