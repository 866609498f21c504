"""Recorded weights are those of the same output, and recording changes nothing."""

import pytest
import torch
from torch import nn

from mmcourse import encoders
from mmcourse.attention import MultiHeadAttention
from mmcourse.encoders import TextEncoder
from mmcourse.interpret import record_attention
from mmcourse.transformer import Decoder, DecoderConfig, Encoder


def test_recording_changes_no_output_and_leaves_no_hook():
    model, x = Encoder(16, 2, 4).eval(), torch.randn(2, 5, 16)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    before = model(x, mask)
    with record_attention(model) as weights:
        assert torch.equal(model(x, mask), before)
    assert [*weights] == ["blocks.0.attention", "blocks.1.attention"]
    for w in weights.values():
        assert w.shape == (2, 4, 5, 5)
        assert torch.allclose(w.sum(-1), torch.ones(2, 4, 5), atol=1e-5)
        assert (w[1, :, :, 3:] == 0).all()
    weights.clear()
    model(x, mask)
    assert weights == {}


def test_the_weights_give_the_layers_output():
    model, x = Encoder(16, 1, 4).eval(), torch.randn(2, 5, 16)
    layer, seen = model.blocks[0].attention, {}
    layer.attend.register_forward_hook(lambda _, a, out: seen.update(v=a[2], out=out))
    with record_attention(model) as weights:
        model(x)
    again = weights["blocks.0.attention"] @ seen["v"]
    assert torch.allclose(again, seen["out"], atol=1e-5)


def test_grouped_heads_have_weights_of_their_own():
    layer, seen = MultiHeadAttention(16, 4, kv_heads=2).eval(), {}
    layer.attend.register_forward_hook(lambda _, a, out: seen.update(v=a[2], out=out))
    with record_attention(layer) as weights:
        layer(torch.randn(2, 5, 16))
    (w,) = weights.values()
    assert seen["v"].shape == (2, 2, 5, 4) and w.shape == (2, 4, 5, 5)
    again = w @ seen["v"].repeat_interleave(2, 1)
    assert torch.allclose(again, seen["out"], atol=1e-5)


def test_causal_weights_look_back_alone():
    model = Decoder(DecoderConfig(9, 8, 16, 1, 2)).eval()
    with record_attention(model) as weights:
        model(torch.randint(0, 9, (1, 6)))
    (w,) = weights.values()
    assert (w.triu(1) == 0).all() and torch.allclose(w.sum(-1), torch.ones(1, 2, 6))


def test_minilms_weights_equal_transformers():
    """The real model: transformers' eager attention returns what our hooks record."""
    theirs = encoders.minilm()
    ours = TextEncoder.from_bert(theirs.model)
    coded = theirs.tokenizer(
        ["the dog barks", "a cat"], padding=True, return_tensors="pt"
    )
    mask = coded["attention_mask"].bool()
    kind = type(theirs.model)
    eager = kind.from_pretrained(
        encoders.assets.path("minilm"), attn_implementation="eager"
    ).eval()
    with torch.no_grad(), record_attention(ours) as weights:
        ours(coded["input_ids"], mask)
        expected = eager(**coded, output_attentions=True).attentions
    for w, e in zip(weights.values(), expected, strict=True):
        real = mask[:, None].expand(-1, 12, -1)
        assert torch.allclose(w[real], e[real], atol=1e-4)


def test_a_model_without_our_attention_is_refused():
    recording = record_attention(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Linear has no Attend layer"), recording:
        pass
