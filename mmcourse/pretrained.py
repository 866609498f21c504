"""Other libraries' weights under our names: what a model is made of, and its tensors.

Each function takes a model of timm or transformers and returns the keywords of our
config and a state dict. What our modules can't represent is refused by name, and so
is every tensor that found no place: nothing is dropped in silence.
Used by ``ViT.from_timm``, ``ViT.from_hf``, ``TextEncoder.from_bert`` and
``Decoder.from_llama``.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmcourse import assets

Weights = tuple[dict, dict[str, Tensor]]

LLAMA = {
    r"model\.embed_tokens\.": "embed.token.",
    r"model\.norm\.": "norm.",
    r"lm_head\.": "head.",
    r"model\.layers\.": "blocks.",
    r"self_attn\.(.)_proj": r"attention.\1",
    r"attention\.o\b": "attention.out",
    r"mlp\.(\w+)_proj": r"mlp.\1",
    r"input_layernorm": "norms.attention",
    r"post_attention_layernorm": "norms.mlp",
}

BERT = {
    r"embeddings\.word_embeddings\.": "embed.token.",
    r"embeddings\.position_embeddings\.weight": "embed.position",
    r"embeddings\.LayerNorm": "embed_norm",
    r"encoder\.layer\.": "encoder.blocks.",
    r"attention\.self\.(.)(uery|ey|alue)": r"attention.\1",
    r"attention\.output\.dense": "attention.out",
    r"attention\.output\.LayerNorm": "norms.attention",
    r"intermediate\.dense": "mlp.up",
    r"(\d)\.output\.dense": r"\1.mlp.down",
    r"(\d)\.output\.LayerNorm": r"\1.norms.mlp",
}

TIMM = {
    r"patch_embed\.proj": "patches.convolution",
    r"^norm_pre": "norm_before",
    r"^fc_norm": "norm_after",
    r"^norm\.": "encoder.norm.",
    r"^blocks": "encoder.blocks",
    r"attn\.proj": "attention.out",
    r"attn\.": "attention.",
    r"norm1": "norms.attention",
    r"norm2": "norms.mlp",
    r"ls1\.gamma": "scales.attention.scale",
    r"ls2\.gamma": "scales.mlp.scale",
    r"mlp\.fc1": "mlp.up",
    r"mlp\.fc2": "mlp.down",
}

HF_VIT = {
    r"embeddings\.patch_embeddings\.projection": "patches.convolution",
    r"^layernorm\.": "encoder.norm.",
    r"^(encoder\.layer|layers)\.": "encoder.blocks.",
    r"attention\.(.)_proj": r"attention.\1",
    r"attention\.o\b": "attention.out",
    r"layernorm_before|norm1": "norms.attention",
    r"layernorm_after|norm2": "norms.mlp",
    r"layer_scale1\.lambda1": "scales.attention.scale",
    r"layer_scale2\.lambda1": "scales.mlp.scale",
    r"mlp\.fc1": "mlp.up",
    r"mlp\.fc2": "mlp.down",
}

HF_VIT_OF_2023 = {  # transformers' names when the ViT-S/14 of the assets was exported
    r"attention\.attention\.(.)(uery|ey|alue)": r"attention.\1",
    r"attention\.output\.dense": "attention.out",
}

# What a class is called because of, where its name doesn't say it.
REASONS = {
    "VisionTransformerDistilled": "two class tokens (a distilled model)",
    "Eva": "rotary positions in a vision transformer",
    "SwiGLUPacked": "a gated MLP",
    "GluMlp": "a gated MLP",
}


def of_llama(model: nn.Module) -> Weights:
    """Take a LlamaForCausalLM apart: keywords of ``DecoderConfig``, tensors."""
    refuse("from_llama", {_class(model): type(model).__name__ != "LlamaForCausalLM"})
    c = model.config
    rope = getattr(c, "rope_parameters", None) or {}
    refuse(
        "from_llama",
        {
            f"hidden_act={c.hidden_act!r}": c.hidden_act != "silu",
            f"rotary positions of the kind {rope.get('rope_type')!r}": (
                rope.get("rope_type") != "default"
            ),
            "biases": getattr(c, "attention_bias", True)
            or getattr(c, "mlp_bias", True),
            "a width of the heads of its own": (
                getattr(c, "head_dim", 0) * c.num_attention_heads != c.hidden_size
            ),
        },
    )
    config = {
        "vocab": c.vocab_size,
        "length": c.max_position_embeddings,
        "dim": c.hidden_size,
        "depth": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "kv_heads": c.num_key_value_heads,
        "hidden": c.intermediate_size,
        "positions": "rotary",
        "rotary_base": rope["rope_theta"],
        "norm": "rms",
        "norm_eps": c.rms_norm_eps,
        "gated": True,
        "bias": False,
        "tied": c.tie_word_embeddings,
    }
    return config, _joined(_renamed(model.state_dict(), LLAMA))


def of_bert(model: nn.Module) -> Weights:
    """Take a BertModel apart: keywords of ``TextEncoderConfig``, tensors.

    Its first segment is added to every position; its pooler is left behind.
    """
    refuse("from_bert", {_class(model): type(model).__name__ != "BertModel"})
    c = model.config
    refuse(
        "from_bert",
        {
            f"hidden_act={c.hidden_act!r}": c.hidden_act != "gelu",
            "a decoder": getattr(c, "is_decoder", False),
        },
    )
    config = {
        "vocab": c.vocab_size,
        "length": c.max_position_embeddings,
        "dim": c.hidden_size,
        "depth": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "hidden": c.intermediate_size,
        "pre_norm": False,
        "norm_eps": c.layer_norm_eps,
        "embed_norm": True,
    }
    theirs = {k: v for k, v in model.state_dict().items() if "pooler" not in k}
    segment = theirs.pop("embeddings.token_type_embeddings.weight")[0]
    ours = _joined(_renamed(theirs, BERT))
    ours["embed.position"] = ours["embed.position"] + segment
    return config, ours


def of_timm(model: nn.Module) -> Weights:
    """Take a plain ViT of timm apart: keywords of ``ViTConfig``, tensors."""
    kind = type(model).__name__
    refuse("from_timm", {_class(model): kind != "VisionTransformer"})
    block = model.blocks[0]
    norm = next(m for m in (model.norm, model.fc_norm) if isinstance(m, nn.LayerNorm))
    rows, columns = model.patch_embed.grid_size
    refuse("from_timm", _timms_own(model))
    first = [t[0] for t in (model.cls_token, model.reg_token) if t is not None]
    prefix = torch.cat(first) if first else None
    config = {
        "image_size": model.patch_embed.img_size[0],
        "patch": model.patch_embed.patch_size[0],
        "channels": model.patch_embed.proj.in_channels,
        "dim": model.embed_dim,
        "depth": len(model.blocks),
        "heads": block.attn.num_heads,
        "hidden": block.mlp.fc1.out_features,
        "class_token": model.cls_token is not None,
        "registers": model.num_reg_tokens,
        "pool": "class" if model.global_pool == "token" else "mean",
        "norm_before": not isinstance(model.norm_pre, nn.Identity),
        "norm_after": not isinstance(model.fc_norm, nn.Identity),
        "norm_eps": norm.eps,
        "qk_norm": not isinstance(block.attn.q_norm, nn.Identity),
        "layer_scale": 1.0 if hasattr(block.ls1, "gamma") else None,
        "qkv_bias": block.attn.qkv.bias is not None,
        "patch_bias": model.patch_embed.proj.bias is not None,
        "classes": model.num_classes,
    }
    theirs = model.state_dict()
    for name in ("cls_token", "reg_token"):
        theirs.pop(name, None)
    position = theirs.pop("pos_embed")[0]
    ours = _renamed(theirs, TIMM)
    return config, ours | _prefixed(prefix, position, rows * columns)


def _timms_own(model: nn.Module) -> dict[str, bool]:
    """Say of each feature that ours lacks whether timm's model has it."""
    block, activation = model.blocks[0], model.blocks[0].mlp.act
    rows, columns = model.patch_embed.grid_size
    exact = type(activation) is nn.GELU and activation.approximate == "none"
    by_class = model.global_pool == "token"
    return {
        f"in its blocks {_class(block)}": type(block).__name__ != "Block",
        f"in its MLP {_class(block.mlp)}": type(block.mlp).__name__ != "Mlp",
        f"the activation {type(activation).__name__}": not exact,
        f"the pooling {model.global_pool!r}": model.global_pool not in ("token", "avg"),
        "pooling over class token and registers": model.pool_include_prefix,
        "no positions": model.pos_embed is None,
        "a norm after the pooling of the class token": (
            by_class and not isinstance(model.fc_norm, nn.Identity)
        ),
        f"a grid of {rows} x {columns} patches": rows != columns,
    }


def of_hf_vit(model: nn.Module) -> Weights:
    """Take transformers' ViTModel, DeiTModel or Dinov2Model apart, as ``of_timm`` does.

    DeiT's distillation token becomes a register. A pooler is left behind.
    """
    kind = type(model).__name__
    refuse(
        "from_hf", {_class(model): kind not in ("ViTModel", "DeiTModel", "Dinov2Model")}
    )
    c = model.config
    refuse(
        "from_hf",
        {
            f"hidden_act={c.hidden_act!r}": c.hidden_act != "gelu",
            "a gated MLP": getattr(c, "use_swiglu_ffn", False),
        },
    )
    theirs = {
        k: v
        for k, v in model.state_dict().items()
        if "pooler" not in k and "mask_token" not in k
    }
    names = ("embeddings.cls_token", "embeddings.distillation_token")
    prefix = torch.cat([theirs.pop(n)[0] for n in names if n in theirs])
    position = theirs.pop("embeddings.position_embeddings")[0]
    ours = _joined(_renamed(theirs, HF_VIT))
    config = {
        "image_size": c.image_size,
        "patch": c.patch_size,
        "channels": c.num_channels,
        "dim": c.hidden_size,
        "depth": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "hidden": ours["encoder.blocks.0.mlp.up.weight"].shape[0],
        "registers": len(prefix) - 1,
        "norm_eps": c.layer_norm_eps,
        "layer_scale": 1.0 if kind == "Dinov2Model" else None,
        "qkv_bias": c.qkv_bias,
    }
    return config, ours | _prefixed(prefix, position, len(position) - len(prefix))


def of_vit_s14() -> Weights:
    """Read the assets' ViT-S/14 out of its ONNX file, made for 224 pixels.

    An exporter drops the names of matrices but keeps those of biases: the matrix of a
    layer is the one whose product the layer's bias is added to.
    """
    import onnx

    file = assets.path("vit_s14") / "vit_s_focus.onnx"
    graph = onnx.load(file).graph
    tensors = {
        i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy())
        for i in graph.initializer
    }
    product = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMul"}
    start = "backbone."
    theirs = {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
    for node in (n for n in graph.node if n.op_type == "Add"):
        bias = next((i for i in node.input if i.startswith(start)), None)
        matrix = next((product[i] for i in node.input if i in product), None)
        if bias is not None and matrix in tensors:
            name = bias[len(start) :].replace(".bias", ".weight")
            theirs[name] = tensors[matrix].T
    grid = next(v for v in tensors.values() if v.shape == (1, 37**2, 384))
    first = next(v for k, v in tensors.items() if v.shape == (1, 1, 384) and "::" in k)
    position = rearrange(grid, "1 (h w) d -> 1 d h w", h=37)
    position = F.interpolate(position, (16, 16), mode="bicubic")
    position = torch.cat([first[0], rearrange(position, "1 d h w -> (h w) d")])
    prefix = theirs.pop("embeddings.cls_token")[0]
    ours = _joined(_renamed(theirs, HF_VIT_OF_2023 | HF_VIT))
    config = {
        "image_size": 224,
        "patch": 14,
        "dim": 384,
        "heads": 6,
        "depth": 12,
        "layer_scale": 1.0,
    }
    return config, ours | _prefixed(prefix, position, 16**2)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' bars over tensors, which say nothing, off the screen.

    Bars of downloads, which do say something, are huggingface_hub's and stay.
    """
    from transformers.utils import logging

    def silent(bar, args: tuple, kwargs: dict):
        return bar(*args, **(kwargs | {"disable": True}))

    before = logging.set_tqdm_hook(silent)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def load(module: nn.Module, weights: dict[str, Tensor], source: str) -> nn.Module:
    """Copy tensors into a module, all of them and each into its place."""
    wrong = module.load_state_dict(weights, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise ValueError(
            f"{source} found no place for {wrong.unexpected_keys[:4]} and nothing for "
            f"{wrong.missing_keys[:4]}: this model has parts that ours lacks"
        )
    return module.eval()


def refuse(source: str, features: dict[str, bool]) -> None:
    """Raise ValueError naming the first feature that is there and that ours lacks."""
    for feature, is_there in features.items():
        if is_there:
            raise ValueError(
                f"{source} can't represent {feature}: choose a model without it"
            )


def _class(module: nn.Module) -> str:
    """Say what a class brings with it that ours lacks."""
    kind = type(module).__name__
    return f"{REASONS[kind]}, of {kind}" if kind in REASONS else f"the class {kind}"


def _renamed(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Put each tensor under our name for it."""

    def ours(name: str) -> str:
        for pattern, new in names.items():
            name = re.sub(pattern, new, name)
        return name

    return {ours(name): value for name, value in tensors.items()}


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make one matrix of the queries', keys' and values', which ours keeps together."""
    joined = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"(.*attention\.)q(\.weight|\.bias)", name):
            start, end = match.groups()
            parts = [tensors[f"{start}{p}{end}"] for p in "qkv"]
            joined[f"{start}qkv{end}"] = torch.cat(parts)
        elif not re.fullmatch(r".*attention\.[kv](\.weight|\.bias)", name):
            joined[name] = value
    return joined


def _prefixed(
    prefix: Tensor | None, position: Tensor, patches: int
) -> dict[str, Tensor]:
    """Add the positions of class token and registers to the tokens themselves."""
    if prefix is None:
        return {"position": position}
    own = position[: len(position) - patches]
    return {
        "prefix": prefix + own if len(own) else prefix,
        "position": position[len(own) :],
    }
