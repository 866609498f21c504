import re
import stat
import sys
import zlib
from pathlib import Path

import pytest

from mmcourse import notebooks, slides
from mmcourse.notebooks import NotebookError

DECKS = sorted(slides.FOLDER.glob("*.md"))
NAMES = [deck.stem for deck in DECKS]
PICTURE = re.compile(r"!\[(.*?)\]\((.*?)\)", re.DOTALL)
each_deck = pytest.mark.parametrize("deck", DECKS, ids=NAMES)

FRONT = "---\nmarp: true\ntheme: mmcourse\nlang: en\ntitle: A test\n---\n\n"
OVERFULL = FRONT + "\n\n---\n\n".join(
    [
        "## Fits",
        "## Too many lines\n\n" + "- one line more\n" * 20,
        "## Too wide\n\n`" + "wide" * 60 + "`",
        "<!-- _class: question -->\n\n## Too high in the middle\n\n" + "a line\n\n" * 9,
    ]
)


def front_matter(deck: Path) -> dict[str, str]:
    head = deck.read_text("utf-8").split("---\n")[1]
    return dict(line.split(": ", 1) for line in head.strip().splitlines())


def slides_of(deck: Path) -> list[str]:
    body = deck.read_text("utf-8").split("---\n", 2)[2]
    return re.split(r"(?m)^---$", body)


def notes_of(slide: str) -> str:
    return " ".join(re.findall(r"<!--(.*?)-->", slide, re.DOTALL))


def shown_on(slide: str) -> str:
    """What the room reads: no notes, mathematics, rules of tables or pictures."""
    for hidden in (r"<!--.*?-->", r"\$.*?\$", r"!\[.*?\]\(.*?\)", r"[|-]"):
        slide = re.sub(hidden, "", slide, flags=re.DOTALL)
    return slide


# --- the decks' source --------------------------------------------------------------


def test_every_notebook_has_a_deck():
    assert [path.stem for path in notebooks.select()] == NAMES


@each_deck
def test_front_matter(deck):
    known = {"marp": "true", "theme": "mmcourse", "math": "mathjax", "lang": "en"}
    head = front_matter(deck)
    assert known.items() <= head.items()
    assert head["title"].strip('"').startswith(deck.stem[:2])


@each_deck
def test_a_session_of_45_to_60_minutes(deck):
    pages = slides_of(deck)
    assert 12 <= len(pages) <= 20
    notes = [re.search(r"(\d+) min\. (.{30,})", notes_of(p), re.DOTALL) for p in pages]
    missing = [i + 1 for i, note in enumerate(notes) if note is None]
    assert not missing, f"no timing and words to say on slides {missing}"
    assert 45 <= sum(int(note[1]) for note in notes) <= 60


@each_deck
def test_a_question_to_the_room(deck):
    asked = [page for page in slides_of(deck) if "\n## Question\n" in page]
    assert asked
    assert all("_class: question" in page and "?" in page for page in asked)


@each_deck
def test_pictures_have_words_and_are_there(deck):
    found = PICTURE.findall(deck.read_text("utf-8"))
    assert len(found) >= 5
    for words, target in found:
        said = re.sub(r"\b(bg|left|right|[wh]:\d+)\b", "", words).split()
        assert len(said) >= 5, f"{target} needs words that say what it shows"
        assert re.fullmatch(r"figures/\w+\.svg", target), target
        assert (slides.FOLDER / target).exists(), target


@each_deck
def test_little_text(deck):
    for i, page in enumerate(slides_of(deck)):
        words = len(shown_on(page).split())
        assert words <= 75, f"slide {i + 1} has {words} words"


@each_deck
def test_numbers_come_from_the_notebook(deck):
    """A decimal or a number with thousands is one that the notebook printed."""
    stored = notebooks.read(notebooks.FOLDER / f"{deck.stem}.ipynb")
    printed = [
        output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for cell in stored.cells
        for output in cell.get("outputs", ())
    ]
    known = re.findall(r"\d[\d,]*(?:\.\d+)?", "\n".join(printed))
    values = {float(n.replace(",", "")) for n in known if n.strip(",")}
    for page in slides_of(deck):
        for number in re.findall(r"\d+\.\d+|\d+,\d{3}", shown_on(page)):
            digits = len(number.partition(".")[2])
            value = float(number.replace(",", ""))
            assert any(round(v, digits) == value for v in values), (
                f"{number} is not among the outputs of {deck.stem}.ipynb"
            )


def test_figures_are_used_and_load_nothing():
    used = {t for deck in DECKS for _, t in PICTURE.findall(deck.read_text("utf-8"))}
    drawn = {f"figures/{path.name}" for path in slides.FOLDER.glob("figures/*.svg")}
    assert drawn == used, "draw with tools/figures; remove what no deck shows"
    for name in drawn:
        text = (slides.FOLDER / name).read_text("utf-8")
        assert not re.search(r"""<script|href="(?!#|data:)|url\((?!#)""", text), name
        assert len(text) < 400_000, name


# --- what can go wrong ----------------------------------------------------------------


def test_decks_are_picked_by_number(tmp_path):
    picked = notebooks.select(["1, 00"], slides.FOLDER, ".md", "deck")
    assert picked == [DECKS[1], DECKS[0]]
    with pytest.raises(NotebookError, match=r"no deck '77'.*choose from 00, 01"):
        slides.build(["00,77"], tmp_path, pdf=False)


def test_no_decks(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "FOLDER", tmp_path)
    with pytest.raises(NotebookError, match=r"no decks in .*: clone the course"):
        slides.build(None, tmp_path, pdf=False)


def test_no_marp(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slides.SlidesError, match="npm install @marp-team/marp-cli"):
        slides.build(None, tmp_path / "out", pdf=False)
    assert not (tmp_path / "out").exists()


def test_no_browser(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROME_PATH", raising=False)
    with pytest.raises(slides.SlidesError, match=r"install Chromium.*CHROME_PATH"):
        slides.find_browser()


def test_the_browser_of_ones_choice(monkeypatch):
    monkeypatch.setenv("CHROME_PATH", sys.executable)
    assert slides.find_browser() == sys.executable


def test_pictures_are_put_into_the_page(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.svg").write_text("<svg/>")
    page = '<img src="figures/a.svg"> url(&quot;figures/a.svg&quot;) see figures/a.svg'
    inside = "data:image/svg+xml;base64,PHN2Zy8+"
    assert slides.inline(page, tmp_path) == (
        f'<img src="{inside}"> url(&quot;{inside}&quot;) see figures/a.svg'
    )
    with pytest.raises(slides.SlidesError, match=r"no .*/figures/b\.svg.*tools/fig"):
        slides.inline('<img src="figures/b.svg">', tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="the false marp is a shell script")
def test_marp_fails(tmp_path, monkeypatch):
    marp = tmp_path / "marp"
    marp.write_text("#!/bin/sh\necho '[ERROR] no such theme' >&2\nexit 3\n")
    marp.chmod(marp.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(slides, "find_marp", lambda: str(marp))
    with pytest.raises(slides.SlidesError, match=r"00_.*code 3: \[ERROR\] no such"):
        slides.build("00", tmp_path / "out", pdf=False)


# --- the decks as a room sees them ----------------------------------------------------


@pytest.fixture(scope="module")
def tools():
    """Marp and a browser, or a skip that says which is missing."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    try:
        return slides.find_marp(), slides.find_browser()
    except slides.SlidesError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def built(tools, tmp_path_factory):
    """Every deck as HTML and PDF, in a folder with nothing else."""
    out = tmp_path_factory.mktemp("built")
    assert {path.suffix for path in slides.build(None, out, pdf=True)} == {
        ".html",
        ".pdf",
    }
    return out


@pytest.fixture(scope="module")
def browser(tools):
    from playwright.sync_api import sync_playwright

    flags = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
    quiet = ("background-networking", "component-update", "sync")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=tools[1],
            args=[*flags, *(f"--disable-{what}" for what in quiet)],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page without a network that notes whatever goes wrong."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.faults = []
    page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.faults.append(request.url[:200]))
    page.route(re.compile("^(?!file:|data:)"), lambda route: route.abort())
    yield page
    page.close()


OVERFLOWS = """() => [...document.querySelectorAll("section")].flatMap((section, i) => {
  const box = section.getBoundingClientRect(), scale = box.width / 1280
  const most = {left: box.left, top: box.top, right: box.right}
  const bottom = box.bottom - 50 * scale  // below stand the footer and the number
  const inside = [...section.querySelectorAll("*")].filter(e => !e.closest("footer"))
  const out = inside.filter(e => {
    const r = e.getBoundingClientRect()
    return r.width && (r.left < most.left - 1 || r.top < most.top - 1
      || r.right > most.right + 1 || r.bottom > bottom + 1)
  })
  const found = out.map(e => e.tagName)
  if (!box.width || section.scrollWidth > section.clientWidth + 1) found.push("width")
  if (section.scrollHeight > section.clientHeight + 1) found.push("height")
  return found.length ? [`slide ${i + 1}: ${found.slice(0, 5)}`] : []
})"""
PICTURES = """() => [...document.images].filter(i => !i.complete || !i.naturalWidth
  || !i.alt).map(i => i.alt || i.src.slice(0, 80))"""
SMALL = """() => [...document.querySelectorAll("section *:not(svg *, mjx-container *)")]
  .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
  .filter(e => parseFloat(getComputedStyle(e).fontSize) < 20).map(e => e.textContent)"""


@pytest.mark.browser
@each_deck
def test_deck_opens_without_a_network(deck, built, page):
    page.goto((built / f"{deck.stem}.html").as_uri())
    assert page.locator("section").count() == len(slides_of(deck))
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.evaluate(OVERFLOWS) == []
    assert page.evaluate(PICTURES) == []
    assert page.evaluate(SMALL) == []
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**#2")
    assert page.faults == []


@pytest.mark.browser
def test_the_overflow_check_itself(tools, page, tmp_path, monkeypatch):
    (tmp_path / "00_test.md").write_text(OVERFULL, encoding="utf-8")
    monkeypatch.setattr(slides, "FOLDER", tmp_path)
    [built] = slides.build(None, tmp_path / "out", pdf=False)
    page.goto(built.as_uri())
    found = [line.split(":")[0] for line in page.evaluate(OVERFLOWS)]
    assert found == ["slide 2", "slide 3", "slide 4"]


@pytest.mark.browser
@each_deck
def test_pdf_has_every_slide_and_its_notes(deck, built):
    data = (built / f"{deck.stem}.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    objects = data + b"".join(_inflated(data))
    slides_there = len(slides_of(deck))
    assert len(re.findall(rb"/Type\s*/Page\b", objects)) == slides_there
    assert len(re.findall(rb"/Subtype\s*/Text\b", objects)) == slides_there


def _inflated(data: bytes):
    """Yield the compressed streams of a PDF: its objects may lie in them."""
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
        try:
            yield zlib.decompressobj().decompress(stream)
        except zlib.error:  # a picture, or not compressed
            continue
