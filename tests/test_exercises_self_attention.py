"""Right answers of several styles pass; wrong ones that nobody listed are refused."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from mmcourse.exercises import check
from mmcourse.exercises.self_attention import EXERCISES


def attend_by_loop(q, k, v):
    rows = []
    for query in q:
        e = torch.stack([torch.exp(query @ key / len(query) ** 0.5) for key in k])
        rows.append(sum(w * value for w, value in zip(e / e.sum(), v, strict=True)))
    return torch.stack(rows)


def attend_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def attend_in_numpy(q, k, v):
    scores = q.numpy() @ k.numpy().T / np.sqrt(k.shape[1])
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) @ v.numpy()


def scale_the_query(q, k, v):
    return torch.softmax(torch.einsum("nd,kd->nk", q / q.shape[1] ** 0.5, k), 1) @ v


def attend_in_double(q, k, v):
    return attend_by_torch(q.double(), k.double(), v.double())


def back_by_loop(n):
    return torch.tensor([[key <= query for key in range(n)] for query in range(n)])


def back_by_compare(n):
    place = torch.arange(n)
    return place[:, None] >= place


def back_in_numpy(n):
    return np.tri(n, dtype=bool)


def back_by_torch(n):
    return nn.Transformer.generate_square_subsequent_mask(n) == 0


def masked_by_exp(scores, mask):
    e = (scores - scores.max()).exp() * mask
    return e / e.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def masked_by_nan_to_num(scores, mask):
    return scores.masked_fill(~mask, -math.inf).softmax(-1).nan_to_num(0.0)


def masked_by_where(scores, mask):
    weights = torch.where(mask, scores, torch.tensor(-1e9)).softmax(-1)
    return torch.where(mask, weights, torch.tensor(0.0))


def masked_and_renormalised(scores, mask):
    kept = scores.softmax(-1) * mask
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept / total, kept)


def masked_in_double(scores, mask):
    e = scores.double().exp() * mask
    return e / e.sum(-1, keepdim=True).clamp(min=1e-300)


def split_by_view(x, heads):
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def split_by_chunks(x, heads):
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


def split_by_unflatten(x, heads):
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).movedim(2, 1)


def heads_by_loop(x, w_q, w_k, w_v, w_o, heads, mask):
    out, d = [], x.shape[-1] // heads
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        q, k, v = x @ w_q[:, part], x @ w_k[:, part], x @ w_v[:, part]
        scores = (q @ k.transpose(1, 2) / d**0.5).masked_fill(~mask[:, None], -1e9)
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, dim=-1) @ w_o


def heads_by_torch(x, w_q, w_k, w_v, w_o, heads, mask):
    layer = nn.MultiheadAttention(x.shape[-1], heads, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([w_q, w_k, w_v], dim=1).T)
        layer.out_proj.weight.copy_(w_o.T)
        return layer(x, x, x, key_padding_mask=~mask)[0]


def heads_by_sdpa(x, w_q, w_k, w_v, w_o, heads, mask):
    q, k, v = (split_by_chunks(x @ w, heads) for w in (w_q, w_k, w_v))
    out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None])
    return out.transpose(1, 2).flatten(2) @ w_o


def heads_in_double(*arguments):
    *tensors, heads, mask = arguments
    return heads_by_sdpa(*(t.double() for t in tensors), heads, mask)


RIGHT = [
    ("scaled_attention", attend_by_loop),
    ("scaled_attention", attend_by_torch),
    ("scaled_attention", attend_in_numpy),
    ("scaled_attention", scale_the_query),
    ("scaled_attention", attend_in_double),
    ("looks_back", back_by_loop),
    ("looks_back", back_by_compare),
    ("looks_back", back_in_numpy),
    ("looks_back", back_by_torch),
    ("masked_weights", masked_by_exp),
    ("masked_weights", masked_by_nan_to_num),
    ("masked_weights", masked_by_where),
    ("masked_weights", masked_and_renormalised),
    ("masked_weights", masked_in_double),
    ("split_heads", split_by_view),
    ("split_heads", split_by_chunks),
    ("split_heads", split_by_unflatten),
    ("multi_head", heads_by_loop),
    ("multi_head", heads_by_torch),
    ("multi_head", heads_by_sdpa),
    ("multi_head", heads_in_double),
]


@pytest.mark.parametrize("id, answer", RIGHT)
def test_right_answers_of_other_styles_pass(id, answer):
    assert check(id, answer).status == "correct", check(id, answer)


# The same mistakes, as learners write them: recognised by what they do.
def nan_by_renormalising(scores, mask):
    kept = scores.exp() * mask
    return kept / kept.sum(-1, keepdim=True)


def times_the_mask(scores, mask):
    return (scores * mask).softmax(-1)


def renormalised_with_epsilon(scores, mask):
    kept = scores.softmax(-1).masked_fill(~mask, 0.0)
    return kept / (kept.sum(-1, keepdim=True) + 1e-8)


def added(scores, mask):
    return (scores + ~mask * -math.inf).softmax(-1)


def halved(q, k, v):
    return (q @ k.T / 2).softmax(-1) @ v


def by_the_width_of_values(q, k, v):
    return (q @ k.T / v.shape[1] ** 0.5).softmax(-1) @ v


def multi(x, w_q, w_k, w_v, w_o, heads, mask, fault):
    cut = "b n (d h) -> b h n d" if fault == "interleaved" else "b n (h d) -> b h n d"
    q, k, v = (rearrange(x @ w, cut, h=heads) for w in (w_q, w_k, w_v))
    if fault == "swapped":
        q, k = k, q
    scores = q @ k.transpose(2, 3) / (2 if fault == "half" else q.shape[-1] ** 0.5)
    hidden = ~mask[:, None, None]
    if fault in ("both", "both NaN"):
        hidden = hidden | ~mask[:, None, :, None]
    scores = scores.masked_fill(hidden, -math.inf)
    weights = scores.softmax(-2 if fault == "axis" else -1)
    if fault == "both":
        weights = weights.nan_to_num(0.0)
    back = cut.split(" -> ")
    out = rearrange(weights @ v, f"{back[1]} -> {back[0]}")
    return out @ (w_o.T if fault == "transposed" else w_o)


def multi_with(fault):
    return lambda *arguments: multi(*arguments, fault)


def filled_where_it_may_look(scores, mask):
    scores[mask] = -math.inf
    return scores.softmax(-1).nan_to_num(0.0)


def viewed(x, heads):
    b, n, d = x.shape
    return x.contiguous().view(b, heads, n, d // heads)


def transposed_before_the_view(x, heads):
    return x.transpose(1, 2).reshape(len(x), heads, -1, x.shape[1])


def below_the_diagonal(n):
    return torch.tensor([[key < query for key in range(n)] for query in range(n)])


@pytest.mark.parametrize(
    "id, answer, told",
    [
        ("masked_weights", nan_by_renormalising, "is NaN"),
        ("masked_weights", times_the_mask, "e^0 = 1"),
        ("masked_weights", filled_where_it_may_look, "inverted"),
        ("masked_weights", added, "every number of your result is NaN"),
        ("scaled_attention", halved, "you divide by 2, the root of the width 4"),
        ("scaled_attention", by_the_width_of_values, "d_k is the width of a key"),
        ("multi_head", multi_with("swapped"), "queries and keys changed places"),
        ("multi_head", multi_with("interleaved"), "every H-th number"),
        ("multi_head", multi_with("transposed"), "w_o is transposed"),
        ("multi_head", multi_with("axis"), "or a softmax over an axis that is all"),
        ("multi_head", multi_with("both"), "rows of the padding are 0"),
        ("multi_head", multi_with("both NaN"), "rows of the padding are NaN"),
        ("split_heads", viewed, "bare reshape"),
        ("split_heads", transposed_before_the_view, "swapped inside each head"),
        ("looks_back", below_the_diagonal, "can't see itself"),
    ],
)
def test_mistakes_of_another_style_are_recognised(id, answer, told):
    report = check(id, answer)
    assert report.status == "incorrect" and told in report.lines[-1], report


def additive(n):
    return torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1) > 0, -math.inf)


def by_cosine(q, k, v):
    return (F.normalize(q, dim=1) @ F.normalize(k, dim=1).T).softmax(1) @ v


def by_sigmoid(scores, mask):
    return scores.sigmoid() * mask


def residual(x, w_q, w_k, w_v, w_o, heads, mask):
    return x + heads_by_loop(x, w_q, w_k, w_v, w_o, heads, mask)


UNLISTED = [
    ("looks_back", additive),
    ("scaled_attention", by_cosine),
    ("masked_weights", by_sigmoid),
    ("masked_weights", renormalised_with_epsilon),
    ("multi_head", multi_with("half")),
    ("split_heads", lambda x, heads: split_by_view(x, heads).flip(1)),
    ("multi_head", residual),
]


@pytest.mark.parametrize("id, answer", UNLISTED)
def test_a_wrong_answer_that_nobody_listed_is_refused(id, answer):
    assert check(id, answer).status == "incorrect"


def test_the_report_names_the_arguments():
    told = check("multi_head", residual).lines[-1]
    assert re.search(
        r"given x \(2, \d, \d+\), w_q \(\d+, \d+\), .*, heads=\d, mask", told
    )


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_half_an_answer_is_refused(exercise):
    wrong = check(exercise.id, lambda *arguments: exercise.reference(*arguments)[:0])
    assert wrong.status == "incorrect"
