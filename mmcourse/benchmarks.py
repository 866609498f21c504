"""The sets that papers report on, from a folder or the Hub, in the course's columns.

VQAv2 (Goyal et al. 2017, arXiv 1612.00837), COCO captions (Chen et al. 2015, arXiv
1504.00325) and CMU-MOSEI (Zadeh et al. 2018, ACL P18-1208). None comes with the course:
you download them, under their own terms, and each function says from where. Small sets
with the same columns, for the notebooks, are in ``mmcourse.datasets``.
"""

import hashlib
import json
import pickle
from pathlib import Path

import datasets as hf
import numpy as np
from datasets import Dataset, DatasetDict  # beartype looks for these names

from mmcourse import assets, datasets

TEXT, TEXTS = hf.Value("string"), hf.List(hf.Value("string"))
VQA_COLUMNS = {"image": hf.Image(), "question": TEXT, "answer": TEXT}
VQA_COLUMNS |= {"answers": TEXTS, "kind": TEXT}
HUB_COLUMNS = ("image", "question", "multiple_choice_answer", "answer_type", "answers")


def vqa_v2(name_or_folder: str | Path) -> DatasetDict:
    """Load VQAv2: questions on photographs, each answered by ten people.

    Columns: image, question, answer (the most frequent of the ten), answers (all) and
    kind ("yes/no", "number" or "other"). The folder holds what visualqa.org gives, the
    files v2_OpenEnded_mscoco_train2014_questions.json and
    v2_mscoco_train2014_annotations.json, beside the folder train2014 of COCO's
    pictures, and the same with val2014, which becomes validation; one of both is
    enough. Or it holds parquet files with the columns of the Hub, or is a name there,
    such as "lmms-lab/VQAv2" (validation alone). Questions without answers, as those of
    the challenge's test, are left out.

    No picture is opened here: one that is broken raises PIL's OSError when its row is
    read. FileNotFoundError for files or pictures that aren't there, ValueError for a
    question without annotation, a file cut short and columns of other names.
    """
    folder = Path(name_or_folder)
    parts = {"train": "train2014", "validation": "val2014"}
    parts = {s: p for s, p in parts.items() if any(folder.glob(f"v2_*_{p}_*.json"))}
    if parts:
        return DatasetDict({s: _vqa_part(folder, p) for s, p in parts.items()})
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise FileNotFoundError(
            f"{folder} holds neither v2_OpenEnded_mscoco_train2014_questions.json (or "
            "val2014) nor parquet files: unpack the zips of visualqa.org there"
        )
    loaded = datasets.load_set("vqa_v2", str(name_or_folder)).items()
    loaded = {split: _hub_vqa(part, folder) for split, part in loaded}
    return DatasetDict({s: part for s, part in loaded.items() if len(part) > 0})


def _vqa_part(folder: Path, part: str) -> Dataset:
    file = folder / f"v2_mscoco_{part}_annotations.json"
    told = {a["question_id"]: a for a in _listed(file, "annotations")}
    asked = _listed(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", "questions")
    without = [q["question_id"] for q in asked if q["question_id"] not in told]
    if without:
        raise ValueError(
            f"{file} has nothing on {len(without)} of {len(asked)} questions, "
            f"{without[0]} the first: unpack both files of {part} anew"
        )
    told = [told[q["question_id"]] for q in asked]
    names = [f"COCO_{part}_{q['image_id']:012d}.jpg" for q in asked]
    columns = {
        "image": _pictures(folder / part, names),
        "question": [q["question"] for q in asked],
        "answer": [a["multiple_choice_answer"] for a in told],
        "answers": [[one["answer"] for one in a["answers"]] for a in told],
        "kind": [a["answer_type"] for a in told],
    }
    return Dataset.from_dict(columns, features=hf.Features(VQA_COLUMNS))


def _hub_vqa(part: Dataset, source: Path) -> Dataset:
    """Rename the Hub's columns; pictures stay where they are, and undecoded."""
    lacking = [c for c in HUB_COLUMNS if c not in part.column_names]
    if lacking:
        raise ValueError(
            f"{source} has the columns {part.column_names} and lacks {lacking}: "
            "rename_column mends it, or take it in the form of lmms-lab/VQAv2"
        )
    answers = [[one["answer"] for one in given or []] for given in part["answers"]]
    part = part.select_columns(list(HUB_COLUMNS[:-1])).rename_columns(
        {"multiple_choice_answer": "answer", "answer_type": "kind"}
    )
    part = part.add_column("answers", answers, feature=TEXTS)
    part = part.select_columns(list(VQA_COLUMNS))
    return part.select([i for i, given in enumerate(answers) if given])


def coco_captions(folder: str | Path) -> DatasetDict:
    """Load COCO's captions: photographs, each described by five people.

    Columns: image and captions (a list), as ``datasets.captions`` gives. The folder is
    what the zips of cocodataset.org unpack to: annotations/captions_train2017.json
    beside the folder train2017, and the same with val2017, which becomes validation;
    one of both is enough. 2014 is read where there is no 2017: the pictures are the
    same, split in another way. Broken and missing pictures are as in ``vqa_v2``.
    """
    folder = Path(folder)
    files = {f.stem[9:]: f for f in folder.glob("annotations/captions_*201[47].json")}
    year = 2017 if any(part.endswith("2017") for part in files) else 2014
    parts = {"train": f"train{year}", "validation": f"val{year}"}
    parts = {split: part for split, part in parts.items() if part in files}
    if not parts:
        raise FileNotFoundError(
            f"{folder} has no annotations/captions_train2017.json (nor val2017, nor "
            "2014): unpack annotations_trainval2017.zip of cocodataset.org there"
        )
    return DatasetDict({s: _coco_part(files[p], folder / p) for s, p in parts.items()})


def _coco_part(file: Path, pictures: Path) -> Dataset:
    names = {image["id"]: image["file_name"] for image in _listed(file, "images")}
    said: dict[str, list[str]] = {}
    for caption in _listed(file, "annotations"):
        if caption["image_id"] not in names:
            raise ValueError(
                f"{file} has a caption of the image {caption['image_id']}, which is "
                f"none of its {len(names)} images: unpack it anew"
            )
        name = names[caption["image_id"]]
        said.setdefault(name, []).append(caption["caption"].strip())
    columns = {"image": _pictures(pictures, list(said)), "captions": [*said.values()]}
    features = hf.Features({"image": hf.Image(), "captions": TEXTS})
    return Dataset.from_dict(columns, features=features)


def _listed(file: Path, key: str) -> list[dict]:
    """Read the list that a JSON file holds under this key."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: unpack its zip there")
    try:
        return json.loads(file.read_text(encoding="utf-8"))[key]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{file} is cut short or has no {key!r} ({error}): unpack its zip anew"
        ) from error


def _pictures(folder: Path, names: list[str]) -> list[str]:
    """Return the pictures' paths, after one look at what the folder holds."""
    files = folder.resolve().iterdir() if folder.is_dir() else ()
    there = {file.name: str(file) for file in files}
    missing = sorted(set(names) - there.keys())
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(set(names))} pictures, "
            f"{missing[0]} the first: unpack {folder.name}.zip of cocodataset.org"
        )
    return [there[name] for name in names]


MOSEI_FILES = ("unaligned_50.pkl", "aligned_50.pkl")
FEATURES = ("audio", "vision")
MOSEI_KEYS = ("id", "raw_text", *FEATURES, "regression_labels")


def mosei(folder: str | Path) -> DatasetDict:
    """Load CMU-MOSEI or CMU-MOSI: what someone says of a film or a thing, and how.

    The folder holds unaligned_50.pkl or aligned_50.pkl, as
    github.com/thuiar/MMSA shares them; a path to a pickle of that layout will do too.
    Columns: id, text, audio and vision (features, frames x width; cut where the file
    gives lengths, else padded with zeros), score (the mean of the raters, from -3,
    negative, to 3). What isn't finite becomes 0. Rows hold torch tensors. Read once,
    then loaded from the course's cache.

    A pickle may run any code when it is loaded; from this one only numpy arrays, plain
    containers, numbers and text are let in, and ValueError names what else it asks for.
    FileNotFoundError where there is no such file, ValueError where a split or a column
    is missing, the numbers of rows differ or a score is out of bounds.
    """
    files = [Path(folder), *(Path(folder) / name for name in MOSEI_FILES)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"{folder} holds none of {MOSEI_FILES}: download one from the links of "
            "github.com/thuiar/MMSA, and give its folder"
        )

    def build(to: Path) -> None:
        held, names = _unpickled(file), ("train", "valid", "test")
        parts = [_mosei_part(held, name, file) for name in names]
        DatasetDict(zip(datasets.SPLITS, parts, strict=True)).save_to_disk(to)

    about = f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}"
    key = hashlib.sha1(about.encode()).hexdigest()[:10]
    return hf.load_from_disk(assets.built(f"mosei-{key}", build)).with_format("torch")


def _mosei_part(held: dict, split: str, file: Path) -> Dataset:
    part = held.get(split, {})
    shapes = {key: np.shape(part.get(key, ())) for key in MOSEI_KEYS}
    score = np.asarray(part.get("regression_labels", ()), np.float32).reshape(-1)
    rows, axes = {s[0] for s in shapes.values()}, {len(shapes[m]) for m in FEATURES}
    most = np.abs(score).max(initial=0)
    if len(rows) > 1 or axes != {3} or not most <= 3:
        raise ValueError(
            f"{file}: {split!r} has {shapes} and scores up to {most:g}: MMSA's layout "
            "has as many rows of each, audio and vision of the shape (rows, frames, "
            "width), and scores from -3 to 3"
        )
    columns = {"id": list(part["id"]), "text": list(part["raw_text"]), "score": score}
    kinds = {"id": TEXT, "text": TEXT, "score": hf.Value("float32")}
    for name in FEATURES:
        whole = [shapes[name][1]] * len(score)
        lengths = np.maximum(part.get(f"{name}_lengths", whole), 1)
        columns[name] = [
            np.nan_to_num(row[:n], posinf=0, neginf=0).astype(np.float32)
            for row, n in zip(part[name], lengths, strict=True)
        ]
        kinds[name] = hf.Array2D((None, shapes[name][2]), "float32")
    return Dataset.from_dict(columns, features=hf.Features(kinds))


# What the pickle of an array calls, in whichever module this version of numpy has it;
# str.encode makes the bytes of old protocols.
_MAKERS = [np.zeros(1).__reduce_ex__(protocol)[0] for protocol in (2, 5)]
_MAKERS += [np.float64(0).__reduce__()[0], np.ndarray, np.dtype, str.encode]
_LET_IN = {maker.__name__: maker for maker in _MAKERS}


class _Arrays(pickle.Unpickler):
    """Let in arrays and plain containers; whatever else could run code."""

    def find_class(self, module: str, name: str):
        if module.partition(".")[0] in ("numpy", "_codecs") and name in _LET_IN:
            return _LET_IN[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(file: Path) -> dict:
    try:
        with file.open("rb") as source:
            return dict(_Arrays(source).load())
    except Exception as error:  # bytes that are no pickle raise almost anything
        raise ValueError(
            f"{file} is cut short, or more than arrays, containers, numbers and text "
            f"({error}), and was not let in: get it anew, from a source you trust"
        ) from error
