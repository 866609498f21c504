"""CLIP's weights under our names and back: transformers' CLIPModel and ``DualEncoder``.

Used by ``DualEncoder.from_hf`` and ``to_hf``: what a small one is made of is what a
real one is made of. Radford et al., 2021, arXiv 2103.00020.
"""

import torch
from torch import nn

from mmcourse.pretrained import Weights, refuse

# (ours, theirs), applied in this order to ours and in the other order to theirs.
NAMES = [
    ("image.patches.convolution.", "vision_model.embeddings.patch_embedding."),
    ("image.norm_before.", "vision_model.pre_layrnorm."),
    ("image.norm_after.", "vision_model.post_layernorm."),
    ("text.embed.token.", "text_model.embeddings.token_embedding."),
    ("text.encoder.norm.", "text_model.final_layer_norm."),
    ("to_common.image.", "visual_projection."),
    ("to_common.text.", "text_projection."),
    ("log_scale", "logit_scale"),
    ("image.encoder.blocks.", "vision_model.encoder.layers."),
    ("text.encoder.blocks.", "text_model.encoder.layers."),
    ("attention.out.", "self_attn.out_proj."),
    ("norms.attention.", "layer_norm1."),
    ("norms.mlp.", "layer_norm2."),
    ("mlp.up.", "mlp.fc1."),
    ("mlp.down.", "mlp.fc2."),
]
PARTS = ("q_proj", "k_proj", "v_proj")


def of_clip(model: nn.Module) -> Weights:
    """Take a CLIPModel apart: keywords of the configs, tensors."""
    kind = type(model).__name__
    refuse("from_hf", {f"the class {kind}": kind != "CLIPModel"})
    image, text = model.config.vision_config, model.config.text_config
    acts = {image.hidden_act, text.hidden_act}
    refuse(
        "from_hf", {f"hidden_act={a!r}": a not in ("gelu", "quick_gelu") for a in acts}
    )
    theirs = dict(model.state_dict())
    vision = "vision_model.embeddings."
    position = theirs.pop(f"{vision}position_embedding.weight")
    first = theirs.pop(f"{vision}class_embedding")
    ours = {
        "image.prefix": (first + position[0])[None],
        "image.position": position[1:],
        "text.embed.position": theirs.pop(
            "text_model.embeddings.position_embedding.weight"
        ),
    }
    for name, value in theirs.items():
        if name.endswith("position_ids") or "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            parts = [theirs[name.replace("q_proj", part)] for part in PARTS]
            name = name.replace("self_attn.q_proj", "attention.qkv")
            value = torch.cat(parts)
        ours[_renamed(name, [(b, a) for a, b in NAMES])] = value
    return _our_config(model.config.projection_dim, image, text), ours


def _our_config(dim: int, image, text) -> dict:
    return {
        "dim": dim,
        "image": {
            "image_size": image.image_size,
            "patch": image.patch_size,
            "channels": image.num_channels,
            "norm_before": True,
            "norm_after": True,
            "patch_bias": False,
            **_stack(image),
        },
        "text": {
            "vocab": text.vocab_size,
            "length": text.max_position_embeddings,
            "causal": True,
            "pool": "last",
            **_stack(text),
        },
    }


def _stack(c) -> dict:
    return {
        "dim": c.hidden_size,
        "depth": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "hidden": c.intermediate_size,
        "norm_eps": c.layer_norm_eps,
        "activation": c.hidden_act,
    }


def to_clip(dual: nn.Module) -> nn.Module:
    """Make a CLIPModel of a ``DualEncoder`` that is made like one."""
    from transformers import CLIPConfig, CLIPModel

    refuse("to_hf", _not_clips(dual))
    model = CLIPModel(CLIPConfig(**_their_config(dual)))
    ours = dict(dual.state_dict())
    first, grid = ours.pop("image.prefix"), ours.pop("image.position")
    vision = "vision_model.embeddings."
    theirs = {
        f"{vision}class_embedding": first[0],
        f"{vision}position_embedding.weight": torch.cat(
            [torch.zeros_like(first), grid]
        ),
        "text_model.embeddings.position_embedding.weight": ours.pop(
            "text.embed.position"
        ),
    }
    for name, value in ours.items():
        named = _renamed(name, NAMES)
        if "attention.qkv" in named:
            for part, rows in zip(PARTS, value.chunk(3), strict=True):
                theirs[named.replace("attention.qkv", f"self_attn.{part}")] = rows
        else:
            theirs[named] = value
    wrong = model.load_state_dict(theirs, strict=False)
    left = [k for k in wrong.missing_keys if not k.endswith("position_ids")]
    if left or wrong.unexpected_keys:
        raise ValueError(
            f"to_hf found nothing for {left[:4]} and no place for "
            f"{wrong.unexpected_keys[:4]}"
        )
    return model.eval()


def _their_config(dual: nn.Module) -> dict:
    image, text, dim = dual.image.config, dual.text.config, dual.config.dim
    vision = {
        "image_size": image.image_size,
        "patch_size": image.patch,
        "num_channels": image.channels,
        "projection_dim": dim,
    }
    texts = {
        "vocab_size": text.vocab,
        "max_position_embeddings": text.length,
        "projection_dim": dim,
    }
    return {
        "projection_dim": dim,
        "vision_config": vision | _their_stack(image),
        "text_config": texts | _their_stack(text),
    }


def _their_stack(c) -> dict:
    return {
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": 4 * c.dim if c.hidden is None else c.hidden,
        "layer_norm_eps": c.norm_eps,
        "hidden_act": c.activation,
        "attention_dropout": c.dropout,
    }


def _not_clips(dual: nn.Module) -> dict[str, bool]:
    """Say of each feature that CLIPModel lacks whether this model has it."""
    image, text = dual.image.config, dual.text.config
    if (
        type(image).__name__ != "ViTConfig"
        or type(text).__name__ != "TextEncoderConfig"
    ):
        kinds = (
            f"{type(dual.image).__name__} and {type(dual.text).__name__} as encoders"
        )
        return {kinds: True}
    return {
        "the sigmoid loss's bias": dual.bias is not None,
        "no norm before the blocks of the ViT": not image.norm_before,
        "a norm before the pooling of the ViT": not image.norm_after,
        f"pool={image.pool!r} of the ViT": image.pool != "class",
        f"{image.registers} registers": image.registers > 0,
        "sinusoidal positions": "sinusoidal" in (image.positions, text.positions),
        "a bias of the patches": image.patch_bias,
        "qk_norm": image.qk_norm,
        "layer_scale": image.layer_scale is not None,
        "a text encoder that isn't causal": not text.causal,
        f"pool={text.pool!r} of the texts": text.pool != "last",
        "post-norm blocks": not text.pre_norm,
        "a norm of the token embeddings": text.embed_norm,
    }


def _renamed(name: str, names: list[tuple[str, str]]) -> str:
    for old, new in names:
        name = name.replace(old, new)
    return name
