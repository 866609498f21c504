"""Figures of 02: the equation by hand, masks, heads, and what real heads look at."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import torch
from base import (
    ACCENT,
    SOFT,
    WARM,
    arrow,
    box,
    canvas,
    figure,
    ran,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcourse.attention import attention, causal_mask


def attended() -> SimpleNamespace:
    """Return the variables of the third notebook."""
    return ran("02_self_attention")


@figure
def att_he_she() -> Figure:
    """One word changes, and a head looks at the other noun."""
    n = attended()
    drawn, axes = plt.subplots(1, 2, figsize=(11.4, 4.3), sharey=True)
    for ax, pronoun in zip(axes, ("he", "she"), strict=True):
        said = f"The king phoned the queen because {pronoun} was bored."
        tokens, weights = n.read(said)
        colours = [WARM if t in ("king", "queen") else ACCENT for t in tokens]
        ax.bar(range(len(tokens)), weights[1, 3, tokens.index(pronoun)], color=colours)
        ax.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", fontsize=17)
        ax.set_title(f"from “{pronoun}”")
    axes[0].set_ylabel("weight")
    return drawn


@figure
def att_asks() -> Figure:
    """A query meets three keys; what fits gives most of its value."""
    drawn, ax = canvas(11.4, 4.4)
    box(ax, 0.1, 1.6, 2.5, 1.2, "query of barks:\nwho barks?", 1)
    rows = (
        ("the", "an article", 3.2),
        ("dog", "a noun", 1.75),
        ("barks", "a verb", 0.3),
    )
    for i, (word, kind, y) in enumerate(rows):
        ax.plot((2.65, 3.9), (2.2, y + 0.45), lw=(1.5, 10, 4)[i], color=WARM)
        box(ax, 3.95, y, 3.5, 0.9, f"key of {word}: {kind}", 0)
        arrow(ax, (7.5, y + 0.45), (8.1, y + 0.45))
        box(ax, 8.15, y, 3.0, 0.9, f"value of {word}", 2)
    return drawn


@figure
def att_by_hand() -> Figure:
    """Scores, scaled scores, weights and the mixture of three tokens."""
    q = torch.tensor([2.0, 0, 0, 0])
    keys = torch.tensor([[0.0, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 1]])
    values = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    scores = keys @ q
    mixture, weights = attention(q[None], keys, values)
    drawn, ax = canvas(11.4, 4.4)
    heads = ("key k", "q · k", "÷ √4", "softmax", "value v")
    places = (2.6, 5.0, 6.6, 8.3, 10.4)
    for x, head in zip(places, heads, strict=True):
        ax.text(x, 4.05, head, ha="center", va="center", color=ACCENT, weight="bold")
    for i, word in enumerate(("the", "dog", "barks")):
        y = 3.1 - 0.95 * i
        box(ax, 0.1, y - 0.33, 1.3, 0.66, word, i)
        cells = [
            "({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*keys[i].tolist()),
            f"{scores[i]:.0f}",
            f"{scores[i] / 2:.0f}",
            f"{weights[0, i]:.3f}",
            "({:.0f}, {:.0f})".format(*values[i].tolist()),
        ]
        for x, cell in zip(places, cells, strict=True):
            ax.text(x, y, cell, ha="center", va="center")
    told = "q = (2, 0, 0, 0)      mixture = ({:.2f}, {:.2f})".format(
        *mixture[0].tolist()
    )
    ax.text(5.7, 0.35, told, ha="center", va="center", color=WARM)
    return drawn


@figure
def att_scale() -> Figure:
    """The largest weight and the Jacobian against the width, divided or not."""
    n = attended()
    drawn, axes = plt.subplots(1, 2, figsize=(11.4, 4.5))
    for name, results in n.found.items():
        label = "divided by √d" if name.startswith("div") else name
        for ax, values in zip(axes, zip(*results, strict=True), strict=True):
            ax.plot(n.widths, values, marker="o", lw=3, markersize=9, label=label)
            ax.set(xscale="log", xlabel="width of a key")
            ax.set_xticks(n.widths, n.widths)
            ax.minorticks_off()
    axes[0].set(ylim=(0, 1), title="largest of 16 weights")
    axes[1].set(ylim=(0, 0.36), title="median norm of the Jacobian")
    axes[1].legend(frameon=False, loc="lower left")
    return drawn


@figure
def att_masks() -> Figure:
    """Who may look where: no mask, padding, causal."""
    real = torch.tensor([True, True, True, False, False])
    masks = {
        "everything": torch.ones(5, 5, dtype=torch.bool),
        "two of five are padding": real.expand(5, 5),
        "causal": causal_mask(5, 5),
    }
    drawn, axes = plt.subplots(1, 3, figsize=(11.4, 4.1))
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        grid(ax, mask.float(), title)
    axes[0].set_ylabel("query")
    return drawn


def grid(ax: Axes, values: torch.Tensor, title: str, cmap: str = "Blues") -> None:
    """Show a small matrix as coloured squares with lines between them."""
    ax.imshow(values, cmap=cmap, vmin=0, vmax=1.4)
    lines = torch.arange(values.shape[0] + 1) - 0.5
    ax.set(xticks=lines, yticks=lines, xticklabels=[], yticklabels=[])
    ax.set(title=title, xlabel="key")
    ax.grid(color="white", linewidth=3)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


@figure
def att_order() -> Figure:
    """Weights of five tokens, and of the same five in another order."""
    n = attended()
    drawn, axes = plt.subplots(1, 2, figsize=(9.4, 4.6))
    names = ["a", "b", "c", "d", "e"]
    order = n.order.tolist()
    for ax, places, title in zip(
        axes, (range(5), order), ("X", "X in another order"), strict=True
    ):
        mixed = n.X[list(places)]
        weights = attention(mixed @ n.W_Q, mixed @ n.W_K, mixed @ n.W_V)[1]
        shown = ax.imshow(weights, vmin=0, vmax=1)
        said = [names[i] for i in places]
        ax.set_xticks(range(5), said)
        ax.set_yticks(range(5), said)
        ax.set(title=title, xlabel="key", ylabel="query")
    drawn.colorbar(shown, ax=axes, label="weight")
    return drawn


@figure
def att_heads() -> Figure:
    """The width cut into heads that attend side by side and are joined again."""
    drawn, ax = canvas(11.4, 4.2)
    box(ax, 0.1, 1.5, 1.7, 1.2, "X\n(N, D)", 3)
    for h in range(3):
        y = 3.0 - 1.35 * h
        arrow(ax, (1.85, 2.1), (2.75, y + 0.5))
        box(ax, 2.8, y, 4.1, 1.0, f"head {h}: its own\nqueries, keys, values", h)
        arrow(ax, (6.95, y + 0.5), (7.75, 2.1))
    box(ax, 7.8, 1.4, 1.4, 1.4, "join", 4)
    arrow(ax, (9.25, 2.1), (9.75, 2.1))
    box(ax, 9.8, 1.4, 1.4, 1.4, "times\n$W_O$", 5)
    return drawn


@figure
def att_cost() -> Figure:
    """Processor time against the number of tokens, beside the line of N squared."""
    n = attended()
    drawn, ax = plt.subplots(figsize=(10.4, 4.7))
    for name, took in n.clock.items():
        ax.plot(n.lengths, [1e3 * t for t in took], marker="o", lw=3, label=name)
    ax.plot(n.lengths, n.squared, color=SOFT, linestyle="--", label="$N^2$")
    ax.set(xscale="log", yscale="log", xlabel="tokens N", ylabel="time (ms)")
    ax.set_xticks(n.lengths, n.lengths)
    ax.minorticks_off()
    ax.legend(frameon=False)
    return drawn


@figure
def att_maps() -> Figure:
    """All 72 heads of MiniLM by three scores; the best of each is marked."""
    n = attended()
    drawn, axes = plt.subplots(1, 3, figsize=(11.4, 4.6), sharey=True)
    for ax, kind in zip(axes, n.kinds, strict=True):
        shown = ax.imshow(n.maps[kind, "search"], aspect="auto", vmin=0, vmax=1)
        if kind == n.kinds[-1]:
            shown.set(cmap="PuOr", clim=(-0.6, 0.6))
        label = "margin" if kind == n.kinds[-1] else "weight"
        drawn.colorbar(shown, ax=ax, location="bottom", label=label)
        layer, head = n.best[kind]
        style = {"markersize": 18, "markerfacecolor": "none", "markeredgewidth": 2.5}
        ax.plot(head, layer, "o", color="black", **style)
        ax.set(title=kind, xlabel="head", xticks=range(0, 12, 2), yticks=range(6))
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("layer")
    return drawn


@figure
def att_held_out() -> Figure:
    """The best heads on held-out texts, beside the mean head and no preference."""
    n, groups = attended(), {}
    names = {
        "previous token": "previous token\n(weight)",
        "delimiters": "delimiters\n(weight)",
        "share": "pronoun to noun\n(share right)",
    }
    for kind, name in names.items():
        held = n.maps[kind, "held out"]
        groups[name] = {
            "no preference": n.uniform[kind],
            "mean head": held.mean().item(),
            "best head": held[n.best[kind]].item(),
        }
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    bars(ax, groups)
    return drawn


def bars(ax: Axes, groups: dict[str, dict[str, float]]) -> None:
    """Draw groups of three bars, with their numbers."""
    colours = ("#c9d2e0", "#a9c1ea", ACCENT)
    for i, key in enumerate(next(iter(groups.values()))):
        places = [g + 0.28 * (i - 1) for g in range(len(groups))]
        values = [group[key] for group in groups.values()]
        drawn = ax.bar(places, values, 0.26, label=key, color=colours[i])
        ax.bar_label(drawn, [f"{v:.2f}" for v in values], padding=3, fontsize=17)
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylabel="held out", ylim=(0, 1.12), yticks=(0, 0.5, 1))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.18)}
    ax.legend(frameon=False, ncols=3, **place)


@figure
def att_doubt() -> Figure:
    """Where agreement and coreference come apart, with the pronouns as controls."""
    n = attended()
    names = {
        "he, she: agreement (held out)": "he, she: the noun that agrees",
        "he, she: agreement, but impossible": "agrees, but can't be meant",
        "he, she: only sense decides": "makes sense",
        "it: agreement (thing, not person)": "it: the noun that agrees",
        "it: only sense decides (Winograd)": "makes sense",
    }
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    values = [n.chosen[name] for name in names]
    colours = [WARM if "sense" in name else ACCENT for name in names]
    shown = ax.barh(range(5), values, 0.62, color=colours)
    ax.bar_label(shown, [f"{v:.2f}" for v in values], padding=6)
    ax.axvline(0.5, color=SOFT, linestyle="--")
    ax.set_yticks(range(5), names.values())
    ax.set(xlabel="share where the head prefers it (coin: 0.5)", xlim=(0, 1.12))
    ax.invert_yaxis()
    return drawn


@figure
def att_moved() -> Figure:
    """What share [CLS] has of the weights, and of what is moved."""
    n = attended()
    drawn, ax = plt.subplots(figsize=(10.0, 3.4))
    values = {"of the weight": n.weight, "of what is moved": n.contribution}
    shown = ax.barh(
        list(values)[::-1], list(values.values())[::-1], color=(WARM, ACCENT)
    )
    ax.bar_label(shown, [f"{v:.2f}" for v in list(values.values())[::-1]], padding=6)
    ax.set(xlim=(0, 1), xlabel="share of [CLS]")
    return drawn
