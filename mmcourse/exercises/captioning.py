"""Exercises and questions of 10_captioning: smoothing, beams, precision, hallucination.

The fixed inputs of each exercise alone tell all of its mistakes apart.
"""

from collections import Counter
from functools import reduce
from operator import and_, or_

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question
from mmcourse.text_metrics import ngrams, tokens

# --- smooth_targets -------------------------------------------------------------------


def _smooth(labels: Tensor, vocab: int, share: float) -> Tensor:
    return (1 - share) * F.one_hot(labels, vocab) + share / vocab


def _two_levels(on_label, elsewhere):
    """Return what puts one number on the label and another one everywhere else.

    Each is worked out from the vocabulary's size V and the share e.
    """

    def targets(labels: Tensor, vocab: int, share: float) -> Tensor:
        own = F.one_hot(labels, vocab).float()
        return own * on_label(vocab, share) + (1 - own) * elsewhere(vocab, share)

    return targets


def _label_input(rng: np.random.Generator) -> tuple:
    """Draw sizes that all differ, and a share so small that the label stays ahead."""
    n, vocab = rng.permutation([3, 4, 5, 6, 7])[:2].tolist()
    labels = torch.from_numpy(rng.integers(0, vocab, n))
    return labels, vocab, round(float(rng.uniform(0.05, 0.4)), 3)


def _near(one, other) -> bool:
    """Tell whether two tensors or numbers agree, as far as float32 can say."""
    one, other = (torch.as_tensor(x).detach().double() for x in (one, other))
    return torch.allclose(one, other, atol=1e-5)


SMOOTH_TARGETS = Exercise(
    "smooth_targets",
    _smooth,
    _label_input,
    fixed=(
        (torch.tensor([2, 0]), 4, 0.2),  # 0.85 on the label, 0.05 on each other token
        (torch.tensor([1, 1, 0]), 5, 0.1),
        (torch.tensor([0, 2, 1, 1]), 3, 0.0),  # nothing is smoothed
    ),
    properties={
        "every row sums to 1": lambda f: _near(
            f(torch.tensor([1, 0, 4]), 5, 0.3).sum(dim=1), torch.ones(3)
        ),
        "a share of 0 leaves the label alone": lambda f: _near(
            f(torch.tensor([1, 0, 2, 2]), 3, 0.0), torch.eye(3)[[1, 0, 2, 2]]
        ),
    },
    mistakes={
        "you spread it over the other tokens, share / (vocab - 1) each: here, as in "
        "torch, all have share / vocab, the label too": _two_levels(
            lambda v, e: 1 - e, lambda v, e: e / (v - 1)
        ),
        "rows don't sum to 1: the label has share / vocab, too, on top of 1 - share": (
            _two_levels(lambda v, e: 1 - e, lambda v, e: e / v)
        ),
        "rows sum to more than 1: what is spread is taken from the label, which keeps "
        "1 - share": _two_levels(lambda v, e: 1 + e / v, lambda v, e: e / v),
        "you spread 1 - share, and the label keeps `share`: the other way round": (
            lambda labels, v, e: _smooth(labels, v, 1 - e)
        ),
        "the label has `share` and the others have the rest: the other way round": (
            _two_levels(lambda v, e: e, lambda v, e: (1 - e) / (v - 1))
        ),
        "every token gets all of `share`: spread it, share / vocab each": _two_levels(
            lambda v, e: 1.0, lambda v, e: e
        ),
        "each of the others gets all of `share`: spread it, share / vocab each": (
            _two_levels(lambda v, e: 1 - e, lambda v, e: e)
        ),
        "what is taken from the label is lost: share / vocab goes to every token": (
            _two_levels(lambda v, e: 1 - e, lambda v, e: 0.0)
        ),
        "nothing is smoothed: this is 1 on the label": _two_levels(
            lambda v, e: 1.0, lambda v, e: 0.0
        ),
        "you divide by the number of labels: by that of the tokens, `vocab`": (
            lambda labels, v, e: (1 - e) * F.one_hot(labels, v) + e / len(labels)
        ),
        "these are logs: return probabilities": (
            lambda labels, v, e: _smooth(labels, v, e).log()
        ),
        "labels are the columns: a row for each label, a column for each token": (
            lambda labels, v, e: _smooth(labels, v, e).T
        ),
    },
)

# --- keep_beams -----------------------------------------------------------------------


def _pairs(places: Tensor, width: int) -> Tensor:
    return torch.stack([places // width, places % width], dim=1)


def _best(every: Tensor, k: int, largest: bool = True) -> Tensor:
    """Return the ``k`` best (beam, token) of a table (K, V), best first."""
    return _pairs(every.flatten().topk(k, largest=largest).indices, every.shape[1])


def _keep(scores: Tensor, log_p: Tensor) -> Tensor:
    return _best(scores[:, None] + log_p, len(scores))


def _places(scores: Tensor, log_p: Tensor) -> Tensor:
    return (scores[:, None] + log_p).flatten().topk(len(scores)).indices


def _own_best(scores: Tensor, log_p: Tensor) -> Tensor:
    """Return each beam with its likeliest token."""
    return torch.stack([torch.arange(len(scores)), log_p.argmax(dim=1)], dim=1)


def _best_beam(scores: Tensor, log_p: Tensor) -> Tensor:
    """Return the likeliest tokens of the best beam alone."""
    beam = scores.argmax()
    tokens = log_p[beam].topk(len(scores)).indices
    return torch.stack([beam.expand(len(tokens)), tokens], dim=1)


def _beam_input(rng: np.random.Generator) -> tuple:
    """Draw beams in no order; no two of the continuations are equally good."""
    k, vocab = int(rng.integers(3, 5)), int(rng.integers(6, 9))
    while True:
        scores = torch.from_numpy(rng.uniform(-3, -1, k)).float()
        logits = torch.from_numpy(2 * rng.normal(size=(k, vocab))).float()
        log_p = logits.log_softmax(dim=1)
        if (scores[:, None] + log_p).flatten().sort().values.diff().min() > 1e-4:
            return scores, log_p


def _table(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


NEXT = _table([0.5, 0.24, 0.16, 0.1], [0.19, 0.65, 0.06, 0.1], [0.3, 0.29, 0.36, 0.05])

KEEP_BEAMS = Exercise(
    "keep_beams",
    _keep,
    _beam_input,
    fixed=(
        (  # 0.3, 0.18 and 0.12 of beam 0; 0.36, 0.028 and 0.012 of beam 1
            torch.tensor([0.6, 0.4]).log(),
            _table([0.5, 0.3, 0.2], [0.9, 0.07, 0.03]),
        ),
        (  # both from beam 1, which has the lower score
            torch.tensor([0.45, 0.4]).log(),
            _table([0.3, 0.26, 0.24, 0.2], [0.5, 0.4, 0.06, 0.04]),
        ),
        (torch.tensor([0.2, 0.5, 0.3]).log(), NEXT),
        (torch.tensor([0.07, 0.1, 0.6]).log(), NEXT),
    ),
    properties={
        "one number more on every score changes nothing": lambda f: torch.equal(
            f(torch.tensor([-1.0, -0.5, -2.0]) - 3, NEXT),
            f(torch.tensor([-1.0, -0.5, -2.0]), NEXT),
        ),
        "a beam of probability 0 is not continued": lambda f: bool(
            (f(torch.tensor([-torch.inf, 0.0, -torch.inf]), NEXT)[:, 0] == 1).all()
        ),
    },
    mistakes={
        "each beam goes on with its own best token: the K best of all K * V are kept, "
        "and may come from one beam": _own_best,
        "each beam goes on with its own best token, and they are sorted: the K best of "
        "all K * V are kept, and may come from one beam": lambda s, p: _own_best(s, p)[
            (s + p.amax(dim=1)).argsort(descending=True)
        ],
        "what the beams have so far is not added: a continuation has the log p of all "
        "its tokens": lambda s, p: _best(p, len(s)),
        "you multiply: sums of log p are added to, as probabilities are multiplied": (
            lambda s, p: _best(s[:, None] * p, len(s))
        ),
        "probabilities are added: multiply them, which is to add their logs": (
            lambda s, p: _best(s.exp()[:, None] + p.exp(), len(s))
        ),
        "these are the worst continuations: a log p nearer to 0 is better": (
            lambda s, p: _best(s[:, None] + p, len(s), largest=False)
        ),
        "the best come last: the best first": lambda s, p: _keep(s, p).flip(0),
        "only the best beam goes on: another one may have better continuations": (
            _best_beam
        ),
        "you divide places by the number of beams: a row of the table has V places": (
            lambda s, p: _pairs(_places(s, p), len(s))
        ),
        "`/` gives fractions of a beam: divide with `//`": lambda s, p: torch.stack(
            [_places(s, p) / p.shape[1], _places(s, p) % p.shape[1]], dim=1
        ),
        "the columns are turned round: first the beam, then the token": (
            lambda s, p: _keep(s, p).flip(1)
        ),
        "beams and tokens are the rows: a row for each continuation": (
            lambda s, p: _keep(s, p).T
        ),
        "these are places in the flattened table: which beam and which token?": _places,
        "these are the tokens alone: say of which beam": lambda s, p: _keep(s, p)[:, 1],
        "these are the sums of log p: return which beam and which token": (
            lambda s, p: (s[:, None] + p).flatten().topk(len(s)).values
        ),
    },
    points=2,
)

# --- clipped_precision ----------------------------------------------------------------


def _share(part: int | float, whole: int | float) -> float:
    return part / whole if whole > 0 else 0.0


def _most(texts: list[Counter]) -> Counter:
    """Return the larger count of each n-gram."""
    return reduce(or_, texts)


def _clipped(words: list[str], references: list[list[str]], n: int) -> float:
    found, most = ngrams(words, n), _most([ngrams(text, n) for text in references])
    return _share((found & most).total(), found.total())


def _counted(right, total=lambda found, texts: found.total(), count=ngrams):
    """Return right / total, both worked out from the n-grams of words and references.

    ``count(words, n)`` counts n-grams.
    """

    def precision(words: list[str], references: list[list[str]], n: int) -> float:
        found, texts = count(words, n), [count(text, n) for text in references]
        return _share(right(found, texts), total(found, texts))

    return precision


def _right(found: Counter, texts: list[Counter]) -> int:
    return (found & _most(texts)).total()


def _without_last(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n))


def _with_tails(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words)))


def _words_input(rng: np.random.Generator) -> tuple:
    """Draw texts of few different words, so that many are repeated."""

    def text(least: int) -> list[str]:
        words = ["a", "red", "big", "circle"]
        return rng.choice(words, rng.integers(least, 9)).tolist()

    references = [text(3) for _ in range(rng.integers(2, 4))]
    return text(5), references, int(rng.integers(1, 4))


CAT = [tokens("the cat is on the mat"), tokens("there is a cat on the mat")]
RED = [tokens("a red big red a"), tokens("a red red a big red"), tokens("big a red")]
WRITTEN = tokens("a red a red red a big red big")

CLIPPED_PRECISION = Exercise(
    "clipped_precision",
    _clipped,
    _words_input,
    fixed=(
        (tokens("the the the the the the the"), CAT, 1),  # Papineni et al.: 2 of 7
        (tokens("the cat the cat on the mat"), CAT, 2),  # 4 of 6
        (WRITTEN, RED, 2),
        (WRITTEN, RED, 3),
        (tokens("red circle"), [tokens("a blue square")], 3),  # has no 3-gram
    ),
    properties={
        "a reference itself has 1": lambda f: all(
            _near(f(CAT[1], CAT, n), 1) for n in (1, 2, 3)
        ),
        "what no reference has gives 0": lambda f: _near(
            f(tokens("one big shape"), RED[:1], 3), 0
        ),
        "the order of the references does not matter": lambda f: _near(
            f(WRITTEN, RED + CAT, 2), f(WRITTEN, CAT[::-1] + RED[::-1], 2)
        ),
    },
    mistakes={
        "nothing is clipped: an n-gram is right at most as often as one reference has "
        "it": _counted(
            lambda found, texts: sum(
                k for g, k in found.items() if any(g in t for t in texts)
            )
        ),
        "you clip to all references together: to the one which has it most often": (
            _counted(lambda found, texts: (found & sum(texts, Counter())).total())
        ),
        "you clip to the reference which has it least often: to that with the most": (
            _counted(lambda found, texts: (found & reduce(and_, texts)).total())
        ),
        "each different n-gram counts once: one that is written twice, and is right "
        "twice, counts twice": _counted(
            lambda found, texts: len(found.keys() & _most(texts).keys()),
            lambda found, texts: len(found),
        ),
        "you count each right n-gram once: it's right as often as a reference has it": (
            _counted(lambda found, texts: len(found.keys() & _most(texts).keys()))
        ),
        "you divide by the n-grams of all references, which is a recall: by those of "
        "`words`": _counted(_right, lambda found, texts: sum(texts, Counter()).total()),
        "you divide by the references' larger counts, which is a recall: by the "
        "n-grams of `words`": _counted(
            _right, lambda found, texts: _most(texts).total()
        ),
        "only the first reference is looked at": lambda words, references, n: _clipped(
            words, references[:1], n
        ),
        "you take one reference for all n-grams, the best: each may have its own": (
            _counted(lambda found, texts: max((found & t).total() for t in texts))
        ),
        "you average over the references: for each n-gram take the one which has it "
        "most often": _counted(
            lambda found, texts: sum((found & t).total() for t in texts) / len(texts)
        ),
        "these are words: count runs of n words": lambda words, references, n: _clipped(
            words, references, 1
        ),
        "you divide by the number of words: there are n - 1 fewer n-grams": (
            lambda words, references, n: _share(
                _right(ngrams(words, n), [ngrams(t, n) for t in references]), len(words)
            )
        ),
        "the last n-gram is missing: a text has len(words) - n + 1": _counted(
            _right, count=_without_last
        ),
        "what is left at the end is no n-gram: fewer than n words": _counted(
            _right, count=_with_tails
        ),
    },
    points=2,
)

# --- hallucinated ---------------------------------------------------------------------

Things = list[list[str]]  # of each caption, or of each picture


def _wrong(said: list[str], there: list[str]) -> int:
    return (Counter(said) - Counter(there)).total()


def _total(lists: Things) -> int:
    return sum(map(len, lists))


def _each(count, lists_of=lambda said, there: said):
    """Return the sum of ``count(said, there)`` over captions, shared out by things."""

    def share(said: Things, there: Things) -> float:
        return _share(sum(map(count, said, there)), _total(lists_of(said, there)))

    return share


_hallucinated = _each(_wrong)


def _joined(lists: Things) -> list[str]:
    return [thing for one in lists for thing in one]


def _absent(said: list[str], there: list[str]) -> int:
    return sum(thing not in there for thing in said)


KINDS = ("red circle", "red square", "blue circle", "blue square", "green triangle")


def _things_input(rng: np.random.Generator) -> tuple:
    """Draw captions that all say something, often twice, and pictures of things."""

    def things() -> list[str]:
        return rng.choice(KINDS, rng.integers(1, 5)).tolist()

    captions = range(rng.integers(3, 6))
    return [things() for _ in captions], [things() for _ in captions]


HALLUCINATED = Exercise(
    "hallucinated",
    _hallucinated,
    _things_input,
    fixed=(
        (  # 2 wrong of 5: the second red circle, and the blue square
            [["red circle", "red circle"], ["red square", "blue square", "red square"]],
            [["red circle", "blue square"], ["red square"] * 2],
        ),
        (
            [["red circle"] * 3, ["blue circle", "red circle"], ["blue square"] * 2],
            [["red circle"], ["red square"], ["blue square", "red circle"]],
        ),
        (
            [["red circle"], ["blue square"] * 3, ["red circle", "blue circle"]],
            [["blue square"] * 2, [], ["red circle", "blue circle", "red square"]],
        ),
        ([[], []], [[], []]),  # two empty pictures, and nothing is said
    ),
    properties={
        "what is left out costs nothing": lambda f: _near(
            f([["red circle"]], [["red circle", "blue square"]]), 0
        ),
        "where nothing is said, nothing is wrong": lambda f: _near(
            f([[], []], [["red circle"], ["blue square"]]), 0
        ),
        "the order of what is said does not matter": lambda f: _near(
            f([[*KINDS[:3], KINDS[0]]], [[*KINDS[2:], KINDS[0]]]),
            f([[KINDS[0], *KINDS[2::-1]]], [[*KINDS[2:], KINDS[0]]]),
        ),
    },
    mistakes={
        "this is the share of captions with something wrong, CHAIR_s: the share of "
        "things": lambda said, there: (
            sum(_wrong(s, t) > 0 for s, t in zip(said, there, strict=True)) / len(said)
        ),
        "you average the captions' shares: one that says little then counts as much as "
        "one that says a lot": lambda said, there: float(
            np.mean(
                [_share(_wrong(s, t), len(s)) for s, t in zip(said, there, strict=True)]
            )
        ),
        "you divide by the things that are there: by those that are said": _each(
            _wrong, lambda said, there: there
        ),
        "you divide by the number of captions: by that of things said": (
            lambda said, there: sum(map(_wrong, said, there)) / len(said)
        ),
        "this is the share of what is there that is left unsaid: of what is said, the "
        "share that isn't there": _each(
            lambda s, t: _wrong(t, s), lambda said, there: there
        ),
        "you count what is left unsaid: count what is said and isn't there": _each(
            lambda s, t: _wrong(t, s)
        ),
        "this is the share that is right: one minus it": _each(
            lambda s, t: len(s) - _wrong(s, t)
        ),
        "you count a thing that is there as right as often as it's said: it is so as "
        "often as it's there": _each(_absent),
        "you drop repeats, as sets do: what is said twice counts twice": (
            lambda said, there: _hallucinated(
                [sorted(set(s)) for s in said], [sorted(set(t)) for t in there]
            )
        ),
        "a wrong thing counts once, however often it is said: each time": _each(
            lambda s, t: len(set(s) - set(t))
        ),
        "you look in all pictures together: only a caption's own picture counts": (
            lambda said, there: _hallucinated([_joined(said)], [_joined(there)])
        ),
        "you take for right what is in any of the pictures: only a caption's own "
        "counts": lambda said, there: _each(_absent)([_joined(said)], [_joined(there)]),
        "this is how many: divide by the number of things said": (
            lambda said, there: float(sum(map(_wrong, said, there)))
        ),
    },
)

EXERCISES = (SMOOTH_TARGETS, KEEP_BEAMS, CLIPPED_PRECISION, HALLUCINATED)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "best-of-metrics",
        "The picture shows a large red circle, and the only reference says so: 'a "
        "large red circle'. One captioner has a word wrong, 'a large red square'. "
        "Another says it in its own words, 'there is one big round red shape'. Which "
        "gets the higher BLEU-2?",
        {
            "the wrong one": "Three of its four words are right, two of three pairs. "
            "BLEU compares words, and doesn't know which of them matters.",
            "the paraphrase": "It is true, and shares one word with the reference. For "
            "BLEU, 'big' is no nearer to 'large' than 'square' is to 'circle'.",
            "both the same": "BLEU-4 without smoothing is 0 for both: neither has "
            "four words in a row right. Count words and pairs of them: they differ.",
            "neither can be scored": "BLEU needs a text and one reference, no more. "
            "That the number is no good here doesn't stop it from being computed.",
        },
        right=0,
    ),
    Question(
        "beam-width",
        "A beam search of width 8 mostly finds captions that the model holds for more "
        "probable than the greedy one. Are they better captions?",
        {
            "yes: more probable is better": "It is better in the model's own eyes. "
            "Where the model is mistaken, a better search finds its mistakes as well.",
            "not necessarily": "Probability isn't quality. A sum of log p falls with "
            "every token, which favours short texts unless length is made up for; and "
            "a model that is sure of each word writes mostly the same either way. "
            "Measure it.",
            "no: the wider the search, the worse the text": "In translation a few "
            "beams helped and very many hurt (Koehn and Knowles, 2017). There is no "
            "rule for all models: compare widths on held-out pictures.",
            "they are the same captions": "Mostly so where the model is sure of every "
            "word. Where a likely first word leads to unlikely sentences, they can "
            "differ.",
        },
        right=1,
    ),
    Question(
        "never-seen-pair",
        "A captioner has learned from scenes in which no triangle is blue. Blue things "
        "were circles and squares; triangles were red, green and yellow. Now it is "
        "shown a blue triangle. What will it most often write?",
        {
            "a blue triangle": "It knows both words, and may well see both. But its "
            "decoder was never rewarded for the one after the other, and 'blue' was "
            "always followed by something else.",
            "a thing it has seen: a blue circle or square, or a triangle of another "
            "colour": "The decoder was never rewarded for this pair, and after the "
            "words before, the usual ones are likely. One half of it is then true.",
            "an unknown word": "Both words are in its vocabulary, and the captions "
            "that it learned from had no unknown word in them.",
            "nothing": "Every caption that it learned from named a thing, so that it "
            "was never rewarded for none.",
        },
        right=1,
    ),
)
