"""The dual encoder: CLIP's numbers both ways, padding, locked towers, the queue."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from mmcourse.dual_encoder import (
    DualEncoder,
    DualEncoderConfig,
    MomentumContrast,
    zero_shot_classifier,
)
from mmcourse.encoders import TextEncoder, TextEncoderConfig
from mmcourse.features import FeaturesConfig
from mmcourse.losses import info_nce, siglip
from mmcourse.vit import ViT, ViTConfig

IMAGE = ViTConfig(image_size=16, patch=8, dim=16, depth=2, heads=2)
TEXT = TextEncoderConfig(vocab=20, length=8, dim=12, depth=1, heads=2)
CONFIG = DualEncoderConfig(8, image=IMAGE, text=TEXT)


@pytest.fixture
def batch():
    make = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 20, (5, 8), generator=make)
    mask = torch.arange(8) < torch.tensor([[8], [3], [5], [1], [7]])
    image = torch.randn(5, 3, 16, 16, generator=make)
    return {"image": image, "tokens": tokens, "mask": mask}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DualEncoder.made(CONFIG).eval()


def clip(act="quick_gelu", **vision):
    """CLIP as transformers builds it, small and with weights that tell rows apart."""
    torch.manual_seed(0)
    stack = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_act": act}
    config = CLIPConfig(
        projection_dim=10,
        vision_config={
            **{"hidden_size": 16, "intermediate_size": 24, "image_size": 24},
            **{"patch_size": 8, **stack, **vision},
        },
        text_config={
            **{"hidden_size": 12, "intermediate_size": 30, "vocab_size": 40},
            **{"max_position_embeddings": 9, "eos_token_id": 3, **stack},
        },
    )
    model = CLIPModel(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.ndim else None
    return model


def clip_inputs():
    make = torch.Generator().manual_seed(2)
    tokens = torch.randint(4, 40, (4, 9), generator=make)
    ends = torch.tensor([8, 2, 5, 1])
    places = torch.arange(9)
    tokens = torch.where(places == ends[:, None], 3, tokens)
    tokens = tokens.masked_fill(places > ends[:, None], 0)
    image = torch.randn(4, 3, 24, 24, generator=make)
    return image, tokens, places <= ends[:, None]


# --- equality ---------------------------------------------------------------------


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_transformers_clip_has_the_same_logits(act):
    theirs = clip(act)
    ours = DualEncoder.from_hf(theirs)
    image, tokens, mask = clip_inputs()
    with torch.no_grad():
        expected = theirs(
            pixel_values=image, input_ids=tokens, attention_mask=mask.long()
        )
        pictures, texts = ours({"image": image, "tokens": tokens, "mask": mask})
    torch.testing.assert_close(pictures, expected.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=1e-5)
    logits = ours.logits(pictures, texts)
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-4, rtol=1e-4)


def test_there_and_back_again_gives_the_same_clip():
    theirs = clip()
    again = DualEncoder.from_hf(theirs).to_hf()
    image, tokens, mask = clip_inputs()
    asked = {"pixel_values": image, "input_ids": tokens, "attention_mask": mask.long()}
    again.config.text_config.eos_token_id = 3
    again.text_model.eos_token_id = 3
    with torch.no_grad():
        torch.testing.assert_close(
            again(**asked).logits_per_image, theirs(**asked).logits_per_image
        )


def test_the_loss_equals_transformers_clip():
    theirs = clip()
    ours = DualEncoder.from_hf(theirs)
    image, tokens, mask = clip_inputs()
    expected = theirs(
        pixel_values=image,
        input_ids=tokens,
        attention_mask=mask.long(),
        return_loss=True,
    ).loss
    loss = ours.loss(*ours({"image": image, "tokens": tokens, "mask": mask}))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "feature"),
    [
        (lambda: clip("relu"), "hidden_act='relu'"),
        (lambda: torch.nn.Linear(2, 2), "the class Linear"),
    ],
)
def test_what_is_no_clip_of_ours_is_refused_by_name(make, feature):
    with pytest.raises(ValueError, match=feature):
        DualEncoder.from_hf(make())


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({}, "no norm before"),
        ({"loss": "siglip"}, "bias"),
        ({"text": FeaturesConfig("minilm")}, "ViT and Features as encoders"),
    ],
)
def test_what_is_no_clip_of_theirs_is_refused_by_name(changes, feature):
    config = DualEncoderConfig(**{"dim": 8, "image": IMAGE, "text": TEXT} | changes)
    with pytest.raises(ValueError, match=feature):
        DualEncoder.made(config).to_hf()


# --- properties -------------------------------------------------------------------


def test_embeddings_have_length_one_and_logits_are_scaled_cosines(model, batch):
    image, text = model(batch)
    for x in (image, text):
        assert x.shape == (5, 8)
        torch.testing.assert_close(x.norm(dim=1), torch.ones(5))
    expected = F.cosine_similarity(image[:, None], text[None], dim=-1) / 0.07
    torch.testing.assert_close(
        model.logits(image, text), expected, atol=1e-4, rtol=1e-4
    )


def test_padding_and_other_rows_have_no_say(model, batch):
    image, text = model(batch)
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 7)}
    torch.testing.assert_close(model(other)[1], text)
    few = {name: values[1:3] for name, values in batch.items()}
    torch.testing.assert_close(model(few)[0], image[1:3])
    torch.testing.assert_close(model(few)[1], text[1:3])


def test_a_causal_tower_pools_its_last_real_token(batch):
    text = TextEncoder(TextEncoderConfig(20, 8, 12, 1, 2, causal=True, pool="last"))
    tokens, mask = text(batch["tokens"], batch["mask"])
    pooled = text.eval().pool(tokens, mask)
    torch.testing.assert_close(pooled[1], tokens[1, 2])
    shorter, _ = text(batch["tokens"][:, :3], batch["mask"][:, :3])
    torch.testing.assert_close(shorter, tokens[:, :3])


def test_the_scale_starts_at_clips_and_stops_at_one_hundred(model):
    assert model.scale.item() == pytest.approx(1 / 0.07)
    model.log_scale.data.fill_(9.0)
    assert model.scale.item() == pytest.approx(100.0, rel=1e-5)


def test_each_loss_is_the_one_its_name_says(batch):
    for loss in ("clip", "siglip"):
        torch.manual_seed(0)
        model = DualEncoder.made(DualEncoderConfig(8, loss, IMAGE, TEXT))
        image, text = model(batch)
        expected = (
            info_nce(image, text, 1 / 0.07)
            if loss == "clip"
            else siglip(image, text, 10.0, -10.0)
        )
        torch.testing.assert_close(model.loss(image, text), expected)


def test_a_locked_tower_stays_as_it_is_and_the_rest_learns(batch):
    torch.manual_seed(0)
    image = ViT(
        ViTConfig(image_size=16, patch=8, dim=16, depth=1, heads=2, dropout=0.5)
    )
    model = DualEncoder(image, TextEncoder(TEXT)).lock("image").train()
    assert not model.image.training and model.text.training
    torch.testing.assert_close(model(batch)[0], model(batch)[0])
    model.loss(*model(batch)).backward()
    learnt = {
        n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None
    }
    assert learnt == {"text", "to_common", "log_scale"}
    with pytest.raises(ValueError, match="no tower"):
        model.lock("sound")


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_few_steps_overfit_one_batch(batch, loss):
    torch.manual_seed(0)
    model = DualEncoder.made(DualEncoderConfig(8, loss, IMAGE, TEXT))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        value = model.loss(*model(batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    scores = model.logits(*model(batch))
    assert (scores.argmax(1) == torch.arange(5)).all() and value < 0.3


# --- zero-shot --------------------------------------------------------------------


def test_prompts_are_averaged_on_the_sphere():
    table = {
        "a cat": [1.0, 0.0],
        "cat!": [0.0, 3.0],
        "a dog": [0.0, -1.0],
        "dog!": [0.0, -2.0],
    }

    def embed(texts):
        return torch.tensor([table[t] for t in texts])

    rows = zero_shot_classifier(embed, ["cat", "dog"], ["a {}", "{}!"])
    half = math.sqrt(0.5)
    torch.testing.assert_close(rows, torch.tensor([[half, half], [0.0, -1.0]]))


@pytest.mark.parametrize(
    ("names", "templates"), [(["a"], ["no place"]), ([], ["{}"]), (["a"], [])]
)
def test_templates_without_a_place_and_nothing_are_refused(names, templates):
    with pytest.raises(ValueError, match="a template has one"):
        zero_shot_classifier(lambda texts: torch.ones(len(texts), 2), names, templates)


# --- momentum ---------------------------------------------------------------------


def test_with_a_copy_as_the_model_the_queue_only_adds_negatives(model, batch):
    moco = MomentumContrast(model, size=7).eval()
    image, text = model(batch)
    partner = torch.arange(5)
    expected = sum(
        F.cross_entropy(model.scale * mine @ torch.cat([other, queue]).T, partner)
        for mine, other, queue in (
            (image, text, moco.text_queue),
            (text, image, moco.image_queue),
        )
    )
    torch.testing.assert_close(moco(batch), expected / 2)


def test_the_copy_follows_and_the_queue_keeps_the_newest(model, batch):
    moco = MomentumContrast(model, size=7, momentum=0.5).train()
    before = moco.slow.log_scale.item()
    with torch.no_grad():
        model.log_scale.add_(1.0)
    old = moco.image_queue.clone()
    moco(batch).backward()
    assert moco.slow.log_scale.item() == pytest.approx(before + 0.5)
    with torch.no_grad():
        torch.testing.assert_close(moco.image_queue[:5], moco.slow(batch)[0])
    torch.testing.assert_close(moco.image_queue[5:], old[:2])
    assert all(p.grad is None for p in moco.slow.parameters())
    assert model.log_scale.grad is not None


@pytest.mark.parametrize("wrong", [{"size": 0}, {"momentum": 1.0}])
def test_a_queue_of_no_sense_is_refused(model, wrong):
    with pytest.raises(ValueError, match="queue of at least 1"):
        MomentumContrast(model, **wrong)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DualEncoderConfig(0), "dim=0"),
        (lambda: DualEncoderConfig(loss="mse"), "loss='mse'"),
        (lambda: DualEncoder.made(DualEncoderConfig()), "image=None"),
        (lambda: DualEncoder(torch.nn.Identity(), TextEncoder(TEXT)), "width"),
        (lambda: FeaturesConfig("bert"), "no frozen encoder"),
        (lambda: TextEncoderConfig(9, 9, pool="max"), "pool='max'"),
        (lambda: TextEncoderConfig(9, 9, activation="tanh"), "activation='tanh'"),
    ],
)
def test_settings_of_no_sense_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
