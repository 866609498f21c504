"""Draw every figure of the decks into slides/figures/, from what the notebooks found.

    python tools/figures.py            all of them
    python tools/figures.py search     those whose name begins so

A figure takes its data and its numbers from the variables of the notebook that its
deck belongs to, so that a slide can't say anything else than the notebook does.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from mmcourse import assets, emojis, modalities, notebooks, plots, tokenizers

OUT = Path(__file__).resolve().parents[1] / "slides" / "figures"
INK, SOFT, ACCENT, WARM = "#1c2330", "#566072", "#2f5fb3", "#b3541e"
TINTS = ("#dbe7fb", "#fbe3d2", "#dff2df", "#efe3f7", "#fdf3c7", "#dff3f5")
SLIDE = {
    "font.family": ["DejaVu Sans", "Noto Sans CJK JP"],
    "font.size": 20,
    "axes.titlesize": 21,
    "axes.labelsize": 20,
    "figure.constrained_layout.w_pad": 0.12,
    "svg.fonttype": "path",  # no font has to be where the deck is shown
    "text.color": INK,
}
MONO = ["DejaVu Sans Mono", "Noto Sans CJK JP"]
FIGURES: dict[str, Callable[[], Figure]] = {}


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function that draws slides/figures/<its name>.svg."""
    FIGURES[draw.__name__] = draw
    return draw


def main(wanted: list[str]) -> None:
    """Draw the figures whose names begin with one of ``wanted``; all if none."""
    OUT.mkdir(parents=True, exist_ok=True)
    for font in font_manager.findSystemFonts():  # matplotlib's list may be older
        if "NotoSansCJK-Regular" in font:
            font_manager.fontManager.addfont(font)
    for name, draw in FIGURES.items():
        if wanted and not name.startswith(tuple(wanted)):
            continue
        with plt.rc_context(SLIDE):
            drawn = draw()
            path = OUT / f"{name}.svg"
            drawn.savefig(path, dpi=110, metadata={"Date": None, "Creator": None})
        plt.close(drawn)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


@cache
def ran(name: str) -> SimpleNamespace:
    """Run a notebook's cells in this process and return its variables."""
    print(f"running {name}")
    os.environ["TQDM_DISABLE"] = "1"
    variables = {"__name__": name}
    stored = notebooks.read(notebooks.FOLDER / f"{name}.ipynb")
    for cell in stored.cells:
        skipped = {"nbval-skip", "exercise", "check"} & {*cell.metadata.get("tags", ())}
        if cell.cell_type != "code" or skipped:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(cell.source, f"{name}:{cell.id}", "exec"), variables)
        plt.close("all")
    return SimpleNamespace(**variables)


def welcome() -> SimpleNamespace:
    """Return the variables of the first notebook."""
    return ran("00_welcome")


def modality() -> SimpleNamespace:
    """Return the variables of the second notebook."""
    return ran("01_modalities")


# --- what the figures share ---------------------------------------------------------


def canvas(width: float = 11.4, height: float = 4.8) -> tuple[Figure, Axes]:
    """Return a figure whose axes, without lines, measure in inches."""
    drawn = plt.figure(figsize=(width, height), layout="none")
    ax = drawn.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return drawn, ax


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str, tint: int = 0):
    """Draw a rounded box with words in it; (x, y) is its lower left corner."""
    style = "round,pad=0,rounding_size=0.12"
    colour = TINTS[tint % len(TINTS)]
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=colour, ec="none"))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", linespacing=1.35)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "mutation_scale": 24, "lw": 2.4, "color": SOFT}
    ax.add_patch(FancyArrowPatch(start, end, **style))


def put(ax: Axes, image: Image.Image, x: float, y: float, size: float) -> None:
    """Put a square picture on a canvas; (x, y) is its lower left corner."""
    ax.imshow(image, extent=(x, x + size, y, y + size), interpolation="lanczos")
    ax.set(xlim=(0, ax.figure.get_figwidth()), ylim=(0, ax.figure.get_figheight()))


def emoji(symbol: str, size: int = 192, hand: str = "openmoji") -> Image.Image:
    """Draw one emoji as one of the two design schools does."""
    stem = {"openmoji": "{:04X}", "twemoji": "{:x}"}[hand]
    path = emojis.drawing(symbol, assets.path(hand), stem)
    return Image.open(io.BytesIO(emojis.render(path, size))).convert("RGB")


def picture(ax: Axes, image, title: str = "") -> None:
    """Show a picture without axes."""
    ax.imshow(np.asarray(image), interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")


def framed(ax: Axes, image, side: int | None = None) -> None:
    """Show a picture in a frame, under a grid of squares if they have a side."""
    ax.imshow(np.asarray(image), interpolation="nearest")
    lines = [] if side is None else np.arange(0, image.shape[1] + 1, side) - 0.5
    ax.set(xticks=lines, yticks=lines, xticklabels=[], yticklabels=[])
    ax.tick_params(length=0)
    if side is not None:
        ax.grid(color="grey", linewidth=0.7)
    ax.spines[:].set_visible(True)


def draw_tokens(ax: Axes, x: float, y: float, pieces: list[str], unit: float = 0.2):
    """Draw the pieces of a text as coloured boxes in a row."""
    for i, piece in enumerate(pieces):
        shown = piece.replace(" ", "·")
        w = unit * len(shown) + 0.16
        box(ax, x, y, w, 0.56, "", 3 if piece == "<unk>" else i % 3)
        ax.text(x + w / 2, y + 0.27, shown, ha="center", va="center", family=MONO)
        x += w + 0.06


def pairs_of_bars(ax: Axes, groups: dict[str, dict[str, float]], label: str) -> None:
    """Draw bars side by side: a group for each name, a colour for each key in it."""
    inner = list(next(iter(groups.values())))
    for i, key in enumerate(inner):
        values = [group[key] for group in groups.values()]
        places = np.arange(len(groups)) + (i - (len(inner) - 1) / 2) * 0.38
        drawn = ax.bar(places, values, 0.34, label=key)
        said = [f"{v:.2f}" if v >= 0.1 else f"{v:.2g}" for v in values]
        ax.bar_label(drawn, said, padding=3, fontsize=18)
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylabel=label, ylim=(0, 1))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.15)}
    ax.legend(frameon=False, ncols=len(inner), **place)


# --- 00: the course and the search --------------------------------------------------


@figure
def one_or_many() -> Figure:
    """Each modality with a model of its own, and one model for all."""
    drawn, ax = canvas(11.4, 4.6)
    kinds = ("text", "image", "sound", "video")
    for i, kind in enumerate(kinds):
        y = 3.6 - 1.15 * i
        box(ax, 0.1, y, 1.6, 0.85, kind, i)
        arrow(ax, (1.75, y + 0.42), (2.35, y + 0.42))
        box(ax, 2.4, y, 2.0, 0.85, "a model", i)
        box(ax, 6.1, y, 1.6, 0.85, kind, i)
        arrow(ax, (7.75, y + 0.42), (8.55, 2.3 + 0.35 * (1.5 - i)))
    box(ax, 8.65, 1.3, 2.6, 2.0, "one model\nthat relates\nthem", 4)
    return drawn


@figure
def search_example() -> Figure:
    """A query and the six unseen pictures that the trained search puts first."""
    drawn, ax = canvas(11.4, 4.0)
    query = "sea animal"
    box(ax, 2.2, 2.9, 7.0, 1.0, "", 0)
    ax.text(5.7, 3.38, f"“{query}”", ha="center", va="center", fontsize=28)
    for k, place in enumerate(best(query, 6)):
        put(ax, drawn_well(place), 0.15 + 1.88 * k, 0.5, 1.7)
    return drawn


@figure
def search_queries() -> Figure:
    """Queries in words that are no keyword, and what comes first."""
    return searches(["what time is it", "I am so tired", "something to drink"], 4.9)


@figure
def search_miss() -> Figure:
    """A query that fails, and four unseen pictures that would have been right."""
    drawn = searches(["a musical instrument"], 3.6)
    ax, names = drawn.axes[0], welcome().unseen["name"]
    ax.text(0.2, 0.9, "in the pool, not found", va="center", color=SOFT)
    for k, name in enumerate(("harp", "flute", "accordion", "long drum")):
        put(ax, drawn_well(names.index(name)), 4.35 + 1.2 * k, 0.4, 1.0)
    return drawn


def searches(queries: list[str], height: float) -> Figure:
    """Draw queries and, beside each, its six best pictures."""
    drawn, ax = canvas(11.4, height)
    for i, query in enumerate(queries):
        y = height - 1.35 - 1.6 * i
        box(ax, 0.1, y, 3.9, 1.0, "", 0)
        ax.text(2.05, y + 0.48, f"“{query}”", ha="center", va="center")
        for k, place in enumerate(best(query, 6)):
            put(ax, drawn_well(place), 4.35 + 1.2 * k, y, 1.0)
    return drawn


def best(query: str, k: int) -> list[int]:
    """Return the places of the ``k`` unseen things that fit a query best."""
    n = welcome()
    vector = n.encode_text([query])
    scores = sum(n.score(run, vector, n.unseen_pictures) for run in n.runs)[0]
    return scores.topk(k).indices.tolist()


def drawn_well(place: int) -> Image.Image:
    """Draw an unseen thing larger than the notebook needs it."""
    return emoji(welcome().unseen[place]["emoji"])


@figure
def two_hands() -> Figure:
    """The same things drawn by two design schools."""
    drawn, ax = canvas(11.4, 4.4)
    for y, title, hand in ((2.5, "OpenMoji", "openmoji"), (0.3, "Twemoji", "twemoji")):
        ax.text(0.1, y + 0.8, title, va="center", color=SOFT)
        for k, thing in enumerate("🐱🎻🏥🌈🍕🦉"):
            put(ax, emoji(thing, hand=hand), 1.9 + 1.6 * k, y, 1.5)
    return drawn


@figure
def one_concept() -> Figure:
    """Many drawings, one concept: they must stay on one side of the split."""
    about = emojis.concept("🧑\u200d🚀")
    kin = [e for e in emojis.table() if emojis.concept(e) == about]
    drawn, ax = canvas(11.4, 3.1)
    for i, one in enumerate(kin):
        line, k = divmod(i, -(-len(kin) // 2))
        put(ax, emoji(one), 0.1 + 1.25 * k, 1.7 - 1.5 * line, 1.2)
    return drawn


@figure
def two_encoders() -> Figure:
    """Two frozen encoders, two trained projections, one space."""
    n = welcome()
    drawn, ax = canvas(11.4, 4.6)
    put(ax, emoji("🚀"), 0.1, 2.8, 1.5)
    ax.text(0.85, 0.95, "“rocket:\nlaunch,\nspace …”", ha="center", va="center")
    rows = (
        (2.8, "image encoder\nEfficientNet", n.pictures.shape[-1]),
        (0.2, "text encoders\nMiniLM + USE", n.texts.shape[-1]),
    )
    for y, encoder, width in rows:
        box(ax, 2.3, y, 2.7, 1.5, f"{encoder}\n(frozen)", 0)
        box(ax, 6.2, y, 2.1, 1.5, "projection\n(trained)", 1)
        arrow(ax, (1.7, y + 0.75), (2.25, y + 0.75))
        arrow(ax, (5.05, y + 0.75), (6.15, y + 0.75))
        ax.text(5.6, y + 1.05, f"{width:,}", ha="center", fontsize=18, color=SOFT)
        arrow(ax, (8.35, y + 0.75), (9.2, 2.3 + 0.45 * np.sign(y - 1)))
    ax.add_patch(plt.Circle((10.25, 2.3), 1.1, fc=TINTS[2], ec="none"))
    width = n.heads[0].linear.out_features
    ax.text(10.25, 2.3, f"one space\n{width} numbers", ha="center", va="center")
    return drawn


@figure
def multiple_choice() -> Figure:
    """Six seen pictures and their texts: the cosines after training."""
    n, drawn = welcome(), plt.figure(figsize=(6.8, 5.3))
    wanted = ("cat face", "violin", "hospital", "rainbow", "bicycle", "guitar")
    rows = [row["name"] for row in n.rows]
    wanted = [name for name in wanted if name in rows]
    places = [rows.index(name) for name in wanted]
    cosines = n.score(n.heads, n.described[places], n.pictures[:, places])
    ax = drawn.subplots()
    ax.imshow(cosines)
    ax.set_yticks(range(len(wanted)), wanted)
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    for i, place in enumerate(places):
        inset = ax.inset_axes(
            ((i + 0.12) / len(places), 1.02, 0.76 / len(places), 0.16)
        )
        picture(inset, emoji(n.rows[place]["emoji"]))
    return drawn


@figure
def loss_curve() -> Figure:
    """The contrastive loss from chance to nearly nothing."""
    drawn, ax = plt.subplots(figsize=(10, 4.4))
    ax.plot(welcome().losses, lw=3)
    ax.axhline(np.log(256), color=SOFT, linestyle="--", label="chance: ln 256")
    ax.set(xlabel="step", ylabel="InfoNCE loss", ylim=(0, 6.2))
    ax.legend(frameon=False)
    return drawn


@figure
def search_results() -> Figure:
    """R@1 and R@10 of the search beside its baselines."""
    n = welcome()
    size = len(n.unseen)
    ways = {"chance": lambda k: k / size}
    for name in ("shuffled", "words alone"):
        ways[name] = lambda k, name=name: n.recall_at_k(n.others[name], k)
    ways["search"] = lambda k: n.recall_at_k(n.together, k)
    groups = {name: {f"R@{k}": way(k) for k in (1, 10)} for name, way in ways.items()}
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    pairs_of_bars(ax, groups, f"recall among {size}")
    return drawn


@figure
def search_hits() -> Figure:
    """Five descriptions and the six pictures that score best; the right one framed."""
    n = welcome()
    drawn, ax = canvas(11.4, 5.5)
    for i, q in enumerate(n.chosen):
        y = 4.5 - 1.1 * i
        ax.text(3.6, y + 0.45, n.unseen[q]["name"], ha="right", va="center")
        for k, place in enumerate(n.together[q].topk(6).indices.tolist()):
            x = 4.0 + 1.2 * k
            put(ax, drawn_well(place), x, y, 0.92)
            if place == q:
                frame = {"fc": "none", "ec": "#2e8b57", "lw": 4}
                ax.add_patch(plt.Rectangle((x - 0.03, y - 0.03), 0.98, 0.98, **frame))
    return drawn


@figure
def other_hand() -> Figure:
    """R@10 in either set of drawings, by what the search was trained on."""
    n, groups = welcome(), {}
    runs = {"trained on OpenMoji": n.only_openmoji, "trained on both": n.heads}
    for name, run in runs.items():
        pools = n.unseen_pictures.split(1)
        found = [n.recall_at_k(n.score(run, n.unseen_texts, p), 10) for p in pools]
        groups[name] = {"OpenMoji drawings": found[0], "Twemoji drawings": found[1]}
    drawn, ax = plt.subplots(figsize=(10, 4.4))
    pairs_of_bars(ax, groups, "R@10")
    return drawn


@figure
def course_map() -> Figure:
    """The twenty notebooks in six parts."""
    drawn, ax = canvas(11.4, 5.0)
    parts = (
        ("foundations", "00 welcome\n01 modalities"),
        ("the Transformer", "02 self-attention\n03 transformer\n04 vision transformer"),
        ("fusion", "05 fusion\n06 multimodal\n     transformer"),
        ("pretraining", "07 contrastive\n08 multimodal\n     pretraining"),
        (
            "applications",
            "09 retrieval\n10 captioning\n11 visual questions\n"
            "12 sentiment\n13 vision-language",
        ),
        (
            "in practice",
            "14 evaluation\n15 interpretability\n16 efficiency\n"
            "17 few labels\n18 scaling out\n19 capstone",
        ),
    )
    for i, (title, inside) in enumerate(parts):
        x, y = 0.1 + 3.8 * (i % 3), 2.9 - 2.85 * (i // 3)
        h = 2.0 if i < 3 else 2.7
        box(ax, x, y, 3.6, h, "", i)
        ax.text(x + 0.2, y + h - 0.32, title, weight="bold", va="center", color=ACCENT)
        ax.text(x + 0.2, y + h - 0.6, inside, va="top", linespacing=1.3, fontsize=17)
    return drawn


# --- 01: modalities -------------------------------------------------------------------


@figure
def one_thing() -> Figure:
    """One thing as words, picture, sound and clip."""
    n = modality()
    cells = [["words", "image", "audio"], ["video", "video", "video"]]
    drawn, ax = plt.subplot_mosaic(
        cells, figsize=(11.4, 5.0), width_ratios=(1, 1, 1.6), height_ratios=(1.8, 1)
    )
    names = [n.rocket["names"][k] for k in ("en", "zh", "de", "ru")]
    ax["words"].text(0.5, 0.5, "\n".join(names), ha="center", va="center", fontsize=26)
    ax["words"].set_title("text")
    ax["words"].axis("off")
    picture(ax["image"], emoji(n.rocket["emoji"]), "picture")
    plots.waveform(n.voice.numpy(), 24_000, ax["audio"])
    ax["audio"].set(title="sound", yticks=[], ylabel="")
    clip = torch.cat([*n.four["video"][0]], dim=-1)
    ax["video"].imshow(clip.permute(1, 2, 0))
    sides = [64 * f - 0.5 for f in range(9)]
    ax["video"].set(title="clip", xticks=sides, xticklabels=[], yticks=[])
    return drawn


@figure
def three_cuts() -> Figure:
    """One sentence cut into characters, words and byte pairs, and what each costs."""
    n = modality()
    drawn, ax = canvas(11.4, 4.9)
    for i, (kind, tokenizer) in enumerate(n.kinds.items()):
        y = 4.25 - 1.68 * i
        ids = [tokenizer.encode(text) for text in n.tweets["test"]["text"]]
        lost = sum(row.count(tokenizers.UNK) for row in ids) / sum(map(len, ids))
        told = f"V = {tokenizer.vocab_size:,}    L = {np.mean([*map(len, ids)]):.1f}"
        ax.text(0.1, y + 0.3, kind, va="center", weight="bold", color=ACCENT)
        ax.text(2.6, y + 0.3, f"{told}    unknown {lost:.1%}", va="center", color=SOFT)
        draw_tokens(ax, 0.1, y - 0.72, tokenizer.tokens("My astrokitten loves it"))
    return drawn


@figure
def merges() -> Figure:
    """Four words after none, one, two and three merges."""
    counts = {"moon": 4, "noon": 3, "soon": 2, "mood": 1}
    corpus = [word for word, times in counts.items() for _ in range(times)]
    drawn, ax = canvas(11.4, 4.4)
    for k, (word, times) in enumerate(counts.items()):
        ax.text(2.6 + 2.25 * k, 4.05, f"{times} × {word}", va="center", color=SOFT)
    for step in range(4):
        y = 3.05 - 0.95 * step
        tokenizer = tokenizers.BytePairTokenizer.train(corpus, 260 + step)
        new = f"+ {tokenizer.vocab[-1]}" if step else "letters"
        ax.text(0.1, y + 0.28, new, va="center", weight="bold", color=ACCENT)
        for k, word in enumerate(counts):
            draw_tokens(ax, 2.6 + 2.25 * k, y, tokenizer.tokens(word))
    return drawn


@figure
def tokens_per_name() -> Figure:
    """What an unseen name costs in 14 languages, by what a tokenizer was trained on."""
    cost = modality().cost
    order = sorted(cost, key=lambda tongue: cost[tongue][0])
    drawn, ax = plt.subplots(figsize=(11.4, 4.4))
    for k, on in enumerate(("English names", "names in 14 languages")):
        places = np.arange(len(order)) + 0.4 * k - 0.2
        ax.bar(places, [cost[t][k] for t in order], 0.4, label=f"trained on {on}")
    ax.set_xticks(range(len(order)), order)
    ax.set(ylabel="tokens per name")
    ax.legend(frameon=False)
    return drawn


@figure
def patches() -> Figure:
    """A picture with the grid of its patches, and the patches as a sequence."""
    n = modality()
    wide = torch.ones(3, 4 * 12, 16 * 12)
    for i, patch in enumerate(n.patches[0].reshape(-1, 3, 8, 8)):
        y, x = divmod(i, 16)
        wide[:, 12 * y + 2 : 12 * y + 10, 12 * x + 2 : 12 * x + 10] = patch * 0.9
    drawn, axes = plt.subplots(1, 2, figsize=(11.4, 4.0), width_ratios=(1, 2.2))
    framed(axes[0], n.image[0].permute(1, 2, 0), 8)
    axes[0].set_title("3 × 64 × 64 pixels")
    picture(
        axes[1], wide.permute(1, 2, 0), "N = {}, D = {}".format(*n.patches.shape[1:])
    )
    return drawn


@figure
def shuffled() -> Figure:
    """A picture, and the same patches in another order."""
    n = modality()
    mixed = modalities.unpatchify(n.mixed, 8)
    drawn, axes = plt.subplots(1, 2, figsize=(8.6, 4.2))
    for ax, x in zip(axes, (n.image, mixed), strict=True):
        framed(ax, x[0].permute(1, 2, 0))
    return drawn


@figure
def hearing() -> Figure:
    """A spoken word as samples, as power spectrogram and as log-mel."""
    n = modality()
    drawn, axes = plt.subplots(1, 3, figsize=(11.4, 4.0))
    plots.waveform(n.voice.numpy(), 24_000, axes[0])
    axes[0].set(ylabel="", yticks=[])
    plots.spectrogram(n.decibel.numpy(), n.seconds, "frequency bin", axes[1])
    shown = n.log_mel[0].clamp(min=-14).numpy()
    plots.spectrogram(shown, n.seconds, "mel band", axes[2])
    titles = (f"{len(n.voice):,} samples", "{} × {}", "{} × {}")
    for ax, title, x in zip(axes, titles, (n.voice, n.power, n.log_mel), strict=True):
        ax.set_title(title.format(*x.shape[1:]))
    return drawn


@figure
def what_is_lost() -> Figure:
    """The spectrogram of a word, and those that 80 and 20 mel bands lead back to."""
    n = modality()
    shown = {"original": n.power}
    for bands in (80, 20):
        kept = modalities.log_mel(n.voice[None], mels=bands).exp()
        off = n.off[f"from {bands} mel bands"][1]
        title = f"from {bands} mel bands:\noff by {off:.2f}"
        shown[title] = modalities.mel_to_spectrogram(kept)
    drawn, axes = plt.subplots(1, 3, figsize=(11.4, 4.2), sharey=True)
    for ax, (title, power) in zip(axes, shown.items(), strict=True):
        decibel = 10 * (power[0, :200] + 1e-6).log10()
        plots.spectrogram(decibel.numpy(), n.seconds, "", ax)
        ax.set_title(title)
    axes[0].set_ylabel("frequency bin")
    return drawn


@figure
def two_voices() -> Figure:
    """One word by two pseudo-voices, as samples and as log-mel."""
    n = modality()
    drawn, axes = plt.subplots(2, 2, figsize=(11.4, 3.9), sharex=True)
    for (wave, mel), who in zip(axes.T, ("heart", "child"), strict=True):
        voice = n.datasets.speak("rocket", voice=who)
        plots.waveform(voice.numpy(), 24_000, wave)
        kept = modalities.log_mel(voice[None])[0].clamp(min=-14)
        plots.spectrogram(kept.numpy(), len(voice) / 24_000, "mel band", mel)
        wave.set(title=f"pseudo-voice “{who}”", xlabel="", ylabel="", yticks=[])
    return drawn


@figure
def tubelets() -> Figure:
    """A clip in tubelets: one square goes on through two frames."""
    clip = modality().four["video"][0]
    drawn, axes = plt.subplots(2, 4, figsize=(8.4, 4.7))
    for f, (ax, frame) in enumerate(zip(axes.flat, clip, strict=True)):
        framed(ax, frame.permute(1, 2, 0), 8)
        ax.set_title(f"frame {f}")
        if f in (2, 3):
            square = {"fc": "none", "ec": "#c800c8", "lw": 5}
            ax.add_patch(plt.Rectangle((23.5, 31.5), 8, 8, **square))
    return drawn


@figure
def motion() -> Figure:
    """A clip's middle frame, and its last frame minus its first."""
    n = modality()
    drawn, axes = plt.subplots(1, 4, figsize=(11.4, 3.2))
    for ax, f in zip(axes, (0, 4, 7), strict=False):
        framed(ax, n.example[f].permute(1, 2, 0))
        ax.set_title(f"frame {f}" + (" (middle)" if f == 4 else ""))
    framed(axes[3], np.zeros((1, 1)))
    axes[3].imshow(n.change, cmap="RdBu", vmin=-1, vmax=1)
    axes[3].set_title("last minus first")
    return drawn


@figure
def density() -> Figure:
    """Bytes of the same things before and after lossless compression."""
    n = modality()
    drawn, ax = plt.subplots(figsize=(11.4, 4.4))
    for i, (kind, parts) in enumerate(reversed(n.raw.items())):
        sizes = {"raw": np.mean([*map(len, parts)]), "compressed": n.size[kind]}
        for (label, size), shift, colour in zip(
            sizes.items(), (0.2, -0.2), ("#a9c1ea", ACCENT), strict=True
        ):
            bar = ax.barh(i + shift, size, 0.38, color=colour, label=label)
            ax.bar_label(bar, [f"{size:,.0f}"], padding=5)
    ax.set_yticks(range(len(n.raw)), reversed(n.raw))
    ax.set(xscale="log", xlim=(1, 8e5), xlabel="bytes per thing (logarithmic)")
    ax.legend(*[x[:2] for x in ax.get_legend_handles_labels()], frameon=False)
    return drawn


@figure
def twins() -> Figure:
    """Twemoji drawings, their OpenMoji twins, and what is nearest in pixels."""
    n = modality()
    rows = {"Twemoji": [n.drawn["Twemoji"][i]["image"] for i in n.lost]}
    rows["its twin"] = [n.drawn["OpenMoji"][i]["image"] for i in n.lost]
    rows["nearest"] = [n.drawn["OpenMoji"][int(n.nearest[i])]["image"] for i in n.lost]
    drawn, axes = plt.subplots(3, len(n.lost), figsize=(9.6, 4.4))
    for line, (title, found) in zip(axes, rows.items(), strict=True):
        for ax, one in zip(line, found, strict=True):
            picture(ax, one)
        beside = {"ha": "right", "va": "center", "transform": line[0].transAxes}
        line[0].text(-0.3, 0.5, title, **beside)
    return drawn


if __name__ == "__main__":
    main(sys.argv[1:])
