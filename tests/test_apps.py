"""The search box finds, refuses in words; its app is one cell that voila can run."""

import sys

import nbformat
import pytest
import torch
from PIL import Image

from mmcourse import apps, widgets
from mmcourse.apps import Hit


@pytest.fixture
def box():
    """Stands for what shows an explorer: keeps how to draw, and the control."""

    def show(draw, query):
        show.draw, show.query = draw, query

    return show


def test_a_query_is_drawn_with_the_names_of_what_was_found(box):
    asked = []

    def find(query):
        asked.append(query)
        return [Hit(Image.new("RGB", (8, 8)), name) for name in ("owl", "swan")]

    apps.search(find, "a bird", box)
    figure, alt = box.draw(query="  a bird ")
    assert asked == ["a bird"] and alt == "Found for a bird: owl, swan"
    assert [ax.get_title() for ax in figure.axes[:2]] == ["owl", "swan"]
    assert box.query.value == "a bird"


def test_an_empty_query_is_answered_in_words(box):
    apps.search(lambda query: [], "a bird", box)
    with pytest.raises(ValueError, match="type what you are looking for"):
        box.draw(query=" ")


def test_the_page_answers_again_and_refuses_in_words():
    def find(query):
        return [Hit(Image.new("RGB", (8, 8)), query.split()[-1])]

    box, answer = apps.search(find, "a bird", widgets.page).children
    assert 'alt="Found for a bird: bird"' in answer.value
    box.value = "a <fish>"
    assert 'alt="Found for a &lt;fish&gt;: &lt;fish&gt;"' in answer.value
    box.value = " "
    assert answer.value.startswith("<p>type what you are looking for")


class Stub:
    """An encoder of pictures by their mean colour, of words by their first letter."""

    def encode_image(self, x):
        return x

    encode_text = encode_image

    @property
    def image(self):  # the model's own towers see and read
        return self

    text = image

    def embed(self, items):
        code = {"r": 0, "g": 1, "b": 2}
        if isinstance(items[0], str):
            return torch.eye(3)[[code[text[0]] for text in items]]
        return torch.eye(3)[
            [int(max(range(3), key=i.getpixel((0, 0)).__getitem__)) for i in items]
        ]

    def require_known(self, text):
        if text[0] not in "rgb":
            raise ValueError(f"{text!r} holds no letter")


def test_the_finder_finds_base_drawings_by_words(monkeypatch):
    rows = [
        {"image": Image.new("RGB", (4, 4), colour), "name": colour, "base": base}
        for colour, base in (("red", True), ("blue", True), ("blue", False))
    ]
    monkeypatch.setattr(apps, "trained", Stub)
    monkeypatch.setattr(apps.datasets, "openmoji", lambda size: {"test": rows})
    monkeypatch.setattr(apps.encoders, "multilingual_use", Stub)
    find = apps.emoji_finder.__wrapped__(2)
    assert [hit.label for hit in find("bluish")] == ["blue", "red"]
    with pytest.raises(ValueError, match="holds no letter"):
        find("xyz")


def test_the_apps_notebook_is_one_cell_that_voila_is_told_to_show(
    tmp_path, monkeypatch
):
    ran = []

    class Done:
        returncode = 3

    monkeypatch.setattr(apps, "emoji_finder", lambda: None)
    monkeypatch.setattr(
        apps.subprocess, "run", lambda command, check: ran.append(command) or Done
    )
    assert apps.serve("search", tmp_path / "apps", 8899, browser=False) == 3
    path = tmp_path / "apps" / "search.ipynb"
    (cell,) = nbformat.read(path, 4).cells
    assert "apps.search(apps.emoji_finder()" in cell.source
    voila = [sys.executable, "-m", "voila", str(path)]
    assert ran == [[*voila, "--port=8899", "--no-browser"]]
