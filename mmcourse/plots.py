"""Pictures of tensors: arrays and an axes in, the axes out; nothing is shown by itself.

``show(fig, alt=...)`` puts a figure into a notebook together with the words that
describe it, so that a reader who can't see the picture still learns what it says.
"""

import base64
import io
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

plt.style.use("petroff10")  # colours that colour-blind readers can tell apart
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "image.cmap": "viridis",
        "svg.hashsalt": "mmcourse",  # the same figure gives the same SVG
    }
)


def show(figure: Figure | Axes, alt: str) -> None:
    """Display a figure with its alternative text and close it."""
    from IPython.display import display

    display(picture(figure, alt), raw=True)


def picture(figure: Figure | Axes, alt: str, below: str = "") -> dict[str, str]:
    """Render a figure as the HTML image and the text that a notebook stores.

    ``below``: HTML that follows the image, such as a player's.
    """
    if not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the picture shows")
    figure = figure if isinstance(figure, Figure) else figure.get_figure(root=True)
    png = io.BytesIO()
    figure.savefig(png, format="png", bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(png.getvalue()).decode()
    html = (
        f'<img alt="{escape(alt)}" style="max-width:100%" '
        f'src="data:image/png;base64,{data}">'
    )
    return {"text/html": html + below, "text/plain": alt}


def axes(ax: Axes | None = None, width: float = 6.0, height: float = 3.5) -> Axes:
    """Return ``ax``, or the axes of a new figure (inches) where there is none."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def image_grid(
    images: list, titles: list[str] | None = None, columns: int = 8, size: float = 1.1
) -> Figure:
    """Draw pictures (PIL, or (H, W, C)) in rows, with a short title above each."""
    if len(images) == 0:
        raise ValueError("no images: pass at least one")
    rows = -(-len(images) // columns)
    extra = 0.35 if titles is not None else 0.0
    figure, cells = plt.subplots(
        rows,
        columns,
        figsize=(columns * size, rows * (size + extra)),
        squeeze=False,
    )
    for cell in cells.flat:
        cell.axis("off")
    for i, (cell, image) in enumerate(zip(cells.flat, images, strict=False)):
        cell.imshow(np.asarray(image))
        if titles is not None:
            cell.set_title(titles[i], fontsize=8)
    return figure


def matrix(
    values: np.ndarray,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix (R, C) as coloured cells with a colour bar called ``label``."""
    ax = axes(ax, 4.5, 3.8)
    drawn = ax.imshow(np.asarray(values), aspect="auto")
    ax.get_figure(root=True).colorbar(drawn, ax=ax, label=label)
    if rows is not None:
        ax.set_yticks(range(len(rows)), rows)
    if columns is not None:
        ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    ax.spines[:].set_visible(False)
    return ax


def waveform(audio: np.ndarray, sample_rate: int, ax: Axes | None = None) -> Axes:
    """Draw samples (T,) against time in seconds."""
    ax = axes(ax, 7.0, 1.8)
    ax.plot(np.arange(len(audio)) / sample_rate, audio, linewidth=0.6)
    ax.set(xlabel="time (s)", ylabel="amplitude")
    return ax


def spectrogram(
    values: np.ndarray, seconds: float, label: str, ax: Axes | None = None
) -> Axes:
    """Draw a spectrogram (bands, F) with time in seconds below and ``label`` beside."""
    ax = axes(ax, 7.0, 2.6)
    extent = (0, seconds, 0, values.shape[0])
    ax.imshow(values, origin="lower", aspect="auto", extent=extent)
    ax.set(xlabel="time (s)", ylabel=label)
    return ax


def bars(
    values: dict[str, float],
    label: str,
    errors: dict[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw named values as horizontal bars, each with its number at the end."""
    ax = axes(ax, 6.0, 0.5 + 0.4 * len(values))
    names = list(values)[::-1]
    spread = None if errors is None else [errors.get(n, 0.0) for n in names]
    drawn = ax.barh(names, [values[n] for n in names], xerr=spread)
    ax.bar_label(drawn, fmt=_number, padding=4)
    ax.set(xlabel=label)
    ax.margins(x=0.12)
    return ax


def _number(value: float) -> str:
    """Write 0.0123, 45.6 and 38,399: three digits, but no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
