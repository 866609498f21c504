"""What frozen encoders see, standardised: a tower that costs nothing to train upon.

A pretrained encoder that stays as it is gives the same features every time, so they are
computed once and a small projection learns from them: a locked tower, Zhai et al.,
2022, arXiv 2111.07991. Taught in 07_contrastive_learning.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from mmcourse import encoders
from mmcourse.vit import ViT


class FrozenViT(nn.Module):
    """The first eight layers of the assets' ViT-S/14: class token and mean patch.

    Its owners tuned the last layers to find what stands out; they aren't asked.
    """

    name, width, layers, size = "vit-s14", 2 * 384, 8, 224

    def __init__(self, model: ViT):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.model.encoder.blocks = self.model.encoder.blocks[: self.layers]

    def embed(self, images: Sequence[Image.Image], batch: int = 32) -> Tensor:
        """Encode PIL pictures: (n, 768), from the cache where seen before."""
        sized = (encoders.picture(i, p, self.size) for i, p in enumerate(images))
        arrays = [np.asarray(p) for p in sized]
        return encoders.cached(self, "", [a.tobytes() for a in arrays], arrays, batch)

    def _batch(self, arrays: list[np.ndarray]) -> Tensor:
        image = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255
        tokens, _ = self.model(normalize(image, *IMAGENET))
        patches = tokens[:, self.model.config.prefix :]
        return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=-1)


class Words(nn.Module):
    """What EfficientNet takes a picture for, in the words of a sentence encoder.

    The embeddings of ImageNet's 1,000 class names, each as much as its class is
    probable: a point in the space of texts. ConSE, Norouzi et al., 2013, arXiv
    1312.5650; here of all classes, at a temperature of 2.
    """

    def __init__(self, text: nn.Module):
        super().__init__()
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        names = [info.index_to_description(i) for i in range(info.num_classes())]
        self.image = encoders.efficientnet(224)
        self.names = text.embed(names)

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Say what PIL pictures look like: (n, D) of the texts' width, length 1."""
        classify = self.image.model.classifier
        logits = classify(self.image.embed(images)[:, -classify.in_features :])
        return F.normalize((logits / 2).softmax(dim=-1) @ self.names, dim=-1)


@cache
def words(text: str) -> Words:
    """Load what describes pictures in the words of "minilm" or "use"."""
    return Words(FROZEN[text][0]())


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, deviation of colours


@cache
def vit_s14() -> FrozenViT:
    """Load the ViT-S/14 from its asset."""
    return FrozenViT(ViT.pretrained())


FROZEN: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "minilm": (encoders.minilm, encoders.MiniLM.width),
    "use": (encoders.multilingual_use, encoders.MultilingualUSE.width),
    "vit-s14": (vit_s14, FrozenViT.width),
}
for _size in (128, 160, 224):  # pixels: what is small is seen better in a large picture
    _load = partial(encoders.efficientnet, _size)
    FROZEN[f"efficientnet-{_size}"] = (_load, encoders.EfficientNet.width)
for _name in ("minilm", "use"):
    FROZEN[f"words-{_name}"] = (partial(words, _name), FROZEN[_name][1])


@dataclass(frozen=True)
class FeaturesConfig:
    """Which frozen encoders, joined by a plus: "efficientnet-160" or "minilm+use"."""

    frozen: str
    dropout: float = 0.2

    def __post_init__(self):
        """Refuse an encoder that there isn't."""
        if unknown := sorted(set(self.names) - set(FROZEN)):
            raise ValueError(f"no frozen encoder {unknown}: choose from {[*FROZEN]}")

    @property
    def names(self) -> list[str]:
        """The encoders' names."""
        return self.frozen.split("+")

    @property
    def dim(self) -> int:
        """How many features they give together."""
        return sum(FROZEN[name][1] for name in self.names)


class Features(nn.Module):
    """Features of frozen encoders as an encoder of their own: one token, (B, 1, D).

    Each feature is standardised by the mean and the deviation that ``measure`` took,
    and dropped at random in training.
    """

    def __init__(self, config: FeaturesConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("std", torch.ones(config.dim))
        self.drop = nn.Dropout(config.dropout)

    def embed(self, items: Sequence) -> Float[Tensor, "n D"]:
        """Let the frozen encoders see pictures or read texts; cached on disk."""
        parts = [FROZEN[name][0]().embed(items) for name in self.config.names]
        return torch.cat(parts, dim=1).to(self.mean.device)

    def measure(self, features: Float[Tensor, "n D"]) -> "Features":
        """Take the training features' mean and deviation; return self."""
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0).clamp(min=1e-6))
        return self

    def forward(
        self, features: Float[Tensor, "B D"], mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "B 1 D"], Bool[Tensor, "B 1"]]:
        """Standardise features; a ``mask`` of tokens has nothing to say here."""
        tokens = self.drop((features - self.mean) / self.std).unsqueeze(1)
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)

    def pool(
        self, tokens: Float[Tensor, "B 1 D"], mask: Bool[Tensor, "B 1"]
    ) -> Float[Tensor, "B D"]:
        """Return the one token."""
        return tokens[:, 0]
