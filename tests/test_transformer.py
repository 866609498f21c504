"""Positions, blocks, encoder and decoder against torch, transformers and by hand."""

import math

import pytest
import torch
import transformers
from torch import nn

from mmcourse.transformer import (
    MLP,
    Block,
    Decoder,
    DecoderConfig,
    Encoder,
    GatedMLP,
    LayerScale,
    Rotary,
    TokenEmbedding,
    sinusoidal,
)


def test_sinusoidal_by_hand():
    table = sinusoidal(torch.tensor([0.0, 3.0]), 4)
    slow = 3 / 10_000 ** (2 / 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    expected = [math.sin(3), math.cos(3), math.sin(slow), math.cos(slow)]
    assert torch.allclose(table[1], torch.tensor(expected), atol=1e-6)
    with pytest.raises(ValueError, match="dim=5"):
        sinusoidal(torch.arange(3.0), 5)


def test_rotary_by_hand_turns_a_pair_by_the_position():
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    turned = Rotary(2, 8)(x)
    expected = torch.tensor([[math.cos(n), math.sin(n)] for n in range(3)])
    assert torch.allclose(turned[0, 0], expected, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone():
    rotary, (q, k) = Rotary(16, 64), torch.randn(2, 1, 2, 1, 16)

    def score(n, m):
        return (rotary(q, n) * rotary(k, m)).sum(-1)

    assert torch.allclose(score(7, 3), score(34, 30), atol=1e-5)
    assert not torch.allclose(score(7, 3), score(7, 5), atol=1e-2)


def test_rotary_in_pieces_is_rotary_at_once_and_ends_somewhere():
    rotary, x = Rotary(8, 6), torch.randn(2, 3, 6, 8)
    pieces = [rotary(x[:, :, :2], 0), rotary(x[:, :, 2:], 2)]
    assert torch.equal(torch.cat(pieces, 2), rotary(x))
    assert torch.allclose(rotary(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    with pytest.raises(ValueError, match="7 tokens, but positions for 6"):
        rotary(x, 1)


def test_mlps_by_their_equation():
    x, mlp, gated = torch.randn(3, 8), MLP(8, 20), GatedMLP(8, 20, bias=False)
    hidden = nn.functional.gelu(x @ mlp.up.weight.T + mlp.up.bias)
    assert torch.allclose(mlp(x), hidden @ mlp.down.weight.T + mlp.down.bias, atol=1e-6)
    hidden = nn.functional.silu(x @ gated.gate.weight.T) * (x @ gated.up.weight.T)
    assert torch.allclose(gated(x), hidden @ gated.down.weight.T, atol=1e-6)


def copied(pre_norm, dim=24, heads=4, depth=3):
    """Torch's encoder, and ours with its weights."""
    layer = nn.TransformerEncoderLayer(
        dim, heads, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=pre_norm
    )
    last = nn.LayerNorm(dim) if pre_norm else None
    theirs = nn.TransformerEncoder(layer, depth, last, enable_nested_tensor=False)
    ours = Encoder(dim, depth, heads, hidden=2 * dim, pre_norm=pre_norm)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.2)
    for a, b in zip(ours.blocks, theirs.layers, strict=True):
        a.attention.qkv.weight.data = b.self_attn.in_proj_weight.data
        a.attention.qkv.bias.data = b.self_attn.in_proj_bias.data
        pairs = [(a.attention.out, b.self_attn.out_proj)]
        pairs += [(a.mlp.up, b.linear1), (a.mlp.down, b.linear2)]
        pairs += [(a.norms["attention"], b.norm1), (a.norms["mlp"], b.norm2)]
        for mine, other in pairs:
            mine.load_state_dict(other.state_dict())
    if pre_norm:
        ours.norm.load_state_dict(theirs.norm.state_dict())
    return ours, theirs


@pytest.mark.parametrize("pre_norm", [True, False])
def test_the_encoder_equals_torchs(pre_norm):
    torch.manual_seed(0)
    ours, theirs = copied(pre_norm)
    x, mask = torch.randn(3, 7, 24), torch.arange(7) < torch.tensor([[7], [5], [2]])
    expected = theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(ours(x, mask)[mask], expected[mask], atol=1e-4)


def test_the_encoder_ignores_padding_and_moves_with_its_tokens(place):
    torch.manual_seed(0)
    kwargs = {"device": place.device, "dtype": place.dtype}
    encoder = Encoder(16, 2, 4).to(**kwargs)
    x = torch.randn(2, 5, 16, **kwargs)
    out = encoder(x)
    padded = torch.cat([x, torch.randn(2, 3, 16, **kwargs)], dim=1)
    mask = (torch.arange(8, device=place.device) < 5).expand(2, -1)
    assert torch.allclose(encoder(padded, mask)[:, :5], out, **place.close)
    order = torch.randperm(5, device=place.device)
    assert torch.allclose(encoder(x[:, order]), out[:, order], **place.close)


def test_layer_scale_of_zero_leaves_the_residual_stream_alone():
    block, x = Block(16, 4, layer_scale=0.0), torch.randn(2, 3, 16)
    assert torch.equal(block(x), x)
    assert torch.equal(LayerScale(2, 3.0)(torch.ones(2)), torch.full((2,), 3.0))


def test_a_block_with_cross_attention_sees_its_context():
    block, x = Block(16, 4, cross=True), torch.randn(2, 3, 16)
    context = torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    out = block(x, None, context, mask)
    changed = context.clone()
    changed[1, 2:] = 9.0
    assert torch.allclose(block(x, None, changed, mask), out, atol=1e-6)
    changed[1, 0] = 9.0
    assert not torch.allclose(block(x, None, changed, mask)[1], out[1], atol=1e-3)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_the_decoder_sees_only_the_past_and_the_cache_agrees(positions):
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(11, 16, 16, 2, 2, positions=positions)).eval()
    tokens = torch.randint(0, 11, (2, 9))
    logits = model(tokens)
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    assert torch.allclose(model(changed)[:, :5], logits[:, :5], atol=1e-5)
    assert torch.allclose(model(tokens, last=True), logits[:, -1:], atol=1e-5)
    cache = model.new_cache(2, 9)
    pieces = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 9))]
    assert torch.allclose(torch.cat(pieces, 1), logits, atol=1e-5)
    order = torch.tensor([0, 1, 3, 2, 4, 5, 6, 7, 8])
    assert not torch.allclose(model(tokens[:, order])[:, -1], logits[:, -1], atol=1e-6)


def test_the_decoder_with_a_context_agrees_with_its_cache():
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(11, 16, 16, 2, 2, cross=True)).eval()
    tokens, context = torch.randint(0, 11, (2, 6)), torch.randn(2, 4, 16)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    logits = model(tokens, context, mask)
    cache = model.new_cache(2, 6, keys=4)
    pieces = [model(tokens[:, i : i + 1], context, mask, cache=cache) for i in range(6)]
    assert torch.allclose(torch.cat(pieces, 1), logits, atol=1e-5)
    assert not torch.allclose(model(tokens, context[[1, 0]], mask), logits, atol=1e-3)


def test_the_decoder_learns_one_batch():
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(7, 12, 32, 2, 4, gated=True, norm="rms"))
    tokens = torch.randint(0, 7, (4, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(150):
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert loss < 0.25 and model.head.weight is model.embed.token.weight


def llama(**changes):
    kwargs = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "vocab_size": 60,
        "max_position_embeddings": 64,
    }
    config = transformers.LlamaConfig(**kwargs | changes)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_llama_runs_in_our_decoder(tied, place):
    torch.manual_seed(0)
    theirs = llama(tie_word_embeddings=tied, rope_theta=5e4)
    ours = Decoder.from_llama(theirs).to(place.device, place.dtype)
    theirs = theirs.to(place.device, place.dtype)
    tokens = torch.randint(0, 60, (3, 40), device=place.device)
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens).logits, **place.close)


@pytest.mark.parametrize(
    ("model", "feature"),
    [
        (lambda: llama(hidden_act="gelu"), "hidden_act='gelu'"),
        (lambda: llama(attention_bias=True), "biases"),
        (lambda: llama(head_dim=16), "width of the heads"),
        (
            lambda: llama(
                rope_parameters={
                    "rope_type": "linear",
                    "factor": 2.0,
                    "rope_theta": 1e4,
                }
            ),
            "'linear'",
        ),
        (lambda: nn.Linear(2, 2), "the class Linear"),
    ],
)
def test_a_llama_that_ours_is_not_is_refused_by_name(model, feature):
    with pytest.raises(ValueError, match=feature):
        Decoder.from_llama(model())


def test_token_embeddings():
    embed = TokenEmbedding(5, 4, 8)
    tokens = torch.tensor([[1, 1]])
    x = embed(tokens)
    assert torch.allclose(x[0, 1] - x[0, 0], embed.position[1] - embed.position[0])
    assert torch.equal(embed(tokens[:, :1], 1), x[:, 1:])
    assert TokenEmbedding(5, 4, 8, "rotary").position is None
    with pytest.raises(ValueError, match="5 tokens, but there is room for 4"):
        embed(torch.zeros(1, 5, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"norm": "batch"}, "norm='batch': choose layer or rms"),
        ({"positions": "none"}, "positions='none'"),
        ({"heads": 5}, "dim=128 is not divisible by heads=5"),
    ],
)
def test_what_no_decoder_can_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Decoder(DecoderConfig(**{"vocab": 5, "length": 5} | changes))
