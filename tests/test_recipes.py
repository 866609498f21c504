"""``mmcourse train clip``: folders, streams, kills, processes, what it leaves."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import load_file
from transformers import AutoModel

from mmcourse import emojis, recipes
from mmcourse.device import DeviceError
from mmcourse.dual_encoder import DualEncoder, DualEncoderConfig
from mmcourse.features import FeaturesConfig
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
    assert len(pairs["zh"]) == len(pairs["en"])


def test_many_languages_are_learnt_but_chinese_is_a_test():
    pairs = recipes.pairs_of(ClipRecipe(text="use", size=32))
    named = [emojis.table()[symbol]["names"] for symbol in emojis.table()]
    languages = {row[k]: k for row in named for k in emojis.LANGUAGES}
    learnt = [languages.get(pair.texts[-1]) for pair in pairs["train"]]
    assert set(learnt) >= set(emojis.LANGUAGES) - {"en", "zh"}
    assert "zh" not in learnt and languages[pairs["zh"][0].texts[0]] == "zh"


def test_one_hand_alone_is_cut_to_its_content_and_restyled():
    one = ClipRecipe(hands="openmoji", size=32)
    pairs = recipes.pairs_of(one)
    looks = pairs["train"][0].pictures
    assert len(looks) == 3 and {p.size for p in looks} == {(32, 32)}
    assert len({p.convert("RGB").tobytes() for p in looks}) == 3
    unseen = [row.pictures[0] for hand in recipes.HANDS for row in pairs[hand]]
    for picture in [*looks, *unseen[::20]]:
        x0, y0, x1, y1 = ImageOps.invert(picture.convert("L")).getbbox()
        assert max(x1 - x0, y1 - y0) >= 28
    assert one.strange == {"twemoji"} and ClipRecipe().strange == set()
    assert "how twemoji draws" in recipes.card(one, {})
    assert "draws. Such" not in recipes.card(ClipRecipe(), {})


def test_a_card_says_how_wide_the_space_is():
    assert "dim: 896\n" in recipes.card(ClipRecipe(), {})  # MiniLM's and USE's texts
    assert "dim: 16\n" in recipes.card(ClipRecipe(**SCRATCH), {})
    assert ClipRecipe("a folder", hands="openmoji").strange == set()


def test_a_strange_hand_is_standardised_by_its_own_mean_and_deviation():
    torch.manual_seed(0)
    towers = {"image": FeaturesConfig("vit-s14"), "text": FeaturesConfig("use")}
    model = DualEncoder.made(DualEncoderConfig(16, **towers))
    seen = {
        "train.image": torch.randn(30, 1, 768),
        "train.tokens": torch.randn(30, 1, 512),
    }
    tensors = seen | {k.replace("train", "other"): v for k, v in seen.items()}
    drawn_alike = recipes.recalls(model, tensors, strange={"other"})
    gain, shift = 5 * torch.rand(2, 768)
    tensors["other.image"] = gain * tensors["other.image"] + shift
    again = recipes.recalls(model, tensors, strange={"other"})
    assert again == pytest.approx(drawn_alike, abs=1 / 30)
    assert recipes.recalls(model, tensors) != pytest.approx(drawn_alike, abs=1 / 30)
    assert model.image.mean.abs().max() == 0  # the model itself stays as it was


def test_unseen_things_are_shown_by_each_hand_and_by_both(tmp_path):
    scratch = ClipRecipe(image="scratch", text="scratch", size=32)
    tensors = recipes.encoded(scratch, tmp_path)
    one, other, both = (tensors[f"{k}.image"] for k in ("openmoji", "twemoji", "both"))
    assert len(both) >= 250 and not torch.equal(one, other)
    assert torch.equal(both[:, :1], one) and torch.equal(both[:, 1:], other)
    assert torch.equal(tensors["both.mask"][:, :1], tensors["openmoji.mask"])


def test_before_training_a_picture_is_what_the_words_for_it_are(tmp_path):
    frozen = ClipRecipe(image="efficientnet-128", text="use")
    image, tokens = torch.randn(9, 2, 1792 + 512), torch.randn(9, 3, 512)
    tensors = {"train.image": image, "train.tokens": tokens}
    model = recipes.made(frozen, tensors, tmp_path).eval()
    words, texts = image[..., 1792:].flatten(0, 1), tokens.flatten(0, 1)
    word = (image[:, 0, 1792:] - words.mean(dim=0)) / words.std(dim=0)
    text = (tokens[:, 1] - texts.mean(dim=0)) / texts.std(dim=0)
    for found, expected in (
        (model.encode_image(image[:, 0]), word),
        (model.encode_text(tokens[:, 1]), text),
    ):
        torch.testing.assert_close(found, F.normalize(expected, dim=1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hands": "noto"}, "noto"),
        ({"image": "scratch"}, "both or none"),
        ({"rows": 3}, "rows=3"),
        ({"epochs": 0}, "epochs=0"),
        ({"text": "bert"}, "no frozen encoder"),
        ({"text": "vit-s14"}, "words-vit-s14"),
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
