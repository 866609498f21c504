"""``mmcourse train clip``: pairs of pictures and texts to a saved dual encoder.

Pairs come from OpenMoji and Twemoji, from a folder of pictures with captions, or from a
streamed set of the Hub; they are encoded once into ``pairs.safetensors``, and ``fit``
learns from those. A run that was killed goes on from where it was.
"""

import copy
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcourse import assets, datasets, emojis
from mmcourse.device import pick_device
from mmcourse.dual_encoder import DualEncoder, DualEncoderConfig
from mmcourse.encoders import TextEncoderConfig
from mmcourse.features import Features, FeaturesConfig
from mmcourse.hub import DualEncoderModel
from mmcourse.metrics import recall_at_k
from mmcourse.tasks.retrieval import popularity
from mmcourse.tokenizers import BytePairTokenizer, pad
from mmcourse.training import History, TrainConfig, batches, evaluating, fit
from mmcourse.vit import ViTConfig

SHARD = 512  # pairs whose features are computed, and kept, at a time
HANDS = {"openmoji": datasets.openmoji, "twemoji": datasets.twemoji}


class RecipeError(ValueError):
    """What the command can't do, with the mend."""


@dataclass(frozen=True)
class ClipRecipe:
    """What is learnt from, by what, and how.

    ``image`` and ``text`` name frozen encoders whose features are projected, or are
    "scratch" for a ViT and a text encoder that learn from pixels and tokens, to a space
    of ``dim``. Of a stream the first ``rows`` pairs are taken. ``hands`` are the emoji
    sets to learn from, joined by a plus. One hand alone must serve for another that it
    never saw: its pictures are cut to their content and restyled.
    """

    data: str = "openmoji"
    hands: str = "openmoji+twemoji"
    image: str = "efficientnet-160+efficientnet-224+vit-s14"
    text: str = "minilm+use"
    loss: str = "clip"
    dim: int = 512
    epochs: int = 30
    batch: int = 256
    lr: float = 1e-3
    size: int = 224
    rows: int = 20_000
    seed: int = 0

    def __post_init__(self):
        """Refuse a recipe that mixes what doesn't go together."""
        if unknown := sorted(set(self.hands.split("+")) - set(HANDS)):
            raise RecipeError(f"hands {unknown}: choose from {[*HANDS]}")
        if (self.image == "scratch") != (self.text == "scratch"):
            raise RecipeError(
                f"image={self.image!r}, text={self.text!r}: both or none from scratch"
            )
        if self.rows < 20 or self.batch < 2:
            raise RecipeError(
                f"rows={self.rows}, batch={self.batch}: at least 20 pairs and 2 at a "
                "time are needed, for there must be something to tell apart"
            )
        try:
            TrainConfig(epochs=self.epochs, lr=self.lr)
            towers = {} if self.image == "scratch" else self.frozen
            DualEncoderConfig(self.dim, self.loss, **towers)
        except ValueError as error:
            raise RecipeError(str(error)) from error

    @property
    def frozen(self) -> dict[str, FeaturesConfig]:
        """The features of both frozen towers; a picture's end with words for it."""
        words = "".join(f"+words-{name}" for name in self.text.split("+"))
        frozen = {"image": self.image + words, "text": self.text}
        return {tower: FeaturesConfig(names) for tower, names in frozen.items()}

    @property
    def strange(self) -> set[str]:
        """The emoji sets that are tested on, but not learnt from."""
        hands = HANDS if self.data == "openmoji" else ()
        return set(hands) - set(self.hands.split("+"))


class Pair(NamedTuple):
    """A thing: its pictures, any of which goes with any of its texts."""

    pictures: list[Image.Image]
    texts: list[str]


Pairs = dict[str, list[Pair]]  # "train", and sets to test on


# --- where pairs come from --------------------------------------------------------


def pairs_of(recipe: ClipRecipe) -> Pairs:
    """Read the pairs, those to learn from and those to test on."""
    return _emoji(recipe) if recipe.data == "openmoji" else _captioned(recipe)


def _emoji(recipe: ClipRecipe) -> Pairs:
    """Things drawn by both hands; those of the test split are never learnt from."""
    size = 3 * recipe.size // 2 if recipe.strange else recipe.size
    sets = {name: load(size) for name, load in HANDS.items()}
    kept = {
        name: {split: datasets.things(part) for split, part in parts.items()}
        for name, parts in sets.items()
    }
    hands = recipe.hands.split("+")
    unseen = kept["openmoji"]["test"]
    secret = set(unseen["name"])
    draw = random.Random(recipe.seed)
    train = []
    for split in ("train", "validation"):
        for rows in zip(*(kept[hand][split] for hand in hands), strict=True):
            texts = [_described(rows[0], secret), _described(rows[0], secret, draw)]
            texts += [_described(rows[0], secret, draw), rows[0]["name"]]
            if recipe.text == "use":  # of many languages; Chinese is left for a test
                names = rows[0]["names"] | {"en": None, "zh": None}
                texts.append(draw.choice([n for n in names.values() if n]))
            looks = [_shown(recipe, row["image"]) for row in rows]
            if recipe.hands == "openmoji":
                looks += _restyled(recipe, rows[0]["emoji"])
            train.append(Pair(looks, texts))
    tests: Pairs = {"train": train}
    for hand, parts in kept.items():
        tests[hand] = [
            Pair([_shown(recipe, r["image"])], [_described(r)]) for r in parts["test"]
        ]
    if recipe.text == "use":
        for language in ("en", "zh"):
            tests[language] = [
                Pair([r["image"]], [r["names"][language]]) for r in unseen
            ]
    return tests


def _shown(recipe: ClipRecipe, image: Image.Image) -> Image.Image:
    """Cut a picture to its content where one hand is to serve for another."""
    if not recipe.strange:
        return image
    size = (recipe.size, recipe.size)
    return emojis.cropped(image).resize(size, Image.Resampling.BICUBIC)


def _restyled(recipe: ClipRecipe, emoji: str) -> list[Image.Image]:
    """Draw OpenMoji's picture as others might, with thin outlines and with none."""
    path = emojis.drawing(emoji, assets.path("openmoji"), "{:04X}")
    drawn = [emojis.render(path, 3 * recipe.size // 2, width) for width in (0.35, 0)]
    return [_shown(recipe, Image.open(io.BytesIO(png))) for png in drawn]


def _described(row: dict, secret: set[str] = frozenset(), draw=None) -> str:
    """Join a name and keywords: the first eight, or a few drawn ones."""
    words = [word for word in row["keywords"] if word not in secret]
    if draw is not None and len(words) > 0:
        words = draw.sample(words, draw.randint(1, min(8, len(words))))
    return f"{row['name']}: {', '.join(words[:8])}" if words else row["name"]


def _captioned(recipe: ClipRecipe) -> Pairs:
    """Stream pictures with captions; a tenth, at most 1,000, is kept to test."""
    found: Pairs = {"train": [], "unseen": []}
    rows = islice(datasets.stream_captions(recipe.data), recipe.rows)
    for i, row in enumerate(rows):
        part = "unseen" if i % 10 == 9 and len(found["unseen"]) < 1000 else "train"
        texts = row["captions"][:1] if part == "unseen" else row["captions"]
        picture = row["image"].convert("RGB").resize((224, 224))
        found[part].append(Pair([picture], texts))
    if len(found["train"]) < 18:
        raise RecipeError(
            f"{recipe.data!r} holds {i + 1} pairs: at least 20 are needed"
        )
    return found


# --- pairs as tensors, once -------------------------------------------------------


def encoded(recipe: ClipRecipe, folder: Path) -> dict[str, Tensor]:
    """Return what the towers read, per part: image (n, P, ...) and tokens (n, T, ...).

    From ``pairs.safetensors`` where it is there already. Frozen encoders keep what they
    have seen shard by shard, so little is lost when this is killed.
    """
    path = folder / "pairs.safetensors"
    if path.exists():
        return load_file(path)
    pairs = pairs_of(recipe)
    texts = [text for pair in pairs["train"] for text in pair.texts]
    tokenizer = None
    if recipe.text == "scratch":
        tokenizer = BytePairTokenizer.train(texts, 2000)
        tokenizer.save(folder / "tokenizer.json")
    tensors = {}
    for part, rows in pairs.items():
        shards = [
            _shard(recipe, rows[i : i + SHARD], tokenizer)
            for i in range(0, len(rows), SHARD)
        ]
        for key in shards[0]:
            tensors[f"{part}.{key}"] = _joined([shard[key] for shard in shards])
    if "twemoji" in pairs and not recipe.strange:
        for key in shards[0]:
            hands = [tensors[f"{hand}.{key}"] for hand in HANDS]
            tensors[f"both.{key}"] = torch.cat(hands, dim=1)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, part)
    part.replace(path)
    return tensors


def _shard(recipe: ClipRecipe, rows: Sequence[Pair], tokenizer) -> dict[str, Tensor]:
    pictures = max(len(row.pictures) for row in rows)
    texts = max(len(row.texts) for row in rows)
    images = [p for row in rows for p in _filled(row.pictures, pictures)]
    lines = [t for row in rows for t in _filled(row.texts, texts)]
    if tokenizer is None:
        image = Features(recipe.frozen["image"]).embed(images)
        found = {"tokens": Features(recipe.frozen["text"]).embed(lines)}
    else:
        sized = [p.resize((recipe.size, recipe.size)) for p in images]
        image = datasets.collate([{"image": p} for p in sized])["image"]
        image = (255 * image).round().to(torch.uint8)
        tokens, mask = pad([tokenizer.encode(t, ends=True)[:LENGTH] for t in lines])
        found = {"tokens": tokens, "mask": mask}
    found["image"] = image.unflatten(0, (-1, pictures))
    return {
        k: v if k == "image" else v.unflatten(0, (-1, texts)) for k, v in found.items()
    }


LENGTH = 32


def _filled(items: list, n: int) -> list:
    return [items[i % len(items)] for i in range(n)]


def _joined(shards: list[Tensor]) -> Tensor:
    """Join shards whose rows have different numbers of texts or tokens."""
    shape = [max(sizes) for sizes in zip(*(s.shape[1:] for s in shards), strict=True)]
    whole = shards[0].new_zeros(sum(map(len, shards)), *shape)
    start = 0
    for shard in shards:
        for text in range(whole.shape[1]):  # a row of few texts repeats them
            own = shard[:, text % shard.shape[1]]
            place = (slice(start, start + len(shard)), text, *map(slice, own.shape[1:]))
            whole[place] = own
        start += len(shard)
    return whole


# --- training ---------------------------------------------------------------------


def contrast(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Draw one picture and one text of each thing, and contrast the pairs."""
    rows = torch.arange(len(batch["image"]), device=batch["image"].device)
    pairs = {}
    for keys in (("image",), ("tokens", "mask")):
        n = batch[keys[0]].shape[1]
        drawn = torch.randint(n, (len(rows),), device=rows.device)
        pairs |= {k: batch[k][rows, drawn] for k in keys if k in batch}
    dual = getattr(model, "module", model)
    return dual.loss(*model(pairs | {"image": _floats(pairs["image"])}))


def _floats(image: Tensor) -> Tensor:
    return image / 255 if image.dtype == torch.uint8 else image


def made(recipe: ClipRecipe, tensors: dict[str, Tensor], folder: Path) -> DualEncoder:
    """Make the dual encoder of a recipe, the same whenever it is called."""
    torch.manual_seed(recipe.seed)
    if recipe.image == "scratch":
        vocab = BytePairTokenizer.load(folder / "tokenizer.json").vocab_size
        towers = {
            "image": ViTConfig(recipe.size, 8, dim=192, depth=6, heads=6),
            "text": TextEncoderConfig(vocab, LENGTH, 192, 4, 6),
        }
        return DualEncoder.made(DualEncoderConfig(recipe.dim, recipe.loss, **towers))
    dim = recipe.frozen["text"].dim
    model = DualEncoder.made(DualEncoderConfig(dim, recipe.loss, **recipe.frozen))
    model.image.measure(tensors["train.image"].flatten(0, 1))
    model.text.measure(tensors["train.tokens"].flatten(0, 1))
    # A text begins as what its encoder says, a picture as the words for it: ConSE.
    for projection in model.to_common.values():
        torch.nn.init.zeros_(projection.weight)
        projection.weight.data[:, -dim:].fill_diagonal_(1)
    return model


@torch.no_grad()
def recalls(
    model: DualEncoder, tensors: dict[str, Tensor], strange: Collection[str] = ()
) -> dict[str, float]:
    """Return R@1 and R@10 of finding a thing by its text, of each test part.

    The score of a thing with several pictures is the mean of theirs; then once more
    with hubs held back, as training texts tell them. The features of a ``strange``
    part, drawn by a hand that wasn't learnt, are standardised by their own mean and
    deviation (Li et al., 2016, arXiv 1603.04779).
    """
    found = {}
    parts = {name.split(".")[0] for name in tensors} - {"train"}
    with evaluating(model):
        bank = _first_texts(model, tensors, "train", BANK)
        for part in sorted(parts):
            pictures = _floats(tensors[f"{part}.image"].to(bank.device))
            seer = _adapted(model, pictures) if part in strange else model
            looks = [seer.encode_image(look) for look in pictures.unbind(1)]
            image = torch.stack(looks).mean(dim=0)
            scores = (_first_texts(model, tensors, part) @ image.T).cpu()
            hubs = popularity(image, bank, min(10, len(bank))).cpu()
            for k in (k for k in (1, 10) if k <= len(image)):
                found[f"{part} R@{k}"] = recall_at_k(scores, k)
                found[f"{part} R@{k}, hubs held back"] = recall_at_k(
                    scores - hubs / 2, k
                )
    return found


def _adapted(model: DualEncoder, pictures: Tensor) -> DualEncoder:
    model = copy.deepcopy(model)
    model.image.measure(pictures.flatten(0, 1))
    return model


BANK = 2000  # training texts that tell which pictures are hubs


def _first_texts(
    model: DualEncoder, tensors: dict[str, Tensor], part: str, n: int | None = None
) -> Tensor:
    read = (tensors.get(f"{part}.{key}") for key in ("tokens", "mask"))
    device = model.log_scale.device
    return model.encode_text(*(x[:n, 0].to(device) for x in read if x is not None))


def train(folder: Path, device: str | None = None) -> None:
    """Train the recipe that lies in a folder, from its last checkpoint on.

    Each of several processes does so; the first leaves the model, card and curves.
    """
    recipe = ClipRecipe(**json.loads((folder / "recipe.json").read_text("utf-8")))
    tensors = encoded(recipe, folder)
    rows = {k.split(".")[1]: v for k, v in tensors.items() if k.startswith("train.")}
    size = min(recipe.batch, len(rows["image"]))
    settings = TrainConfig(
        epochs=recipe.epochs,
        lr=recipe.lr,
        seed=recipe.seed,
        device=device,
        folder=folder,
        save_every=20,
    )
    model = made(recipe, tensors, folder)
    strange = () if recipe.image == "scratch" else recipe.strange
    measure = partial(recalls, tensors=tensors, strange=strange)
    history = fit(model, contrast, batches(rows, size), None, settings, measure)
    if os.environ.get("RANK", "0") == "0":
        found = history.epochs[-1]
        DualEncoderModel.of(model.cpu()).save_pretrained(folder)
        (folder / "README.md").write_text(card(recipe, found), encoding="utf-8")
        _plot(history, folder / "curves.png")
        (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")


def train_clip(
    recipe: ClipRecipe, folder: Path, device: str | None = None, processes: int = 1
) -> dict[str, float | int]:
    """Do all that a recipe says and leave a model, its card and curves in a folder."""
    if processes < 1:
        raise RecipeError(f"processes={processes}: at least 1 does the work")
    pick_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    claim(recipe, folder)
    encoded(recipe, folder)
    if processes == 1:
        train(folder, device)
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc-per-node", str(processes), "-m", "mmcourse.recipes"]
        ended = subprocess.run([*start, str(folder), device or ""]).returncode
        if ended != 0:
            raise RecipeError(
                f"one of {processes} processes failed (code {ended}): its message "
                "stands above; run the same again to go on"
            )
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def claim(recipe, folder: Path) -> None:
    """Write a recipe, a dataclass, into its folder; refuse one that has another's."""
    path = folder / "recipe.json"
    settings = json.dumps(asdict(recipe), indent=2)
    if path.exists() and path.read_text("utf-8") != settings:
        raise RecipeError(
            f"{folder} holds another recipe's run: choose another --out, or remove it"
        )
    path.write_text(settings, encoding="utf-8")


def card(recipe: ClipRecipe, found: dict[str, float | int]) -> str:
    """Write the model card: what it is, learnt from what, how good, whose pictures."""
    rows = "\n".join(f"| {k} | {v:.3f} |" for k, v in found.items() if " R@" in k)
    emoji = recipe.data == "openmoji"
    licence = "OpenMoji CC BY-SA 4.0, Twemoji CC BY 4.0" if emoji else "see the data"
    given = asdict(recipe)
    if recipe.image != "scratch":
        given["dim"] = recipe.frozen["text"].dim  # the space is that of the texts
    settings = "\n".join(f"    {k}: {v}" for k, v in given.items())
    strange = f"""
It hasn't learnt how {", ".join(sorted(recipe.strange))} draws. Such pictures are cut to
their content, and `model.image.measure(model.image.embed(pictures))` comes first.
"""
    return f"""---
library_name: mmcourse
tags: [contrastive-learning, image-text-retrieval]
---
# A dual encoder of {recipe.data}

Trained by `mmcourse train clip --data {recipe.data}`. Finds pictures by texts and texts
by pictures. It has seen drawings and short descriptions, nothing else: don't let it
judge photographs of people. Pictures: {licence}.

    import mmcourse.hub
    from transformers import AutoModel
    model = AutoModel.from_pretrained("this folder").model.eval()
{strange if recipe.strange else ""}
| unseen pairs, text to picture | |
| --- | --- |
{rows}

Recipe:

{settings}
"""


def _plot(history: History, path: Path) -> None:
    ax = history.plot()
    other = ax.twinx()
    for name in (k for k in history.epochs[-1] if k.endswith("R@1")):
        points = [(e["step"], e[name]) for e in history.epochs]
        other.plot(*zip(*points, strict=True), "--", label=name)
    other.set(ylabel="R@1 of unseen pairs")
    other.legend(frameon=False)
    ax.figure.savefig(path, dpi=150)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2] or None)
