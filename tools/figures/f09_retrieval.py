"""Figures of 09: what is found, ways in, hubs, a second look, lists and codes."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from base import ACCENT, SOFT, WARM, arrow, box, canvas, figure, pairs_of_bars, ran
from matplotlib.figure import Figure

GREEN = "#2b7a3d"


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("09_retrieval")


@figure
def retrieval_found() -> Figure:
    """What two queries find among unseen drawings."""
    n = notebook()
    queries = "fruit", "一张笑脸"
    drawn, cells = plt.subplots(2, 8, figsize=(11.4, 3.6))
    for row, query in zip(cells, queries, strict=True):
        for cell, hit in zip(row, n.find(query), strict=True):
            cell.imshow(np.asarray(hit.image))
            cell.axis("off")
        row[0].set_title(query, loc="left", fontsize=20)
    return drawn


@figure
def retrieval_ranks() -> Figure:
    """Three queries, the order of their items, and what is made of it."""
    drawn, ax = canvas(11.4, 3.9)
    orders = ["ABC", "CAB", "ACB"]
    for i, (name, order) in enumerate(zip("ABC", orders, strict=True)):
        y = 2.7 - 1.15 * i
        ax.text(0.1, y + 0.35, f"query {name}", va="center")
        for k, item in enumerate(order):
            box(ax, 2.3 + 1.3 * k, y, 1.15, 0.75, item, 2 if item == name else 0)
        rank = order.index(name) + 1
        ax.text(6.6, y + 0.35, f"rank {rank},  1/rank {1 / rank:.2f}", va="center")
    ax.text(9.6, 2.2, "R@1 1/3\nR@2 2/3\nMRR 0.61", va="center", linespacing=1.7)
    return drawn


@figure
def retrieval_ways() -> Figure:
    """R@1 and R@10 of the ways in."""
    n = notebook()
    found = {
        "text to\npicture": n.forward,
        "picture\nto text": n.backward,
        "English\nnames": n.ways["English names"],
        "Chinese\nnames": n.ways["Chinese names"],
        "drawing to\ndrawing": n.ways["picture"],
        "by pixels": n.ways["pixels"],
    }
    groups = {k: dict(zip(("R@1", "R@10"), v, strict=True)) for k, v in found.items()}
    drawn, ax = plt.subplots(figsize=(11.4, 5.0))
    pairs_of_bars(ax, groups, "share of queries")
    return drawn


@figure
def retrieval_hubs() -> Figure:
    """How often each picture is among the ten best of 2,332 texts."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    ax.hist(n.often, bins=30, color=ACCENT)
    ax.axvline(n.fair, color=WARM, linestyle="--", lw=2.5, label="evenly shared")
    ax.set(xlabel="times among the ten best", ylabel="pictures")
    ax.legend(frameon=False)
    return drawn


@figure
def retrieval_second_look() -> Figure:
    """An index finds candidates, a slower look orders them."""
    drawn, ax = canvas(11.4, 3.0)
    box(ax, 0.1, 1.1, 2.1, 1.0, "query", 4)
    box(ax, 3.2, 1.1, 2.9, 1.0, "index:\ncosines of all", 0)
    box(ax, 7.1, 1.1, 3.9, 1.0, "second look:\nquery beside each of 10", 1)
    for start, end in ((2.25, 3.15), (6.15, 7.05)):
        arrow(ax, (start, 1.6), (end, 1.6))
    ax.text(4.65, 0.5, "fast, finished summaries", ha="center", color=SOFT)
    ax.text(9.05, 0.5, "slow, sees both at once", ha="center", color=SOFT)
    return drawn


@figure
def retrieval_lists() -> Figure:
    """Points in lists by their nearest centre; a query visits two lists."""
    rng = np.random.default_rng(4)
    points, centres = rng.uniform(0, 1, (500, 2)), rng.uniform(0.1, 0.9, (9, 2))
    query = np.array([0.46, 0.52])
    of = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    near = ((centres - query) ** 2).sum(1).argsort()[:2]
    visited = np.isin(of, near)
    drawn, ax = plt.subplots(figsize=(11.4, 4.9))
    ax.scatter(*points[~visited].T, s=22, color="#c5ccd6", label="never compared")
    ax.scatter(*points[visited].T, s=30, color=ACCENT, label="in the visited lists")
    ax.scatter(*centres.T, marker="s", s=110, color=WARM, label="centres")
    ax.scatter(*query, marker="*", s=420, color=GREEN, label="query")
    ax.axis("off")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


@figure
def retrieval_codes() -> Figure:
    """A row becomes two codes; a product becomes two look-ups."""
    drawn, ax = canvas(11.4, 3.9)
    box(ax, 0.1, 2.6, 2.5, 0.8, "−0.8 | 1.7", 0)
    box(ax, 4.5, 2.6, 1.9, 0.8, "1 | 1", 2)
    box(ax, 8.3, 2.6, 2.5, 0.8, "−1 | 2", 0)
    arrow(ax, (2.7, 3.0), (4.4, 3.0))
    arrow(ax, (6.5, 3.0), (8.2, 3.0))
    for x, text in ((1.35, "row"), (5.45, "code"), (9.55, "stands for")):
        ax.text(x, 3.6, text, ha="center", color=SOFT)
    box(ax, 0.1, 0.6, 2.5, 0.8, "2 | 3", 4)
    box(ax, 4.5, 0.6, 2.9, 0.8, "2, −2 | 1.5, 6", 1)
    box(ax, 8.3, 0.6, 2.5, 0.8, "−2 + 6 = 4", 3)
    arrow(ax, (2.7, 1.0), (4.4, 1.0))
    arrow(ax, (7.5, 1.0), (8.2, 1.0))
    for x, text in ((1.35, "query"), (5.95, "table, once"), (9.55, "looked up")):
        ax.text(x, 1.6, text, ha="center", color=SOFT)
    return drawn


@figure
def retrieval_million() -> Figure:
    """Recall of exact search among a million rows, against time."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.9))
    ax.axvline(n.slow, color="grey", linestyle="--", label="exact")
    looks = {"IVF": (ACCENT, "o"), "IVF-PQ": (WARM, "^")}
    looks["IVF-PQ, second look"] = (GREEN, "s")
    for name, (colour, mark) in looks.items():
        _, ms, hits = zip(*n.curves[name], strict=True)
        ax.plot(ms, hits, color=colour, marker=mark, lw=2.5, ms=10, label=name)
    ax.set(xscale="log", xlabel="ms a query", ylabel="recall@10", ylim=(0, 1.05))
    ax.legend(frameon=False, fontsize=17, loc="lower right")
    return drawn
