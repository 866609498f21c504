"""The papers' sets are read from the layouts they come in, and faults are named."""

import gc
import io
import json
import pickle

import datasets as hf
import numpy as np
import pytest
import torch
from PIL import Image

from mmcourse import benchmarks

VQA = ["image", "question", "answer", "answers", "kind"]


def jpg(colour="red"):
    box = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(box, "JPEG")
    return box.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, with datasets' own cache beside it."""
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def edit(file, change):
    """Change what a JSON file holds."""
    held = json.loads(file.read_text(encoding="utf-8"))
    change(held)
    write(file, held)


# --- VQAv2 ------------------------------------------------------------------------

ASKED = [
    (9, 9000, "What colour is it?", "other", "red", ["red"] * 8 + ["pink", "rosé"]),
    (9, 9001, "Is it red?", "yes/no", "yes", ["yes"] * 10),
    (25, 25000, "How many are there?", "number", "2", ["2"] * 6 + ["3"] * 4),
]


def questions(part):
    return f"v2_OpenEnded_mscoco_{part}_questions.json"


def annotations(part):
    return f"v2_mscoco_{part}_annotations.json"


def write_vqa(folder, part):
    """What visualqa.org's and COCO's zips unpack to, annotations in another order."""
    asked = [{"image_id": i, "question_id": n, "question": q} for i, n, q, *_ in ASKED]
    write(folder / questions(part), {"license": {}, "questions": asked})
    told = [
        {
            "image_id": image,
            "question_id": number,
            "question_type": "what",
            "answer_type": kind,
            "multiple_choice_answer": answer,
            "answers": answers_of(given),
        }
        for image, number, _, kind, answer, given in reversed(ASKED)
    ]
    write(folder / annotations(part), {"annotations": told})
    (folder / part).mkdir()
    for image in (9, 25):
        file = folder / part / f"COCO_{part}_{image:012d}.jpg"
        file.write_bytes(jpg("red" if image == 9 else "blue"))


def answers_of(given):
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": i + 1}
        for i, answer in enumerate(given)
    ]


def test_vqa_v2_as_downloaded(folder):
    write_vqa(folder, "train2014")
    write_vqa(folder, "val2014")
    write(folder / questions("test2015"), {"questions": [{"question_id": 1}]})
    loaded = benchmarks.vqa_v2(folder)
    assert list(loaded) == ["train", "validation"]
    for part in loaded.values():
        assert part.column_names == VQA
        rows = part.remove_columns("image").to_list()
        for row, (_, _, question, kind, answer, given) in zip(rows, ASKED, strict=True):
            right = {"question": question, "answer": answer, "answers": given}
            assert row == right | {"kind": kind}
        reds = [np.asarray(image)[..., 0].mean() > 128 for image in part["image"]]
        assert reds == [True, True, False]


def test_one_part_of_vqa_v2_is_enough(folder):
    write_vqa(folder, "val2014")
    assert {s: len(p) for s, p in benchmarks.vqa_v2(str(folder)).items()} == {
        "validation": 3
    }


def test_a_picture_is_opened_only_when_its_row_is_read(folder):
    write_vqa(folder, "train2014")
    broken = folder / "train2014/COCO_train2014_000000000009.jpg"
    broken.write_bytes(b"no picture")
    part = benchmarks.vqa_v2(folder)["train"]
    assert part[2]["image"].size == (8, 8)
    with pytest.raises(OSError, match=broken.name):
        part[0]
    broken.write_bytes(jpg()[:-200])
    with pytest.raises(OSError, match=r"(?i)truncated"):
        part[0]
    gc.collect()  # a picture left open would warn here


def hub_rows():
    rows = [
        {
            "image": {"bytes": jpg(), "path": None},
            "question": question,
            "question_type": "what",
            "answer_type": kind,
            "multiple_choice_answer": answer,
            "answers": answers_of(given),
            "question_id": number,
            "image_id": image,
        }
        for image, number, question, kind, answer, given in ASKED
    ]
    unknown = dict.fromkeys(("answer_type", "multiple_choice_answer", "answers"))
    return [rows[0], rows[1] | unknown, rows[2]]


def write_hub(folder, split, rows):
    text, number = hf.Value("string"), hf.Value("int64")
    one = {"answer": text, "answer_confidence": text, "answer_id": number}
    kinds = {k: number if k.endswith("_id") else text for k in rows[0]}
    kinds |= {"image": hf.Image(), "answers": hf.List(one)}
    (folder / "data").mkdir(exist_ok=True)
    data = hf.Dataset.from_list(rows, features=hf.Features(kinds))
    data.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")


def test_vqa_v2_in_the_form_of_the_hub(folder):
    """Rows without answers are left out, and a split of none but these."""
    rows = hub_rows()
    rows[1]["image"]["bytes"] = b"never opened"
    write_hub(folder, "validation", rows)
    write_hub(folder, "test", [rows[1]])
    loaded = benchmarks.vqa_v2(folder)
    assert list(loaded) == ["validation"]
    part = loaded["validation"]
    assert part.column_names == VQA
    assert part["question"][:] == [ASKED[0][2], ASKED[2][2]]
    assert part["answers"][:] == [ASKED[0][5], ASKED[2][5]]
    assert part["answer"][:] == ["red", "2"] and part["kind"][:] == ["other", "number"]
    assert part[1]["image"].size == (8, 8)


def test_both_forms_of_vqa_v2_give_the_same_columns(folder):
    write_vqa(folder, "val2014")
    downloaded = benchmarks.vqa_v2(folder)["validation"]
    hub = folder / "hub"
    hub.mkdir()
    write_hub(hub, "validation", hub_rows())
    assert benchmarks.vqa_v2(hub)["validation"].features == downloaded.features


def test_vqa_v2_with_other_columns(folder):
    rows = [{k: v for k, v in r.items() if k != "answer_type"} for r in hub_rows()]
    write_hub(folder, "validation", rows)
    with pytest.raises(ValueError, match=r"lacks \['answer_type'\].*rename_column"):
        benchmarks.vqa_v2(folder)


def without_answers(folder):
    def change(held):
        held["annotations"] = held["annotations"][:1]

    edit(folder / annotations("train2014"), change)


VQA_FAULTS = {
    "2 of 3 questions, 9000 the first: unpack both": without_answers,
    f"{annotations('train2014')} is missing": lambda folder: (
        folder / annotations("train2014")
    ).unlink(),
    f"{questions('train2014')} is missing": lambda folder: (
        folder / questions("train2014")
    ).unlink(),
    f"{questions('train2014')} is cut short": lambda folder: (
        folder / questions("train2014")
    ).write_text('{"questions": [{"ques'),
    f"{annotations('train2014')} is cut short or has no 'annotations'": lambda folder: (
        write(folder / annotations("train2014"), {"questions": []})
    ),
    "lacks 1 of 2 pictures, COCO_train2014_000000000025.jpg the first: unpack "
    "train2014.zip": lambda folder: (
        folder / "train2014/COCO_train2014_000000000025.jpg"
    ).unlink(),
    "lacks 2 of 2 pictures": lambda folder: (folder / "train2014").rename(
        folder / "pictures"
    ),
}


@pytest.mark.parametrize("message", VQA_FAULTS)
def test_vqa_v2_says_what_is_missing_or_broken(folder, message):
    write_vqa(folder, "train2014")
    VQA_FAULTS[message](folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        benchmarks.vqa_v2(folder)


def test_vqa_v2_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError, match=r"holds neither v2_OpenEnded.*unpack"):
        benchmarks.vqa_v2(folder)
    with pytest.raises(FileNotFoundError, match=r"vqa_v2.*connect to reach the Hub"):
        benchmarks.vqa_v2("nobody/nothing")


# --- COCO's captions --------------------------------------------------------------


def write_coco(folder, part):
    """Two described pictures and one that nobody described."""
    before = f"COCO_{part}_" if part.endswith("2014") else ""
    images = [{"id": i, "file_name": f"{before}{i:012d}.jpg"} for i in (3, 1, 2)]
    said = [(1, "A cat. "), (3, "一只狗"), (1, "The same cat.")]
    told = [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate(said)]
    held = {"info": {}, "images": images, "annotations": told}
    write(folder / f"annotations/captions_{part}.json", held)
    (folder / part).mkdir()
    for image in images[:2]:
        (folder / part / image["file_name"]).write_bytes(jpg())


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_captions(folder, year):
    write_coco(folder, f"train{year}")
    write_coco(folder, f"val{year}")
    loaded = benchmarks.coco_captions(folder)
    assert list(loaded) == ["train", "validation"]
    for part in loaded.values():
        assert part.column_names == ["image", "captions"]
        assert part["captions"][:] == [["A cat.", "The same cat."], ["一只狗"]]
        assert part[1]["image"].size == (8, 8)


def test_of_both_years_of_coco_2017_is_read(folder):
    write_coco(folder, "train2014")
    write_coco(folder, "val2017")
    assert list(benchmarks.coco_captions(folder)) == ["validation"]


def test_coco_captions_says_what_is_missing(folder):
    with pytest.raises(FileNotFoundError, match=r"captions_train2017.json .* unpack"):
        benchmarks.coco_captions(folder)
    write_coco(folder, "val2017")
    (folder / "val2017/000000000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures, 000000000001.jpg"):
        benchmarks.coco_captions(folder)
    file = folder / "annotations/captions_val2017.json"
    edit(file, lambda held: held["annotations"][0].update(image_id=77))
    with pytest.raises(ValueError, match="image 77, which is none of its 3 images"):
        benchmarks.coco_captions(folder)


# --- CMU-MOSEI --------------------------------------------------------------------


def mosei_held(rows=3, lengths=True):
    """MMSA's dictionary: rows of 6 frames of audio and 4 of vision."""
    rng = np.random.default_rng(0)
    held = {}
    for split in ("train", "valid", "test"):
        held[split] = {
            "raw_text": np.array([f"{split} says {i}" for i in range(rows)]),
            "id": [f"video$_${i}" for i in range(rows)],
            "audio": rng.standard_normal((rows, 6, 5)),
            "vision": rng.standard_normal((rows, 4, 2)).astype(np.float32),
            "regression_labels": list(np.linspace(-3, 3, rows)),
            "annotations": np.array(["Positive"] * rows, dtype=object),
            "text": rng.standard_normal((rows, 2, 3)),
        }
        if lengths:
            held[split]["audio_lengths"] = [6, 2, 0][:rows]
    return held


def dump(folder, held, name="unaligned_50.pkl", protocol=4):
    with (folder / name).open("wb") as out:
        pickle.dump(held, out, protocol=protocol)
    return folder / name


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_mosei(folder, fresh_cache, protocol):
    held = mosei_held()
    held["train"]["audio"][0, 1] = [np.nan, np.inf, -np.inf, 1, 2]
    dump(folder, held, protocol=protocol)
    loaded = benchmarks.mosei(folder)
    assert list(loaded) == ["train", "validation", "test"]
    train, validation = loaded["train"], loaded["validation"]
    assert validation["text"][:] == ["valid says 0", "valid says 1", "valid says 2"]
    assert train["id"][:] == held["train"]["id"]
    assert train["score"][:].tolist() == [-3, 0, 3]
    assert [tuple(a.shape) for a in train["audio"]] == [(6, 5), (2, 5), (1, 5)]
    assert [tuple(v.shape) for v in train["vision"]] == [(4, 2)] * 3
    assert train[0]["audio"].dtype == torch.float32
    assert train[0]["audio"][1].tolist() == [0, 0, 0, 1, 2]
    right = held["valid"]["audio"][1, :2].astype(np.float32)
    np.testing.assert_array_equal(validation[1]["audio"], right)
    np.testing.assert_array_equal(validation[2]["vision"], held["valid"]["vision"][2])


def test_mosei_is_read_once_and_again_when_the_file_changes(
    folder, fresh_cache, monkeypatch
):
    dump(folder, mosei_held())
    benchmarks.mosei(folder)
    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "_unpickled", None)
        assert len(benchmarks.mosei(folder)["train"]) == 3
    dump(folder, mosei_held(2, lengths=False))
    assert len(benchmarks.mosei(folder)["train"]) == 2


def test_mosei_aligned_has_no_lengths_and_a_file_may_have_any_name(folder, fresh_cache):
    dump(folder, mosei_held(lengths=False), "aligned_50.pkl")
    assert benchmarks.mosei(folder)["test"][2]["audio"].shape == (6, 5)
    file = dump(folder, mosei_held(1), "mine.pkl")
    assert len(benchmarks.mosei(str(file))["train"]) == 1


class Call:
    """A pickle that calls something when it is loaded."""

    def __init__(self, function, *given):
        self.how = (function, given)

    def __reduce__(self):
        return self.how


def bad_pickles(marker):
    code = f"open({str(marker)!r}, 'w').close()"
    yield "builtins.exec", Call(exec, code)
    yield "builtins.getattr", Call(getattr, "a", "upper")
    yield "builtins.eval", {"train": {"id": [Call(eval, "1")]}}
    yield "numpy.fromfile", Call(np.fromfile, str(marker))
    yield "torch", {"train": {"audio": torch.zeros(1)}}
    array = np.array([Call(exec, code)], dtype=object)
    yield "builtins.exec", {"train": {"audio": array}}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mosei_lets_no_pickle_run_code(folder, fresh_cache, protocol):
    marker = folder / "ran"
    for name, bad in bad_pickles(marker):
        dump(folder, bad, protocol=protocol)
        name = name.replace("builtins", "(builtins|__builtin__)")
        with pytest.raises(ValueError, match=f"asks for .*{name}.*a source you trust"):
            benchmarks.mosei(folder)
    assert not marker.exists()
    assert list(fresh_cache.glob("mosei*/")) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("numpy.os", "system"), ("numpy.x", "ndarray.tofile")],
)
def test_mosei_lets_no_name_lead_elsewhere(folder, fresh_cache, module, name):
    """Written by hand: what a pickler would never write."""
    code = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)
    )
    (folder / "unaligned_50.pkl").write_bytes(code + b"\x93\x8c\x02ls\x85R.")
    with pytest.raises(ValueError, match=f"it asks for {module}.{name}"):
        benchmarks.mosei(folder)


MOSEI_FAULTS = {
    r"'valid' has .*'audio': \(0,\)": lambda held: held["valid"].pop("audio"),
    r"'test' has .*'id': \(0,\)": lambda held: held.pop("test"),
    r"'train' has .*'id': \(2,\)": lambda held: held["train"]["id"].pop(),
    "'train' has .*scores up to 4:": lambda held: held["train"].update(
        regression_labels=[0, 0, -4]
    ),
    "'train' has .*scores up to nan:": lambda held: held["train"].update(
        regression_labels=[0, 0, np.nan]
    ),
    r"'train' has .*'vision': \(3, 2\).*\(rows, frames, width\)": lambda held: held[
        "train"
    ].update(vision=np.zeros((3, 2))),
}


@pytest.mark.parametrize("message", MOSEI_FAULTS)
def test_mosei_says_what_does_not_fit(folder, fresh_cache, message):
    held = mosei_held()
    MOSEI_FAULTS[message](held)
    dump(folder, held)
    with pytest.raises(ValueError, match=f"unaligned_50.pkl: {message}"):
        benchmarks.mosei(folder)


def test_mosei_that_is_missing_or_cut_short(folder, fresh_cache):
    with pytest.raises(FileNotFoundError, match=r"none of .*unaligned_50.*download"):
        benchmarks.mosei(folder)
    file = dump(folder, mosei_held())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"unaligned_50.pkl is cut short"):
        benchmarks.mosei(folder)
    dump(folder, [1, 2])
    with pytest.raises(ValueError, match=r"unaligned_50.pkl is cut short, or"):
        benchmarks.mosei(folder)
