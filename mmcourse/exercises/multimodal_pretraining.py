"""Exercises and questions of 08_multimodal_pretraining: hide, paint, match, write."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question

IGNORE = -100


def _sizes(rng: np.random.Generator, *choices: int) -> list[int]:
    """Draw an order of sizes that all differ, so that axes can't be mistaken."""
    return rng.permutation(choices).tolist()


# --- hide_words -----------------------------------------------------------------------

MASK = 99


def _labels(tokens: Tensor, chosen: Tensor) -> Tensor:
    return tokens.where(chosen, torch.tensor(IGNORE))


def _seen(
    tokens: Tensor, where: Tensor, dice: Tensor, other: Tensor, first=0.8, second=0.9
) -> Tensor:
    masked, swapped = where & (dice < first), where & (dice >= first) & (dice < second)
    return tokens.masked_fill(masked, MASK).where(~swapped, other)


def _hide(tokens: Tensor, chosen: Tensor, dice: Tensor, other: Tensor):
    return _seen(tokens, chosen, dice, other), _labels(tokens, chosen)


def _words_input(rng: np.random.Generator) -> tuple:
    """Draw tokens; of those chosen each of the three fates has some."""
    batch, length = _sizes(rng, 6, 8)
    tokens, other = (
        torch.from_numpy(rng.integers(5, 90, (batch, length))) for _ in "ab"
    )
    chosen = torch.from_numpy(rng.random((batch, length)) < 0.5)
    chosen[0, :3], chosen[1, 0] = True, False
    dice = torch.from_numpy(rng.random((batch, length))).float()
    dice[0, :3] = torch.tensor([0.1, 0.85, 0.95])
    return tokens, chosen, dice, other


HIDE_WORDS = Exercise(
    "hide_words",
    _hide,
    _words_input,
    fixed=(
        (
            torch.tensor([[11, 12, 13, 14]]),
            torch.tensor([[True, True, True, False]]),
            torch.tensor([[0.2, 0.85, 0.95, 0.1]]),
            torch.tensor([[21, 22, 23, 24]]),
        ),
    ),
    properties={
        "where nothing is chosen, nothing changes and nothing is asked": lambda f: (
            lambda t, seen, labels: (
                torch.equal(seen, t) and bool((labels == -100).all())
            )
        )(
            torch.arange(6).view(2, 3),
            *f(
                torch.arange(6).view(2, 3),
                torch.zeros(2, 3, dtype=torch.bool),
                torch.rand(2, 3),
                torch.full((2, 3), 50),
            ),
        ),
    },
    mistakes={
        "every chosen token becomes the mask: a tenth is swapped and a tenth stays, so "
        "that the model can't rely on seeing a mask": lambda t, c, d, o: (
            t.masked_fill(c, MASK),
            _labels(t, c),
        ),
        "tokens are swapped that were not chosen": lambda t, c, d, o: (
            _seen(t, c, d, o).where(c, _seen(t, ~c, d, o)),
            _labels(t, c),
        ),
        "every token is asked for: labels are -100 where nothing was chosen": (
            lambda t, c, d, o: (_seen(t, c, d, o), t)
        ),
        "the labels hold what is seen: they should hold the true tokens": (
            lambda t, c, d, o: (_seen(t, c, d, o), _labels(_seen(t, c, d, o), c))
        ),
        "chosen tokens that stay as they are need a label, too": lambda t, c, d, o: (
            _seen(t, c, d, o),
            _labels(t, c & (d < 0.9)),
        ),
        "only masked tokens have a label: all chosen ones do": lambda t, c, d, o: (
            _seen(t, c, d, o),
            _labels(t, c & (d < 0.8)),
        ),
        "`chosen` is turned round": lambda t, c, d, o: _hide(t, ~c, d, o),
        "swapped and kept have changed places: 0.8 to 0.9 is swapped": (
            lambda t, c, d, o: (
                t.masked_fill(c & (d < 0.8), MASK).where(~(c & (d >= 0.9)), o),
                _labels(t, c),
            )
        ),
        "the chosen tokens below 0.9 all become the mask: from 0.8 to 0.9 they are "
        "swapped": lambda t, c, d, o: (
            t.masked_fill(c & (d < 0.9), MASK),
            _labels(t, c),
        ),
    },
    points=2,
)

# --- painted_error --------------------------------------------------------------------


def _squares(predicted: Tensor, patches: Tensor) -> Tensor:
    return (predicted - patches).square().mean(dim=-1)


def _painted(predicted: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    return _squares(predicted, patches)[hidden].mean()


def _patch_input(rng: np.random.Generator) -> tuple:
    batch, n, width = _sizes(rng, 3, 4, 6)
    predicted, patches = (
        torch.from_numpy(rng.normal(size=(batch, n, width))).float() for _ in "ab"
    )
    hidden = torch.from_numpy(rng.random((batch, n)) < 0.6)
    hidden[0, 0], hidden[0, 1], hidden[1, :2] = True, False, True
    return predicted, patches, hidden


PAINTED_ERROR = Exercise(
    "painted_error",
    _painted,
    _patch_input,
    fixed=(
        (
            torch.tensor([[[1.0, 3.0], [0.0, 0.0], [2.0, 2.0]]]),
            torch.tensor([[[1.0, 1.0], [5.0, 5.0], [2.0, 0.0]]]),
            torch.tensor([[True, False, True]]),
        ),
    ),
    properties={
        "what is painted over a visible patch costs nothing": lambda f: (
            float(
                f(
                    torch.tensor([[[9.0], [1.0]]]),
                    torch.tensor([[[0.0], [1.0]]]),
                    torch.tensor([[False, True]]),
                )
            )
            == 0.0
        ),
    },
    mistakes={
        "visible patches count as well: the model has seen those": lambda p, x, h: (
            _squares(p, x).mean()
        ),
        "`hidden` is turned round: the error of visible patches is asked": (
            lambda p, x, h: _squares(p, x)[~h].mean()
        ),
        "you divide by all patches: divide by the hidden ones": lambda p, x, h: (
            _squares(p, x) * h
        ).mean(),
        "you average each picture first: one with few hidden patches then counts as "
        "much as one with many": lambda p, x, h: (
            (_squares(p, x) * h).sum(dim=1) / h.sum(dim=1).clamp(min=1)
        )[h.any(1)].mean(),
        "you add up over a patch's numbers: take their mean": lambda p, x, h: (
            (p - x).square().sum(dim=-1)[h].mean()
        ),
        "these are absolute errors: square them": lambda p, x, h: (
            (p - x).abs().mean(dim=-1)[h].mean()
        ),
        "you add up over the patches: take the mean of the hidden ones": (
            lambda p, x, h: _squares(p, x)[h].sum()
        ),
    },
)

# --- hardest_texts --------------------------------------------------------------------


def _hardest(scores: Tensor, ids: Tensor) -> Tensor:
    return scores.masked_fill(ids[:, None] == ids[None, :], -torch.inf).argmax(dim=1)


def _without_itself(scores: Tensor) -> Tensor:
    itself = torch.eye(len(scores), dtype=torch.bool)
    return scores.masked_fill(itself, -torch.inf)


def _scores_input(rng: np.random.Generator) -> tuple:
    """Draw scores in which partners, and the pair itself, often score highest."""
    ids = np.array([1, 1, 2, 2, 3, 4])[rng.permutation(6)]
    scores = rng.normal(size=(6, 6)) + 2.0 * (ids[:, None] == ids[None, :])
    return torch.from_numpy(scores).float(), torch.from_numpy(ids)


HARDEST_TEXTS = Exercise(
    "hardest_texts",
    _hardest,
    _scores_input,
    fixed=(
        (
            torch.tensor([[5.0, 4.0, 1.0], [4.0, 5.0, 2.0], [1.0, 3.0, 5.0]]),
            torch.tensor([7, 7, 8]),
        ),
        (torch.tensor([[-1.0, -5.0], [-4.0, -2.0]]), torch.tensor([0, 1])),
        (  # a wrong text scores highest, as it may not in any of the random ones
            torch.tensor([[0.5, 2.0, 0.1], [0.3, 1.0, 0.2], [0.4, 0.9, 0.6]]),
            torch.tensor([7, 7, 8]),
        ),
    ),
    properties={
        "a text of the same id is never chosen": lambda f: (
            lambda s, ids: bool((ids[f(s, ids)] != ids).all())
        )(torch.randn(6, 6) + 5 * torch.eye(6), torch.tensor([1, 1, 1, 2, 2, 3])),
    },
    mistakes={
        "only the pair itself is left out: texts of the same id are right as well": (
            lambda s, ids: _without_itself(s).argmax(dim=1)
        ),
        "nothing is left out: the right text is no negative": lambda s, ids: s.argmax(
            dim=1
        ),
        "these are the easiest negatives: the highest score is the hardest": (
            lambda s, ids: s.masked_fill(
                ids[:, None] == ids[None, :], torch.inf
            ).argmin(dim=1)
        ),
        "you search the columns, a picture for each text: search the rows": (
            lambda s, ids: _hardest(s.T, ids)
        ),
        "you put 0 in the place of partners, which may be the highest: use -inf": (
            lambda s, ids: s.masked_fill(ids[:, None] == ids[None, :], 0.0).argmax(1)
        ),
        "these are the scores: return the places": lambda s, ids: s.masked_fill(
            ids[:, None] == ids[None, :], -torch.inf
        ).amax(dim=1),
        "equal and different ids are turned round": lambda s, ids: s.masked_fill(
            ids[:, None] != ids[None, :], -torch.inf
        ).argmax(dim=1),
    },
)

# --- write_on -------------------------------------------------------------------------


def _entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of every place, (B, L)."""
    return F.cross_entropy(logits.mT, tokens, reduction="none")


def _write_on(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return _entropy(logits[:, :-1], tokens[:, 1:])[mask[:, 1:]].mean()


def _text_input(rng: np.random.Generator) -> tuple:
    batch, length, vocab = _sizes(rng, 4, 5, 7)
    logits = torch.from_numpy(2 * rng.normal(size=(batch, length, vocab))).float()
    tokens = torch.from_numpy(rng.integers(0, vocab, (batch, length)))
    real = torch.from_numpy(rng.integers(2, length, batch))
    real[0], real[1] = length, 2
    return logits, tokens, torch.arange(length) < real[:, None]


WRITE_ON = Exercise(
    "write_on",
    _write_on,
    _text_input,
    properties={
        "logits that are all alike give ln V": lambda f: torch.allclose(
            torch.as_tensor(
                f(
                    torch.zeros(2, 4, 8),
                    torch.ones(2, 4).long(),
                    torch.ones(2, 4, dtype=torch.bool),
                )
            ),
            torch.tensor(8.0).log(),
            atol=1e-5,
        ),
        "what stands after the end changes nothing": lambda f: (
            lambda z, t, m: torch.allclose(
                torch.as_tensor(f(z, t, m)),
                torch.as_tensor(f(z, t.where(m, torch.tensor(0)), m)),
            )
        )(
            torch.randn(2, 4, 5),
            torch.randint(5, (2, 4)),
            torch.tensor([[True, True, False, False], [True, True, True, True]]),
        ),
    },
    mistakes={
        "nothing is shifted: logits at place n must name token n + 1, or the model "
        "learns to copy what it sees": lambda z, t, m: _entropy(z, t)[m].mean(),
        "shifted the wrong way: logits at place n + 1 name token n, which it has "
        "seen": lambda z, t, m: _entropy(z[:, 1:], t[:, :-1])[m[:, 1:]].mean(),
        "padding counts: leave out what comes after the end": lambda z, t, m: _entropy(
            z[:, :-1], t[:, 1:]
        ).mean(),
        "you average each text first: a short one then weighs as much as a long "
        "one": lambda z, t, m: (
            (_entropy(z[:, :-1], t[:, 1:]) * m[:, 1:]).sum(1) / m[:, 1:].sum(1)
        ).mean(),
        "the mask is not shifted with the tokens: whether token n + 1 is real says "
        "mask[:, 1:]": lambda z, t, m: _entropy(z[:, :-1], t[:, 1:])[m[:, :-1]].mean(),
        "you add up: take the mean over the real tokens": lambda z, t, m: _entropy(
            z[:, :-1], t[:, 1:]
        )[m[:, 1:]].sum(),
        "the sign is wrong: a loss falls": lambda z, t, m: -_write_on(z, t, m),
    },
    points=2,
)

EXERCISES = (HIDE_WORDS, PAINTED_ERROR, HARDEST_TEXTS, WRITE_ON)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "word-behind-mask",
        "A model reads 'a red [MASK]' beside a picture of a red seven, and another one "
        "reads it without the picture. All ten digits are equally common. How often "
        "does the second name the hidden word?",
        {
            "one time in ten": "Nothing in 'a red' says which digit. Words that "
            "language alone can't guess are what makes a model look.",
            "about half the time: it has read thousands of captions": "It has, and in "
            "all of them every digit followed 'red' equally often.",
            "never: it has no picture": "It may guess, and one guess of ten is right.",
        },
        right=0,
    ),
    Question(
        "beit-text",
        "You want to compare pictures with sentences. Which class of transformers does "
        "it, with pretrained weights of its own?",
        {
            "BeitModel": "It has patches, a mask token for patches, and no text "
            "side at all: no tokenizer, no text features. BEiT-3 has both, but it is "
            "another model.",
            "ViTModel": "It was trained to name pictures. It has never read a word.",
            "CLIPModel": "It has get_image_features and get_text_features, trained so "
            "that their cosines mean something. SiglipModel is another.",
            "any of them, with a BertModel beside it": "Two encoders that never met "
            "have no common space: their cosines are noise until something maps one "
            "into the other.",
        },
        right=2,
    ),
    Question(
        "forgetting",
        "A model that reads digits is trained further, all weights, to name colours "
        "alone. Digits are never shown as an answer again. How well does it read "
        "digits afterwards?",
        {
            "as before: nothing told it to unlearn them": "Nothing told it to keep "
            "them either. The weights they lived in are used for something else now.",
            "worse": "Every step that helps colours may hurt digits, and nothing pays "
            "for that. It is called catastrophic forgetting.",
            "better: it has seen more pictures": "More pictures, but for another "
            "question, in which the shape of the digit is noise.",
        },
        right=1,
    ),
)
