"""Multiple-choice questions: a prediction before a surprise, a reply to each answer."""

from dataclasses import dataclass
from functools import cache
from html import escape

from mmcourse.exercises.engine import _files


@dataclass(frozen=True)
class Question:
    """A question, its answers in order, and the reply that each one gets."""

    id: str
    text: str
    answers: dict[str, str]  # answer: reply
    right: int  # the place of the right answer, from 0

    def letters(self) -> dict[str, str]:
        """Return the answers by letter: a, b, c, ..."""
        return dict(zip("abcdefgh", self.answers, strict=False))

    def reply(self, letter: str) -> str:
        """Return what this letter's answer is told; ValueError if no answer has it."""
        given, letter = letter, str(letter).strip().lower()
        if letter not in self.letters():
            raise ValueError(
                f"question {self.id!r} has no answer {given!r}: "
                f"choose from {', '.join(self.letters())}"
            )
        answer = self.letters()[letter]
        verdict = "Right." if list(self.answers).index(answer) == self.right else "No."
        return f"({letter}) {verdict} {self.answers[answer]}"


@cache
def questions() -> dict[str, Question]:
    """Return every question of the course by its id."""
    return {q.id: q for file in _files() for q in getattr(file, "QUESTIONS", ())}


def question(id: str, answer: str | None = None) -> None:
    """Show a question with a button for each answer, or reply to ``answer``.

    Without widgets, answer by letter: ``question("chance", "b")``.
    """
    if id not in questions():
        raise ValueError(f"no question is called {id!r}: there are {[*questions()]}")
    asked = questions()[id]
    if answer is not None:
        print(asked.reply(answer))
        return
    from IPython.display import display

    display({"text/html": _html(asked), "text/plain": _plain(asked)}, raw=True)
    display(_buttons(asked))


def _html(asked: Question) -> str:
    items = "".join(f"<li>{escape(a)}</li>" for a in asked.answers)
    style = "list-style: lower-alpha"  # Jupyter's own style would number them 1, 2, 3
    return f'<b>{escape(asked.text)}</b><ol style="{style}">{items}</ol>'


def _plain(asked: Question) -> str:
    lines = [f"({letter}) {a}" for letter, a in asked.letters().items()]
    return "\n".join([asked.text, *lines])


def _buttons(asked: Question):
    import ipywidgets as widgets

    reply = widgets.HTML("Which one? Press its letter.")

    def button(letter: str) -> widgets.Button:
        pressed = widgets.Button(
            description=letter,
            tooltip=asked.letters()[letter],
            layout=widgets.Layout(width="3em"),
        )
        pressed.on_click(lambda _: setattr(reply, "value", escape(asked.reply(letter))))
        return pressed

    return widgets.VBox([widgets.HBox([button(b) for b in asked.letters()]), reply])
