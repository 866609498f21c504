"""The vision transformer against timm, transformers, onnxruntime and itself."""

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import transformers

from mmcourse import assets, emojis
from mmcourse.vit import (
    PatchEmbedding,
    ViT,
    ViTConfig,
    resize_positions,
    sinusoidal_grid,
)

SMALL = {"image_size": 32, "patch": 8, "dim": 32, "depth": 2, "heads": 4}


def shaken(model):
    """Move every weight, so that none is a zero or a one that hides a mistake."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * torch.randn_like(p)
    return model.eval()


@pytest.fixture(scope="module")
def picture():
    """A drawing of a dog, 224 pixels, as a batch of one."""
    import io

    from PIL import Image

    path = emojis.drawing("🐕", assets.path("openmoji"), "{:04X}")
    image = Image.open(io.BytesIO(emojis.render(path, 224))).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


TIMM = [
    "vit_tiny_patch16_224",
    "vit_base_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_224",
]


@pytest.mark.parametrize("name", TIMM)
def test_timms_weights_give_timms_numbers(name, picture):
    theirs = shaken(timm.create_model(name, pretrained=False))
    ours = ViT.from_timm(theirs)
    side = ours.config.image_size
    images = torch.nn.functional.interpolate(picture, (side, side))
    images = torch.cat([images, torch.randn_like(images)])
    with torch.no_grad():
        assert (ours.logits(images) - theirs(images)).abs().max() < 1e-4
        tokens = ours(images)[0]
        assert (tokens - theirs.forward_features(images)).abs().max() < 1e-4


@pytest.mark.parametrize(
    "kwargs",
    [
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False},
        {"qk_norm": True, "init_values": 0.1},
        {"reg_tokens": 3},
        {"reg_tokens": 3, "no_embed_class": True, "num_classes": 0},
        {"pre_norm": True, "qkv_bias": False},
    ],
    ids=str,
)
def test_every_option_of_timms_that_we_take(kwargs):
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2}
    theirs = shaken(
        timm.models.VisionTransformer(
            num_heads=4, **({"num_classes": 7} | size | kwargs)
        )
    )
    images = torch.randn(3, 3, 32, 32)
    ours = ViT.from_timm(theirs)
    with torch.no_grad():
        assert (ours.logits(images) - theirs(images)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        (
            "vit_small_patch16_dinov3",
            "rotary positions in a vision transformer, of Eva",
        ),
        ("deit_small_distilled_patch16_224", "two class tokens"),
        ("vit_base_patch16_siglip_224", "the pooling 'map'"),
        ("vit_base_patch32_clip_quickgelu_224", "the activation QuickGELU"),
        ("resnet18", "the class ResNet"),
    ],
)
def test_what_we_lack_is_refused_by_name(name, feature):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    with pytest.raises(ValueError, match=feature):
        ViT.from_timm(model)


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2"])
def test_transformers_weights_give_transformers_numbers(kind, place):
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        mlp_ratio=2,
    )
    theirs = shaken(getattr(transformers, f"{kind}Model")(config))
    ours = ViT.from_hf(theirs).to(place.device, place.dtype)
    theirs = theirs.to(place.device, place.dtype)
    images = torch.randn(2, 3, 32, 32, device=place.device, dtype=place.dtype)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        assert torch.allclose(ours(images)[0], expected, **place.close)


def test_transformers_gated_mlp_is_refused():
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, use_swiglu_ffn=True
    )
    with pytest.raises(ValueError, match="a gated MLP"):
        ViT.from_hf(transformers.Dinov2Model(config))


def test_the_pretrained_one_equals_its_onnx_file(picture):
    graph = onnx.load(assets.path("vit_s14") / "vit_s_focus.onnx")
    last = next(n for n in graph.graph.node if "backbone.layernorm.bias" in n.input)
    graph.graph.output.append(onnx.ValueInfoProto(name=last.output[0]))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    expected = session.run([last.output[0]], {"input_image": picture.numpy()})[0]
    with torch.no_grad():
        tokens, mask = ViT.pretrained()(picture)
    assert tokens.shape == (1, 257, 384) and mask.all()
    assert np.abs(tokens.numpy() - expected).max() < 1e-3
    assert np.abs(expected).max() > 1


def test_patches_as_convolution_and_as_linear_map():
    embed, images = PatchEmbedding(4, 3, 10), torch.randn(2, 3, 8, 12)
    assert embed(images).shape == (2, 6, 10)
    assert torch.allclose(embed(images), embed.as_linear(images), atol=1e-5)


def test_grid_positions_by_hand():
    grid = sinusoidal_grid(2, 3, 4)
    row, column = torch.tensor(1.0), torch.tensor(2.0)
    expected = torch.stack([row.sin(), row.cos(), column.sin(), column.cos()])
    assert torch.allclose(grid[5], expected, atol=1e-6)
    with pytest.raises(ValueError, match="dim=6"):
        sinusoidal_grid(2, 2, 6)


def test_positions_keep_their_place_when_resized():
    ramp = torch.arange(16.0).view(4, 4)[..., None].flatten(0, 1)
    larger = resize_positions(ramp, (4, 4), (8, 8)).view(8, 8)
    assert (larger.diff(dim=0) >= -1e-4).all() and (larger.diff(dim=1) >= -1e-4).all()
    assert torch.equal(resize_positions(ramp, (4, 4), (4, 4)), ramp)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_token": False, "pool": "mean"},
        {"registers": 3, "positions": "sinusoidal"},
        {"pool": "mean", "norm_after": True, "registers": 1},
    ],
    ids=str,
)
def test_tokens_mask_and_another_size(changes, place):
    kwargs = {"device": place.device, "dtype": place.dtype}
    model = ViT(ViTConfig(**SMALL | changes, classes=5)).to(**kwargs).eval()
    prefix = model.config.prefix
    tokens, mask = model(torch.randn(2, 3, 32, 32, **kwargs))
    assert tokens.shape == (2, prefix + 16, 32) and mask.all()
    wide = torch.randn(2, 3, 32, 48, **kwargs)
    assert model(wide)[0].shape == (2, prefix + 24, 32)
    assert model.logits(wide).shape == (2, 5)
    alone = torch.cat([model.logits(wide[i : i + 1]) for i in range(2)])
    assert torch.allclose(alone, model.logits(wide), **place.close)


def test_without_positions_the_order_of_patches_is_unknown():
    model = ViT(ViTConfig(**SMALL, classes=5)).eval()
    images = torch.randn(2, 3, 32, 32)
    rolled = images.roll(8, dims=-1)  # by one patch
    assert not torch.allclose(model.logits(images), model.logits(rolled), atol=1e-5)
    model.position.data.zero_()
    assert torch.allclose(model.logits(images), model.logits(rolled), atol=1e-5)


def test_it_learns_one_batch():
    torch.manual_seed(0)
    model = ViT(ViTConfig(**SMALL, classes=4))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model.logits(images), labels)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ViTConfig(225),
            "225 x 225 pixels .* patches of 16: resize .* 224 x 224",
        ),
        (lambda: ViTConfig(class_token=False), 'pool="class" needs class_token=True'),
        (lambda: ViTConfig(pool="max"), "pool='max': choose from"),
        (lambda: ViTConfig(positions="no"), "positions='no': choose from"),
        (
            lambda: ViT(ViTConfig(**SMALL))(torch.randn(1, 3, 30, 32)),
            "30 x 32 pixels .* patches of 8: resize it to 32 x 32",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
