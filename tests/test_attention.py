"""Attention against a loop, against torch, and against what it must not depend on."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.attention import (
    Attend,
    KVCache,
    MultiHeadAttention,
    _check_heads,
    attention,
    causal_mask,
)
from mmcourse.transformer import Rotary


def by_loop(q, k, v, mask=None):
    """One query after the other, one key after the other."""
    out, weights = torch.zeros(len(q), v.shape[1]), torch.zeros(len(q), len(k))
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if mask is None or mask[i, j]]
        scores = [math.exp(float(q[i] @ k[j]) / math.sqrt(q.shape[1])) for j in seen]
        for j, score in zip(seen, scores, strict=True):
            weights[i, j] = score / sum(scores)
            out[i] += weights[i, j] * v[j]
    return out, weights


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 8), st.booleans())
def test_equals_a_loop(n, keys, dim, masked):
    torch.manual_seed(n * 100 + keys * 10 + dim)
    q, k, v = torch.randn(n, dim), torch.randn(keys, dim), torch.randn(keys, 3)
    mask = torch.rand(n, keys) > 0.4 if masked else None
    for ours, theirs in zip(
        attention(q, k, v, mask), by_loop(q, k, v, mask), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_by_hand():
    q = torch.tensor([[1.0, 0.0]])
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    v = torch.tensor([[10.0], [20.0]])
    first = math.exp(1 / math.sqrt(2)) / (math.exp(1 / math.sqrt(2)) + 1)
    out, weights = attention(q, k, v)
    assert weights.tolist() == [[pytest.approx(first), pytest.approx(1 - first)]]
    assert out.item() == pytest.approx(10 * first + 20 * (1 - first), abs=1e-5)


def test_equals_torchs_kernel(place):
    q, k, v = torch.randn(3, 2, 4, 7, 16, device=place.device, dtype=place.dtype)
    mask = torch.rand(2, 1, 7, 7, device=place.device) > 0.3
    mask |= torch.eye(7, dtype=torch.bool, device=place.device)
    theirs = F.scaled_dot_product_attention(q, k, v, mask)
    assert torch.allclose(attention(q, k, v, mask)[0], theirs, **place.close)


def test_a_query_that_may_look_nowhere_gets_zeros_and_clean_gradients(place):
    kwargs = {"device": place.device, "dtype": place.dtype}
    layer = MultiHeadAttention(16, 2, bias=False).to(**kwargs)
    x = torch.randn(2, 3, 16, requires_grad=True, **kwargs)
    mask = torch.tensor([[True, True, False], [False] * 3], device=place.device)
    out = layer(x, mask=mask)
    assert (out[1] == 0).all() and (out[0] != 0).any()
    out.sum().backward()
    assert x.grad.isfinite().all() and all(
        p.grad.isfinite().all() for p in layer.parameters()
    )
    plain, weights = attention(x, x, x, mask[:, None])
    assert (plain[1] == 0).all() and (weights[1] == 0).all()


def twin(dim, heads):
    """Torch's layer with our weights."""
    ours = MultiHeadAttention(dim, heads).eval()
    nn.init.normal_(ours.qkv.bias), nn.init.normal_(ours.out.bias)
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True).eval()
    theirs.in_proj_weight, theirs.in_proj_bias = ours.qkv.weight, ours.qkv.bias
    theirs.out_proj.weight, theirs.out_proj.bias = ours.out.weight, ours.out.bias
    return ours, theirs


@pytest.mark.parametrize("kind", ["self", "cross", "padded", "causal", "both"])
def test_multi_head_equals_torch(kind):
    torch.manual_seed(0)
    ours, theirs = twin(24, 4)
    x = torch.randn(3, 6, 24)
    c = torch.randn(3, 9, 24) if kind == "cross" else x
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    later = ~causal_mask(6, 6)
    ours_kwargs, theirs_kwargs = {}, {}
    if kind in ("padded", "both"):
        ours_kwargs["mask"], theirs_kwargs["key_padding_mask"] = mask, ~mask
    if kind in ("causal", "both"):
        ours_kwargs["causal"], theirs_kwargs["attn_mask"] = True, later
    out = ours(x, c if kind == "cross" else None, **ours_kwargs)
    reference = theirs(x, c, c, need_weights=False, **theirs_kwargs)[0]
    assert torch.allclose(out, reference, atol=1e-5)


def test_gradients_equal_torchs():
    torch.manual_seed(0)
    ours, theirs = twin(12, 3)
    x = torch.randn(2, 5, 12)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours(a).square().sum().backward()
    theirs(b, b, b)[0].square().sum().backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-4)


def test_grouped_heads_are_full_heads_with_repeated_keys_and_values():
    torch.manual_seed(0)
    grouped, full = MultiHeadAttention(24, 6, kv_heads=2), MultiHeadAttention(24, 6)
    q, k, v = grouped.qkv.weight.split([24, 8, 8])
    b_q, b_k, b_v = grouped.qkv.bias.split([24, 8, 8])

    def repeat(x):
        return x.unflatten(0, (2, 4)).repeat_interleave(3, 0).flatten(0, 1)

    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat([q, repeat(k), repeat(v)]))
        full.qkv.bias.copy_(torch.cat([b_q, repeat(b_k), repeat(b_v)]))
    full.out = grouped.out
    x = torch.randn(2, 5, 24)
    assert torch.allclose(grouped(x), full(x), atol=1e-6)


def test_padding_and_order_of_keys_change_nothing(place):
    torch.manual_seed(0)
    kwargs = {"device": place.device, "dtype": place.dtype}
    layer = MultiHeadAttention(16, 4).to(**kwargs)
    x, context = torch.randn(2, 3, 16, **kwargs), torch.randn(2, 5, 16, **kwargs)
    out = layer(x, context)
    order = torch.randperm(5, device=place.device)
    assert torch.allclose(layer(x, context[:, order]), out, **place.close)
    padded = torch.cat([context, torch.randn(2, 4, 16, **kwargs)], dim=1)
    mask = (torch.arange(9, device=place.device) < 5).expand(2, -1)
    assert torch.allclose(layer(x, padded, mask), out, **place.close)


def test_self_attention_moves_with_its_tokens():
    layer, x = MultiHeadAttention(16, 4), torch.randn(2, 6, 16)
    order = torch.randperm(6)
    assert torch.allclose(layer(x[:, order]), layer(x)[:, order], atol=1e-6)


def test_causal_sees_no_later_token():
    layer, x = MultiHeadAttention(16, 4), torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4:] = torch.randn(1, 2, 16)
    before, after = layer(x, causal=True), layer(changed, causal=True)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("rotary", [False, True])
def test_the_cache_gives_what_the_whole_sequence_gives(kv_heads, rotary):
    torch.manual_seed(0)
    turn = Rotary(8, 32) if rotary else None
    layer = MultiHeadAttention(32, 4, kv_heads, rotary=turn)
    x = torch.randn(2, 9, 32)
    whole = layer(x, causal=True)
    cache = KVCache(2, kv_heads, 9, 8)
    pieces = [
        layer(x[:, a:b], causal=True, cache=cache)
        for a, b in ((0, 4), (4, 5), (5, 8), (8, 9))
    ]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_a_context_is_projected_once_for_all_calls_on_a_cache():
    layer, context = MultiHeadAttention(16, 2), torch.randn(2, 5, 16)
    x, cache = torch.randn(2, 3, 16), KVCache(2, 2, 5, 8)
    assert torch.allclose(layer(x, context, cache=cache), layer(x, context), atol=1e-6)
    again = layer(x, torch.zeros_like(context), cache=cache)
    assert torch.allclose(again, layer(x, context), atol=1e-6)


def test_the_cache_refuses_more_than_it_holds_and_reorders_rows():
    cache = KVCache(2, 1, 3, 4)
    k = torch.randn(2, 1, 2, 4)
    cache.append(k, k)
    cache.reorder(torch.tensor([1, 1, 0]))
    assert torch.equal(cache.read()[0], k[[1, 1, 0]])
    with pytest.raises(ValueError, match="room for 3 tokens, not 4"):
        cache.append(k[[1, 1, 0]], k[[1, 1, 0]])


def test_normalised_queries_and_keys():
    layer = MultiHeadAttention(16, 2, qk_norm=nn.LayerNorm)
    seen = {}
    layer.attend.register_forward_hook(lambda _, args, out: seen.update(q=args[0]))
    layer(torch.randn(2, 3, 16) * 50)
    assert torch.allclose(seen["q"].mean(-1), torch.zeros(2, 2, 3), atol=1e-5)
    assert torch.allclose(
        seen["q"].std(-1, unbiased=False), torch.ones(2, 2, 3), atol=1e-3
    )


def test_dropout_only_in_training():
    layer, x = MultiHeadAttention(16, 2, dropout=0.5), torch.randn(2, 4, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert isinstance(layer.attend, Attend)


X = torch.randn(2, 3, 8)


def multi(*args, **kwargs):
    """Call a layer of width 8 as a learner does: nobody checks the shapes before."""
    return MultiHeadAttention.forward.__wrapped__(
        MultiHeadAttention(8, 2), *args, **kwargs
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiHeadAttention(100, 3), "dim=100 is not divisible by heads=3"),
        (lambda: MultiHeadAttention(12, 4, 3), "heads=4 is not divisible by kv_heads"),
        (lambda: MultiHeadAttention(12, 0), "heads=0: choose heads from 1, 2, 3"),
        (lambda: MultiHeadAttention(0, 1), "dim=0 leaves no width for a token"),
        (lambda: _check_heads.__wrapped__(12, 2.0, 2), "heads=2.0 is no whole number"),
        (lambda: MultiHeadAttention(8, 2, dropout=-0.1), "dropout=-0.1 is a probab"),
        (lambda: Attend(1.5), "dropout=1.5 is a probability: choose 0 to 1"),
        (lambda: multi(torch.randn(3, 8)), r"x has the shape \(3, 8\): \(B, N, 8\) is"),
        (lambda: multi(torch.randn(2, 1, 3, 8)), r"x has the shape \(2, 1, 3, 8\)"),
        (lambda: multi(torch.randn(2, 3, 9)), "rows of tokens of width dim=8"),
        (lambda: multi(X, torch.randn(2, 3)), r"context has the shape \(2, 3\)"),
        (lambda: multi(X, torch.randn(1, 3, 8)), "x has 2 rows and context 1: each"),
        (lambda: multi(X, mask=torch.ones(2, 3)), r"torch.float32: use mask.bool\(\)"),
        (
            lambda: attention.__wrapped__(X, X, X, torch.ones(3, 3, dtype=torch.int)),
            r"the mask holds torch.int32: use mask.bool\(\), True where a query may",
        ),
        (
            lambda: MultiHeadAttention(8, 2)(
                torch.randn(2, 3, 8), mask=torch.ones(2, 4, dtype=torch.bool)
            ),
            r"shape \(2, 4\): \(2, 3\) or \(2, 3, 3\)",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
