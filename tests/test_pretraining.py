"""Painting, matching and filling in: what a model may see, and that it learns."""

import math

import pytest
import torch

from mmcourse.dual_encoder import DualEncoder, DualEncoderConfig
from mmcourse.encoders import TextEncoderConfig
from mmcourse.losses import masked_image
from mmcourse.masking import Hidden, hide_patches
from mmcourse.modalities import patchify, unpatchify
from mmcourse.pretraining import MaskedAutoencoder, PairPretraining
from mmcourse.vit import ViT, ViTConfig

IMAGE = ViTConfig(image_size=16, patch=4, dim=32, depth=2, heads=2)
TEXT = TextEncoderConfig(vocab=21, length=6, dim=16, depth=1, heads=2)


@pytest.fixture
def painter():
    torch.manual_seed(0)
    return MaskedAutoencoder(ViT(IMAGE), dim=24, depth=1, heads=2)


@pytest.fixture
def pretraining():
    torch.manual_seed(0)
    dual = DualEncoder.made(DualEncoderConfig(8, image=IMAGE, text=TEXT))
    return PairPretraining(dual, depth=1, heads=2)


def pairs(rows=6):
    make = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 20, (rows, 6), generator=make)
    tokens[:, 0] = 2
    mask = torch.arange(6) < torch.randint(3, 7, (rows, 1), generator=make)
    image = torch.rand(rows, 3, 16, 16, generator=make)
    return {"image": image, "tokens": tokens, "mask": mask}


# --- painting ---------------------------------------------------------------------


def test_hidden_pixels_have_no_say_in_what_is_painted(painter):
    image, hidden = pairs()["image"], hide_patches(6, 16)
    painted, _ = painter.eval()(image, hidden)
    patches = patchify(image, 4)
    other = torch.where(hidden.hidden[..., None], torch.rand_like(patches), patches)
    again, _ = painter(unpatchify(other, 4), hidden)
    torch.testing.assert_close(again, painted)
    shown = torch.where(hidden.hidden[..., None], patches, torch.rand_like(patches))
    assert not torch.allclose(painter(unpatchify(shown, 4), hidden)[0], painted)


def test_with_nothing_hidden_the_encoder_sees_what_the_vit_sees(painter):
    vit, image = painter.encoder.eval(), pairs()["image"]
    every = torch.arange(16).expand(6, -1)
    expected, _ = vit(image)
    seen = {}
    vit.encoder.register_forward_hook(lambda _, given, out: seen.update(out=out))
    painter(image, Hidden(every, every, torch.zeros(6, 16, dtype=torch.bool)))
    torch.testing.assert_close(seen["out"], expected)


def test_its_loss_is_that_of_the_hidden_patches(painter):
    image = pairs()["image"]
    torch.manual_seed(3)
    loss = painter.loss(image)
    torch.manual_seed(3)
    predicted, hidden = painter(image)
    torch.testing.assert_close(
        loss, masked_image(predicted, patchify(image, 4), hidden.hidden)
    )
    loss.backward()
    assert all(p.grad is not None for n, p in painter.named_parameters())


def test_what_was_seen_stays_as_it_is_in_the_painting(painter):
    image, hidden = pairs()["image"], hide_patches(6, 16)
    painted = patchify(painter.painted(image, hidden), 4)
    true = patchify(image, 4)
    torch.testing.assert_close(painted[~hidden.hidden], true[~hidden.hidden])
    assert not torch.allclose(painted[hidden.hidden], true[hidden.hidden])


def test_it_learns_to_paint_stripes(painter):
    """Stripes go on behind what is hidden; no guess has the error 47/48, here less."""
    rows = torch.arange(16).float()
    phase = torch.rand(64, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * 6.3
    image = (0.5 + 0.5 * torch.sin(rows[None, None, :, None] + phase)).expand(
        -1, 3, -1, 16
    )
    optimizer = torch.optim.AdamW(painter.parameters(), 3e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(150):
        loss = painter.loss(image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and losses[-1] < 0.4


# --- pairs ------------------------------------------------------------------------


def test_objectives_start_at_chance(pretraining):
    losses = pretraining.losses(pairs(64))
    assert losses["words"].item() == pytest.approx(math.log(21), abs=0.5)
    assert losses["matching"].item() < 1.2
    assert set(losses) == {"contrast", "matching", "words"}


def test_padding_has_no_say_in_a_match(pretraining):
    batch = pairs()
    said = pretraining.eval().matches(batch)
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 9)}
    torch.testing.assert_close(pretraining.matches(other), said)
    alone = {name: values[2:3] for name, values in batch.items()}
    torch.testing.assert_close(pretraining.matches(alone), said[2:3])


def test_the_picture_has_a_say_in_a_match(pretraining):
    batch = pairs()
    said = pretraining.eval().matches(batch)
    other = batch | {"image": batch["image"].flip(0)}
    assert not torch.allclose(pretraining.matches(other), said)


def test_every_parameter_learns_and_a_batch_is_overfitted(pretraining):
    batch = pairs()
    optimizer = torch.optim.AdamW(pretraining.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(200):
        losses = pretraining.losses(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in pretraining.parameters())
        optimizer.step()
    assert losses["contrast"] < 0.2 and losses["matching"] < 0.3
    assert (pretraining.eval().matches(batch) > 0.8).all()


def test_pairs_of_one_id_are_no_negatives(pretraining):
    batch = pairs()
    with pytest.raises(ValueError, match="has no negative"):
        pretraining.losses(batch, torch.zeros(6).long())
