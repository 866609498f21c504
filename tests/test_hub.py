"""Models saved and loaded by AutoModel: the same outputs, or a clear error."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel

from mmcourse.dual_encoder import DualEncoder, DualEncoderConfig
from mmcourse.encoders import TextEncoderConfig
from mmcourse.features import FeaturesConfig
from mmcourse.hub import DualEncoderModel, MultimodalModel, dataclass_from
from mmcourse.multimodal import MultimodalConfig, MultimodalTransformer
from mmcourse.signals import AudioEncoderConfig, VideoEncoderConfig
from mmcourse.vit import ViTConfig

SMALL = {"dim": 16, "depth": 1, "heads": 2}
CONFIG = MultimodalConfig(
    text=TextEncoderConfig(20, 6, positions="sinusoidal", **SMALL),
    image=ViTConfig(16, 8, positions="sinusoidal", **SMALL),
    audio=AudioEncoderConfig(5000, **SMALL),
    video=VideoEncoderConfig(4, 16, **SMALL),
    classes=5,
    vocab=11,
    modality_dropout=0.25,
    **SMALL,
)


def build(**changes):
    torch.manual_seed(0)
    return MultimodalTransformer(replace(CONFIG, **changes)).eval()


def batch_of(rows=3):
    torch.manual_seed(1)
    return {
        "tokens": torch.randint(0, 20, (rows, 6)),
        "mask": torch.arange(6) < torch.randint(2, 7, (rows, 1)),
        "image": torch.rand(rows, 3, 16, 16),
        "audio": 0.1 * torch.randn(rows, 5000),
        "video": torch.rand(rows, 4, 3, 16, 16),
        "present": torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]]).bool(),
    }


def outputs(model):
    """What it answers, and what it writes."""
    batch = batch_of()
    prompt = torch.zeros(3, 1, dtype=torch.long)
    return {"logits": model(batch), "text": model.generate(batch, prompt, 5)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    MultimodalModel.of(build()).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def same(model, expected=None):
    """Whether a loaded model's outputs are bit by bit those of the one saved."""
    expected = outputs(build()) if expected is None else expected
    found = outputs(model.model)
    return all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_folder_holds_weights_and_settings_and_no_code(saved):
    assert {f.name for f in saved.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "mmcourse-multimodal"
    assert "auto_map" not in config  # that is where remote code would be named
    assert config["settings"] == json.loads(json.dumps(asdict(CONFIG)))


def test_it_comes_back_as_it_was(saved):
    loaded = AutoModel.from_pretrained(saved)
    assert type(loaded) is MultimodalModel and not loaded.training
    assert loaded.model.config == CONFIG
    assert same(loaded)
    assert torch.equal(loaded(batch_of()), loaded.model(batch_of()))
    assert AutoConfig.from_pretrained(saved).settings == asdict(CONFIG)


def test_it_comes_back_in_a_new_process(saved, tmp_path):
    torch.save([batch_of(), outputs(build())], tmp_path / "expected.pt")
    script = """
import sys
import torch
import mmcourse.hub
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1]).model
batch, expected = torch.load(sys.argv[2])
prompt = torch.zeros(3, 1, dtype=torch.long)
assert torch.equal(model(batch), expected["logits"])
assert torch.equal(model.generate(batch, prompt, 5), expected["text"])
print("the same")
"""
    arguments = [saved, tmp_path / "expected.pt"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "the same", done.stderr[-2000:]


def test_a_folder_laid_out_as_the_hubs_cache_is_found_offline(saved, tmp_path):
    """conftest.py sets HF_HUB_OFFLINE: nothing is asked of any server."""
    root, commit = tmp_path / "models--course--digits", "0" * 40
    shutil.copytree(saved, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    assert same(AutoModel.from_pretrained("course/digits", cache_dir=tmp_path))


def test_the_face_shares_the_weights_of_the_model():
    model = build()
    face = MultimodalModel.of(model)
    assert face.model is model and same(face)
    with pytest.raises(ValueError, match="holds a MultimodalTransformer, not a Linear"):
        MultimodalModel.of(nn.Linear(2, 2))


def test_the_words_read_and_written_are_one_matrix(saved):
    """Saved once, and still one tensor after loading: a step moves both."""
    names = load_file(saved / "model.safetensors").keys()
    tied = ["model.decoder.embed.token.weight", "model.decoder.head.weight"]
    assert sum(name in names for name in tied) == 1
    model = AutoModel.from_pretrained(saved).model
    assert model.decoder.head.weight is model.decoder.embed.token.weight


@pytest.mark.parametrize("changes", [{"vocab": 0}, {"video": None, "audio": None}])
def test_models_without_words_or_with_fewer_senses(changes, tmp_path):
    model = build(**changes)
    batch = batch_of()
    batch["present"] = batch["present"][:, : len(model.modalities)]
    MultimodalModel.of(model).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(batch), model(batch))


def test_trained_weights_are_those_that_are_saved(tmp_path):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(batch_of()).sum().backward()
    optimizer.step()
    MultimodalModel.of(model).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert same(loaded, outputs(model)) and not same(loaded)


def test_it_comes_in_bfloat16(saved):
    loaded = AutoModel.from_pretrained(saved, dtype=torch.bfloat16)
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert {t.dtype for t in tensors} == {torch.bfloat16}
    batch = batch_of()
    halved = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.items()}
    assert torch.allclose(loaded(halved).float(), build()(batch), atol=0.1)


# --- what is broken ---------------------------------------------------------------


def changed(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["settings"] |= changes
    path.write_text(json.dumps(config))


def test_missing_files_are_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(copy)
    (copy / "config.json").unlink()
    with pytest.raises((OSError, ValueError), match=r"config\.json|model_type"):
        AutoModel.from_pretrained(copy)


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_file_that_was_cut_off_is_refused(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"can't be read .*save or get them again"):
        AutoModel.from_pretrained(copy)


def test_weights_that_lack_a_tensor_are_refused(copy):
    """Transformers would fill it with random numbers and warn."""
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("model.head.weight")
    save_file(tensors | {"model.more": torch.ones(1)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys.*model\.head\.weight") as error:
        AutoModel.from_pretrained(copy)
    assert "model.more" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"depth": 3}, r"missing_keys.*decoder\.blocks\.1"),
        ({"colour": "red"}, "MultimodalConfig has no colour: the model was saved by"),
        ({"heads": 5}, "dim=16 is not divisible by heads=5"),
        ({"audio": None}, "unexpected_keys"),
    ],
)
def test_settings_that_do_not_fit_are_refused(copy, changes, says):
    changed(copy, **changes)
    with pytest.raises(ValueError, match=says):
        AutoModel.from_pretrained(copy)


def test_weights_of_another_shape_are_refused(copy):
    changed(copy, classes=6)
    with pytest.raises((ValueError, RuntimeError), match="mismatch"):
        AutoModel.from_pretrained(copy)


def test_settings_come_back_as_the_dataclass_they_were():
    again = dataclass_from(MultimodalConfig, json.loads(json.dumps(asdict(CONFIG))))
    assert again == CONFIG and isinstance(again.image, ViTConfig)
    with pytest.raises(ValueError, match="ViTConfig has no colours"):
        dataclass_from(MultimodalConfig, {"image": {"colours": 3}})


def test_no_bar_is_shown_and_the_setting_is_left_as_it_was(saved, capfd, monkeypatch):
    from transformers.utils import logging

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(logging, "_tqdm_active", True)
    before = logging.set_tqdm_hook(None)
    AutoModel.from_pretrained(saved)
    assert "it/s" not in capfd.readouterr().err
    assert logging.set_tqdm_hook(before) is None


@pytest.mark.parametrize("towers", ["own", "features"])
def test_a_dual_encoder_comes_back_as_it_was(towers, tmp_path):
    configs = {
        "own": (
            ViTConfig(16, 8, dim=16, depth=1, heads=2),
            TextEncoderConfig(20, 8, 12, 1, 2),
        ),
        "features": (FeaturesConfig("efficientnet-128"), FeaturesConfig("minilm+use")),
    }
    image, text = configs[towers]
    model = DualEncoder.made(DualEncoderConfig(8, "siglip", image, text)).eval()
    DualEncoderModel.of(model).save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval().model
    assert again.config == model.config
    theirs = again.state_dict()
    assert all(torch.equal(theirs[k], v) for k, v in model.state_dict().items())
