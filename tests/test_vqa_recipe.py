"""``mmcourse train vqa`` leaves a model that loads and answers as it was measured."""

import json

import pytest
import torch

from mmcourse import datasets, vqa_recipe
from mmcourse.device import DeviceError
from mmcourse.recipes import RecipeError
from mmcourse.tasks import vqa
from mmcourse.vqa_recipe import VqaRecipe, load, train_vqa

SMALL = VqaRecipe(scenes=90, epochs=2, batch=16, dim=16, depth=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vqa") / "out"
    return folder, train_vqa(SMALL, folder)


def test_it_leaves_a_model_that_answers_as_was_measured(trained):
    folder, found = trained
    model, tokenizer, answers = load(folder)
    assert not model.training and len(answers) > 10
    part = datasets.shape_scenes(SMALL.scenes, SMALL.seed, vqa_recipe.SIZE)["held_out"]
    rows = vqa.questions(list(part["questions"]), tokenizer, answers)
    rows["image"] = vqa_recipe.pixels(part["image"])
    share = vqa_recipe.right(model, rows).float().mean().item()
    assert share == pytest.approx(found["unseen pairs"])


def test_card_and_metrics_hold_both_splits_the_blind_share_and_each_kind(trained):
    folder, found = trained
    assert json.loads((folder / "metrics.json").read_text("utf-8")) == found
    card = (folder / "README.md").read_text("utf-8")
    for split in ("unseen scenes", "unseen pairs"):
        for name in (split, f"{split}, blind", f"{split}, count"):
            assert f"| {name} | {found[name]:.3f} |" in card
    assert "scenes: 90" in card


def test_it_learns_and_a_second_call_finds_all_done(trained):
    folder, found = trained
    assert found["unseen scenes"] > 0.2  # of sixteen answers
    before = (folder / "model.safetensors").read_bytes()
    assert train_vqa(SMALL, folder) == found
    assert (folder / "model.safetensors").read_bytes() == before


def test_training_has_the_habit_added_and_tests_have_not(tmp_path, monkeypatch):
    seen = {}

    def fit(model, loss, loader, *rest):
        seen["train"] = set(next(iter(loader)))

    def predict(model, rows):
        seen["test"] = set(rows)
        return torch.zeros_like(rows["label"])

    monkeypatch.setattr(vqa_recipe, "fit", fit)
    monkeypatch.setattr(vqa, "predict", predict)
    train_vqa(SMALL, tmp_path / "out")
    assert seen["train"] - seen["test"] == {"habit"}


def test_blind_counts_what_a_question_is_mostly_answered():
    def row(*pairs):
        return [{"question": q, "answer": a} for q, a in pairs]

    train = [row(("a", "yes"), ("a", "no")), row(("a", "no"), ("b", "red"))]
    asked = [row(("a", "no"), ("b", "red")), row(("b", "blue"), ("c", "no"))]
    assert vqa_recipe.blind(train, asked) == 0.75  # an unknown one: no, of all


def test_pixels_are_channels_first_in_0_to_1():
    image = datasets.shape_scenes(90, 0, 32)["test"][0]["image"]
    x = vqa_recipe.pixels([image])
    assert x.shape == (1, 3, 32, 32) and x.min() >= 0 and x.max() == 1
    assert x[0, :, 3, 5].mul(255).round().int().tolist() == [
        *image.convert("RGB").getpixel((5, 3))
    ]


@pytest.mark.parametrize(
    ("changes", "says"), [({"scenes": 3}, "scenes=3"), ({"epochs": 0}, "epochs=0")]
)
def test_recipes_of_no_sense_are_refused(changes, says):
    with pytest.raises(RecipeError, match=says):
        VqaRecipe(**changes)


def test_other_devices_folders_and_recipes_are_refused(trained, tmp_path):
    with pytest.raises(DeviceError, match="tpu"):
        train_vqa(SMALL, tmp_path / "out", "tpu")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="another recipe's run"):
        train_vqa(VqaRecipe(scenes=120), trained[0])
    with pytest.raises(
        RecipeError, match=r"holds no trained model.*mmcourse train vqa"
    ):
        load(tmp_path)


def test_the_same_recipe_makes_the_same_model():
    one, two = (vqa_recipe.made(SMALL, 30, 5).state_dict() for _ in range(2))
    assert all(torch.equal(x, two[name]) for name, x in one.items())
