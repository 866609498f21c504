"""Figures of 07: names without labels, soft triplets, curves, collapse, the gap."""

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from base import ACCENT, SOFT, WARM, arrow, box, canvas, figure, put, ran
from matplotlib.figure import Figure

GREEN = "#2b7a3d"


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("07_contrastive_learning")


def bars(ax, values: dict[str, float], colours: list[str], limit: float) -> None:
    """Draw named values as horizontal bars with their numbers."""
    names = [*values][::-1]
    drawn = ax.barh(names, [values[n] for n in names], color=colours[::-1])
    ax.bar_label(drawn, fmt="%.2f", padding=6)
    ax.set_xlim(0, limit)


@figure
def contrast_named() -> Figure:
    """Unseen drawings with the class word that the model chose."""
    n = notebook()
    drawn, cells = plt.subplots(2, 7, figsize=(11.4, 4.4))
    for cell, i in zip(cells.flat, n.shown, strict=False):
        word = n.CLASSES[n.guess[i]]
        right = n.guess[i] == n.label[i]
        cell.imshow(n.unseen[i]["image"])
        cell.set_title(word, color=GREEN if right else WARM, fontsize=20)
        cell.axis("off")
    return drawn


@figure
def contrast_towers() -> Figure:
    """Two towers, one space, a matrix of cosines."""
    n, (drawn, ax) = notebook(), canvas(11.4, 4.6)
    for i, row in enumerate(n.known[k] for k in (600, 100, 300)):
        y = 3.2 - 1.45 * i
        put(ax, row["image"], 0.1, y, 1.2)
        ax.text(11.3, y + 0.6, row["name"][:16], ha="right", va="center")
    for x, words, tint in ((2.2, "picture\ntower", 0), (6.7, "text\ntower", 1)):
        box(ax, x, 0.6, 1.7, 3.4, words, tint)
    arrow(ax, (1.4, 2.3), (2.1, 2.3))
    arrow(ax, (8.9, 2.3), (8.45, 2.3))
    arrow(ax, (3.95, 2.3), (4.4, 2.3))
    arrow(ax, (6.65, 2.3), (6.25, 2.3))
    for i in range(3):
        for j in range(3):
            box(ax, 4.5 + 0.58 * j, 2.75 - 0.58 * i, 0.52, 0.52, "", 2 if i == j else 3)
    ax.text(5.3, 0.9, "cosines", ha="center", color=SOFT)
    return drawn


@figure
def contrast_shares() -> Figure:
    """How the soft maximum shares the push among three negatives."""
    drawn, cells = plt.subplots(1, 3, figsize=(11.4, 3.9), sharey=True)
    wrong = np.array([0.8, 0.7, 0.1])
    for cell, t in zip(cells, (1.0, 0.1, 0.01), strict=True):
        share = np.exp(wrong / t - (wrong / t).max())
        drawn_bars = cell.bar(
            [str(s) for s in wrong], share / share.sum(), color=ACCENT
        )
        cell.bar_label(drawn_bars, fmt="%.2f", padding=4)
        cell.set(title=f"t = {t:g}", ylim=(0, 1.15), xlabel="wrong score")
    cells[0].set_ylabel("share of the push")
    return drawn


@figure
def contrast_matrix() -> Figure:
    """Cosines of eight unseen pairs, and their softmax by row."""
    n = notebook()
    drawn, cells = plt.subplots(1, 2, figsize=(11.4, 5.0))
    heat = (n.cosine, "cosines"), (n.picked, f"softmax at t = {1 / n.clip.scale:.3f}")
    for cell, (values, title) in zip(cells, heat, strict=True):
        seen = cell.imshow(values.detach())
        drawn.colorbar(seen, ax=cell)
        cell.set(title=title, xlabel="picture", xticks=[], yticks=[])
    cells[0].set_ylabel("text")
    return drawn


@figure
def contrast_curve() -> Figure:
    """Losses of true pairs, of shuffled ones, and with one picture for all."""
    n = notebook()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.7), sharey=True)
    for (name, log), colour in zip(n.runs.items(), (ACCENT, WARM, SOFT), strict=True):
        left.plot(log.loss, label=name, color=colour, lw=2.5)
        unseen = [e["unseen"] for e in log.epochs]
        right.plot(range(1, len(unseen) + 1), unseen, color=colour, lw=2.5, label=name)
    for cell in (left, right):
        cell.axhline(math.log(256), color="grey", linestyle="--")
    left.set(xlabel="step", ylabel="loss", title="training", ylim=(0, 9))
    right.set(xlabel="epoch", title="unseen")
    right.legend(frameon=False, ncols=3, fontsize=17, loc="upper right")
    return drawn


@figure
def contrast_views() -> Figure:
    """Two scans and views of them."""
    n = notebook()
    drawn, cells = plt.subplots(1, 8, figsize=(11.4, 2.1))
    for k, (cell, picture) in enumerate(zip(cells, n.drawn, strict=True)):
        cell.imshow(picture, cmap="gray")
        cell.set_title("view" if k % 4 else "scan", fontsize=20)
        cell.axis("off")
    return drawn


@figure
def contrast_probe() -> Figure:
    """Accuracy of probes against labels a class."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.4))
    looks = {"SimCLR": (GREEN, "o"), "pixels": (ACCENT, "s"), "untrained": (WARM, "^")}
    for name, (colour, mark) in looks.items():
        values = [n.probed[name, k] for k in (1, 5, 50)]
        ax.plot(range(3), values, color=colour, marker=mark, lw=2.5, ms=11, label=name)
    ax.set_xticks(range(3), ["1", "5", "50"])
    ax.set(xlabel="labels a class", ylabel="test accuracy", ylim=(0.5, 1))
    ax.legend(frameon=False, loc="lower right")
    return drawn


@figure
def contrast_spread() -> Figure:
    """Alignment and uniformity as training goes, with negatives and without."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    runs = {"NT-Xent": ACCENT, "only positives": WARM}
    for name, colour in runs.items():
        path = np.array(n.paths[name])
        ax.plot(*path.T, color=colour, marker="o", lw=2.5, ms=8, label=name)
        ax.plot(*path[-1], color=colour, marker="*", ms=24)
    ax.set(xlabel="alignment: distance of partners", ylabel="uniformity")
    ax.legend(frameon=False)
    return drawn


@figure
def contrast_wrong() -> Figure:
    """Losses on 64 near pairs: how many partners are found, how even the space."""
    n = notebook()
    drawn, cells = plt.subplots(1, 2, figsize=(11.4, 3.9), sharey=True)
    for cell, k, label in ((cells[0], 0, "R@1"), (cells[1], 1, "evenness")):
        sign = -1 if k else 1
        means = {
            name: sign * np.mean([n.scored[name, seed][k] for seed in range(3)])
            for name in n.LOSSES
        }
        bars(cell, means, [SOFT, GREEN, ACCENT, ACCENT, WARM, WARM], 4.3 if k else 1.2)
        cell.set_xlabel("minus uniformity" if k else label)
    return drawn


@figure
def contrast_temperature() -> Figure:
    """Recall, alignment and uniformity against temperature."""
    n = notebook()
    drawn, cells = plt.subplots(1, 3, figsize=(11.4, 3.9))
    for cell, key in zip(cells, ("R@10", "alignment", "uniformity"), strict=True):
        values = [measured[key] for measured in n.by_temperature.values()]
        cell.plot([*n.by_temperature], values, marker="o", ms=10, lw=2.5, color=ACCENT)
        cell.set(xscale="log", xlabel="temperature", title=key)
    return drawn


@figure
def contrast_partners() -> Figure:
    """Targets without and with ids, and what they are worth."""
    n = notebook()
    drawn, cells = plt.subplots(1, 3, figsize=(11.4, 4.0), width_ratios=[1, 1, 1.4])
    same = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    targets = np.eye(4), same / same.sum(axis=1, keepdims=True)
    names = ["7", "2", "7", "5"]
    for cell, target, title in zip(cells, targets, ("plain", "with ids"), strict=False):
        cell.imshow(target, cmap="Blues", vmin=0, vmax=1.4)
        for (i, j), v in np.ndenumerate(target):
            cell.text(j, i, f"{v:g}".replace("0.5", "½"), ha="center", va="center")
        cell.set_xticks(range(4), names)
        cell.set_yticks(range(4), names)
        cell.set_title(title)
        cell.tick_params(length=0)
        cell.spines[:].set_visible(False)
    told = {name: float(right.mean()) for name, right in n.told.items()}
    drawn_bars = cells[2].bar([*told], [*told.values()], color=[WARM, GREEN], width=0.6)
    cells[2].bar_label(drawn_bars, fmt="%.2f", padding=4)
    cells[2].set(ylim=(0, 1.1), title="accuracy")
    return drawn


@figure
def contrast_gap() -> Figure:
    """Pictures and texts in two principal components, three times."""
    n = notebook()
    drawn, cells = plt.subplots(1, 3, figsize=(11.4, 4.3))
    for cell, (name, (image, text)) in zip(cells, n.spaces.items(), strict=True):
        both = n.torch.cat([image, text])
        n.torch.manual_seed(0)
        flat = (both - both.mean(dim=0)) @ n.torch.pca_lowrank(both, q=2)[2]
        cell.scatter(*flat[: len(image)].T, s=14, color=ACCENT, label="pictures")
        cell.scatter(*flat[len(image) :].T, s=14, color=WARM, label="texts")
        short = name.removeprefix("from scratch, ")
        cell.set(title=f"{short}: gap {n.gaps[name]:.2f}", xticks=[], yticks=[])
    cells[0].legend(frameon=False, fontsize=17)
    return drawn


@figure
def contrast_prompts() -> Figure:
    """Accuracy of prompts beside a supervised probe and the majority."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    values = {name: float(v) for name, v in n.accuracy.items()}
    bars(ax, values, [ACCENT] * 4 + [GREEN] + [SOFT] * 2, 0.8)
    ax.set_xlabel("accuracy on 83 unseen drawings")
    return drawn
