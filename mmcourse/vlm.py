"""A vision-language model: pictures become tokens that a language model reads.

A frozen encoder sees, a projector turns what it saw into a few tokens, and they stand
among the embeddings of a prompt: LLaVA, Liu et al., 2023, arXiv 2304.08485; its
projector of two layers: 2024, arXiv 2310.03744; one vector as several tokens: ClipCap,
Mokady et al., 2021, arXiv 2111.09734. Taught in 13_vision_language_model.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.features import Features, FeaturesConfig
from mmcourse.transformer import BlockCache, Decoder


@dataclass(frozen=True)
class VLMConfig:
    """What sees, and how what is seen becomes tokens.

    ``frozen`` names the encoders, as in ``FeaturesConfig``; a picture becomes
    ``tokens`` tokens by way of ``hidden`` numbers. ``picture`` is the id of the token
    that keeps a place for one of them in a prompt.
    """

    frozen: str = "efficientnet-224+vit-s14"
    tokens: int = 4
    hidden: int = 256
    dropout: float = 0.2
    picture: int = 6  # <filename> of SmolLM2, which no text of ours has

    def __post_init__(self):
        """Refuse what no model can be."""
        for name in ("tokens", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")
        FeaturesConfig(self.frozen, self.dropout)


class Projector(nn.Module):
    """An MLP of two layers from what was seen (B, F) to tokens (B, K, D).

    The tokens begin as long as those of the language model's table, whose numbers have
    the root mean square ``size``: what its blocks add weighs as much as on words.
    """

    def __init__(self, seen: int, hidden: int, tokens: int, dim: int, size: float):
        super().__init__()
        self.tokens = tokens
        self.net = nn.Sequential(
            nn.Linear(seen, hidden), nn.GELU(), nn.Linear(hidden, tokens * dim)
        )
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.norm.weight, size)

    def forward(self, seen: Float[Tensor, "B F"]) -> Float[Tensor, "B K D"]:
        """Turn features into tokens."""
        return self.norm(self.net(seen).unflatten(-1, (self.tokens, -1)))


class VLM(nn.Module):
    """A language model that reads pictures among words.

    ``see`` turns features of pictures into tokens; called with a prompt and with those,
    it puts each in the place that the prompt keeps for it and predicts the next tokens,
    as a ``Decoder`` does, so that ``generate`` writes with it:
    ``generate(vlm, prompts, steps, context=vlm.see(features))``.
    """

    def __init__(self, config: VLMConfig, decoder: Decoder):
        super().__init__()
        positions = decoder.config.positions
        if positions != "rotary":
            raise ValueError(
                f"positions={positions!r} are added to words alone: take a rotary "
                "decoder, which turns pictures by their place, too"
            )
        self.config = config
        self.eye = Features(FeaturesConfig(config.frozen, config.dropout))
        table = decoder.embed.token.weight
        size = table.square().mean().sqrt().item()
        sizes = (self.eye.config.dim, config.hidden, config.tokens, table.shape[1])
        self.projector = Projector(*sizes, size)
        self.decoder = decoder

    def see(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B K D"]:
        """Turn what the frozen encoders saw (``eye.embed``) into a picture's tokens."""
        tokens, _ = self.eye(features)
        return self.projector(tokens[:, 0])

    def embed(
        self, tokens: Int[Tensor, "B N"], pictures: Float[Tensor, "B K D"] | None
    ) -> Float[Tensor, "B N D"]:
        """Embed a prompt, a picture's tokens in the places that are kept for them."""
        x = self.decoder.embed(tokens)
        places = tokens == self.config.picture
        kept = places.sum(dim=1)
        given = 0 if pictures is None else pictures.shape[1]
        if bool((kept != given).any()):
            raise ValueError(
                f"the prompts keep {sorted(set(kept.tolist()))} places for a picture "
                f"of {given} tokens: keep one for each by the token "
                f"{self.config.picture}"
            )
        return x if pictures is None else _spliced(x, places, pictures)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        context: Float[Tensor, "B K D"] | None = None,
        context_mask: None = None,
        *,
        cache: list[BlockCache] | None = None,
        last: bool = False,
    ) -> Float[Tensor, "B N2 V"]:
        """Return the logits of each next token, as ``Decoder`` does.

        ``context`` is a picture's tokens. With a ``cache`` they are read with the
        prompt, in the first call; what follows are words.
        """
        begun = cache is not None and cache[0][0].used > 0
        x = self.decoder.embed(tokens) if begun else self.embed(tokens, context)
        return self.decoder.head(self.decoder.read(x, cache=cache, last=last))

    def new_cache(self, batch: int, length: int, keys: int = 0) -> list[BlockCache]:
        """Lay out a cache for ``length`` tokens, a picture's ``keys`` among them."""
        return self.decoder.new_cache(batch, length)


def _spliced(
    x: Float[Tensor, "B N D"],
    places: Bool[Tensor, "B N"],
    pictures: Float[Tensor, "B K D"],
) -> Float[Tensor, "B N D"]:
    """Put the k-th token of a row's picture into the row's k-th place."""
    return x.masked_scatter(places.unsqueeze(-1), pictures.to(x))
