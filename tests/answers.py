"""What the tests of the exercises share: right answers pass, mistakes are told."""

import copy
from collections.abc import Callable
from itertools import combinations

import pytest

from mmcourse.exercises import check, engine
from mmcourse.exercises.engine import Exercise


def each_answer(right: dict[str, list[Callable]]):
    """Run a test with every answer of every exercise."""
    pairs = [(id, answer) for id, answers in right.items() for answer in answers]
    names = [f"{id}-{answer.__name__}" for id, answer in pairs]
    return pytest.mark.parametrize("id, answer", pairs, ids=names)


def each_mistake(mistakes: dict[str, dict[str, Callable]]):
    """Run a test with every mistaken answer, and what the learner is told of it."""
    rows = [(i, told, f) for i, some in mistakes.items() for told, f in some.items()]
    names = [f"{id}-{told}" for id, told, _ in rows]
    return pytest.mark.parametrize("id, told, answer", rows, ids=names)


def assert_right(id: str, answer: Callable) -> None:
    """An answer is correct, whatever inputs are drawn, and leaves them as they are."""
    for _ in range(3):
        report = check(id, answer)
        assert report.status == "correct", report
        assert not any("changes its inputs" in line for line in report.lines)


def assert_told(id: str, told: str, answer: Callable) -> None:
    """A mistaken answer is recognised, and the last line says so."""
    report = check(id, answer)
    assert report.status == "incorrect" and told in report.lines[-1], report


def assert_refused(exercise: Exercise, *changes: Callable) -> None:
    """The right result is refused once it is changed a little."""
    for change in changes:
        report = check(exercise.id, lambda *a, c=change: c(exercise.reference(*a)))
        assert report.status == "incorrect", report


def assert_told_apart(exercise: Exercise) -> None:
    """The fixed inputs alone tell the right answer and all mistakes from each other."""
    answers = {"right": exercise.reference, **exercise.mistakes}
    given = {
        name: [answer(*copy.deepcopy(a)) for a in exercise.fixed]
        for name, answer in answers.items()
    }
    for a, b in combinations(given, 2):
        same = map(engine._same, given[a], given[b])
        assert not all(same), f"{a} | {b}"
