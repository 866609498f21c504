"""Figures of 00: the course and the search."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from base import (
    ACCENT,
    SOFT,
    TINTS,
    arrow,
    box,
    canvas,
    emoji,
    figure,
    pairs_of_bars,
    picture,
    put,
    ran,
)
from matplotlib.figure import Figure
from PIL import Image

from mmcourse import emojis


def welcome() -> SimpleNamespace:
    """Return the variables of the first notebook."""
    return ran("00_welcome")


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
    for i, q in enumerate(n.chosen[:5]):
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
