"""Figures of 03: positions, blocks, norms, a small language model, the KV cache."""

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import ACCENT, SOFT, WARM, arrow, box, canvas, figure, ran
from matplotlib.figure import Figure


def built() -> SimpleNamespace:
    """Return the variables of the fourth notebook."""
    return ran("03_transformer")


@figure
def tf_map() -> Figure:
    """From tokens to scores: embeddings, blocks, the output matrix."""
    drawn, ax = canvas(11.4, 3.4)
    parts = (
        "tokens",
        "vectors +\npositions",
        "block",
        "block",
        "norm",
        "a score for\neach token",
    )
    x = 0.1
    for i, (part, w) in enumerate(
        zip(parts, (1.3, 2.0, 1.3, 1.3, 1.2, 2.1), strict=True)
    ):
        box(ax, x, 1.2, w, 1.3, part, (4, 0, 1, 1, 2, 4)[i])
        if i < len(parts) - 1:
            arrow(ax, (x + w + 0.03, 1.85), (x + w + 0.37, 1.85))
        x += w + 0.4
    ax.text(5.2, 0.6, "… 30 blocks in SmolLM2 …", ha="center", color=SOFT)
    return drawn


@figure
def tf_positions() -> Figure:
    """Sinusoidal positions, and how alike two places are."""
    n = built()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.2))
    left.imshow(n.places.T, aspect="auto")
    left.set(xlabel="position", ylabel="channel")
    for start in (0, 20):
        dots = n.places[start:] @ n.places[start]
        line = {"lw": 3, "linestyle": "-" if start == 0 else "--"}
        right.plot(range(60 - start), dots, label=f"from {start}", **line)
    right.set(xlabel="distance (tokens)", ylabel="dot product")
    right.legend(frameon=False)
    return drawn


@figure
def tf_stream() -> Figure:
    """The residual stream: each branch reads a normed copy and adds to it."""
    drawn, ax = canvas(11.4, 3.9)
    arrow(ax, (0.1, 0.7), (11.3, 0.7))
    ax.text(0.1, 0.25, "residual stream", color=SOFT, va="center")
    for i, branch in enumerate(("attention\nmixes tokens", "MLP\neach by itself")):
        x = 0.9 + 5.2 * i
        arrow(ax, (x, 0.75), (x, 2.05))
        box(ax, x - 0.6, 2.1, 1.2, 1.1, "norm", 2)
        arrow(ax, (x + 0.65, 2.65), (x + 1.15, 2.65))
        box(ax, x + 1.2, 2.1, 2.4, 1.1, branch, i)
        arrow(ax, (x + 3.2, 2.05), (x + 3.2, 1.0))
        ax.add_patch(plt.Circle((x + 3.2, 0.7), 0.28, fc="white", ec=WARM, lw=3))
        ax.text(x + 3.2, 0.68, "+", ha="center", va="center", color=WARM, weight="bold")
    return drawn


@figure
def tf_lens() -> Figure:
    """What the stream would say after each block, if one stopped there."""
    n = built()
    drawn, ax = plt.subplots(figsize=(11.4, 4.2))
    ax.plot(range(31), [p[n.paris] for p in n.odds], lw=3, marker="o")
    ax.set(xlabel="blocks passed", ylabel="p of “Paris”", ylim=(0, None))
    return drawn


@figure
def tf_placement() -> Figure:
    """Post-norm and pre-norm: where the norm stands."""
    drawn, ax = canvas(11.4, 3.8)
    for i, (title, pre) in enumerate((("post-norm", False), ("pre-norm", True))):
        x = 0.2 + 5.8 * i
        ax.text(x, 3.5, title, weight="bold", color=ACCENT, va="center")
        arrow(ax, (x, 0.6), (x + 5.1, 0.6))
        arrow(ax, (x + 0.5, 0.65), (x + 0.5, 1.7))
        if pre:
            box(ax, x + 0.1, 1.75, 1.2, 1.0, "norm", 2)
            arrow(ax, (x + 1.35, 2.25), (x + 1.75, 2.25))
            box(ax, x + 1.8, 1.75, 1.6, 1.0, "branch", 0)
        else:
            box(ax, x + 0.1, 1.75, 3.3, 1.0, "branch", 0)
            box(ax, x + 3.65, 0.1, 1.1, 1.0, "norm", 2)
        arrow(ax, (x + 3.0, 1.7), (x + 3.0, 0.92))
        ax.add_patch(plt.Circle((x + 3.0, 0.6), 0.28, fc="white", ec=WARM, lw=3))
        ax.text(x + 3.0, 0.58, "+", ha="center", va="center", color=WARM, weight="bold")
    return drawn


@figure
def tf_gradients() -> Figure:
    """Gradient norms at the start: by block, and of the last block by depth."""
    n = built()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.3))
    for kind in n.kinds:
        left.plot(range(1, 11), n.of_ten[kind], lw=3, marker="o", label=kind)
        right.plot(n.depths, n.of_last[kind], lw=3, marker="o", label=kind)
    left.set(xlabel="block, of ten", ylabel="norm of its gradient", ylim=(0, None))
    right.set(xlabel="blocks in the stack", xscale="log", yscale="log")
    right.set_title("the last block")
    right.set_xticks(n.depths, n.depths)
    right.set_yticks((0.2, 0.5, 1.0), ("0.2", "0.5", "1"))
    right.minorticks_off()
    left.legend(frameon=False)
    return drawn


@figure
def tf_deep() -> Figure:
    """Ten blocks: post-norm at chance, with a warm-up and with pre-norm it falls."""
    n = built()
    drawn, ax = plt.subplots(figsize=(11.4, 4.4))
    for i, (how, runs) in enumerate(n.losses.items()):
        for run in runs:
            style = {"color": f"C{i}", "lw": 3, "linestyle": ("-", "--", ":")[i]}
            ax.plot(run, label=how if run is runs[0] else None, **style)
    ax.axhline(math.log(16), color=SOFT, lw=1)
    ax.set(xlabel="step", ylabel="loss", ylim=(0, 3.6))
    ax.legend(frameon=False, ncols=3, loc="upper center", fontsize=18)
    return drawn


@figure
def tf_masks() -> Figure:
    """Who may look where: all in an encoder, only back in a decoder."""
    drawn, axes = plt.subplots(1, 2, figsize=(9.6, 4.2))
    every = torch.ones(5, 5)
    for ax, mask, title in zip(
        axes, (every, every.tril()), ("encoder", "decoder"), strict=True
    ):
        colours = np.where(np.asarray(mask)[..., None] > 0, (0.18, 0.37, 0.7), 0.93)
        ax.imshow(colours)
        ax.set(title=title, xlabel="looks at", ylabel="token", xticks=[], yticks=[])
        for k in range(1, 5):
            ax.axhline(k - 0.5, color="white", lw=3)
            ax.axvline(k - 0.5, color="white", lw=3)
        ax.spines[:].set_visible(False)
    return drawn


@figure
def tf_bits() -> Figure:
    """Bits per character of the decoder and its rivals on unseen names."""
    scores = built().scores
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    names = list(scores)[::-1]
    colours = [WARM if name == "our decoder" else ACCENT for name in names]
    bars = ax.barh(names, [scores[name] for name in names], color=colours)
    ax.bar_label(bars, fmt="%.2f", padding=6)
    ax.set(xlabel="bits per character, names of unseen things (fewer is better)")
    ax.margins(x=0.1)
    return drawn


@figure
def tf_cuts() -> Figure:
    """One distribution: as it is, colder, top-k and nucleus."""
    n = built()
    ids = torch.tensor([[n.BOS, *n.chars.encode("smiling ")]])
    with torch.no_grad():
        z = n.model(ids)[:, -1]
    ways = {"as it is": {}, "temperature 0.5": {"temperature": 0.5}}
    ways |= {"top-k, k = 3": {"top_k": 3}, "nucleus, p = 0.8": {"top_p": 0.8}}
    order = z[0].argsort(descending=True)[:10]
    labels = [
        "end" if i == n.EOS else n.chars.vocab[i].replace(" ", "␣") for i in order
    ]
    drawn, axes = plt.subplots(1, 4, figsize=(11.4, 3.7), sharey=True)
    for ax, (title, how) in zip(axes, ways.items(), strict=True):
        ax.bar(range(10), n.next_probabilities(z, **how)[0][order], color=ACCENT)
        ax.set_xticks(range(10), labels, fontsize=17)
        ax.set_title(title, fontsize=19)
    axes[0].set_ylabel("probability")
    return drawn


@figure
def tf_strategies() -> Figure:
    """Likelihood against diversity for seven strategies."""
    n = built()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    for name, row in n.table.items():
        at = (row["different"], row["bits"])
        shifts = {"beam 5": (12, -20), "temperature 0.5": (12, -22)}
        shift = shifts.get(name, (-130, 2) if name == "nucleus 0.8" else (12, 2))
        ax.scatter(*at, s=120)
        ax.annotate(name, at, shift, textcoords="offset points", fontsize=18)
    ax.axhline(n.unseen["bits"], 0, 0.72, color=SOFT, lw=2, linestyle="--")
    at = (0.1, n.unseen["bits"] + 0.06)
    ax.text(*at, "real unseen names", color=SOFT, fontsize=18)
    ax.set(
        xlabel="share of different names", ylabel="bits per character", xlim=(0, 1.3)
    )
    ax.margins(y=0.15)
    return drawn


@figure
def tf_cache() -> Figure:
    """Seconds to write a text, with and without a KV cache."""
    n = built()
    drawn, ax = plt.subplots(figsize=(10, 4.2))
    for name, line in (("without", "-"), ("with the cache", "--")):
        ax.plot(n.lengths, n.seconds[name], line, lw=3, marker="o", label=name)
    ax.set(xlabel="tokens written", ylabel="time (s)", ylim=(0, None))
    ax.legend(frameon=False)
    return drawn


@figure
def tf_same_code() -> Figure:
    """The same class with small and with large numbers."""
    n = built()
    drawn, ax = canvas(11.4, 3.9)
    rows = ("vocab", "dim", "depth", "heads", "hidden")
    for i, (title, config) in enumerate(
        (("names", n.config), ("SmolLM2", n.smol.config))
    ):
        x = 3.0 + 4.2 * i
        box(ax, x, 0.15, 3.8, 3.6, "", i)
        ax.text(x + 1.9, 3.35, title, weight="bold", ha="center", va="center")
        for k, row in enumerate(rows):
            value = f"{getattr(config, row):,}"
            ax.text(x + 1.9, 2.75 - 0.55 * k, value, ha="center", va="center")
    for k, row in enumerate(rows):
        ax.text(2.7, 2.75 - 0.55 * k, row, ha="right", va="center", color=SOFT)
    return drawn
