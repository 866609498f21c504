import warnings

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.modalities import (
    FLOOR,
    frame,
    griffin_lim,
    hz_to_mel,
    inverse_log_mel,
    log_mel,
    mel_filterbank,
    mel_to_hz,
    mel_to_spectrogram,
    patchify,
    spectrogram,
    tubelets,
    unpatchify,
    untubelets,
)

RATE = 24000
small = st.integers(1, 3)


@pytest.fixture(scope="module")
def librosa():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its dependencies deprecate isn't ours
        import librosa
        import librosa.filters

        librosa.feature.melspectrogram(y=np.zeros(2048, "f"), sr=RATE)  # loads the rest
    return librosa


@pytest.fixture
def unchecked():
    """Let bad input through to our own checks, as where shapes aren't checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def voice(seconds=1.0, pitch=150.0):
    """Something like a vowel: harmonics of a gliding pitch under two formants."""
    t = torch.arange(int(seconds * RATE)) / RATE
    f0 = pitch + 40 * torch.sin(2 * torch.pi * 1.3 * t)
    phase = 2 * torch.pi * f0.cumsum(0) / RATE
    hz = f0 * torch.arange(1, 40)[:, None]
    loud = torch.exp(-(((hz - 700) / 400) ** 2)) + torch.exp(
        -(((hz - 1800) / 500) ** 2)
    )
    tones = (loud + 0.02) * torch.sin(phase * torch.arange(1, 40)[:, None])
    return 0.1 * tones.sum(0)[None] + 0.001 * random(1, len(t))


def distance(a, b):
    return ((a.sqrt() - b.sqrt()).norm() / a.sqrt().norm()).item()


# --- pictures and clips ---------------------------------------------------------------


def test_patches_by_hand():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert patchify(image, 2)[0].tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15],
    ]  # fmt: skip
    colours = torch.stack([image[0, 0], image[0, 0] + 100])[None]
    assert patchify(colours, 2)[0, 0].tolist() == [0, 1, 4, 5, 100, 101, 104, 105]


@settings(deadline=None)
@given(small, small, small, small, st.integers(1, 4))
def test_patches_times_weights_are_a_convolution(b, c, h, w, p):
    images, weight = random(b, c, h * p, w * p), random(5, c, p, p, seed=1)
    conv = torch.nn.functional.conv2d(images, weight, stride=p)
    torch.testing.assert_close(
        patchify(images, p) @ weight.flatten(1).T,
        conv.flatten(2).mT,
        rtol=1e-4,
        atol=1e-4,
    )
    unfolded = torch.nn.functional.unfold(images, p, stride=p).mT
    assert torch.equal(patchify(images, p), unfolded)
    assert torch.equal(unpatchify(patchify(images, p), p, c, height=h * p), images)


def test_a_square_needs_no_height():
    images = random(2, 3, 32, 32)
    assert torch.equal(unpatchify(patchify(images, 8), 8), images)


@settings(deadline=None)
@given(small, small, small, small, small, st.integers(1, 3), st.integers(1, 3))
def test_tubelets_times_weights_are_a_convolution(b, f, c, h, w, t, p):
    video, weight = random(b, f * t, c, h * p, w * p), random(5, c, t, p, p, seed=1)
    conv = torch.nn.functional.conv3d(video.transpose(1, 2), weight, stride=(t, p, p))
    blocks = tubelets(video, t, p)
    torch.testing.assert_close(
        blocks @ weight.flatten(1).T, conv.flatten(2).mT, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(untubelets(blocks, t, p, f * t, c, height=h * p), video)


def test_a_moved_patch_is_a_moved_token():
    images = random(1, 3, 16, 16)
    rolled = patchify(images.roll(4, dims=-1), 4).unflatten(1, (4, 4))
    assert torch.equal(rolled, patchify(images, 4).unflatten(1, (4, 4)).roll(1, dims=2))


# --- sound ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "mels"),
    [(24000, 1024, 256, 80), (16000, 400, 160, 40), (22050, 2048, 512, 128)],
)
def test_log_mel_equals_librosa(librosa, rate, n_fft, hop, mels):
    audio = 0.3 * random(2, 5000, dtype=torch.float64)
    audio[1, 2000:] *= 1e-4
    theirs = librosa.feature.melspectrogram(
        y=audio.numpy(), sr=rate, n_fft=n_fft, hop_length=hop, n_mels=mels
    )
    theirs = np.log(np.maximum(theirs, FLOOR))
    np.testing.assert_allclose(
        log_mel(audio, rate, n_fft, hop, mels).numpy(), theirs, atol=1e-5, rtol=0
    )
    single = log_mel(audio.float(), rate, n_fft, hop, mels)
    np.testing.assert_allclose(single.numpy(), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("fmin", "fmax"), [(0.0, None), (50.0, 7600.0)])
def test_filterbank_equals_librosa(librosa, fmin, fmax):
    theirs = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=64, fmin=fmin, fmax=fmax)
    ours = mel_filterbank(RATE, 1024, 64, fmin, fmax).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-8, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 900), st.sampled_from([16, 64, 128]), st.integers(1, 64))
def test_spectrogram_equals_torch(length, n_fft, hop):
    audio = random(2, length)
    theirs = torch.stft(
        audio, n_fft, hop, window=torch.hann_window(n_fft), pad_mode="constant",
        return_complex=True,
    ).abs()  # fmt: skip
    torch.testing.assert_close(
        spectrogram(audio, n_fft, hop), theirs**2, rtol=1e-4, atol=1e-4
    )


def test_frames_by_hand():
    frames = frame(torch.tensor([[1.0, 2, 3, 4]]), n_fft=4, hop=2)
    assert frames[0].tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 0, 0]]


def test_a_tone_lies_in_its_bin():
    tone = torch.sin(2 * torch.pi * 3000 * torch.arange(4096) / RATE)[None]
    middle = spectrogram(tone)[0, :, 8]
    assert middle.argmax() == 3000 * 1024 // RATE
    # A sine's peak is (sum of the window / 2)^2, and a Hann window sums to n_fft / 2.
    assert middle.max().item() == pytest.approx((1024 / 4) ** 2, rel=1e-3)


def test_mel_scale_by_hand():
    assert [hz_to_mel(hz) for hz in (0.0, 200.0, 1000.0)] == pytest.approx([0, 3, 15])
    assert hz_to_mel(6400.0) == pytest.approx(42)
    assert mel_to_hz(42.0) == pytest.approx(6400)


@given(st.floats(0, 20000))
def test_mel_scale_comes_back(hz):
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz, abs=1e-6)


def test_silence_is_the_floor():
    silent = log_mel(torch.zeros(1, 3000))
    assert torch.allclose(silent, torch.tensor(FLOOR).log())


def test_louder_is_a_shift_and_later_is_a_shift():
    audio = voice(0.5)
    louder = log_mel(10 * audio) - log_mel(audio)
    torch.testing.assert_close(
        louder, torch.full_like(louder, 2 * np.log(10)), rtol=0, atol=1e-3
    )
    later = torch.nn.functional.pad(audio, (4 * 256, 0))
    torch.testing.assert_close(
        log_mel(later)[:, :, 6:], log_mel(audio)[:, :, 2:], rtol=1e-3, atol=1e-3
    )


def test_batch_order_does_not_matter():
    audio = torch.cat([voice(0.3), voice(0.3, pitch=220)])
    torch.testing.assert_close(log_mel(audio.flip(0)), log_mel(audio).flip(0))
    torch.testing.assert_close(
        inverse_log_mel(log_mel(audio))[1:], inverse_log_mel(log_mel(audio[1:]))
    )


# --- sound again ----------------------------------------------------------------------


def test_griffin_lim_equals_librosa(librosa):
    power = spectrogram(voice(0.3).double())
    theirs = librosa.griffinlim(
        power[0].sqrt().numpy(), n_iter=5, hop_length=256, init=None, momentum=0.99
    )
    ours = griffin_lim(power, steps=5, momentum=0.99)[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_griffin_lim_comes_close_and_momentum_helps():
    power = spectrogram(voice())
    start, plain, fast = (
        distance(power, spectrogram(griffin_lim(power, steps=steps, momentum=momentum)))
        for steps, momentum in [(0, 0.0), (32, 0.0), (32, 0.9)]
    )
    assert fast < 0.1 < plain < start
    assert torch.equal(griffin_lim(power), griffin_lim(power))


def test_mel_bands_are_undone_without_negative_power():
    bank = mel_filterbank(RATE, 1024, 80)
    mel = bank @ spectrogram(voice())
    power = mel_to_spectrogram(mel)
    clamped = (torch.linalg.pinv(bank) @ mel).clamp(min=0)
    assert power.min() >= 0
    error, before = ((bank @ p - mel).norm() / mel.norm() for p in (power, clamped))
    assert error < 0.03 < before


def test_sound_comes_back_from_log_mel():
    audio = voice()
    heard = inverse_log_mel(log_mel(audio))
    assert heard.shape == (1, len(audio[0]) // 256 * 256)
    again = log_mel(heard)
    assert (again - log_mel(audio)).abs().mean() < 0.4
    other = log_mel(voice(pitch=220))
    assert (again - other).abs().mean() > 0.8


def test_silence_comes_back_as_silence():
    assert griffin_lim(spectrogram(torch.zeros(1, 2000))).abs().max() == 0


# --- at the door ----------------------------------------------------------------------

AUDIO, IMAGE, CLIP = (
    torch.zeros(2, 600),
    torch.zeros(1, 3, 8, 8),
    torch.zeros(1, 4, 3, 8, 8),
)


def holding(x, value):
    x = x.clone()
    x.flatten()[-1] = value
    return x


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: log_mel(AUDIO.short()),
            "audio is int16: divide by 32768 to get floats",
        ),
        (lambda: log_mel(AUDIO.long()), r"audio is int64: convert it with \.float"),
        (lambda: log_mel(AUDIO[0]), r"\(600,\), not \(B T\): .* audio\[None\]"),
        (lambda: log_mel(IMAGE), r"shape \(1, 3, 8, 8\), not \(B T\)$"),
        (lambda: log_mel(AUDIO[:, :0]), r"\(2, 0\): it is empty"),
        (lambda: log_mel(AUDIO.numpy()), "ndarray: use torch.as_tensor"),
        (lambda: log_mel(holding(AUDIO, np.nan)), r"nan at \(1, 599\).*drop item 1"),
        (lambda: patchify(holding(IMAGE, np.inf), 4), r"inf at \(0, 2, 7, 7\)"),
        (lambda: patchify(IMAGE.byte(), 4), "uint8: divide by 255 to get floats"),
        (lambda: patchify(IMAGE[0], 4), r"one item alone is images\[None\]"),
        (
            lambda: patchify(torch.zeros(1, 3, 50, 64), 16),
            "image 50x64 does not divide by patch=16: crop or resize to 48x64",
        ),
        (lambda: patchify(IMAGE, 10), "8x8 does not .* resize to 10x10"),
        (lambda: patchify(IMAGE, 0), "patch=0: choose a whole number, 1 or more"),
        (lambda: unpatchify(torch.zeros(1, 6, 12), 2), "6 patches .* a square: give"),
        (lambda: unpatchify(torch.zeros(1, 6, 12), 2, height=3), "fill height=3"),
        (lambda: unpatchify(torch.zeros(1, 6, 12), 2, height=8), "fill height=8"),
        (
            lambda: unpatchify(torch.zeros(1, 4, 13), 2),
            r"13 numbers .* patch=2\^2 = 12",
        ),
        (lambda: tubelets(CLIP, 3, 4), "length 4 .* frames=3: crop or resize to 3"),
        (lambda: tubelets(CLIP, 2, 3), "8x8 does not divide by patch=3"),
        (lambda: tubelets(holding(CLIP, np.nan), 2, 4), r"video is nan at \(0, 3, 2"),
        (lambda: untubelets(torch.zeros(1, 8, 96), 2, 4, 5), "do not fill length=5"),
        (lambda: untubelets(torch.zeros(1, 8, 96), 2, 4, 0), "do not fill length=0"),
        (lambda: untubelets(torch.zeros(1, 8, 96), 2, 4, 6), "8 tubelets of 2 frames"),
        (lambda: griffin_lim(torch.zeros(1, 9, 1)), "1 frame"),
        (
            lambda: mel_filterbank(RATE, 256, 128),
            "of mels=128 bands hold no .* above 256",
        ),
        (lambda: mel_filterbank(RATE, 1024, 40, 0, 13000), "fmax=13000 <= 12000.0 Hz"),
    ],
)
def test_bad_input_is_refused(unchecked, call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda here")
def test_all_of_it_on_a_gpu():
    audio, images = voice(0.3), random(2, 3, 32, 32)
    mel = log_mel(audio.cuda())
    torch.testing.assert_close(mel.cpu(), log_mel(audio), rtol=1e-3, atol=1e-3)
    assert inverse_log_mel(mel).is_cuda
    assert torch.equal(patchify(images.cuda(), 8).cpu(), patchify(images, 8))


def test_a_patch_that_is_no_whole_number_spoils_nothing(unchecked):
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"patch=2\.0: choose a whole number"):
        patchify(image, 2.0)
    assert patchify(image, 2).shape == (1, 4, 12)
