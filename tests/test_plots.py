"""Plots take arrays and axes and give axes back, labelled; pictures carry words."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmcourse import plots


@pytest.fixture(autouse=True)
def no_figures_left():
    """Every test starts with none open and closes its own."""
    plt.close("all")
    yield
    plt.close("all")


DRAWINGS = {
    "matrix": lambda ax: plots.matrix(np.eye(3), ["a", "b", "c"], label="score", ax=ax),
    "waveform": lambda ax: plots.waveform(np.zeros(48), 24, ax=ax),
    "spectrogram": lambda ax: plots.spectrogram(np.ones((4, 9)), 2.0, "mel", ax=ax),
    "bars": lambda ax: plots.bars({"ours": 0.5, "chance": 0.1}, "R@1", ax=ax),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_draws_on_the_axes_given_or_on_new_ones(draw):
    given = plt.subplots()[1]
    assert draw(given) is given and len(plt.get_fignums()) == 1
    own = draw(None)
    assert isinstance(own, Axes) and own is not given and len(plt.get_fignums()) == 2


def test_time_runs_in_seconds():
    ax = plots.waveform(np.arange(48.0), 24)
    assert ax.lines[0].get_xdata()[-1] == pytest.approx(47 / 24)
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "amplitude"
    ax = plots.spectrogram(np.ones((4, 9)), 2.0, "mel band")
    assert ax.get_xlim() == (0, 2) and ax.get_ylim() == (0, 4)  # low bands below
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "mel band")


def test_matrix_shows_values_names_and_a_bar():
    ax = plots.matrix(np.arange(6).reshape(2, 3), ["r", "s"], [*"abc"], "weight")
    assert ax.images[0].get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["r", "s"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [a.get_ylabel() for a in ax.figure.axes[1:]] == ["weight"]


def test_bars_stand_in_order_from_the_top_with_their_numbers():
    ax = plots.bars({"ours": 0.5, "chance": 0.1}, "R@1", errors={"ours": 0.02})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["chance", "ours"]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.5]
    assert {t.get_text() for t in ax.texts} == {"0.1", "0.5"}
    assert ax.get_xlabel() == "R@1"


def test_image_grid_fills_rows_and_leaves_the_rest_empty():
    images = [Image.new("RGB", (4, 4), c) for c in ("red", "green", "blue")]
    figure = plots.image_grid([*images, np.zeros((4, 4, 3))], list("abcd"), columns=3)
    assert isinstance(figure, Figure) and len(figure.axes) == 6
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 0, 0]
    assert [ax.get_title() for ax in figure.axes[:4]] == list("abcd")
    with pytest.raises(ValueError, match="no images"):
        plots.image_grid([])


def test_a_picture_is_a_png_with_its_words_and_its_figure_is_closed():
    ax = plots.bars({"a": 1.0}, "x")
    shown = plots.picture(ax, 'One bar, "a", at <1> & no more.')
    assert shown["text/plain"] == 'One bar, "a", at <1> & no more.'
    html = shown["text/html"]
    assert 'alt="One bar, &quot;a&quot;, at &lt;1&gt; &amp; no more."' in html
    data = re.search(r"base64,([A-Za-z0-9+/=]+)", html).group(1)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "PNG" and min(image.size) > 50
    assert plt.get_fignums() == []


def test_what_goes_below_a_picture_follows_it():
    shown = plots.picture(plots.bars({"a": 1.0}, "x"), "words", "<audio></audio>")
    assert re.fullmatch(r'<img alt="words".*"><audio></audio>', shown["text/html"])
    assert shown["text/plain"] == "words"


def test_the_same_figure_gives_the_same_picture():
    one, two = (plots.picture(plots.bars({"a": 1.0}, "x"), "words") for _ in range(2))
    assert one == two


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_picture_without_words_is_refused(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(plots.bars({"a": 1.0}, "x"), alt=alt)


def test_show_displays_the_picture_once(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    plots.show(plots.bars({"a": 1.0}, "x"), alt="one bar")
    (((data,), how),) = shown
    assert data["text/plain"] == "one bar" and how["raw"]
    assert how == {"raw": True}
