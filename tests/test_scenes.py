"""Shape scenes: every picture, caption and answer is held against the objects."""

import itertools
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from mmcourse import datasets, scenes, shapes
from mmcourse.scenes import HELD_OUT, SEEN, Phrase, Scene, Thing

RADIUS = {"small": 10 / 128, "large": 18 / 128}
ZH = {
    **{"red": "红色的", "green": "绿色的", "blue": "蓝色的", "yellow": "黄色的"},
    **{"small": "小", "large": "大"},
    **{"circle": "圆形", "square": "正方形", "triangle": "三角形", "thing": "图形"},
}
SIDES = {"left of": "左边", "right of": "右边", "above": "上方", "below": "下方"}
COUNTS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}
COUNTS_ZH = ("零个", "一个", "两个", "三个", "四个")

RED = Thing("circle", "red", "small", 0.25, 0.5)
BLUE = Thing("square", "blue", "large", 0.75, 0.625)


@pytest.fixture(scope="module")
def drawn():
    """Enough scenes for a balance to show: {split: [(scene, questions)]}."""
    return scenes.splits(600, seed=0)


@pytest.fixture(scope="module")
def pairs(drawn):
    """Each scene with each of its questions."""
    return [(s, q) for part in drawn.values() for s, asked in part for q in asked]


# --- an evaluator that knows nothing of the grammar ---------------------------------


def chosen(scene, words):
    """The things that a phrase such as "small red things" can mean."""
    words = [w.removesuffix("s") for w in words.split()]
    known = {"thing", *shapes.COLOURS, *shapes.SHAPES, *RADIUS}
    assert set(words) <= known, words
    return [
        t
        for t in scene.things
        if all(w in ("thing", t.size, t.colour, t.shape) for w in words)
    ]


def only(things):
    assert len(things) == 1, "it isn't clear which one is meant"
    return things[0]


def lies(a, side, b):
    """Whether a is on that side of b; how far; and how far apart along the other."""
    x, y = a.x - b.x, a.y - b.y
    along = {"left of": -x, "right of": x, "above": -y, "below": y}[side]
    return along > 0, abs(along), abs(x) + abs(y) - abs(along)


def answers(scene, question):
    """Work the answer out from the words and the things."""
    side = "(left of|right of|above|below)"
    if m := re.fullmatch(r"what (colour|shape|size) is the (.*)\?", question):
        return getattr(only(chosen(scene, m[2])), m[1])
    if m := re.fullmatch(r"how many (.*s) are there\?", question):
        return list(COUNTS)[len(chosen(scene, m[1]))]
    if m := re.fullmatch(r"is there a (.*)\?", question):
        return "yes" if chosen(scene, m[1]) else "no"
    if m := re.fullmatch(rf"is the (.*) {side} the (.*)\?", question):
        true, far, across = lies(
            only(chosen(scene, m[1])), m[2], only(chosen(scene, m[3]))
        )
        assert far >= 0.15 and far > across
        return "yes" if true else "no"
    m = re.fullmatch(rf"what shape is {side} the (.*)\?", question)
    assert m, question
    other = only(chosen(scene, m[2]))
    there = only([t for t in scene.things if lies(t, m[1], other)[0]])
    _, far, across = lies(there, m[1], other)
    assert far >= 0.15 and far > across
    return there.shape


def phrase_zh(english):
    """A phrase in Chinese, word by word: the colour first."""
    words = [w.removesuffix("s") for w in english.split()]
    words.sort(key=lambda w: [*ZH].index(w))
    return "".join(ZH[w] for w in words)


def question_zh(english):
    """The Chinese that is due for an English question."""
    side = "(left of|right of|above|below)"
    for pattern, form in [
        (rf"what shape is {side} the (.*)\?", "{1}{0}是什么形状？"),
        (r"what colour is the (.*)\?", "{}是什么颜色？"),
        (r"what shape is the (.*)\?", "{}是什么形状？"),
        (r"what size is the (.*)\?", "{}是大还是小？"),
        (r"how many (.*) are there\?", "有几个{}？"),
        (r"is there a (.*)\?", "有{}吗？"),
        (rf"is the (.*) {side} the (.*)\?", "{0}是在{2}{1}吗？"),
    ]:
        if m := re.fullmatch(pattern, english):
            return form.format(*(SIDES.get(g) or phrase_zh(g) for g in m.groups()))
    raise AssertionError(english)


# --- answers ------------------------------------------------------------------------


def test_every_answer_is_what_a_brute_force_evaluator_finds(pairs):
    assert len(pairs) > 4000
    for scene, q in pairs:
        assert answers(scene, q.question) == q.answer, (scene, q)


def test_all_that_can_be_asked_has_the_right_answer(drawn):
    """Not only what was drawn: of the many ways to refer to a thing, none is wrong."""
    for scene, _ in drawn["train"][:60] + drawn["held_out"][:20]:
        for kind, asked in scenes.questions(scene, SEEN + HELD_OUT).items():
            assert len({q.question for q in asked}) == len(asked)
            for q in asked:
                assert (q.kind, q.answer) == (kind, answers(scene, q.question))


def test_the_evaluator_finds_a_wrong_answer():
    scene = Scene((RED, BLUE))
    assert answers(scene, "is the red thing left of the square?") == "yes"
    assert answers(scene, "is the square left of the red thing?") == "no"
    assert answers(scene, "what shape is right of the circle?") == "square"
    assert answers(scene, "how many green things are there?") == "zero"
    with pytest.raises(AssertionError, match="which one is meant"):
        answers(scene, "what colour is the triangle?")


def test_chinese_and_english_are_parallel(pairs):
    for _, q in pairs:
        assert q.question_zh == question_zh(q.question)
    for kind in scenes.KINDS:
        both = {(q.answer, q.answer_zh) for _, q in pairs if q.kind == kind}
        assert len(both) == len({e for e, _ in both}) == len({z for _, z in both})
        if kind == "count":
            assert both == set(zip(COUNTS, COUNTS_ZH, strict=True))
    said = {q.answer_zh for _, q in pairs if q.answer in ("yes", "no")}
    assert said == {"有", "没有", "是", "不是"}


@pytest.mark.parametrize("kind", ["exists", "relation"])
def test_yes_is_as_frequent_as_no(pairs, kind):
    counts = Counter(q.answer for _, q in pairs if q.kind == kind)
    assert 0.45 < counts["yes"] / (counts["yes"] + counts["no"]) < 0.55


def test_the_question_alone_hardly_tells_whether_a_thing_exists(drawn):
    """A blind model that knows the commonest answer to every question gains little."""
    given = defaultdict(Counter)
    for _, asked in drawn["train"]:
        for q in asked:
            given[q.question][q.answer] += 1
    hits = [
        given[q.question].most_common(1)[0][0] == q.answer
        for part in ("validation", "test")
        for _, asked in drawn[part]
        for q in asked
        if q.kind == "exists"
    ]
    assert len(hits) == 200
    assert np.mean(hits) < 0.6


def test_no_question_comes_twice_and_every_kind_comes_up(drawn):
    for part in drawn.values():
        texts = [[q.question for q in asked] for _, asked in part]
        assert all(len(set(t)) == len(t) <= scenes.QUESTIONS for t in texts)
        assert np.mean([len(t) for t in texts]) > 5.5
        assert {q.kind for _, asked in part for q in asked} == set(scenes.KINDS)


# --- captions -----------------------------------------------------------------------


def test_captions_by_hand():
    scene = Scene((RED, BLUE))
    assert scene.caption == "a small red circle left of a large blue square"
    assert scene.caption_zh == "一个红色的小圆形在一个蓝色的大正方形左边"
    turned = Scene((BLUE, RED))
    assert turned.caption == "a large blue square right of a small red circle"
    below = Scene((Thing("triangle", "green", "small", 0.25, 0.75), RED))
    assert below.caption == "a small green triangle below a small red circle"
    assert below.caption_zh == "一个绿色的小三角形在一个红色的小圆形下方"


def test_lists_by_hand():
    assert Scene((RED,)).caption == "a small red circle"
    assert Scene((RED,)).caption_zh == "一个红色的小圆形"
    more = Thing("circle", "red", "small", 0.5, 0.125)
    assert Scene((RED, more)).caption == "two small red circles"
    assert Scene((RED, BLUE, more)).caption == (
        "two small red circles and a large blue square"
    )
    four = Scene((BLUE, RED, more, Thing("triangle", "red", "large", 0.5, 0.8)))
    assert four.caption == (
        "a large blue square, two small red circles and a large red triangle"
    )
    assert four.caption_zh == (
        "一个蓝色的大正方形、两个红色的小圆形和一个红色的大三角形"
    )


def test_no_relation_on_the_diagonal():
    scene = Scene((RED, Thing("square", "blue", "large", 0.5, 0.75)))
    assert scene.caption == "a small red circle and a large blue square"
    assert scenes.relation_questions(scene, SEEN) == []


def test_captions_say_what_is_there(drawn):
    numbers = {"a": 1, **COUNTS}
    for scene, _ in (pair for part in drawn.values() for pair in part):
        parts = re.split(", | and | left of | right of | above | below ", scene.caption)
        said = Counter()
        for part in parts:
            number, size, colour, shape = part.split()
            said[size, colour, shape.removesuffix("s")] += numbers[number]
        assert said == Counter((t.size, t.colour, t.shape) for t in scene.things)
        zh = re.findall("([一两三四])个(..的)(.)(圆形|正方形|三角形)", scene.caption_zh)
        back = {zh: english for english, zh in ZH.items()}
        said_zh = Counter()
        for number, colour, size, shape in zh:
            key = back[size], back[colour], back[shape]
            said_zh[key] += "零一两三四".index(number)
        assert said_zh == said
        if m := re.fullmatch(
            "a (.*) (left of|right of|above|below) a (.*)", scene.caption
        ):
            a, b = scene.things
            assert (m[1], m[3]) == (a.phrase.english, b.phrase.english)
            true, far, across = lies(a, m[2], b)
            assert true and far > across
            assert scene.caption_zh.endswith(SIDES[m[2]])


# --- pictures -----------------------------------------------------------------------


def test_things_lie_apart_and_whole_inside(drawn):
    for scene, _ in (pair for part in drawn.values() for pair in part):
        assert 1 <= len(scene.things) <= 4
        for t in scene.things:
            r = RADIUS[t.size]
            assert r < t.x < 1 - r and r < t.y < 1 - r
        for a, b in itertools.combinations(scene.things, 2):
            due = RADIUS[a.size] + RADIUS[b.size]
            assert max(abs(a.x - b.x), abs(a.y - b.y)) > due


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_picture_has_every_thing_in_its_colour(drawn, size):
    for scene, _ in drawn["train"][:30]:
        picture = np.asarray(scenes.draw(scene, size))
        assert picture.shape == (size, size, 3)
        for t in scene.things:
            x, y = int(t.x * size), int(t.y * size)
            assert tuple(picture[y, x]) == shapes.COLOURS[t.colour]
        rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (rim == 255).all()


def test_a_thing_covers_the_area_of_its_shape_and_size():
    of = {"circle": np.pi, "square": 4, "triangle": 2}
    for shape, size in itertools.product(of, RADIUS):
        thing = Thing(shape, "red", size, 0.5, 0.5)
        picture = np.asarray(scenes.draw(Scene((thing,)), 64)).astype(float)
        ink = (255 - picture[..., 1]).sum() / (255 - shapes.COLOURS["red"][1])
        assert ink == pytest.approx(of[shape] * (RADIUS[size] * 64) ** 2, rel=0.1)


# --- splits -------------------------------------------------------------------------


def test_held_out_pairs_are_nowhere_but_in_held_out(drawn):
    names = [f"{colour} {shape}" for colour, shape in HELD_OUT]
    for split, part in drawn.items():
        for scene, asked in part:
            new = [t.pair for t in scene.things if t.pair in HELD_OUT]
            assert len(new) == (split == "held_out")
            texts = [scene.caption, *(q.question for q in asked)]
            assert (split == "held_out") == any(n in t for n in names for t in texts)


def test_each_held_out_scene_asks_about_its_new_thing(drawn):
    for scene, asked in drawn["held_out"]:
        new = only([t for t in scene.things if t.pair in HELD_OUT])
        about = [q for q in asked if q.kind in ("colour", "shape", "size")]
        assert "size" in {q.kind for q in about}
        for q in about:
            words = q.question.partition(" is the ")[2].removesuffix("?")
            assert only(chosen(scene, words)) == new
        there = only([q for q in asked if q.kind == "exists"]).question
        assert any(f"{colour} {shape}?" in there for colour, shape in HELD_OUT)


def test_train_has_every_other_pair_and_so_each_colour_and_shape(drawn):
    trained = {t.pair for scene, _ in drawn["train"] for t in scene.things}
    assert trained == set(SEEN)
    assert {c for c, _ in SEEN} == set(shapes.COLOURS)
    assert {s for _, s in SEEN} == set(shapes.SHAPES)
    assert len(SEEN) == 12 - 3


def test_the_splits_have_their_sizes_and_share_no_scene(drawn):
    sizes = {"train": 400, "validation": 100, "test": 100, "held_out": 100}
    assert {split: len(part) for split, part in drawn.items()} == sizes
    seen = [frozenset(s.things) for part in drawn.values() for s, _ in part]
    assert len(set(seen)) == 700
    pictures = {
        scenes.draw(s, 32).tobytes() for part in drawn.values() for s, _ in part
    }
    assert len(pictures) == 700  # what differs looks different, even when small


def test_the_seed_decides_all():
    assert scenes.splits(12, seed=1) == scenes.splits(12, seed=1)
    assert scenes.splits(12, seed=1) != scenes.splits(12, seed=2)


def test_a_phrase_singles_out_or_is_not_used():
    twin = Thing("circle", "red", "large", 0.5, 0.125)
    found = scenes.references(Scene((RED, twin)), RED, hide="colour")
    assert set(found) == {Phrase(size="small"), Phrase(size="small", shape="circle")}
    assert scenes.references(Scene((RED, twin)), RED, hide="size") == []


# --- the data set -------------------------------------------------------------------


def test_shape_scenes(fresh_cache):
    data = datasets.shape_scenes(24, seed=3, size=48)
    due = scenes.splits(24, seed=3)
    assert {s: len(part) for s, part in data.items()} == (
        {"train": 16, "validation": 4, "test": 4, "held_out": 4}
    )
    for split, part in data.items():
        for row, (scene, asked) in zip(part, due[split], strict=True):
            assert row["objects"] == [vars(t) for t in scene.things]
            assert row["questions"] == [vars(q) for q in asked]
            assert row["caption"] == scene.caption
            assert row["caption_zh"] == scene.caption_zh
            drawn = np.asarray(scenes.draw(scene, 48))
            np.testing.assert_array_equal(np.asarray(row["image"]), drawn)


def test_shape_scenes_come_from_the_cache_and_differ_with_the_seed(
    fresh_cache, monkeypatch
):
    first = datasets.shape_scenes(6, size=32)["train"][:]
    other = datasets.shape_scenes(6, seed=1, size=32)["train"][:]
    monkeypatch.setattr(scenes, "splits", None)
    assert datasets.shape_scenes(6, size=32)["train"]["caption"] == first["caption"]
    assert first["caption"] != other["caption"]


@pytest.mark.parametrize("bad", [{"n": 5}, {"n": 0}, {"size": 31}, {"size": 513}])
def test_too_few_scenes_and_odd_sizes_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(
        ValueError, match=rf"{name}={value}.*at least 6 scenes and 32 to 512 pixels"
    ):
        datasets.shape_scenes(**bad)
