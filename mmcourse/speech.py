"""Speech whose voice, pitch, pitch range and speed can be set (constructed prosody).

hibari-tts (Apache-2.0) predicts, for every frame of 12.5 ms, a pitch and the spectra
of the voiced and unvoiced parts. Between its network and its vocoder stands the one
place where prosody can be turned by hand, and that is what ``speak`` does. Taught in
01_modalities, used as a modality from 05_fusion on.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcourse import assets

SAMPLE_RATE = 24_000  # Hz
LOUDNESS = 0.08  # root mean square of every utterance, so that voices compare
VOICED = 40.0  # Hz; the vocoder takes a frame below this pitch for unvoiced


@dataclass(frozen=True)
class Voice:
    """A pseudo-voice: factors on the pitch and on the vocal tract's frequencies."""

    pitch: float = 1.0
    tract: float = 1.0


VOICES = {
    "heart": Voice(),
    "deep": Voice(pitch=0.5, tract=0.86),
    "low": Voice(pitch=0.66, tract=0.92),
    "bright": Voice(pitch=1.2, tract=1.07),
    "child": Voice(pitch=1.5, tract=1.18),
}


def speak(
    text: str,
    voice: str = "heart",
    pitch: float = 1.0,
    range: float = 1.0,
    speed: float = 1.0,
    seed: int = 0,
) -> Float[Tensor, " T"]:
    """Say an English ``text``; the same arguments give the same samples.

    ``pitch`` multiplies the fundamental frequency, ``range`` its deviations from the
    mean (0 is a robot's monotone, 2 is excited) and ``speed`` the pace. Returns
    24 kHz mono samples in [-1, 1]. ValueError for a text with nothing to say, an
    unknown voice or a factor out of bounds.
    """
    _refuse(text, voice, pitch, range, speed)
    rng = np.random.default_rng(seed)
    engine = _engine()
    who = VOICES[voice]
    said = [
        _say(engine, phonemes, who, pitch, range, speed, rng)
        for phonemes in engine.phonemize(text)
    ]
    if not said:
        raise ValueError(f"nothing to say in {text!r}: give it at least one word")
    samples = np.concatenate(said)
    samples *= LOUDNESS / np.sqrt(np.mean(samples**2))
    return torch.from_numpy(samples.clip(-1, 1).astype(np.float32))


@cache
def _engine():
    from hibari import Hibari

    return Hibari()


def _say(engine, phonemes, who, pitch, range, speed, rng) -> np.ndarray:
    """Turn one sentence of phonemes into samples, with its prosody moved."""
    from hibari import dsp

    feed = {
        "ids": np.asarray([engine.ids(phonemes)], np.int64),
        "speed": np.asarray([speed], np.float32),
    }
    *spectra, f0 = (part[0] for part in engine.sess.run(None, feed))
    f0 = move_pitch(f0, pitch * who.pitch, range)
    return dsp.synth(*(warp(s, who.tract) for s in spectra), f0, rng)


def move_pitch(f0: np.ndarray, pitch: float, range: float) -> np.ndarray:
    """Scale the pitch of the voiced frames, and its spread around their mean.

    log f' = log(pitch * m) + range * (log f - log m), m the geometric mean of f.
    """
    voiced = f0 > VOICED
    if not voiced.any():
        return f0
    log_f0 = np.log(f0[voiced])
    mean = log_f0.mean()
    moved = np.array(f0, np.float32)
    moved[voiced] = np.exp(np.log(pitch) + mean + range * (log_f0 - mean))
    return moved


def warp(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """Stretch the frequency axis of a spectrum (S, F): factor > 1 moves formants up."""
    if factor == 1.0:
        return spectrum
    last = len(spectrum) - 1
    source = np.minimum(np.arange(last + 1) / factor, last)
    below = np.minimum(source.astype(int), last - 1)
    share = (source - below)[:, None].astype(np.float32)
    return spectrum[below] * (1 - share) + spectrum[below + 1] * share


def _refuse(text, voice, pitch, range, speed) -> None:
    if not text.strip():
        raise ValueError("the text to speak is empty: give it at least one word")
    if voice not in VOICES:
        raise ValueError(f"no voice is called {voice!r}: choose from {[*VOICES]}")
    bounds = {
        "pitch": (pitch, 0.3, 3),
        "range": (range, 0, 4),
        "speed": (speed, 0.5, 2),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise ValueError(f"{name}={value} is out of bounds: {low} to {high}")


# --- what was said ----------------------------------------------------------------

WHISPER_RATE, WHISPER_SECONDS = 16_000, 30  # what it listens to at a time


def transcribe(audio: Float[Tensor, " T"]) -> str:
    """Write down what is said in English, by Whisper tiny.en, greedily.

    ``audio`` as ``speak`` returns it, at most 30 s. Radford et al., 2022, arXiv
    2212.04356. ValueError for a recording that ``check_recording`` refuses.
    """
    import ctranslate2
    from scipy.signal import resample_poly

    samples = check_recording(audio).numpy()
    if (seconds := len(samples) / SAMPLE_RATE) > WHISPER_SECONDS:
        raise ValueError(f"{seconds:.0f} s of sound: cut it to {WHISPER_SECONDS} s")
    model, listen, tokenizer = _whisper()
    shorter = resample_poly(samples, WHISPER_RATE, SAMPLE_RATE)
    mel = listen(shorter, sampling_rate=WHISPER_RATE, return_tensors="np")
    view = ctranslate2.StorageView.from_array(mel["input_features"])
    start = ["<|startoftranscript|>", "<|notimestamps|>"]
    said = model.generate(view, [start], beam_size=1)[0].sequences_ids[0]
    return tokenizer.decode(said).strip()


def check_recording(audio: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """Return a recording in which there is something to hear, or say what is wrong."""
    if audio.ndim != 1 or len(audio) == 0:
        raise ValueError(f"a recording (T,) is needed, not {tuple(audio.shape)}")
    if not audio.is_floating_point():
        raise ValueError(f"samples of {audio.dtype}: floats in [-1, 1] are needed")
    if not audio.isfinite().all():
        raise ValueError("the recording holds NaN or infinity: read it again as floats")
    peak = audio.abs().max().item()
    if peak < SILENT:
        raise ValueError(f"the recording is silent (peak {peak:.1g}): speak louder")
    if peak > LOUDEST:
        raise ValueError(
            f"samples reach {peak:.3g}: divide by the largest value of their type, so "
            "that they lie in [-1, 1]"
        )
    cut = (audio.abs() >= 0.999 * max(peak, 1.0)).float().mean().item()
    if cut > CLIPPED:
        raise ValueError(
            f"{100 * cut:.0f} % of the samples are at the limit of {peak:.2g}: the "
            "recording is clipped, record it with less gain"
        )
    return audio


SILENT, CLIPPED = 1e-3, 0.01  # of full scale; the share of samples at its limit
LOUDEST = 8.0  # of full scale: above it, samples are whole numbers written as floats


@cache
def _whisper():
    """Load the model, what makes spectrograms for it, and its tokenizer."""
    import ctranslate2
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor

    folder = next(assets.path("whisper").rglob("model.bin")).parent
    model = ctranslate2.models.Whisper(str(folder), compute_type="int8")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return model, WhisperFeatureExtractor(), tokenizer
