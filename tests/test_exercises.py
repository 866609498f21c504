"""The engine against learners of every kind; then every exercise of the course."""

import contextlib
import re
import sys
import threading
import time

import numpy as np
import pytest
import torch

from mmcourse import notebooks
from mmcourse.exercises import check, engine, question, quiz

NOTEBOOKS = [notebooks.read(path) for path in sorted(notebooks.FOLDER.glob("*.ipynb"))]


def softmax(x):
    return torch.softmax(x, dim=-1)


EYE = torch.eye(2)
SOFTMAX = engine.Exercise(
    "softmax",
    softmax,
    lambda rng: (torch.tensor(rng.normal(size=(2, 3)), dtype=torch.float32),),
    fixed=((torch.tensor([[0.0, 1.0], [2.0, 5.0]]),),),
    properties={"every row sums to 1": lambda f: abs(f(torch.eye(2)).sum() - 2) < 1e-5},
    mistakes={
        "That is over the columns.": lambda x: torch.softmax(x, dim=0),
        "You forgot to divide.": lambda x: torch.exp(x),
    },
)
PLACE = engine.Exercise(
    "place",
    lambda x: int(x.argmax()),
    lambda rng: (torch.tensor(rng.normal(size=5)),),
)
WORDS = engine.Exercise(
    "words", lambda text: text.split(), lambda rng: ("a b c"[: rng.integers(1, 6)],)
)
MEAN = engine.Exercise(
    "mean", lambda x: x.mean(), lambda rng: (torch.tensor(rng.normal(size=4)),)
)


@pytest.fixture(name="course")
def of_the_course():
    """Asks for the real exercises of the course."""


@pytest.fixture(autouse=True)
def these(request, monkeypatch):
    """In the engine's own tests, the four above are the course's exercises."""
    if "course" not in request.fixturenames:
        known = {e.id: e for e in (SOFTMAX, PLACE, WORDS, MEAN)}
        monkeypatch.setattr(engine, "exercises", lambda: known)


def last(report):
    assert report.status == "incorrect"
    return report.lines[-1].removeprefix("  ✗ ")


# --- not attempted ----------------------------------------------------------------


def bare(x): ...


def documented(x):
    """Divide e^x by its sum."""
    ...


def commented(x):
    """Divide e^x by its sum."""
    # your turn
    pass


def not_implemented(x):
    """Divide e^x by its sum."""
    raise NotImplementedError


@pytest.mark.parametrize("stub", [bare, documented, commented, not_implemented])
def test_a_stub_is_not_attempted_yet(stub):
    report = check("softmax", stub)
    assert report.status == "not attempted"
    assert repr(report) == "○ softmax: not attempted yet"


def test_a_constant_answer_is_an_attempt():
    assert check("place", lambda x: 0).status == "incorrect"


# --- correct ----------------------------------------------------------------------


def by_numpy(x):
    e = np.exp(x.numpy())
    return e / e.sum(axis=1, keepdims=True)


def by_lists(x):
    rows = [[float(np.exp(v)) for v in row] for row in x.tolist()]
    return [[v / sum(row) for v in row] for row in rows]


def with_gradients(x):
    return softmax(x.clone().requires_grad_())


def rows_of_tensors_with_gradients(x):
    return [*with_gradients(x)]


def in_place_on_a_copy(x):
    x = x - x.max(dim=-1, keepdim=True).values
    return x.exp_().div_(x.sum(dim=-1, keepdim=True))


def in_double(x):
    return softmax(x.double())


def loud(x):
    print("working", x.shape)
    return softmax(x)


class Callable:
    def __call__(self, x):
        return softmax(x)


RIGHT = [softmax, by_numpy, by_lists, with_gradients, rows_of_tensors_with_gradients]
RIGHT += [in_place_on_a_copy, in_double, loud, Callable(), torch.nn.Softmax(dim=-1)]


@pytest.mark.parametrize("function", RIGHT, ids=lambda f: getattr(f, "__name__", ""))
def test_right_answers_of_every_style_pass(function):
    report = check("softmax", function)
    assert report.status == "correct", report
    assert report.lines == (
        "  ✓ shape and dtype",
        "  ✓ every row sums to 1",
        "  ✓ values, on 6 inputs",
    )


def test_doubles_pass_where_a_property_compares_with_floats(monkeypatch):
    compared = engine.Exercise(
        "softmax",
        softmax,
        SOFTMAX.inputs,
        properties={"as torch": lambda f: torch.allclose(f(EYE), softmax(EYE))},
    )
    monkeypatch.setattr(engine, "exercises", lambda: {"softmax": compared})
    for right in (in_double, by_numpy, lambda x: by_numpy(x.double())):
        assert check("softmax", right).status == "correct", check("softmax", right)


def test_a_number_may_come_in_any_dress():
    for right in (
        lambda x: x.argmax(),
        lambda x: float(x.argmax()),
        lambda x: np.int64(x.numpy().argmax()),
    ):
        assert check("place", right).status == "correct"


def test_the_learners_argument_is_a_copy():
    """A function that spoils its input doesn't spoil what it is compared with."""
    fixed = SOFTMAX.fixed[0][0].clone()
    check("softmax", lambda x: x.zero_())
    assert torch.equal(SOFTMAX.fixed[0][0], fixed)


def in_place(x):
    x -= x.max(dim=-1, keepdim=True).values
    return softmax(x)


def overwrites(x):
    out = softmax(x)
    x[...] = float("nan")
    return out


@pytest.mark.parametrize("function", [in_place, overwrites])
def test_a_right_answer_that_changes_its_inputs_is_told_so(function):
    report = check("softmax", function)
    assert report.status == "correct"
    assert report.lines[-2] == "  ✓ values, on 6 inputs"
    assert report.lines[-1].startswith("  ! but it changes its inputs: whoever")


def test_a_mistake_that_changes_its_inputs_too_is_named():
    assert last(check("softmax", lambda x: x.exp_())) == "You forgot to divide."


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        ([np.ones(2), "a"], [np.ones(2), "b"], False),
        ([np.ones(2)], [np.ones(2), np.ones(2)], True),
        ({"x": torch.ones(2)}, {"x": torch.zeros(2)}, True),
        ({"x": torch.ones(2)}, {}, True),
        ((torch.tensor([np.nan, np.inf]),), (torch.tensor([np.nan, np.inf]),), False),
        ((torch.nn.Linear(2, 2), len, 1), (torch.nn.Linear(2, 2), max, 2), False),
    ],
)
def test_only_arrays_can_be_changed(before, after, differ):
    assert engine._differ(before, after) is differ


# --- incorrect, because -----------------------------------------------------------


WRONG = {
    "no return": (lambda x: print(end=""), "returns None: is there a `return` missing"),
    "shape": (
        lambda x: softmax(x)[0],
        r"shape \(2,\), \(2, 2\) was due \(given x \(2, 2\)\)",
    ),
    "whole numbers": (lambda x: softmax(x).int(), "dtype int32 holds integers, floats"),
    "property": (
        lambda x: softmax(x) * 2,
        "should hold and does not: every row sums to 1",
    ),
    "values": (
        lambda x: softmax(2 * x),
        r"values: 0.1192 at \(0, 0\) where 0.26894 was",
    ),
    "nan": (lambda x: softmax(x) * np.nan, "^every number of your result is NaN: 0 *"),
    "nan, another shape": (lambda x: x[0] * np.nan, r"^shape \(2,\), \(2, 2\) was due"),
    "text": (lambda x: str(x), r"shape \(\), \(2, 2\) was due"),
    "ragged": (lambda x: [[1.0], [1.0, 2.0]], "returns list, no number or array"),
    "generator": (lambda x: (v for v in x), r"shape \(\), "),
    "arguments": (lambda: 1, "it stops with TypeError: .* takes 0 positional"),
}


@pytest.mark.parametrize(("function", "why"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(function, why):
    line = last(check("softmax", function))
    assert re.search(why, line) and "\n" not in line


@pytest.mark.parametrize(
    "answer",
    ["abc", object(), {"a": 1}, 1j, len, np.nan, np.array([1.0], object), [[]]],
)
def test_nothing_that_is_returned_breaks_the_check(answer):
    """Whatever it is, the answer is a line and never a traceback."""
    for id in ("softmax", "place", "words", "mean"):
        assert last(check(id, lambda x, answer=answer: answer))


PAIR = engine.Exercise(
    "pair",
    lambda x: (softmax(x), x > 0),
    SOFTMAX.inputs,
    fixed=SOFTMAX.fixed,
    mistakes={"The two changed places.": lambda x: (x > 0, softmax(x))},
)
PAIRS = {
    "first shape": (
        lambda x: (softmax(x)[0], x > 0),
        r"^part 1 of the result: shape \(2,\), \(2, 2\) was due \(given x \(2, 2\)\)$",
    ),
    "second shape": (
        lambda x: (softmax(x), (x > 0).T[:1]),
        r"^part 2 of the result: shape \(1, 2\), \(2, 2\) was due",
    ),
    "dtype": (
        lambda x: (softmax(x), (x > 0).float()),
        "^part 2 of the result: dtype float32 holds floats, booleans were due$",
    ),
    "too many": (lambda x: (x, x, x), "^it returns 3 values, 2 were due$"),
    "none": (lambda x: (softmax(x), None), "^part 2 of the result is None$"),
    "no tuple": (lambda x: [softmax(x), x > 0], "^it returns list, tuple was due$"),
}


@pytest.fixture(name="pair")
def of_two_arrays(monkeypatch):
    monkeypatch.setattr(engine, "exercises", lambda: {"pair": PAIR})


@pytest.mark.parametrize(("function", "why"), PAIRS.values(), ids=PAIRS)
def test_the_form_of_each_part_of_a_tuple_is_looked_at(pair, function, why):
    report = check("pair", function)
    assert re.search(why, last(report)) and len(report.lines) == 1, report


def test_wrong_values_in_a_tuple_are_pointed_at(pair):
    report = check("pair", lambda x: (softmax(x), x > 1))
    line = r"^part 2 of the result: values: 0 at \(0, 1\) where 1 was due \(given x"
    assert re.search(line, last(report))
    assert report.lines[0] == "  ✓ shape and dtype"


def test_parts_of_a_tuple_may_come_in_any_dress_and_mistakes_are_named(pair):
    for right in (
        lambda x: (by_lists(x), (x > 0).tolist()),
        lambda x: (by_numpy(x), x.numpy() > 0),
    ):
        assert check("pair", right).status == "correct", check("pair", right)
    swapped = check("pair", lambda x: (x.gt(0), softmax(x)))
    assert last(swapped) == "The two changed places."


def test_values_that_are_nan_are_pointed_at():
    def partly(x):
        out = softmax(x)
        out[0, 1] = np.nan
        return out

    free = engine.Exercise("softmax", softmax, SOFTMAX.inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "exercises", lambda: {"softmax": free})
        line = last(check("softmax", partly))
    assert re.search(r"values: nan at \(0, 1\) where \S+ was due", line)


def test_lists_are_compared_as_lists():
    line = last(check("words", lambda text: tuple(text.split())))
    assert line == "it returns tuple, list was due"
    assert "where ['a'" in last(check("words", lambda text: [text + "!"]))


@pytest.mark.parametrize("nan", [np.nan, torch.tensor(np.nan), np.float32(np.nan)])
def test_nothing_but_nan_is_no_mistake_that_happens_to_be_nan(monkeypatch, nan):
    mistakes = {"0/0": lambda x: x.mean() * np.nan}
    mean = engine.Exercise("mean", MEAN.reference, MEAN.inputs, mistakes=mistakes)
    monkeypatch.setattr(engine, "exercises", lambda: {"mean": mean})
    assert last(check("mean", lambda x: nan)).startswith("every number of your result")
    assert "values: " in last(check("mean", lambda x: nan if x[0] > 9 else 7.0))
    for id in ("words", "place"):
        monkeypatch.setattr(
            engine, "exercises", lambda: {"words": WORDS, "place": PLACE}
        )
        assert "every number" not in last(check(id, lambda x: ["nan", "b"]))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x, n: 0, "x (2, 3), n=4"),
        (lambda *a: 0, "an array of shape (2, 3), 4"),
        (lambda x, n, more=1: 0, "an array of shape (2, 3), 4"),
        (torch.nn.Identity(), "an array of shape (2, 3), 4"),
        (max, "an array of shape (2, 3), 4"),
    ],
)
def test_arguments_are_named_where_their_names_are_known(function, told):
    assert engine._brief(function, (torch.ones(2, 3), 4)) == told


def helper(x):
    return x.view(7, 7)


def calls_a_helper(x):
    y = helper(x)
    return y


def test_an_exception_is_one_line_with_the_learners_line():
    line = last(check("softmax", calls_a_helper))
    assert line.startswith("it stops with RuntimeError: shape '[7, 7]' is invalid")
    assert "at `y = helper(x)`" in line and "(given x (2, 2))" in line


def fails_on_squares(x):
    if x.shape == (2, 2) and x[0, 0] == 1:
        raise KeyError("eye")
    return softmax(x)


def test_an_exception_in_a_property_shows_the_learners_line_too():
    line = last(check("softmax", fails_on_squares))
    assert line.startswith("it stops with KeyError: 'eye'")


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt, MemoryError])
def test_a_function_that_stops_the_program_only_fails(stop):
    def function(x):
        raise stop("enough\nof this")

    assert last(check("softmax", function)).startswith(f"it stops with {stop.__name__}")


@pytest.mark.parametrize("style", ["plain", "sleeping", "catching"])
def test_an_endless_loop_ends(monkeypatch, style):
    monkeypatch.setattr(engine, "SECONDS", 0.3)

    def plain(x):
        while True:
            x = x + 0

    def sleeping(x):
        while True:
            time.sleep(0.01)

    def catching(x):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    begin, before = time.perf_counter(), threading.active_count()
    function = {"plain": plain, "sleeping": sleeping, "catching": catching}[style]
    assert "is there an endless loop?" in last(check("softmax", function))
    assert time.perf_counter() - begin < 3
    deadline = time.perf_counter() + 5
    while threading.active_count() > before and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before  # and the loop doesn't go on behind


# --- what it prints ---------------------------------------------------------------


def test_what_a_function_prints_is_shown(capsys):
    assert check("softmax", loud).status == "correct"
    assert capsys.readouterr().out.count("working torch.Size([2, 2])\n") >= 1


def test_nothing_is_printed_where_nothing_was(capsys):
    check("softmax", softmax)
    assert capsys.readouterr().out == ""


def test_endless_printing_is_cut(monkeypatch, capsys):
    monkeypatch.setattr(engine, "SECONDS", 0.3)

    def endless(x):
        while True:
            print("spam and eggs", end=" ")

    assert "is there an endless loop?" in last(check("softmax", endless))
    out = capsys.readouterr().out
    assert out.startswith("spam and eggs spam") and len(out) < engine.PRINTED + 60
    assert re.search(r"\n\.\.\. and [\d,]+ characters more\n$", out)


def test_a_function_may_close_what_it_prints_to(capsys):
    def closing(x):
        print("the end")
        sys.stdout.close()
        return softmax(x)

    assert check("softmax", closing).status == "correct"
    assert capsys.readouterr().out.startswith("the end\n")


# --- mistakes ---------------------------------------------------------------------


def columns(x):
    e = x.exp()
    return e / e.sum(dim=0)


def test_a_mistake_is_recognised_however_it_is_written():
    assert last(check("softmax", columns)) == "That is over the columns."
    assert (
        last(check("softmax", lambda x: np.exp(x.numpy()))) == "You forgot to divide."
    )


def test_the_report_reads_well():
    text = repr(check("softmax", columns))
    assert text.splitlines() == [
        "✗ softmax: incorrect",
        "  ✓ shape and dtype",
        "  ✓ every row sums to 1",
        "  ✗ That is over the columns.",
    ]


def test_no_mistake_is_named_where_it_explains_only_some_outputs():
    def sometimes(x):
        return columns(x) if x[0, 0] == 0 else softmax(x) * 0.5

    assert "columns" not in last(check("softmax", sometimes))


def test_a_mistake_that_fails_or_equals_the_answer_is_passed_over():
    exercise = engine.Exercise(
        "mean",
        MEAN.reference,
        MEAN.inputs,
        mistakes={
            "fails": lambda x: 1 / 0,
            "the answer itself": MEAN.reference,
            "sum": lambda x: x.sum(),
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "exercises", lambda: {"mean": exercise})
        assert last(check("mean", lambda x: x.sum())) == "sum"


# --- not a function, unknown ------------------------------------------------------


def test_what_cannot_be_called_and_unknown_ids_are_refused():
    # A callable by its class, not in truth: the tests' type check lets it through.
    with pytest.raises(
        ValueError, match=r"got Tensor, not a function: .*without brackets"
    ):
        check.__wrapped__("softmax", torch.eye(2))
    with pytest.raises(
        ValueError, match=r"no exercise is called 'sofmax': .*'softmax'"
    ):
        check("sofmax", softmax)


# --- questions --------------------------------------------------------------------

ASKED = quiz.Question(
    "chance", "How many by <luck>?", {"1": "Too few.", "2 & 3": "Yes."}, right=1
)


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(quiz, "questions", lambda: {"chance": ASKED})


def test_every_answer_gets_its_reply(asked, capsys):
    question("chance", "a")
    question("chance", "b")
    question("chance", " B ")
    right = "(b) Right. Yes.\n"
    assert capsys.readouterr().out == f"(a) No. Too few.\n{right}{right}"


def test_unknown_questions_and_answers_are_refused(asked):
    with pytest.raises(ValueError, match="no question is called 'luck'"):
        question("luck")
    with pytest.raises(ValueError, match="no answer 'C': choose from a, b"):
        question("chance", "C")
    with pytest.raises(ValueError, match="no answer 2: choose from a, b"):
        quiz.Question.reply.__wrapped__(ASKED, 2)


def test_a_button_shows_its_reply(asked, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **_: shown.extend(a))
    question("chance")
    words, box = shown
    assert words["text/plain"] == "How many by <luck>?\n(a) 1\n(b) 2 & 3"
    assert "&lt;luck&gt;" in words["text/html"] and "2 &amp; 3" in words["text/html"]
    row, reply = box.children
    assert [button.description for button in row.children] == ["a", "b"]
    assert [button.tooltip for button in row.children] == ["1", "2 & 3"]
    row.children[1].click()
    assert reply.value == "(b) Right. Yes."


# --- the exercises of the course --------------------------------------------------


def run(notebook, name, code):
    """Define the learner's function as a kernel would, after the notebook's imports."""
    names = {}
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            imports = re.findall(r"^(?:import|from) [^\n(]+$", cell["source"], re.M)
            exec("\n".join(imports), names)
        if cell["metadata"].get("exercise") == name:
            break
    exec(compile(code, name, "exec"), names)
    return names[name]


CASES = [
    pytest.param(book, cell, id=cell["metadata"]["exercise"])
    for book in NOTEBOOKS
    for cell in notebooks.tagged(book, "exercise")
]
course = pytest.mark.usefixtures("course")


@course
def test_the_notebooks_and_the_package_have_the_same_exercises():
    ids = [cell["metadata"]["exercise"] for _, cell in (c.values for c in CASES)]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(engine.exercises())


@course
@pytest.mark.parametrize(("book", "cell"), CASES)
def test_the_solution_is_correct_and_the_stub_not_attempted(book, cell):
    id = cell["metadata"]["exercise"]
    stub = run(book, id, cell["source"])
    assert check(id, stub).status == "not attempted"
    for _ in range(3):  # fresh inputs every time
        report = check(id, run(book, id, notebooks.solutions(book)[id]))
        assert report.status == "correct", report


@course
@pytest.mark.parametrize(("book", "cell"), CASES)
def test_the_solution_has_the_signature_and_the_words_of_the_exercise(book, cell):
    id = cell["metadata"]["exercise"]
    signature = re.search(r"^def .*?:$", cell["source"], re.M | re.S).group()
    assert signature in notebooks.solutions(book)[id]


@course
@pytest.mark.parametrize(("book", "cell"), CASES)
def test_the_check_follows_and_two_hints_and_a_solution(book, cell):
    id = cell["metadata"]["exercise"]
    after = book.cells[book.cells.index(cell) + 1 :]
    assert after[0]["source"].split("\n")[-1] == f'check("{id}", {id})'
    assert "check" in after[0]["metadata"]["tags"]
    tags = []
    for c in after[1:]:
        if not {"hint", "solution"} & set(c["metadata"].get("tags", ())):
            break
        tags += c["metadata"]["tags"]
        assert c["source"].startswith("<details>") and "</details>" in c["source"]
    assert tags[-1] == "solution" and tags[:-1].count("hint") == len(tags) - 1 >= 2


@course
@pytest.mark.parametrize("exercise", engine.exercises().values(), ids=lambda e: e.id)
def test_each_mistake_gets_its_own_message(exercise):
    assert len(exercise.mistakes) >= 3
    for message, mistake in exercise.mistakes.items():
        for _ in range(2):
            report = check(exercise.id, mistake)
            assert last(report) == message, (message, report)


@course
@pytest.mark.parametrize("exercise", engine.exercises().values(), ids=lambda e: e.id)
def test_the_reference_holds_all_properties_and_takes_its_inputs(exercise):
    report = check(exercise.id, exercise.reference)
    assert report.status == "correct", report
    assert exercise.points >= 1


@course
def test_every_question_is_asked_once_and_the_reverse():
    text = "\n".join(c["source"] for book in NOTEBOOKS for c in book.cells)
    asked = re.findall(r"question\(\"([\w-]+)\"\)", text)
    assert sorted(asked) == sorted(quiz.questions())


@course
@pytest.mark.parametrize("asked", quiz.questions().values(), ids=lambda q: q.id)
def test_every_answer_has_its_own_reply(asked):
    replies = [*asked.answers.values()]
    assert 3 <= len(replies) <= 8 and len(set(replies)) == len(replies)
    assert all(reply.strip() for reply in replies)
    assert 0 <= asked.right < len(replies)
    verdicts = [asked.reply(letter).split()[1] for letter in asked.letters()]
    assert verdicts.count("Right.") == 1


def test_a_result_that_cannot_be_read_is_incorrect_and_nothing_more():
    knot = []
    knot.append(knot)
    for answer in (lambda x: torch.empty(2, 2, device="meta"), lambda x: knot):
        report = check("softmax", answer)
        assert report.status == "incorrect" and len(repr(report).splitlines()) <= 3
