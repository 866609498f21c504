"""From a picture to a sentence: an encoder sees, a decoder writes word by word.

Attention over the picture while writing: Xu et al., 2015, arXiv 1502.03044. Label
smoothing: Szegedy et al., 2015, arXiv 1512.00567. What is said and isn't there: CHAIR,
Rohrbach et al., 2018, arXiv 1809.02156. Taught in 10_captioning.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse import losses, text_metrics
from mmcourse.generation import generate
from mmcourse.tokenizers import BOS, EOS, Tokenizer
from mmcourse.transformer import Decoder, DecoderConfig

Batch = Mapping[str, Tensor]


class Captioner(nn.Module):
    """An encoder of pictures and a decoder that attends to all that it sees.

    ``encoder(image)`` gives tokens (B, K, width) and their mask; a projection brings
    them to the decoder's width. ``forward`` is teacher forcing: every word is predicted
    from the true words before it, all at once.
    """

    def __init__(self, encoder: nn.Module, width: int, config: DecoderConfig):
        super().__init__()
        if not config.cross:
            raise ValueError("the decoder can't see: DecoderConfig(..., cross=True)")
        self.encoder = encoder
        self.project = nn.Linear(width, config.dim)
        self.decoder = Decoder(config)

    def see(
        self, image: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B K D"], Bool[Tensor, "B K"]]:
        """Encode pictures, once for every word that will be written about them."""
        tokens, mask = self.encoder(image)
        return self.project(tokens), mask

    def forward(self, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the logits of each next word of a batch's image, tokens and mask."""
        seen = self.see(batch["image"])
        return self.decoder(batch["tokens"], *seen, mask=batch["mask"])

    @torch.no_grad()
    def write(
        self, image: Float[Tensor, "B ..."], steps: int, **how
    ) -> Int[Tensor, "B L"]:
        """Write at most ``steps`` tokens about each picture, from ``BOS`` to ``EOS``.

        ``how`` is what ``generate`` takes: nothing for greedy, beams, length_penalty,
        temperature, top_k or top_p.
        """
        context, context_mask = self.see(image)
        start = torch.full((len(context), 1), BOS, device=context.device)
        seen = {"context": context, "context_mask": context_mask}
        return generate(self.decoder, start, steps, **seen, stop=EOS, **how)


def loss(model: Captioner, batch: Batch, smoothing: float = 0.1) -> Float[Tensor, ""]:
    """Name each next word; ``smoothing`` leaves a share of belief to all the others."""
    return losses.caption(model(batch), batch["tokens"], batch["mask"], smoothing)


def captions(
    model: Captioner,
    tokenizer: Tokenizer,
    images: Float[Tensor, "n ..."],
    steps: int = 32,
    batch: int = 128,
    **how,
) -> list[str]:
    """Write a sentence about each picture: words, without what marks their ends."""
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        parts = [model.write(x.to(device), steps, **how) for x in images.split(batch)]
    finally:
        model.train(training)
    return [tokenizer.decode(row) for part in parts for row in part.tolist()]


# --- is it there, and does it use rare words? --------------------------------------

Things = Sequence[Sequence[Hashable]]  # of each picture


def hallucinated(said: Things, there: Things) -> float:
    """Return which share of the things said isn't in the picture: CHAIR_i.

    Repeats count: of two red circles said, one is wrong if there is but one.
    """
    wrong = [
        (Counter(s) - Counter(t)).total() for s, t in zip(said, there, strict=True)
    ]
    return sum(wrong) / max(1, sum(map(len, said)))


def coverage(
    written: Sequence[str],
    references: Sequence[Sequence[str]],
    known: Counter[str],
    bounds: Sequence[int] = (0, 2, 9),
) -> dict[str, float]:
    """Return which share of the references' words is written, rare words first.

    ``known`` counts the words of the training texts, and ``bounds`` parts them by their
    count: "0", "1 to 2", "3 to 9", "10 or more". A word counts once for each picture.
    """
    hits: dict[str, list[bool]] = {}
    for text, told in zip(written, references, strict=True):
        found = set(text_metrics.tokens(text))
        for word in {w for reference in told for w in text_metrics.tokens(reference)}:
            hits.setdefault(_bin(known[word], bounds), []).append(word in found)
    names = [_bin(n, bounds) for n in (*bounds, bounds[-1] + 1)]
    return {name: sum(hits[name]) / len(hits[name]) for name in names if name in hits}


def _bin(count: int, bounds: Sequence[int]) -> str:
    low = 0
    for high in bounds:
        if count <= high:
            return f"{low} to {high}" if low < high else f"{high}"
        low = high + 1
    return f"{low} or more"
