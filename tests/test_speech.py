"""Speech obeys its knobs: an independent pitch tracker hears what was set."""

import librosa
import numpy as np
import pytest
import torch

from mmcourse import speech

PHRASE = "We all rowed away in a yellow year, no more lemon."  # voiced throughout


def hear(**how):
    """Median (Hz) and middle half (octaves) of the pitch that librosa hears."""
    audio = speech.speak(PHRASE, **how).numpy()
    f0, voiced, _ = librosa.pyin(
        audio, fmin=60, fmax=600, sr=speech.SAMPLE_RATE, hop_length=480
    )
    low, middle, high = np.percentile(np.log2(f0[voiced]), [25, 50, 75])
    return 2**middle, high - low


@pytest.mark.parametrize("pitch", [0.6, 1.6])
def test_pitch_multiplies_what_is_heard(pitch):
    plain, moved = hear(range=0.0)[0], hear(range=0.0, pitch=pitch)[0]
    assert moved / plain == pytest.approx(pitch, rel=0.02)


def test_range_widens_and_flattens_what_is_heard():
    flat, plain, wide = (hear(range=r)[1] for r in (0.0, 1.0, 2.0))
    assert flat < 0.05 < 0.2 < plain
    assert wide == pytest.approx(2 * plain, rel=0.3)


@pytest.mark.parametrize("voice", ["deep", "low", "bright"])
def test_voices_have_their_own_pitch(voice):
    plain, theirs = hear(range=0.0)[0], hear(range=0.0, voice=voice)[0]
    assert theirs / plain == pytest.approx(speech.VOICES[voice].pitch, rel=0.03)


def test_speed_changes_the_length():
    slow, plain, fast = (len(speech.speak(PHRASE, speed=s)) for s in (0.7, 1.0, 1.5))
    assert slow / plain == pytest.approx(1 / 0.7, rel=0.2)
    assert fast / plain == pytest.approx(1 / 1.5, rel=0.2)


def test_same_arguments_same_samples():
    one, two = speech.speak("apple"), speech.speak("apple")
    assert torch.equal(one, two)
    other = speech.speak("apple", seed=1)
    assert not torch.equal(one[: len(other)], other[: len(one)])


@pytest.mark.parametrize("voice", speech.VOICES)
def test_samples_are_sound_of_one_loudness(voice):
    audio = speech.speak("apple", voice=voice)
    assert audio.ndim == 1 and audio.dtype == torch.float32
    assert audio.abs().max() <= 1 and audio.isfinite().all()
    assert audio.square().mean().sqrt().item() == pytest.approx(0.08, rel=0.02)


def test_move_pitch_by_hand():
    """Two voiced frames an octave apart: their mean is sqrt(100 * 200)."""
    f0 = np.array([0, 100, 200], np.float32)
    mean = np.sqrt(100 * 200)
    for pitch, range, due in (
        (2.0, 1.0, [0, 200, 400]),
        (1.0, 0.0, [0, mean, mean]),
        (1.0, 2.0, [0, mean / 2, mean * 2]),
    ):
        moved = speech.move_pitch(f0, pitch, range)
        np.testing.assert_allclose(moved, due, rtol=1e-6)
    np.testing.assert_array_equal(f0, [0, 100, 200])  # the caller's array is left alone
    silent = np.zeros(3, np.float32)
    np.testing.assert_array_equal(speech.move_pitch(silent, 2.0, 2.0), silent)


def test_warp_moves_a_peak_up():
    spectrum = np.zeros((101, 2), np.float32)
    spectrum[40] = 1
    assert speech.warp(spectrum, 1.2).argmax(axis=0).tolist() == [48, 48]
    assert speech.warp(spectrum, 0.8).argmax(axis=0).tolist() == [32, 32]
    assert speech.warp(spectrum, 1.0) is spectrum


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("", {}, "text to speak is empty"),
        (" \n", {}, "text to speak is empty"),
        ("😀", {}, "nothing to say in '😀'"),
        ("你好", {}, "nothing to say in '你好'"),
        ("a", {"voice": "tenor"}, "no voice is called 'tenor': choose from .*'heart'"),
        ("a", {"pitch": 0.1}, r"pitch=0.1 is out of bounds: 0.3 to 3"),
        ("a", {"range": -1.0}, r"range=-1.0 is out of bounds: 0 to 4"),
        ("a", {"speed": 9.0}, r"speed=9.0 is out of bounds: 0.5 to 2"),
        ("a", {"pitch": float("nan")}, "pitch=nan is out of bounds"),
    ],
)
def test_bad_input_is_refused(text, how, message):
    with pytest.raises(ValueError, match=message):
        speech.speak(text, **how)


# --- what was said ----------------------------------------------------------------


@pytest.mark.parametrize("voice", ["heart", "low"])
def test_whisper_writes_down_what_was_said(voice):
    said = speech.transcribe(speech.speak("The dog runs over the green field.", voice))
    assert "dog" in said.lower() and "field" in said.lower()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(24_000), "silent"),
        (torch.zeros(0), "is needed, not"),
        (torch.full((24_000,), float("nan")), "NaN or infinity"),
        (torch.randn(24_000).mul(5).clamp(-1, 1), "clipped"),
        (torch.ones(24_000, dtype=torch.int16), "floats in"),
        (0.1 * torch.randn(31 * 24_000), "31 s of sound"),
    ],
)
def test_a_recording_with_nothing_to_hear_is_refused(audio, message, monkeypatch):
    call = getattr(speech.transcribe, "__wrapped__", speech.transcribe)
    check = getattr(speech.check_recording, "__wrapped__", speech.check_recording)
    monkeypatch.setattr(speech, "check_recording", check)  # by its own message alone
    with pytest.raises(ValueError, match=message):
        call(audio)


def test_a_loud_recording_that_is_not_clipped_passes():
    tone = torch.sin(torch.linspace(0, 600, 24_000)) * 0.95
    assert speech.check_recording(tone) is tone
