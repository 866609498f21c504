"""Explorers redraw when a control moves; players hold the sound they were given."""

import base64
import io
import re

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
import torch

from mmcourse import plots, widgets


@pytest.fixture(autouse=True)
def no_figures_left():
    plt.close("all")
    yield
    plt.close("all")


class Handle:
    """What IPython's display hands out for an output that can be updated."""

    def __init__(self):
        self.shown = []

    def update(self, data, raw):
        assert raw
        self.shown.append(data)


@pytest.fixture
def screen(monkeypatch):
    """Collects what is displayed, in place of a notebook."""
    handle = Handle()

    def display(data, raw=False, display_id=None):
        handle.shown.append(data)
        return handle if display_id else None

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(widgets, "display", display)
    return handle.shown


def draw(n, word):
    if word == "bad":
        raise ValueError("no <word>")
    figure, ax = plt.subplots()
    ax.plot(range(n))
    return figure, f"{n} points of {word}"


def test_an_explorer_draws_once_and_again_when_a_control_moves(screen):
    n, word = ipywidgets.IntSlider(3, 1, 9), ipywidgets.Text("cat")
    widgets.explorer(draw, n=n, word=word)
    box, first = screen
    assert list(box.children) == [n, word]
    assert first["text/plain"] == "3 points of cat"
    n.value = 4
    word.value = "dog"
    assert [s["text/plain"] for s in screen[2:]] == [
        "4 points of cat",
        "4 points of dog",
    ]
    assert screen[2]["text/html"] != first["text/html"]
    n.value = 4  # the same: nothing to redraw
    assert len(screen) == 4 and plt.get_fignums() == []


def test_what_draw_refuses_is_shown_and_the_explorer_goes_on(screen):
    n, word = ipywidgets.IntSlider(3, 1, 9), ipywidgets.Text("cat")
    widgets.explorer(draw, n=n, word=word)
    word.value = "bad"
    assert screen[-1]["text/html"] == "<p>no &lt;word&gt;</p>"
    word.value = "cat"
    assert screen[-1]["text/plain"] == "3 points of cat"


def test_what_draw_refuses_at_the_start_is_shown_too(screen):
    n, word = ipywidgets.IntSlider(3, 1, 9), ipywidgets.Text("bad")
    widgets.explorer(draw, n=n, word=word)
    assert screen[-1] == {
        "text/html": "<p>no &lt;word&gt;</p>",
        "text/plain": "no <word>",
    }
    word.value = "cat"
    assert screen[-1]["text/plain"] == "3 points of cat"


def test_an_explorer_outside_a_notebook_does_not_break(capsys):
    """In a plain Python there is no handle to update: the controls still move."""
    n, word = ipywidgets.IntSlider(3, 1, 9), ipywidgets.Text("cat")
    widgets.explorer(draw, n=n, word=word)
    n.value = 5
    assert plt.get_fignums() == []


@pytest.mark.parametrize("kind", [np.float32, np.float64, "torch"])
def test_a_player_holds_the_samples(kind):
    samples = np.sin(np.linspace(0, 60, 2400)) * 0.5
    samples = torch.tensor(samples) if kind == "torch" else samples.astype(kind)
    html = widgets.play(samples, 24_000, 'a "tone"').data
    data = re.search(r"base64,([A-Za-z0-9+/=]+)", html).group(1)
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 24_000
    np.testing.assert_allclose(heard, np.asarray(samples), atol=1e-4)
    assert 'aria-label="a &quot;tone&quot;"' in html and "<figcaption>" in html


def test_too_loud_is_clipped_and_not_wrapped():
    html = widgets.play(np.array([2.0, -2.0]), 24_000, "loud").data
    data = re.search(r"base64,([A-Za-z0-9+/=]+)", html).group(1)
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_allclose(heard, [1, -1], atol=1e-3)


@pytest.mark.parametrize(
    "audio",
    [np.zeros((2, 9)), np.zeros(0), np.array([0.0, np.nan]), np.array([1, 2])],
    ids=["stereo", "empty", "nan", "integers"],
)
def test_what_is_no_sound_is_refused(audio):
    with pytest.raises(ValueError, match="one row of finite floats"):
        widgets.play(audio, 24_000, "x")


def test_explorers_use_the_pictures_of_plots(screen, monkeypatch):
    monkeypatch.setattr(plots, "picture", lambda figure, alt: {"text/plain": alt})
    widgets.explorer(draw, n=ipywidgets.IntSlider(2), word=ipywidgets.Text("x"))
    assert screen[1] == {"text/plain": "2 points of x"}
