"""What a tweet's words, a voice and a face say of a feeling, in accord or not.

Plans the rows of ``datasets.sentiment_triples``: which tweet, how it is said, which
face goes with it, and what is right. Taught in 12_sentiment.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# How voice and face feel, by the sign of the words; two of three decide.
KINDS = {
    "agree": (1, 1),
    "words": (-1, -1),
    "voice": (-1, 1),
    "face": (1, -1),
    "flat": (0, 0),
}
SHARES = {"agree": 0.4, "words": 0.2, "voice": 0.15, "face": 0.15, "flat": 0.1}
SIZES = {"train": 600, "validation": 100, "test": 120}  # tweets
VOICES = {
    "train": ("heart", "deep", "child"),
    "validation": ("low",),
    "test": ("bright",),
}

# Factors of pitch, range and speed of a glad, a sad and a flat voice, and how far
# their logarithms stray (standard deviations).
TONES = {1: (1.15, 1.9, 1.15), -1: (0.87, 0.5, 0.85), 0: (1.0, 0.08, 1.0)}
STRAY = (0.12, 0.35, 0.15)

# Faces that at least 20 rated tweets were written with. Glad: their writers' feeling,
# (positive - negative) / all, is 0.4 or more; sad: -0.1 or less; flat: within 0.15, or
# a face that is neutral by its name. Those of test are no train concepts of openmoji.
FACES = {
    "train": {
        1: "😀😃😁😆😊☺😉😌😍😎😙😚😜😝",
        -1: "☹😒😦😣😡😖😔😫😞",
        0: "😐😑😶😳😴😵",
    },
    "validation": {1: "😄😛", -1: "😕😩", 0: "😯"},
    "test": {1: "😇😋😘", -1: "😠😤😨", 0: "😲"},
}
LEAST, WORDS = 1.0, 4  # of |score|; how many words are said


@dataclass(frozen=True)
class Said:
    """What ``speech.speak`` is called with."""

    text: str
    voice: str
    pitch: float
    range: float
    speed: float
    seed: int


def sayable(text: str) -> list[str]:
    """Return the words that a voice can say: no names, tags, links or smileys."""
    words = (w.rstrip(".,!?;:)\"*-'").lstrip("(\"*-'") for w in text.split())
    wanted = "(?=.*[aeiouy])[a-z]{1,12}('[a-z]+)?"
    return [w for w in words if re.fullmatch(wanted, w, re.IGNORECASE)]


def label(kind: str, ratings: Sequence[int]) -> list[int]:
    """Return what the raters would say of all three: turned where words stand alone."""
    return [-r for r in ratings] if kind == "words" else [*ratings]


def plan(tweets: Sequence[Mapping], split: str, seed: int = 0) -> list[dict]:
    """Plan the rows of a split: half of the tweets glad, half sad.

    Train and validation have a row for each tweet, kinds mixed by ``SHARES``; test has
    a row for each kind, and one voice and face for each feeling. ``said`` is a ``Said``
    and ``face`` the emoji; the other columns as in ``datasets.sentiment_triples``.
    ValueError where ``tweets`` are too few.
    """
    rng = np.random.default_rng([seed, [*SIZES].index(split)])
    chosen = _choose(tweets, SIZES[split], rng)
    if split == "test":
        kinds = [[*KINDS]] * len(chosen)
    else:
        kinds = [[kind] for kind in _mixed(len(chosen), rng)]
    rows = []
    for i, wanted in zip(chosen, kinds, strict=True):
        tweet, id = tweets[i], f"{split}-{i}"
        words = " ".join(sayable(tweet["text"])[:WORDS])
        said = {f: _say(words, split, f, rng) for f in TONES}
        faces = {f: str(rng.choice([*FACES[split][f]])) for f in TONES}
        for kind in wanted:
            sign = int(np.sign(tweet["score"]))
            heard, seen = (sign * way for way in KINDS[kind])
            given = label(kind, tweet["ratings"])
            row = {"text": tweet["text"], "ratings": given, "score": np.mean(given)}
            row |= {"said": said[heard], "voice": said[heard].voice}
            row |= {"face": faces[seen], "heard": heard, "seen": seen}
            rows.append(row | {"kind": kind, "id": id})
    return rows


def _choose(tweets: Sequence[Mapping], n: int, rng: np.random.Generator) -> list[int]:
    """Draw n tweets with a clear feeling and enough to say, each sign as often."""
    chosen = []
    for sign in (1, -1):
        fit = [
            i
            for i, tweet in enumerate(tweets)
            if sign * tweet["score"] >= LEAST and len(sayable(tweet["text"])) >= 3
        ]
        if len(fit) < n // 2:
            raise ValueError(
                f"{len(fit)} tweets of the sign {sign} with a clear feeling and 3 "
                f"words, {n // 2} are needed: give more tweets"
            )
        chosen += rng.choice(fit, n // 2, replace=False).tolist()
    return rng.permutation(chosen).tolist()


def _mixed(n: int, rng: np.random.Generator) -> list[str]:
    counts = [round(share * n) for share in SHARES.values()]
    return rng.permutation(np.repeat([*SHARES], counts)).tolist()


def _say(words: str, split: str, feeling: int, rng: np.random.Generator) -> Said:
    """Draw a voice of the split, and a tone near that of the feeling."""
    stray = np.array(STRAY) * rng.standard_normal(3).clip(-2, 2)
    tone = (np.array(TONES[feeling]) * np.exp(stray)).round(3).tolist()
    return Said(words, str(rng.choice(VOICES[split])), *tone, int(rng.integers(2**31)))
