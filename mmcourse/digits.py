"""Digits seen, heard and typed: what makes each of the three hard to tell.

The scans are real (1,797 of them, scikit-learn's copy of a set of the UCI repository);
their noise, the background behind the voice and the typing errors are constructed.
Taught in 05_fusion and 06_multimodal_transformer.
"""

import numpy as np
from PIL import Image

NAMES = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAMPLES = 12_000  # half a second at 24 kHz: the longest of the spoken digits fits in


def scans() -> tuple[np.ndarray, np.ndarray]:
    """Return the scanned digits (n, 8, 8) in [0, 1] and what they show (n,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images / 16, data.target


def dim(scan: np.ndarray, noise: float, rng: np.random.Generator) -> Image.Image:
    """Add Gaussian noise to a scan, as in bad light; white is ink."""
    values = scan + noise * rng.standard_normal(scan.shape)
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def trim(speech: np.ndarray) -> np.ndarray:
    """Cut off the silence before and after, below 3 % of the loudest sample."""
    loud = np.flatnonzero(np.abs(speech) > 0.03 * np.abs(speech).max())
    return speech[loud[0] : loud[-1] + 1]


def drown(speech: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Put speech anywhere in ``SAMPLES`` of white noise, ``snr`` decibels above it.

    snr = 10 log10(power of the speech / power of the noise); the sum has the power of
    the speech, so that loudness tells nothing about the noise.
    """
    if len(speech) > SAMPLES:
        raise ValueError(f"{len(speech)} samples of speech, room for {SAMPLES}")
    power = np.mean(speech**2)
    mixed = np.sqrt(power / 10 ** (snr / 10)) * rng.standard_normal(SAMPLES)
    start = int(rng.integers(SAMPLES - len(speech) + 1))
    mixed[start : start + len(speech)] += speech
    mixed *= np.sqrt(power / np.mean(mixed**2))
    return mixed.clip(-1, 1).astype(np.float32)


def mistype(word: str, errors: float, rng: np.random.Generator) -> str:
    """Replace each letter, with the probability ``errors``, by one drawn at random."""
    wrong = rng.random(len(word)) < errors
    drawn = rng.choice([*LETTERS], len(word))
    return "".join(d if w else c for c, d, w in zip(word, drawn, wrong, strict=True))
