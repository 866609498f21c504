"""Figures of 08: few labels, hidden words and patches, three losses, forgetting."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from base import ACCENT, SOFT, WARM, arrow, box, canvas, figure, pairs_of_bars, ran
from matplotlib.figure import Figure

GREEN = "#2b7a3d"


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("08_multimodal_pretraining")


@figure
def pretrain_chart() -> Figure:
    """Accuracy against labels, four ways."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 5.0))
    looks = {"from scratch": (WARM, "^"), "frozen probe": (ACCENT, "o")}
    looks["fine-tuned"] = (GREEN, "s")
    for name, (colour, mark) in looks.items():
        values = [n.right[name, k].mean() for k in n.SIZES]
        ax.plot(range(3), values, color=colour, marker=mark, lw=2.5, ms=11, label=name)
    words = n.right["LiT, by words"].mean()
    ax.axhline(words, color=SOFT, linestyle="--", label="LiT, no label")
    ax.axhline(n.majority, color="grey", linestyle=":", label="majority")
    ax.set_xticks(range(3), [str(k) for k in n.SIZES])
    ax.set(xlabel="labelled drawings a class", ylabel="accuracy", ylim=(0, 0.8))
    ax.legend(frameon=False, ncols=3, fontsize=17, loc="upper left")
    return drawn


@figure
def pretrain_words() -> Figure:
    """A caption, what the model sees of it, and what it must name."""
    drawn, ax = canvas(11.4, 3.6)
    rows = {
        "true": ["the", "seven", "is", "red", "."],
        "sees": ["the", "[MASK]", "is", "ink", "."],
        "names": ["", "seven", "", "red", ""],
    }
    for i, (name, words) in enumerate(rows.items()):
        y = 2.5 - 1.15 * i
        ax.text(0.1, y + 0.35, name, va="center")
        for k, word in enumerate(words):
            if word:
                tint = 1 if word in ("[MASK]", "ink") else 0 if name != "names" else 2
                box(ax, 1.7 + 1.9 * k, y, 1.75, 0.75, word, tint)
    return drawn


@figure
def pretrain_paint() -> Figure:
    """Scans, what is left of them, and what the model paints."""
    n = notebook()
    drawn, cells = plt.subplots(3, 6, figsize=(11.4, 5.2))
    for cell, picture in zip(cells.flat, n.painted, strict=True):
        cell.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=1)
        cell.set(xticks=[], yticks=[])
    for line, name in zip(cells, ("true", "sees", "paints"), strict=True):
        line[0].set_ylabel(name)
    return drawn


@figure
def pretrain_pairs() -> Figure:
    """Coloured scans with their captions."""
    n = notebook()
    drawn, cells = plt.subplots(1, 4, figsize=(11.4, 3.6))
    for i, cell in enumerate(cells):
        cell.imshow(n.coloured[i + 3].permute(1, 2, 0).clamp(0, 1))
        cell.set_title(n.captions[i + 3], fontsize=18)
        cell.axis("off")
    return drawn


@figure
def pretrain_model() -> Figure:
    """Two towers, joint blocks on top, three losses."""
    drawn, ax = canvas(11.4, 4.6)
    box(ax, 0.2, 0.2, 3.0, 0.9, "patches", 0)
    box(ax, 8.2, 0.2, 3.0, 0.9, "words", 1)
    box(ax, 0.2, 1.6, 3.0, 1.1, "picture tower", 0)
    box(ax, 8.2, 1.6, 3.0, 1.1, "text tower", 1)
    box(ax, 4.2, 1.7, 3.0, 0.9, "contrast", 2)
    box(ax, 8.2, 3.3, 3.0, 1.1, "joint blocks", 3)
    box(ax, 4.7, 3.3, 2.5, 0.5, "matching", 2)
    box(ax, 4.7, 3.95, 2.5, 0.5, "words", 2)
    for x in (1.7, 9.7):
        arrow(ax, (x, 1.15), (x, 1.55))
    arrow(ax, (9.7, 2.75), (9.7, 3.25))
    arrow(ax, (3.25, 2.15), (4.15, 2.15))
    arrow(ax, (8.15, 2.15), (7.25, 2.15))
    arrow(ax, (1.7, 2.75), (8.1, 3.2))
    arrow(ax, (8.15, 3.55), (7.3, 3.55))
    arrow(ax, (8.15, 4.2), (7.3, 4.2))
    return drawn


@figure
def pretrain_losses() -> Figure:
    """The three losses of every step."""
    n = notebook()
    drawn, cells = plt.subplots(1, 3, figsize=(11.4, 4.0))
    for cell, name in zip(cells, n.record[0], strict=True):
        cell.plot([step[name] for step in n.record], color=ACCENT, lw=1.8)
        cell.set(title=name, xlabel="step", ylim=(0, None))
        if name in n.chance:
            cell.axhline(n.chance[name], color="grey", linestyle="--")
    cells[0].set_ylabel("loss")
    return drawn


@figure
def pretrain_blind() -> Figure:
    """A hidden digit named beside its picture, and beside another's."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.6))
    values = {"its picture": n.looks.mean(), "another's": n.blind.mean(), "chance": 0.1}
    drawn_bars = ax.barh(
        [*values][::-1], [*values.values()][::-1], color=[SOFT, WARM, GREEN]
    )
    ax.bar_label(drawn_bars, fmt="%.2f", padding=6)
    ax.set(xlim=(0, 1.1), xlabel="hidden digits named rightly")
    return drawn


@figure
def pretrain_scores() -> Figure:
    """Contrast and matching against captions with one wrong word."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.4))
    groups = {
        f"wrong {what}": {name: n.told[name, what].mean() for name in n.true}
        for what in ("digit", "colour")
    }
    pairs_of_bars(ax, groups, "true caption scores higher")
    ax.set_ylim(0, 1.15)
    return drawn


@figure
def pretrain_forget() -> Figure:
    """Digits and colours named before and after training on colours."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    groups = {
        name: {"digits": read.mean(), "colours": colours.mean()}
        for name, (read, colours) in n.ways.items()
    }
    pairs_of_bars(ax, groups, "accuracy")
    ax.set_ylim(0, 1.15)
    return drawn


@figure
def pretrain_folder() -> Figure:
    """What lies in a model's folder, and which Auto class reads it."""
    drawn, ax = canvas(11.4, 4.2)
    files = {
        "config.json": "AutoConfig: what it is",
        "model.safetensors": "AutoModel: its weights",
        "preprocessor_config.json": "AutoImageProcessor: pictures in",
        "tokenizer.json": "AutoTokenizer: words in",
    }
    for i, (file, reader) in enumerate(files.items()):
        y = 3.25 - 1.02 * i
        box(ax, 0.2, y, 4.8, 0.82, file, 0)
        arrow(ax, (5.05, y + 0.41), (5.75, y + 0.41))
        box(ax, 5.8, y, 5.4, 0.82, reader, 2)
    return drawn
