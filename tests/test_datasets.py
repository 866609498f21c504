"""The data sets are what their sources say, built once, whole; and their batches."""

import ast
import gc
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import datasets as hf
import numpy as np
import pytest
import torch
from PIL import Image

from mmcourse import assets, datasets, emojis, shapes, speech, triples
from mmcourse.tokenizers import CharTokenizer

SPLITS = ("train", "validation", "test")
VOICES = ("heart", "deep", "child")


def columns(data, *names):
    """The rows of every split, without decoding pictures."""
    return {s: list(zip(*(data[s][n] for n in names), strict=True)) for s in SPLITS}


@pytest.fixture(scope="module")
def both():
    return datasets.openmoji(64), datasets.twemoji(64)


# --- emoji ------------------------------------------------------------------------


def test_the_splits_hold_different_concepts_and_are_equal_in_both_sets(both):
    concepts = [{s: set(d[s]["concept"]) for s in SPLITS} for d in both]
    assert concepts[0] == concepts[1]
    train, validation, test = concepts[0].values()
    assert not train & validation and not train & test and not validation & test


def test_the_sizes_of_the_splits(both):
    for data in both:
        rows = sum(len(data[s]) for s in SPLITS)
        assert rows > 3900
        assert len(data["train"]) > 2500 and len(data["validation"]) > 250
        base, flag = data["test"]["base"], data["test"]["flag"]
        assert sum(b and not f for b, f in zip(base, flag, strict=True)) >= 250


def test_one_row_of_each_concept_is_its_base_and_it_has_no_skin_tone(both):
    for data in both:
        for rows in columns(data, "concept", "base", "name").values():
            bases = [(concept, name) for concept, base, name in rows if base]
            assert sorted(c for c, _ in bases) == sorted({c for c, _, _ in rows})
            assert not any("skin tone" in name for _, name in bases)


def test_rows_are_what_emojis_says(both):
    for data in both:
        row = data["test"][7]
        about = emojis.table()[row["emoji"]]
        assert about.items() <= row.items()
        assert row["concept"] == emojis.concept(row["emoji"])
        assert row["flag"] == emojis.is_flag(row["emoji"])
        assert len(row["names"]) == 14 and all(row["names"].values())


def test_pictures_are_opaque_of_the_size_asked_for_and_drawn_by_different_hands(both):
    means = []
    for data in both:
        images = data["validation"].select(range(20))["image"]
        assert {image.size for image in images} == {(64, 64)}
        assert {i.convert("RGBA").getchannel("A").getextrema()[0] for i in images} == {
            255
        }
        pixels = np.stack([np.asarray(i.convert("RGB")) for i in images])
        assert pixels.std(axis=(1, 2, 3)).min() > 5  # none is blank
        means.append(pixels.astype(float))
    apart = np.abs(means[0] - means[1]).mean(axis=(1, 2, 3))
    assert apart.min() > 1


@pytest.mark.parametrize("size", [7, 513])
def test_sizes_out_of_bounds_are_refused(size):
    with pytest.raises(ValueError, match=f"size={size} pixels: choose from 8 to 512"):
        datasets.openmoji(size)


# --- the cache --------------------------------------------------------------------


@pytest.fixture
def few_emoji(fresh_cache, monkeypatch):
    """Forty emoji, so that a test can build them again."""
    few = dict(list(emojis.table().items())[::90])
    monkeypatch.setattr(emojis, "table", lambda: few)
    return fresh_cache


def test_the_second_load_reads_the_cache_and_draws_nothing(few_emoji, monkeypatch):
    built = datasets.openmoji(16)

    def refuse(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(emojis, "render", refuse)
    loaded = datasets.openmoji(16)
    for split in SPLITS:
        assert loaded[split].features == built[split].features
        assert loaded[split].remove_columns("image").to_list() == (
            built[split].remove_columns("image").to_list()
        )
    with pytest.raises(AssertionError, match="drawn again"):
        datasets.openmoji(17)


def test_a_build_that_dies_leaves_nothing_half(few_emoji, monkeypatch):
    drawn, render = [], emojis.render

    def die(path, size):
        drawn.append(path)
        if len(drawn) > 5:
            raise KeyboardInterrupt
        return render(path, size)

    monkeypatch.setattr(emojis, "render", die)
    with pytest.raises(KeyboardInterrupt):
        datasets.openmoji(16)
    assert not [p for p in few_emoji.iterdir() if p.is_dir()]
    assert hf.is_progress_bar_enabled()
    monkeypatch.setattr(emojis, "render", render)
    assert sum(map(len, datasets.openmoji(16).values())) > 20


def test_a_build_killed_while_it_writes_is_done_again(few_emoji, monkeypatch):
    """What a kill leaves is a folder called .part; it is never taken for the set."""
    save = hf.DatasetDict.save_to_disk

    def half(self, folder):
        save(self, folder)
        shutil.rmtree(Path(folder) / "test")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hf.DatasetDict, "save_to_disk", half)
        with pytest.raises(KeyboardInterrupt):
            datasets.openmoji(16)
    assert set(datasets.openmoji(16)) == set(SPLITS)
    assert [p.suffix for p in few_emoji.iterdir() if p.is_dir()] == [""]


def test_two_processes_build_one_set(tmp_path):
    code = (
        "from mmcourse import datasets as d; print(len(d.moving_shapes(60)['train']))"
    )
    env = {"MMCOURSE_DATA": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [p.communicate(timeout=120)[0].strip() for p in both] == ["40", "40"]
    assert not list((tmp_path / "cache").glob("*.part"))


# --- speech and clips -------------------------------------------------------------


def test_spoken_words_is_deterministic_and_its_voices_are_apart(fresh_cache):
    words = ("cat", "dog")
    first = datasets.spoken_words(words, VOICES)
    kept = {s: first[s].to_list() for s in SPLITS}
    shutil.rmtree(fresh_cache)
    again = datasets.spoken_words(words, VOICES)
    assert {s: again[s].to_list() for s in SPLITS} == kept
    voices = [set(first[s]["voice"]) for s in SPLITS]
    assert voices == [{"heart"}, {"deep"}, {"child"}]
    assert {w for s in SPLITS for w in first[s]["word"]} == set(words)


def test_spoken_words_says_what_speak_says(fresh_cache):
    row = datasets.spoken_words(("apple",), VOICES)["test"][0]
    said = speech.speak("apple", voice="child")
    np.testing.assert_array_equal(np.array(row["audio"], np.float32), said.numpy())
    assert row["sampling_rate"] == 24_000
    assert torch.equal(datasets.speak("apple", voice="child"), said)


def test_other_words_or_voices_are_another_set(fresh_cache):
    one = datasets.spoken_words(("cat",), VOICES)
    two = datasets.spoken_words(("cat",), VOICES[::-1])
    assert one["test"]["voice"] != two["test"]["voice"]


def test_the_default_words_are_100_plain_words():
    words = datasets._default_words()
    assert len(set(words)) == 100
    assert all(word.isascii() and word.isalpha() for word in words)


@pytest.mark.parametrize("voices", [("heart", "low"), ("heart", "low", "low")])
def test_too_few_voices_are_refused(voices):
    with pytest.raises(ValueError, match="three splits need at least 3, each once"):
        datasets.spoken_words(("cat",), voices)


def test_moving_shapes_are_labelled_right_and_of_the_sizes_asked_for(fresh_cache):
    data = datasets.moving_shapes(36, frames=5, size=24, seed=3)
    assert [len(data[s]) for s in SPLITS] == [24, 6, 6]
    captions = set()
    for row in (r for s in SPLITS for r in data[s]):
        video = np.asarray(row["video"])
        assert video.shape == (5, 3, 24, 24)
        assert (
            row["caption"] == f"a {row['colour']} {row['shape']} moves {row['motion']}"
        )
        ink = (255.0 - video).sum(axis=1)
        y, x = np.indices((24, 24))
        centre = [((x * f).sum() / f.sum(), (y * f).sum() / f.sum()) for f in ink]
        moved = np.subtract(centre[-1], centre[0])
        assert moved @ np.array(shapes.MOTIONS[row["motion"]]) > 2
        captions.add(str(video.tolist()))
    assert len(captions) == 36  # no clip stands in two splits


@pytest.mark.parametrize("bad", [{"n": 5}, {"frames": 1}, {"size": 15}])
def test_clips_too_few_short_or_small_are_refused(bad):
    with pytest.raises(ValueError, match="at least 6 clips, 2 frames and 16 pixels"):
        datasets.moving_shapes(**bad)


# --- rated tweets -----------------------------------------------------------------


def raw_table(name):
    """The columns of one raw file by the tweet's number, read in another way."""
    raw = (assets.path("rated_texts") / name).read_bytes().decode("utf-8-sig")
    rows = [line.strip("\r").split("\t") for line in raw.split("\n") if line.strip()]
    return {columns[0]: columns[1:] for columns in rows}


def test_every_tweet_has_its_own_ratings():
    texts = raw_table("tweets_GroundTruth.txt")
    ratings = raw_table("tweets_anonDataRatings.txt")
    data = datasets.rated_tweets()
    rows = {r["text"]: r for s in SPLITS for r in data[s]}
    assert len(rows) == len(texts) == len(ratings) == 4200
    entities = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
    far = 0
    for number, (published, text) in texts.items():
        for entity, sign in entities.items():
            text = text.replace(entity, sign)
        mean, _, given = ratings[number]
        assert rows[text]["ratings"] == ast.literal_eval(given)
        assert rows[text]["score"] == pytest.approx(float(mean), abs=1e-6)
        far += abs(rows[text]["score"] - float(published)) > 0.06
    # In the source itself, 179 published means aren't those of the ratings beside them.
    assert far == 179


def test_the_scores_of_tweets_lie_on_the_raters_scale():
    for part in datasets.rated_tweets().values():
        scores = np.array([s for row in part["ratings"] for s in row])
        assert scores.min() >= -4 and scores.max() <= 4
        assert min(map(len, part["ratings"])) >= 20


# --- tweets said and shown --------------------------------------------------------


@pytest.fixture(scope="module")
def felt():
    return datasets.sentiment_triples()


def plain(part, *left_out):
    """The rows without their pictures."""
    kept = [c for c in part.column_names if c not in ("image", *left_out)]
    return part.select_columns(kept).to_list()


def test_triples_are_tweets_with_what_their_raters_said(felt):
    tweets = datasets.rated_tweets()
    for part in felt.values():
        for row in plain(part, "audio"):
            split, i = row["id"].split("-")
            tweet = tweets[split][int(i)]
            turned = -1 if row["kind"] == "words" else 1
            assert row["text"] == tweet["text"] and abs(tweet["score"]) >= 1
            assert row["ratings"] == [turned * r for r in tweet["ratings"]]
            assert row["score"] == pytest.approx(turned * tweet["score"], abs=1e-5)


def test_triples_two_of_three_decide(felt):
    ways = {"agree": (1, 1), "words": (-1, -1), "voice": (-1, 1), "face": (1, -1)}
    for part in felt.values():
        for row in plain(part, "audio"):
            feels = np.sign(row["score"])
            words = -feels if row["kind"] == "words" else feels
            way = ways.get(row["kind"], (0, 0))
            assert (row["heard"], row["seen"]) == (words * way[0], words * way[1])
            votes = words + row["heard"] + row["seen"]
            assert np.sign(votes) == feels


def test_triples_come_in_the_shares_that_were_set(felt):
    assert {s: len(part) for s, part in felt.items()} == {
        **{"train": 600, "validation": 100},
        **dict.fromkeys(triples.KINDS, 120),
    }
    assert Counter(felt["train"]["kind"]) == {
        **{"agree": 240, "words": 120, "voice": 90, "face": 90, "flat": 60}
    }
    for kind in triples.KINDS:
        assert set(felt[kind]["kind"]) == {kind}
        assert felt[kind]["id"] == felt["agree"]["id"]
        assert (np.array(felt[kind]["score"]) > 0).sum() == 60


def test_triples_of_test_share_recordings_and_faces(felt):
    agree, words, voice, face = (
        plain(felt[k].select(range(20))) for k in ("agree", "words", "voice", "face")
    )
    for a, w, v, f in zip(agree, words, voice, face, strict=True):
        assert a["audio"] == f["audio"] and w["audio"] == v["audio"]
        assert a["face"] == v["face"] and w["face"] == f["face"]
        assert a["audio"] != w["audio"] and a["face"] != w["face"]


def test_triples_voices_and_faces_of_the_splits_differ(felt):
    parts = [
        felt["train"],
        felt["validation"],
        hf.concatenate_datasets([felt[k] for k in triples.KINDS]),
    ]
    for column in ("voice", "face"):
        one, two, three = (set(part[column]) for part in parts)
        assert not one & two and not one & three and not two & three


def test_faces_of_the_triples_feel_as_their_raters_said():
    table = {e.replace("\ufe0f", ""): about for e, about in emojis.table().items()}
    neutral = {"neutral face", "expressionless face", "face without mouth"}
    for split, faces in triples.FACES.items():
        for feeling, several in faces.items():
            for face in several:
                counts = table[face]["sentiment"]
                n = sum(counts.values())
                felt = (counts["positive"] - counts["negative"]) / n
                rated = 1 if felt >= 0.4 else -1 if felt <= -0.1 else 0
                flat = abs(felt) <= 0.15 or table[face]["name"] in neutral
                assert n >= 20 and (flat if feeling == 0 else rated == feeling), face
                concept = emojis.split_of(emojis.concept(face))
                assert (concept == "train") == (split != "test")


def test_triples_are_heard_and_seen(felt):
    row = felt["agree"][0]
    assert row["image"].size == (64, 64) and row["sampling_rate"] == 8000
    audio = np.array(row["audio"])
    assert 0.5 < len(audio) / 8000 < 5 and np.isfinite(audio).all()
    assert 0.03 < np.sqrt(np.mean(audio**2)) < 0.1


def test_a_small_set_of_triples_is_built_the_same_twice(fresh_cache, monkeypatch):
    sizes = {"train": 4, "validation": 2, "test": 2}
    monkeypatch.setattr(triples, "SIZES", sizes)
    monkeypatch.setattr(triples, "SHARES", {"agree": 0.5, "flat": 0.5})
    one = datasets.sentiment_triples()
    shutil.rmtree(fresh_cache)
    two = datasets.sentiment_triples()
    assert [plain(p) for p in one.values()] == [plain(p) for p in two.values()]
    row = plain(one["train"])[0]
    plan = triples.plan(list(datasets.rated_tweets()["train"]), "train")[0]
    from scipy.signal import resample_poly

    said = resample_poly(speech.speak(**vars(plan["said"])).numpy(), 1, 3)
    assert np.array_equal(np.float32(row["audio"]), said)


@pytest.mark.parametrize(
    "text, words",
    [
        ("Yay. Another good phone interview.", "Yay Another good phone interview"),
        ("@anonymous I'm at #home :D http://t.co/x", "I'm at"),
        ('soooo (really) hmm... XD 24 "ok"', "soooo really ok"),
        ("", ""),
    ],
)
def test_words_that_can_be_said(text, words):
    assert triples.sayable(text) == words.split()


def test_too_few_tweets_for_triples_are_refused():
    tweets = [{"text": "what a day", "score": 2.0, "ratings": [2]}] * 60
    with pytest.raises(ValueError, match="0 tweets of the sign -1"):
        triples.plan(tweets, "test")


# --- easy-VQA ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def easy():
    return datasets.easy_vqa()


def questions_of(part):
    return [question for row in part["questions"] for question in row]


def test_easy_vqa_is_the_published_set_a_row_a_picture(easy):
    assert [len(easy[s]) for s in SPLITS] == [3600, 400, 1000]
    ours = {s: questions_of(easy[s]) for s in SPLITS}
    ours = {"train": ours["train"] + ours["validation"], "test": ours["test"]}
    for part, number in (("train", 38575), ("test", 9673)):
        file = assets.path("easy_vqa") / part / "questions.json"
        published = json.loads(file.read_text(encoding="utf-8"))
        assert len(published) == number
        assert [[q["question"], q["answer"]] for q in ours[part]] == (
            [row[:2] for row in published]
        )
    assert len({q["answer"] for q in ours["train"]}) == 13


def test_easy_vqa_kinds_are_what_is_asked(easy):
    counts = Counter(q["kind"] for s in SPLITS for q in questions_of(easy[s]))
    assert counts == {
        "colour": 6446,
        "shape": 6259,
        "exists: colour": 12934,
        "absent: colour": 12925,
        "exists: shape": 4784,
        "absent: shape": 4900,
    }
    for s in SPLITS:
        for q in questions_of(easy[s]):
            yes_or_no = q["answer"] in ("yes", "no")
            assert yes_or_no == (":" in q["kind"])
            if not yes_or_no:
                is_shape = q["answer"] in ("circle", "rectangle", "triangle")
                assert is_shape == (q["kind"] == "shape")


def test_easy_vqa_answers_of_one_picture_agree(easy):
    """What is told to be there is what "is there" and "is there not" say of it."""
    checked = Counter()
    for row in easy["test"]["questions"]:
        told = {q["kind"]: q["answer"] for q in row}
        for q in row:
            form, _, about = q["kind"].partition(": ")
            if about in told:
                named = told[about] in q["question"].rstrip("?").split()
                says_yes = q["answer"] == "yes"
                assert says_yes == (named if form == "exists" else not named)
                checked[form] += 1
    assert checked["exists"] > 2000 and checked["absent"] > 2000


def test_easy_vqa_without_looking(easy):
    """What data/README.md says: two thirds by the commonest answer in train."""
    common = defaultdict(Counter)
    for q in questions_of(easy["train"]):
        common[q["question"]][q["answer"]] += 1
    right = [
        q["answer"] == common[q["question"]].most_common(1)[0][0]
        for q in questions_of(easy["test"])
    ]
    assert len(common) == 107 and round(float(np.mean(right)), 3) == 0.667


def test_easy_vqa_pictures_stand_beside_their_own_questions(easy):
    paint = {"red": (255, 0, 0), "blue": (0, 0, 255), "teal": (0, 128, 128)}
    seen = set()
    for s in SPLITS:
        for row in easy[s].select(range(100)):
            colours = {q["answer"] for q in row["questions"] if q["kind"] == "colour"}
            for colour in colours & paint.keys():
                pixels = np.asarray(row["image"].convert("RGB")).reshape(-1, 3)
                assert pixels[pixels.sum(axis=1).argmin()].tolist() == [*paint[colour]]
                assert row["image"].size == (64, 64)
                seen.add((s, colour))
    assert len(seen) == 9


# --- captions ---------------------------------------------------------------------


def test_emoji_captions_are_the_names_and_keywords_of_one_drawing_each(both):
    captioned = datasets.emoji_captions(64)
    assert captioned["test"].column_names == ["image", "emoji", "concept", "captions"]
    for s in SPLITS:
        rows = both[0][s].remove_columns("image").to_list()
        right = [
            (r["emoji"], r["concept"], [r["name"], *r["keywords"]])
            for r in rows
            if r["base"] and not r["flag"]
        ]
        ours = captioned[s].remove_columns("image").to_list()
        assert [tuple(r.values()) for r in ours] == right
    assert len(captioned["test"]) == 263
    alone = [texts for texts in captioned["train"]["captions"] if len(texts) == 1]
    assert len(alone) == 111
    last = captioned["test"][-1]
    at = both[0]["test"]["emoji"].index(last["emoji"])
    same = last["image"], both[0]["test"][at]["image"]
    np.testing.assert_array_equal(*map(np.asarray, same))


def png(colour="red", size=8):
    box = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(box, "PNG")
    return box.getvalue()


@pytest.fixture
def no_shared_cache(tmp_path, monkeypatch):
    """Datasets' own cache of what it loads, in the test's folder."""
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def test_captions_of_the_layout_of_flickr30k(no_shared_cache):
    """The Hub's form: one split called test, and a column that names the real one."""
    rows = [
        {
            "image": {"bytes": png(), "path": f"{i}.jpg"},
            "caption": [f"caption {i} {j}" for j in range(5)],
            "sentids": [str(i)],
            "split": split,
            "img_id": str(i),
            "filename": f"{i}.jpg",
        }
        for i, split in enumerate(["train", "train", "val", "test"])
    ]
    features = hf.Features(
        {
            "image": hf.Image(),
            "caption": hf.List(hf.Value("string")),
            "sentids": hf.List(hf.Value("string")),
        }
        | {k: hf.Value("string") for k in ("split", "img_id", "filename")}
    )
    data = hf.Dataset.from_list(rows, features=features)
    (no_shared_cache / "data").mkdir()
    data.to_parquet(no_shared_cache / "data" / "test-00000-of-00001.parquet")
    loaded = datasets.captions(str(no_shared_cache))
    assert {s: len(part) for s, part in loaded.items()} == (
        {"train": 2, "validation": 1, "test": 1}
    )
    assert loaded["validation"].column_names == ["image", "captions"]
    assert loaded["validation"][0]["captions"] == [f"caption 2 {j}" for j in range(5)]
    assert loaded["train"][0]["image"].size == (8, 8)


@pytest.mark.usefixtures("leaves_files_open")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_of_a_folder_of_pictures(no_shared_cache, kind):
    for name in ("a.png", "b.png"):
        (no_shared_cache / name).write_bytes(png())
    rows = [
        {"file_name": "a.png", "text": "a red square"},
        {"file_name": "b.png", "text": "一个红色方块"},
    ]
    lines = [json.dumps(r) for r in rows]
    if kind == "csv":
        lines = ["file_name,text", *(f"{r['file_name']},{r['text']}" for r in rows)]
    path = no_shared_cache / f"metadata.{kind}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    loaded = datasets.captions(str(no_shared_cache))["train"]
    gc.collect()
    assert loaded["captions"][:] == [["a red square"], ["一个红色方块"]]
    assert loaded[0]["image"].size == (8, 8)


def test_captions_with_no_column_for_them(no_shared_cache):
    rows = [{"image": {"bytes": png(), "path": None}, "legend": "red"}]
    features = hf.Features({"image": hf.Image(), "legend": hf.Value("string")})
    data = hf.Dataset.from_list(rows, features=features)
    data.to_parquet(no_shared_cache / "train.parquet")
    with pytest.raises(
        ValueError, match=r"columns \['image', 'legend'\].*rename_column"
    ):
        datasets.captions(str(no_shared_cache))


def test_captions_that_are_missing_or_out_of_reach(no_shared_cache):
    with pytest.raises(
        FileNotFoundError, match=r"can't be loaded: .*folder that exists"
    ):
        datasets.captions(str(no_shared_cache / "nothing" / "here"))
    with pytest.raises(FileNotFoundError, match="connect to reach the Hub"):
        datasets.captions("nobody/nothing")  # conftest sets HF_HUB_OFFLINE


def test_a_hub_out_of_reach_is_asked_once_and_no_more(monkeypatch):
    asked, tried = [], []

    def head(url, timeout):
        asked.append(url)
        raise OSError("no network")

    def load(source, **how):
        tried.append((source, hf.config.HF_HUB_OFFLINE, how))
        raise ConnectionError("Couldn't reach it")

    session = SimpleNamespace(head=head)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
    monkeypatch.setattr(hf, "load_dataset", load)
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match="connect to reach the Hub"):
        datasets.captions("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="connect to reach the Hub"):
        next(datasets.stream_captions("nobody/nothing"))
    assert asked == [hf.config.HF_ENDPOINT] * 2
    streamed = {"streaming": True}
    assert tried == [("nobody/nothing", True, {}), ("nobody/nothing", True, streamed)]
    assert hf.config.HF_HUB_OFFLINE is False


def test_a_folder_is_loaded_without_asking_the_hub(no_shared_cache, monkeypatch):
    monkeypatch.setattr(datasets, "_hub_answers", None)
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", False)
    rows = [{"image": {"bytes": png(), "path": None}, "text": "red"}]
    features = hf.Features({"image": hf.Image(), "text": hf.Value("string")})
    data = hf.Dataset.from_list(rows, features=features)
    data.to_parquet(no_shared_cache / "train.parquet")
    assert len(datasets.captions(str(no_shared_cache))["train"]) == 1


# --- collate ----------------------------------------------------------------------


def row(**changes):
    plain = {
        "image": Image.new("RGB", (4, 4), (255, 0, 51)),
        "audio": [0.0, 0.5, -0.5],
        "sampling_rate": 24_000,
        "video": np.full((2, 3, 4, 4), 255, np.uint8).tolist(),
        "name": "cat",
        "label": 1,
    }
    return plain | changes


def test_collate_makes_the_batch_of_the_design():
    tokenizer = CharTokenizer.train(["cat dog mouse"])
    rows = [row(), row(audio=[0.25], name="mouse", label=0)]
    batch = datasets.collate(rows, tokenizer)
    shapes_ = {k: tuple(v.shape) for k, v in batch.items()}
    assert shapes_ == {
        "image": (2, 3, 4, 4),
        "video": (2, 2, 3, 4, 4),
        "audio": (2, 3),
        "tokens": (2, 5),
        "mask": (2, 5),
        "label": (2,),
    }
    torch.testing.assert_close(
        batch["image"][0, :, 0, 0], torch.tensor([1.0, 0.0, 0.2])
    )
    assert batch["video"].dtype == torch.float32 and batch["video"].max() == 1
    assert batch["audio"].tolist() == [[0.0, 0.5, -0.5], [0.25, 0.0, 0.0]]
    assert batch["mask"].sum(dim=1).tolist() == [3, 5]
    assert tokenizer.decode(batch["tokens"][0].tolist()) == "cat"
    assert batch["label"].tolist() == [1, 0]


def test_a_modality_that_no_row_has_is_absent():
    assert set(datasets.collate([{"label": 1}, {"label": 2}])) == {"label"}
    assert set(datasets.collate([row(image=None), row(image=None)])) == (
        {"video", "audio", "label"}
    )


def test_collate_takes_the_rows_of_every_set(both):
    tokenizer = CharTokenizer.train(both[0]["validation"]["name"])
    emoji = [both[i]["validation"][j] for i in (0, 1) for j in (0, 1, 2)]
    batch = datasets.collate(emoji, tokenizer)
    assert batch["image"].shape == (6, 3, 64, 64)
    tweets = datasets.rated_tweets()["test"].select(range(3)).to_list()
    assert len(datasets.collate(tweets, tokenizer, text="text")["tokens"]) == 3


def truncated():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(box := io.BytesIO(), "PNG")
    return Image.open(io.BytesIO(box.getvalue()[:2000]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": truncated}, "the image of row 1 can't be read: .*truncated"),
        ({"image": Image.new("L", (5, 4))}, r"row 1 has the shape \(3, 4, 5\), row 0"),
        ({"name": " \n"}, "the text of row 1 is empty"),
        ({"audio": [0.0, float("nan")]}, "audio of row 1 has samples that are NaN"),
        (
            {"audio": [0.0, float("inf")]},
            "audio of row 1 has samples that are NaN or inf",
        ),
        ({"audio": []}, r"audio of row 1 has the shape \(0,\)"),
        ({"audio": [[0.0], [0.1]]}, r"audio of row 1 has the shape \(2, 1\)"),
        ({"audio": [1, 2]}, "audio of row 1 has samples of int64, floats"),
        ({"sampling_rate": 16_000}, "audio of row 1 has 16000 Hz, 24000 are needed"),
        ({"video": np.zeros((3, 3, 4, 4), np.uint8)}, r"row 1 has the shape \(3, 3, 4"),
        ({"image": None}, r"row 1 and row 0 differ in \['image'\]"),
        ({"name": None}, r"row 1 and row 0 differ in \['name'\]"),
    ],
)
def test_collate_says_which_row_is_at_fault_and_why(changes, message):
    changes = {k: v() if callable(v) else v for k, v in changes.items()}
    tokenizer = CharTokenizer.train(["cat"])
    with pytest.raises(ValueError, match=message):
        datasets.collate([row(), row(**changes)], tokenizer)


def test_rows_that_differ_in_what_they_hold_and_no_rows_are_refused():
    without = {k: v for k, v in row().items() if k != "audio"}
    with pytest.raises(ValueError, match=r"row 1 and row 0 differ in \['audio'\]"):
        datasets.collate([row(), without])
    with pytest.raises(ValueError, match="no rows"):
        datasets.collate([])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"image": "dog.png"}, "image of row 0 is a str: give PIL pictures"),
        ({"image": torch.ones(3, 8, 8)}, "image of row 0 is a Tensor"),
        ({"video": np.ones((2, 3, 8, 8))}, "video of row 0 .* holds float64: bytes"),
        ({"video": np.ones((3, 8, 8), np.uint8)}, r"shape \(3, 8, 8\)"),
        ({"nmea": "dog"}, "row 0 has no text 'name': there are ..nmea.."),
    ],
)
def test_collate_names_what_it_cant_take(row, why):
    with pytest.raises(ValueError, match=why):
        datasets.collate([row], tokenizer=object())


def test_collate_says_which_text_is_missing_only_where_one_is_wanted():
    assert datasets.collate([{"nmea": "dog"}]) == {}


# --- digits seen, heard and typed; pairs of vectors --------------------------------


@pytest.fixture(scope="module")
def heard():
    return datasets.digits_seen_and_heard()


def test_digits_are_the_scans_each_once(heard):
    from sklearn.datasets import load_digits

    clean = datasets.digits_seen_and_heard(noise=0.0)
    seen = np.stack([np.asarray(i) for s in SPLITS for i in clean[s]["image"]])
    labels = [label for s in SPLITS for label in clean[s]["label"]]
    real = load_digits()
    rows = sorted(
        zip(labels, (seen / 255 * 16).round().reshape(-1, 64).tolist(), strict=False)
    )
    right = sorted(
        zip(real.target.tolist(), real.images.reshape(-1, 64).tolist(), strict=False)
    )
    assert rows == right
    assert [len(heard[s]) for s in SPLITS] == [1000, 200, 597]


def test_digits_test_voices_are_new(heard):
    voices = [set(heard[s]["voice"]) for s in SPLITS]
    assert not voices[2] & (voices[0] | voices[1])
    assert not voices[0] & voices[1]


def test_digits_are_the_same_for_every_modality(heard):
    """Without errors, the name that is typed is the label's; with them, its length."""
    from mmcourse.digits import NAMES

    clean = datasets.digits_seen_and_heard(errors=0.0)["test"]
    assert [NAMES[i] for i in clean["label"]] == list(clean["text"])
    test = heard["test"]
    assert [len(NAMES[i]) for i in test["label"]] == [len(t) for t in test["text"]]
    right = [
        a == b
        for i, t in zip(test["label"], test["text"], strict=True)
        for a, b in zip(NAMES[i], t, strict=True)
    ]
    assert abs(np.mean(right) - (0.3 + 0.7 / 26)) < 0.03


def test_digits_batch_and_fit_together(heard):
    batch = datasets.collate([heard["test"][i] for i in range(5)])
    assert batch["image"].shape == (5, 3, 8, 8)
    assert batch["audio"].shape == (5, 12_000)
    assert batch["label"].shape == (5,)


@pytest.mark.parametrize(
    "wrong", [{"noise": -1.0}, {"errors": 1.5}, {"snr": (5.0, -5.0)}]
)
def test_digits_of_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=str(*wrong)):
        datasets.digits_seen_and_heard(**wrong)


@pytest.mark.parametrize("kind", datasets.KINDS)
def test_interactions_are_as_informative_as_they_say(kind):
    """The best rule for each, from the directions that the training rows show."""
    import torch

    parts = datasets.interactions(kind, n=6000)
    train, test = parts["train"][:], parts["test"][:]
    # The first principal axis of a modality is the direction of its bit.
    axes = {m: torch.linalg.svd(train[m])[2][0] for m in "ab"}
    bits = {m: test[m] @ axes[m] > 0 for m in "ab"}

    def best(guess):
        right = (guess == test["label"].bool()).float().mean().item()
        return max(right, 1 - right)

    alone = {m: best(bits[m]) for m in "ab"}
    if kind == "redundant":
        assert min(alone.values()) > 0.99
    elif kind == "unique":
        assert alone["a"] > 0.99
        assert alone["b"] < 0.55
    else:
        assert max(alone.values()) < 0.55
        assert best(bits["a"] ^ bits["b"]) > 0.985


def test_interactions_by_hand():
    parts = datasets.interactions("unique", n=10, width=3)
    assert [len(parts[s]) for s in SPLITS] == [4, 3, 3]
    assert parts["train"][:]["a"].shape == (4, 3)
    same = datasets.interactions("unique", n=10, width=3)
    assert (parts["test"][:]["b"] == same["test"][:]["b"]).all()
    with pytest.raises(ValueError, match=r"kind='both': choose from .*synergistic"):
        datasets.interactions("both")
    with pytest.raises(ValueError, match="n=3"):
        datasets.interactions("unique", n=3)
