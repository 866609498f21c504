"""The package keeps to its plan: imports point to lower ranks, and it stays small."""

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mmcourse"
# Lines of code: docstrings, comments and blank lines are for the reader, and free.
MAX_TAUGHT = 600  # for each notebook there is
MAX_MACHINERY = 2330  # of what runs, checks, races, trains and hands it out
MACHINERY = {
    *("apps", "assets", "bench", "cli", "doctor", "notebooks", "slides", "widgets")
}
MAX_FUNCTION = 40
LONGER = {"training.fit": 60}

# A file imports only files above it in this list; those of one rank never meet.
RANKS = [
    ["device", "assets", "losses", "metrics", "plots", "shapes", "text_metrics"],
    [
        *("tokenizers", "modalities", "digits", "emojis", "scenes", "speech"),
        "triples",
        *("attention", "large_batch", "lora", "masking"),
        "pretrained",
    ],
    ["datasets", "transformer"],
    ["vit", "encoders", "generation", "benchmarks"],
    ["signals", "features", "clip_weights"],
    ["fusion"],
    ["dual_encoder", "multimodal", "vlm"],
    ["tasks", "pretraining"],
    ["training", "evaluation", "interpret"],
    ["hub", "widgets", "exercises"],
    ["recipes"],
    ["vqa_recipe"],
    ["apps"],
    ["notebooks", "doctor", "bench"],
    ["slides"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# Within a folder of one rank: what its other files may import, the lowest first.
SHARED = [
    *("exercises.engine", "exercises.quiz"),
    *("fusion.base", "fusion.feature", "fusion.hybrid"),
    "bench.timing",
]

HEAVY = [
    "torch",
    "transformers",
    "timm",
    "datasets",
    "matplotlib",
    "sklearn",
    "IPython",
]


def dotted(file: Path, package: Path) -> str:
    """``exercises.engine`` for mmcourse/exercises/engine.py; "" for mmcourse itself."""
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module) -> Iterator[str]:
    """The files of mmcourse that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name"
            inside = node.module == "mmcourse"
            names = (
                [f"mmcourse.{a.name}" for a in node.names] if inside else [node.module]
            )
        else:
            continue
        for name in names:
            if name.startswith("mmcourse."):
                yield name.removeprefix("mmcourse.")


def may_import(importer: str, target: str) -> bool:
    """Whether the plan lets one file import the other."""
    if target == "__version__":
        return True
    here, there = importer.split(".")[0], target.split(".")[0]
    if here != there:
        return here != "" and RANK[there] < RANK[here]
    if importer in SHARED:
        return target in SHARED[: SHARED.index(importer)]
    return target in SHARED or "." not in importer


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each function's name and its number of lines, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def code_lines(source: str) -> int:
    """How many lines hold code, rather than a docstring, a comment or nothing."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            first = node.body[0]
            documented |= set(range(first.lineno, first.end_lineno + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    layout += (tokenize.INDENT, tokenize.DEDENT)
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - documented)


FILES = {dotted(file, PACKAGE): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(f.read_text(encoding="utf-8")) for name, f in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_to_a_lower_rank(name):
    assert name == "" or name.split(".")[0] in RANK, (
        f"mmcourse/{name}.py has no rank: give it one in RANKS"
    )
    wrong = [target for target in imported(TREES[name]) if not may_import(name, target)]
    assert not wrong, f"{name or 'mmcourse'} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is(name):
    docstring = ast.get_docstring(TREES[name]) or ""
    assert len(docstring.split()) >= 4, f"{name}: begin with a docstring"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name):
    for function, lines in functions(TREES[name]):
        most = LONGER.get(f"{name}.{function}", MAX_FUNCTION)
        assert lines <= most, f"{name}.{function} has {lines} lines, more than {most}"


def test_the_package_is_small():
    """A notebook's exercises are its content: like the notebook, they don't count."""
    sizes = {n: code_lines(f.read_text(encoding="utf-8")) for n, f in FILES.items()}
    engines = {"exercises", "exercises.engine", "exercises.quiz"}
    machinery = {
        n: s for n, s in sizes.items() if n in engines or n.split(".")[0] in MACHINERY
    }
    taught = {
        n: s
        for n, s in sizes.items()
        if n not in machinery and not n.startswith("exercises.")
    }
    assert sum(machinery.values()) <= MAX_MACHINERY, machinery
    notebooks = len([*(PACKAGE.parent / "notebooks").glob("*.ipynb")])
    assert sum(taught.values()) <= MAX_TAUGHT * notebooks, taught


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("datasets", "assets", True),
        ("assets", "datasets", False),
        ("vit", "encoders", False),
        ("cli", "doctor", True),
        ("doctor", "cli", False),
        ("exercises.ex00", "exercises.engine", True),
        ("exercises.ex00", "exercises.ex01", False),
        ("exercises.engine", "exercises.ex00", False),
        ("exercises.quiz", "exercises.engine", True),
        ("exercises.engine", "exercises.quiz", False),
        ("exercises", "exercises.ex00", True),
        ("tasks.vqa", "multimodal", True),
        ("tasks.vqa", "tasks.retrieval", False),
        ("", "device", False),
        ("hub", "__version__", True),
    ],
)
def test_the_rule_itself(importer, target, allowed):
    assert may_import(importer, target) is allowed


def test_lines_of_code_by_hand():
    source = '"""A module."""\n\nx = [\n    1,  # one\n]\n# two\ny = """a\nb"""\n'
    assert code_lines(source) == 5


def test_all_forms_of_import_are_seen():
    source = """
import mmcourse.vit
from mmcourse import assets, plots
from mmcourse.losses import info_nce
def later():
    from mmcourse.tasks.vqa import VQA
import numpy
"""
    found = set(imported(ast.parse(source)))
    assert found == {"vit", "assets", "plots", "losses", "tasks.vqa"}


def loaded_by(code: str) -> set[str]:
    """The modules that are there after running the code, and were not before."""
    code = f"import sys; before = set(sys.modules)\n{code}\n"
    code += "print('loaded:', *sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_import_mmcourse_imports_nothing_else():
    assert loaded_by("import mmcourse") == {"mmcourse"}


def test_the_command_is_light():
    code = """
from mmcourse.cli import main
sys.argv = ["mmcourse", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    loaded = loaded_by(code)
    assert "mmcourse.cli" in loaded
    assert not loaded & set(HEAVY)
