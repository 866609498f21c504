"""The notebooks keep the rules of the guide, and the machinery that runs them holds."""

import json
import re
import statistics
import warnings
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mmcourse import notebooks
from mmcourse.notebooks import NotebookError

PATHS = sorted(notebooks.FOLDER.glob("[0-9][0-9]_*.ipynb"))
EVERY = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
GLOSSARY = notebooks.FOLDER / "GLOSSARY.md"


def markdown(path):
    cells = notebooks.read(path).cells
    return "\n\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")


def section(text, heading):
    """What stands under a heading, up to the next of its kind."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found is not None, f"no section {heading!r}"
    return found.group(1)


def anchors(text):
    """The #anchors of a page, made of its headings as GitHub and JupyterLab do."""
    heads = re.findall(r"^#{1,6} +(.+?) *$", text, re.M)
    github = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
    return github | {h.replace(" ", "-") for h in heads} | {*ids(text)}


def ids(text):
    return re.findall(r'<a (?:id|name)="([^"]+)"', text)


# --- the stored notebooks ---------------------------------------------------------


@EVERY
def test_no_rule_is_broken(path):
    assert notebooks.problems(path) == []


@EVERY
def test_it_is_valid_and_its_ids_are_unique(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nbformat only warns about ids
        nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    cells = notebooks.read(path).cells
    assert len({cell["id"] for cell in cells}) == len(cells)


@EVERY
def test_it_is_clean(path):
    """What lies in the repository is what ``mmcourse notebooks clean`` writes."""
    stored = path.read_text("utf-8")
    again = nbformat.writes(notebooks.clean(notebooks.read(path)))
    assert stored.rstrip("\n") == again.rstrip("\n")
    assert "widgets" not in json.loads(stored)["metadata"]
    assert path.stat().st_size < 3_000_000


@EVERY
def test_the_head_says_goals_time_and_where_else_it_opens(path):
    head = notebooks.read(path).cells[0]
    number = path.stem[:2]
    assert head["id"] == "title" and head["source"].startswith(f"# {number} · ")
    assert re.search(
        r"\*\*Study\*\* \d+ minutes · \*\*Runs\*\* \d+ s, [\d,.]+ [MG]B", head["source"]
    )
    text = markdown(path)
    goals = re.search(r"\*\*Goals\*\*[^\n]*\n+((?:[-*\d].*\n?)+)", text)
    assert 3 <= len(re.findall(r"^[-*\d]", goals.group(1), re.M)) <= 5
    repository = "mmcourse/mmcourse/blob/main/notebooks/"
    assert f"colab.research.google.com/github/{repository}{path.name}" in text
    assert f"https://github.com/{repository}{path.name}" in text
    assert f"../slides/{path.stem}.md" in text
    assert 4 <= len([*filter(str.strip, section(text, "Summary").splitlines())]) <= 6


@EVERY
def test_it_starts_with_the_setup_that_nbval_skips(path):
    first = next(c for c in notebooks.read(path).cells if c["cell_type"] == "code")
    assert first["id"] == "setup" and "nbval-skip" in first["metadata"]["tags"]
    assert 'find_spec("mmcourse") is None' in first["source"]


@EVERY
def test_its_links_resolve(path):
    text = markdown(path)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'href="([^"]+)"', text)
    assert links
    for link in links:
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        page = path if file == "" else path.parent / file
        assert page.exists(), f"{link} leads nowhere"
        if anchor:
            there = (
                markdown(page) if page.suffix == ".ipynb" else page.read_text("utf-8")
            )
            assert anchor in anchors(there), f"{link}: no such place"


@EVERY
def test_its_terms_stand_in_the_glossary(path):
    terms = re.findall(r"\]\(GLOSSARY\.md#([^)]+)\)", section(markdown(path), "Terms"))
    assert len(terms) >= 5 and len(set(terms)) == len(terms)
    assert {*terms} <= anchors(GLOSSARY.read_text("utf-8"))


@EVERY
def test_its_references_have_authors_a_year_and_an_address(path):
    lines = [
        li for li in section(markdown(path), "References").splitlines() if li.strip()
    ]
    assert len(lines) >= 2
    for line in lines:
        assert re.search(r"\b(19|20)\d\d\b", line), line


@EVERY
def test_its_headlines_are_there_and_beat_their_baselines(path):
    found = notebooks.headlines(notebooks.read(path))
    assert 1 <= len(found) <= 4
    for record in found:
        assert record["baselines"] and record["beaten"], record


@EVERY
def test_cells_are_small(path):
    cells = notebooks.read(path).cells
    folded = {"hint", "solution"}
    words = [
        len(c["source"].split())
        for c in cells
        if c["cell_type"] == "markdown"
        and not folded & {*c["metadata"].get("tags", ())}
    ]
    lines = [c["source"].count("\n") + 1 for c in cells if c["cell_type"] == "code"]
    assert statistics.median(words) <= 70 and statistics.median(lines) <= 10


@EVERY
def test_checked_cells_have_stored_output(path):
    """An empty cell would pass nbval whatever happens."""
    for cell in notebooks.read(path).cells:
        if "NBVAL_CHECK_OUTPUT" in cell["source"]:
            assert cell["source"].startswith("# NBVAL_CHECK_OUTPUT"), cell["id"]
            assert cell["outputs"], cell["id"]


@EVERY
def test_every_picture_has_words_and_comes_from_nowhere_else(path):
    for cell in notebooks.read(path).cells:
        for output in cell.get("outputs", ()):
            html = "".join(output.get("data", {}).get("text/html", ""))
            for tag in re.findall(r"<img [^>]*>", html):
                alt = re.search(r'alt="([^"]*)"', tag)
                assert alt is not None and len(alt.group(1).split()) >= 4, cell["id"]
                assert 'src="data:' in tag, cell["id"]
    assert not re.search(r"!\[[^\]]*\]\(http|<img[^>]+src=\"http", markdown(path))


@EVERY
def test_the_student_edition_holds_no_solution(path):
    source, edition = notebooks.read(path), notebooks.student(notebooks.read(path))
    text = "\n".join(cell["source"] for cell in edition.cells)
    for id, code in notebooks.solutions(source).items():
        body = code.split('"""')[-1].strip()
        assert body and body not in text, id
    assert "<summary>" not in text
    for tag in ("exercise", "check"):
        assert len(notebooks.tagged(edition, tag)) == len(notebooks.tagged(source, tag))


@EVERY
def test_the_student_edition_runs_what_the_source_runs(path):
    """Cell by cell the same code, which nbval runs: so it runs as well."""
    source, edition = notebooks.read(path), notebooks.student(notebooks.read(path))
    codes = [
        [cell["source"] for cell in book.cells if cell["cell_type"] == "code"]
        for book in (source, edition)
    ]
    assert codes[0] == codes[1]


@EVERY
def test_the_solved_edition_runs(path, tmp_path, monkeypatch):
    """For real, without the network; every check says correct."""
    monkeypatch.setenv("MMCOURSE_OFFLINE", "1")
    out = tmp_path / path.name
    notebooks.write(notebooks.solved(notebooks.read(path)), out)
    run = notebooks.execute(out, out)
    assert run.peak_mb < 3000 and all(h["beaten"] for h in run.headlines)
    for cell in notebooks.tagged(notebooks.read(out), "check"):
        said = cell["outputs"][0]["data"]["text/plain"].splitlines()[0]
        assert said.endswith(": correct"), (cell["id"], said)


def test_the_glossary_has_each_term_once():
    heads = re.findall(r"^#{2,6} +(.+?) *$", GLOSSARY.read_text("utf-8"), re.M)
    assert heads and len(heads) == len(set(heads))


# --- execute ----------------------------------------------------------------------


@pytest.fixture
def book(tmp_path):
    """Write a notebook of these code cells, called cell-0, cell-1 and so on."""

    def make(*sources, name="07_tiny.ipynb"):
        cells = [new_code_cell(s, id=f"cell-{i}") for i, s in enumerate(sources)]
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return make


HEADLINE = (
    "from mmcourse.notebooks import headline\n"
    "headline('R@1', 0.5, better_than={'chance': 0.25})"
)


def test_execute_stores_outputs_headlines_time_and_memory(book, tmp_path):
    path, out, begun = book("print(1)", HEADLINE, "1 + 1"), tmp_path / "o.ipynb", []
    run = notebooks.execute(path, out, lambda i, n: begun.append((i, n)))
    assert begun == [(0, 3), (1, 3), (2, 3)]
    record = {
        "name": "R@1",
        "value": 0.5,
        "baselines": {"chance": 0.25},
        "beaten": True,
    }
    assert run.name == "07_tiny" and run.headlines == [record]
    assert 0 < run.seconds < 60 and 20 < run.peak_mb < 1000
    outputs = [cell["outputs"][0] for cell in notebooks.read(out).cells]
    assert outputs[0]["text"] == "1\n"
    assert outputs[1]["data"]["text/plain"] == "R@1: 0.5 (better than chance 0.25)"
    assert outputs[2]["data"]["text/plain"] == "2"
    assert (
        "outputs" not in notebooks.read(path).cells[0]
        or not (notebooks.read(path).cells[0]["outputs"])
    )


def test_a_kernel_sees_the_notebooks_folder_and_no_progress_bars(book, tmp_path):
    path = book(
        "import os\nprint(os.path.basename(os.getcwd()), os.environ['TQDM_DISABLE'])"
    )
    notebooks.execute(path, tmp_path / "o.ipynb")
    (cell,) = notebooks.read(tmp_path / "o.ipynb").cells
    assert cell["outputs"][0]["text"] == "in 1\n"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x =", "SyntaxError: invalid syntax"),
        ("import os; os._exit(1)", "Kernel died"),
        (
            "import sys; print('!', file=sys.stderr); raise KeyError('k')",
            "KeyError: 'k'",
        ),
    ],
)
def test_a_failing_cell_is_named_with_its_last_line(book, tmp_path, source, why):
    with pytest.raises(NotebookError) as error:
        notebooks.execute(book("1", source, "2"), tmp_path / "o.ipynb")
    assert str(error.value) == f"07_tiny.ipynb, cell 'cell-1': {why}"
    assert not (tmp_path / "o.ipynb").exists()


def test_a_cell_that_takes_too_long_is_ended(book, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "CELL_SECONDS", 2)
    with pytest.raises(NotebookError, match=r"cell 'cell-0': it ran longer than 2 s"):
        notebooks.execute(book("import time; time.sleep(60)"), tmp_path / "o.ipynb")


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "bad.ipynb").write_text("{", encoding="utf-8")
    for name in ("bad.ipynb", "missing.ipynb"):
        with pytest.raises(NotebookError, match=f"{name} is not a readable notebook"):
            notebooks.read(tmp_path / name)


# --- run_all ----------------------------------------------------------------------


def ran(paths, out, again=False):
    """Run them; return the results and the notebooks that were really executed."""
    begun = []
    results = [*notebooks.run_all(paths, out, lambda p, i, n: begun.append(p), again)]
    return results, [p.name for p in dict.fromkeys(begun)]


def test_run_all_goes_on_where_a_broken_run_stopped(book, tmp_path):
    out = tmp_path / "out"
    good = book(HEADLINE, name="07_good.ipynb")
    bad = book("1 / 0", name="08_bad.ipynb")
    with pytest.raises(NotebookError, match=r"08_bad.ipynb, cell 'cell-0'"):
        ran([good, bad], out)
    bad = book("1 / 1", name="08_bad.ipynb")
    results, executed = ran([good, bad], out)
    assert executed == ["08_bad.ipynb"]
    assert [r.name for r in results] == ["07_good", "08_bad"]
    assert results[0].headlines[0]["value"] == 0.5
    assert ran([good, bad], out)[1] == []
    assert ran([good, bad], out)[0] == results
    assert ran([good, bad], out, again=True)[1] == ["07_good.ipynb", "08_bad.ipynb"]


@pytest.mark.parametrize("change", ["cell", "profile", "record", "output"])
def test_run_all_runs_again_what_has_changed(book, tmp_path, monkeypatch, change):
    out, path = tmp_path / "out", book("1")
    assert ran([path], out)[1] == ["07_tiny.ipynb"]
    if change == "cell":
        book("2")
    elif change == "profile":
        monkeypatch.setenv("MMCOURSE_PROFILE", "full")
    elif change == "record":
        (out / "07_tiny.json").write_text("{half", encoding="utf-8")
    else:
        (out / "07_tiny.ipynb").unlink()
    assert ran([path], out)[1] == ["07_tiny.ipynb"]


# --- headline ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "better_than", "higher", "line", "beaten"),
    [
        (
            0.5,
            {"chance": 0.1, "words": 0.3},
            True,
            "better than chance 0.1, words 0.3",
            1,
        ),
        (0.2, {"chance": 0.1, "words": 0.3}, True, "NOT better than chance 0.1", 0),
        (0.2, 0.3, False, "better than baseline 0.3", 1),
        (0.3, 0.3, False, "NOT better", 0),
        (float("nan"), 0.3, True, "NOT better", 0),
        (0.3, None, True, "loss: 0.3", 1),
    ],
)
def test_headline(monkeypatch, value, better_than, higher, line, beaten):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    notebooks.headline("loss", value, better_than, higher)
    (data,) = shown
    assert line in data["text/plain"]
    assert data[notebooks.HEADLINE]["beaten"] is bool(beaten)


# --- clean, problems --------------------------------------------------------------


def messy():
    """A notebook with everything that ``clean`` takes away."""
    code = new_code_cell(
        "slider",
        id="1a2b3c4d",
        execution_count=7,
        metadata={"id": "drag", "tags": ["x"]},
    )
    code.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    code.outputs = [
        new_output("display_data", {notebooks.WIDGET: {"model_id": "f"}}),
        new_output("execute_result", {"text/plain": "1"}, execution_count=7),
        new_output("stream", text="hello\n"),
    ]
    code.outputs[1]["metadata"] = {"scrolled": True}
    exercise = new_code_cell("...", id="ex", metadata={"exercise": "mean", "tags": []})
    exercise.execution_count = 9
    book = new_notebook(cells=[new_markdown_cell("# a", id="t"), code, exercise])
    book.metadata = {"widgets": {}, "language_info": {"name": "python", "version": "3"}}
    return book


def test_clean_strips_what_changes_and_keeps_the_rest():
    book = notebooks.clean(messy())
    _, code, exercise = book.cells
    assert code.id == "drag" and code.metadata == {"tags": ["x"]}
    assert exercise.metadata == {"exercise": "mean", "tags": []}
    assert [o.output_type for o in code.outputs] == ["execute_result", "stream"]
    assert code.outputs[0].execution_count == code.execution_count == 1
    assert exercise.execution_count == 2
    assert "widgets" not in book.metadata and "version" not in str(book.metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nbformat.validate(book)


def test_clean_twice_is_clean_once():
    once = nbformat.writes(notebooks.clean(messy()))
    again = nbformat.writes(notebooks.clean(nbformat.reads(once, as_version=4)))
    assert once == again


def test_a_cell_that_never_ran_is_not_made_to_look_as_if_it_had(book):
    path = book("1", "2")
    notebooks.write(notebooks.clean(notebooks.read(path)), path)
    assert any("not run from top to bottom" in p for p in notebooks.problems(path))


PNG = {"image/png": "aa", "text/plain": "a"}
FAULTS = {
    "random id": (new_code_cell("1", id="1a2b3c4d"), "has a random id"),
    "error": (
        new_output("error", ename="E", evalue="", traceback=[]),
        "stores an error",
    ),
    "warning": (new_output("stream", name="stderr", text="w"), "an error or a warning"),
    "picture": (new_output("display_data", PNG), "a picture without alternative text"),
    "img": (
        new_output("display_data", {"text/html": "<img src='x'>", "text/plain": ""}),
        "a picture without alternative text",
    ),
    "path": (new_output("stream", text="in /home/me/x"), "shows a path of a machine"),
    "long": (new_output("stream", text="x\n" * 61), "prints more than a screen"),
    "lines": (new_code_cell("x\n" * 26, id="many-lines"), "has more than 25 lines"),
    "words": (new_markdown_cell("w " * 160, id="many-words"), "has 160 words"),
    "twice": (new_markdown_cell("w", id="result"), "the id 'result' stands twice"),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
def test_problems_finds_each_fault(tmp_path, fault, message):
    """And finds none of it in the same notebook without the fault."""
    path = tmp_path / "07_tiny.ipynb"

    def found(broken):
        cell = new_code_cell("1", id="result", execution_count=1)
        if broken and "output_type" in fault:
            cell.outputs = [fault]
        more = [fault] if broken and "output_type" not in fault else []
        # Not with nbformat: it gives an id that stands twice a new one as it writes.
        path.write_text(json.dumps(new_notebook() | {"cells": [cell, *more]}), "utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat's, about that id
            return "\n".join(notebooks.problems(path))

    assert message in found(True) and message not in found(False)


def test_problems_misses_no_part_of_the_anatomy(book):
    found = "\n".join(notebooks.problems(book("1")))
    for part in ("**Study**", "**Goals**", "## Summary", "## Terms", "## References"):
        assert f"{part!r} is missing" in found
    assert "6 are the least" in found and "3 to 5 are due" in found


# --- editions ---------------------------------------------------------------------


SOLUTION = (
    "<details><summary>Solution</summary>\n\n"
    "```python\ndef mean(x):\n    return x.mean()\n```\n\n</details>"
)


def with_exercise(*more):
    def tags(*names, **others):
        return {"tags": [*names], **others}

    cells = [
        new_code_cell(
            "def mean(x): ...", id="e", metadata=tags("exercise", exercise="mean")
        ),
        new_code_cell('check("mean", mean)', id="c", metadata=tags("check")),
        new_markdown_cell("Hint", id="h", metadata=tags("hint")),
        *more,
    ]
    cells[1].outputs = [new_output("stream", text="not attempted")]
    return new_notebook(cells=cells)


def solution(text=SOLUTION):
    return new_markdown_cell(text, id="s", metadata={"tags": ["solution"]})


def test_the_student_edition_drops_hints_and_solutions():
    edition = notebooks.student(with_exercise(solution()))
    assert [cell["id"] for cell in edition.cells] == ["e", "c"]


def test_the_solved_edition_fills_the_solution_in():
    edition = notebooks.solved(with_exercise(solution()))
    assert edition.cells[0]["source"] == "def mean(x):\n    return x.mean()"
    assert edition.cells[1]["outputs"] == []
    assert len(edition.cells) == 4


def test_an_exercise_without_a_solution_is_refused():
    with pytest.raises(NotebookError, match="exercise 'e' has no solution"):
        notebooks.solved(with_exercise())
    with pytest.raises(NotebookError, match="solution 's' has no exercise or code"):
        notebooks.solved(with_exercise(solution("no code")))
    with pytest.raises(NotebookError, match="solution 's' has no exercise or code"):
        notebooks.solutions(new_notebook(cells=[solution()]))


def test_release_writes_editions_and_pages_and_leaves_the_source(book, tmp_path):
    folder = book("1").parent
    (folder / "GLOSSARY.md").write_text("# 词", encoding="utf-8")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    written = notebooks.release(tmp_path / "out", notebooks.student, folder)
    assert written == [tmp_path / "out" / "07_tiny.ipynb"]
    assert (tmp_path / "out" / "GLOSSARY.md").read_text("utf-8") == "# 词"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(NotebookError, match="holds the source"):
        notebooks.release(folder / ".." / "in", notebooks.student, folder)


def test_a_release_links_to_no_deck(book, tmp_path):
    path = book("1")
    head = "[Colab](https://c) · [Slides](../slides/07_tiny.md) · [Glossary](G.md)"
    notebooks.write(new_notebook(cells=[new_markdown_cell(head, id="title")]), path)
    for edition in (notebooks.student, notebooks.solved):
        out = tmp_path / edition.__name__
        (released,) = notebooks.release(out, edition, path.parent)
        (cell,) = notebooks.read(released).cells
        assert cell["source"] == "[Colab](https://c) · [Glossary](G.md)"
    assert "slides" in notebooks.read(path).cells[0]["source"]


def test_report_replaces_the_rows_of_what_ran_and_keeps_the_others(
    book, tmp_path, monkeypatch
):
    path, readme = book("1"), tmp_path / "README.md"
    head = "# 07 · Tiny\n\n**Study** 9 minutes · **Runs** 99 s, 9 MB (measured here)"
    notebooks.write(new_notebook(cells=[new_markdown_cell(head, id="title")]), path)
    monkeypatch.setattr(notebooks, "FOLDER", path.parent)
    kept = "| [06 · Old](notebooks/06_old.ipynb) | 5 s, 100 MB | R: **1** |"
    old = "| [07 · Tiny](notebooks/07_tiny.ipynb) | 99 s, 9 MB | |"
    text = f"above\n<!-- measured -->\n{old}\n{kept}\n<!-- /measured -->\nbelow\n"
    readme.write_text(text, "utf-8")
    found = {"name": "R@1", "value": 0.5, "baselines": {"chance": 0.25}}
    notebooks.report([notebooks.Run("07_tiny", 12.2, 1234.0, [found])], readme)
    new = "| [07 · Tiny](notebooks/07_tiny.ipynb) | 15 s, 1,200 MB | "
    new += "R@1: **0.5** (chance 0.25) |"
    lines = readme.read_text("utf-8").splitlines()
    assert lines[4:6] == [kept, new] and [lines[0], lines[-1]] == ["above", "below"]
    runs = "**Runs** 15 s, 1,200 MB (measured here)"
    assert runs in notebooks.read(path).cells[0]["source"]


def test_write_leaves_the_old_file_where_it_fails(book, monkeypatch):
    path = book("1")
    before = path.read_bytes()
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        notebooks.write(new_notebook(), path)
    assert path.read_bytes() == before


def test_a_release_overwrites_nobodys_work(tmp_path):
    notebooks.release(tmp_path / "out", notebooks.student)
    with pytest.raises(NotebookError, match="choose a new folder"):
        notebooks.release(tmp_path / "out", notebooks.solved)
