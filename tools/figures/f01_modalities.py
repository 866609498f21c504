"""Figures of 01: one thing as text, picture, sound and clip."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from base import (
    ACCENT,
    SOFT,
    canvas,
    draw_tokens,
    emoji,
    figure,
    framed,
    picture,
    ran,
)
from matplotlib.figure import Figure

from mmcourse import modalities, plots, tokenizers


def modality() -> SimpleNamespace:
    """Return the variables of the second notebook."""
    return ran("01_modalities")


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
