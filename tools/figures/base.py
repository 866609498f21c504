"""What the decks' figures share: colours, boxes, and the notebooks' own variables."""

import contextlib
import io
import os
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from mmcourse import assets, emojis, notebooks

INK, SOFT, ACCENT, WARM = "#1c2330", "#566072", "#2f5fb3", "#b3541e"
TINTS = ("#dbe7fb", "#fbe3d2", "#dff2df", "#efe3f7", "#fdf3c7", "#dff3f5")
SLIDE = {
    "font.family": ["DejaVu Sans", "Noto Sans CJK JP"],
    "font.size": 20,
    "axes.titlesize": 21,
    "axes.labelsize": 20,
    "figure.constrained_layout.w_pad": 0.12,
    "svg.fonttype": "path",  # no font has to be where the deck is shown
    "text.color": INK,
}
MONO = ["DejaVu Sans Mono", "Noto Sans CJK JP"]
FIGURES: dict[str, Callable[[], Figure]] = {}


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function that draws slides/figures/<its name>.svg."""
    FIGURES[draw.__name__] = draw
    return draw


@cache
def ran(name: str) -> SimpleNamespace:
    """Run a notebook's cells in this process and return its variables."""
    print(f"running {name}")
    os.environ["TQDM_DISABLE"] = "1"
    variables = {"__name__": name}
    stored = notebooks.read(notebooks.FOLDER / f"{name}.ipynb")
    for cell in stored.cells:
        skipped = {"nbval-skip", "exercise", "check"} & {*cell.metadata.get("tags", ())}
        if cell.cell_type != "code" or skipped:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(cell.source, f"{name}:{cell.id}", "exec"), variables)
        plt.close("all")
    return SimpleNamespace(**variables)


def canvas(width: float = 11.4, height: float = 4.8) -> tuple[Figure, Axes]:
    """Return a figure whose axes, without lines, measure in inches."""
    drawn = plt.figure(figsize=(width, height), layout="none")
    ax = drawn.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return drawn, ax


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str, tint: int = 0):
    """Draw a rounded box with words in it; (x, y) is its lower left corner."""
    style = "round,pad=0,rounding_size=0.12"
    colour = TINTS[tint % len(TINTS)]
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=colour, ec="none"))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", linespacing=1.35)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "mutation_scale": 24, "lw": 2.4, "color": SOFT}
    ax.add_patch(FancyArrowPatch(start, end, **style))


def put(ax: Axes, image: Image.Image, x: float, y: float, size: float) -> None:
    """Put a square picture on a canvas; (x, y) is its lower left corner."""
    ax.imshow(image, extent=(x, x + size, y, y + size), interpolation="lanczos")
    ax.set(xlim=(0, ax.figure.get_figwidth()), ylim=(0, ax.figure.get_figheight()))


def emoji(symbol: str, size: int = 192, hand: str = "openmoji") -> Image.Image:
    """Draw one emoji as one of the two design schools does."""
    stem = {"openmoji": "{:04X}", "twemoji": "{:x}"}[hand]
    path = emojis.drawing(symbol, assets.path(hand), stem)
    return Image.open(io.BytesIO(emojis.render(path, size))).convert("RGB")


def picture(ax: Axes, image, title: str = "") -> None:
    """Show a picture without axes."""
    ax.imshow(np.asarray(image), interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")


def framed(ax: Axes, image, side: int | None = None) -> None:
    """Show a picture in a frame, under a grid of squares if they have a side."""
    ax.imshow(np.asarray(image), interpolation="nearest")
    lines = [] if side is None else np.arange(0, image.shape[1] + 1, side) - 0.5
    ax.set(xticks=lines, yticks=lines, xticklabels=[], yticklabels=[])
    ax.tick_params(length=0)
    if side is not None:
        ax.grid(color="grey", linewidth=0.7)
    ax.spines[:].set_visible(True)


def draw_tokens(ax: Axes, x: float, y: float, pieces: list[str], unit: float = 0.2):
    """Draw the pieces of a text as coloured boxes in a row."""
    for i, piece in enumerate(pieces):
        shown = piece.replace(" ", "·")
        w = unit * len(shown) + 0.16
        box(ax, x, y, w, 0.56, "", 3 if piece == "<unk>" else i % 3)
        ax.text(x + w / 2, y + 0.27, shown, ha="center", va="center", family=MONO)
        x += w + 0.06


def pairs_of_bars(ax: Axes, groups: dict[str, dict[str, float]], label: str) -> None:
    """Draw bars side by side: a group for each name, a colour for each key in it."""
    inner = list(next(iter(groups.values())))
    for i, key in enumerate(inner):
        values = [group[key] for group in groups.values()]
        places = np.arange(len(groups)) + (i - (len(inner) - 1) / 2) * 0.38
        drawn = ax.bar(places, values, 0.34, label=key)
        said = [f"{v:.2f}" if v >= 0.1 else f"{v:.2g}" for v in values]
        ax.bar_label(drawn, said, padding=3, fontsize=18)
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylabel=label, ylim=(0, 1))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.15)}
    ax.legend(frameon=False, ncols=len(inner), **place)
