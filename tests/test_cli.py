"""The command: help is light, tables say what was found, errors are one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from mmcourse import assets, bench, cli, datasets, doctor, generation, notebooks

COMMANDS = ["doctor", "assets", "run", "lab", "release", "slides", "notebooks"]
HYGIENE = ["run", "clean", "check"]


def call(*args, **env):
    return subprocess.run(
        [sys.executable, "-c", "from mmcourse.cli import main; main()", *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONUTF8": "1"} | env,
        timeout=120,
    )


def invoke(*args):
    return CliRunner().invoke(cli.app, args, env={"COLUMNS": "160", "NO_COLOR": "1"})


def fails(capsys, monkeypatch, *args):
    """What ``main`` prints for a command that goes wrong."""
    monkeypatch.setattr(sys, "argv", ["mmcourse", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    *before, said = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("mmcourse: ") and not any("mmcourse" in b for b in before)
    return said


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with one small notebook in place of the course's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    source = (
        "from mmcourse.notebooks import headline\n"
        "headline('R@1', 0.5, better_than={'chance': 0.004})"
    )
    cells = [new_markdown_cell("# 07", id="title"), new_code_cell(source, id="result")]
    nbformat.write(new_notebook(cells=cells), folder / "07_tiny.ipynb")
    (folder / "GLOSSARY.md").write_text("# Words", encoding="utf-8")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    for function in (notebooks.select, notebooks.release):
        inner = getattr(function, "__wrapped__", function)
        defaults = tuple(
            folder if d == notebooks.HERE.parent / "notebooks" else d
            for d in inner.__defaults__
        )
        monkeypatch.setattr(inner, "__defaults__", defaults)
    monkeypatch.chdir(tmp_path)
    return folder


# --- help -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [[], *[[c] for c in COMMANDS], *[["notebooks", c] for c in HYGIENE]]
)
def test_every_command_has_help(args):
    result = invoke(*args, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output and "--help" in result.output


def test_help_names_every_command():
    listed = re.findall(r"^\W*(\w+)  ", invoke("--help").output, re.MULTILINE)
    assert {*COMMANDS} <= {*listed}


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom mmcourse.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'IPython'}\n"
        "print('HEAVY', sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr


def test_the_command_works_as_a_program():
    assert "release" in call("--help").stdout
    wrong = call("run", "99")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert wrong.stderr.startswith("mmcourse: there is no notebook '99'")


# --- doctor, assets ---------------------------------------------------------------


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_doctor_shows_a_table_and_says_whether_the_course_can_run(
    monkeypatch, ok, code
):
    checks = [
        doctor.Check("Python", True, "3.12", ""),
        doctor.Check("disk", ok, "1 GB free", "" if ok else "free 5 GB", required=True),
        doctor.Check("GPU", False, "none", "a CPU is enough", required=False),
    ]
    monkeypatch.setattr(doctor, "diagnose", lambda: checks)
    result = invoke("doctor")
    assert result.exit_code == code
    lines = {line.split()[1]: line for line in result.output.splitlines()[1:4]}
    assert lines["Python"].startswith("ok") and lines["GPU"].startswith("!")
    assert lines["disk"].startswith("ok" if ok else "no")
    assert ok or "free 5 GB" in lines["disk"]
    assert ("can't run yet" in result.output) is not ok


def test_assets_list_shows_each_with_size_and_licence():
    output = invoke("assets", "--list").output
    for name, asset in assets.ASSETS.items():
        (line,) = [li for li in output.splitlines() if li.startswith(f"{name} ")]
        assert asset.licence.split()[0] in line


def test_an_unknown_asset_is_one_sentence(capsys, monkeypatch):
    assert "openmojis" in fails(capsys, monkeypatch, "assets", "openmojis")


def test_a_full_disk_is_one_sentence(capsys, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets, "pack", full)
    assert "No space left" in fails(capsys, monkeypatch, "assets", "--pack", "x.zip")


def test_a_bug_keeps_its_traceback(monkeypatch):
    """Only what a user can mend is shortened to a sentence."""

    def bug(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(notebooks, "select", bug)
    monkeypatch.setattr(sys, "argv", ["mmcourse", "run"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


# --- run, notebooks ---------------------------------------------------------------


def test_run_prints_a_table_of_results(tiny):
    result = invoke("run", "--out", "out")
    assert result.exit_code == 0
    table = result.output
    assert re.search(r"07_tiny +\d+ s +\d+ MB", table)
    assert re.search(r"R@1: 0.5 +chance 0.004", table)
    assert (tiny.parent / "out" / "07_tiny.ipynb").exists()
    assert "outputs" in (tiny / "07_tiny.ipynb").read_text("utf-8")
    assert notebooks.headlines(notebooks.read(tiny / "07_tiny.ipynb")) == []


def test_run_fails_where_a_result_does_not_beat_its_baseline(tiny, capsys, monkeypatch):
    beaten = {
        "name": "R@1",
        "value": 0.1,
        "baselines": {"chance": 0.2},
        "beaten": False,
    }
    done = notebooks.Run("07_tiny", 1.0, 9.0, [beaten])
    monkeypatch.setattr(notebooks, "run_all", lambda *_: iter([done]))
    said = fails(capsys, monkeypatch, "run")
    assert said == "mmcourse: not better than its baseline: ['R@1']"


@pytest.mark.parametrize("wanted", ["99", "8", "07,99", "x"])
def test_an_unknown_notebook_is_one_sentence(tiny, capsys, monkeypatch, wanted):
    for command in (["run"], ["notebooks", "clean"], ["notebooks", "check"]):
        said = fails(capsys, monkeypatch, *command, wanted)
        assert "there is no notebook" in said and "choose from 07" in said


def test_no_notebooks_at_all_is_one_sentence(tiny, capsys, monkeypatch):
    (tiny / "07_tiny.ipynb").unlink()
    assert "no notebooks in" in fails(capsys, monkeypatch, "run")


def test_notebooks_run_clean_and_check(tiny):
    assert re.match(r"07_tiny.ipynb: \d+ s, \d+ MB", invoke("notebooks", "run").output)
    path = tiny / "07_tiny.ipynb"
    ran = path.read_bytes()
    assert notebooks.headlines(notebooks.read(path))[0]["value"] == 0.5
    assert invoke("notebooks", "clean").exit_code == 0
    assert path.read_bytes() == ran  # it was clean
    checked = invoke("notebooks", "check", "07")
    assert checked.exit_code == 1 and "07_tiny.ipynb: '**Study**' is missing" in (
        checked.output
    )


# --- release ----------------------------------------------------------------------


def test_release_writes_the_notebooks_and_the_pages(tiny):
    result = invoke("release", "class", "--student")
    assert result.exit_code == 0 and "1 notebooks are in class" in result.output
    there = {p.name for p in (tiny.parent / "class").iterdir()}
    assert there == {"07_tiny.ipynb", "GLOSSARY.md"}


@pytest.mark.parametrize("args", [["x"], ["x", "--student", "--solved"]])
def test_release_needs_one_edition(tiny, capsys, monkeypatch, args):
    said = fails(capsys, monkeypatch, "release", *args)
    assert "choose one edition" in said


def test_release_into_the_source_is_refused(tiny, capsys, monkeypatch):
    before = (tiny / "07_tiny.ipynb").read_bytes()
    for out in ("notebooks", "./class/../notebooks"):
        said = fails(capsys, monkeypatch, "release", out, "--student")
        assert "holds the source" in said
    assert (tiny / "07_tiny.ipynb").read_bytes() == before


def test_release_onto_a_file_is_one_sentence(tiny, capsys, monkeypatch):
    (tiny.parent / "taken").write_text("", encoding="utf-8")
    fails(capsys, monkeypatch, "release", "taken", "--student")


def test_lab_opens_the_first_notebook_in_its_folder(tiny, monkeypatch):
    started = {}

    def start(command, cwd, check):
        started.update(command=command, cwd=cwd)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", start)
    assert invoke("lab").exit_code == 0
    assert started["cwd"] == tiny and started["command"][-1] == "00_welcome.ipynb"


def test_assets_prepares_what_notebooks_wait_for(monkeypatch):
    done = []
    for module, name in ((datasets, "openmoji"), (generation, "unpacked")):
        monkeypatch.setattr(module, name, lambda name=name: done.append(name))
    monkeypatch.setattr(
        assets, "get", lambda names: [Path(n) for n in names or assets.ASSETS]
    )
    result = invoke("assets", "openmoji", "smollm2", "minilm")
    assert result.exit_code == 0 and done == ["openmoji", "unpacked"]
    assert "3 assets are in" in result.output
    for name in ("twemoji", "digits_seen_and_heard"):
        monkeypatch.setattr(
            datasets, name, lambda name=name, noise=0.6: done.append((name, noise))
        )
    monkeypatch.setattr(datasets, "sentiment_triples", lambda: done.append("triples"))
    assert invoke("assets").exit_code == 0
    assert done[-3:] == [
        *(("digits_seen_and_heard", n) for n in (0.6, 0.4)),
        "triples",
    ]


def test_bench_prints_a_table_and_writes_json(tmp_path, monkeypatch):
    timing = bench.Timing("a wait", 0.5, 0.1, 1.0)
    race = bench.Race("vit", "timm", 0.1, 0.2, 0.5, 0.45, 0.55, 10.0, 20.0)
    monkeypatch.setattr(bench, "RACES", {"vit": lambda device: [timing, race]})
    out = tmp_path / "bench.json"
    result = invoke("bench", "vit", "--device", "cpu", "--out", str(out))
    assert result.exit_code == 0 and "a wait" in result.output and out.exists()
    assert "0.50" in result.output and "cpu" in result.output


@pytest.mark.parametrize(
    ("args", "why"),
    [(["nothing"], "nothing called 'nothing'"), (["--device", "tpu"], "tpu")],
)
def test_bench_refuses_what_isnt_there(capsys, monkeypatch, args, why):
    assert why in fails(capsys, monkeypatch, "bench", *args)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--text", "bert"], "no frozen encoder"),
        (["--device", "tpu"], "tpu"),
        (["--scratch", "--epochs", "0"], "epochs=0"),
        (["--data", "no-such-folder"], "no-such-folder"),
    ],
)
def test_train_clip_refuses_in_a_sentence(capsys, monkeypatch, tmp_path, args, why):
    out = ("--out", str(tmp_path / "model"))
    assert why in fails(capsys, monkeypatch, "train", "clip", *args, *out)


def test_train_clip_prints_what_it_found_and_where_it_is(monkeypatch, tmp_path):
    from mmcourse import recipes

    seen = {}

    def train_clip(recipe, folder, device, processes):
        seen.update(recipe=recipe, folder=folder, processes=processes)
        return {"step": 3, "unseen R@1": 0.25}

    monkeypatch.setattr(recipes, "train_clip", train_clip)
    args = ["--data", "pictures", "--scratch", "--processes", "2", "--seed", "5"]
    said = invoke("train", "clip", *args, "--out", str(tmp_path))
    assert (
        said.exit_code == 0 and "unseen R@1" in said.output and "0.250" in said.output
    )
    recipe = seen["recipe"]
    assert (recipe.data, recipe.image, recipe.seed) == ("pictures", "scratch", 5)
    assert (seen["folder"], seen["processes"]) == (tmp_path, 2)


def test_app_ends_with_the_code_of_what_it_served(monkeypatch):
    from mmcourse import apps

    served = []
    monkeypatch.setattr(apps, "serve", lambda *args: served.append(args) or 7)
    result = invoke("app", "search", "--port", "8899", "--no-browser")
    assert result.exit_code == 7 and served[0][0] == "search"
    assert served[0][2:] == (8899, False)


def test_an_unknown_app_is_one_sentence(capsys, monkeypatch):
    assert "no app is called 'chat'" in fails(capsys, monkeypatch, "app", "chat")
