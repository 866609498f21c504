"""Apps: what a notebook built, alone in a browser; ``mmcourse app search``.

``search_box`` is the explorer of 09_retrieval, ``search_page`` the same for voila, and
``emoji_finder`` gives it something to find.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

import nbformat
import torch
from ipywidgets import HTML, Text, VBox
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from mmcourse import assets, datasets, encoders, plots, widgets
from mmcourse.dual_encoder import DualEncoder
from mmcourse.tasks.retrieval import Index


class Hit(NamedTuple):
    """A picture that was found, and the words below it."""

    image: Image.Image
    label: str


def search_box(find: Callable[[str], list[Hit]], query: str) -> None:
    """Show a search box, and below it the pictures that ``find(query)`` returns."""
    widgets.explorer(lambda query: _drawn(find, query), query=_asked(query))


def search_page(find: Callable[[str], list[Hit]], query: str) -> VBox:
    """Return the same as one widget: voila doesn't update an explorer's output."""
    box, page = _asked(query), HTML()

    def answer(_=None) -> None:
        try:
            page.value = plots.picture(*_drawn(find, box.value))["text/html"]
        except ValueError as error:
            page.value = f"<p>{escape(str(error))}</p>"

    box.observe(answer, names="value")
    answer()
    return VBox([box, page])


def _asked(query: str) -> Text:
    return Text(query, description="Find", continuous_update=False)


def _drawn(find: Callable[[str], list[Hit]], query: str) -> tuple[Figure, str]:
    if not (query := query.strip()):
        raise ValueError("type what you are looking for, in any of 16 languages")
    hits = find(query)
    drawn = plots.image_grid([h.image for h in hits], [h.label for h in hits], 8)
    return drawn, f"Found for {query}: {', '.join(h.label for h in hits)}"


def trained() -> DualEncoder:
    """Return the app's dual encoder, trained the first time (minutes).

    Its one text encoder reads Chinese as well as English.
    """
    from mmcourse.hub import DualEncoderModel
    from mmcourse.recipes import ClipRecipe, train_clip

    folder = assets.root() / "checkpoints" / "search"
    if not (folder / "metrics.json").exists():
        recipe = ClipRecipe(image="efficientnet-128", text="use", epochs=20)
        train_clip(recipe, folder)
    model = DualEncoderModel.from_pretrained(folder).model
    return model.requires_grad_(False).eval()


@cache
def emoji_finder(k: int = 16) -> Callable[[str], list[Hit]]:
    """Return what finds ``k`` of OpenMoji's things by words."""
    model = trained()
    rows = [r for part in datasets.openmoji().values() for r in part if r["base"]]
    eye, reader = encoders.efficientnet(128), encoders.multilingual_use()
    seen = model.encode_image(eye.embed([row["image"] for row in rows]))
    index = Index(seen.shape[1])
    index.add(seen, torch.arange(len(rows)))

    def find(query: str) -> list[Hit]:
        reader.require_known(query)
        found = index.search(model.encode_text(reader.embed([query])), k)
        return [Hit(rows[i]["image"], rows[i]["name"]) for i in found.ids[0].tolist()]

    return find


APPS = {"search": "apps.search_page(apps.emoji_finder(), 'something sweet to eat')"}


def serve(name: str, folder: Path, port: int, browser: bool) -> int:
    """Write an app's notebook of one cell; let voila show it until it is stopped."""
    if name not in APPS:
        raise ValueError(f"no app is called {name!r}: choose from {[*APPS]}")
    emoji_finder()  # trains where it must, so that the page needn't wait for it
    folder.mkdir(parents=True, exist_ok=True)
    source = f"from mmcourse import apps\n\n{APPS[name]}"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source, id="app")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "voila", str(path), f"--port={port}"]
    command += [] if browser else ["--no-browser"]
    return subprocess.run(command, check=False).returncode
