"""Figures of 06: one row of tokens, its reader, what is missing, what is written."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import ACCENT, INK, MONO, SOFT, TINTS, WARM, arrow, box, canvas, figure, ran
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

GREEN, GREY = "#2b7a3d", "#9aa5b8"
COLOURS = {"text": ACCENT, "image": WARM, "audio": GREEN}
TRAINED = {"trained with all": WARM, "modality dropout": ACCENT}


def notebook() -> SimpleNamespace:
    """Return the variables of the notebook."""
    return ran("06_multimodal_transformer")


def mel_of(n: SimpleNamespace, row: int) -> np.ndarray:
    """Return the log-mel spectrogram (M, F) of a test row, as the model reads it."""
    encoder = n.robust.encoders["audio"]
    return encoder.log_mel(n.test["audio"][row : row + 1])[0].numpy()


def scan(n: SimpleNamespace, row: int) -> np.ndarray:
    """Return the noisy scan (8, 8) of a test row."""
    return n.test["image"][row, 0].numpy()


def beliefs(ax: Axes, p, true: int) -> None:
    """Draw the probabilities of ten digits, the true one in the warm colour."""
    ax.bar(range(10), p, color=[WARM if i == true else GREY for i in range(10)])
    ax.set(ylim=(0, 1), xticks=range(10), xlabel="digit")
    ax.tick_params(axis="x", labelsize=15)


# --- where this goes, and how it is built -----------------------------------------


@figure
def multi_asks() -> Figure:
    """One digit in three modalities, and what one model says of ever less."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 5.0))
    above, below = drawn.subfigures(2, 1, height_ratios=[1, 1.3])
    row, true = n.item, int(n.test["label"][n.item])
    cells = above.subplots(1, 4)
    style = {"ha": "center", "va": "center"}
    typed = n.data["test"]["text"][row]
    cells[0].text(0.5, 0.5, typed, family=MONO, fontsize=38, **style)
    cells[1].imshow(scan(n, row), cmap="gray")
    cells[2].imshow(mel_of(n, row), origin="lower", aspect="auto")
    cells[3].text(0.5, 0.5, str(true), family=MONO, fontsize=42, color=WARM, **style)
    for cell, title in zip(cells, ("text", "image", "audio", "meant"), strict=True):
        cell.set_title(title)
        cell.axis("off")
    kinds = (n.NAMES, n.NAMES[1:], n.NAMES[:2], ("audio",), ("image",))
    cells = below.subplots(1, 5, sharey=True)
    for cell, kept in zip(cells, kinds, strict=True):
        beliefs(cell, n.ask(n.robust, row, kept), true)
        cell.set_xticks([0, 3, 6, 9])
        cell.tick_params(axis="x", labelsize=16)
        title = "all three" if len(kept) == 3 else " + ".join(kept)
        cell.set_title(title, fontsize=18)
    cells[0].set(ylabel="probability", yticks=[0, 1])
    return drawn


def tokens(ax: Axes, x: float, y: float, spans: dict, step: float) -> None:
    """Draw the row of tokens as dots, one colour a modality; (x, y) is the first."""
    for name, span in spans.items():
        for i in range(span.start, span.stop):
            dot = Circle((x + step * i, y), 0.17, color=COLOURS[name], zorder=3)
            ax.add_patch(dot)


@figure
def multi_model() -> Figure:
    """Three encoders fill one row of tokens, and one decoder reads it."""
    n = notebook()
    drawn, ax = canvas(11.4, 5.3)
    spans, step, first = n.joined.spans, 0.58, 0.75
    tokens(ax, first, 2.9, spans, step)
    words = {
        "text": ("a name's letters", "letter\nencoder"),
        "image": ("a scan", "ViT"),
        "audio": ("half a second", "AST"),
    }
    for i, (name, (given, encoder)) in enumerate(words.items()):
        span = spans[name]
        middle = first + step * (span.start + span.stop - 1) / 2
        w = max(1.2, step * (span.stop - span.start) - 0.1)
        box(ax, middle - w / 2, 1.1, w, 1.0, encoder, i)
        arrow(ax, (middle, 0.6), (middle, 1.05))
        arrow(ax, (middle, 2.15), (middle, 2.65))
        ax.text(middle, 0.3, given, ha="center", va="center", color=COLOURS[name])
    right = first + step * (spans["audio"].stop - 1)
    for i in range(spans["audio"].stop):
        at = first + step * i
        ax.plot([at, at], [3.1, 3.75], color=SOFT, lw=1.8)
    box(ax, first - 0.3, 3.8, right - first + 0.6, 1.1, "shared decoder", 3)
    arrow(ax, (right + 0.4, 4.35), (right + 1.0, 4.35))
    ax.text(right + 1.15, 4.35, "a digit,\nor its name", va="center")
    said = f"one row of\n{spans['audio'].stop} tokens"
    ax.text(right + 1.15, 2.9, said, va="center", color=SOFT)
    ax.text(right + 1.15, 1.6, "one encoder\neach", va="center", color=SOFT)
    return drawn


@figure
def multi_row() -> Figure:
    """The row of tokens of one item, cell by cell, and its mask."""
    n = notebook()
    drawn, ax = canvas(11.4, 2.7)
    typed = list(n.data["test"]["text"][n.item])
    letters = n.joined.spans["text"]
    names = typed + ["pad"] * (letters.stop - len(typed)) + ["class", "patch"]
    names += [str(i + 1) for i in range(n.ears.steps)]
    real = n.joined.mask[n.item].tolist()
    first, step = 0.95, 0.8
    ax.text(0.05, 0.5, "mask", color=SOFT)
    for i, (name, here) in enumerate(zip(names, real, strict=True)):
        kind = next(m for m, s in n.joined.spans.items() if s.start <= i < s.stop)
        tint = list(COLOURS).index(kind)
        box(ax, first + step * i, 1.05, step - 0.08, 0.75, name, tint)
        ax.texts[-1].set(fontsize=15 if len(name) > 1 else 20, color=INK)
        mark = "\N{CHECK MARK}" if here else "\N{MULTIPLICATION SIGN}"
        middle = first + step * i + (step - 0.08) / 2
        ax.text(middle, 0.5, mark, ha="center", color=INK if here else WARM)
    for kind, span in n.joined.spans.items():
        middle = first + step * (span.start + span.stop) / 2 - 0.04
        ax.text(middle, 2.3, kind, ha="center", va="center", color=COLOURS[kind])
    return drawn


@figure
def multi_sound() -> Figure:
    """A log-mel spectrogram, cut into patches of eight frames."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.9))
    mel, side = mel_of(n, n.item), n.ears.patch_frames
    shown = ax.imshow(mel, origin="lower", aspect="auto")
    ends = side * np.arange(n.ears.steps + 1) - 0.5
    for end in ends[1:-1]:
        ax.axvline(end, color="white", lw=4)
    empty = (mel.shape[1] - 0.5, -0.5)
    ax.add_patch(Rectangle(empty, ends[-1] - empty[0], n.ears.mels, fc="#d4dbe8"))
    ax.set(xlim=(ends[0], ends[-1]), xlabel="token", ylabel="mel band")
    ax.set_xticks(ends[:-1] + side / 2, range(1, n.ears.steps + 1))
    ax.set_yticks([0, n.ears.mels - 1], ["low", "high"])
    ax.tick_params(length=0)
    drawn.colorbar(shown, ax=ax, label="log power")
    return drawn


@figure
def multi_reader() -> Figure:
    """A query passes self-attention, cross attention and an MLP, twice, then a head."""
    n = notebook()
    drawn, ax = canvas(11.4, 4.0)
    steps = ("look at\neach other", "read\nthe row", "think\n(MLP)")
    ax.add_patch(Circle((0.5, 2.8), 0.2, color="#7a4ea3"))
    ax.text(0.1, 2.25, "query", va="center")
    ax.text(0.5, 3.3, "$q$", ha="center", va="center")
    arrow(ax, (0.8, 2.8), (1.35, 2.8))
    for i, words in enumerate(steps):
        x = 1.4 + 2.35 * i
        box(ax, x, 2.2, 1.85, 1.2, words, 3 if i == 1 else 5)
        arrow(ax, (x + 1.9, 2.8), (x + 2.35, 2.8))
    ax.plot([1.2, 8.0, 8.0, 1.2, 1.2], [2.0, 2.0, 3.6, 3.6, 2.0], ":", color=SOFT, lw=2)
    times = f"\N{MULTIPLICATION SIGN} {n.config.depth} blocks"
    ax.text(8.0, 3.8, times, ha="right", va="center", color=SOFT)
    box(ax, 8.5, 2.2, 2.7, 1.2, "head:\nten logits", 4)
    spans, step = n.joined.spans, 0.5
    first = 4.675 - step * (spans["audio"].stop - 1) / 2
    tokens(ax, first, 0.75, spans, step)
    for i in range(spans["audio"].stop):
        ends = [first + step * i, 4.675 + 0.12 * (i - spans["audio"].stop // 2)]
        ax.plot(ends, [0.92, 2.18], color=SOFT, lw=1.3)
    ax.text(
        4.675, 0.25, "keys and values, from $z$", ha="center", va="center", color=SOFT
    )
    return drawn


# --- what is missing, what three are worth --------------------------------------------


@figure
def multi_missing() -> Figure:
    """Beliefs about one row: all there, zeros, marked as missing, left out."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.2))
    with torch.no_grad():
        kinds = {
            "all there": n.robust(n.few),
            "picture of zeros": n.zeros,
            "NaN, marked": n.robust(n.broken),
            "not in the batch": n.robust(n.without),
        }
    true = int(n.few["label"][n.item])
    cells = drawn.subplots(1, 4, sharey=True)
    for cell, (name, logits) in zip(cells, kinds.items(), strict=True):
        beliefs(cell, logits.softmax(dim=1)[n.item], true)
        cell.set_title(name)
    for cell in cells[2:]:
        cell.set_facecolor(TINTS[0])
    cells[0].set(ylabel="probability", yticks=[0, 1])
    return drawn


@figure
def multi_three() -> Figure:
    """Accuracy of each modality alone, with its interval, and of all three."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.8))
    rows = {f"{m} alone": n.bootstrap(r) for m, r in n.single_right.items()}
    rows["all three"] = n.bootstrap(n.all_right)
    colours = [*COLOURS.values(), INK]
    bars(ax, rows, colours)
    ax.axvline(0.1, color=SOFT, ls=":", lw=2.5)
    ax.text(0.115, -0.75, "chance", color=SOFT, ha="left", va="center", fontsize=17)
    ax.set(xlim=(0, 1.12), xlabel="accuracy, 95 % interval", ylim=(-1.05, 3.5))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    return drawn


def bars(ax: Axes, rows: dict, colours: list[str]) -> None:
    """Draw means as bars with their intervals and numbers, the first on top."""
    for place, (a, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        y = len(rows) - 1 - place
        ax.barh(y, a.mean, color=colour, height=0.62, alpha=0.75)
        ax.plot([a.low, a.high], [y, y], color=INK, lw=3)
        ax.text(a.high + 0.012, y, f"{a.mean:.2f}", va="center")
    ax.set_yticks(range(len(rows)), list(rows)[::-1])
    ax.tick_params(axis="y", length=0)


# --- who is read --------------------------------------------------------------------


@figure
def multi_shares() -> Figure:
    """How each layer shares out its reading, and what the numbers of tokens are."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.3))
    rows = {f"layer {i + 1}": s.mean(dim=0).tolist() for i, s in enumerate(n.read)}
    rows["by number\nof tokens"] = n.even.tolist()
    for place, share in enumerate(reversed(rows.values())):
        left = 0.0
        for name, v in zip(n.NAMES, share, strict=True):
            style = {"height": 0.7, "alpha": 0.8 if place else 0.45}
            ax.barh(place, v, left=left, color=COLOURS[name], **style)
            middle = {"ha": "center", "va": "center"}
            ax.text(left + v / 2, place, f"{v:.2f}", color="white", **middle)
            left += v
    for text in ax.texts[:3]:
        text.set_color(INK)
    for name, colour in COLOURS.items():
        ax.barh(0, 0, color=colour, alpha=0.8, label=name)
    ax.set_yticks(range(len(rows)), list(rows)[::-1])
    ax.set(xlim=(0, 1), xticks=[])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    ax.legend(frameon=False, ncols=3, **place)
    return drawn


@figure
def multi_noise() -> Figure:
    """By loudness of the noise: how much the sound is read, and what it adds."""
    n, drawn = notebook(), plt.figure(figsize=(11.4, 4.6))
    left, right = drawn.subplots(1, 2)
    for i, share in enumerate(n.read):
        values = share[:, n.audio].numpy()
        means = [values[n.bins == b].mean() for b in range(5)]
        style = {"marker": "os"[i], "ms": 11, "lw": 3, "color": GREEN}
        ls = ("--", "-")[i % 2]
        left.plot(n.middle, means, ls=ls, label=f"layer {i + 1}", **style)
    left.set(ylim=(0, 1), ylabel="share", title="how much the sound is read")
    left.legend(frameon=False, ncols=2, loc="upper center")
    added = [n.bootstrap(n.helped[n.bins == b]) for b in range(5)]
    for x, a in zip(n.middle, added, strict=True):
        right.plot([x, x], [a.low, a.high], color=INK, lw=4, alpha=0.4)
    right.plot(n.middle, [a.mean for a in added], "o", ms=12, color=INK)
    right.axhline(0, color=SOFT, ls=":", lw=2.5)
    right.set(ylabel="accuracy", title="what the sound adds")
    for ax in (left, right):
        ax.set_xlabel("signal over noise (dB)")
        ax.set_xticks(
            n.middle, [f"{v:.0f}".replace("-", "\N{MINUS SIGN}") for v in n.middle]
        )
    return drawn


# --- any of them may be missing ---------------------------------------------------


@figure
def multi_lots() -> Figure:
    """Modality dropout by hand: four rows, their luck, and what stays."""
    luck = torch.tensor(
        [[0.7, 0.2, 0.9], [0.3, 0.1, 0.4], [0.6, 0.8, 0.5], [0, 0.1, 0.6]]
    )
    here = torch.ones(4, 3, dtype=torch.bool)
    here[3, 0] = False
    drawn_by_lot = luck.masked_fill(~here, -1.0)
    best = drawn_by_lot == drawn_by_lot.amax(dim=1, keepdim=True)
    stays = here & ((drawn_by_lot >= 0.5) | best)
    words = ("two are lucky", "none is: the luckiest stays", "all stay")
    drawn, ax = canvas(11.4, 4.0)
    ax.text(6.3, 3.7, "luck $u_m$, with $p = 0.5$", va="center", color=SOFT)
    for j, name in enumerate(COLOURS):
        middle = 1.0 + 2.0 * j
        ax.text(middle, 3.7, name, ha="center", va="center", color=COLOURS[name])
        for i in range(4):
            y = 2.6 - 0.85 * i
            said = f"{luck[i, j]:.1f}" if here[i, j] else "missing"
            kept = bool(stays[i, j])
            box(ax, middle - 0.85, y, 1.7, 0.7, said, j)
            ax.patches[-1].set_alpha(1.0 if kept else 0.25)
            ax.texts[-1].set_color(INK if kept else GREY)
            if kept:
                ax.patches[-1].set(ec=list(COLOURS.values())[j], lw=3)
    for i, said in enumerate((*words, "what is missing stays missing")):
        ax.text(6.3, 2.95 - 0.85 * i, said, va="center")
    return drawn


@figure
def multi_grid() -> Figure:
    """Accuracy with each subset, by how the model was trained."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 5.0))
    for offset, (how, g) in zip((-0.18, 0.18), n.grid.items(), strict=True):
        found = [n.bootstrap(r) for r in g.values()]
        for place, a in enumerate(found):
            ax.plot([place + offset] * 2, [a.low, a.high], color=INK, lw=2.5)
        places = np.arange(len(found)) + offset
        means = [a.mean for a in found]
        ax.bar(places, means, 0.34, label=how, color=TRAINED[how], alpha=0.85)
    names = ["all\nthree" if len(k) == 3 else "\n+ ".join(k) for k in n.grid[how]]
    ax.set_xticks(range(len(names)), names)
    ax.set(ylabel="accuracy", ylim=(0, 1))
    ax.tick_params(axis="x", length=0)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    ax.legend(frameon=False, ncols=2, **place)
    return drawn


@figure
def multi_cost() -> Figure:
    """What the loss of each modality costs, with its interval, for both trainings."""
    n = notebook()
    drawn, ax = plt.subplots(figsize=(11.4, 3.7))
    for place, name in enumerate(n.NAMES):
        for offset, how in zip((0.16, -0.16), n.grid, strict=True):
            a, y = n.bootstrap(n.cost(how, name)), offset - place
            ax.plot([a.low, a.high], [y, y], color=TRAINED[how], lw=6, alpha=0.45)
            ax.plot(a.mean, y, "o", color=TRAINED[how], ms=13)
    for how, colour in TRAINED.items():
        ax.plot([], [], "o", color=colour, ms=13, label=how)
    ax.axvline(0, color=SOFT, ls=":", lw=2.5)
    ax.set_yticks([-i for i in range(3)], [f"losing {m}" for m in n.NAMES])
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="accuracy lost", ylim=(-2.5, 0.5))
    place = {"loc": "lower center", "bbox_to_anchor": (0.4, 1.0)}
    ax.legend(frameon=False, ncols=2, **place)
    return drawn


# --- the same model writes ------------------------------------------------------------


@figure
def multi_shift() -> Figure:
    """Inputs and labels of teacher forcing for one name."""
    n = notebook()
    drawn, ax = canvas(11.4, 2.9)
    name = list(n.digits.NAMES[7])
    inputs, labels = ["begin", *name], [*name, "end"]
    ax.text(0.1, 0.65, "inputs", va="center", color=SOFT)
    ax.text(0.1, 2.25, "labels", va="center", color=SOFT)
    for i, (given, due) in enumerate(zip(inputs, labels, strict=True)):
        x = 1.7 + 1.6 * i
        box(ax, x, 0.3, 1.4, 0.75, given, 0)
        arrow(ax, (x + 0.7, 1.1), (x + 0.7, 1.8))
        box(ax, x, 1.85, 1.4, 0.75, due, 1)
    return drawn


def sureness(n: SimpleNamespace) -> dict[str, list[float]]:
    """Return how probable each letter was, on average, of each name when written."""
    with torch.no_grad():
        logits = n.writer.eval()(n.test | {"target": n.written[:, :-1]})
    p = logits.softmax(dim=-1).gather(-1, n.written[:, 1:, None])[..., 0].numpy()
    found = {}
    for name in n.digits.NAMES:
        rows = np.array([said == name for said in n.read_aloud])
        if rows.any():
            found[name] = p[rows, : len(name)].mean(axis=0).tolist()
    return found


@figure
def multi_letters() -> Figure:
    """The letters of the names that it writes, and how sure it was of each."""
    n = notebook()
    drawn, ax = canvas(11.4, 4.9)
    colours = plt.get_cmap("YlOrBr")
    for i, (name, p) in enumerate(sorted(sureness(n).items())):
        column, row = divmod(i, 5)
        for k, (letter, v) in enumerate(zip(name, p, strict=True)):
            x, y = 0.3 + 5.7 * column + 1.02 * k, 4.0 - 0.96 * row
            doubt = colours(min(1.0, 0.02 + 1.6 * (1 - v)))
            frame = {"fc": doubt, "ec": SOFT, "lw": 1}
            ax.add_patch(Rectangle((x, y), 0.98, 0.8, **frame))
            style = {"va": "center", "color": INK}
            ax.text(x + 0.08, y + 0.4, letter, family=MONO, fontsize=22, **style)
            said = ">.99" if v > 0.99 else f"{v:.2f}".removeprefix("0")
            ax.text(x + 0.93, y + 0.4, said, ha="right", fontsize=17, **style)
    return drawn
