"""How glad or sad is it? What words, a voice and a face say, and who is heard.

Pitch by normalised cross-correlation, Talkin, 1995 (RAPT), syllables as peaks of
energy, de Jong and Wempe, 2009; a prediction of how raters spread, not only of their
mean; each modality's share in it by Shapley, 1953, as SHAPE does, Hu et al., 2022,
arXiv 2205.00302. Taught in 12_sentiment.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice
from math import factorial, isfinite
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.signal import find_peaks
from torch import Tensor, nn

from mmcourse.fusion import Concat
from mmcourse.multimodal import drop_modalities
from mmcourse.speech import check_recording

Batch = Mapping[str, Tensor]
SCORES = tuple(range(-4, 5))  # what a rater may say, most negative to most positive

# --- how it is said ---------------------------------------------------------------

FRAME, HOP = 0.04, 0.01  # seconds
LOWEST, HIGHEST = 55.0, 500.0  # Hz, of a speaker's pitch
PERIODIC, QUIET = 0.75, 35.0  # a voice's least correlation; dB below the loudest frame
DIP = 1.0  # dB between two syllables
PROSODY = ("pitch", "pitch range", "energy", "energy range", "rate", "voiced")


def frames(audio: Float[Tensor, " T"], sample_rate: int) -> Float[Tensor, "F W"]:
    """Cut a recording into frames of 40 ms, one every 10 ms, each with the mean 0.

    ValueError where there is nothing to hear or less than a frame, and below 4 kHz.
    """
    if not isinstance(audio, Tensor):
        kind = type(audio).__name__
        raise ValueError(f"audio is a {kind}: make it a tensor, torch.from_numpy(x)")
    if not sample_rate >= 4000:  # NaN as well
        raise ValueError(f"sample_rate={sample_rate}: pitch needs 4000 Hz or more")
    width = round(FRAME * sample_rate)
    if len(check_recording(audio)) < width:
        raise ValueError(
            f"{len(audio)} samples at {sample_rate} Hz: record at least {FRAME} s, "
            f"which are {width}"
        )
    cut = audio.detach().float().unfold(0, width, round(HOP * sample_rate))
    return cut - cut.mean(dim=1, keepdim=True)


def pitch(audio: Float[Tensor, " T"], sample_rate: int) -> Float[Tensor, " F"]:
    """Return the pitch in Hz of each of ``frames``, 0 where there is no voice.

    r_t = sum_i x_i x_(i+t) / sqrt(sum_i x_i^2 sum_i x_(i+t)^2) is 1 where a frame
    repeats itself after t samples. It does so after two periods as well: the first peak
    that is nearly the highest counts, refined by a parabola through its neighbours. No
    voice: r below 0.75 there, or 35 dB less than the loudest frame.
    """
    return _pitch(frames(audio, sample_rate), sample_rate)


def _pitch(x: Float[Tensor, "F W"], sample_rate: int) -> Float[Tensor, " F"]:
    n, x = x.shape[1], x.double()
    lag = torch.arange(min(int(sample_rate / LOWEST) + 2, n))
    spectrum = torch.view_as_real(torch.fft.rfft(x, 2 * n))
    product = torch.fft.irfft(spectrum.square().sum(dim=-1))[:, : len(lag)]
    energy = F.pad(x.square().cumsum(dim=1), (1, 0))
    head, tail = energy[:, n - lag], energy[:, -1:] - energy[:, lag]
    r = product / (head * tail).sqrt().clamp(min=1e-9)
    left, here, right = r[:, :-2], r[:, 1:-1], r[:, 2:]
    peak = (here >= left) & (here > right) & (lag[1:-1] >= int(sample_rate / HIGHEST))
    best = here.masked_fill(~peak, 0).amax(dim=1, keepdim=True)
    first = (peak & (here >= 0.9 * best)).int().argmax(dim=1, keepdim=True)
    a, b, c = (side.gather(1, first)[:, 0] for side in (left, here, right))
    period = 1 + first[:, 0] + (a - c) / (2 * (a - 2 * b + c)).clamp(max=-1e-9)
    loud = energy[:, -1] > 10 ** (-QUIET / 10) * energy[:, -1].max()
    voiced = loud & (best[:, 0] >= PERIODIC)
    return torch.where(voiced, sample_rate / period, 0).float()


def prosody(audio: Float[Tensor, " T"], sample_rate: int) -> Float[Tensor, " 6"]:
    """Return six numbers on how something is said; ``PROSODY`` names them.

    Median pitch in semitones above 100 Hz, and its standard deviation, after a running
    median of 5 voiced frames and without those an octave off (errors of the tracker);
    mean energy in dB of full scale and its standard deviation, over what is at most 35
    dB below the loudest frame; peaks of energy near a voiced frame, about one a
    syllable, per second; share of voiced frames. Without any, as in a whisper, pitch,
    its range and the rate are 0.
    """
    x = frames(audio, sample_rate)
    f0 = _pitch(x, sample_rate)
    tone = 12 * (f0[f0 > 0] / 100).log2()
    voiced = len(tone) / len(f0)
    tone = tone if len(tone) > 0 else torch.zeros(1)
    middle = tone.median()
    around = F.pad(tone[None], (2, 2), mode="replicate")[0]
    tone = around.unfold(0, 5, 1).median(dim=1).values
    tone = tone[(tone - middle).abs() < 12]
    level = 10 * x.square().mean(dim=1).clamp(min=1e-9).log10()
    level = level.clamp(min=level.max() - QUIET)
    loud = level[level > level.max() - QUIET]
    around = F.pad(level, (1, 1), value=level.min().item())  # an edge can be a peak
    smooth = np.convolve(around.numpy(), np.full(3, 1 / 3), "same")
    peaks, _ = find_peaks(smooth, prominence=DIP, distance=round(0.06 / HOP))
    near = F.max_pool1d((f0 > 0).float()[None], 5, stride=1, padding=2)[0]
    rate = near[peaks - 1].sum() * sample_rate / len(audio)
    changes, energy = torch.std_mean(loud, correction=0)
    melody = tone.std(correction=0)
    return torch.tensor([middle, melody, energy, changes, rate, voiced])


# --- what is felt, and by how many --------------------------------------------------


def histogram(ratings: Sequence[int]) -> Float[Tensor, " 9"]:
    """Return the share of the raters who gave each score from -4 to 4: a soft label."""
    given = [*ratings]
    if len(given) == 0 or not set(given) <= set(SCORES):
        raise ValueError(f"ratings={ratings!r:.50}: give whole scores from -4 to 4")
    places = torch.tensor(given).long() + 4
    return torch.bincount(places, minlength=len(SCORES)) / len(given)


class Sentiment(nn.Module):
    """Frozen features of each modality, projected and fused: how raters would spread.

    ``dims``: the width of each modality's vectors. ``fusion`` is a feature-level one of
    ``mmcourse.fusion``, not yet made; one modality alone needs none. A batch holds
    vectors (B, W) by modality, and may hold ``present`` (B, M), False where a row lacks
    one; a modality that the batch lacks is missing from all rows. In training each is
    dropped with the probability ``drop``, never all of a row.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int = 64,
        fusion: Callable[[Sequence[str], int], nn.Module] = Concat,
        dropout: float = 0.2,
        drop: float = 0.0,
    ):
        super().__init__()
        if len(dims) == 0 or "present" in dims or not 0 <= drop < 1:
            raise ValueError(
                f"dims={dict(dims)}, drop={drop}: name at least one modality, none of "
                "them 'present', and drop a share from 0 to below 1"
            )
        self.dims, self.modalities, self.drop = dict(dims), tuple(dims), drop
        self.project = nn.ModuleDict()
        for m, width in dims.items():
            layers = nn.Linear(width, dim), nn.LayerNorm(dim), nn.ReLU()
            self.project[m] = nn.Sequential(*layers, nn.Dropout(dropout))
        self.fusion = fusion(self.modalities, dim) if len(dims) > 1 else None
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(dim, len(SCORES)))

    def forward(self, batch: Batch) -> Float[Tensor, "B 9"]:
        """Return the logits of the nine scores."""
        here = self.here(batch)
        if self.training and self.drop > 0:
            here = drop_modalities(here, self.drop)
        features, real = {}, {}
        for i, m in enumerate(self.modalities):
            if m in batch:
                real[m] = here[:, i]
                x = torch.where(here[:, i, None], batch[m], 0)
                features[m] = self.project[m](x)
        if self.fusion is None:
            return self.head(features[self.modalities[0]])
        return self.head(self.fusion(features, real))

    def here(self, batch: Batch) -> Bool[Tensor, "B M"]:
        """Say which modality each row has; refuse rows that have none or hold NaN."""
        given = {m: batch[m] for m in self.modalities if m in batch}
        if not given:
            raise ValueError(f"the batch has none of {self.modalities}: give one")
        x = next(iter(given.values()))
        for m, values in given.items():
            due = (len(x), self.dims[m])
            if values.shape != due or not values.is_floating_point():
                raise ValueError(
                    f"{m!r} is {tuple(values.shape)} of {values.dtype}: {due} of "
                    "floats are needed, a row for each item, as many of each modality"
                )
        real = batch.get("present")
        if real is not None and (
            real.shape != (len(x), len(self.modalities)) or real.dtype != torch.bool
        ):
            raise ValueError(
                f"present is {tuple(real.shape)} of {real.dtype}: a True or False for "
                f"each row and each of {self.modalities} is needed"
            )
        here = x.new_tensor([m in given for m in self.modalities], dtype=torch.bool)
        here = here.expand(len(x), -1) if real is None else here & real
        if not here.any(dim=1).all():
            row = int((~here.any(dim=1)).nonzero()[0])
            raise ValueError(f"row {row} has none of {self.modalities}: leave it out")
        for m, there in zip(self.modalities, here.unbind(dim=1), strict=True):
            if m in given and not given[m][there].isfinite().all():
                raise ValueError(
                    f"{m} holds NaN or infinity: mend it, or set present to False"
                )
        return here


def loss(model: Sentiment, batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy to ``histogram`` (B, 9), and the squared error of the mean.

    -sum_k q_k log p_k + (sum_k k p_k - sum_k k q_k)^2, the mean over the batch. The
    first takes 4 for as far from 3 as from -4; the second knows how far it is.
    """
    logits, wanted = model(batch), batch["histogram"]
    if wanted.shape != logits.shape or not _shares(wanted):
        raise ValueError(
            f"histogram {tuple(wanted.shape)}: for each of {len(logits)} rows the nine "
            "shares of its raters, which sum to 1; `histogram(ratings)` makes them"
        )
    off = _mean(logits.softmax(dim=-1)) - _mean(wanted)
    return F.cross_entropy(logits, wanted) + off.square().mean()


def _shares(x: Tensor) -> bool:
    return bool((x >= 0).all() and ((x.sum(dim=1) - 1).abs() < 1e-3).all())  # no NaN


def _mean(p: Float[Tensor, "B 9"]) -> Float[Tensor, " B"]:
    return p @ p.new_tensor(SCORES)


class Predicted(NamedTuple):
    """Mean and standard deviation of what raters would say, and each score's share."""

    mean: Float[Tensor, " n"]
    spread: Float[Tensor, " n"]
    p: Float[Tensor, "n 9"]


@torch.no_grad()
def predict(model: Sentiment, batch: Batch) -> Predicted:
    """Return what raters would say of each row; the model stays in its mode."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        known = (*model.modalities, "present")
        p = model({k: x.to(device) for k, x in batch.items() if k in known})
    finally:
        model.train(training)
    p = p.softmax(dim=-1).cpu()
    mean = _mean(p)
    variance = p @ p.new_tensor(SCORES).square() - mean.square()
    return Predicted(mean, variance.clamp(min=0).sqrt(), p)


# --- whose doing it is --------------------------------------------------------------


def shapley(value: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Share what all modalities reach together out among them, exactly.

    phi_m = sum_(S without m) |S|! (M - |S| - 1)! / M! (v(S and m) - v(S)): what m adds,
    averaged over all orders in which they may come. The shares sum to v(all) - v(none).
    ``value`` holds v of every subset, the empty one included; ValueError for a gap.
    """
    everyone = sorted(frozenset().union(*value))
    m = len(everyone)
    every = (frozenset(s) for k in range(m + 1) for s in combinations(everyone, k))
    missing = [sorted(s) for s in islice((s for s in every if s not in value), 3)]
    if m == 0 or missing:
        raise ValueError(
            f"value lacks {missing or 'a name'}: give all {2**m} subsets of "
            f"{everyone}, the empty one too"
        )
    if not all(isfinite(v) for v in value.values()):
        raise ValueError(f"value holds NaN or infinity: {dict(value)!r:.80}")
    weight = [factorial(k) * factorial(m - k - 1) / factorial(m) for k in range(m)]
    shares = dict.fromkeys(everyone, 0.0)
    for who in shares:
        for s in value:
            if who not in s:
                shares[who] += weight[len(s)] * (value[s | {who}] - value[s])
    return shares
