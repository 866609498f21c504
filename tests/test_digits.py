"""Digits: noise as loud as it says, errors as frequent, nothing cut off."""

import numpy as np
import pytest
from PIL import Image

from mmcourse import digits


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_scans_are_between_zero_and_one():
    images, labels = digits.scans()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert sorted(set(labels)) == list(range(10))


def test_dim_without_noise_is_the_scan(rng):
    scan = digits.scans()[0][0]
    picture = digits.dim(scan, 0.0, rng)
    assert isinstance(picture, Image.Image)
    np.testing.assert_allclose(np.asarray(picture) / 255, scan, atol=1 / 500)


def test_drown_has_the_ratio_that_was_asked_for(rng):
    """The part without speech is noise alone: its power against the whole's tells."""
    speech = np.zeros(6000)
    speech[1000:5000] = np.sin(np.arange(4000)) / 10
    for snr in (-5.0, 0.0, 10.0):
        mixed = digits.drown(speech, snr, rng)
        assert mixed.shape == (digits.SAMPLES,)
        assert mixed.dtype == np.float32
        power = np.convolve(mixed**2, np.ones(3000) / 3000, "valid")
        quiet, loud = power.min(), np.mean(mixed**2)
        # Over the whole clip: noise N everywhere, speech S in half of it.
        ratio = 10 ** (snr / 10)
        assert quiet / loud == pytest.approx(1 / (1 + ratio / 2), rel=0.15)


def test_drown_keeps_the_speech_whole(rng):
    speech = np.sin(np.arange(3000) / 5)
    mixed = digits.drown(0.1 * speech, 60.0, rng)
    found = np.correlate(mixed, speech, "valid").max()
    assert found == pytest.approx((speech**2).sum() * 0.1 * 2, rel=0.02)


def test_speech_that_is_too_long_is_refused(rng):
    with pytest.raises(ValueError, match=r"12001 samples of speech, room for 12000"):
        digits.drown(np.ones(digits.SAMPLES + 1), 0.0, rng)


def test_trim_by_hand():
    assert digits.trim(np.array([0.0, 0.01, 1.0, 0.0, -0.5, 0.02])).tolist() == [
        *(1.0, 0.0, -0.5)
    ]


def test_mistype(rng):
    assert digits.mistype("seven", 0.0, rng) == "seven"
    assert len(digits.mistype("seven", 1.0, rng)) == 5
    typed = "".join(digits.mistype("aaaaa", 0.6, rng) for _ in range(2000))
    assert typed.count("a") / len(typed) == pytest.approx(0.4 + 0.6 / 26, abs=0.02)
