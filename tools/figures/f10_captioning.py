"""Figures of 10: what is written, eye and pen, beams, baselines, unseen pairs."""

import textwrap
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import INK, SOFT, WARM, arrow, box, canvas, figure, put, ran
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

GREEN, GREY = "#2b7a3d", "#9aa5b8"
CIRCLES = (0.34, 0.33, 0.33)  # after "a large green": circle, square, triangle
SQUARES = (0.45, 0.55, 0.0)  # after "a large blue"


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("10_captioning")


def scene(pixels: torch.Tensor) -> Image.Image:
    """Return a scene (3, H, W) as a picture whose pixels are large."""
    small = Image.fromarray((pixels.movedim(0, 2) * 255).byte().numpy())
    return small.resize((192, 192), Image.Resampling.NEAREST)


def outline(ax: Axes, x: float, y: float, size: float, inner: int = 1) -> None:
    """Draw a square, and lines that part it into ``inner`` rows and columns."""
    ax.add_patch(Rectangle((x, y), size, size, fc="none", ec=GREY, lw=1.2, zorder=3))
    for step in np.arange(1, inner) * size / inner:
        ax.plot([x + step] * 2, [y, y + size], color=GREY, lw=0.9, zorder=3)
        ax.plot([x, x + size], [y + step] * 2, color=GREY, lw=0.9, zorder=3)


# --- where this goes, and how it is built -----------------------------------------


@figure
def caption_written() -> Figure:
    """Three scenes and three drawings that it never saw, and what it writes."""
    n = notebook()
    drawn, ax = canvas(11.4, 4.6)
    faces = [n.picked[i] for i in (0, 2, 7)]
    shown = [(scene(n.test[i]), n.written[i].replace(" ,", ",")) for i in range(3)]
    shown += [(n.drawn["test"][i]["image"], n.named[i]) for i in faces]
    style = {"va": "center", "linespacing": 1.25, "fontsize": 16}
    for i, (image, text) in enumerate(shown):
        x, y = 0.05 + 3.85 * (i % 3), 2.6 - 2.4 * (i // 3)
        put(ax, image, x, y, 1.65)
        outline(ax, x, y, 1.65)
        said = "\n".join(textwrap.wrap(text, 15))
        ax.text(x + 1.8, y + 0.83, said, **style)
    return drawn


@figure
def caption_model() -> Figure:
    """Convolutions make 64 tokens; in each block a word asks words, then tokens."""
    n = notebook()
    drawn, ax = canvas(11.4, 5.1)
    i = pictured(n)
    put(ax, scene(n.test[i]), 0.3, 3.1, 1.7)
    outline(ax, 0.3, 3.1, 1.7)
    arrow(ax, (2.05, 3.95), (2.5, 3.95))
    box(ax, 2.55, 3.45, 1.55, 1.0, "convo-\nlutions", 0)
    arrow(ax, (4.15, 3.95), (4.65, 3.95))
    ax.add_patch(Rectangle((4.7, 3.1), 1.7, 1.7, fc="#dbe7fb", ec="none"))
    outline(ax, 4.7, 3.1, 1.7, inner=8)
    ax.text(1.15, 2.75, "32 × 32 pixels", ha="center", va="center", color=SOFT)
    ax.text(5.4, 2.75, "8 × 8 tokens", ha="center", va="center", color=SOFT)
    *before, word = n.written[i].split()[:4]
    for k, earlier in enumerate(before):
        box(ax, 0.2 + 1.5 * k, 0.6, 1.4, 0.8, earlier, 1)
    for k, name in enumerate(("self-attention", "cross-attention", "MLP")):
        box(ax, 7.05, 0.6 + 1.6 * k, 2.5, 0.8, name, (1, 2, 3)[k])
        if k > 0:
            arrow(ax, (8.3, 1.6 * k - 0.15), (8.3, 1.6 * k + 0.55))
    ax.add_patch(Rectangle((6.83, 0.38), 2.94, 4.44, fc="none", ec=SOFT, ls="--"))
    ax.text(8.3, 0.14, "twice", ha="center", va="center", color=SOFT)
    arrow(ax, (4.75, 1.0), (7.0, 1.0))
    ax.plot([6.4, 6.6, 6.6], [3.4, 3.4, 2.6], color=SOFT, lw=2.4)
    arrow(ax, (6.57, 2.6), (7.03, 2.6))
    arrow(ax, (9.6, 4.2), (10.1, 4.2))
    ax.text(10.15, 4.2, word, va="center", color=WARM)
    return drawn


def pictured(n: SimpleNamespace) -> int:
    """Return the first unseen scene of two colours, told word by word as we do."""
    return next(
        i
        for i, text in enumerate(n.written)
        if text == n.told["test"][i]
        and " of " in text
        and len({thing["colour"] for thing in n.data["test"]["objects"][i]}) == 2
    )


@figure
def caption_attention() -> Figure:
    """A scene, and under each word the weights that it was predicted with."""
    n = notebook()
    i = pictured(n)
    image, (words, maps) = n.test[i], n.looks(n.test[i], n.written[i])
    drawn, cells = plt.subplots(2, 6, figsize=(11.4, 4.3))
    cells.flat[0].imshow(image.movedim(0, 2))
    cells.flat[0].set_title("picture", color=SOFT)
    for cell, word, weights in zip(cells.flat[1:], words, maps, strict=False):
        large = np.kron(weights / weights.max(), np.ones((4, 4)))
        dim = image.movedim(0, 2).numpy() * (0.25 + 0.75 * large[..., None])
        cell.imshow(dim, vmin=0, vmax=1)
        row, column = divmod(int(weights.argmax()), 8)
        corner = (4 * column - 0.5, 4 * row - 0.5)
        cell.add_patch(Rectangle(corner, 4, 4, fc="none", ec=WARM, lw=2.5))
        cell.set_title(word)
    for cell in cells.flat:
        cell.axis("off")
    return drawn


# --- to write and to measure ------------------------------------------------------


@figure
def caption_beams() -> Figure:
    """Two beams of a made-up model: both of the best come from the second."""
    first, then = torch.tensor([0.5, 0.4]), torch.tensor([CIRCLES, SQUARES])
    every = first[:, None] * then
    kept = every.flatten().topk(2).indices.tolist()
    drawn, ax = canvas(11.4, 5.0)
    box(ax, 0.05, 2.1, 1.6, 0.8, "a large", 0)
    for b, word in enumerate(("green", "blue")):
        y = 3.75 - 2.5 * b
        box(ax, 2.5, y - 0.4, 2.0, 0.8, f"{word}  {first[b]:.1f}", 0)
        arrow(ax, (1.7, 2.5), (2.45, y))
        for t, noun in enumerate(("circle", "square", "triangle")):
            at, best = y + 0.8 - 0.8 * t, 3 * b + t in kept
            arrow(ax, (4.55, y), (5.4, at))
            said = f"{noun}  {then[b, t]:.2f}"
            box(ax, 5.45, at - 0.32, 2.4, 0.64, said, 2 if best else 0)
            product = f"{first[b]:.1f} · {then[b, t]:.2f} = {every[b, t]:.3f}"
            style = {"color": GREEN if best else SOFT, "va": "center"}
            ax.text(8.05, at, product, weight="bold" if best else None, **style)
    return drawn


@figure
def caption_baselines() -> Figure:
    """CIDEr-D of ours and of three that don't look, with intervals."""
    n = notebook()
    drawn, cells = plt.subplots(1, 2, figsize=(11.4, 4.4), sharex=True, sharey=True)
    titles = {"test": "unseen scenes", "held_out": "unseen pairs"}
    for cell, (split, title) in zip(cells, titles.items(), strict=True):
        rows = {k: r for (s, k), r in n.results.items() if s == split}
        for place, (name, found) in enumerate(reversed(rows.items())):
            ends = [[found.mean - found.low], [found.high - found.mean]]
            colour = WARM if name == "ours" else GREY
            cell.barh(place, found.mean, color=colour, height=0.65)
            cell.errorbar(found.mean, place, xerr=ends, color=INK, lw=2.2, capsize=6)
        cell.set_yticks(range(len(rows)), [*rows][::-1])
        cell.set(title=title, xlabel="CIDEr-D", xlim=(0, 10))
        cell.set_xticks([0, 5, 10])
    return drawn


@figure
def caption_pairs() -> Figure:
    """Two scenes of unseen pairs, what is written, and when "triangle" may follow."""
    n = notebook()
    drawn = plt.figure(figsize=(11.4, 4.4))
    left, right = drawn.subfigures(1, 2, width_ratios=[1.45, 1])
    shown = [n.told["held_out"].index(f"a large {p}") for p in ("red square", TRIANGLE)]
    for cell, i in zip(left.subplots(1, 2), shown, strict=True):
        cell.imshow(n.images["held_out"][i].movedim(0, 2))
        said = textwrap.wrap(n.new[i].replace(" ,", ","), 18)
        cell.set_title("\n".join(said), fontsize=19)
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set(visible=True, color=GREY)
    bars, places = right.subplots(), np.arange(2)
    for k, (split, text) in enumerate(n.shapes.items()):
        alone = [i for i, caption in enumerate(n.told[split]) if caption == text]
        pictures = n.images[split][alone]
        values = [n.follows(f"a large {c}", pictures) for c in ("red", "blue")]
        colour, name = (WARM, "triangle seen") if k == 0 else (GREY, "circle seen")
        bars.bar(places + 0.4 * k, values, 0.4, color=colour, label=name)
    bars.set_xticks(places + 0.2, ["after\n“red”", "after\n“blue”"])
    bars.set(ylabel="p(triangle)", title="blue things")
    bars.legend(frameon=False, fontsize=17)
    return drawn


TRIANGLE = "blue triangle"
