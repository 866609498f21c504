"""Apps: what a notebook built, alone in a browser; ``mmcourse app search``.

``search`` is the explorer of 09_retrieval; in an app ``emoji_finder`` gives it
something to find, and voila shows it.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
import torch
from ipywidgets import Text
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


def search(
    find: Callable[[str], list[Hit]], query: str, show: Callable = widgets.explorer
):
    """Show a search box, and below it the pictures that ``find(query)`` returns.

    ``show`` is how: by ``widgets.explorer`` in a notebook, ``widgets.page`` in voila.
    """

    def draw(query: str) -> tuple[Figure, str]:
        if not (query := query.strip()):
            raise ValueError("type what you are looking for, in any of 16 languages")
        hits = find(query)
        drawn = plots.image_grid([h.image for h in hits], [h.label for h in hits], 8)
        return drawn, f"Found for {query}: {', '.join(h.label for h in hits)}"

    return show(draw, query=Text(query, description="Find", continuous_update=False))


def trained() -> DualEncoder:
    """Return the app's dual encoder, trained the first time (minutes).

    Its one text encoder reads Chinese as well as English.
    """
    from mmcourse.hub import DualEncoderModel
    from mmcourse.recipes import ClipRecipe, train_clip

    folder = assets.root() / "checkpoints" / "search"
    if not (folder / "metrics.json").exists():
        train_clip(ClipRecipe(image="efficientnet-128", text="use", epochs=20), folder)
    model = DualEncoderModel.from_pretrained(folder).model
    return model.requires_grad_(False).eval()


@cache
def emoji_finder(k: int = 16) -> Callable[[str], list[Hit]]:
    """Return what finds ``k`` of OpenMoji's things by words."""
    model = trained()
    parts = datasets.openmoji(224).values()  # the size it learnt from
    rows = [row for part in parts for row in part if row["base"]]
    reader = encoders.multilingual_use()
    seen = model.encode_image(model.image.embed([row["image"] for row in rows]))
    index = Index(seen.shape[1])
    index.add(seen, torch.arange(len(rows)))

    def find(query: str) -> list[Hit]:
        reader.require_known(query)
        found = index.search(model.encode_text(model.text.embed([query])), k)
        return [Hit(rows[i]["image"], rows[i]["name"]) for i in found.ids[0].tolist()]

    return find


APPS = {"search": "apps.search(apps.emoji_finder(), 'a big animal', widgets.page)"}


def serve(name: str, folder: Path, port: int, browser: bool) -> int:
    """Write an app's notebook of one cell; let voila show it until it is stopped."""
    emoji_finder()  # trains where it must, so that the page needn't wait for it
    folder.mkdir(parents=True, exist_ok=True)
    source = f"from mmcourse import apps, widgets\n\n{APPS[name]}"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source, id="app")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path := folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "voila", str(path), f"--port={port}"]
    command += ["--no-browser"] * (not browser)
    return subprocess.run(command, check=False).returncode
