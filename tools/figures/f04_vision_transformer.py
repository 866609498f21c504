"""Figures of 04: patches to tokens, digits, positions, and what a real ViT sees."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import SOFT, arrow, box, canvas, emoji, figure, framed, picture, ran
from matplotlib.figure import Figure


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("04_vision_transformer")


@figure
def vit_parts() -> Figure:
    """Six animals, and their patches coloured by principal components."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.4))
    cells = drawn.subplots(2, 6)
    for k in range(6):
        picture(cells[0, k], n.animals[k].permute(1, 2, 0))
        picture(cells[1, k], n.maps[k])
    return drawn


@figure
def vit_patches() -> Figure:
    """A picture under its grid of patches, and some patches in a row."""
    dog = np.asarray(emoji("🐕", 224)).copy()
    drawn = plt.figure(figsize=(11.4, 4.8))
    left, right = drawn.subfigures(1, 2, width_ratios=[1, 1.35])
    framed(left.subplots(), dog, 32)
    cells = right.subplots(3, 5)
    places = [(r, c) for r in (1, 2, 3) for c in range(1, 6)]
    for cell, (r, c) in zip(cells.flat, places, strict=True):
        framed(cell, dog[32 * r : 32 * r + 32, 32 * c : 32 * c + 32])
    right.suptitle("each laid out as one vector")
    return drawn


@figure
def vit_embedding() -> Figure:
    """The four patches of the hand example, and their tokens."""
    n = notebook()
    drawn, ax = canvas(11.4, 4.6)
    cut = n.patchify(n.tiny, 2)[0].int().tolist()
    tokens = n.embed(n.tiny)[0].detach()
    for i in range(16):
        row, column = divmod(i, 4)
        tint = 2 * (row // 2) + column // 2
        box(ax, 0.2 + 0.8 * column, 3.4 - 0.8 * row, 0.72, 0.72, str(i), tint)
    for k, (patch, token) in enumerate(zip(cut, tokens, strict=True)):
        y = 3.4 - 0.95 * k
        box(ax, 4.2, y, 2.7, 0.72, ", ".join(map(str, patch)), k)
        arrow(ax, (7.0, y + 0.36), (8.5, y + 0.36))
        box(ax, 8.6, y, 2.5, 0.72, f"{token[0]:g}, {token[1]:g}", k)
    ax.text(7.75, 4.2, "$Wp+b$", ha="center", color=SOFT)
    return drawn


@figure
def vit_model() -> Figure:
    """The whole model: patches, class token, positions, encoder, head."""
    drawn, ax = canvas(11.4, 4.9)
    pieces = ("class", "1", "2", "3", "...", "N")
    for k, name in enumerate(pieces):
        x = 0.2 + 1.15 * k
        box(ax, x, 0.15, 1.0, 0.75, name, 3 if k == 0 else 0)
        arrow(ax, (x + 0.5, 0.95), (x + 0.5, 1.4))
        box(ax, x, 1.45, 1.0, 0.75, f"+ pos {'' if k == 4 else k or 0}", 4)
        arrow(ax, (x + 0.5, 2.25), (x + 0.5, 2.7))
    ax.texts[-3].set_text("+ pos N")
    for text in ax.texts:
        text.set_fontsize(17)
    ax.texts[9].set_text("...")
    ax.texts[11].set_text("+ pos N")
    box(ax, 0.2, 2.75, 6.75, 1.1, "encoder: L blocks of attention and MLP", 2)
    arrow(ax, (0.7, 3.9), (0.7, 4.4))
    ax.text(0.95, 4.35, "the class token's vector", va="center", color=SOFT)
    arrow(ax, (4.6, 4.35), (7.9, 4.35))
    box(ax, 8.0, 3.9, 3.2, 0.9, "linear head: logits", 1)
    ax.text(7.3, 0.5, "tokens $x_p = E(p)$", va="center", color=SOFT)
    ax.text(7.3, 1.82, "learnt positions", va="center", color=SOFT)
    ax.text(7.3, 3.3, "notebook 03", va="center", color=SOFT)
    return drawn


@figure
def vit_positions() -> Figure:
    """Cosines of some positions with all others."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 3.4))
    chosen = [(2, 2), (2, 13), (8, 8), (13, 2), (13, 13)]
    for cell, (row, column) in zip(drawn.subplots(1, 5), chosen, strict=True):
        cosines = n.alike[16 * row + column].reshape(16, 16)
        image = cell.imshow(cosines, vmin=-1, vmax=1)
        cell.set_title(f"row {row}, col {column}", fontsize=17)
        cell.set(xticks=[], yticks=[])
    drawn.colorbar(image, ax=drawn.axes, label="cosine", shrink=0.8)
    return drawn


@figure
def vit_jitter() -> Figure:
    """A scan and jittered copies of it."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 2.4))
    torch.manual_seed(0)
    cells = drawn.subplots(1, 6)
    picture(cells[0], n.train[3, 0], "a scan")
    for cell in cells[1:]:
        picture(cell, n.jitter(n.train[3:4])[0, 0], "jittered")
    return drawn


def dots(groups: dict[str, dict[str, list[float]]], low: float) -> Figure:
    """Draw accuracies with their spread: a mark for each group of results."""
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    for k, (label, results) in enumerate(groups.items()):
        places = [names.index(name) + 0.2 * k - 0.1 for name in results]
        means = [np.mean(found) for found in results.values()]
        spread = [np.std(found) for found in results.values()]
        style = {"fmt": "os"[k], "capsize": 6, "markersize": 11, "lw": 2.5}
        ax.errorbar(places, means, spread, label=label, **style)
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    ax.set(ylabel="test accuracy", ylim=(low, 1), xlim=(-0.5, len(names) - 0.5))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.18), "ncols": 2}
    ax.legend(frameon=False, **place)
    ax.grid(axis="y", color="lightgrey")
    return drawn


@figure
def vit_few() -> Figure:
    """ViT, CNN and nearest neighbour with few and with all labels."""
    n = notebook()
    order = ("ViT", "ViT + jitter", "CNN", "CNN + jitter", "nearest neighbour")
    few = {name: n.few[name] for name in order}
    return dots({"10 labels a class": few, "all 898": n.every}, 0.7)


@figure
def vit_shuffled() -> Figure:
    """Digits with their patches in another order, and what it costs."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.8))
    left, right = drawn.subfigures(1, 2, width_ratios=[1, 1.3])
    cells = left.subplots(2, 3)
    for k in range(3):
        picture(cells[0, k], n.train[k, 0])
        picture(cells[1, k], n.odd_train[k, 0])
    ax = right.subplots()
    for i, name in enumerate(n.odd):
        ends = [np.mean(n.few[name][:2]), np.mean(n.odd[name])]
        ax.plot([0, 1], ends, marker="os"[i], lw=3, markersize=12, label=name)
    ax.set_xticks([0, 1], ["as scanned", "shuffled"])
    ax.set(ylabel="test accuracy", xlim=(-0.3, 1.3), ylim=(0.7, 0.95))
    ax.legend(frameon=False)
    return drawn


def bars(values: dict[str, float], height: float = 4.4) -> Figure:
    """Draw accuracies as horizontal bars with their numbers."""
    drawn, ax = plt.subplots(figsize=(11.4, height))
    names = list(values)[::-1]
    made = ax.barh(names, [values[name] for name in names])
    ax.bar_label(made, fmt="%.2f", padding=6)
    ax.set(xlabel="test accuracy", xlim=(0, 1.1))
    return drawn


@figure
def vit_spread() -> Figure:
    """Accuracy without positions, with faint and with clear ones."""
    starts = notebook().spreads
    label = {"none": "no positions", "0.02": "start at 0.02", "0.5": "start at 0.5"}
    return bars({label[name]: value for name, value in starts.items()})


@figure
def vit_patch_size() -> Figure:
    """Accuracy and training time by patch size."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.6))
    sides = [f"{p}\n({v[0]})" for p, v in n.sizes.items()]
    labels = ("test accuracy", "training (seconds)")
    for i, (ax, label) in enumerate(zip(drawn.subplots(1, 2), labels, strict=True)):
        made = ax.bar(sides, [v[i + 1] for v in n.sizes.values()], color=f"C{i}")
        ax.bar_label(made, fmt="%.2g", padding=3)
        ax.set(xlabel="patch side (number of tokens)", ylabel=label)
    return drawn


@figure
def vit_size() -> Figure:
    """Accuracy at another picture size, positions stretched in two ways."""
    return bars(notebook().at_test)


@figure
def vit_heads() -> Figure:
    """Where the class token looks in six heads of block 8."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.8))
    cells = drawn.subplots(2, 4)
    picture(cells[0, 0], n.animals[0].permute(1, 2, 0))
    cells[1, 0].axis("off")
    for head, cell in enumerate(cells[:, 1:].flat):
        picture(cell, n.weights[0, head], f"head {head}")
    return drawn


@figure
def vit_twins() -> Figure:
    """R@1 of the twin drawing after every block."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    ax.plot(range(1, 13), n.found, marker="o", lw=3, ms=10, label="mean of patches")
    ax.axhline(n.raw, color="C1", ls="--", lw=2.5, label="raw pixels")
    ax.axhline(1 / 80, color="grey", ls=":", lw=2.5, label="chance")
    ax.set(xlabel="after block", ylabel="R@1 among 80", ylim=(0, 0.5))
    ax.set_xticks(range(1, 13))
    ax.legend(frameon=False, loc="upper left")
    return drawn
