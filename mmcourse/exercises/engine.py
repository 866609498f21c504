"""``check(id, function)``: not attempted, incorrect because, or correct.

A learner's function runs on fixed and on fresh random inputs, beside the reference
and beside every mistake that people are known to make. If it agrees with a mistake
on all of them, the report names that mistake; so a mistake is recognised by what it
does, however it was written.
"""

import copy
import ctypes
import dis
import importlib
import pkgutil
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

FRESH = 5  # random inputs for every check
SECONDS = 5.0  # for one call of the learner's function
TOLERANCE = 1e-5
NO_STEP = ("RESUME", "NOP", "RETURN_VALUE")  # what a stub's bytecode holds besides None


@dataclass(frozen=True)
class Exercise:
    """One exercise: a reference, the inputs to try, and the mistakes to recognise.

    ``inputs(rng)`` draws one tuple of arguments; ``fixed`` holds hand-made ones.
    ``properties`` maps a sentence to a test of the learner's function, and
    ``mistakes`` maps what the learner is told to the mistaken function.
    """

    id: str
    reference: Callable
    inputs: Callable[[np.random.Generator], tuple]
    fixed: tuple[tuple, ...] = ()
    properties: dict[str, Callable] = field(default_factory=dict)
    mistakes: dict[str, Callable] = field(default_factory=dict)
    points: int = 1

    def arguments(self) -> list[tuple]:
        """Return the fixed inputs followed by fresh random ones."""
        rng = np.random.default_rng()
        return [*self.fixed, *(self.inputs(rng) for _ in range(FRESH))]


@dataclass(frozen=True)
class Report:
    """What a check found: a status and one line for each thing that was looked at."""

    id: str
    status: str  # "not attempted", "incorrect" or "correct"
    lines: tuple[str, ...] = ()

    def __repr__(self) -> str:
        mark = {"not attempted": "○", "incorrect": "✗", "correct": "✓"}[self.status]
        tail = " yet" if self.status == "not attempted" else ""
        return "\n".join([f"{mark} {self.id}: {self.status}{tail}", *self.lines])


class _Wrong(Exception):
    """Carries the line that says why an answer is incorrect."""


def check(id: str, function: Callable) -> Report:
    """Check a learner's ``function`` against the exercise called ``id``.

    Never raises for what the function does: whatever goes wrong in it is a line of
    the report. An unknown ``id``, or something that can't be called, is a ValueError.
    """
    exercise = find(id)
    if not callable(function):
        raise ValueError(
            f"check({id!r}, ...) got {type(function).__name__}, not a function: "
            "pass the function itself, without brackets and arguments"
        )
    if is_stub(function):
        return Report(id, "not attempted")
    passed: list[str] = []
    try:
        _examine(exercise, function, passed)
    except _Wrong as wrong:
        return Report(id, "incorrect", (*passed, f"  ✗ {wrong}"))
    except (
        Exception
    ) as error:  # a result that can't be read: meta, self-containing, ...
        why = f"its result can't be compared ({type(error).__name__})"
        return Report(id, "incorrect", (*passed, f"  ✗ {why}: return plain values"))
    return Report(id, "correct", tuple(passed))


def find(id: str) -> Exercise:
    """Return the exercise called ``id``; ValueError with the known ones otherwise."""
    known = exercises()
    if id not in known:
        raise ValueError(f"no exercise is called {id!r}: there are {sorted(known)}")
    return known[id]


@cache
def exercises() -> dict[str, Exercise]:
    """Return every exercise of the course by its id."""
    return {e.id: e for file in _files() for e in getattr(file, "EXERCISES", ())}


@cache
def _files() -> tuple:
    package = importlib.import_module("mmcourse.exercises")
    names = [m.name for m in pkgutil.iter_modules(package.__path__)]
    topics = [name for name in names if name not in ("engine", "quiz")]
    return tuple(importlib.import_module(f"mmcourse.exercises.{t}") for t in topics)


def is_stub(function: Callable) -> bool:
    """Tell whether a function is still ``...`` (or pass, or NotImplementedError)."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    raises = "NotImplementedError" in code.co_names and len(code.co_code) < 40
    steps = [i for i in dis.get_instructions(code) if i.opname not in NO_STEP]
    return raises or (len(steps) == 1 and steps[0].argval in (None, ...))


def _examine(exercise: Exercise, function: Callable, passed: list[str]) -> None:
    """Shape and dtype, then properties, then values; stops at the first fault."""
    arguments = exercise.arguments()
    due = [exercise.reference(*copy.deepcopy(a)) for a in arguments]
    got = [_call(function, a) for a in arguments]
    try:
        for args, g, d in zip(arguments, got, due, strict=True):
            _compare_form(args, g, d)
        passed.append("  ✓ shape and dtype")
        alike = _dressed_alike(function, exercise.reference)
        for sentence, holds in exercise.properties.items():
            if not _call(lambda holds=holds: holds(alike), ()):
                raise _Wrong(f"this should hold and does not: {sentence}")
            passed.append(f"  ✓ {sentence}")
        for args, g, d in zip(arguments, got, due, strict=True):
            _compare_values(args, g, d)
        passed.append(f"  ✓ values, on {len(arguments)} inputs")
    except _Wrong as wrong:
        raise _Wrong(_recognise(exercise, arguments, got, due) or wrong) from None


def _dressed_alike(function: Callable, reference: Callable) -> Callable:
    """Give lists and arrays the type that the properties are written for."""

    def dressed(*arguments):
        due = reference(*copy.deepcopy(arguments))
        got = function(*copy.deepcopy(arguments))
        if hasattr(due, "new_tensor") and not hasattr(got, "new_tensor"):
            return due.new_tensor(_array(got))
        return _array(got) if isinstance(due, np.ndarray) else got

    return dressed


def _recognise(exercise: Exercise, arguments, got, due) -> str | None:
    """Return what the first mistake that explains every output tells the learner."""
    for message, mistake in exercise.mistakes.items():
        try:
            would = [mistake(*copy.deepcopy(a)) for a in arguments]
        except Exception:  # a mistake may fail on an input that isn't its own
            continue
        explains = all(_same(g, w) for g, w in zip(got, would, strict=True))
        if explains and not all(_same(w, d) for w, d in zip(would, due, strict=True)):
            return message
    return None


def _call(function: Callable, arguments: tuple):
    """Run a function on copies of its arguments in a thread with a time limit."""
    outcome = {}

    def target():
        try:
            outcome["value"] = function(*copy.deepcopy(arguments))
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        _interrupt(thread)
        raise _Wrong(f"it ran longer than {SECONDS:.0f} s: is there an endless loop?")
    if "error" in outcome:
        raise _Wrong(_explain(outcome["error"], arguments)) from None
    return outcome["value"]


def _interrupt(thread: threading.Thread) -> None:
    """Raise SystemExit inside a thread, so that an endless loop doesn't go on."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


def _explain(error: BaseException, arguments: tuple) -> str:
    """Say an exception in one line, with the line of the learner's code it's from."""
    here = str(Path(__file__).parent)  # the engine and the exercises' properties
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if not f.filename.startswith(here)]
    where = f" at `{frames[0].line}`" if frames and frames[0].line else ""
    try:
        what = next(iter(str(error).splitlines()), "")
    except Exception:  # an exception that can't even be printed
        what = ""
    given = f" (given {_brief(arguments)})" if arguments else ""
    return f"it stops with {type(error).__name__}: {what}{where}{given}"


def _compare_form(arguments: tuple, got, due) -> None:
    if got is None:
        raise _Wrong("it returns None: is there a `return` missing?")
    if isinstance(due, str | list | tuple | dict):
        if type(got) is not type(due):
            have, want = type(got).__name__, type(due).__name__
            raise _Wrong(f"it returns {have}, {want} was due")
        return
    try:
        got, due = _array(got), _array(due)
    except (TypeError, ValueError):
        raise _Wrong(f"it returns {type(got).__name__}, no number or array") from None
    if got.shape != due.shape:
        raise _Wrong(
            f"shape {got.shape}, {due.shape} was due (given {_brief(arguments)})"
        )
    kinds = {"i": "integers", "u": "integers", "f": "floats", "b": "booleans"}
    have, want = kinds.get(got.dtype.kind, "no numbers"), kinds[due.dtype.kind]
    if have != want and not (have in kinds.values() and due.size == 1):
        raise _Wrong(f"dtype {got.dtype} holds {have}, {want} were due")


def _compare_values(arguments: tuple, got, due) -> None:
    if _same(got, due):
        return
    given = f"(given {_brief(arguments)})"
    if isinstance(due, str | list | tuple | dict):
        raise _Wrong(f"values: {_short(got)} where {_short(due)} was due {given}")
    got, due = _array(got).astype(float), _array(due).astype(float)
    at = tuple(int(i) for i in np.argwhere(~_close(got, due))[0])
    place = f" at {at}" if at else ""
    have, want = float(got[at]), float(due[at])
    raise _Wrong(f"values: {have:.5g}{place} where {want:.5g} was due {given}")


def _same(a, b) -> bool:
    """Tell whether two results agree, to 1e-5 where they are numbers."""
    if isinstance(b, str) or isinstance(a, str):
        return a == b
    if isinstance(b, dict):
        return (
            isinstance(a, dict)
            and a.keys() == b.keys()
            and all(_same(a[k], b[k]) for k in b)
        )
    if isinstance(b, list | tuple):
        return (
            isinstance(a, list | tuple)
            and len(a) == len(b)
            and all(_same(x, y) for x, y in zip(a, b, strict=True))
        )
    try:
        # "same_kind" refuses texts, objects and complex numbers
        a, b = (_array(x).astype(float, casting="same_kind") for x in (a, b))
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(_close(a, b).all())


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    near = np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return np.asarray(near)


def _array(x) -> np.ndarray:
    if isinstance(x, list | tuple):
        return np.asarray([_array(part) for part in x])
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _brief(arguments: tuple) -> str:
    """Describe arguments: small ones by value, tensors by shape."""
    return ", ".join(_short(a) for a in arguments)


def _short(value) -> str:
    if getattr(value, "ndim", 0) and hasattr(value, "shape"):
        return f"an array of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
