"""``mmcourse train vqa``: scenes and questions to a saved model that answers.

Questions scale and shift every place of a picture, then places see each other; what a
blind model would say is explained by its habit in training (see ``tasks.vqa``). A run
that was killed goes on from where it was. More of 11_vqa, with more scenes.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcourse import datasets
from mmcourse.device import pick_device
from mmcourse.encoders import ConvEncoder
from mmcourse.metrics import accuracy_by
from mmcourse.recipes import RecipeError, claim
from mmcourse.tasks import vqa
from mmcourse.tasks.vqa import VQA, BagOfWords, Modulated
from mmcourse.tokenizers import WordTokenizer
from mmcourse.training import TrainConfig, batches, fit

SIZE, LEAST = 32, 60  # pixels of a scene; scenes that make four splits worth the name
TESTS = {"test": "unseen scenes", "held_out": "unseen pairs"}


@dataclass(frozen=True)
class VqaRecipe:
    """How many scenes are drawn, how long is learnt, and how large the model is."""

    scenes: int = 20_000
    epochs: int = 4
    batch: int = 32
    lr: float = 2e-3
    dim: int = 64
    depth: int = 2
    seed: int = 0

    def __post_init__(self):
        """Refuse a recipe that can't be trained."""
        if self.scenes < LEAST:
            raise RecipeError(f"scenes={self.scenes}: at least {LEAST} are needed")
        try:
            TrainConfig(epochs=self.epochs, lr=self.lr)
        except ValueError as error:
            raise RecipeError(str(error)) from error


def made(recipe: VqaRecipe, vocab: int, answers: int) -> VQA:
    """Make the model of a recipe, the same whenever it is called."""
    torch.manual_seed(recipe.seed)
    d = recipe.dim
    eye = ConvEncoder(SIZE, (d // 4, d // 2, d), pooled=True)
    head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, answers))
    return VQA(eye, BagOfWords(vocab, d), Modulated(d, depth=recipe.depth), head)


def pixels(images: Sequence) -> Tensor:
    """Return pictures as (n, 3, 32, 32) in [0, 1]."""
    rows = [torch.from_numpy(np.asarray(i.convert("RGB")).copy()) for i in images]
    return torch.stack(rows).movedim(-1, 1) / 255


def blind(train: Sequence, asked: Sequence) -> float:
    """Return how often the answer that train gives a question most often is right."""
    own: dict[str, Counter] = {}
    for row in train:
        for q in row:
            own.setdefault(q["question"], Counter())[q["answer"]] += 1
    every = Counter(q["answer"] for row in train for q in row)
    flat = [q for row in asked for q in row]
    said = [own.get(q["question"], every).most_common(1)[0][0] for q in flat]
    return float(np.mean([a == q["answer"] for a, q in zip(said, flat, strict=True)]))


def right(model: VQA, rows: dict[str, Tensor]) -> Tensor:
    """Say of each question of a split whether it is answered right."""
    there = rows["label"] != vqa.IGNORE
    return (vqa.predict(model, rows) == rows["label"])[there]


def train_vqa(
    recipe: VqaRecipe, folder: Path, device: str | None = None
) -> dict[str, float]:
    """Do what a recipe says; leave a model, its words and its card in a folder."""
    pick_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    claim(recipe, folder)
    data = datasets.shape_scenes(recipe.scenes, recipe.seed, SIZE)
    asked = {split: list(part["questions"]) for split, part in data.items()}
    answers = sorted({q["answer"] for row in asked["train"] for q in row})
    words = [q["question"] for row in asked["train"] for q in row]
    tokenizer = WordTokenizer.train(words)
    rows = {
        split: {"image": pixels(data[split]["image"])}
        | vqa.questions(asked[split], tokenizer, answers)
        for split in ("train", *TESTS)
    }
    train = rows["train"] | {"habit": vqa.habit(asked["train"], answers)}
    model = made(recipe, tokenizer.vocab_size, len(answers))
    settings = TrainConfig(
        epochs=recipe.epochs,
        lr=recipe.lr,
        seed=recipe.seed,
        device=device,
        folder=folder,
        save_every=50,
    )
    fit(model, vqa.loss, batches(train, recipe.batch), None, settings)
    found = {}
    for split, name in TESTS.items():
        there = right(model, rows[split])
        found[name] = there.float().mean().item()
        found[f"{name}, blind"] = blind(asked["train"], asked[split])
        kinds = [q["kind"] for row in asked[split] for q in row]
        by_kind = accuracy_by(there, kinds)
        found |= {f"{name}, {kind}": share for kind, share in by_kind.items()}
    _leave(model.cpu(), tokenizer, answers, recipe, found, folder)
    return found


def _leave(model, tokenizer, answers, recipe, found, folder: Path) -> None:
    save_file(model.state_dict(), folder / "model.safetensors")
    tokenizer.save(folder / "tokenizer.json")
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    (folder / "README.md").write_text(card(recipe, found), encoding="utf-8")


def load(folder: Path) -> tuple[VQA, WordTokenizer, list[str]]:
    """Return a trained model, its tokenizer and its answers; ready for ``vqa``."""
    try:
        recipe = VqaRecipe(**json.loads((folder / "recipe.json").read_text("utf-8")))
        answers = json.loads((folder / "answers.json").read_text("utf-8"))
        tokenizer = WordTokenizer.load(folder / "tokenizer.json")
        weights = load_file(folder / "model.safetensors")
    except OSError as error:
        raise RecipeError(
            f"{folder} holds no trained model ({error}): run `mmcourse train vqa`"
        ) from error
    model = made(recipe, tokenizer.vocab_size, len(answers))
    model.load_state_dict(weights)
    return model.eval(), tokenizer, answers


def card(recipe: VqaRecipe, found: dict[str, float]) -> str:
    """Write the model card: what it is, learnt from what, how good."""
    rows = "\n".join(f"| {name} | {share:.3f} |" for name, share in found.items())
    settings = "\n".join(f"    {k}: {v}" for k, v in asdict(recipe).items())
    return f"""---
library_name: mmcourse
tags: [visual-question-answering]
---
# Answers about drawn scenes

Trained by `mmcourse train vqa` on scenes of shapes and on questions of a grammar, all
drawn and written by the course. It knows nothing else.

    from mmcourse import vqa_recipe
    model, tokenizer, answers = vqa_recipe.load(Path("this folder"))

| answered right | |
| --- | --- |
{rows}

Recipe:

{settings}
"""
