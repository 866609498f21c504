"""The Vision Transformer: a picture is cut into patches, and patches are words.

Dosovitskiy et al., 2021, arXiv 2010.11929; LayerScale: Touvron et al., 2021, arXiv
2103.17239; register tokens: Darcet et al., 2024, arXiv 2309.16588; plain ViT with mean
pooling and fixed positions: Beyer et al., 2022, arXiv 2205.01580. Taught in
04_vision_transformer.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmcourse import pretrained
from mmcourse.modalities import patchify
from mmcourse.transformer import ACTIVATIONS, MLP, Encoder, sinusoidal


class PatchEmbedding(nn.Module):
    """x_p = E(p): one linear map for every patch, run as a convolution.

    Stride and kernel are both the patch size, so that no two patches overlap.
    """

    def __init__(self, patch: int, channels: int, dim: int, bias: bool = True):
        super().__init__()
        self.patch = patch
        self.convolution = nn.Conv2d(channels, dim, patch, stride=patch, bias=bias)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Embed the patches row by row."""
        _check_sides(image.shape[-2:], self.patch)
        return self.convolution(image).flatten(2).transpose(1, 2)

    def as_linear(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Compute the same as the linear map of flattened patches that it is."""
        weight = self.convolution.weight.flatten(1)
        return F.linear(patchify(image, self.patch), weight, self.convolution.bias)


def sinusoidal_grid(rows: int, columns: int, dim: int) -> Float[Tensor, "N D"]:
    """Write a patch's row in the first half of ``dim``, its column in the second."""
    if dim % 4 != 0:
        raise ValueError(
            f"dim={dim}: rows and columns take pairs each, a multiple of 4"
        )
    row = sinusoidal(torch.arange(rows).float(), dim // 2)
    column = sinusoidal(torch.arange(columns).float(), dim // 2)
    grid = [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)]
    return torch.cat(grid, dim=-1).flatten(0, 1)


def resize_positions(
    positions: Float[Tensor, "N D"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "N2 D"]:
    """Interpolate the positions of a grid of patches to a grid of another size."""
    if old == new:
        return positions
    grid = rearrange(positions, "(h w) d -> 1 d h w", h=old[0])
    grid = F.interpolate(grid.float(), new, mode="bicubic", antialias=True)
    return rearrange(grid, "1 d h w -> (h w) d").to(positions)


@dataclass(frozen=True)
class ViTConfig:
    """What a vision transformer is made of; the defaults are ViT-Ti/16's.

    ``positions`` are "learned" or "sinusoidal"; ``registers`` are extra tokens without
    a patch. ``pool`` makes one vector of the "class" token or of the "mean" of the
    patches; ``norm_after`` normalises after pooling instead of before. ``classes=0``
    leaves the head out.
    """

    image_size: int = 224
    patch: int = 16
    channels: int = 3
    dim: int = 192
    depth: int = 12
    heads: int = 3
    hidden: int | None = None
    class_token: bool = True
    registers: int = 0
    positions: str = "learned"
    pool: str = "class"
    norm_before: bool = False
    norm_after: bool = False
    norm_eps: float = 1e-6
    qk_norm: bool = False
    layer_scale: float | None = None
    qkv_bias: bool = True
    patch_bias: bool = True
    activation: str = "gelu"
    dropout: float = 0.0
    classes: int = 0

    def __post_init__(self):
        """Refuse what no picture fits and what can't be pooled."""
        _check_sides((self.image_size, self.image_size), self.patch)
        for name, known in (
            ("positions", ("learned", "sinusoidal")),
            ("pool", ("class", "mean")),
            ("activation", tuple(ACTIVATIONS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose from {known}")
        if self.pool == "class" and not self.class_token:
            raise ValueError('pool="class" needs class_token=True, or pool="mean"')

    @property
    def side(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch

    @property
    def prefix(self) -> int:
        """Tokens before the patches: class token and registers."""
        return int(self.class_token) + self.registers


class ViT(nn.Module):
    """Patches, positions, an encoder. ``forward`` gives tokens and their mask.

    Tokens come in the order class token, registers, patches row by row. ``pool`` makes
    a vector of them and ``logits`` classifies a picture.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = c = config
        norm = partial(nn.LayerNorm, eps=c.norm_eps)
        self.patches = PatchEmbedding(c.patch, c.channels, c.dim, c.patch_bias)
        self.prefix = None
        if c.prefix > 0:
            self.prefix = nn.Parameter(0.02 * torch.randn(c.prefix, c.dim))
        if c.positions == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(c.side**2, c.dim))
        else:
            table = sinusoidal_grid(c.side, c.side, c.dim)
            self.register_buffer("position", table, persistent=False)
        self.norm_before = norm(c.dim) if c.norm_before else nn.Identity()
        self.encoder = Encoder(
            c.dim,
            c.depth,
            c.heads,
            hidden=c.hidden,
            norm=norm,
            mlp=partial(MLP, activation=ACTIVATIONS[c.activation]),
            dropout=c.dropout,
            layer_scale=c.layer_scale,
            qkv_bias=c.qkv_bias,
            qk_norm=norm if c.qk_norm else None,
        )
        self.norm_after = nn.Identity()
        if c.norm_after:  # the encoder's own norm moves behind the pooling
            self.norm_after, self.encoder.norm = self.encoder.norm, nn.Identity()
        self.head = nn.Linear(c.dim, c.classes) if c.classes > 0 else nn.Identity()

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """Encode pictures of any size that the patch size divides."""
        x = self.patches(image)
        rows, columns = (s // self.config.patch for s in image.shape[-2:])
        side = self.config.side
        x = x + resize_positions(self.position, (side, side), (rows, columns))
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        x = self.encoder(self.norm_before(x))
        return x, x.new_ones(x.shape[:2], dtype=torch.bool)

    def pool(
        self, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        """Make one vector of a picture: its class token, or the mean of its patches."""
        if self.config.pool == "class":
            return self.norm_after(tokens[:, 0])
        return self.norm_after(tokens[:, self.config.prefix :].mean(dim=1))

    def logits(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B V"]:
        """Classify pictures; without a head, return the pooled features."""
        return self.head(self.pool(*self(image)))

    @classmethod
    def from_timm(cls, model: nn.Module) -> "ViT":
        """Copy the weights of a plain vision transformer of timm.

        ValueError names what it has that this class can't represent.
        """
        config, tensors = pretrained.of_timm(model)
        return pretrained.load(cls(ViTConfig(**config)), tensors, "from_timm")

    @classmethod
    def from_hf(cls, model: nn.Module) -> "ViT":
        """Copy the weights of transformers' ViTModel, DeiTModel or Dinov2Model."""
        config, tensors = pretrained.of_hf_vit(model)
        return pretrained.load(cls(ViTConfig(**config)), tensors, "from_hf")

    @classmethod
    def pretrained(cls) -> "ViT":
        """Load the assets' ViT-S/14: DINOv2's shape, tuned to find what stands out.

        It takes pictures from which ImageNet's mean colour was subtracted, divided by
        its standard deviation: (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
        """
        config, tensors = pretrained.of_vit_s14()
        return pretrained.load(cls(ViTConfig(**config)), tensors, "pretrained")


def _check_sides(sides: tuple[int, int] | torch.Size, patch: int) -> None:
    if any(side < patch or side % patch != 0 for side in sides):
        near = [max(patch, round(side / patch) * patch) for side in sides]
        raise ValueError(
            f"a picture of {sides[0]} x {sides[1]} pixels doesn't divide into patches "
            f"of {patch}: resize it to {near[0]} x {near[1]}"
        )
