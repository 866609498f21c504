"""Scenes of drawn shapes, with captions and questions in English and in Chinese.

A small grammar writes every sentence from the things in the scene, and every answer is
worked out from them: constructed data, and said to be so. Three pairs of a colour and a
shape are held out of training, so that a model must compose what it knows of each.
After CLEVR (Johnson et al., 2017, arXiv 1612.06890) and the compositional splits of
C-VQA (Agrawal et al., 2017, arXiv 1704.08243). Taught in 10_captioning and 11_vqa.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmcourse import shapes

GRID = 128  # places lie on a grid, so that scenes that differ look different
SIZES = {"small": 10, "large": 18}  # half a thing's width, in steps of the grid
EDGE, GAP = 5, 3  # least way to the picture's edge (a pixel of 32), and between two
MOST = 4  # things in a scene
CLEAR = 0.15  # of the picture's side: nearer than this, no relation is named
QUESTIONS = 6  # at most, in a scene

Pair = tuple[str, str]  # a colour and a shape
HELD_OUT = (("blue", "triangle"), ("red", "square"), ("yellow", "circle"))
SEEN = tuple(p for p in product(shapes.COLOURS, shapes.SHAPES) if p not in HELD_OUT)
KINDS = ("colour", "shape", "size", "count", "exists", "relation")

NUMBERS = ("zero", "one", "two", "three", "four")
NUMBERS_ZH = ("零", "一", "两", "三", "四")  # 两, not 二, before a measure word
OPPOSITE = {"left of": "right of", "above": "below"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
ZH = {
    **{"red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色"},
    **{"circle": "圆形", "square": "正方形", "triangle": "三角形", "thing": "图形"},
    **{"small": "小", "large": "大"},
    **{"left of": "左边", "right of": "右边", "above": "上方", "below": "下方"},
}


@dataclass(frozen=True)
class Thing:
    """A coloured shape and its centre, in parts of the picture; y grows downwards."""

    shape: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def pair(self) -> Pair:
        """Return the colour and the shape."""
        return self.colour, self.shape

    @property
    def phrase(self) -> "Phrase":
        """Return all that can be said of it, but for its place."""
        return Phrase(self.size, self.colour, self.shape)


@dataclass(frozen=True)
class Phrase:
    """Words for a thing; what is None stays unsaid.

    ``Phrase(colour="red")`` is "red thing", and fits each thing that is red.
    """

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Return whether all that is said is true of the thing."""
        return (
            self.size in (None, thing.size)
            and self.colour in (None, thing.colour)
            and self.shape in (None, thing.shape)
        )

    @property
    def english(self) -> str:
        """Return "small red circle"; without a shape it is a thing."""
        words = (self.size, self.colour, self.shape or "thing")
        return " ".join(word for word in words if word is not None)

    @property
    def chinese(self) -> str:
        """Return "红色的小圆形": here the colour comes before the size."""
        colour = "" if self.colour is None else f"{ZH[self.colour]}的"
        size = "" if self.size is None else ZH[self.size]
        return colour + size + ZH[self.shape or "thing"]


@dataclass(frozen=True)
class Scene:
    """One to four things that lie apart from each other, in no special order."""

    things: tuple[Thing, ...]

    def count(self, phrase: Phrase) -> int:
        """Return how many things the phrase fits."""
        return sum(phrase.fits(thing) for thing in self.things)

    @property
    def caption(self) -> str:
        """Return the scene in an English sentence."""
        if (words := _two_related(self)) is not None:
            a, relation, b = words
            return f"a {a.english} {relation} a {b.english}"
        parts = [
            f"a {p.english}" if k == 1 else f"{NUMBERS[k]} {p.english}s"
            for p, k in _counted(self).items()
        ]
        return _listed(parts, ", ", " and ")

    @property
    def caption_zh(self) -> str:
        """Return the same sentence in Chinese."""
        if (words := _two_related(self)) is not None:
            a, relation, b = words
            return f"一个{a.chinese}在一个{b.chinese}{ZH[relation]}"
        parts = [f"{NUMBERS_ZH[k]}个{p.chinese}" for p, k in _counted(self).items()]
        return _listed(parts, "、", "和")


@dataclass(frozen=True)
class Question:
    """A question about a scene and its answer, in both languages."""

    question: str
    question_zh: str
    answer: str
    answer_zh: str
    kind: str


def _counted(scene: Scene) -> Counter[Phrase]:
    return Counter(thing.phrase for thing in scene.things)


def _listed(parts: list[str], comma: str, last: str) -> str:
    return last.join([comma.join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def _two_related(scene: Scene) -> tuple[Phrase, str, Phrase] | None:
    if len(scene.things) != 2 or len(_counted(scene)) == 1:
        return None
    a, b = scene.things
    relation = relate(a, b)
    return None if relation is None else (a.phrase, relation, b.phrase)


def read(caption: str) -> list[Phrase]:
    """Return the things that an English caption names: "two red circles" are two."""
    found = []
    for number, *words in _NAMED.findall(caption):
        times = 1 if number == "a" else NUMBERS.index(number)
        found += times * [Phrase(*words)]
    return found


_NAMED = re.compile(
    r"\b(a|{})\s+({})\s+({})\s+({})s?\b".format(
        *map("|".join, (NUMBERS, SIZES, shapes.COLOURS, shapes.SHAPES))
    )
)


def relate(a: Thing, b: Thing) -> str | None:
    """Say where ``a`` is, seen from ``b``; None where that isn't clear.

    It is clear along the axis on which the centres are further apart, if they are at
    least ``CLEAR`` apart on it.
    """
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) == abs(dy) or max(abs(dx), abs(dy)) < CLEAR:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def random_scene(rng: np.random.Generator, new: bool = False) -> Scene:
    """Draw a scene of pairs that are ``SEEN``; if ``new``, one thing is held out."""
    number = int(rng.integers(1, MOST + 1))
    pairs = [SEEN[i] for i in rng.integers(len(SEEN), size=number)]
    if new:
        pairs[rng.integers(number)] = HELD_OUT[rng.integers(len(HELD_OUT))]
    sizes = rng.choice([*SIZES], number).tolist()
    places = _random_places([SIZES[size] for size in sizes], rng)
    parts = zip(pairs, sizes, places, strict=True)
    return Scene(tuple(Thing(s, c, size, *xy) for (c, s), size, xy in parts))


def _random_places(
    radii: list[int], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Draw centres anew until the squares around the things lie apart."""
    r = np.array(radii)
    due = r[:, None] + r + GAP
    np.fill_diagonal(due, 0)
    while True:
        x, y = rng.integers(r + EDGE, GRID - r - EDGE + 1, size=(2, len(r)))
        if (np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) >= due).all():
            return list(zip((x / GRID).tolist(), (y / GRID).tolist(), strict=True))


def draw(scene: Scene, size: int) -> Image.Image:
    """Draw a scene on a white square picture of ``size`` pixels."""
    side = size * shapes.OVERSAMPLE
    large = Image.new("RGB", (side, side), "white")
    for thing in scene.things:
        radius = SIZES[thing.size] / GRID * side
        centre = thing.x * side, thing.y * side
        shapes.paint(large, thing.shape, thing.colour, centre, radius)
    return large.resize((size, size), Image.Resampling.BOX)


def references(scene: Scene, thing: Thing, hide: str) -> list[Phrase]:
    """Find the phrases that fit this thing alone, without the attribute ``hide``."""
    words = vars(thing.phrase).items()
    choices = [(None,) if name == hide else (None, word) for name, word in words]
    phrases = [Phrase(*chosen) for chosen in product(*choices)]
    return [p for p in phrases if p != Phrase() and scene.count(p) == 1]


class Words(NamedTuple):
    """The same in both languages."""

    english: str
    chinese: str


FORMS = {
    "colour": Words("what colour is the {}?", "{}是什么颜色？"),
    "shape": Words("what shape is the {}?", "{}是什么形状？"),
    "size": Words("what size is the {}?", "{}是大还是小？"),
    "count": Words("how many {}s are there?", "有几个{}？"),
    "exists": Words("is there a {}?", "有{}吗？"),
    "relation": Words("is the {} {} the {}?", "{0}是在{2}{1}吗？"),
    "relation: shape": Words("what shape is {} the {}?", "{1}{0}是什么形状？"),
}


@cache  # the same 2,300 questions come again and again
def ask(form: str, answer: Words, *parts: Words | Phrase) -> Question:
    """Fill a form in both languages; its kind is what stands before a colon."""
    english, chinese = FORMS[form]
    return Question(
        english.format(*(part.english for part in parts)),
        chinese.format(*(part.chinese for part in parts)),
        *answer,
        kind=form.partition(":")[0],
    )


def translated(word: str) -> Words:
    """Return a word and its Chinese."""
    return Words(word, ZH[word])


def attribute_questions(
    scene: Scene, kind: str, about: Collection[Pair]
) -> list[Question]:
    """Ask for the colour, shape or size of a thing that the other two single out."""
    return [
        ask(kind, translated(getattr(thing, kind)), phrase)
        for thing in scene.things
        if thing.pair in about
        for phrase in references(scene, thing, hide=kind)
    ]


def count_questions(scene: Scene) -> list[Question]:
    """Ask how many things have a size, a colour or a shape; it may be none."""
    phrases = [Phrase(size=size) for size in SIZES]
    phrases += [Phrase(colour=colour) for colour in shapes.COLOURS]
    phrases += [Phrase(shape=shape) for shape in shapes.SHAPES]
    numbers = [Words(n, f"{zh}个") for n, zh in zip(NUMBERS, NUMBERS_ZH, strict=True)]
    return [ask("count", numbers[scene.count(phrase)], phrase) for phrase in phrases]


def exists_questions(scene: Scene, about: Collection[Pair]) -> list[Question]:
    """Ask of each pair whether it is there; in Chinese, 有 is yes and 没有 is no."""
    no, yes = Words("no", "没有"), Words("yes", "有")
    phrases = [Phrase(colour=colour, shape=shape) for colour, shape in about]
    return [ask("exists", yes if scene.count(p) > 0 else no, p) for p in phrases]


def relation_questions(scene: Scene, about: Collection[Pair]) -> list[Question]:
    """Ask where a thing is, seen from another; as often with yes as with no."""
    no, yes = Words("no", "不是"), Words("yes", "是")
    names = {thing: references(scene, thing, hide="size") for thing in scene.things}
    asked = []
    for a, b in permutations(scene.things, 2):
        relation = relate(a, b)
        if relation is None or a.pair not in about:
            continue
        true, false = translated(relation), translated(OPPOSITE[relation])
        for other in names[b]:
            if _alone(scene, relation, b):
                asked.append(ask("relation: shape", translated(a.shape), true, other))
            for name in names[a]:
                asked.append(ask("relation", yes, name, true, other))
                asked.append(ask("relation", no, name, false, other))
    return asked


def _alone(scene: Scene, relation: str, b: Thing) -> bool:
    """Return whether just one thing's centre is on that side of ``b``, however near."""
    axis = "x" if relation in ("left of", "right of") else "y"
    sign = 1 if relation in ("left of", "above") else -1
    before = [sign * (getattr(b, axis) - getattr(t, axis)) > 0 for t in scene.things]
    return sum(before) == 1


def questions(
    scene: Scene, about: Collection[Pair] = SEEN
) -> dict[str, list[Question]]:
    """Find all that can be asked about the things of some pairs, kind by kind."""
    return {
        "colour": attribute_questions(scene, "colour", about),
        "shape": attribute_questions(scene, "shape", about),
        "size": attribute_questions(scene, "size", about),
        "count": count_questions(scene),
        "exists": exists_questions(scene, about),
        "relation": relation_questions(scene, about),
    }


def random_questions(
    scene: Scene, rng: np.random.Generator, about: Collection[Pair] = SEEN
) -> list[Question]:
    """Draw up to ``QUESTIONS``: one of each kind where it can be, then a second.

    The answer is drawn first, evenly among those that the kind offers here, and then a
    question that has it, so that yes is as frequent as no. "exists" comes once: a scene
    holds few pairs, so its second answer would more often be no.
    """
    left = {kind: [*asked] for kind, asked in questions(scene, about).items()}
    again = [kind for kind in KINDS if kind != "exists"]
    order = [*rng.permutation(KINDS), *rng.permutation(again)]
    drawn: list[Question] = []
    for kind in order:
        if len(left[kind]) == 0 or len(drawn) == QUESTIONS:
            continue
        answers = sorted({q.answer for q in left[kind]})
        answer = answers[rng.integers(len(answers))]
        options = [q for q in left[kind] if q.answer == answer]
        drawn.append(options[rng.integers(len(options))])
        left[kind].remove(drawn[-1])
    return drawn


def splits(n: int, seed: int) -> dict[str, list[tuple[Scene, list[Question]]]]:
    """Draw four splits of scenes, each scene once, with the questions about it.

    train, validation and test hold 4/6, 1/6 and 1/6 of ``n``; held_out holds n // 6
    more, each with one thing of a ``HELD_OUT`` pair, and asks about that thing.
    """
    rng, sixth, seen = np.random.default_rng(seed), n // 6, set()
    sizes = {"train": n - 2 * sixth, "validation": sixth, "test": sixth}
    drawn = {}
    for split, size in (sizes | {"held_out": sixth}).items():
        new, drawn[split] = split == "held_out", []
        while len(drawn[split]) < size:
            scene = random_scene(rng, new)
            if (key := frozenset(scene.things)) not in seen:
                seen.add(key)
                asked = random_questions(scene, rng, HELD_OUT if new else SEEN)
                drawn[split].append((scene, asked))
    return drawn
