"""Frozen encoders by name: what they give is what the encoder itself would give."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, pil_to_tensor

from mmcourse import encoders
from mmcourse.features import FROZEN, FeaturesConfig, FrozenViT, Words, vit_s14
from mmcourse.vit import ViT, ViTConfig


@pytest.fixture
def picture():
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (224, 224, 3), generator=noise, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@torch.no_grad()
def test_the_frozen_vit_stops_after_eight_layers(picture, fresh_cache):
    whole, image = ViT.pretrained(), pil_to_tensor(picture)[None] / 255
    x = whole.patches(normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = torch.cat([whole.prefix[None], x + whole.position], dim=1)
    for block in whole.encoder.blocks[:8]:
        x = block(x)
    x = whole.encoder.norm(x)
    expected = torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1)
    found = vit_s14().embed([picture])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.shape == (1, FrozenViT.width)


def test_the_vit_that_is_given_keeps_its_layers():
    given = ViT(ViTConfig(28, 14, dim=32, depth=10, heads=2))
    assert len(FrozenViT(given).model.encoder.blocks) == 8
    assert len(given.encoder.blocks) == 10 and given.training
    assert all(weight.requires_grad for weight in given.parameters())


def test_pictures_of_any_size_are_seen_and_one_by_one_as_together(picture, fresh_cache):
    others = [picture, Image.new("RGBA", (300, 20), "red"), Image.new("L", (9, 9), 90)]
    together = vit_s14().embed(others)
    alone = torch.cat([vit_s14().embed([p]) for p in others])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_words_are_class_names_each_as_probable_as_its_class(picture, fresh_cache):
    class Counting(torch.nn.Module):  # the n-th name is the n-th axis
        def embed(self, texts):
            assert texts[340] == "zebra" and len(texts) == 1000
            return torch.eye(1000)

    image = pil_to_tensor(picture)[None] / 255
    logits = encoders.efficientnet(224).model(image * 2 - 1)
    expected = (logits / 2).exp() / (logits / 2).exp().norm()
    found = Words(Counting()).embed([picture])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [*FROZEN])
def test_every_name_has_the_width_that_it_says(name, picture, fresh_cache):
    item = "a red bird" if name in ("minilm", "use") else picture
    features = FROZEN[name][0]().embed([item])
    assert features.shape == (1, FeaturesConfig(name).dim)


def test_an_encoder_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no frozen encoder \['clip'\].*vit-s14"):
        FeaturesConfig("clip+minilm")
