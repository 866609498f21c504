"""Pitch and pace are what was set, raters become a distribution, shares add up."""

from itertools import combinations, permutations
from math import pi

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import speech
from mmcourse.fusion import Concat, Gated, WeightedSum
from mmcourse.tasks import sentiment
from mmcourse.tasks.sentiment import Sentiment, histogram, pitch, prosody, shapley
from mmcourse.training import TrainConfig, batches, fit

WHAT = sentiment.PROSODY.index
DIMS = {"text": 8, "voice": 6, "face": 5}


def tone(hz, rate=8000, seconds=1.0, harmonics=1):
    t = torch.arange(int(seconds * rate)) / rate
    return 0.1 * sum(
        torch.sin(2 * pi * hz * k * t) / k for k in range(1, 1 + harmonics)
    )


# --- pitch and prosody ------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
@pytest.mark.parametrize("hz", [60, 87.3, 150, 311, 490])
@pytest.mark.parametrize("harmonics", [1, 6])
def test_the_pitch_of_a_tone_is_its_frequency(hz, rate, harmonics):
    heard = pitch(tone(hz, rate, harmonics=harmonics), rate)
    assert len(heard) == 97  # (1 - 0.04) / 0.01 + 1
    assert heard.numpy() == pytest.approx(hz, rel=0.01)


def test_the_pitch_of_a_tone_whose_fundamental_is_missing():
    two = tone(200.0) + tone(300.0)  # both are harmonics of 100 Hz
    assert pitch(two, 8000).numpy() == pytest.approx(100, rel=0.01)


def naive_correlation(frame, lag):
    a, b = frame[: len(frame) - lag], frame[lag:]
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_the_pitch_is_the_first_high_peak_of_a_naive_correlation():
    said = speech.speak("hello again", range=1.5)[::3]
    heard, x = pitch(said, 8000), sentiment.frames(said, 8000).double().numpy()
    voiced = heard.nonzero()[::9, 0].tolist()
    assert len(voiced) > 3
    for f in voiced:
        r = [naive_correlation(x[f], lag) for lag in range(147)]
        peaks = [i for i in range(16, 146) if r[i - 1] <= r[i] > r[i + 1]]
        high = [i for i in peaks if r[i] >= 0.9 * max(r[i] for i in peaks)]
        assert abs(8000 / heard[f].item() - high[0]) <= 0.5 + 1e-3


@pytest.mark.parametrize("how", [{"pitch": 1.5}, {"voice": "deep"}])
def test_the_pitch_of_a_monotone_is_librosas(how):
    said = speech.speak("We all rowed away in a yellow year.", range=0.0, **how)
    window = {"frame_length": 1920, "hop_length": 240, "sr": speech.SAMPLE_RATE}
    theirs, voiced, _ = librosa.pyin(said.numpy(), fmin=60, fmax=600, **window)
    ours = pitch(said, speech.SAMPLE_RATE)
    middle = ours[ours > 0].median().item()
    assert middle == pytest.approx(np.median(theirs[voiced]), rel=0.02)


def test_noise_has_no_pitch_and_its_prosody_says_so():
    noise = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    heard = prosody(noise, 8000)
    assert not pitch(noise, 8000).any()
    assert (
        heard[[WHAT("pitch"), WHAT("pitch range"), WHAT("voiced")]].tolist() == [0] * 3
    )
    assert heard.isfinite().all()


@pytest.mark.parametrize("rate", [2.0, 3.0, 5.0])
def test_prosody_of_a_tone_that_swells(rate):
    t = torch.arange(24_000) / 8000
    swell = tone(200.0, seconds=3) * (0.5 - 0.5 * torch.cos(2 * pi * rate * t))
    heard = prosody(swell, 8000)
    assert heard[WHAT("rate")] == pytest.approx(rate, abs=0.4)
    assert heard[WHAT("pitch")] == pytest.approx(12, abs=0.05)  # an octave over 100 Hz
    assert heard[WHAT("pitch range")] < 0.1
    assert heard[WHAT("energy range")] > 5


def test_energy_in_decibels():
    loud, soft = prosody(tone(200.0), 8000), prosody(0.1 * tone(200.0), 8000)
    assert loud[WHAT("energy")] == pytest.approx(10 * np.log10(0.1**2 / 2), abs=0.05)
    assert (loud - soft)[WHAT("energy")] == pytest.approx(20, abs=0.05)
    apart = [i for i in range(6) if i != WHAT("energy")]
    assert torch.allclose(loud[apart], soft[apart], atol=1e-3)


def test_prosody_hears_how_something_is_said():
    def say(**how):
        said = speech.speak("I can take it back to the beautiful city.", **how)
        return prosody(said, speech.SAMPLE_RATE)

    flat, plain, lively = (say(range=r) for r in (0.0, 1.0, 2.0))
    higher = (say(range=0.0, pitch=1.5) - flat)[WHAT("pitch")]
    assert higher == pytest.approx(12 * np.log2(1.5), abs=0.5)
    order = [x[WHAT("pitch range")].item() for x in (flat, plain, lively)]
    assert order == sorted(order) and order[0] < 1


def test_the_rate_counts_about_one_peak_a_syllable_and_follows_the_pace():
    texts = (  # 12, 12 and 14 syllables
        "I can take it back to the beautiful city.",
        "Another good day with my mother at the sea.",
        "Nobody ever told me about the bigger potatoes.",
    )
    rates, peaks = [], 0.0
    for speed in (0.6, 1.0, 1.5):
        said = [speech.speak(text, speed=speed) for text in texts]
        rate = [prosody(a, speech.SAMPLE_RATE)[WHAT("rate")].item() for a in said]
        rates.append(sum(rate))
        if speed == 1:
            seconds = [len(a) / speech.SAMPLE_RATE for a in said]
            peaks = sum(r * s for r, s in zip(rate, seconds, strict=True))
    assert 0.7 * 38 < peaks < 1.2 * 38
    assert rates[0] < rates[1] and rates[2] > 1.25 * rates[0]


@pytest.mark.parametrize(
    "audio, why",
    [
        (torch.zeros(8000), "silent"),
        (tone(200.0)[:100], "100 samples at 8000 Hz: record at least 0.04 s"),
        (torch.full((8000,), torch.nan), "NaN"),
        (tone(200.0).sign(), "clipped"),
        (30_000 * tone(200.0), "divide by the largest value of their type"),
        (torch.zeros(0), "is needed"),
    ],
)
def test_what_cannot_be_heard_is_refused(audio, why):
    for hear in (pitch, prosody):
        with pytest.raises(ValueError, match=why):
            hear(audio, 8000)


def test_too_few_samples_a_second_are_refused():
    with pytest.raises(ValueError, match="sample_rate=100"):
        pitch(tone(200.0), 100)
    with pytest.raises(ValueError, match="sample_rate=nan"):
        sentiment.frames.__wrapped__(tone(200.0), float("nan"))


def test_what_is_no_tensor_is_named():
    with pytest.raises(ValueError, match="audio is a ndarray: make it a tensor"):
        sentiment.frames.__wrapped__(tone(200.0).numpy(), 8000)


# --- raters, and the model --------------------------------------------------------


def test_a_histogram_by_hand():
    assert histogram([4, -4, 0, 0]).tolist() == [0.25, 0, 0, 0, 0.5, 0, 0, 0, 0.25]


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=99), st.integers(0, 99))
def test_a_histogram_keeps_the_mean_and_forgets_the_order(ratings, seed):
    q = histogram(ratings)
    assert q.sum() == pytest.approx(1)
    assert (q @ torch.arange(-4.0, 5)).item() == pytest.approx(
        np.mean(ratings), abs=1e-5
    )
    shuffled = np.random.default_rng(seed).permutation(ratings).tolist()
    assert torch.equal(histogram(shuffled), q)


@pytest.mark.parametrize("ratings", [[], [5], [-5, 0]])
def test_what_no_rater_says_is_refused(ratings):
    with pytest.raises(ValueError, match="from -4 to 4"):
        histogram(ratings)


def rows(n=24, seed=0):
    """Features, and ratings that the sign of the first of each decides."""
    torch.manual_seed(seed)
    batch = {m: torch.randn(n, width) for m, width in DIMS.items()}
    votes = sum(x[:, 0].sign() for x in batch.values())
    given = [[int(v), int(v) + 1, int(v)] for v in votes.tolist()]
    return batch | {"histogram": torch.stack([histogram(r) for r in given])}


def model(dims=None, **how):
    torch.manual_seed(0)
    return Sentiment(DIMS if dims is None else dims, 16, **how)


FUSIONS = [Concat, Gated, WeightedSum]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_learns_two_of_three(fusion):
    batch, net = rows(), model(fusion=fusion, dropout=0.0)
    config = TrainConfig(epochs=100, lr=2e-2, device="cpu")
    fit(net, sentiment.loss, batches(batch, 24), None, config)
    said = sentiment.predict(net, batch)
    wanted = batch["histogram"] @ torch.arange(-4.0, 5)
    assert (said.mean - wanted).abs().max() < 0.3
    assert torch.allclose(said.p, batch["histogram"], atol=0.25)


def test_the_loss_by_hand():
    class Fixed(torch.nn.Module):
        def forward(self, batch):
            return torch.tensor([[0.5] + [1e-9] * 7 + [0.5]]).log()  # half -4, half 4

    wanted = {"histogram": histogram([4])[None]}
    loss = getattr(sentiment.loss, "__wrapped__", sentiment.loss)(Fixed(), wanted)
    assert loss.item() == pytest.approx(np.log(2) + 4**2, abs=1e-4)


def test_predictions_are_the_moments_of_their_distribution():
    batch, net = rows(), model().train()
    mean, spread, p = sentiment.predict(net, batch)
    assert net.training and p.shape == (24, 9)
    assert p.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    for m, s, row in zip(mean, spread, p.double(), strict=True):
        by_hand = sum(row[k] * (k - 4) for k in range(9))
        variance = sum(row[k] * (k - 4 - by_hand) ** 2 for k in range(9))
        assert m.item() == pytest.approx(by_hand.item(), abs=1e-4)
        assert s.item() == pytest.approx(variance.sqrt().item(), abs=1e-3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_stands_where_a_modality_is_missing_does_not_count(fusion):
    batch, net = rows(6), model(fusion=fusion).eval()
    batch["present"] = torch.tensor([[1, 0, 1], [1, 1, 1]] * 3).bool()
    out = net(batch)
    batch["voice"] = batch["voice"].clone()
    batch["voice"][::2] = torch.nan
    assert torch.allclose(net(batch), out)
    without = {k: x for k, x in batch.items() if k not in ("voice", "present")}
    assert torch.allclose(net(without)[::2], out[::2], atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_order_of_rows_does_not_matter(fusion):
    batch, net = rows(6), model(fusion=fusion).eval()
    turned = net({k: x.flip(0) for k, x in batch.items()})
    assert torch.allclose(turned.flip(0), net(batch), atol=1e-5)


def test_one_modality_needs_no_fusion():
    batch, net = rows(6), model({"voice": 6}).eval()
    assert net.fusion is None
    assert torch.equal(net(batch), net({"voice": batch["voice"]}))


def test_modalities_are_dropped_in_training_only():
    batch = rows(50)
    net = model(drop=0.5, dropout=0.0)
    assert not torch.allclose(net(batch), net(batch))
    net.eval()
    assert torch.equal(net(batch), net(batch))


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"voice": torch.full((6, 6), torch.nan)}, "voice holds NaN"),
        ({"voice": torch.zeros(5, 6)}, r"'voice' is \(5, 6\)"),
        ({"voice": torch.zeros(6, 5)}, r"'voice' is \(6, 5\).*\(6, 6\) of floats"),
        ({"voice": torch.zeros(6, 6).long()}, "of torch.int64"),
        ({"present": torch.ones(6, 1, dtype=torch.bool)}, r"present is \(6, 1\)"),
        ({"present": torch.ones(6, 3)}, "present is .* of torch.float32"),
        ({"present": torch.zeros(6, 3, dtype=torch.bool)}, "row 0 has none of"),
    ],
)
def test_batches_of_no_sense_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        model()(rows(6) | changes)
    with pytest.raises(ValueError, match="the batch has none of"):
        model()({"histogram": rows(6)["histogram"]})


@pytest.mark.parametrize(
    "wanted", [torch.ones(6, 9), torch.zeros(6, 9), torch.full((6, 9), torch.nan)]
)
def test_labels_that_are_no_shares_are_refused(wanted):
    with pytest.raises(ValueError, match="the nine shares of its raters"):
        sentiment.loss(model(), rows(6) | {"histogram": wanted})


@pytest.mark.parametrize(
    "how",
    [{"drop": 1.0}, {"drop": float("nan")}, {"dims": {}}, {"dims": {"present": 2}}],
)
def test_models_of_no_sense_are_refused(how):
    with pytest.raises(ValueError, match="name at least one modality"):
        Sentiment(**({"dims": DIMS} | how))


# --- shares -----------------------------------------------------------------------


def values(names, seed=0):
    rng = np.random.default_rng(seed)
    subsets = [c for k in range(len(names) + 1) for c in combinations(names, k)]
    return {frozenset(s): float(rng.normal()) for s in subsets}


def naive_shapley(value, names):
    """What each adds when it comes, averaged over all orders of coming."""
    shares, orders = dict.fromkeys(names, 0.0), [*permutations(names)]
    for order in orders:
        for i, who in enumerate(order):
            before, after = frozenset(order[:i]), frozenset(order[: i + 1])
            shares[who] += (value[after] - value[before]) / len(orders)
    return shares


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 9999))
def test_shares_equal_the_average_over_all_orders_and_add_up(n, seed):
    names = "abcde"[:n]
    value = values(names, seed)
    shares = shapley(value)
    assert shares == pytest.approx(naive_shapley(value, names))
    total = value[frozenset(names)] - value[frozenset()]
    assert sum(shares.values()) == pytest.approx(total)


def test_shares_by_hand():
    value = {frozenset(): 0.0, frozenset("a"): 1.0, frozenset("b"): 2.0}
    assert shapley(value | {frozenset("ab"): 5.0}) == {"a": 2.0, "b": 3.0}


def test_equals_share_equally_and_who_adds_nothing_gets_nothing():
    sizes = {s: float(len(s - {"c"}) ** 2) for s in values("abc")}
    assert shapley(sizes) == pytest.approx({"a": 2.0, "b": 2.0, "c": 0.0})


@pytest.mark.parametrize("gap", [frozenset(), frozenset("a"), frozenset("ab")])
def test_a_subset_that_is_missing_is_named(gap):
    value = values("abc")
    del value[gap]
    with pytest.raises(ValueError, match="give all 8 subsets"):
        shapley(value)
    with pytest.raises(ValueError, match="value lacks a name"):
        shapley({frozenset(): 0.0})
    with pytest.raises(ValueError, match="value holds NaN"):
        shapley({frozenset(): 0.0, frozenset("a"): float("nan")})
