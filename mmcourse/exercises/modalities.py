"""Exercises and questions of 01_modalities: pairs, masks, patches, frames."""

from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mmcourse.exercises.engine import Exercise
from mmcourse.exercises.quiz import Question

# --- merge_pair -----------------------------------------------------------------------


def _scan(tokens, pair, step=2, most=None, tail=True) -> list[str]:
    """Write a pair as one token; the keywords are what can go wrong in it."""
    merged, i, done = [], 0, 0
    while i < len(tokens) - (not tail):
        if tuple(tokens[i : i + 2]) == pair and done != most:
            merged.append(pair[0] + pair[1])
            i, done = i + step, done + 1
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def _from_the_right(tokens, pair) -> list[str]:
    backwards = _scan(tokens[::-1], pair[::-1])
    double = pair[1] + pair[0]
    return [pair[0] + pair[1] if t == double else t for t in backwards[::-1]]


def _pairs(rng: np.random.Generator) -> tuple:
    return list(rng.choice(["a", "b"], size=int(rng.integers(6, 14)))), ("a", "a")


MERGE_PAIR = Exercise(
    "merge_pair",
    _scan,
    _pairs,
    fixed=(
        (list("moon noon"), ("o", "o")),
        (list("aaab"), ("a", "a")),
        (["a", "b"], ("b", "a")),
        ([], ("a", "b")),
    ),
    properties={
        "joined together, the tokens still spell the same text": lambda f: (
            "".join(f(list("banana"), ("a", "n"))) == "banana"
        ),
        "without the pair, nothing changes": lambda f: (
            f(list("xyz"), ("a", "b")) == list("xyz")
        ),
    },
    mistakes={
        "you merge a pair but then go on with its second half, so that one is written "
        "twice: after a merge, step over two tokens": lambda t, p: _scan(t, p, step=1),
        "you merge only the first place where the pair stands: go on to the end of "
        "the list": lambda t, p: _scan(t, p, most=1),
        "the last token is lost: your loop stops one short because a pair needs two, "
        "but the last token alone must still be kept": lambda t, p: _scan(
            t, p, tail=False
        ),
        "you merge from the right: with aaa that gives a, aa, and it should give "
        "aa, a. Walk from left to right": _from_the_right,
        "nothing is merged: compare two neighbours with the pair (a list never equals "
        "a tuple in Python)": lambda t, p: list(t),
    },
)

# --- learn_merges ---------------------------------------------------------------------


def _count(spelled: list[list[str]], times: list[int]) -> Counter:
    counts = Counter()
    for tokens, n in zip(spelled, times, strict=True):
        for pair in pairwise(tokens):
            counts[pair] += n
    return counts


def _learn(words, merges, weigh=True, tie=min, count=_count) -> list:
    """Learn ``merges`` pairs; the keywords are what can go wrong in it."""
    spelled = [list(word) for word in words]
    times = list(words.values()) if weigh else [1] * len(words)
    learned = []
    for _ in range(merges):
        counts = count(spelled, times)
        if not counts:
            break
        most = max(counts.values())
        best = [pair for pair, n in counts.items() if n == most]
        pair = tie(best)
        learned.append(pair)
        spelled = [_scan(tokens, pair) for tokens in spelled]
    return learned


def _without_recount(words, merges) -> list:
    counts = _count([list(word) for word in words], list(words.values()))
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:merges]


def _over_borders(spelled, times) -> Counter:
    said = zip(spelled, times, strict=True)
    return Counter(pairwise([t for tokens, n in said for t in tokens * n]))


def _corpus(rng: np.random.Generator) -> tuple:
    spell = ["".join(rng.choice(list("abc"), size=n)) for n in rng.integers(2, 6, 6)]
    return {word: int(rng.integers(1, 9)) for word in spell}, 4


LEARN_MERGES = Exercise(
    "learn_merges",
    _learn,
    _corpus,
    fixed=(
        ({"moon": 4, "noon": 3, "soon": 2, "mood": 1}, 3),
        ({"moon": 1, "rocket": 5}, 4),
        ({"ab": 2, "cd": 2}, 2),
        ({"ba": 3, "ab": 1}, 3),
        ({"abab": 1, "abc": 3, "bc": 1}, 3),
    ),
    properties={
        "a word of one letter has no pair to learn": lambda f: f({"a": 7}, 2) == [],
        "it stops early when no pair is left": lambda f: (
            f({"ab": 1}, 5) == [("a", "b")]
        ),
    },
    mistakes={
        "you count each word once: a word that occurs n times adds n to each of its "
        "pairs": lambda w, n: _learn(w, n, weigh=False),
        "you count the pairs once and take the most frequent ones: after each merge "
        "the words are spelled anew, so count again": _without_recount,
        "of equally frequent pairs you take the last in the alphabet, and the first "
        "was asked for: min, not max": lambda w, n: _learn(w, n, tie=max),
        "of equally frequent pairs you take the one you met first, as most_common "
        "does: the first in the alphabet was asked for": lambda w, n: _learn(
            w, n, tie=lambda best: best[0]
        ),
        "you join the words before counting, so that pairs reach from one word into "
        "the next: count inside each word": lambda w, n: _learn(
            w, n, count=_over_borders
        ),
    },
    points=3,
)

# --- padding_mask ---------------------------------------------------------------------


def _lengths(rng: np.random.Generator) -> tuple:
    size = int(rng.integers(2, 6))
    return torch.from_numpy(rng.integers(1, 7, size)), 8


PADDING_MASK = Exercise(
    "padding_mask",
    lambda n, length: torch.arange(length) < n[:, None],
    _lengths,
    fixed=((torch.tensor([3, 1, 4]), 5), (torch.tensor([2, 5]), 5)),
    properties={
        "each row holds as many True as the sequence is long": lambda f: (
            np.asarray(f(torch.tensor([1, 3]), 4)).sum(1).tolist() == [1, 3]
        ),
    },
    mistakes={
        "your mask is inverted: this course writes True where a token is real (some "
        "libraries mark the padding instead)": lambda n, length: (
            torch.arange(length) >= n[:, None]
        ),
        "each row is True one place too far: places count from 0, so a sequence of 3 "
        "fills 0, 1, 2. Use <, not <=": lambda n, length: (
            torch.arange(length) <= n[:, None]
        ),
        "the True are at the right end, but here padding stands behind the "
        "tokens": lambda n, length: torch.arange(length) >= length - n[:, None],
        "your mask is (L, B): items are rows, so give `lengths` the new "
        "axis": lambda n, length: torch.arange(length)[:, None] < n,
    },
)

# --- patchify_by_hand -----------------------------------------------------------------


def _order(*axes: int):
    """Cut with the axes (patch row, pixel row, patch column, pixel column) in order."""

    def cut(image: Tensor, patch: int) -> Tensor:
        height, width = image.shape
        split = image.reshape(height // patch, patch, width // patch, patch)
        return split.permute(*axes).reshape(-1, patch * patch)

    return cut


def _picture(rng: np.random.Generator) -> tuple:
    rows, columns = rng.integers(2, 4, size=2)
    side = int(rng.integers(2, 4))
    return torch.from_numpy(rng.random((rows * side, columns * side))).float(), side


PATCHIFY = Exercise(
    "patchify_by_hand",
    _order(0, 2, 1, 3),
    _picture,
    fixed=(
        (torch.arange(16.0).reshape(4, 4), 2),
        (torch.arange(24.0).reshape(4, 6), 2),
    ),
    properties={
        "a patch as large as the picture is the picture": lambda f: (
            np.asarray(f(torch.arange(9.0).reshape(3, 3), 3)).tolist()
            == [list(range(9))]
        ),
    },
    mistakes={
        "you cut the picture into strips along its rows: reshape alone never takes two "
        "rows of one patch together. Split both sides, then swap axes": lambda x, p: (
            x.reshape(-1, p * p)
        ),
        "your patches come column by column: the second patch should lie to the right "
        "of the first, not below it": _order(2, 0, 1, 3),
        "your patches are transposed: the pixels inside a patch come column by column, "
        "and they should come row by row": _order(0, 2, 3, 1),
        "both orders are turned, of the patches and of the pixels in them: you cut the "
        "transposed picture, so rows and columns changed places": _order(2, 0, 3, 1),
        "you take every P-th pixel instead of neighbours: the side H splits into "
        "(H / P, P), not (P, H / P)": lambda x, p: (
            x.reshape(p, x.shape[0] // p, p, x.shape[1] // p)
            .permute(1, 3, 0, 2)
            .reshape(-1, p * p)
        ),
    },
    points=2,
)

# --- frame_signal ---------------------------------------------------------------------


def _sound(rng: np.random.Generator) -> tuple:
    size = int(rng.integers(4, 7))
    length = int(rng.integers(14, 30))
    return torch.from_numpy(rng.standard_normal(length)).float(), size, size - 2


def _tail(audio: Tensor, size: int, hop: int) -> Tensor:
    left = (len(audio) - size) % hop
    missing = hop - left if left else 0
    return torch.nn.functional.pad(audio, (0, missing)).unfold(0, size, hop)


FRAME_SIGNAL = Exercise(
    "frame_signal",
    lambda x, size, hop: x.unfold(0, size, hop),
    _sound,
    fixed=(
        (torch.arange(10.0), 4, 2),
        (torch.arange(11.0), 4, 3),
        (torch.arange(12.0), 4, 1),
    ),
    properties={
        "a sound of one frame's length is that frame": lambda f: (
            np.asarray(f(torch.arange(4.0), 4, 3)).tolist() == [[0, 1, 2, 3]]
        ),
    },
    mistakes={
        "your frames don't overlap: the next one starts `hop` samples later, not "
        "`size`": lambda x, n, hop: x.unfold(0, n, n),
        "the last frame is missing: F = 1 + (T - size) // hop, and the 1 is the frame "
        "at the very start": lambda x, n, hop: x.unfold(0, n, hop)[
            : (len(x) - n) // hop
        ],
        "there is a frame too many, filled up with zeros: a frame that the sound "
        "can't fill is dropped here": _tail,
        "`size` and `hop` changed places: a frame holds `size` samples": (
            lambda x, n, hop: x.unfold(0, hop, n)
        ),
        "your frames are columns, (size, F): one frame is one row": lambda x, n, hop: (
            x.unfold(0, n, hop).T
        ),
    },
)

EXERCISES = (MERGE_PAIR, LEARN_MERGES, PADDING_MASK, PATCHIFY, FRAME_SIGNAL)

# --- questions ------------------------------------------------------------------------

QUESTIONS = (
    Question(
        "tokens-of-chinese",
        "A byte-pair tokenizer has read English names only. A Chinese name has 3.0 "
        "characters on average. How many tokens does it become?",
        {
            "3: one for each character": "That would need each character in the "
            "vocabulary; this tokenizer has met none of them and has to spell them "
            "out.",
            "about 9": "A Chinese character takes three bytes in UTF-8. With no merge "
            "learned for them, each byte stays a token.",
            "1: it is one unknown word": "That is what a word tokenizer does. Byte "
            "pairs start from the 256 bytes, so nothing is ever unknown to them.",
            "none, it stops with an error": "Every text is bytes, and every byte has "
            "an id. It costs more tokens, but it never fails.",
        },
        right=1,
    ),
    Question(
        "phase-lost",
        "You keep the power of a sound's spectrogram, throw its phase away, guess a "
        "new phase and listen. What will you find?",
        {
            "Noise: the phase held the words": "The word is in which frequencies are "
            "loud when, and that is just what power keeps.",
            "The same word, and the same waveform": "The sound is alike, the waveform "
            "isn't: another phase moves every peak. Compare the two errors.",
            "The same word, with another waveform": "The ear hardly hears phase, so "
            "the waveforms may differ wholly while the sounds are alike.",
        },
        right=2,
    ),
    Question(
        "one-frame",
        "A shape moves left, right, up or down. A classifier sees one picture: the "
        "clip's middle frame. How often is it right?",
        {
            "nearly always": "It would have to see the motion. Which one could you "
            "tell from a single photograph of a ball in the air?",
            "about half the time": "Where the shape stands could give its motion away, "
            "but here the middle of each path was drawn without regard to the motion.",
            "about one time in four": "The middle frame is the same for all four "
            "motions, on average. No model, however large, gets anything from it.",
        },
        right=2,
    ),
    Question(
        "largest",
        "Each is compressed without loss: a thing's name, its 64-pixel picture, a clip "
        "of 8 such frames, its name spoken. Which takes the most bytes?",
        {
            "the picture": "Large areas of one colour take next to nothing.",
            "the clip": "It has the most numbers, but each frame is nearly the one "
            "before it, and a compressor sees that.",
            "the spoken name": "Its samples hold noise that no two moments share, and "
            "lossless compression must keep all of it.",
            "the name": "It is by far the smallest: text is what people already made "
            "dense.",
        },
        right=2,
    ),
)
