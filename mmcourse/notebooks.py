"""The notebooks as a program sees them: run, headline results, clean, check, release.

``headline`` is what a notebook calls; the rest is behind ``mmcourse run``,
``mmcourse notebooks`` and ``mmcourse release``.
"""

import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "notebooks"
HEADLINE = "application/vnd.mmcourse.headline+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 600


class NotebookError(RuntimeError):
    """A notebook can't be found or run: one sentence that says which, where and why."""


@dataclass(frozen=True)
class Run:
    """One executed notebook: what it took and what it found."""

    name: str
    seconds: float
    peak_mb: float
    headlines: list[dict] = field(default_factory=list)


def headline(
    name: str,
    value: float,
    better_than: float | dict[str, float] | None = None,
    higher: bool = True,
) -> None:
    """Print a result beside its baselines and leave it as a record in the notebook.

    ``better_than`` is a baseline or several by name; ``higher=False`` says that a
    smaller value is the better one. ``mmcourse run`` gathers the records in a table.
    """
    from IPython.display import display

    known = better_than if isinstance(better_than, dict) else {"baseline": better_than}
    baselines = {k: float(v) for k, v in known.items() if v is not None}
    value = float(value)
    beaten = all(value > b if higher else value < b for b in baselines.values())
    against = ", ".join(f"{k} {b:.3g}" for k, b in baselines.items())
    line = f"{name}: {value:.3g}"
    if baselines:
        line += f" ({'better' if beaten else 'NOT better'} than {against})"
    record = {"name": name, "value": value, "baselines": baselines, "beaten": beaten}
    display({"text/plain": line, HEADLINE: record}, raw=True)


def select(
    wanted: str | Iterable[str] | None = None,
    folder: Path = FOLDER,
    suffix: str = ".ipynb",
    what: str = "notebook",
) -> list[Path]:
    """Return the files whose numbers ("00,01", or 0 and 1) are wanted; all if none."""
    files = sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))
    found = {path.stem[:2]: path for path in files}
    if not found:
        raise NotebookError(f"no {what}s in {folder}: clone the course to have them")
    wanted = [wanted] if isinstance(wanted, str) else wanted or []
    numbers = [n for part in wanted for n in re.split(r"[,\s]+", part) if n] or [*found]
    for number in numbers:
        if number.zfill(2) not in found:
            raise NotebookError(
                f"there is no {what} {number!r} in {folder.name}/: "
                f"choose from {', '.join(found)}"
            )
    return [found[number.zfill(2)] for number in numbers]


def read(path: Path):
    """Read a notebook (nbformat 4); NotebookError where it isn't one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise NotebookError(f"{path} is not a readable notebook: {error}") from error


def write(notebook, path: Path) -> None:
    """Write a notebook whole or not at all."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    nbformat.write(notebook, part)
    part.replace(path)


# --- run --------------------------------------------------------------------------


def execute(
    path: Path, out: Path, on_cell: Callable[[int, int], None] = lambda i, n: None
) -> Run:
    """Execute a notebook in its folder, in a kernel of its own; store it at ``out``.

    ``on_cell(i, n)`` is called as cell ``i`` of ``n`` begins. A cell that fails raises
    a NotebookError with the notebook, the cell's id and the error's last line.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    notebook = read(path)
    at = {"cell": None}

    def started(cell, cell_index: int) -> None:
        at["cell"] = cell
        on_cell(cell_index, len(notebook.cells))

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        extra_arguments=["--log-level=50"],  # the kernel's own warnings help nobody
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=started,
    )
    begin = time.perf_counter()
    with _quiet(), _PeakMemory(client) as memory:
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            last = _last_line(error)
            where = f"{path.name}, cell {at['cell']['id']!r}"
            raise NotebookError(f"{where}: {last}") from error
    seconds = time.perf_counter() - begin
    write(clean(notebook), out)
    return Run(path.stem, seconds, memory.peak_mb, headlines(notebook))


def run_all(
    paths: list[Path], out: Path, on_cell: Callable[[Path, int, int], None], again: bool
) -> Iterator[Run]:
    """Run notebooks one after another; skip those that ran before and haven't changed.

    What each found is written beside it, so a broken run goes on where it stopped.
    """
    if out.is_file():
        raise NotebookError(f"--out {out} is a file: give a folder")
    for path in paths:
        record = out / f"{path.stem}.json"
        state = _state(path)
        done = _recorded(record, state)
        target = out / path.name
        if done is not None and target.exists() and not again:
            yield done
            continue
        result = execute(path, target, lambda i, n, path=path: on_cell(path, i, n))
        part = record.with_suffix(".part")
        part.write_text(json.dumps({"state": state, **asdict(result)}), "utf-8")
        part.replace(record)
        yield result


def _state(path: Path) -> str:
    """Hash all that a run depends on: the cells, the package, the profile."""
    from mmcourse.device import profile

    sources = [cell["source"] for cell in read(path).cells]
    package = [file.read_bytes() for file in sorted(HERE.rglob("*.py"))]
    parts = [json.dumps(sources).encode(), *package, profile().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _recorded(record: Path, state: str) -> Run | None:
    try:
        known = json.loads(record.read_text("utf-8"))
        return Run(**known) if known.pop("state") == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def headlines(notebook) -> list[dict]:
    """Return the records that ``headline`` left in a notebook's outputs."""
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    return [o["data"][HEADLINE] for o in outputs if HEADLINE in o.get("data", {})]


def _last_line(error: Exception) -> str:
    """Return the line that says what happened, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if type(error).__name__ == "CellTimeoutError":
        return f"it ran longer than {CELL_SECONDS} s"  # its text ends in the source
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Give the kernel an environment in which two runs print the same."""
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    before = {key: os.environ.get(key) for key in quiet}
    os.environ.update(quiet)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


class _PeakMemory:
    """Sample the kernel's resident memory while a notebook runs."""

    def __init__(self, client):
        self.client, self.peak_mb, self.over = client, 0.0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _sample(self) -> None:
        import psutil

        while not self.over.wait(0.1):
            process = getattr(
                getattr(self.client.km, "provisioner", None), "process", 0
            )
            if not process:
                continue
            try:
                used = psutil.Process(process.pid).memory_info().rss / 1e6
            except psutil.Error:  # the kernel has just ended
                continue
            self.peak_mb = max(self.peak_mb, used)


def report(results: list[Run], readme: Path) -> None:
    """Write what was measured into the notebooks' headers and the README's table.

    Rows of notebooks that weren't run stay as they are.
    """
    start, end = "<!-- measured -->\n", "<!-- /measured -->"
    head, rest = readme.read_text("utf-8").split(start)
    table, tail = rest.split(end)
    rows = {}
    for row in table.splitlines():
        if (there := re.search(r"\(notebooks/(\S+?)\)", row)) is not None:
            rows[there[1]] = row
    for result in results:
        path = FOLDER / f"{result.name}.ipynb"
        notebook = read(path)
        title = notebook.cells[0]
        seconds, memory = math.ceil(result.seconds / 5) * 5, round(result.peak_mb, -2)
        cost = f"{seconds} s, {memory:,.0f} MB"
        title["source"] = re.sub(
            r"(\*\*Runs\*\*) [^(]*(?= \()", rf"\1 {cost}", title["source"]
        )
        write(notebook, path)
        name = title["source"].splitlines()[0].lstrip("# ")
        found = "<br>".join(_in_words(h) for h in result.headlines)
        rows[path.name] = f"| [{name}](notebooks/{path.name}) | {cost} | {found} |"
    by_number = [rows[name] for name in sorted(rows)]
    table = ["| notebook | takes | finds |", "| --- | --- | --- |", *by_number]
    readme.write_text(head + start + "\n".join(table) + "\n" + end + tail, "utf-8")


def _in_words(found: dict) -> str:
    base = ", ".join(
        f"{name} {value:.3g}" for name, value in found["baselines"].items()
    )
    return f"{found['name']}: **{found['value']:.3g}** ({base})"


# --- clean and check --------------------------------------------------------------


def clean(notebook):
    """Strip what changes from run to run; what a cell is about stays.

    Kept: tags, the exercise's id, outputs. A cell whose metadata has an "id" gets it
    as its own, widget views go (without their state they show an error), and the
    counts of execution are 1 to n.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python"}
        | {"name": "python3"},
        "language_info": {"name": "python"},
    }
    count = 0
    for cell in notebook.cells:
        cell["id"] = cell["metadata"].get("id", cell["id"])
        kept = ("tags", "exercise")
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k in kept}
        if cell["cell_type"] != "code":
            continue
        if cell["execution_count"] is not None:  # a cell that never ran stays so
            count += 1
            cell["execution_count"] = count
        cell["outputs"] = [
            _clean_output(o, count)
            for o in cell["outputs"]
            if WIDGET not in o.get("data", {})
        ]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _clean_output(output, count: int):
    if "metadata" in output:
        output["metadata"] = {}
    if output["output_type"] == "execute_result":
        output["execution_count"] = count
    output.pop("transient", None)
    return output


def tagged(notebook, tag: str) -> list:
    """Return the cells that carry a tag."""
    return [c for c in notebook.cells if tag in c["metadata"].get("tags", ())]


def problems(path: Path) -> list[str]:
    """Say what in a stored notebook breaks the course's rules; empty if nothing."""
    notebook = read(path)  # gives an id that stands twice a new one: look at the file
    ids = [cell.get("id") for cell in json.loads(path.read_text("utf-8"))["cells"]]
    found = [*_structure(notebook, ids), *_lengths(notebook), *_outputs(notebook)]
    return [f"{path.name}: {problem}" for problem in found]


def _structure(notebook, ids: list[str | None]) -> Iterator[str]:
    for id in {i for i in ids if ids.count(i) > 1}:
        yield f"the id {id!r} stands twice"
    for id in ids:
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", id or "0" * 8):
            yield f"cell {id!r} has a random id: give it one that speaks"
    text = "\n".join(c["source"] for c in notebook.cells if c["cell_type"] != "code")
    for part in ANATOMY:
        if part not in text:
            yield f"{part!r} is missing"
    checked = sum("NBVAL_CHECK_OUTPUT" in c["source"] for c in notebook.cells)
    if checked < 6:
        yield f"{checked} cells have checked output: 6 are the least"
    if not 3 <= len(tagged(notebook, "exercise")) <= 5:
        yield f"{len(tagged(notebook, 'exercise'))} exercises: 3 to 5 are due"


ANATOMY = (
    *("**Study**", "**Before you start**", "**Goals**", "## Summary", "## Terms"),
    *("## What goes wrong in practice", "## References", "## Next"),
)


def _lengths(notebook) -> Iterator[str]:
    for cell in notebook.cells:
        folded = {"hint", "solution"} & set(cell["metadata"].get("tags", ()))
        if cell["cell_type"] == "code" and cell["source"].count("\n") >= 25:
            yield f"cell {cell['id']!r} has more than 25 lines"
        prose = re.sub(r"\]\(\S+\)", "]", cell["source"])  # links without addresses
        words = sum(any(c.isalpha() for c in word) for word in prose.split())
        if cell["cell_type"] == "markdown" and not folded and words > 120:
            yield f"cell {cell['id']!r} has {words} words: 120 are the most"


def _outputs(notebook) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    if counts != [*range(1, len(code) + 1)]:
        yield "it was not run from top to bottom: mmcourse notebooks run"
    for cell in code:
        for output in cell["outputs"]:
            data = output.get("data", {})
            text = output.get("text", "") + "".join(data.get("text/plain", ""))
            if output["output_type"] == "error" or output.get("name") == "stderr":
                yield f"cell {cell['id']!r} stores an error or a warning"
            if "image/png" in data or "<img" in data.get("text/html", "").replace(
                "<img alt=", ""
            ):
                yield f"cell {cell['id']!r} shows a picture without alternative text"
            if re.search(r"(/home/|/Users/|/tmp/|C:\\)", text):
                yield f"cell {cell['id']!r} shows a path of a machine"
            if text.count("\n") > 60:
                yield f"cell {cell['id']!r} prints more than a screen"


# --- release ----------------------------------------------------------------------


def student(notebook):
    """Return the edition without hints and solutions."""
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not {"hint", "solution"} & set(cell["metadata"].get("tags", ()))
    ]
    return notebook


def solved(notebook):
    """Return the edition with the solutions filled in, their checks to be run again."""
    answers = solutions(notebook)
    for cell in tagged(notebook, "exercise"):
        cell["source"] = answers[cell["metadata"]["exercise"]]
    for cell in tagged(notebook, "check"):
        cell["outputs"], cell["execution_count"] = [], None
    return notebook


def solutions(notebook) -> dict[str, str]:
    """Return each exercise's solution: the code in the folded cell that follows it."""
    found, current = {}, None
    for cell in notebook.cells:
        tags = cell["metadata"].get("tags", ())
        if "exercise" in tags:
            current = cell["metadata"]["exercise"]
        if "solution" in tags:
            code = re.search(r"```python\n(.*?)\n```", cell["source"], re.DOTALL)
            if current is None or code is None:
                raise NotebookError(f"solution {cell['id']!r} has no exercise or code")
            found[current] = code.group(1)
    for cell in tagged(notebook, "exercise"):
        if cell["metadata"]["exercise"] not in found:
            raise NotebookError(f"exercise {cell['id']!r} has no solution")
    return found


def _without_deck(notebook):
    """Drop the link to the deck, which isn't handed out."""
    for cell in notebook.cells:
        cell["source"] = re.sub(r" · \[Slides\]\([^)]*\)", "", cell["source"])
    return notebook


def release(out: Path, edition: Callable, folder: Path = FOLDER) -> list[Path]:
    """Write an edition of every notebook, and the pages beside them, into ``out``."""
    if out.resolve() == folder.resolve():
        raise NotebookError(f"{out} holds the source: release into another folder")
    there = [path.name for path in select(folder=folder) if (out / path.name).exists()]
    if there or out.is_file():
        raise NotebookError(
            f"{out} holds {', '.join(there) or 'a file'} already: choose a new folder, "
            "so that nobody's work is overwritten"
        )
    written = []
    for path in select(folder=folder):
        write(_without_deck(edition(read(path))), out / path.name)
        written.append(out / path.name)
    for page in folder.glob("*.md"):
        (out / page.name).write_text(page.read_text("utf-8"), "utf-8")
    return written
