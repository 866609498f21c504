"""``check(id, function)``: not attempted, incorrect because, or correct.

A learner's function runs on fixed and on fresh random inputs, beside the reference
and beside every mistake that people are known to make. If it agrees with a mistake
on all of them, the report names that mistake; so a mistake is recognised by what it
does, however it was written.
"""

import contextlib
import copy
import ctypes
import dis
import importlib
import io
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
PRINTED = 2_000  # characters that are shown of what a function prints
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
        with _listening():
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
    """Shape and dtype, then properties, then values; stops at the first fault.

    A right answer that changes its inputs is right, and is told so.
    """
    arguments = exercise.arguments()
    due = [exercise.reference(*copy.deepcopy(a)) for a in arguments]
    used = [copy.deepcopy(a) for a in arguments]
    got = [_call(function, a) for a in used]
    given = [_brief(function, a) for a in arguments]
    try:
        for args, g, d in zip(given, got, due, strict=True):
            _compare_form(args, g, d)
        passed.append("  ✓ shape and dtype")
        alike = _dressed_alike(function, exercise.reference)
        for sentence, holds in exercise.properties.items():
            if not _call(lambda holds=holds: holds(alike), ()):
                raise _Wrong(f"this should hold and does not: {sentence}")
            passed.append(f"  ✓ {sentence}")
        for args, g, d in zip(given, got, due, strict=True):
            _compare_values(args, g, d)
        passed.append(f"  ✓ values, on {len(arguments)} inputs")
        if _differ(arguments, used):
            passed.append(f"  ! {CHANGES}")
    except _Wrong as wrong:
        raise _Wrong(_recognise(exercise, arguments, got, due) or wrong) from None


CHANGES = (
    "but it changes its inputs: whoever calls it finds other numbers in them "
    "afterwards. No `x += ...`, `x[...] = ...` or `x.fill_()` on what was given"
)


def _differ(before, after) -> bool:
    """Tell whether arrays changed, also inside lists and dicts; no other objects."""
    if isinstance(before, dict):
        before, after = [*before.values()], [*after.values()]
    if isinstance(before, list | tuple):
        return len(before) != len(after) or any(map(_differ, before, after))
    return hasattr(before, "shape") and not _same(before, after)


def _dressed_alike(function: Callable, reference: Callable) -> Callable:
    """Give lists and arrays the type that the properties are written for."""

    def dressed(*arguments):
        due = reference(*copy.deepcopy(arguments))
        got = function(*copy.deepcopy(arguments))
        if hasattr(due, "new_tensor"):
            is_tensor = hasattr(got, "new_tensor")
            return got.to(due.dtype) if is_tensor else due.new_tensor(_array(got))
        return _array(got).astype(due.dtype) if isinstance(due, np.ndarray) else got

    return dressed


NAN = (
    "every number of your result is NaN: 0 * inf, inf - inf or 0/0 on the way, or a "
    "softmax over an axis that is all hidden"
)


def _nothing_but_nan(got, due) -> bool:
    """Tell whether a result is numbers, of the shape that was due, and all NaN."""
    if isinstance(due, str | list | tuple | dict):
        return False
    return _same(got, np.full(_array(due).shape, np.nan))


def _recognise(exercise: Exercise, arguments, got, due) -> str | None:
    """Return what the first mistake that explains every output tells the learner."""
    if all(map(_nothing_but_nan, got, due)):
        return NAN
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
    """Run a function in a thread with a time limit."""
    outcome = {}

    def target():
        try:
            outcome["value"] = function(*arguments)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        _interrupt(thread)
        thread.join(0.2)  # so that it prints no more once the check is over
        raise _Wrong(f"it ran longer than {SECONDS:.0f} s: is there an endless loop?")
    if "error" in outcome:
        given = _brief(function, arguments)
        raise _Wrong(_explain(outcome["error"], given)) from None
    return outcome["value"]


def _interrupt(thread: threading.Thread) -> None:
    """Raise SystemExit inside a thread, so that an endless loop doesn't go on."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


def _explain(error: BaseException, given: str) -> str:
    """Say an exception in one line, with the line of the learner's code it's from."""
    here = str(Path(__file__).parent)  # the engine and the exercises' properties
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if not f.filename.startswith(here)]
    where = f" at `{frames[0].line}`" if frames and frames[0].line else ""
    try:
        what = next(iter(str(error).splitlines()), "")
    except Exception:  # an exception that can't even be printed
        what = ""
    given = f" (given {given})" if given else ""
    return f"it stops with {type(error).__name__}: {what}{where}{given}"


class _Listener(io.StringIO):
    """Keeps the first ``PRINTED`` characters, and counts the others."""

    more = 0

    def write(self, text: str) -> int:
        room = max(PRINTED - self.tell(), 0)
        super().write(text[:room])
        self.more += len(text[room:])
        return len(text)

    def close(self) -> None:
        """Stay open: what a learner closes is still read."""


@contextlib.contextmanager
def _listening():
    """Hold back what a function prints, and show the beginning of it afterwards."""
    said = _Listener()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        tail = f"\n... and {said.more:,} characters more\n" if said.more else ""
        print(said.getvalue() + tail, end="")


def _compare_form(given: str, got, due) -> None:
    if got is None:
        raise _Wrong("it returns None: is there a `return` missing?")
    if isinstance(due, str | list | tuple | dict):
        if not isinstance(got, type(due)):
            have, want = type(got).__name__, type(due).__name__
            raise _Wrong(f"it returns {have}, {want} was due")
        if isinstance(due, tuple):
            _part_by_part(_compare_form, given, got, due)
        return
    try:
        got, due = _array(got), _array(due)
    except (TypeError, ValueError):
        raise _Wrong(f"it returns {type(got).__name__}, no number or array") from None
    if got.shape != due.shape:
        raise _Wrong(f"shape {got.shape}, {due.shape} was due (given {given})")
    kinds = {"i": "integers", "u": "integers", "f": "floats", "b": "booleans"}
    have, want = kinds.get(got.dtype.kind, "no numbers"), kinds[due.dtype.kind]
    if have != want and not (have in kinds.values() and due.size == 1):
        raise _Wrong(f"dtype {got.dtype} holds {have}, {want} were due")


def _part_by_part(compare: Callable, given: str, got: tuple, due: tuple) -> None:
    """Compare two tuples, and say of which part it is that something is wrong."""
    if len(got) != len(due):
        raise _Wrong(f"it returns {len(got)} values, {len(due)} were due")
    for place, (g, d) in enumerate(zip(got, due, strict=True), start=1):
        if g is None:
            raise _Wrong(f"part {place} of the result is None")
        try:
            compare(given, g, d)
        except _Wrong as wrong:
            raise _Wrong(f"part {place} of the result: {wrong}") from None


def _compare_values(given: str, got, due) -> None:
    if _same(got, due):
        return
    if isinstance(due, tuple) and any(hasattr(part, "shape") for part in due):
        _part_by_part(_compare_values, given, got, due)
    given = f"(given {given})"
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
        return isinstance(a, str) and isinstance(b, str) and a == b
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


def _brief(function: Callable, arguments: tuple) -> str:
    """Describe arguments by name: tensors by shape, what is small by value."""
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount]
    if len(names) != len(arguments):  # *arguments, a layer, something built in
        names = [""] * len(arguments)
    return ", ".join(map(_short, arguments, names))


def _short(value, name: str = "") -> str:
    if getattr(value, "ndim", 0) and hasattr(value, "shape"):
        return f"{name or 'an array of shape'} {tuple(value.shape)}"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{name}={text}" if name else text
