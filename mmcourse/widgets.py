"""Explorers: something to drag or type that changes a picture at once.

The picture is an ordinary output of its cell, updated in place, so a stored notebook
shows it even where no kernel runs. Used by every notebook.
"""

import base64
import io
from collections.abc import Callable
from html import escape

import ipywidgets
import numpy as np
from IPython.display import HTML, display

from mmcourse import plots


def explorer(draw: Callable[..., tuple], **controls: ipywidgets.Widget) -> None:
    """Show controls and, below them, what ``draw`` makes of their values.

    ``draw(**values)`` returns a figure and its alternative text, and may return HTML
    that goes below, such as a player's. It runs once now and again whenever a control
    changes; a ValueError is shown in place of the picture.
    """
    display(ipywidgets.VBox([*controls.values()]))
    handle = display(_answer(draw, controls), raw=True, display_id=True)

    def redraw(_) -> None:
        if handle is not None:  # outside a notebook nothing can be updated
            handle.update(_answer(draw, controls), raw=True)

    for control in controls.values():
        control.observe(redraw, names="value")


def page(draw: Callable[..., tuple], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Return an explorer as one widget: voila doesn't update an output of a cell."""
    shown = ipywidgets.HTML(_answer(draw, controls)["text/html"])

    def redraw(_) -> None:
        shown.value = _answer(draw, controls)["text/html"]

    for control in controls.values():
        control.observe(redraw, names="value")
    return ipywidgets.VBox([*controls.values(), shown])


def _answer(draw: Callable, controls: dict[str, ipywidgets.Widget]) -> dict[str, str]:
    """Return the picture of what the controls say, or why there is none."""
    try:
        return plots.picture(*draw(**{n: c.value for n, c in controls.items()}))
    except ValueError as error:
        why = str(error)
        return {"text/html": f"<p>{escape(why)}</p>", "text/plain": why}


def play(audio, sample_rate: int, label: str) -> HTML:
    """Return a player for samples (T,) in [-1, 1], with a label in words."""
    import soundfile

    samples = np.asarray(audio)
    fit = samples.ndim == 1 and samples.size > 0 and samples.dtype.kind == "f"
    if not fit or not np.isfinite(samples).all():
        raise ValueError(
            f"audio of shape {samples.shape} and type {samples.dtype}: play takes one "
            "row of finite floats (T,) in [-1, 1]"
        )
    wav = io.BytesIO()
    soundfile.write(wav, samples.clip(-1, 1), sample_rate, "PCM_16", format="WAV")
    data = base64.b64encode(wav.getvalue()).decode()
    return HTML(
        f"<figure><figcaption>{escape(label)}</figcaption>"
        f'<audio controls aria-label="{escape(label)}" '
        f'src="data:audio/wav;base64,{data}"></audio></figure>'
    )
