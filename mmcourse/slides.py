"""The decks as a program sees them: slides/NN_topic.md becomes HTML and PDF.

Marp draws the slides, mathematics included; what is added here is that one HTML file
holds its pictures, so that it can be mailed and opened without a network.
"""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mmcourse import notebooks

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "slides"
BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    *("chrome", "msedge", "microsoft-edge"),
)
SECONDS = 120


class SlidesError(RuntimeError):
    """A deck can't be built: one sentence that says why, and the mend."""


def build(numbers: Iterable[str] | None, out: Path, pdf: bool) -> list[Path]:
    """Build the decks with these numbers ("00,01"; None is all) into ``out``.

    Each becomes one HTML file that loads nothing; with ``pdf`` also a PDF that holds
    the speaker notes as annotations. SlidesError where something is missing.
    """
    decks = notebooks.select(numbers, FOLDER, ".md", "deck")
    marp, browser = find_marp(), find_browser() if pdf else None
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for deck in decks:
        page = out / f"{deck.stem}.html"
        _run(marp, deck, page)
        page.write_text(inline(page.read_text("utf-8")), "utf-8")
        written.append(page)
        if browser is not None:
            sheets = page.with_suffix(".pdf")
            _run(marp, deck, sheets, "--pdf", "--pdf-notes", CHROME_PATH=browser)
            written.append(sheets)
    return written


def find_marp() -> str:
    """Return where marp is: in the clone's node_modules, or on PATH."""
    local = shutil.which("marp", path=str(ROOT / "node_modules" / ".bin"))
    found = local or shutil.which("marp")
    if found is None:
        raise SlidesError(
            "marp, which turns Markdown into slides, is not installed: "
            f"`npm install @marp-team/marp-cli` in {ROOT} (it needs Node 18 or later)"
        )
    return found


def find_browser() -> str:
    """Return the browser that prints the PDF: $CHROME_PATH, or one on PATH."""
    for name in (os.environ.get("CHROME_PATH", ""), *BROWSERS):
        if found := shutil.which(name):
            return found
    raise SlidesError(
        "PDF is printed by a browser and none is on PATH: install Chromium or Chrome, "
        "or set CHROME_PATH to one; HTML needs none"
    )


def inline(html: str, folder: Path = FOLDER) -> str:
    """Put the pictures of figures/ into the page that shows them."""

    def data(found: re.Match) -> str:
        try:
            picture = (folder / found.group()).read_bytes()
        except FileNotFoundError as error:
            raise SlidesError(
                f"there is no {folder.name}/{found.group()}: "
                "`python tools/figures` draws the figures"
            ) from error
        return "data:image/svg+xml;base64," + base64.b64encode(picture).decode()

    return re.sub(r"""(?<=["'(;])figures/[\w-]+\.svg""", data, html)


def _run(marp: str, deck: Path, target: Path, *options: str, **settings: str) -> None:
    """Run marp on a deck; the last lines it printed say what went wrong."""
    command = [marp, "--config-file", str(ROOT / "package.json"), "--no-stdin"]
    command += ["--allow-local-files", *options, "-o", str(target.resolve())]
    try:
        done = subprocess.run(
            [*command, "--", str(deck)],
            env={**os.environ, **settings},
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise SlidesError(
            f"marp took more than {SECONDS} s over {deck.name}: does the browser run? "
            "(in a container it may need CHROME_NO_SANDBOX=1)"
        ) from error
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SlidesError(
            f"marp failed on {deck.name} with exit code {done.returncode}: "
            f"{' '.join(said[-2:])}"
        )
