"""How a decoder writes: one token after the other, chosen greedily, by lot or by beams.

Top-k: Fan et al., 2018, arXiv 1805.04833; nucleus: Holtzman et al., 2019, arXiv
1904.09751; beams with a length penalty: Wu et al., 2016, arXiv 1609.08144. Taught in
03_transformer and 10_captioning.
"""

import json
import math
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcourse import assets
from mmcourse.transformer import Decoder, DecoderConfig


def next_probabilities(
    logits: Float[Tensor, "*B V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "*B V"]:
    """Return the probabilities that the next token is drawn from.

    softmax(logits / temperature); then only the ``top_k`` likeliest tokens, or the
    fewest whose probabilities reach ``top_p`` together, share all of it. With both, a
    token is kept that both keep; the nucleus is summed over all tokens, before top-k
    cuts (transformers cuts first, shares out, and then sums).
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: choose it above 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: keep at least 1 token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: choose from above 0 to 1")
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    keep = torch.ones_like(probabilities, dtype=torch.bool)
    if top_k is not None:
        keep[..., top_k:] = False
    if top_p is not None:  # the token that crosses top_p still belongs to the nucleus
        keep &= probabilities.cumsum(-1) - probabilities < top_p
    kept = probabilities * keep
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, order, kept)


@torch.no_grad()
def generate(
    model: nn.Module,
    tokens: Int[Tensor, "B N"],
    steps: int,
    *,
    context: Float[Tensor, "B K D"] | None = None,
    context_mask: Bool[Tensor, "B K"] | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    stop: int | None = None,
) -> Int[Tensor, "B N2"]:
    """Continue each row of ``tokens`` by up to ``steps`` tokens, on the KV cache.

    temperature 0 takes the likeliest token; above 0 it is drawn from
    ``next_probabilities``, cut by ``top_k`` and ``top_p``, which are refused where
    nothing is drawn. With ``beams`` > 1, the best of that many continuations by sum of
    log p / length^``length_penalty``. A row ends at the token ``stop`` and is filled
    with it. Prompts of one batch have the same length.
    """
    if tokens.shape[1] == 0 or steps < 1:
        raise ValueError(f"{tokens.shape[1]} tokens, steps={steps}: both at least 1")
    if beams < 1:
        raise ValueError(f"beams={beams}: at least 1 is needed")
    if beams > 1 and temperature > 0:
        raise ValueError("beams search, temperature draws lots: choose one of them")
    if temperature == 0 and (top_k is not None or top_p is not None):
        cuts = f"top_k={top_k}, top_p={top_p}, temperature={temperature}"
        raise ValueError(f"{cuts}: top_k and top_p need temperature > 0")
    if context_mask is not None and context_mask.all():
        context_mask = None  # nothing is hidden: attention is faster without a mask
    if beams == 1:
        args = (tokens, steps, context, context_mask)
        return _by_token(model, *args, (temperature, top_k, top_p), stop)
    if context is not None:
        context = context.repeat_interleave(beams, 0)
    if context_mask is not None:
        context_mask = context_mask.repeat_interleave(beams, 0)
    args = (tokens, steps, context, context_mask)
    return _by_beams(model, *args, beams, length_penalty, stop)


def _by_token(model, tokens, steps, context, context_mask, choice, stop) -> Tensor:
    temperature, top_k, top_p = choice
    cache = _cache(model, tokens, steps, context)
    new, done = tokens, torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in range(steps):
        logits = model(new, context, context_mask, cache=cache, last=True)[:, 0]
        if temperature == 0:
            new = logits.argmax(-1, keepdim=True)
        else:
            p = next_probabilities(logits.float(), temperature, top_k, top_p)
            new = p.multinomial(1)
        if stop is not None:
            new = new.masked_fill(done[:, None], stop)
            done |= new[:, 0] == stop
        tokens = torch.cat([tokens, new], dim=1)
        if stop is not None and done.all():
            break
    return tokens


def _by_beams(model, tokens, steps, context, context_mask, beams, penalty, stop):
    """Keep the best ``beams`` of all continuations of each row, step by step."""
    batch = len(tokens)
    tokens = tokens.repeat_interleave(beams, 0)
    cache = _cache(model, tokens, steps, context)
    scores = torch.full((batch, beams), -math.inf, device=tokens.device)
    scores[:, 0] = 0.0  # at first all beams are the same one
    lengths = torch.zeros(batch * beams, device=tokens.device)
    done = torch.zeros(batch * beams, dtype=torch.bool, device=tokens.device)
    first = torch.arange(batch, device=tokens.device)[:, None] * beams
    new = tokens
    for _ in range(steps):
        logits = model(new, context, context_mask, cache=cache, last=True)[:, 0]
        step = logits.float().log_softmax(-1)  # (B * beams, V)
        if stop is not None:  # what has ended goes on by stop, at no cost
            step[done] = -math.inf
            step[done, stop] = 0.0
        every = scores[..., None] + step.unflatten(0, (batch, beams))
        scores, place = every.flatten(1).topk(beams)
        rows = (first + place // step.shape[1]).flatten()
        new = (place % step.shape[1]).flatten()[:, None]
        tokens = torch.cat([tokens[rows], new], dim=1)
        for own, other in cache:
            own.reorder(rows)
            if other is not None:
                other.reorder(rows)
        lengths, done = lengths[rows] + ~done[rows], done[rows]
        if stop is not None:
            done = done | (new[:, 0] == stop)
            if done.all():
                break
    best = (scores / lengths.view(batch, beams) ** penalty).argmax(-1)
    return tokens[first[:, 0] + best]


def _cache(model: nn.Module, tokens: Tensor, steps: int, context: Tensor | None):
    keys = 0 if context is None else context.shape[1]
    return model.new_cache(len(tokens), tokens.shape[1] + steps, keys)


@cache
def smollm2() -> tuple[Decoder, object]:
    """Load SmolLM2-135M-Instruct into our ``Decoder``; return it and its tokenizer.

    The first time, transformers unpacks its 4-bit numbers (half a minute) and they are
    kept in the cache as 540 MB of float32. Ben Allal et al., 2025, arXiv 2502.02737.
    """
    from transformers import AutoTokenizer

    folder = unpacked()
    config = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
    decoder = Decoder(DecoderConfig(**config))
    decoder.load_state_dict(load_file(folder / "decoder.safetensors"), strict=False)
    return decoder.eval(), AutoTokenizer.from_pretrained(folder)


def unpacked() -> Path:
    """Return the folder of SmolLM2's weights under our names, unpacked before."""
    return assets.built("smollm2-v1", _unpack)


def _unpack(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = next(assets.path("smollm2").glob("*.gguf"))
    kwargs = {"gguf_file": file.name}
    AutoTokenizer.from_pretrained(file.parent, **kwargs).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, dtype=torch.float32, **kwargs
    )
    decoder = Decoder.from_llama(model)
    tensors = decoder.state_dict()
    del tensors["head.weight"]  # tied: the embedding's own matrix
    save_file(tensors, folder / "decoder.safetensors")
    config = json.dumps(asdict(decoder.config))
    (folder / "decoder.json").write_text(config, encoding="utf-8")
