"""Figures of 05: a digit in three modalities, the levels, races, what goes missing."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from base import ACCENT, INK, SOFT, WARM, arrow, box, canvas, figure, ran
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

GREEN = "#2b7a3d"
LEVELS = {"decision": ACCENT, "feature": WARM, "hybrid": GREEN}


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("05_fusion")


def numbers(values) -> str:
    """Write numbers as they stand in a vector, without needless zeros."""
    return ", ".join(f"{v:.3g}".replace("-", "\N{MINUS SIGN}") for v in values)


# --- where this goes, and the three levels ---------------------------------------


@figure
def fusion_digit() -> Figure:
    """One digit in three bad modalities, what each says, and what all say."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 5.0))
    row, true = n.data["test"][n.item], int(n.label[n.item])
    drawn.get_layout_engine().set(hspace=0.06)
    cells = drawn.subplots(2, 4, height_ratios=[1, 1.25])
    cells[0, 0].imshow(row["image"], cmap="gray")
    sound = np.asarray(row["audio"], dtype="float32")
    mel = n.log_mel(n.torch.from_numpy(sound)[None], 24_000)[0]
    cells[0, 1].imshow(mel, origin="lower", aspect="auto")
    style = {"family": "DejaVu Sans Mono", "fontsize": 40, "ha": "center"}
    cells[0, 2].text(0.5, 0.5, row["text"], va="center", **style)
    cells[0, 3].text(0.5, 0.5, str(true), va="center", color=WARM, **style)
    titles = ("written", "spoken", "typed", "meant")
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(title)
        cell.axis("off")
    for cell, (name, p) in zip(cells[1], n.shown.items(), strict=True):
        colours = [WARM if i == true else "#9aa5b8" for i in range(10)]
        cell.bar(range(10), p, color=colours)
        cell.set(ylim=(0, 1), xticks=range(10), xlabel="digit")
        cell.tick_params(axis="x", labelsize=15)
        says = f"{name.removesuffix(' three')}: {int(p.argmax())}"
        cell.set_title(says, color=WARM if int(p.argmax()) == true else INK)
        cell.set_yticks([0, 1], None if name == "image" else ["", ""])
    cells[1, 0].set_ylabel("probability")
    return drawn


@figure
def fusion_levels() -> Figure:
    """Vectors meet, opinions meet, tokens meet: three small diagrams."""
    drawn, ax = canvas(11.4, 4.9)
    for k, level in enumerate(("feature", "decision", "hybrid")):
        x = 0.1 + 3.9 * k
        ax.text(x + 1.6, 4.6, f"{level} level", ha="center", va="center")
        for i, name in enumerate("ab"):
            box(ax, x + 1.7 * i, 0.1, 1.5, 0.65, f"$x_{name}$", i)
            arrow(ax, (x + 0.75 + 1.7 * i, 0.8), (x + 0.75 + 1.7 * i, 1.25))
    for i in range(2):
        box(ax, 4.0 + 1.7 * i, 1.3, 1.5, 0.65, "decide", i)
        box(ax, 4.0 + 1.7 * i, 2.45, 1.5, 0.65, f"$p_{'ab'[i]}$", i)
        arrow(ax, (4.75 + 1.7 * i, 2.0), (4.75 + 1.7 * i, 2.4))
        arrow(ax, (4.75 + 1.7 * i, 3.15), (4.75 + 1.7 * i, 3.45))
    box(ax, 0.1, 1.3, 3.2, 1.8, "join vectors", 2)
    arrow(ax, (1.7, 3.15), (1.7, 3.45))
    box(ax, 0.1, 3.5, 3.2, 0.65, "decide", 2)
    box(ax, 4.0, 3.5, 3.2, 0.65, "combine opinions", 2)
    box(ax, 7.9, 1.3, 3.2, 1.8, "", 2)
    ax.text(9.5, 2.75, "tokens ask tokens", ha="center", va="center")
    _crossed(ax, 8.1, 1.5)
    arrow(ax, (9.5, 3.15), (9.5, 3.45))
    box(ax, 7.9, 3.5, 3.2, 0.65, "decide", 2)
    return drawn


def _crossed(ax: Axes, x: float, y: float) -> None:
    """Draw three tokens of each modality, above them again, and who asks whom."""
    for i in range(3):
        for j in range(3):
            for start, end in ((0.25, 1.95), (1.95, 0.25)):
                ends = [x + start + 0.35 * i, x + end + 0.35 * j]
                ax.plot(ends, [y, y + 0.85], color=SOFT, lw=0.9, alpha=0.6)
    _tokens(ax, x + 0.25, y, ACCENT)
    _tokens(ax, x + 1.95, y, WARM)
    _tokens(ax, x + 0.25, y + 0.85, ACCENT)
    _tokens(ax, x + 1.95, y + 0.85, WARM)


def _tokens(ax: Axes, x: float, y: float, colour: str, many: int = 3) -> None:
    """Draw tokens as dots in a row; (x, y) is the middle of the first."""
    for i in range(many):
        ax.add_patch(Circle((x + 0.35 * i, y), 0.12, color=colour, zorder=3))


@figure
def fusion_features() -> Figure:
    """The hand example: two vectors side by side, and added by weight."""
    n = notebook()
    drawn, ax = canvas(11.4, 3.2)
    x, y = [1.0, 2.0], [3.0, -1.0]
    share, total = n.w.tolist(), n.by_package[0].tolist()
    ax.text(0.1, 2.6, "concatenation", va="center", color=SOFT)
    ax.text(0.1, 1.0, "weighted sum", va="center", color=SOFT)
    box(ax, 3.0, 2.2, 1.9, 0.8, numbers(x), 0)
    box(ax, 5.2, 2.2, 1.9, 0.8, numbers(y), 1)
    arrow(ax, (7.2, 2.6), (7.9, 2.6))
    box(ax, 8.0, 2.2, 3.2, 0.8, numbers([*x, *y]), 2)
    for i, (weight, vector) in enumerate(zip(share, (x, y), strict=True)):
        left = 3.0 + 2.2 * i
        box(ax, left, 0.6, 1.9, 0.8, numbers(vector), i)
        ax.text(left + 0.95, 0.25, f"times {weight:.3f}", ha="center", va="center")
    ax.text(5.05, 1.0, "+", ha="center", va="center")
    arrow(ax, (7.2, 1.0), (7.9, 1.0))
    added = ", ".join(f"{v:.3f}".replace("-", "\N{MINUS SIGN}") for v in total)
    box(ax, 8.0, 0.6, 3.2, 0.8, added, 2)
    return drawn


@figure
def fusion_judges() -> Figure:
    """Three judges, and what vote, average and product make of them."""
    n = notebook()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.2))
    judges = dict(zip(("judge a", "judge b", "judge c"), n.p.tolist(), strict=True))
    votes = (n.votes / n.votes.sum()).tolist()
    fused = {"vote": votes, "average": n.p.mean(dim=0).tolist()}
    fused["product"] = n.multiplied.tolist()
    said = {name: [f"{v:.2f}" for v in p] for name, p in (judges | fused).items()}
    said["vote"] = [f"{v} votes" if v > 1 else f"{v} vote" for v in n.votes.tolist()]
    for ax, rows in ((left, judges), (right, fused)):
        for place, (name, (one, two)) in enumerate(reversed(rows.items())):
            ax.barh(place, one, color="#9dbdf0")
            ax.barh(place, two, left=one, color="#f3b98d")
            ax.text(0.02, place, said[name][0], va="center")
            ax.text(0.98, place, said[name][1], ha="right", va="center")
        ax.axvline(0.5, color=INK, ls=":", lw=2.5)
        ax.set_yticks(range(3), list(rows)[::-1])
        ax.set(xlim=(0, 1), xticks=[])
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    left.set_title("each alone: class 1 | class 2")
    right.set_title("fused")
    return drawn


# --- tokens that meet ---------------------------------------------------------------


def _thin(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": SOFT, "lw": 2.2, "mutation_scale": 18}
    ax.annotate("", end, start, arrowprops=style)


def _both(ax: Axes, y: float = 0.3) -> None:
    """Draw the tokens of modality a on the left, of b on the right."""
    _tokens(ax, 0.4, y, ACCENT)
    _tokens(ax, 2.3, y, WARM)


def _co_attention(ax: Axes) -> None:
    for low, high in ((0.3, 0.85), (0.85, 1.4)):
        _thin(ax, (1.1, low + 0.05), (2.3, high - 0.12))
        _thin(ax, (2.3, low + 0.05), (1.1, high - 0.12))
    for y in (0.3, 0.85, 1.4):
        _both(ax, y)


def _cross_modal(ax: Axes) -> None:
    _both(ax)
    box(ax, 0.15, 1.0, 1.45, 0.6, "a reads b", 0)
    box(ax, 1.8, 1.0, 1.45, 0.6, "b reads a", 1)
    for x in (0.75, 2.65):
        _thin(ax, (x, 0.42), (x, 1.0))
    _thin(ax, (2.3, 0.42), (1.3, 1.0))
    _thin(ax, (1.1, 0.42), (2.1, 1.0))
    for text in ax.texts:
        text.set_fontsize(16)


def _bottleneck(ax: Axes) -> None:
    _both(ax, 0.85)
    for y in (0.65, 1.05):
        ax.add_patch(Circle((1.7, y), 0.12, color=GREEN, zorder=3))
        for x in (1.22, 2.18):
            style = {
                "arrowstyle": "<|-|>",
                "color": SOFT,
                "lw": 2,
                "mutation_scale": 14,
            }
            towards = (1.56 if x < 1.7 else 1.84, y)
            ax.annotate("", towards, (x, 0.85), arrowprops=style)


def _gated(ax: Axes) -> None:
    _tokens(ax, 0.3, 0.3, ACCENT)
    _tokens(ax, 0.3, 1.4, ACCENT)
    _thin(ax, (0.65, 0.45), (0.65, 1.24))
    _tokens(ax, 2.5, 0.3, WARM)
    _tokens(ax, 2.67, 0.95, GREEN, 2)
    _thin(ax, (2.85, 0.45), (2.85, 0.82))
    ax.text(1.7, 0.95, "gate", ha="center", va="center", fontsize=16)
    _thin(ax, (2.52, 0.95), (2.02, 0.95))
    _thin(ax, (1.4, 0.95), (0.72, 0.95))


def _queries(ax: Axes) -> None:
    _both(ax)
    _tokens(ax, 1.35, 1.05, GREEN)
    _thin(ax, (0.85, 0.45), (1.4, 0.92))
    _thin(ax, (2.55, 0.45), (2.0, 0.92))
    _thin(ax, (1.7, 1.2), (1.7, 1.6))


def _depths(ax: Axes) -> None:
    for y in (0.3, 0.85, 1.4):
        _both(ax, y)
        _thin(ax, (1.22, y), (1.56, y))
        _thin(ax, (2.18, y), (1.84, y))
        ax.add_patch(Circle((1.7, y), 0.12, color=GREEN, zorder=3))
    for x in (0.75, 2.65):
        for y in (0.44, 0.99):
            _thin(ax, (x, y), (x, y + 0.29))


@figure
def fusion_tokens() -> Figure:
    """Six ways to let tokens of two modalities meet, one small diagram each."""
    drawn, _ = canvas(11.4, 4.6)
    ways = {
        "CoAttention (ViLBERT)": _co_attention,
        "CrossModal (MulT)": _cross_modal,
        "Bottleneck (MBT)": _bottleneck,
        "GatedCrossAttention\n(Flamingo)": _gated,
        "QFormer (BLIP-2)": _queries,
        "SeveralDepths": _depths,
    }
    for i, (name, draw) in enumerate(ways.items()):
        row, column = divmod(i, 3)
        left, low = 0.1 + 3.9 * column, 2.95 - 2.1 * row  # in inches
        ax = drawn.add_axes((left / 11.4, low / 4.6, 3.4 / 11.4, 1.65 / 4.6))
        ax.set(xlim=(0, 3.4), ylim=(0.1, 1.75))
        ax.axis("off")
        draw(ax)
        ax.text(1.7, 0.02, name, ha="center", va="top", fontsize=17, color=INK)
    return drawn


# --- products -----------------------------------------------------------------------


@figure
def fusion_outer() -> Figure:
    """The outer product of the hand example: single numbers, and all their pairs."""
    n = notebook()
    drawn, ax = canvas(11.4, 4.1)
    one_x, one_y = n.one_x.tolist(), n.one_y.tolist()
    ax.text(2.0, 1.75, "[1; x]", ha="right", va="center", color=SOFT)
    ax.text(2.0, 3.6, "[1; y]", ha="right", va="center", color=SOFT)
    for j, y in enumerate(one_y):
        box(ax, 4.1 + 1.7 * j, 3.25, 1.5, 0.7, f"{y:g}", 5)
    for i, x in enumerate(one_x):
        low = 2.25 - 0.85 * i
        box(ax, 2.3, low, 1.5, 0.7, f"{x:g}", 5)
        for j, y in enumerate(one_y):
            tint = 2 if i and j else 0 if i else 1 if j else 4
            box(ax, 4.1 + 1.7 * j, low, 1.5, 0.7, f"{x * y:g}", tint)
    ax.text(7.7, 2.6, "y alone", va="center", color=WARM)
    ax.text(7.7, 1.32, "products of pairs", va="center", color=GREEN)
    ax.text(4.85, 0.22, "x alone", ha="center", va="center", color=ACCENT)
    return drawn


@figure
def fusion_sketch() -> Figure:
    """How far sketches of growing width are from the outer product."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.4))
    ax.loglog(n.widths, n.errors, marker="o", ms=11, lw=3)
    ax.axvline(16 * 16, color="grey", ls=":", lw=2.5)
    ax.text(
        275,
        max(n.errors),
        "16 \N{MULTIPLICATION SIGN} 16, the whole product",
        va="top",
        color=SOFT,
    )
    ax.set(xlabel="slots S of the sketch", ylabel="error (RMS)")
    ax.set_xticks(n.widths, [f"{w:,}" for w in n.widths])
    ax.set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
    ax.minorticks_off()
    return drawn


# --- what only both know ----------------------------------------------------------


@figure
def fusion_corners() -> Figure:
    """The four cases of two coins, and the sign that a score must have in each."""
    drawn, ax = canvas(11.4, 3.7)
    for u in range(2):
        ax.text(1.3, 2.35 - 1.25 * u, f"u = {u}", ha="center", va="center", color=SOFT)
        ax.text(3.3 + 2.7 * u, 3.4, f"v = {u}", ha="center", va="center", color=SOFT)
        for v in range(2):
            differ = u != v
            x, y = 2.1 + 2.7 * v, 1.8 - 1.25 * u
            sign = ">" if differ else "<"
            box(ax, x, y, 2.5, 1.1, "", int(differ))
            says = f"$f_{u} + g_{v} {sign} 0$"
            ax.text(x + 1.25, y + 0.55, says, ha="center", va="center", fontsize=25)
    ax.text(7.7, 2.35, "label 1: coins differ", va="center", color=WARM)
    ax.text(7.7, 1.1, "label 0: coins are equal", va="center", color=ACCENT)
    ax.set_ylim(0.3, 3.7)
    return drawn


def intervals(ax: Axes, rows: dict, colours: list[str]) -> None:
    """Draw means with their intervals, the first row on top."""
    for place, (a, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        ax.plot([a.low, a.high], [-place, -place], color=colour, lw=5, alpha=0.5)
        ax.plot(a.mean, -place, "o", color=colour, ms=10)
    ax.set_yticks([-i for i in range(len(rows))], list(rows), fontsize=17)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="#e3e7ee")


@figure
def fusion_synergy() -> Figure:
    """Accuracy on the synergistic label: opinions and sums, and all that compares."""
    n = notebook()
    guess, able = {}, {}
    for (name, what), a in n.accuracy.items():
        if what == "synergistic":
            guess[name] = a
        elif what == "linear" and name in ("Concat", "WeightedSum"):
            guess[f"{name} (linear)"] = a
        elif what in ("linear", "bent"):
            able[f"{name} (bent)" if what == "bent" else name] = a
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11.4, 5.0))
    intervals(left, guess, [ACCENT] * 5 + [WARM] * 2)
    intervals(right, able, [GREEN if k == "CoAttention" else WARM for k in able])
    left.set_title("opinions, sums")
    right.set_title("all others")
    right.text(0.53, -5, "chance", color=SOFT, va="center")
    for ax in (left, right):
        ax.axvline(0.5, color="grey", ls=":", lw=2.5)
        ax.set(xlim=(0.4, 1.03), xlabel="accuracy")
        ax.set_xticks([0.5, 0.75, 1], ["0.5", "0.75", "1"])
    return drawn


# --- the race ------------------------------------------------------------------------


@figure
def fusion_race() -> Figure:
    """Accuracy of all fusions on digits, ranked, with intervals and the best single."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 5.3))
    ranked = sorted(n.score, key=lambda kind: -n.score[kind].mean)
    for place, kind in enumerate(ranked):
        level = next(name for name, kinds in n.levels.items() if kind in kinds)
        a, colour = n.score[kind], LEVELS[level]
        ax.plot([place, place], [a.low, a.high], color=colour, lw=5, alpha=0.5)
        ax.plot(place, a.mean, "o", color=colour, ms=10)
    for level, colour in LEVELS.items():
        ax.plot([], [], "o", color=colour, ms=10, label=f"{level} level")
    ax.axhline(n.best_single, color="grey", ls=":", lw=2.5, label="best single")
    low = min(n.best_single, *(a.low for a in n.score.values())) - 0.02
    names = [kind.__name__.replace("CrossAtt", "Cross-\nAtt") for kind in ranked]
    names = [name.replace("WeightedA", "Weighted-\nA") for name in names]
    ax.set_xticks(range(len(ranked)), names, rotation=90, fontsize=16)
    ax.set(ylabel="accuracy", xlim=(-0.6, len(ranked) - 0.4), ylim=(low, 0.97))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 0.06)}
    ax.legend(frameon=False, fontsize=17, ncols=2, **place)
    return drawn


@figure
def fusion_paired() -> Figure:
    """Differences of four pairs of fusions, item by item, with p."""
    n, f = notebook(), notebook().fu
    pairs = [(f.Product, f.Vote), (f.Product, f.Average)]
    pairs += [(f.Concat, f.TensorFusion), (f.Concat, f.Product)]
    drawn, ax = plt.subplots(figsize=(11.4, 3.8))
    rows = {
        f"{a.__name__} over {b.__name__}": n.paired_test(n.right[a][0], n.right[b][0])
        for a, b in pairs
    }
    for place, d in enumerate(rows.values()):
        colour = GREEN if d.low > 0 else SOFT
        ax.plot([d.low, d.high], [-place, -place], color=colour, lw=6, alpha=0.5)
        ax.plot(d.difference, -place, "o", color=colour, ms=13)
        said = "p < 0.001" if d.p < 0.001 else f"p = {d.p:.1g}"
        ax.text(0.098, -place, said, va="center", ha="right")
    ax.axvline(0, color=INK, lw=2)
    ax.set_yticks([-i for i in range(len(rows))], list(rows))
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(-0.03, 0.1), ylim=(-3.5, 0.5), xlabel="difference of accuracies")
    return drawn


# --- missing, noisy, lazy -----------------------------------------------------------


@figure
def fusion_missing() -> Figure:
    """Accuracy with all there, with a black picture, and told that it is missing."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.6))
    marks = {
        0: ("all there", "s", SOFT),
        1: ("black picture", "X", WARM),
        2: ("told: missing", "o", ACCENT),
        4: ("told, used to drops", "D", GREEN),
    }
    for place, values in enumerate(n.scored.values()):
        ax.plot([values[1], values[2]], [-place, -place], color="#c9d1de", lw=6)
        for i, (_, mark, colour) in marks.items():
            if i < len(values):
                ax.plot(values[i], -place, mark, color=colour, ms=15, mec="white")
    for words, mark, colour in marks.values():
        ax.plot([], [], mark, color=colour, ms=13, label=words)
    ax.set_yticks([-i for i in range(len(n.scored))], list(n.scored))
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="accuracy", ylim=(-4.5, 0.5))
    ax.grid(axis="y", color="#e3e7ee")
    place = {"loc": "lower center", "bbox_to_anchor": (0.42, 1.0)}
    style = {"columnspacing": 1.0, "handletextpad": 0.2}
    ax.legend(frameon=False, ncols=4, fontsize=18, **place, **style)
    return drawn


@figure
def fusion_noise() -> Figure:
    """Accuracy as pictures get noisy, and how far the picture's gate stays open."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.9))
    left, right = drawn.subplots(1, 2, width_ratios=[1.5, 1])
    for i, (name, values) in enumerate(n.curves.items()):
        left.plot(n.amounts, values, marker="osD^v"[i], ms=10, lw=3, label=name)
    style = {"color": "grey", "ls": ":", "lw": 3}
    left.axhline(n.without, label="Product, no picture", **style)
    left.set(ylabel="accuracy", title="who is right", ylim=(0.76, 0.95))
    left.legend(frameon=False, fontsize=16, ncols=2, loc="lower left")
    gates = [n.opening(image=amount, audio=0, text=0) for amount in n.amounts]
    right.plot(n.amounts, gates, marker="o", ms=10, lw=3, color="C3")
    right.set(ylim=(0, 1), title="the picture's gate", ylabel="mean opening")
    for ax in (left, right):
        ax.set(xlabel="noise on the pictures", xticks=range(5))
    return drawn


@figure
def fusion_lazy() -> Figure:
    """Probed accuracy of the sound encoder after five ways of training."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.2))
    names = {name: name.replace("together, letters", "letters") for name in n.ears}
    for place, (name, a) in enumerate(reversed(n.ears.items())):
        colour = {"together": WARM, "untrained": "#9aa5b8"}.get(name, ACCENT)
        ax.barh(place, a.mean, color=colour, height=0.65)
        ax.plot([a.low, a.high], [place, place], color=INK, lw=3)
        ax.text(a.high + 0.01, place, f"{a.mean:.2f}", va="center")
    ax.set_yticks(range(len(names)), list(names.values())[::-1])
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1), xlabel="accuracy of a linear probe on the sound's encoder")
    return drawn


@figure
def fusion_cost() -> Figure:
    """FLOPs of feature- and hybrid-level fusions against their place in the race."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 4.7))
    for level in ("feature", "hybrid"):
        kinds = n.levels[level]
        spent = [n.costs[kind].flops / 1e6 for kind in kinds]
        reached = [n.score[kind].mean for kind in kinds]
        ax.plot(spent, reached, "o", ms=14, color=LEVELS[level], label=f"{level} level")
    named = [n.fu.Concat, n.fu.Gated, n.fu.MLB]
    for kind in (*named, n.fu.CrossModal, n.fu.GatedCrossAttention):
        at = (n.costs[kind].flops / 1e6, n.score[kind].mean)
        end = at[0] > 10
        shift = {"xytext": (0, 16) if end else (14, 0), "textcoords": "offset points"}
        side = {"ha": "right" if end else "left", "va": "center", "fontsize": 17}
        ax.annotate(kind.__name__, at, **shift, **side)
    ax.set_xscale("log")
    ax.set(
        xlabel="MFLOP an item, at width 256",
        ylabel="accuracy on digits",
        ylim=(None, 0.94),
    )
    ax.set_xticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="center")
    return drawn
