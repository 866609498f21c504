"""Learning from pairs and pictures that nobody labelled: paint, match, fill in.

``MaskedAutoencoder``: He et al., 2022, arXiv 2111.06377. ``PairPretraining``: contrast,
matching and masked words in one model, as in ALBEF, Li et al., 2021, arXiv 2107.07651.
Taught in 08_multimodal_pretraining.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.dual_encoder import DualEncoder, width_of
from mmcourse.losses import hard_negatives, masked_image, masked_lm, matching
from mmcourse.masking import Hidden, hide_patches, hide_tokens, pick
from mmcourse.modalities import patchify, unpatchify
from mmcourse.tokenizers import SPECIALS
from mmcourse.transformer import Block, Encoder
from mmcourse.vit import ViT, sinusoidal_grid

Batch = Mapping[str, Tensor]


class MaskedAutoencoder(nn.Module):
    """A ViT that sees a quarter of a picture, and a small decoder that paints the rest.

    The encoder never meets a hidden patch or a token in its place, which makes it cheap
    and leaves it fit for whole pictures; the decoder is thrown away after training. The
    class token stays in the encoder (in the paper the decoder sees it too).
    """

    def __init__(
        self,
        encoder: ViT,
        dim: int = 96,
        depth: int = 2,
        heads: int = 4,
        share: float = 0.75,
    ):
        super().__init__()
        c = encoder.config
        self.encoder, self.share = encoder, share
        self.narrow = nn.Linear(c.dim, dim)
        self.hidden = nn.Parameter(0.02 * torch.randn(dim))
        table = sinusoidal_grid(c.side, c.side, dim)
        self.register_buffer("position", table, persistent=False)
        self.decoder = Encoder(dim, depth, heads)
        self.paint = nn.Linear(dim, c.channels * c.patch**2)

    def forward(
        self, image: Float[Tensor, "B C H W"], hidden: Hidden | None = None
    ) -> tuple[Float[Tensor, "B N P"], Hidden]:
        """Predict every patch, each standardised; say which ones had been hidden."""
        if hidden is None:
            n = self.encoder.config.side**2
            hidden = hide_patches(len(image), n, self.share, image.device)
        x = self.encoder.patches(image) + self.encoder.position
        x, first = pick(x, hidden.kept), self.encoder.config.prefix
        if self.encoder.prefix is not None:
            x = torch.cat([self.encoder.prefix.expand(len(x), -1, -1), x], dim=1)
        seen = self.encoder.encoder(self.encoder.norm_before(x))[:, first:]
        seen = self.narrow(seen)
        missing = hidden.restore.shape[1] - seen.shape[1]
        tokens = torch.cat([seen, self.hidden.expand(len(x), missing, -1)], dim=1)
        tokens = pick(tokens, hidden.restore) + self.position
        return self.paint(self.decoder(tokens)), hidden

    def loss(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
        """Return the error on the hidden patches, each standardised."""
        predicted, hidden = self(image)
        patches = patchify(image, self.encoder.config.patch)
        return masked_image(predicted, patches, hidden.hidden)

    @torch.no_grad()
    def painted(
        self, image: Float[Tensor, "B C H W"], hidden: Hidden
    ) -> Float[Tensor, "B C H W"]:
        """Return pictures whose hidden patches are painted by the model.

        It predicts shapes, not brightness: mean and deviation of each hidden patch are
        taken from the true picture, as in the paper's figures.
        """
        c = self.encoder.config
        true = patchify(image, c.patch)
        mean, std = true.mean(-1, keepdim=True), true.std(-1, keepdim=True)
        guess = self(image, hidden)[0] * std + mean
        mixed = torch.where(hidden.hidden.unsqueeze(-1), guess, true)
        return unpatchify(mixed, c.patch, c.channels).clamp(0, 1)


class PairPretraining(nn.Module):
    """Contrast, matching and masked words at once, on pairs of pictures and texts.

    A dual encoder compares pictures and texts that don't know of each other. On top,
    ``depth`` blocks read a text with cross attention to the picture's patches; their
    first token says whether the two belong together, the others name hidden words. The
    texts' last id is the mask token: give the text encoder one id more than the
    tokenizer has, and begin texts with BOS.
    """

    def __init__(self, dual: DualEncoder, depth: int = 2, heads: int = 4):
        super().__init__()
        dim, self.vocab = width_of(dual.text), dual.text.config.vocab
        self.dual = dual
        self.bridge = nn.Linear(width_of(dual.image), dim)
        self.joint = nn.ModuleList(Block(dim, heads, cross=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.match = nn.Linear(dim, 2)
        self.word = nn.Linear(dim, self.vocab)

    def read(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"],
        patches: Float[Tensor, "B N D"],
    ) -> Float[Tensor, "B L E"]:
        """Read texts in sight of pictures, whose encoder's tokens are ``patches``."""
        x, _ = self.dual.text(tokens, mask)
        return self._join(x, mask, self.bridge(patches))

    def losses(
        self, batch: Batch, ids: Int[Tensor, " B"] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the three objectives of a batch of pairs; ``ids`` as in info_nce."""
        tokens, mask = batch["tokens"], batch["mask"]
        patches, every = self.dual.image(batch["image"])
        words, _ = self.dual.text(tokens, mask)
        image = self.dual.project("image", patches, every)
        text = self.dual.project("text", words, mask)
        bridged = self.bridge(patches)
        texts, pictures = hard_negatives(self.dual.logits(image, text), ids)
        joined = self._join(
            torch.cat([words, words[texts], words]),
            torch.cat([mask, mask[texts], mask]),
            torch.cat([bridged, bridged, bridged[pictures]]),
        )
        said = self.match(joined[:, 0])
        specials = range(len(SPECIALS))
        seen, labels = hide_tokens(
            tokens, mask, self.vocab - 1, self.vocab - 1, specials
        )
        named = self.word(self.read(seen, mask, patches))
        return {
            "contrast": self.dual.loss(image, text, ids),
            "matching": matching(said[: len(tokens)], said[len(tokens) :]),
            "words": masked_lm(named, labels),
        }

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the sum of the three objectives."""
        return sum(self.losses(batch).values())

    @torch.no_grad()
    def matches(self, batch: Batch) -> Float[Tensor, " B"]:
        """Return the probability that each picture and text belong together."""
        patches, _ = self.dual.image(batch["image"])
        joined = self.read(batch["tokens"], batch["mask"], patches)
        return self.match(joined[:, 0]).softmax(dim=-1)[:, 1]

    def _join(self, x: Tensor, mask: Tensor, patches: Tensor) -> Tensor:
        for block in self.joint:
            x = block(x, mask, patches)
        return self.norm(x)
