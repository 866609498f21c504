"""``mmcourse train clip``: folders, streams, kills, processes, what it leaves."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import load_file
from transformers import AutoModel

from mmcourse import recipes
from mmcourse.device import DeviceError
from mmcourse.dual_encoder import DualEncoder
from mmcourse.recipes import ClipRecipe, Pair, RecipeError, train_clip

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.usefixtures("leaves_files_open"),
]
COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
SHAPES = ["ellipse", "rectangle"]
SCRATCH = {"image": "scratch", "text": "scratch", "size": 16, "dim": 16}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A folder of 48 pictures with a metadata.csv, as a user has it."""
    folder = tmp_path_factory.mktemp("captioned")
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "caption"])
        for i in range(48):
            colour, shape = COLOURS[i % 6], SHAPES[i // 6 % 2]
            picture = Image.new("RGB", (20, 20), "grey")
            box = (i % 4, i % 3, 12 + i % 5, 12 + i % 4)
            getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
            picture.save(folder / f"{i}.png")
            rows.writerow([f"{i}.png", f"a {colour} {shape}, number {i}"])
    return folder


def recipe(folder, **changes):
    return ClipRecipe(str(folder), **{**SCRATCH, "epochs": 3, "batch": 12, **changes})


def test_a_folder_becomes_a_model_that_automodel_loads(captioned, tmp_path):
    found = train_clip(recipe(captioned), tmp_path / "out")
    assert {"unseen R@1", "step"} <= set(found) and found["step"] == 3 * 4
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "curves.png"} <= left
    model = AutoModel.from_pretrained(tmp_path / "out").model
    assert isinstance(model, DualEncoder)
    tensors = load_file(tmp_path / "out" / "pairs.safetensors")
    again = recipes.recalls(model, tensors)
    assert again == {k: v for k, v in found.items() if " R@" in k}
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"{found['unseen R@1']:.3f}" in card


def test_it_learns_and_frozen_encoders_do_too(captioned, tmp_path):
    frozen = ClipRecipe(
        str(captioned), image="efficientnet-128", text="use", epochs=12, batch=44
    )
    train_clip(frozen, tmp_path)
    history = json.loads(_checkpoint(tmp_path)["history"])["loss"]
    assert history[-1] < history[0] - 1


def _checkpoint(folder):
    from safetensors import safe_open

    with safe_open(folder / "last.safetensors", "pt") as file:
        return file.metadata()


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(captioned, tmp_path):
    long = recipe(captioned, epochs=20)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_clip(long, whole)
    cut.mkdir()
    code = (
        "import sys, pathlib; from mmcourse.recipes import *;"
        f"train_clip({long!r}, pathlib.Path(sys.argv[1]))"
    )
    running = subprocess.Popen([sys.executable, "-c", code, cut])
    deadline = time.monotonic() + 100
    while not (cut / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (cut / "model.safetensors").exists()
    train_clip(long, cut)
    ours, theirs = (load_file(f / "model.safetensors") for f in (cut, whole))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_two_processes_share_the_work(captioned, tmp_path):
    found = train_clip(recipe(captioned, batch=6), tmp_path, processes=2)
    assert found["step"] == 3 * 4  # 44 pairs, 6 in each of two processes
    assert (tmp_path / "model.safetensors").exists()


def test_another_recipe_in_the_same_folder_is_refused(captioned, tmp_path):
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match="another recipe's run"):
        train_clip(recipe(captioned), tmp_path)


def test_rows_with_fewer_texts_repeat_them():
    rows = [
        Pair([Image.new("RGB", (8, 8))], ["one"]),
        Pair([Image.new("RGB", (8, 8))], ["two", "three"]),
    ]
    tokenizer = recipes.BytePairTokenizer.train(["one", "two", "three"], 300)
    shards = [recipes._shard(recipe("x"), rows[i : i + 1], tokenizer) for i in (0, 1)]
    tokens = recipes._joined([s["tokens"] for s in shards])
    mask = recipes._joined([s["mask"] for s in shards])
    read = [
        [tokenizer.decode(t[m].tolist()) for t, m in zip(*row, strict=True)]
        for row in zip(tokens, mask, strict=True)
    ]
    assert read == [["one", "one"], ["two", "three"]]


def test_unseen_emoji_are_in_no_training_text():
    pairs = recipes.pairs_of(ClipRecipe(text="use", size=32))
    names = {p.texts[0] for p in pairs["en"]}
    words = [w for p in pairs["train"] for t in p.texts for w in t.split(": ")[-1:]]
    listed = {w for text in words for w in text.split(", ")}
    assert names.isdisjoint(listed)
    assert len(pairs["zh"]) == len(pairs["en"]) and pairs["zh"][0].texts != ["..."]


def test_one_hand_alone_is_learnt_in_four_styles():
    pairs = recipes.pairs_of(ClipRecipe(hands="openmoji", size=32))
    whole, *others = pairs["train"][0].pictures
    assert len(others) == 3 and {p.size for p in others} == {(32, 32)}
    pixels = [p.convert("RGB").tobytes() for p in (whole, *others)]
    assert len(set(pixels)) == 4
    boxes = [ImageOps.invert(p.convert("L")).getbbox() for p in (whole, others[0])]
    before, after = (max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
    assert before < 30 <= after  # cut to its content
    assert all(len(p.pictures) == 1 for p in pairs["openmoji"] + pairs["twemoji"])


def test_unseen_things_are_shown_by_each_hand_and_by_both(tmp_path):
    scratch = ClipRecipe(image="scratch", text="scratch", size=32)
    tensors = recipes.encoded(scratch, tmp_path)
    one, other, both = (tensors[f"{k}.image"] for k in ("openmoji", "twemoji", "both"))
    assert len(both) >= 250 and not torch.equal(one, other)
    assert torch.equal(both[:, :1], one) and torch.equal(both[:, 1:], other)
    assert torch.equal(tensors["both.mask"][:, :1], tensors["openmoji.mask"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hands": "noto"}, "noto"),
        ({"image": "scratch"}, "both or none"),
        ({"rows": 3}, "rows=3"),
        ({"epochs": 0}, "epochs=0"),
        ({"text": "bert"}, "no frozen encoder"),
        ({"loss": "mse"}, "loss='mse'"),
    ],
)
def test_recipes_of_no_sense_are_refused(changes, says):
    with pytest.raises(RecipeError, match=says):
        ClipRecipe(**changes)


@pytest.mark.parametrize(
    ("how", "says"), [({"processes": 0}, "processes=0"), ({"device": "tpu"}, "tpu")]
)
def test_machines_that_are_not_there_are_refused(captioned, tmp_path, how, says):
    with pytest.raises((RecipeError, DeviceError), match=says):
        train_clip(recipe(captioned), tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_too_few_pairs_are_refused(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,a\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(RecipeError, match="holds 1 pairs"):
        recipes.pairs_of(recipe(tmp_path))


def test_a_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="stream_captions"):
        recipes.pairs_of(recipe(tmp_path / "nowhere"))
