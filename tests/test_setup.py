"""tools/setup.py on a tiny project, and the files that agree with pyproject.toml."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
SETUP = REPO / "tools" / "setup.py"

# A build backend within the project, so that pip needs no index for it.
BACKEND = """
import zipfile
def _wheel(folder, requires):
    name = "tiny-1.0-py3-none-any.whl"
    meta = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nProvides-Extra: test\\n"
    meta += "".join(f"Requires-Dist: {r}\\n" for r in requires)
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny.py", "value = 1\\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", meta)
        tag = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("tiny-1.0.dist-info/WHEEL", tag)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    import tomllib
    with open("pyproject.toml", "rb") as file:
        return _wheel(folder, tomllib.load(file)["tiny"]["requires"])
build_editable = build_wheel
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[tiny]
requires = {requires}
"""


def make_project(folder: Path, requires: tuple[str, ...] = ()) -> Path:
    """A repository root with nothing but what tools/setup.py looks at."""
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    shutil.copy(SETUP, folder / "tools")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(requires=list(requires)))
    return folder


def make_wheel(folder: Path, name: str) -> Path:
    """An empty package as a wheel, made by the same backend."""
    folder.mkdir(parents=True, exist_ok=True)
    scope: dict = {}
    exec(BACKEND.replace("tiny", name), scope)
    return folder / scope["_wheel"](folder, [])


def command(project: Path, *args: str, **env: str) -> tuple[list[str], dict]:
    """The command and what Popen and run need; no index of this machine is asked."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    clean |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # nobody listens there
        "PIP_RETRIES": "1",
    }
    line = [sys.executable, str(project / "tools" / "setup.py"), *args]
    return line, {"env": clean | env, "text": True}


def set_up(project: Path, *args: str, **env: str) -> subprocess.CompletedProcess:
    line, options = command(project, *args, **env)
    return subprocess.run(line, capture_output=True, timeout=60, **options)


def load(project: Path) -> ModuleType:
    """The project's setup.py as a module."""
    spec = importlib.util.spec_from_file_location(
        "tiny_setup", project / "tools/setup.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(tmp_path) -> ModuleType:
    """setup.py of a project where nothing was done yet."""
    return load(make_project(tmp_path))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> SimpleNamespace:
    """A project that two processes set up at once; environments are slow to make."""
    project = make_project(tmp_path_factory.mktemp("made"))
    line, options = command(project)
    pair = [subprocess.Popen(line, stdout=subprocess.PIPE, **options) for _ in "ab"]
    said = [one.communicate(timeout=60)[0] for one in pair]
    return SimpleNamespace(
        project=project, said=said, codes=[p.returncode for p in pair]
    )


@pytest.fixture
def made(made_once) -> Iterator[SimpleNamespace]:
    """The same for one test, after which it is as it was."""
    files = [made_once.project / "pyproject.toml", load(made_once.project).STAMP]
    before = [file.read_bytes() for file in files]
    yield made_once
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    shutil.rmtree(made_once.project / "data", ignore_errors=True)


def log_of(project: Path) -> Path:
    return project / "build" / "setup.log"


# --- real runs --------------------------------------------------------------------


def test_of_two_at_once_one_installs(made):
    assert made.codes == [0, 0]
    assert sum(".venv is ready" in said for said in made.said) == 1
    assert sum("Another set-up" in said for said in made.said) == 1
    setup = load(made.project)
    code = "import tiny; print(tiny.value)"
    done = subprocess.run(
        [setup.venv_python(), "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "1\n"


def test_a_second_run_asks_nobody(made):
    before = log_of(made.project).stat().st_mtime_ns
    done = set_up(made.project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert log_of(made.project).stat().st_mtime_ns == before


def test_a_killed_installation_is_done_again(made):
    setup = load(made.project)
    packages = setup.site_packages()
    # What a pip killed between the last file and its mark leaves behind.
    (packages / "tiny-1.0.dist-info" / "INSTALLER").unlink()
    (packages / "tiny.py").unlink()
    (packages / "~orch-2.0.dist-info").mkdir()
    setup.write_stamp(["test"])
    assert set_up(made.project).stdout.startswith(".venv is ready")
    assert (packages / "tiny.py").exists()
    assert not (packages / "~orch-2.0.dist-info").exists()
    # The extras of the earlier run were kept, so `course` and `test` don't take turns.
    assert setup.read_stamp()["extras"] == ["test"]
    assert setup.is_fresh([]) and setup.is_fresh(["test"])


def test_no_index_then_the_wheelhouse(made):
    project = make_project(made.project, requires=("faraway",))
    done = set_up(project)
    assert done.returncode == 1
    assert done.stderr.startswith("No package index can be reached: check the network")
    assert len(done.stderr.splitlines()) == 1
    assert "faraway" in log_of(project).read_text()

    make_wheel(project / "data" / "wheelhouse", "faraway")
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    assert "No package index can be reached: installing from" in done.stdout


def test_a_room_is_installed_without_an_index(made, tmp_path):
    make_project(made.project, requires=("farther",))
    room = tmp_path / "room.zip"
    with zipfile.ZipFile(room, "w") as archive:
        wheel = make_wheel(tmp_path, "farther")
        archive.write(wheel, f"wheelhouse/../../{wheel.name}")
    done = set_up(made.project, "--from", str(room))
    assert done.returncode == 0, done.stderr
    assert "index" not in done.stdout
    assert (made.project / "data" / "wheelhouse" / wheel.name).exists()


def test_what_pip_said_comes_in_one_sentence(made, tmp_path):
    make_project(made.project, requires=("no-such-thing>=3",))
    done = set_up(made.project, "--wheelhouse", str(tmp_path))
    assert done.returncode == 1
    assert "No matching distribution found for no-such-thing>=3" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- each fault -------------------------------------------------------------------


def failing(setup: ModuleType, capsys) -> str:
    """Run it, see it fail, and return its one sentence."""
    assert setup.main([]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


def test_python_too_old(setup, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    said = failing(setup, capsys)
    assert f"Python 3.9 at {sys.executable} is too old" in said
    assert "needs 3.11 or later" in said and "make PYTHON=python3.12 course" in said
    assert not setup.VENV.exists()


def test_an_old_python_may_start_what_a_new_one_made(made, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert load(made.project).main([]) == 0
    assert capsys.readouterr().out == ""


def test_even_python_3_6_reads_it():
    ast.parse(SETUP.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_no_venv_module(setup, monkeypatch, capsys, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == missing else found(name),
    )
    assert "run `sudo apt install python3." in failing(setup, capsys)


def test_disk_too_small(setup, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0.2e9))
    said = failing(setup, capsys)
    assert "has 0.2 GB free and the installation needs about" in said
    assert not setup.VENV.exists()


def test_the_disk_does_not_matter_when_nothing_is_to_do(made, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert load(made.project).main([]) == 0


def test_pips_cache_is_left_out_where_room_is_short(setup, monkeypatch):
    need = setup.STACK_GB + setup.DOWNLOAD_GB
    for free, cache in [(need + 0.5, False), (need + setup.DOWNLOAD_GB + 0.5, True)]:
        room = SimpleNamespace(free=free * 1e9)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, room=room: room)
        assert setup.check_disk() is cache


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("ERROR: ... [Errno 28] No space left on device", "is full (or your quota)"),
        ("OSError: [Errno 122] Disk quota exceeded", "is full (or your quota)"),
        ("WARNING: Retrying (Retry(total=0, ...\nERROR: No mat", "name a mirror with"),
        (
            "ERROR: build\nModuleNotFoundError: x\n\nnote: y",
            "t: ModuleNotFoundError: x",
        ),
        ("nothing of note\n[notice] new pip", "t: nothing of note"),
        ("", "t: it said nothing"),
    ],
)
def test_the_reason_is_found_in_the_log(setup, log, sentence):
    setup.BUILD.mkdir()
    setup.LOG.write_text(log)
    assert sentence in setup.reason("t")
    assert "\n" not in setup.reason("t")


def test_a_full_disk_is_seen_where_the_log_says_nothing(setup, monkeypatch):
    setup.BUILD.mkdir()
    setup.LOG.write_text("Error: ensurepip returned non-zero exit status 1")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    assert "is full (or your quota)" in setup.reason("t")


def test_a_disk_that_fills_up_under_us(setup, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(setup, "make_venv", full)
    assert "free some space, then run it again" in failing(setup, capsys)


@pytest.mark.parametrize("content", [None, b"no zip", b""])
def test_a_room_that_is_no_room(setup, tmp_path, content):
    room = tmp_path / "room.zip"
    if content is not None:
        room.write_bytes(content)
    with pytest.raises(setup.SetupError, match=r"room\.zip can't be unpacked"):
        setup.unpack_wheels(room)
    with zipfile.ZipFile(room, "w") as archive:
        archive.writestr("assets/openmoji.whl.txt", "x")
    with pytest.raises(setup.SetupError, match="holds no wheels"):
        setup.unpack_wheels(room)


@pytest.mark.parametrize("broken", ["no interpreter", "no pip", "moved", "too old"])
def test_a_broken_environment_is_made_anew(setup, monkeypatch, broken):
    setup.venv_python().parent.mkdir(parents=True)
    version = "3.9.1" if broken == "too old" else "3.11.7"
    (setup.VENV / "pyvenv.cfg").write_text(f"home = x\nversion = {version}\n")
    if broken != "no interpreter":
        status = 1 if broken == "no pip" else 0
        setup.venv_python().write_text(f"#!/bin/sh\nexit {status}\n")
        setup.venv_python().chmod(0o755)
    if broken == "moved":
        setup.STAMP.write_text(json.dumps({"root": "/elsewhere", "extras": []}))
    assert not setup.is_usable()
    done = []
    monkeypatch.setattr(setup, "make_venv", lambda lock: done.append("made"))
    monkeypatch.setattr(setup, "install", lambda *_: done.append("installed"))
    assert setup.main([]) == 0
    assert done == ["made", "installed"]


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_wanted_is_noticed(setup, file):
    before = setup.digest()
    (setup.ROOT / file).write_text("something = 'else'")
    assert setup.digest() != before


def test_a_keyboard_interrupt_is_no_traceback(setup, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "make_venv", stop)
    assert setup.main([]) == 130
    assert "run it again and it goes on" in capsys.readouterr().err


def test_the_status_line_says_what_pip_does(setup, monkeypatch, capsys):
    status = setup.Status("asking")
    status.read("Collecting torch>=2.11 (from mmcourse)\n")
    assert status.doing == "finding torch"
    status.read("  Downloading torch-2.15.0-cp311.whl.metadata (30 kB)\n")
    assert status.doing == "finding torch"
    status.read("  Downloading torch-2.15.0-cp311-linux.whl (915.6 MB)\n")
    assert status.doing == "downloading torch (915.6 MB)"
    status.show()
    assert capsys.readouterr().out == ""  # no terminal: not before 30 s
    status.shown -= 31
    status.read("Installing collected packages: a, b, c\n")
    status.show()
    assert capsys.readouterr().out.endswith("installing package 0 of 3\n")


# --- the files that have to agree -------------------------------------------------

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
ASKED = [
    Requirement(line)
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
]
PINS = [
    Requirement(line)
    for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
ENVIRONMENT = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))
CONDA = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]


def test_constraints_pin_what_pyproject_asks_for():
    pins = {}
    for pin in PINS:
        assert pin.url is None
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for asked in ASKED:
        for pin in pins[canonicalize_name(asked.name)]:
            version = str(pin.specifier).removeprefix("==")
            assert asked.specifier.contains(version), f"{pin} is not {asked}"


def test_one_torch_on_every_platform():
    pairs = [pin for pin in PINS if pin.name in ("torch", "torchvision")]
    assert len(pairs) == 2
    assert all(pin.marker is None and "+" not in str(pin) for pin in pairs)


def test_environment_yml_is_conda_and_pip():
    rattler = pytest.importorskip("rattler")
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    pip = [
        line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)
    ]
    assert pip == [["-c constraints.txt", "-e ."]]
    names = [rattler.MatchSpec(line).name.normalized for line in CONDA]
    assert {"python", "pip"} <= set(names)
    bounds = {canonicalize_name(r.name): str(r.specifier) for r in ASKED}
    for name, line in zip(names, CONDA, strict=True):
        wanted = bounds.get(name)
        assert wanted is None or line == f"{name} {wanted}", (
            f"{line}: pyproject differs"
        )


def test_the_oldest_python_is_the_same_everywhere():
    oldest = PROJECT["requires-python"]
    assert f"python {oldest}" in CONDA
    dotted = oldest.removeprefix(">=")
    assert ".".join(map(str, load_repo().OLDEST)) == dotted
    from mmcourse import doctor

    assert doctor.OLDEST == load_repo().OLDEST
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    for said in re.findall(r"Python (3\.\d+) or (?:later|newer)", readme):
        assert said == dotted


def load_repo() -> ModuleType:
    return load(REPO)


def test_the_hooks_have_the_tested_versions():
    text = (REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = {str(pin) for pin in PINS}
    hooks = [hook for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]]
    used = {pin for hook in hooks for pin in hook["additional_dependencies"]}
    assert used and used <= pins


def test_no_file_names_an_index():
    names = [
        "constraints.txt",
        "environment.yml",
        "Makefile",
        ".ci/run",
        "tools/setup.py",
    ]
    for name in [*names, ".pre-commit-config.yaml"]:
        text = (REPO / name).read_text(encoding="utf-8")
        assert "://" not in text, name


def test_the_recipes_are_sound():
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    given = ["NOTEBOOKS=00,01", "PYTHON=python3.12", "ROOM=room.zip"]
    # `make test` runs this: what it tells a make inside it must not get in
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        [make, "-n", "course", *given],
        cwd=REPO,
        env=outside,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        'python3.12 tools/setup.py --from "room.zip"',
        '.venv/bin/mmcourse assets --from "room.zip"',
        ".venv/bin/mmcourse run 00,01",
    ]
    subprocess.run(["bash", "-n", ".ci/run"], cwd=REPO, check=True)
