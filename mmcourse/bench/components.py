"""The races of what notebooks 00 to 04 build: attention, encoder, ViT, generation."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from mmcourse.bench.timing import Race, Timing, both_ways, hf_sizes, race

if TYPE_CHECKING:
    import torch

TRIES = 3


def foundations(device: "torch.device | None" = None) -> Iterator[Timing]:
    """Time what every notebook waits for: imports, the emoji set built and loaded."""
    python = [sys.executable, "-c"]
    yield _time("python alone", lambda: _run([*python, "pass"]), bar=float("inf"))
    yield _time("import mmcourse", lambda: _run([*python, "import mmcourse"]), bar=0.2)
    command = [sys.executable, "-m", "mmcourse.cli", "--help"]
    yield _time("mmcourse --help", lambda: _run(command), bar=0.5)

    from mmcourse import assets, datasets

    assets.path("openmoji")
    there = assets.root() / "assets"
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, MMCOURSE_DATA=folder),
    ):
        (Path(folder) / "assets").symlink_to(there)
        yield _time("openmoji(64) built", datasets.openmoji, bar=15.0, tries=1)
        yield _time("openmoji(64) loaded", datasets.openmoji, bar=1.0)


def attention(device: "torch.device") -> Iterator[Race]:
    """Our multi-head attention against torch's, with and without a causal mask."""
    import torch

    from mmcourse.attention import MultiHeadAttention

    batch, n, dim, heads = 8, 256, 384, 6
    ours = MultiHeadAttention(dim, heads).to(device)
    theirs = torch.nn.MultiheadAttention(dim, heads, batch_first=True).to(device)
    x = torch.randn(batch, n, dim, device=device)
    later = torch.ones(n, n, device=device, dtype=torch.bool).triu(1)
    for name, causal in (("attention", False), ("causal attention", True)):
        kwargs = {"is_causal": True, "attn_mask": later} if causal else {}

        def peer(x, kwargs=kwargs):
            return theirs(x, x, x, need_weights=False, **kwargs)[0]

        modules = {"ours": lambda x, c=causal: ours(x, causal=c), "torch": peer}
        yield from both_ways(f"{name} {batch}x{n}x{dim}", modules, (x,), device)


def encoder(device: "torch.device") -> Iterator[Race]:
    """Our encoder against torch's, with a mask of padding as real batches have."""
    import torch

    from mmcourse.transformer import Encoder

    batch, n, dim, heads, depth = 8, 128, 384, 6, 6
    ours = Encoder(dim, depth, heads).to(device).eval()
    layer = torch.nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
    )
    norm, nested = torch.nn.LayerNorm(dim), {"enable_nested_tensor": False}
    theirs = torch.nn.TransformerEncoder(layer, depth, norm, **nested)
    theirs = theirs.to(device).eval()
    x = torch.randn(batch, n, dim, device=device)
    lengths = torch.linspace(n // 2, n, batch, device=device).long()
    mask = torch.arange(n, device=device) < lengths[:, None]
    modules = {
        "ours": lambda x: ours(x, mask),
        "torch": lambda x: theirs(x, src_key_padding_mask=~mask),
    }
    yield from both_ways(
        f"encoder {batch}x{n}x{dim}, {depth} deep", modules, (x,), device
    )


def vit(device: "torch.device") -> Iterator[Race]:
    """Our vision transformer against timm's and transformers', the same weights."""
    import timm
    import torch

    from mmcourse.vit import ViT

    for name, rounds in (("tiny", 9), ("base", 5)):
        name, batch = f"vit_{name}_patch16_224", 256 if device.type == "cuda" else 8
        x = torch.randn(batch, 3, 224, 224, device=device)
        theirs = timm.create_model(name, pretrained=False).to(device).eval()
        ours = ViT.from_timm(theirs).to(device)
        modules = {"ours": ours.logits, "timm": theirs, "transformers": _hf(ours)}
        yield from both_ways(f"{name} x {batch}", modules, (x,), device, rounds)
        if device.type == "cuda":
            compiled = {who: torch.compile(f) for who, f in modules.items()}
            yield from both_ways(f"{name} x {batch}, compiled", compiled, (x,), device)


def _hf(ours):
    """Make transformers' ViT of the same size, on its SDPA attention."""
    from transformers import ViTConfig, ViTForImageClassification

    c = ours.config
    sizes = hf_sizes(c.dim, c.depth, c.heads)
    config = ViTConfig(num_labels=c.classes, attn_implementation="sdpa", **sizes)
    model = ViTForImageClassification(config).eval()
    model = model.to(next(ours.parameters()).device)
    return lambda x: model(x).logits


def generation(device: "torch.device") -> Iterator[Race]:
    """Our ``generate`` against transformers', SmolLM2's shape, 16 new tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mmcourse.generation import generate
    from mmcourse.transformer import Decoder

    sizes = hf_sizes(576, 30, 9) | {"intermediate_size": 1536, "vocab_size": 49152}
    config = LlamaConfig(num_key_value_heads=3, tie_word_embeddings=True, **sizes)
    theirs = LlamaForCausalLM(config).eval().to(device)
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    ours = Decoder.from_llama(theirs).to(device)
    rounds = 15 if device.type == "cuda" else 5
    for batch in (1, 8):
        prompt = torch.randint(0, 49152, (batch, 32), device=device)

        def peer(prompt=prompt):
            with torch.no_grad():
                return theirs.generate(prompt, max_new_tokens=16)

        name = f"generate 16 tokens, batch {batch}, 135M"
        runs = {"transformers": peer}
        mine = partial(generate, ours, prompt, 16)
        yield from race(name, mine, runs, device, rounds)


def captioning(device: "torch.device") -> Iterator[Race]:
    """Our captioner against transformers', greedy with a cache, of the same size."""
    import torch
    import transformers as hf

    from mmcourse.tasks.captioning import Captioner
    from mmcourse.transformer import DecoderConfig
    from mmcourse.vit import ViT, ViTConfig

    width, depth, heads, vocab, steps = 384, 6, 6, 8192, 32
    config = hf.ViTConfig(**hf_sizes(width, depth, heads))
    encoder = hf.ViTModel(config, add_pooling_layer=False)
    sizes = {"n_embd": width, "n_layer": depth, "n_head": heads, "vocab_size": vocab}
    config = hf.GPT2Config(n_positions=64, add_cross_attention=True, **sizes)
    decoder = hf.GPT2LMHeadModel(config)
    theirs = hf.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    theirs = theirs.eval().to(device)
    free = {"eos_token_id": None, "pad_token_id": 0, "do_sample": False}
    theirs.generation_config.update(decoder_start_token_id=1, **free)
    sizes = {"dim": width, "depth": depth, "heads": heads}
    config = DecoderConfig(vocab, 64, cross=True, **sizes)
    ours = Captioner(ViT(ViTConfig(**sizes)), width, config).eval().to(device)
    for batch in (1, 16):
        image = torch.randn(batch, 3, 224, 224, device=device)
        runs = {"transformers": partial(theirs.generate, image, max_new_tokens=steps)}
        mine = partial(ours.write, image, steps)
        yield from race(f"caption, {steps} tokens, batch {batch}", mine, runs, device)


def _time(name: str, run: Callable, bar: float, tries: int = TRIES) -> Timing:
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return Timing(name, statistics.median(taken), max(taken) - min(taken), bar)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
