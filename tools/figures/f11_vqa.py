"""Figures of 11: what is asked, where words meet pictures, a look, new pairs, habit.

Numbers and maps are read from the outputs that the notebook stores; nothing is trained.
"""

import ast
import base64
import io
import re
import textwrap
from collections import Counter
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from base import INK, SOFT, WARM, arrow, box, canvas, figure, put
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mmcourse import datasets, notebooks

GREY, BLUE = "#9aa5b8", "what shape is the blue thing?"


@cache
def stored(cell: str) -> tuple[str, str]:
    """Return what a cell of the notebook printed, and the HTML that it showed."""
    found = notebooks.read(notebooks.FOLDER / "11_vqa.ipynb").cells
    outputs = next(c for c in found if c.id == cell).outputs
    html = (o.get("data", {}).get("text/html", "") for o in outputs)
    return "".join(o.get("text", "") for o in outputs), "".join(html)


def by_kind(cell: str, split: str) -> dict[str, float]:
    """Return the accuracies by kind that a cell printed for a split of scenes."""
    printed = re.search(rf"^{split} .*?(\{{.*\}})$", stored(cell)[0], re.MULTILINE)
    return ast.literal_eval(printed[1])


def scenes(split: str) -> datasets.Dataset:
    """Return the scenes of the notebook."""
    return datasets.shape_scenes(3500, size=32)[split]


def large(image: Image.Image) -> Image.Image:
    """Return a picture whose pixels are large."""
    return image.convert("RGB").resize((256, 256), Image.Resampling.NEAREST)


def framed(ax: Axes, image: Image.Image, x: float, y: float, size: float) -> None:
    """Put a picture on a canvas, in a frame."""
    put(ax, large(image), x, y, size)
    ax.add_patch(Rectangle((x, y), size, size, fc="none", ec=GREY, lw=1.2, zorder=3))


def told(ax: Axes, x: float, y: float, asked: dict[str, str], width: int) -> float:
    """Write a question and its answer below each other; return where it ends."""
    for line in textwrap.wrap(asked["question"], width):
        ax.text(x, y, line, va="center", fontsize=18)
        y -= 0.34
    ax.text(x, y, asked["answer"], va="center", fontsize=18, color=WARM, weight="bold")
    return y - 0.5


# --- what is asked, and where the two meet ------------------------------------------


@figure
def vqa_asked() -> Figure:
    """A picture of easy-VQA and a scene, three questions each, and true answers."""
    drawn, ax = canvas(11.4, 4.4)
    easy, scene = datasets.easy_vqa()["test"][0], scenes("held_out")[0]
    shown = (("easy-VQA", easy, (1, 3, 4)), ("scenes", scene, (0, 1, 5)))
    for k, (name, row, which) in enumerate(shown):
        x = 0.1 + 5.7 * k
        framed(ax, row["image"], x, 0.95, 2.4)
        ax.text(x + 1.2, 0.55, name, ha="center", va="center", color=SOFT)
        y = 4.1
        for i in which:
            y = told(ax, x + 2.6, y, row["questions"][i], 21)
    return drawn


@figure
def vqa_meet() -> Figure:
    """Early fusion, late fusion, words that attend: what runs once, and what often."""
    drawn, ax = canvas(11.4, 5.2)
    for k, name in enumerate(("early", "late", "cross-attention")):
        x = 0.1 + 3.9 * k
        ax.text(x + 1.7, 4.95, name, ha="center", va="center", weight="bold")
        box(ax, x, 0.75, 1.6, 0.65, "picture", 0 if k else 1)
        box(ax, x + 1.8, 0.75, 1.6, 0.65, "question", 1)
        box(ax, x + 0.9, 3.95, 1.6, 0.65, "answer", 1)
        arrow(ax, (x + 0.8, 1.4), (x + 0.8, 1.83))
        arrow(ax, (x + 2.6, 1.4), (x + 2.6, 1.83))
    box(ax, 0.1, 1.85, 3.4, 1.65, "all layers,\npatches and words", 1)
    arrow(ax, (1.8, 3.5), (1.8, 3.93))
    for x, seen in ((4.0, "$v$"), (7.9, "16 tokens")):
        box(ax, x, 1.85, 1.6, 0.65, "encoder", 0)
        box(ax, x + 1.8, 1.85, 1.6, 0.65, "words", 1)
        box(ax, x, 2.85, 1.6, 0.65, seen, 0)
        box(ax, x + 2.15, 2.85, 1.25, 0.65, "$q$", 1)
        arrow(ax, (x + 0.8, 2.5), (x + 0.8, 2.83))
        arrow(ax, (x + 2.6, 2.5), (x + 2.6, 2.83))
    arrow(ax, (4.8, 3.5), (5.4, 3.93))
    arrow(ax, (6.6, 3.5), (6.0, 3.93))
    arrow(ax, (10.05, 3.34), (9.49, 3.34))
    arrow(ax, (9.5, 3.01), (10.06, 3.01))
    arrow(ax, (10.5, 3.5), (9.9, 3.93))
    for tint, text in enumerate(("once a picture: 1,000", "once a question: 9,673")):
        x = 0.1 + 5.5 * tint
        box(ax, x, 0.08, 0.5, 0.36, "", tint)
        ax.text(x + 0.65, 0.25, text, va="center", color=SOFT)
    return drawn


@figure
def vqa_looks() -> Figure:
    """A scene, and the attention over it as the notebook stored it."""
    row = next(r for r in scenes("test") if len(r["questions"]) == 6)
    drawn, ax = canvas(11.4, 3.6)
    framed(ax, row["image"], 0.05, 0.5, 2.1)
    ax.text(1.1, 0.22, "4 × 4 places", ha="center", va="center", color=SOFT)
    for step in range(1, 4):
        at = 2.1 * step / 4
        ax.plot([0.05 + at] * 2, [0.5, 2.6], color=GREY, lw=0.9, zorder=3)
        ax.plot([0.05, 2.15], [0.5 + at] * 2, color=GREY, lw=0.9, zorder=3)
    maps = zip(looks(), row["questions"], strict=False)
    for k, (image, asked) in enumerate(maps):
        x = 2.35 + 2.28 * k
        put(ax, image, x, 0.5, 2.1)
        lines = "\n".join(textwrap.wrap(asked["question"], 15))
        style = {"ha": "center", "fontsize": 17, "linespacing": 1.2}
        ax.text(x + 1.05, 2.72, lines, va="bottom", **style)
        ax.text(x + 1.05, 0.22, asked["answer"], va="center", color=WARM, **style)
    return drawn


def looks() -> list[Image.Image]:
    """Return the four maps, cut out of the picture that the notebook stored."""
    data = base64.b64decode(re.search(r"base64,([\w+/=]+)", stored("look-at")[1])[1])
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    inked = (np.asarray(image) < 250).any(axis=2)
    columns = runs(inked[image.height // 3 :].mean(axis=0) > 0.8)
    if len(columns) != 4:
        raise ValueError(f"look-at shows {len(columns)} maps and should show 4")
    found = []
    for left, right in columns:
        top, bottom = runs(inked[:, left:right].mean(axis=1) > 0.98)[-1]
        found.append(image.crop((left, top, right, bottom)))
    return found


def runs(there: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of the runs of True that are 50 or longer."""
    edges = np.flatnonzero(np.diff(np.r_[0, there.astype(int), 0])).tolist()
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(begin, end) for begin, end in pairs if end - begin >= 50]


# --- new combinations ---------------------------------------------------------------


@figure
def vqa_pairs() -> Figure:
    """Blue things of training and an unseen one; what the question was answered."""
    drawn, ax = canvas(11.4, 4.0)
    places = {"circle": "train", "square": "train", "triangle": "held_out"}
    for k, (shape, split) in enumerate(places.items()):
        row = next(r for r in scenes(split) if alone(r, shape))
        x = 0.1 + 2.2 * k + 0.25 * (k == 2)
        framed(ax, row["image"], x, 1.3, 2.0)
        ax.text(x + 1.0, 0.95, shape, ha="center", va="center", color=WARM)
        name = {"train": "training", "held_out": "held out"}[split]
        ax.text(x + 1.0, 0.5, name, ha="center", va="center", color=SOFT)
    ax.text(3.4, 3.65, BLUE, ha="center", va="center")
    asked = [q for row in scenes("train")["questions"] for q in row]
    counts = Counter(q["answer"] for q in asked if q["question"] == BLUE)
    bars = drawn.add_axes((0.68, 0.16, 0.3, 0.68))
    bars.bar(range(3), [counts[shape] for shape in places], color=GREY, width=0.65)
    bars.text(2, 4, "never", ha="center", va="bottom", color=WARM, weight="bold")
    bars.set_xticks(range(3), places, fontsize=18)
    bars.set_yticks([])
    bars.set_title("answered so in training", fontsize=20, pad=14)
    bars.spines[["left", "top", "right"]].set_visible(False)
    return drawn


def alone(row: dict, shape: str) -> bool:
    """Say whether a scene is one large blue thing of this shape, and is asked so."""
    things = [(t["colour"], t["shape"], t["size"]) for t in row["objects"]]
    asked = {q["question"] for q in row["questions"]}
    return things == [("blue", shape, "large")] and BLUE in asked


@figure
def vqa_habit() -> Figure:
    """By kind: unseen pairs, with the habit left in and taken out; unseen scenes."""
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    plain, mended = (by_kind(f"{c}-train", "held_out") for c in ("scenes", "habit"))
    kinds = sorted(plain, key=plain.get)
    each = (("left in", plain, GREY, INK), ("taken out", mended, WARM, "white"))
    for k, (name, shares, colour, ink) in enumerate(each):
        values, places = [shares[kind] for kind in kinds], np.arange(6) + 0.42 * k
        bars = ax.bar(places, values, 0.4, color=colour, label=f"habit {name}")
        said = [f"{v:.2f}" for v in values]
        ax.bar_label(bars, said, padding=-22, fontsize=17, color=ink)
    seen = by_kind("scenes-train", "test")
    for i, kind in enumerate(kinds):
        label = "left in, known pairs" if i == 0 else None
        ends = [i - 0.2, i + 0.62]
        ax.plot(ends, [seen[kind]] * 2, color=INK, lw=2.4, ls=":", label=label)
    ax.set_xticks(np.arange(6) + 0.21, kinds)
    ax.set(ylim=(0, 1.05), yticks=[0, 0.5, 1], ylabel="accuracy")
    style = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 17}
    ax.legend(frameon=False, ncols=3, columnspacing=1.2, **style)
    return drawn
