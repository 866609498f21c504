"""How good is a model, how sure are we, and what is left when a modality goes?

Everything returns one value per item, so that intervals and comparisons come from the
same table. Bootstrap: Efron, 1979, Annals of Statistics 7. McNemar's test: McNemar,
1947, Psychometrika 12. Taught in 05_fusion and 14_evaluation.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mmcourse.multimodal import KEYS

Batch = Mapping[str, Tensor]
Right = Bool[np.ndarray, " n"]  # of each item: was it classified right?


class Interval(NamedTuple):
    """A mean, and where it would lie for most other samples of as many items."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it as a table does: 0.812 (0.780 to 0.844)."""
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


class Comparison(NamedTuple):
    """How much better a is than b, its interval, and the p of no difference."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap(
    values: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Draw the items again with replacement, many times: the spread of their means.

    ``values``, one per item: right or wrong, a rank, an error. The middle ``level`` of
    the means is the interval.
    """
    values = _checked("values", values)
    means = _means(values, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_test(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two models on the same items, which is sharper than two intervals.

    The interval is the bootstrap's of the differences. p is McNemar's exact one for
    right and wrong: of the items on which they differ, is it heads or tails who won?
    For other values signs are flipped at random.
    """
    a, b = _checked("a", a), _checked("b", b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: the same items are needed")
    difference = a - b
    mean, low, high = bootstrap(difference, level, draws, seed)
    binary = set(np.unique([a, b])) <= {0.0, 1.0}
    p = _mcnemar(difference) if binary else _sign_flips(difference, draws, seed)
    return Comparison(mean, low, high, p)


def _mcnemar(difference: np.ndarray) -> float:
    from scipy.stats import binomtest

    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return 1.0 if wins + losses == 0 else binomtest(wins, wins + losses).pvalue


def _sign_flips(difference: np.ndarray, draws: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (draws, len(difference)))
    extreme = np.abs(signs @ difference) >= np.abs(difference.sum()) - 1e-12
    return float((extreme.sum() + 1) / (draws + 1))


def _means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(values), (draws, len(values)))
    return values[rows].mean(axis=1)


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has the shape {array.shape}: one value per item")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}[{int(np.argmin(np.isfinite(array)))}] isn't finite")
    return array


# --- models -----------------------------------------------------------------------


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[Batch]
) -> tuple[Float[Tensor, "n C"], Int[Tensor, " n"]]:
    """Return the logits and the labels of all batches, without dropout or gradients."""
    before, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        done = [
            (model(_on(batch, device)).float().cpu(), batch["label"].cpu())
            for batch in batches
        ]
    finally:
        model.train(before)
    if len(done) == 0:
        raise ValueError("no batch to predict: the loader is empty")
    logits, labels = zip(*done, strict=True)
    return torch.cat(logits), torch.cat(labels)


def correct(model: nn.Module, batches: Iterable[Batch]) -> Right:
    """Say of each item whether the model classifies it right."""
    logits, labels = predict(model, batches)
    return (logits.argmax(dim=-1) == labels).numpy()


def missing_grid(
    model: nn.Module, batches: Iterable[Batch], modalities: Sequence[str]
) -> dict[tuple[str, ...], Right]:
    """Classify with every subset of the modalities, small ones first.

    What is left out is marked in ``batch["present"]``, whose columns are
    ``modalities`` in the model's order; no input is set to zero.
    """
    batches = list(batches)
    subsets = [
        s for n in range(len(modalities)) for s in combinations(modalities, n + 1)
    ]
    return {s: correct(model, _only(batches, s, modalities)) for s in subsets}


def _only(
    batches: Iterable[Batch], subset: Sequence[str], modalities: Sequence[str]
) -> Iterator[Batch]:
    kept = torch.tensor([m in subset for m in modalities])
    for batch in batches:
        here = kept.expand(len(batch["label"]), -1)
        yield {**batch, "present": batch.get("present", here).cpu() & here}


def noise_grid(
    model: nn.Module,
    batches: Iterable[Batch],
    modalities: Sequence[str],
    levels: Sequence[float],
    seed: int = 0,
) -> dict[tuple[str, float], Right]:
    """Classify with one modality disturbed more and more, the others as they are.

    ``levels`` times the modality's own standard deviation of Gaussian noise; of a
    text, that share of the tokens (at most 1) becomes other tokens of the batch. The
    noise is the same for every model, and at every level but for its size.
    """
    batches = list(batches)
    grid = {}
    for name in modalities:
        for level in levels:
            noisy = [disturb(b, name, level, seed + i) for i, b in enumerate(batches)]
            grid[name, level] = correct(model, noisy)
    return grid


def disturb(batch: Batch, modality: str, level: float, seed: int = 0) -> Batch:
    """Return the batch with one modality disturbed; see ``noise_grid``."""
    if modality not in KEYS or KEYS[modality] not in batch:
        held = [m for m, key in KEYS.items() if key in batch]
        raise ValueError(f"modality={modality!r}: the batch holds {held}")
    if level < 0 or (modality == "text" and level > 1):
        raise ValueError(f"level={level}: 0 or more, and at most 1 for a text")
    x = batch[KEYS[modality]]
    chance = torch.Generator().manual_seed(seed)
    if modality == "text":
        noisy = _other_tokens(x, batch.get("mask"), level, chance)
    else:
        noise = torch.randn(x.shape, generator=chance).to(x)
        noisy = x + level * x.std() * noise
    return {**batch, KEYS[modality]: noisy}


def _other_tokens(
    tokens: Tensor, mask: Tensor | None, share: float, chance: torch.Generator
) -> Tensor:
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    pool = tokens[real].cpu()
    drawn = pool[torch.randint(len(pool), tokens.shape, generator=chance)]
    changed = torch.rand(tokens.shape, generator=chance).to(tokens.device) < share
    return torch.where(changed & real, drawn.to(tokens.device), tokens)


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: x.to(device) for name, x in batch.items()}
