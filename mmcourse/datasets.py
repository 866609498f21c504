"""The course's data as Hugging Face ``DatasetDict``s, and the batches made of it.

Each is built once, in seconds, from the pinned assets and then loaded from an Arrow
cache. Taught in 01_modalities; where each comes from stands in data/README.md.
"""

import ast
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

import datasets as hf
import numpy as np
import torch
from datasets import Dataset, DatasetDict  # beartype looks for these names
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from mmcourse import assets, digits, emojis, scenes, shapes, speech, triples
from mmcourse.tokenizers import pad

SPLITS = ("train", "validation", "test")
VERSION = 2  # of what the builders make: raise it and every cache is built again


def openmoji(size: int = 64) -> DatasetDict:
    """OpenMoji: every emoji as one design school draws it, ``size`` pixels square.

    Columns: image (on white), emoji, concept, base (True for one row of each concept),
    flag (a country's or region's), name, keywords, names (a name in each of 14
    languages) and sentiment (how many rated tweets with it were negative, neutral,
    positive; None where unrated). The splits hold different concepts: skin tones and
    genders of one thing stay together.
    """
    folder, stem = assets.path("openmoji"), "{:04X}"
    return _emoji_set(f"openmoji-{size}", folder, stem, size)


def twemoji(size: int = 64) -> DatasetDict:
    """Twemoji: the same things drawn by other hands; columns and splits as openmoji."""
    folder, stem = assets.path("twemoji"), "{:x}"
    return _emoji_set(f"twemoji-{size}", folder, stem, size)


def _emoji_set(name: str, folder: Path, stem: str, size: int) -> DatasetDict:
    if not 8 <= size <= 512:
        raise ValueError(f"size={size} pixels: choose from 8 to 512")

    def build() -> DatasetDict:
        drawn = [
            (e, p) for e in emojis.table() if (p := emojis.drawing(e, folder, stem))
        ]
        rows = {split: [] for split in SPLITS}
        seen = set()
        for emoji, path in tqdm(drawn, desc=f"drawing {name}", leave=False):
            about = emojis.concept(emoji)
            row = {"image": {"bytes": emojis.render(path, size), "path": None}}
            row |= {"emoji": emoji, "concept": about, "base": about not in seen}
            row["flag"] = emojis.is_flag(emoji)
            rows[emojis.split_of(about)].append(row | emojis.table()[emoji])
            seen.add(about)
        return DatasetDict(
            {s: Dataset.from_list(rows[s], features=_features()) for s in SPLITS}
        )

    return _cached(name, build)


def _features() -> hf.Features:
    text, count = hf.Value("string"), hf.Value("int32")
    return hf.Features(
        {
            "image": hf.Image(),
            "emoji": text,
            "concept": text,
            "base": hf.Value("bool"),
            "flag": hf.Value("bool"),
            "name": text,
            "keywords": hf.List(text),
            "names": dict.fromkeys(emojis.LANGUAGES, text),
            "sentiment": dict.fromkeys(emojis.FEELINGS, count),
        }
    )


def things(part: Dataset) -> Dataset:
    """Keep one row of each concept of an emoji set, without the flags of countries."""
    kept = np.array(part["base"]) & ~np.array(part["flag"])
    return part.select(np.flatnonzero(kept))


def speak(
    text: str, pitch: float = 1.0, range: float = 1.0, speed: float = 1.0, **voice
) -> Tensor:
    """Say a text aloud: see ``mmcourse.speech.speak``."""
    return speech.speak(text, pitch=pitch, range=range, speed=speed, **voice)


def spoken_words(
    words: tuple[str, ...] | None = None, voices: tuple[str, ...] = tuple(speech.VOICES)
) -> DatasetDict:
    """Words said by pseudo-voices; validation and test have voices of their own.

    Columns: audio (24 kHz samples), sampling_rate, word and voice. Without ``words``,
    100 one-word names of emoji. ValueError with fewer than three voices.
    """
    if len(set(voices)) < max(3, len(voices)):
        raise ValueError(f"voices={voices}: three splits need at least 3, each once")
    if words is not None and (isinstance(words, str) or len(words) == 0):
        raise ValueError(f'words={words!r}: give a list of words, such as ["dog"]')
    words = _default_words() if words is None else tuple(words)
    key = hashlib.sha1(repr((words, voices)).encode()).hexdigest()[:10]
    of_split = {"train": voices[:-2], "validation": voices[-2:-1], "test": voices[-1:]}

    def build() -> DatasetDict:
        bar = tqdm(total=len(words) * len(voices), desc="speaking", leave=False)

        def row(word: str, voice: str) -> dict:
            bar.update()
            audio = speech.speak(word, voice=voice).numpy()
            rate = speech.SAMPLE_RATE
            return {"audio": audio, "sampling_rate": rate, "word": word, "voice": voice}

        features = hf.Features(
            {
                "audio": hf.List(hf.Value("float32")),
                "sampling_rate": hf.Value("int32"),
                "word": hf.Value("string"),
                "voice": hf.Value("string"),
            }
        )
        return DatasetDict(
            {
                split: Dataset.from_list(
                    [row(w, v) for w in words for v in of_split[split]], features
                )
                for split in SPLITS
            }
        )

    return _cached(f"spoken-words-{key}", build)


def _default_words() -> tuple[str, ...]:
    names = {row["name"] for row in emojis.table().values()}
    return tuple(sorted(n for n in names if re.fullmatch("[a-z]{3,8}", n)))[:300:3]


DIGIT_VOICES = {
    "train": ("heart", "deep", "child"),
    "validation": ("low",),
    "test": ("bright",),
}
TAKES = 8  # of every digit in every voice
DIGIT_FEATURES = hf.Features(
    {
        "image": hf.Image(),
        "audio": hf.List(hf.Value("float32")),
        "sampling_rate": hf.Value("int32"),
        "text": hf.Value("string"),
        "label": hf.Value("int64"),
        "voice": hf.Value("string"),
        "snr": hf.Value("float32"),
    }
)
DIGIT_ROWS = {"train": (0, 1000), "validation": (1000, 1200), "test": (1200, 1797)}


def digits_seen_and_heard(
    noise: float = 0.6,
    snr: tuple[float, float] = (-10.0, 8.0),
    errors: float = 0.7,
    seed: int = 0,
) -> DatasetDict:
    """Digits scanned, spoken in noise and typed with errors: each alone is not enough.

    Columns: image (a real scan, 8 x 8 grey, with Gaussian ``noise``; ink is white),
    audio (half a second at 24 kHz, the digit somewhere in white noise), sampling_rate,
    text (its name, a letter wrong with the probability ``errors``), label (0 to 9),
    voice and snr (in dB, drawn evenly from the bounds given). 1,000, 200 and 597 rows;
    no scan and no voice is in two splits.
    """
    if noise < 0 or not 0 <= errors <= 1 or snr[0] > snr[1]:
        raise ValueError(
            f"noise={noise}, snr={snr}, errors={errors}: noise is 0 or more, snr goes "
            "from low to high, errors are a probability"
        )

    def build() -> DatasetDict:
        rng, said = np.random.default_rng(seed), _spoken_digits()
        images, labels = digits.scans()
        order = rng.permutation(len(labels)).tolist()

        def row(i: int, voice: str) -> dict:
            label, level = int(labels[i]), float(rng.uniform(*snr))
            spoken = said[voice, label][rng.integers(TAKES)]
            return {
                "image": digits.dim(images[i], noise, rng),
                "audio": digits.drown(spoken, level, rng),
                "sampling_rate": speech.SAMPLE_RATE,
                "text": digits.mistype(digits.NAMES[label], errors, rng),
                "label": label,
                "voice": voice,
                "snr": level,
            }

        parts = {}
        for split, at in DIGIT_ROWS.items():
            chosen = order[slice(*at)]
            voices = rng.choice(DIGIT_VOICES[split], len(chosen)).tolist()
            rows = [row(i, voice) for i, voice in zip(chosen, voices, strict=True)]
            parts[split] = Dataset.from_list(rows, features=DIGIT_FEATURES)
        return DatasetDict(parts)

    key = hashlib.sha1(repr((noise, snr, errors, seed)).encode()).hexdigest()[:10]
    return _cached(f"digits-{key}", build)


@cache
def _spoken_digits() -> dict[tuple[str, int], list]:
    """Say every digit several times in each voice, at ever another pitch and pace."""
    rng, said = np.random.default_rng(0), {}
    voices = [v for several in DIGIT_VOICES.values() for v in several]
    bar = tqdm(total=len(voices) * 10 * TAKES, desc="speaking digits", leave=False)
    for voice in voices:
        for label, name in enumerate(digits.NAMES):
            said[voice, label] = []
            for take in range(TAKES):
                pitch, speed = rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.2)
                spoken = speech.speak(name, voice, pitch, speed=speed, seed=take)
                said[voice, label].append(digits.trim(spoken.numpy()))
                bar.update()
    return said


KINDS = ("redundant", "unique", "synergistic")


def interactions(
    kind: str, n: int = 3000, width: int = 16, seed: int = 0
) -> DatasetDict:
    """Pairs of vectors whose label is in both, in one, or in neither alone.

    Each modality hides a bit, u in ``a`` and v in ``b``: x = (2 u - 1) m + noise, with
    a direction m of length 3 and standard normal noise. "redundant": label = u = v.
    "unique": label = u, and v is a coin's toss. "synergistic": label = u xor v, both
    tossed, so that each modality alone says nothing about it. A bit is read off its
    vector with the accuracy Phi(3) = 0.9987 at best; the best accuracy for the label is
    0.99999, 0.9987 and 0.9973. Columns, as tensors (``part[:]`` is a batch): a and b
    (``width`` floats), label (0 or 1).
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: choose from {KINDS}")
    if n < 10 or width < 1:
        raise ValueError(f"n={n}, width={width}: take at least 10 rows, 1 number each")
    rng = np.random.default_rng(seed)
    u, v = rng.integers(0, 2, (2, n))
    v = u if kind == "redundant" else v
    label = u ^ v if kind == "synergistic" else u
    columns = {}
    for name, bit in (("a", u), ("b", v)):
        mean = rng.standard_normal(width)
        mean *= 3 / np.linalg.norm(mean)
        x = np.outer(2 * bit - 1, mean) + rng.standard_normal((n, width))
        columns[name] = x.astype(np.float32)
    columns["label"] = label
    whole = Dataset.from_dict(columns).with_format("torch")
    ends = [0, n - 2 * (n // 3), n - n // 3, n]
    parts = zip(SPLITS, ends[:-1], ends[1:], strict=True)
    return DatasetDict({s: whole.select(range(i, j)) for s, i, j in parts})


def moving_shapes(
    n: int = 600, frames: int = 8, size: int = 32, seed: int = 0
) -> DatasetDict:
    """Clips of one shape moving left, right, up or down; constructed, so all is known.

    Columns: video (F, C, H, W) of bytes, shape, colour, motion and caption. A sixth of
    the ``n`` clips each are validation and test.
    """
    if n < 6 or frames < 2 or size < 16:
        raise ValueError(
            f"n={n}, frames={frames}, size={size}: take at least 6 clips, "
            "2 frames and 16 pixels"
        )

    def build() -> DatasetDict:
        rng = np.random.default_rng(seed)
        clips = [shapes.random_clip(rng, frames, size) for _ in range(n)]
        rows = [
            {
                "video": shapes.draw_clip(clip, frames, size),
                "shape": clip.shape,
                "colour": clip.colour,
                "motion": clip.motion,
                "caption": clip.caption,
            }
            for clip in tqdm(clips, desc="drawing clips", leave=False)
        ]
        features = hf.Features(
            {"video": hf.Array4D((frames, 3, size, size), "uint8")}
            | {k: hf.Value("string") for k in ("shape", "colour", "motion", "caption")}
        )
        ends = {
            "train": (0, n - 2 * (n // 6)),
            "validation": (-2 * (n // 6), -(n // 6)),
        }
        parts = {s: rows[slice(*ends.get(s, (-(n // 6), None)))] for s in SPLITS}
        return DatasetDict({s: Dataset.from_list(parts[s], features) for s in SPLITS})

    return _cached(f"moving-shapes-{n}-{frames}-{size}-{seed}", build)


SCENE_TEXTS = ("question", "question_zh", "answer", "answer_zh", "kind")
SCENE_FEATURES = hf.Features(
    {
        "image": hf.Image(),
        "objects": hf.List(
            {k: hf.Value("string") for k in ("shape", "colour", "size")}
            | {k: hf.Value("float32") for k in ("x", "y")}
        ),
        "caption": hf.Value("string"),
        "caption_zh": hf.Value("string"),
        "questions": hf.List({k: hf.Value("string") for k in SCENE_TEXTS}),
    }
)


def shape_scenes(n: int = 3000, seed: int = 0, size: int = 64) -> DatasetDict:
    """Scenes of 1 to 4 shapes, described and asked about in English and in Chinese.

    Columns: image (``size`` pixels square), objects (shape, colour, size and the centre
    x, y in [0, 1], y downwards), caption, caption_zh and questions (question, answer,
    both also _zh, and kind; about 6). A sixth of the ``n`` scenes each are validation
    and test. A fourth split, held_out, has another sixth: each of its scenes holds one
    blue triangle, red square or yellow circle, which are nowhere else, and asks of it.
    """
    if n < 6 or not 32 <= size <= 512:
        raise ValueError(
            f"n={n}, size={size}: take at least 6 scenes and 32 to 512 pixels"
        )

    def row(scene: scenes.Scene, asked: list[scenes.Question]) -> dict:
        return {
            "image": scenes.draw(scene, size),
            "objects": [vars(thing) for thing in scene.things],
            "caption": scene.caption,
            "caption_zh": scene.caption_zh,
            "questions": [vars(question) for question in asked],
        }

    def build() -> DatasetDict:
        parts = {}
        for split, drawn in scenes.splits(n, seed).items():
            bar = tqdm(drawn, desc=f"drawing {split} scenes", leave=False)
            rows = [row(scene, asked) for scene, asked in bar]
            parts[split] = Dataset.from_list(rows, features=SCENE_FEATURES)
        return DatasetDict(parts)

    return _cached(f"shape-scenes-{n}-{size}-{seed}", build)


def rated_tweets() -> DatasetDict:
    """4,200 tweets, each with the scores of 20 to 99 people (Hutto & Gilbert 2014).

    Columns: text, score (their mean, from -4, most negative, to 4) and ratings (every
    rater's score).
    """
    folder = assets.path("rated_texts")

    def build() -> DatasetDict:
        rows = {split: [] for split in SPLITS}
        ratings = dict(_table_rows(folder / "tweets_anonDataRatings.txt", value=3))
        for id, text in _table_rows(folder / "tweets_GroundTruth.txt", value=2):
            given = ast.literal_eval(ratings[id])
            row = {"text": html.unescape(text), "ratings": given}
            rows[emojis.split_of(text)].append(row | {"score": float(np.mean(given))})
        return DatasetDict({s: Dataset.from_list(rows[s]) for s in SPLITS})

    return _cached("rated-tweets", build)


def _table_rows(path: Path, value: int):
    """Yield (id, column ``value``) of a table whose columns are parted by tabs."""
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        columns = line.split("\t")
        if len(columns) > value:
            yield columns[0], columns[value]


TRIPLE_RATE = 8_000  # Hz, a telephone's: a third of the samples, the same melody
TRIPLE_FEATURES = hf.Features(
    {
        **dict.fromkeys(("text", "voice", "face", "kind", "id"), hf.Value("string")),
        **dict.fromkeys(("heard", "seen"), hf.Value("int8")),
        "ratings": hf.List(hf.Value("int8")),
        "score": hf.Value("float32"),
        "audio": hf.List(hf.Value("float32")),
        "sampling_rate": hf.Value("int32"),
        "image": hf.Image(),
    }
)


def sentiment_triples(seed: int = 0) -> DatasetDict:
    """Tweets, each said by a voice and shown with a face, which agree or don't.

    Real: the tweets of ``rated_tweets``, 20 to 99 scores each, and what tweets with a
    face felt like. Constructed: the voice (glad: higher, livelier, faster; sad: lower,
    duller, slower; flat: a monotone; all with jitter), who stands beside whom, and the
    rule of the label, two of three decide. Kinds: "agree"; "words", "voice" or "face"
    stands against the two others; "flat", where voice and face say nothing. The label
    is the human scores, with their sign turned where the words stand alone.

    Columns: text, ratings (-4 to 4), score (their mean), audio (the first 4 words, 8
    kHz), sampling_rate, image (64 pixels), face (its name), voice, kind, heard and seen
    (-1, 0, 1: what voice and face feel) and id (split and row in ``rated_tweets``).
    train (600) and validation (100) mix the kinds; each is a test split of its own
    (120), with the same tweets, recordings and faces. Voices and faces of train,
    validation and test differ.
    """

    def build() -> DatasetDict:
        tweets = {split: list(part) for split, part in rated_tweets().items()}
        planned = {s: triples.plan(tweets[s], s, seed) for s in SPLITS}
        for kind in triples.KINDS:
            planned[kind] = [r for r in planned["test"] if r["kind"] == kind]
        del planned["test"]
        said = {r["said"]: None for rows in planned.values() for r in rows}
        speech.speak("yes")  # load the engine once, before two threads want it
        with ThreadPoolExecutor(2) as pool:
            spoken = tqdm(pool.map(_telephone, said), "speaking", len(said), False)
            said = dict(zip(said, spoken, strict=True))
        drawn = _drawn_faces()

        def row(plan: dict) -> dict:
            sound = {"audio": said[plan["said"]], "sampling_rate": TRIPLE_RATE}
            kept = {k: v for k, v in plan.items() if k != "said"}
            return kept | sound | drawn[plan["face"]]

        return DatasetDict(
            {
                # cast: given to from_list, the features cost 6 ms a recording
                split: Dataset.from_list([row(r) for r in rows]).cast(TRIPLE_FEATURES)
                for split, rows in planned.items()
            }
        )

    return _cached(f"sentiment-triples-{seed}", build)


def _telephone(said: triples.Said) -> np.ndarray:
    from scipy.signal import resample_poly

    samples = speech.speak(**vars(said)).numpy()
    return resample_poly(samples, 1, speech.SAMPLE_RATE // TRIPLE_RATE)


def _drawn_faces() -> dict[str, dict]:
    """Return name and picture of each face that the triples show."""
    folder = assets.path("openmoji")
    wanted = {f for faces in triples.FACES.values() for f in "".join(faces.values())}
    found = {}
    for emoji, about in emojis.table().items():
        if (face := emoji.replace("\ufe0f", "")) in wanted:
            png = emojis.render(emojis.drawing(emoji, folder, "{:04X}"), 64)
            image = {"bytes": png, "path": None}
            found[face] = {"face": about["name"], "image": image}
    return found


EASY_VALIDATION = 400  # of easy-VQA's 4,000 pictures for training


def easy_vqa() -> DatasetDict:
    """easy-VQA (Zhou 2019): pictures of one shape, and questions with 13 answers.

    One row is one picture, to be encoded once for all its questions. Columns: image
    (one of 3 shapes in one of 8 colours on a pale ground, 64 pixels square), questions
    (question, answer, kind; 2 to 21 of them). A kind is "colour" or "shape", or yes and
    no questions of either: "exists: colour" ("is there a red shape?"), "absent: colour"
    ("is there not a red shape?"), "exists: shape", "absent: shape". The test split is
    the official one; of the official train, the last 400 pictures are validation.
    """
    folder = assets.path("easy_vqa")
    features = hf.Features(
        {
            "image": hf.Image(),
            "questions": hf.List(
                {k: hf.Value("string") for k in ("question", "answer", "kind")}
            ),
        }
    )

    def rows(part: str) -> list[dict]:
        asked: dict[int, list[dict]] = {}
        listed = (folder / part / "questions.json").read_text(encoding="utf-8")
        for question, answer, image in json.loads(listed):
            about = {"answer": answer, "kind": _asks_about(question)}
            asked.setdefault(image, []).append({"question": question} | about)
        return [
            {"image": {"bytes": png.read_bytes(), "path": None}, "questions": asked[i]}
            for i in tqdm(sorted(asked), desc=f"reading {part} pictures", leave=False)
            for png in [folder / part / "images" / f"{i}.png"]
        ]

    def build() -> DatasetDict:
        train, test = rows("train"), rows("test")
        ends = {"train": train[:-EASY_VALIDATION], "test": test}
        ends["validation"] = train[-EASY_VALIDATION:]
        return DatasetDict({s: Dataset.from_list(ends[s], features) for s in SPLITS})

    return _cached("easy-vqa", build)


def _asks_about(question: str) -> str:
    """Return the kind of an easy-VQA question, from its words."""
    words = set(question.rstrip("?").split())
    if "what" in words:
        return "colour" if "color" in words else "shape"
    form = "absent" if words & {"no", "not"} else "exists"
    # "a red shape" or "a circle": the word shape stands only beside a colour.
    return f"{form}: {'colour' if 'shape' in words else 'shape'}"


def emoji_captions(size: int = 64) -> DatasetDict:
    """One drawing of each thing in OpenMoji, flags left out, with its short texts.

    Columns: image, emoji, concept and captions (its name, then its keywords, of which
    one thing in nine has none). Splits and sizes as openmoji.
    """
    parts = {}
    for split, part in openmoji(size).items():
        about = zip(part["name"], part["keywords"], strict=True)
        texts = [[name, *keywords] for name, keywords in about]
        part = part.add_column("captions", texts, feature=hf.List(hf.Value("string")))
        columns = ["image", "emoji", "concept", "captions"]
        parts[split] = things(part).select_columns(columns)
    return DatasetDict(parts)


def captions(name_or_folder: str) -> DatasetDict:
    """Load a captioning set of the Hub, or a local folder laid out like one.

    A folder holds parquet files, or pictures beside a metadata.csv or .jsonl with
    ``file_name`` and a caption. Whatever its captions are called there, the columns
    here are image and captions (a list). A split column, as Flickr30k has, makes the
    splits.
    """
    loaded = load_set("captions", name_or_folder)
    return DatasetDict(
        {
            split: _with_captions(part, name_or_folder)
            for split, part in _by_split_column(loaded).items()
        }
    )


def stream_captions(name_or_folder: str) -> Iterator[dict]:
    """Yield image and captions (a list) row by row, without loading the whole set.

    Reads what ``captions`` reads; of the splits train, or the first there is.
    """
    splits = load_set("stream_captions", name_or_folder, streaming=True)
    try:
        rows = iter(splits["train" if "train" in splits else next(iter(splits))])
        first = next(rows)
    except Exception as error:
        raise _unloadable("stream_captions", name_or_folder, error) from error
    column = _caption_column(name_or_folder, list(first))
    for row in chain([first], rows):
        texts = row[column]
        yield {
            "image": row["image"],
            "captions": [texts] if isinstance(texts, str) else list(texts),
        }


def load_set(call: str, source: str, **how) -> hf.DatasetDict | hf.IterableDatasetDict:
    """Load by ``datasets.load_dataset``; ``call`` is who asks, for the error.

    Where the Hub can't be reached, what it gave before is taken, or FileNotFoundError
    comes, at once: huggingface_hub by itself tries again for 23 s.
    """
    offline = hf.config.HF_HUB_OFFLINE
    try:
        hf.config.HF_HUB_OFFLINE = offline or not (
            Path(source).exists() or _hub_answers()
        )
        return hf.load_dataset(source, **how)
    except Exception as error:
        raise _unloadable(call, source, error) from error
    finally:
        hf.config.HF_HUB_OFFLINE = offline


def _hub_answers() -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(hf.config.HF_ENDPOINT, timeout=10)
    except Exception:  # its kind depends on the HTTP library below
        return False
    return True


def _unloadable(call: str, source: str, error: Exception) -> FileNotFoundError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FileNotFoundError(
        f"{call}({source!r}) can't be loaded: {said}. Give a folder that exists, or "
        "connect to reach the Hub"
    )


CAPTION_COLUMNS = ("captions", "caption", "sentences", "sentence", "text", "raw")


def _caption_column(source: str, columns: list[str]) -> str:
    column = next((c for c in CAPTION_COLUMNS if c in columns), None)
    if column is None or "image" not in columns:
        raise ValueError(
            f"{source!r} has the columns {columns}: an image and one of "
            f"{CAPTION_COLUMNS} are needed; rename_column mends it"
        )
    return column


def _with_captions(part: Dataset, source: str) -> Dataset:
    column = _caption_column(source, part.column_names)
    part = part.select_columns(["image", column])
    if column != "captions":
        part = part.rename_column(column, "captions")
    if isinstance(part.features["captions"], hf.List):
        return part
    texts = [[text] for text in part["captions"]]
    kind = hf.List(hf.Value("string"))
    return part.remove_columns("captions").add_column("captions", texts, feature=kind)


def _by_split_column(loaded: DatasetDict) -> dict[str, Dataset]:
    """Split by the column "split" where there is one (all of Flickr30k is "test")."""
    parts = {}
    for name, part in loaded.items():
        if "split" not in part.column_names:
            parts[name] = part
            continue
        labels = np.array(part["split"])
        for label in dict.fromkeys(labels.tolist()):
            at = "validation" if label == "val" else label
            parts[at] = part.select(np.flatnonzero(labels == label))
    return parts


def _cached(name: str, build: Callable[[], DatasetDict]) -> DatasetDict:
    """Load a set from its Arrow cache, built before if need be."""

    def write(folder: Path) -> None:
        with _without_bars():
            build().save_to_disk(folder)

    return hf.load_from_disk(assets.built(f"{name}-v{VERSION}", write))


@contextmanager
def _without_bars() -> Iterator[None]:
    """Silence datasets' own progress bars: the builders show one that says more."""
    shown = hf.is_progress_bar_enabled()
    hf.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            hf.enable_progress_bars()


def collate(rows: list[dict], tokenizer=None, text: str = "name") -> dict[str, Tensor]:
    """Make one batch of rows: a modality that no row has is absent from it.

    image: pictures to floats in [0, 1], (B, C, H, W). audio: samples to (B, T), padded
    with silence. video: (B, F, C, H, W) in [0, 1]. With a ``tokenizer``, the column
    ``text`` becomes tokens (B, L) and mask (B, L), True where real. label: (B,).
    ValueError that names the row for a broken picture, an empty text, samples that
    aren't finite or of another rate, and for rows that differ in what they hold.
    """
    if len(rows) == 0:
        raise ValueError("collate got no rows: a batch holds at least one")
    rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
    used = {"image", "video", "audio", "label", text if tokenizer is not None else ""}
    _same_columns([row.keys() & used for row in rows])
    batch = {}
    if "image" in rows[0]:
        batch["image"] = _stack([_pixels(i, r["image"]) for i, r in enumerate(rows)])
    if "video" in rows[0]:
        batch["video"] = _stack([_frames(i, r["video"]) for i, r in enumerate(rows)])
    if "audio" in rows[0]:
        sounds = [_samples(i, r) for i, r in enumerate(rows)]
        batch["audio"] = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    if tokenizer is not None:
        texts = [_text(i, r, text) for i, r in enumerate(rows)]
        batch["tokens"], batch["mask"] = pad([tokenizer.encode(t) for t in texts])
    if "label" in rows[0]:
        batch["label"] = torch.tensor([r["label"] for r in rows])
    return batch


def _same_columns(held: list[set[str]]) -> None:
    for i, columns in enumerate(held):
        if columns != held[0]:
            differ = sorted(columns ^ held[0])
            raise ValueError(f"row {i} and row 0 differ in {differ}: batch them apart")


def _stack(parts: list[Tensor]) -> Tensor:
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"row {i} has the shape {tuple(part.shape)}, row 0 "
                f"{tuple(parts[0].shape)}: resize them alike first"
            )
    return torch.stack(parts)


def _pixels(i: int, image) -> Tensor:
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"the image of row {i} is a {type(image).__name__}: give PIL pictures"
        )
    try:
        values = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the image of row {i} can't be read: {error}") from error
    return torch.from_numpy(values).permute(2, 0, 1)


def _samples(i: int, row: dict) -> Tensor:
    rate = row.get("sampling_rate", speech.SAMPLE_RATE)
    if rate != speech.SAMPLE_RATE:
        raise ValueError(
            f"the audio of row {i} has {rate} Hz, {speech.SAMPLE_RATE} are needed: "
            "resample it first"
        )
    samples = np.asarray(row["audio"])
    if samples.ndim != 1 or samples.size == 0:
        what = f"the shape {samples.shape}, (T,) is needed"
    elif samples.dtype.kind != "f":
        what = f"samples of {samples.dtype}, floats in [-1, 1] are needed"
    elif not np.isfinite(samples).all():
        what = "samples that are NaN or infinite"
    else:
        return torch.from_numpy(samples.astype(np.float32))
    raise ValueError(f"the audio of row {i} has {what}: leave the row out or mend it")


def _frames(i: int, video) -> Tensor:
    frames = np.asarray(video)
    if frames.ndim != 4 or frames.dtype.kind not in "ui":
        raise ValueError(
            f"the video of row {i} has the shape {frames.shape} and holds "
            f"{frames.dtype}: bytes (F, C, H, W) are needed"
        )
    return torch.as_tensor(frames) / 255


def _text(i: int, row: dict, column: str) -> str:
    if column not in row:
        raise ValueError(f"row {i} has no text {column!r}: there are {sorted(row)}")
    if not row[column].strip():
        raise ValueError(f"the text of row {i} is empty: leave the row out or fill it")
    return row[column]
