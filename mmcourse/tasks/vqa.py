"""A question about a picture: encode the picture once, ask it anything.

Answers are classes, and the picture's vector is multiplied by the question's: Antol et
al., 2015, arXiv 1505.00468. Words that attend to the picture, block by block: LXMERT's
idea, Tan and Bansal, 2019, arXiv 1908.07490. Taught in 11_vqa.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.encoders import mean_pool
from mmcourse.fusion.base import VectorFusion
from mmcourse.fusion.hybrid import CrossBlock
from mmcourse.tokenizers import Tokenizer, pad
from mmcourse.transformer import Block

Batch = Mapping[str, Tensor]
IGNORE = -100  # the label where a picture has no further question


class BagOfWords(nn.Module):
    """A question as one token: a linear map of how often each word is in it."""

    def __init__(self, vocab: int, dim: int):
        super().__init__()
        self.vocab = vocab
        self.project = nn.Sequential(nn.Linear(vocab, dim), nn.LayerNorm(dim))

    def forward(
        self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B 1 D"], Bool[Tensor, "B 1"]]:
        """Count the words that are real; their order is lost."""
        words = F.one_hot(tokens, self.vocab) * mask[..., None]
        token = self.project(words.sum(dim=1).float())[:, None]
        return token, token.new_ones(token.shape[:2], dtype=torch.bool)

    pool = staticmethod(mean_pool)


class Whole(nn.Module):
    """A picture as one token: a linear map of all tokens that ``encoder`` gives."""

    def __init__(self, encoder: nn.Module, tokens: int, width: int, dim: int):
        super().__init__()
        self.encoder = encoder
        self.project = nn.Sequential(nn.Linear(tokens * width, dim), nn.LayerNorm(dim))

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B 1 D"], Bool[Tensor, "B 1"]]:
        """Encode pictures, every place by weights of its own."""
        token = self.project(self.encoder(image)[0].flatten(1))[:, None]
        return token, token.new_ones(token.shape[:2], dtype=torch.bool)

    pool = staticmethod(mean_pool)


class Product(VectorFusion):
    """x_image * x_text, number by number: the question says which features count."""

    def fuse(self, x: list[Tensor], here: Tensor | None) -> Float[Tensor, "B D"]:
        """Multiply the vectors; a missing one is a learned vector."""
        return x[0] * x[1]


class Asking(nn.Module):
    """The words of a question see each other, then the picture, block after block.

    All questions about a picture look at it in one attention, so that its keys and
    values are computed once. Words see those of their own question alone.
    """

    def __init__(self, dim: int, heads: int = 4, depth: int = 2):
        super().__init__()
        self.own = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.look = nn.ModuleList(CrossBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        seen: Float[Tensor, "B K D"],
        seen_mask: Bool[Tensor, "B K"],
        words: Float[Tensor, "B Q L D"],
        mask: Bool[Tensor, "B Q L"],
    ) -> Float[Tensor, "B Q D"]:
        """Let the words read the picture; return the mean of each question's."""
        q = words.shape[1]
        x, real = (rearrange(t, "b q l ... -> (b q) l ...") for t in (words, mask))
        for own, look in zip(self.own, self.look, strict=True):
            x = rearrange(own(x, real), "(b q) l d -> b (q l) d", q=q)
            x = look(x, seen, seen_mask)
            x = rearrange(x, "b (q l) d -> (b q) l d", q=q)
        return rearrange(mean_pool(self.norm(x), real), "(b q) d -> b q d", q=q)


class Modulated(nn.Module):
    """The question scales and shifts each place of the picture; then places meet.

    relu((1 + gamma) v + beta) at every place, gamma and beta linear in the question's
    mean word: FiLM, Perez et al., 2018, arXiv 1709.07871. Then blocks of self-attention
    over the places, so that things can be counted and compared, and their mean.
    """

    def __init__(self, dim: int, heads: int = 4, depth: int = 2):
        super().__init__()
        self.film = nn.Linear(dim, 2 * dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        seen: Float[Tensor, "B K D"],
        seen_mask: Bool[Tensor, "B K"],
        words: Float[Tensor, "B Q L D"],
        mask: Bool[Tensor, "B Q L"],
    ) -> Float[Tensor, "B Q D"]:
        """Look at the picture once for each question, as the question has it."""
        q = words.shape[1]
        asked = mean_pool(words.flatten(0, 1), mask.flatten(0, 1))
        change = rearrange(self.film(asked), "(b q) d -> b q 1 d", q=q)
        gamma, beta = change.chunk(2, dim=-1)
        x = torch.relu((1 + gamma) * seen[:, None] + beta).flatten(0, 1)
        real = repeat(seen_mask, "b k -> (b q) k", q=q)
        shown = None if real.all() else real  # attention is faster without a mask
        for block in self.blocks:
            x = block(x, shown)
        return rearrange(mean_pool(self.norm(x), real), "(b q) d -> b q d", q=q)


class VQA(nn.Module):
    """Encoders of pictures and of questions, what joins them, and a head of answers.

    ``fusion`` is a feature-level one of ``mmcourse.fusion``, which gets one vector of
    each, or ``Asking`` or ``Modulated``. A batch holds ``image`` (B, ...), and Q
    questions about each: ``tokens`` (B, Q, L) with their ``mask``. Each picture is
    encoded once.
    """

    def __init__(
        self, image: nn.Module, text: nn.Module, fusion: nn.Module, head: nn.Module
    ):
        super().__init__()
        self.image, self.text, self.fusion, self.head = image, text, fusion, head

    def forward(self, batch: Batch) -> Float[Tensor, "B Q A"]:
        """Return the logits of the answers to every question."""
        return self.ask(*self.image(batch["image"]), batch["tokens"], batch["mask"])

    def ask(
        self,
        seen: Float[Tensor, "B K D"],
        seen_mask: Bool[Tensor, "B K"],
        tokens: Int[Tensor, "B Q L"],
        mask: Bool[Tensor, "B Q L"],
    ) -> Float[Tensor, "B Q A"]:
        """Ask questions of pictures that are encoded already."""
        if tokens.ndim != 3 or tokens.numel() == 0 or mask.shape != tokens.shape:
            raise ValueError(
                f"tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)}: both are "
                "(pictures, questions, words), at least one of each"
            )
        if len(tokens) != len(seen):
            raise ValueError(
                f"{len(seen)} pictures but questions for {len(tokens)}: tokens are "
                "(pictures, questions, words)"
            )
        # What only fills the batch up gets one word, and its answer doesn't count.
        first = torch.arange(mask.shape[2], device=mask.device) == 0
        mask = mask | (first & ~mask.any(dim=2, keepdim=True))
        q = tokens.shape[1]
        words = self.text(tokens.flatten(0, 1), mask.flatten(0, 1))
        if not isinstance(self.fusion, VectorFusion):
            words = (rearrange(x, "(b q) ... -> b q ...", q=q) for x in words)
            return self.head(self.fusion(seen, seen_mask, *words))
        picture = repeat(self.image.pool(seen, seen_mask), "b d -> (b q) d", q=q)
        both = {"image": picture, "text": self.text.pool(*words)}
        return rearrange(self.head(self.fusion(both)), "(b q) a -> b q a", q=q)


def loss(model: VQA, batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy over the questions asked; ``label`` (B, Q), -100 where none is.

    Where the batch has ``habit`` (B, Q, A), it is added to the logits: what a blind
    model would say is explained by it, and the model learns the rest.
    """
    logits, label = model(batch), batch["label"]
    habit = batch.get("habit", torch.zeros_like(logits))
    if label.shape != logits.shape[:2] or habit.shape != logits.shape:
        raise ValueError(
            f"label {tuple(label.shape)} and habit {tuple(habit.shape)} don't fit "
            f"{tuple(logits.shape)}: pictures, questions, answers"
        )
    if (label == IGNORE).all():
        raise ValueError(f"all labels are {IGNORE}: no question is asked")
    return F.cross_entropy(
        (logits + habit).flatten(0, 1), label.flatten(), ignore_index=IGNORE
    )


# --- from rows to tensors, and back to words --------------------------------------


Rows = Sequence[Sequence[Mapping[str, str]]]  # [i]: what is asked about picture i


def questions(
    rows: Rows, tokenizer: Tokenizer, answers: Sequence[str]
) -> dict[str, Tensor]:
    """Return tokens (n, Q, L), mask and label (n, Q) of n pictures' questions.

    ``rows[i]`` lists what is asked about picture i: question and answer. A label is the
    answer's place in ``answers``. Raises ValueError for an answer that isn't there, an
    empty question, and a picture without any.
    """
    asked = [*_asked(rows, answers)]
    encode = cache(tokenizer.encode)  # many pictures are asked the same
    flat, real = pad([encode(text) for _, _, text, _ in asked])
    at = tuple(torch.tensor([one[:2] for one in asked]).T)
    label = torch.full((len(rows), max(map(len, rows))), IGNORE)
    label[at] = torch.tensor([place for *_, place in asked])
    tokens = torch.zeros(*label.shape, flat.shape[1], dtype=torch.long)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    tokens[at], mask[at] = flat, real
    return {"tokens": tokens, "mask": mask, "label": label}


def habit(
    rows: Rows, answers: Sequence[str], words: int = 2, least: float = 1e-3
) -> Float[Tensor, "n Q A"]:
    """Return ln p(answer | question) - ln p(answer | its first words), by counting.

    ``words`` first words tell the kind, "what shape": what a kind's answers are, the
    model has to learn; which of them a question mostly gets, it needn't. Probabilities
    are raised by ``least``. Training beside a fixed blind model, which is dropped
    later: Clark et al., 2019, arXiv 1909.03683; to subtract the kind is ours.
    """
    if not least > 0:
        raise ValueError(f"least={least}: ln 0 has no value, so give more than 0")
    asked = [*_asked(rows, answers)]
    counts: dict[tuple, Tensor] = {}
    for _, _, text, place in asked:
        for key in _keys(text, words):
            counts.setdefault(key, torch.zeros(len(answers)))[place] += 1
    log = {key: (count / count.sum() + least).log() for key, count in counts.items()}
    out = torch.zeros(len(rows), max(map(len, rows)), len(answers))
    for i, j, text, _ in asked:
        question, kind = _keys(text, words)
        out[i, j] = log[question] - log[kind]
    return out


def _keys(text: str, words: int) -> tuple[tuple, tuple]:
    """Return what counts as the same question, and as the same kind of question."""
    all_ = tuple(text.lower().split())
    return ("question", *all_), ("kind", *all_[:words])


def _asked(
    rows: Sequence, answers: Sequence[str]
) -> Iterator[tuple[int, int, str, int]]:
    """Yield picture, place in its row, question, and its answer's place in answers."""
    place = {answer: i for i, answer in enumerate(answers)}
    if len(place) < len(answers):
        raise ValueError(f"{len(answers)} answers, {len(place)} different: each once")
    if len(rows) == 0 or not all(map(len, rows)):
        empty = [*map(len, rows)].index(0) if len(rows) > 0 else "0, for there is none"
        raise ValueError(f"nothing is asked of picture {empty}")
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            where = f"picture {i}, question {j}"
            if not isinstance(one, Mapping) or not {"question", "answer"} <= {*one}:
                raise ValueError(
                    f"{where}: {one!r:.60} is no row, write for each picture "
                    "[{'question': ..., 'answer': ...}, ...]"
                )
            if not one["question"].strip():
                raise ValueError(f"{where}: the question is empty")
            if one["answer"] not in place:
                more = ", ..." if len(place) > 5 else ""
                raise ValueError(
                    f"{where}: the answer {one['answer']!r} is none of {len(place)} "
                    f"known ones, {', '.join([*place][:5])}{more}"
                )
            yield i, j, one["question"], place[one["answer"]]


@torch.no_grad()
def predict(model: VQA, batch: Batch, size: int = 100) -> Int[Tensor, "n Q"]:
    """Return the likeliest answer's place for every question of n pictures.

    ValueError for a picture that holds NaN: it would be answered all the same.
    """
    bad = (~batch["image"].isfinite().flatten(1).all(dim=1)).nonzero().flatten()
    if len(bad) > 0:
        raise ValueError(f"pictures {bad[:5].tolist()} hold NaN or infinite numbers")
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        wanted = {key: batch[key].split(size) for key in ("image", "tokens", "mask")}
        parts = [
            model({key: x.to(device) for key, x in zip(wanted, xs, strict=True)})
            for xs in zip(*wanted.values(), strict=True)
        ]
    finally:
        model.train(training)
    return torch.cat([logits.argmax(dim=-1).cpu() for logits in parts])
