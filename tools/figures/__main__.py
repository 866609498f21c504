"""Draw every figure of the decks into slides/figures/, from what the notebooks found.

    python tools/figures            all of them
    python tools/figures search     those whose name begins so

A figure takes its data and its numbers from the variables of the notebook that its
deck belongs to, so that a slide can't say anything else than the notebook does. Each
deck's figures stand in a file of its notebook's number.
"""

import importlib
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from base import FIGURES, SLIDE
from matplotlib import font_manager

OUT = Path(__file__).resolve().parents[2] / "slides" / "figures"


def main(wanted: list[str]) -> None:
    """Draw the figures whose names begin with one of ``wanted``; all if none."""
    for file in sorted(Path(__file__).parent.glob("f[0-9]*.py")):
        importlib.import_module(file.stem)
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


if __name__ == "__main__":
    main(sys.argv[1:])
