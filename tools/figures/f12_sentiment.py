"""Figures of 12: who stands beside whom, raters, pitch, faces, errors, shares, doubt.

Drawn from the notebook's own variables: it is run once.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import ACCENT, INK, SOFT, WARM, canvas, figure, put, ran
from matplotlib.figure import Figure

GREY = "#9aa5b8"


def book():
    """Return the variables of the notebook."""
    return ran("12_sentiment")


@figure
def sentiment_kinds() -> Figure:
    """The five kinds: how words, voice and face feel, and the label."""
    b = book()
    drawn, ax = canvas(11.4, 4.7)
    for k, name in enumerate(("words", "voice", "face", "label")):
        y = (3.45, 2.65, 1.45, 0.3)[k]
        ax.text(0.1, y, name, va="center", color=SOFT)
    signs = {1: "glad", 0: "flat", -1: "sad"}
    for k, kind in enumerate(b.KINDS):
        x, row = 2.2 + 1.95 * k, b.data[kind][b.shown]
        ax.text(x, 4.35, kind, ha="center", va="center", weight="bold")
        for y, feeling in ((3.45, 1), (2.65, row["heard"])):
            tint = {1: ACCENT, 0: SOFT, -1: WARM}[feeling]
            ax.text(x, y, signs[feeling], ha="center", va="center", color=tint)
        put(ax, row["image"], x - 0.55, 0.9, 1.1)
        tint = ACCENT if row["score"] > 0 else WARM
        said = f"{row['score']:+.1f}".replace("-", "\u2212")
        ax.text(x, 0.3, said, ha="center", va="center", color=tint, weight="bold")
    return drawn


@figure
def sentiment_raters() -> Figure:
    """How the raters of two tweets spread."""
    b = book()
    drawn, axes = plt.subplots(1, 2, figsize=(11.4, 4.0), sharey=True)
    for ax, row in zip(axes, b.pair, strict=True):
        ax.bar(b.SCORES, b.sentiment.histogram(row["ratings"]), color=ACCENT)
        spread = np.std(row["ratings"])
        ax.set_title(f"mean {row['score']:+.1f}, spread {spread:.1f}")
        ax.set(xlabel="score", xticks=[-4, -2, 0, 2, 4])
    axes[0].set_ylabel("share of raters")
    return drawn


@figure
def sentiment_pitch() -> Figure:
    """A frame's likeness to itself, with peaks after one period and two."""
    b = book()
    drawn, ax = plt.subplots(figsize=(11.4, 3.6))
    ax.plot(b.lags, b.curve, color=ACCENT, lw=3)
    period = b.RATE / b.sentiment.pitch(b.said["glad"], b.RATE)[b.place]
    for k in (1, 2):
        ax.axvline(k * period, color=WARM, ls=":", lw=2.4)
        word = ("one period", "two")[k - 1]
        ax.text(k * period + 1, -0.75, word, color=WARM, va="center")
    ax.set(xlabel="shift in samples of 1/8000 s", ylabel="$r$", yticks=[-1, 0, 1])
    return drawn


@figure
def sentiment_tones() -> Figure:
    """Three tones of the same words: pitch over time."""
    b = book()
    drawn, axes = plt.subplots(1, 3, figsize=(11.4, 4.0))
    for ax, (tone, audio) in zip(axes, b.said.items(), strict=True):
        f0 = b.sentiment.pitch(audio, b.RATE)
        time = 0.02 + 0.01 * torch.arange(len(f0))
        ax.plot(time[f0 > 0], f0[f0 > 0], "o", color=WARM, markersize=5)
        seconds = len(audio) / b.RATE
        ax.set(title=tone, xlabel="seconds", yticks=[], xticks=[0, 1])
        ax.set(xlim=(0, seconds), ylim=(0, 600))
    axes[0].set(ylabel="pitch (Hz)", yticks=[0, 200, 400, 600])
    return drawn


@figure
def sentiment_faces() -> Figure:
    """Seven unseen faces in the order in which they are read, sad to glad."""
    b = book()
    drawn, ax = canvas(11.4, 2.9)
    for k, i in enumerate(b.order[::-1]):
        x = 0.2 + 1.6 * k
        put(ax, b.new[b.names[i]], x, 1.05, 1.4)
        for y, said in zip((0.65, 0.2), b.titles[-1 - k].split("\n"), strict=True):
            said = said.replace("-", "\u2212")
            ax.text(x + 0.7, y, said, ha="center", va="center", fontsize=16)
    return drawn


@figure
def sentiment_errors() -> Figure:
    """Errors by kind of the reader, the words alone and the fused model."""
    b = book()
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    each = (
        ("text model as it is", GREY, "text model as it is"),
        ("words", ACCENT, "words alone"),
        ("Gated", WARM, "fused"),
    )
    for k, (name, colour, label) in enumerate(each):
        values = [error.mean().item() for error in b.off[name]]
        places = np.arange(5) + 0.29 * k
        bars = ax.bar(places, values, 0.27, color=colour, label=label)
        said = [f"{value:.2f}" for value in values]
        ax.bar_label(bars, said, padding=3, fontsize=15)
    ax.set_xticks(np.arange(5) + 0.29, b.KINDS)
    ax.set(ylabel="mean absolute error", ylim=(0, 3.9), yticks=[0, 1, 2, 3])
    ax.legend(frameon=False, loc="upper right")
    return drawn


@figure
def sentiment_shares() -> Figure:
    """Each modality's Shapley value by kind, towards the side of the words."""
    b = book()
    drawn, ax = plt.subplots(figsize=(11.4, 4.8))
    for k, (m, colour) in enumerate(zip(b.NAMES, (ACCENT, WARM, GREY), strict=True)):
        values = [b.shares[kind][m] for kind in b.KINDS]
        places = np.arange(5) + 0.29 * k
        bars = ax.bar(places, values, 0.27, color=colour, label=m)
        said = [f"{value:+.2f}".replace("-", "\u2212") for value in values]
        ax.bar_label(bars, said, padding=3, fontsize=14)
    ax.axhline(0, color=INK, lw=1.2)
    ax.set_xticks(np.arange(5) + 0.29, b.KINDS)
    ax.set(ylabel="share", ylim=(-1.5, 1.95), yticks=[-1, 0, 1])
    ax.legend(frameon=False, ncols=3, loc="upper left", fontsize=17)
    return drawn


@figure
def sentiment_sure() -> Figure:
    """How often the side is right, against how sure the model is, in conflicts."""
    b = book()
    drawn, ax = plt.subplots(figsize=(11.4, 4.0))
    ax.plot([0.5, 1], [0.5, 1], color=GREY, ls=":", lw=2.4)
    each = (("soft label", b.fused["Gated"], WARM), ("hard label", b.hard, ACCENT))
    for label, model, colour in each:
        p, true = b.sides(model, b.tests[1:4])
        sure, guess = p.max(dim=1)
        bins = ((sure - 0.5) * 10).long().clamp(max=4)
        there = [k for k in range(5) if (bins == k).sum() >= 8]
        x = [sure[bins == k].mean() for k in there]
        y = [(guess == true)[bins == k].float().mean() for k in there]
        ax.plot(x, y, "o-", color=colour, lw=3, markersize=9, label=label)
    ax.set(xlabel="how sure of the side", ylabel="how often right")
    ax.set(xticks=[0.5, 0.75, 1], yticks=[0.5, 0.75, 1])
    ax.legend(frameon=False, loc="lower right")
    return drawn


@figure
def sentiment_voices() -> Figure:
    """What five voices get for the same sentences in the same tone."""
    b = book()
    drawn, ax = plt.subplots(figsize=(11.4, 4.0))
    found = {voice: b.bootstrap(values) for voice, values in b.bias.items()}
    order = sorted(found, key=lambda voice: found[voice].mean)
    for k, voice in enumerate(order):
        mean, low, high = found[voice]
        heard = voice in ("heart", "deep", "child")
        colour = GREY if heard else WARM
        ax.errorbar(
            mean, k, xerr=[[mean - low], [high - mean]], fmt="o", lw=3, ms=11, c=colour
        )
        said = f"{mean:+.2f}".replace("-", "\u2212")
        ax.text(mean, k + 0.22, said, ha="center", fontsize=16)
    ax.axvline(0, color=INK, lw=1, ls=":")
    ax.set_yticks(range(5), order)
    ax.set(ylim=(-0.5, 4.8), xlabel="score by the voice alone, 30 sentences")
    return drawn
