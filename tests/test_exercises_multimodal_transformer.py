"""Right answers of several styles pass; wrong ones are refused, many by name."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_told, each_mistake

from mmcourse.exercises import check
from mmcourse.exercises.multimodal_transformer import EXERCISES, QUESTIONS
from mmcourse.multimodal import drop_modalities

# --- right answers ----------------------------------------------------------------


def join_as_in_the_solution(tokens, masks):
    return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)


def join_by_filling(tokens, masks):
    batch, _, dim = tokens[0].shape
    n = sum(x.shape[1] for x in tokens)
    joined, mask, start = torch.zeros(batch, n, dim), torch.zeros(batch, n) > 0, 0
    for x, real in zip(tokens, masks, strict=True):
        stop = start + x.shape[1]
        joined[:, start:stop], mask[:, start:stop], start = x, real, stop
    return joined, mask


def join_in_numpy(tokens, masks):
    x = np.concatenate([t.numpy() for t in tokens], axis=1)
    return x, np.hstack([m.numpy() for m in masks])


def join_by_hstack(tokens, masks):
    return torch.hstack(tokens), torch.hstack(masks)


def drop_as_in_the_solution(present, luck, p):
    luck = luck.masked_fill(~present, -1.0)
    best = luck == luck.amax(dim=1, keepdim=True)
    return present & ((luck >= p) | best)


def drop_by_loop(present, luck, p):
    kept = torch.zeros_like(present)
    for b, (here, lots) in enumerate(zip(present.tolist(), luck.tolist(), strict=True)):
        there = [m for m, is_there in enumerate(here) if is_there]
        for m in there:
            kept[b, m] = luck[b, m] >= p or lots[m] == max(lots[n] for n in there)
    return kept


def drop_by_one_hot(present, luck, p):
    best = torch.where(present, luck, -torch.inf).argmax(dim=1)
    return present & ((luck >= p) | F.one_hot(best, luck.shape[1]).bool())


def drop_then_mend(present, luck, p):
    kept = present & ~(luck < p)
    empty = present.any(dim=1) & ~kept.any(dim=1)
    best = (luck * present + present).argmax(dim=1)
    kept[empty, best[empty]] = True
    return kept


def share_as_in_the_solution(weights, spans):
    shares = []
    for start, stop in spans:
        shares.append(weights[..., start:stop].sum(dim=-1).mean(dim=(1, 2)))
    return torch.stack(shares, dim=1)


def share_by_mean_first(weights, spans):
    mean = weights.flatten(1, 2).mean(dim=1)
    return torch.stack([mean[:, a:b].sum(dim=1) for a, b in spans], dim=-1)


def share_by_matrix(weights, spans):
    place = torch.arange(weights.shape[-1])
    member = torch.stack([(place >= a) & (place < b) for a, b in spans]).to(weights)
    return torch.einsum("bhqk,mk->bm", weights, member) / weights[0, :, :, 0].numel()


def share_in_numpy(weights, spans):
    w = weights.numpy()
    each = [w[..., a:b].sum(axis=(1, 2, 3)) for a, b in spans]
    return np.stack(each, axis=1) / (w.shape[1] * w.shape[2])


def shift_as_in_the_solution(tokens, mask, begin):
    first = torch.full_like(tokens[:, :1], begin)
    inputs = torch.cat([first, tokens[:, :-1]], dim=1)
    return inputs, tokens.masked_fill(~mask, -100)


def shift_by_pad(tokens, mask, begin):
    return F.pad(tokens[:, :-1], (1, 0), value=begin), torch.where(mask, tokens, -100)


def shift_by_roll(tokens, mask, begin):
    inputs, labels = tokens.roll(1, dims=1), tokens.clone()
    inputs[:, 0], labels[~mask] = begin, -100
    return inputs, labels


def shift_by_lists(tokens, mask, begin):
    rows = zip(tokens.tolist(), mask.tolist(), strict=True)
    labels = [[t if m else -100 for t, m in zip(*row, strict=True)] for row in rows]
    return [[begin, *row[:-1]] for row in tokens.tolist()], labels


def cross_as_in_the_solution(x, context, mask, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    hidden = ~mask[:, None]
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    return weights.masked_fill(hidden, 0.0) @ v


def cross_by_loop(x, context, mask, w_q, w_k, w_v):
    out = torch.zeros(*x.shape[:2], w_q.shape[1])
    for b, real in enumerate(mask):
        k, v = context[b, real] @ w_k, context[b, real] @ w_v
        for n, query in enumerate(x[b] @ w_q):
            out[b, n] = (k @ query / math.sqrt(len(query))).softmax(dim=0) @ v
    return out


def cross_by_torch(x, context, mask, w_q, w_k, w_v):
    here = mask.any(dim=1)
    q, k, v = x[here] @ w_q, context[here] @ w_k, context[here] @ w_v
    out = torch.zeros(*x.shape[:2], w_q.shape[1])
    out[here] = F.scaled_dot_product_attention(q, k, v, mask[here][:, None])
    return out


def cross_by_large_numbers(x, context, mask, w_q, w_k, w_v):
    q, k, v = x @ w_q / w_q.shape[1] ** 0.5, context @ w_k, context @ w_v
    scores = torch.einsum("bna,bka->bnk", q, k) + torch.where(mask, 0.0, -1e9)[:, None]
    out = torch.einsum("bnk,bka->bna", scores.softmax(dim=-1), v)
    return out * mask.any(dim=1)[:, None, None]


def cross_in_double(*arguments):
    double = (t.double() if t.is_floating_point() else t for t in arguments)
    return cross_as_in_the_solution(*double).nan_to_num()


RIGHT = [
    ("join_tokens", join_as_in_the_solution),
    ("join_tokens", join_by_filling),
    ("join_tokens", join_in_numpy),
    ("join_tokens", join_by_hstack),
    ("drop_lots", drop_as_in_the_solution),
    ("drop_lots", drop_by_loop),
    ("drop_lots", drop_by_one_hot),
    ("drop_lots", drop_then_mend),
    ("attention_share", share_as_in_the_solution),
    ("attention_share", share_by_mean_first),
    ("attention_share", share_by_matrix),
    ("attention_share", share_in_numpy),
    ("shift_right", shift_as_in_the_solution),
    ("shift_right", shift_by_pad),
    ("shift_right", shift_by_roll),
    ("shift_right", shift_by_lists),
    ("cross_attend", cross_as_in_the_solution),
    ("cross_attend", cross_by_loop),
    ("cross_attend", cross_by_torch),
    ("cross_attend", cross_by_large_numbers),
    ("cross_attend", cross_in_double),
]


@pytest.mark.parametrize("id, answer", RIGHT)
def test_right_answers_of_other_styles_pass(id, answer):
    assert_right(id, answer)


def test_an_answer_that_changes_its_inputs_is_right_and_told_so():
    def shift(tokens, mask, begin):
        inputs = shift_as_in_the_solution(tokens, mask, begin)[0]
        tokens[~mask] = -100
        return inputs, tokens

    report = check("shift_right", shift)
    assert report.status == "correct" and "changes its inputs" in report.lines[-1]


def test_the_package_drops_in_the_same_way(monkeypatch):
    here = [[1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]]
    here = torch.tensor(here).bool()
    for seed in range(20):
        luck = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed))
        monkeypatch.setattr(torch, "rand", lambda *_, luck=luck, **__: luck)
        due = drop_as_in_the_solution(here, luck, 0.6)
        assert torch.equal(drop_modalities(here, 0.6), due)
        monkeypatch.undo()


ONE = {
    "join_tokens": ([torch.ones(1, 1, 1)], [torch.tensor([[True]])]),
    "drop_lots": (torch.tensor([[True]]), torch.tensor([[0.1]]), 0.5),
    "attention_share": (torch.ones(1, 1, 1, 1), [(0, 1)]),
    "shift_right": (torch.tensor([[7]]), torch.tensor([[False]]), 1),
    "cross_attend": (
        *(torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([[True]])),
        *(torch.ones(1, 1), torch.ones(1, 1), torch.full((1, 1), 3.0)),
    ),
}
DUE = {
    "join_tokens": (torch.ones(1, 1, 1), torch.tensor([[True]])),
    "drop_lots": torch.tensor([[True]]),
    "attention_share": torch.tensor([[1.0]]),
    "shift_right": (torch.tensor([[1]]), torch.tensor([[-100]])),
    "cross_attend": torch.full((1, 1, 1), 3.0),
}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_one_item_of_one_modality_is_no_special_case(exercise):
    got = exercise.reference(*ONE[exercise.id])
    torch.testing.assert_close(got, DUE[exercise.id])
    answer = next(answer for id, answer in RIGHT if id == exercise.id)
    torch.testing.assert_close(answer(*ONE[exercise.id]), DUE[exercise.id])


def test_the_inputs_by_hand():
    join, drop, share, shift, cross = (e.reference(*e.fixed[0]) for e in EXERCISES)
    assert join[0].flatten().tolist() == [1, 2, 7, 8, 9]
    assert join[1].tolist() == [[True, False, True, True, False]]
    kept = [[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]  # row 2: 0.8 is missing
    assert torch.equal(drop, torch.tensor(kept).bool())
    torch.testing.assert_close(share, torch.tensor([[0.5, 0.5]]))
    assert shift[0].tolist() == [[2, 11, 12, 13], [2, 21, 3, 0]]
    assert shift[1].tolist() == [[11, 12, 13, 3], [21, 3, -100, -100]]
    torch.testing.assert_close(
        cross, torch.tensor([[[3.0, 0.0, 0.0, 6.0]], [[0.0, 0.0, 0.0, 0.0]]])
    )


def test_the_random_masks_hide_and_show_something():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        present = EXERCISES[1].inputs(rng)[0]
        assert present.any(dim=1).all() and not present.all(dim=1).any()
        mask = EXERCISES[4].inputs(rng)[2]
        assert mask.any(dim=1).tolist() == [True, True, True, False]
        assert not mask.all(dim=1).any()
        real = EXERCISES[3].inputs(rng)[1]
        assert real[:, 0].all() and not real[:, -1].any()


# --- the same mistakes, as learners write them ------------------------------------


def joined(part=lambda x: x, real=lambda m: m):
    return lambda tokens, masks: (
        torch.hstack([part(x) for x in tokens]),
        torch.hstack([real(m) for m in masks]),
    )


def zero_padding(tokens, masks):
    pairs = zip(tokens, masks, strict=True)
    zeroed = [x.masked_fill(~m[..., None], 0.0) for x, m in pairs]
    return join_as_in_the_solution(zeroed, masks)


def cut_padding(tokens, masks):
    x, mask = torch.hstack(tokens), torch.hstack(masks)
    return torch.cat([row[m] for row, m in zip(x, mask, strict=True)]), mask[mask]


def in_one_line(tokens, masks):
    rows = [x.reshape(-1, x.shape[-1]) for x in tokens]
    return torch.vstack(rows), torch.cat([m.reshape(-1) for m in masks])


JOINS = {
    "the mask is missing": lambda x, m: torch.hstack(x),
    "tokens first, then the mask": lambda x, m: (torch.hstack(m), torch.hstack(x)),
    "both come in reverse": lambda x, m: (
        torch.hstack([*reversed(x)]),
        torch.hstack([*reversed(m)]),
    ),
    "in another order": lambda x, m: (torch.hstack(x), torch.hstack([*reversed(m)])),
    "True everywhere": joined(real=lambda m: m | True),
    "the mask is turned round": joined(real=lambda m: ~m),
    "there at all": joined(real=lambda m: m | m.any(1)[:, None]),
    "padded tokens became zero": zero_padding,
    "are cut out": cut_padding,
    "in one line": in_one_line,
}


def dropped(row):
    """Apply ``row(there, luck, p)``, the modalities that stay, to each row."""

    def function(present, luck, p):
        kept = torch.zeros_like(present)
        for b in range(len(present)):
            there = present[b].nonzero().flatten().tolist()
            for m in row(there, luck[b], p):
                kept[b, m] = True
        return kept

    return function


def best(there, luck):
    return sorted(there, key=lambda m: -float(luck[m]))[:1]


def lucky(there, luck, p):
    return [m for m in there if luck[m] >= p]


def every(luck):
    return [*range(len(luck))]


def luckiest_of_each_column(present, luck, p):
    luck = torch.where(present, luck, -1.0)
    return ((luck >= p) | (luck == luck.amax(0))) & present


DROPS = {
    "a row can lose everything: the present": dropped(lucky),
    "and drop the lucky": dropped(
        lambda t, u, p: [m for m in t if u[m] < p] + best(t, u)
    ),
    "keep those with little luck, and a row": dropped(
        lambda t, u, p: [m for m in t if u[m] < p]
    ),
    "what is missing comes back": dropped(
        lambda t, u, p: lucky(every(u), u, p) + best(t, u)
    ),
    "or a row can still lose": dropped(
        lambda t, u, p: lucky(t, u, p) + [m for m in best(every(u), u) if m in t]
    ),
    "comes back where it is missing": dropped(
        lambda t, u, p: lucky(t, u, p) + best(every(u), u)
    ),
    "luck <= p": dropped(lambda t, u, p: [m for m in t if u[m] > p] + best(t, u)),
    "gets everything back": dropped(lambda t, u, p: lucky(t, u, p) or t),
    "gets its first modality back": dropped(lambda t, u, p: lucky(t, u, p) or t[:1]),
    "the first modality always stays": dropped(lambda t, u, p: lucky(t, u, p) + t[:1]),
    "only the luckiest stays": dropped(lambda t, u, p: best(t, u)),
    "the luckiest row of each": luckiest_of_each_column,
    "nothing is dropped": dropped(lambda t, u, p: t),
}


def shares(one):
    """Apply ``one(weights, start, stop)`` to each span."""
    return lambda weights, spans: torch.stack(
        [one(weights, start, stop) for start, stop in spans], dim=-1
    )


def renormalised(weights, spans):
    return F.normalize(share_as_in_the_solution(weights, spans), p=1, dim=1)


SHARES = {
    "average over the tokens": shares(
        lambda w, a, b: w[..., a:b].mean(-1).mean(-1).mean(-1)
    ),
    "the strongest token": shares(lambda w, a, b: w[..., a:b].max(-1)[0].mean((1, 2))),
    "add heads and queries up": shares(lambda w, a, b: w[..., a:b].flatten(1).sum(1)),
    "the heads are added": shares(lambda w, a, b: w.sum(1)[..., a:b].sum(-1).mean(-1)),
    "the queries are added": shares(
        lambda w, a, b: w.sum(2)[..., a:b].sum(-1).mean(-1)
    ),
    "only the first head": shares(lambda w, a, b: w[:, 0].mean(1)[:, a:b].sum(-1)),
    "only the first query": shares(lambda w, a, b: w[:, :, 0].mean(1)[:, a:b].sum(-1)),
    "only the last query": shares(lambda w, a, b: w[:, :, -1].mean(1)[:, a:b].sum(-1)),
    "you cut the queries": shares(lambda w, a, b: w[:, :, a:b].sum(2).mean((1, 2))),
    "(start, length)": shares(lambda w, a, n: w[..., a : a + n].sum(-1).mean((1, 2))),
    "one token too many": shares(
        lambda w, a, b: w[..., a : b + 1].sum(-1).mean((1, 2))
    ),
    "get together": renormalised,
    "this is (M, B)": lambda w, s: share_by_mean_first(w, s).T,
    "runs over the items too": lambda w, s: share_by_mean_first(w, s).mean(0),
}


def column(tokens, value):
    return torch.full((len(tokens), 1), value)


def pairs(inputs, labels=lambda t, m, b: torch.where(m, t, -100)):
    return lambda t, m, b: (inputs(t, m, b), labels(t, m, b))


def right_inputs(t, m, b):
    return torch.hstack([column(t, b), t[:, :-1]])


SHIFTS = {
    "not shifted": pairs(lambda t, m, b: t),
    "shift to the left": pairs(lambda t, m, b: torch.hstack([t[:, 1:], column(t, b)])),
    "moved to the front": pairs(lambda t, m, b: torch.hstack([t[:, -1:], t[:, :-1]])),
    "keep the last one": pairs(lambda t, m, b: torch.hstack([column(t, b), t])),
    "in place of the first": pairs(
        lambda t, m, b: torch.hstack([column(t, b), t[:, 1:]])
    ),
    "shift the labels too": pairs(
        right_inputs, lambda t, m, b: torch.where(m, right_inputs(t, m, b), -100)
    ),
    "predict one ahead": pairs(
        lambda t, m, b: t,
        lambda t, m, b: F.pad(torch.where(m, t, -100)[:, 1:], (0, 1), value=-100),
    ),
    "padding counts as a label": pairs(right_inputs, lambda t, m, b: t),
    "the label 0": pairs(right_inputs, lambda t, m, b: t * m),
    "the label -1": pairs(right_inputs, lambda t, m, b: torch.where(m, t, -1)),
    "turned round": pairs(right_inputs, lambda t, m, b: torch.where(m, -100, t)),
    "the mask has moved along": pairs(
        right_inputs,
        lambda t, m, b: torch.where(F.pad(m[:, :-1], (1, 0), value=True), t, -100),
    ),
    "stands in the inputs: ": pairs(
        lambda t, m, b: torch.hstack([column(t, b), torch.where(m, t, -100)[:, :-1]])
    ),
    "inputs, where the mask": pairs(
        lambda t, m, b: torch.where(m, right_inputs(t, m, b), -100)
    ),
    "changed places": lambda t, m, b: (torch.where(m, t, -100), right_inputs(t, m, b)),
    "the labels are missing": right_inputs,
}


def crossed(width=None, hide=lambda s, real: s.masked_fill(~real, -torch.inf), **how):
    """Attend by einsum; ``hide`` and ``mend`` see scores and weights (B, N, K)."""
    mend = how.get("mend", lambda w, real: w.masked_fill(~real, 0.0))

    def function(x, context, mask, w_q, w_k, w_v):
        q, k = torch.einsum("bnd,da->bna", x, w_q), context @ w_k
        divisor = (width or (lambda *a: w_q.shape[1] ** 0.5))(x, context, w_q)
        scores = torch.einsum("bna,bka->bnk", q, k) / divisor
        real = mask[:, None].expand_as(scores)
        weights = mend(hide(scores, real).softmax(how.get("axis", -1)), real)
        values = how.get("values", lambda c, k, w_v: c @ w_v)(context, k, w_v)
        return weights if values is None else weights @ values

    return function


def as_it_is(s, real):
    return s


CROSSES = {
    "you forgot the scaling": crossed(lambda x, c, w: 1),
    "divide by A itself": crossed(lambda x, c, w: w.shape[1]),
    "by sqrt(D)": crossed(lambda x, c, w: x.shape[-1] ** 0.5),
    "by sqrt(E)": crossed(lambda x, c, w: c.shape[-1] ** 0.5),
    "the number of keys": crossed(lambda x, c, w: c.shape[1] ** 0.5),
    "the mask is not used": crossed(hide=as_it_is, mend=as_it_is),
    "turned round": lambda x, c, m, *w: crossed()(x, c, ~m, *w),
    "mask after the softmax": crossed(hide=as_it_is),
    "has no value, but": crossed(hide=lambda s, real: s * real),
    "hidden scores become 0": crossed(hide=lambda s, real: s * real, mend=as_it_is),
    "nothing to read is NaN": crossed(mend=as_it_is),
    "looks at everything alike": crossed(
        hide=lambda s, real: torch.where(real, s, -1e6), mend=as_it_is
    ),
    "runs over the queries": crossed(axis=1),
    "keys and values changed": lambda x, c, m, q, k, v: crossed()(x, c, m, q, v, k),
    "you mix the context": crossed(values=lambda c, k, w_v: c),
    "you mix the keys": crossed(values=lambda c, k, w_v: k),
    "these are the weights": crossed(values=lambda c, k, w_v: None),
}

MISTAKES = {
    "join_tokens": JOINS,
    "drop_lots": DROPS,
    "attention_share": SHARES,
    "shift_right": SHIFTS,
    "cross_attend": CROSSES,
}


@each_mistake(MISTAKES)
def test_mistakes_of_another_style_are_recognised(id, told, answer):
    assert_told(id, told, answer)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_each_mistake_has_its_own_message_and_is_written_out_above(exercise):
    for told in MISTAKES[exercise.id]:
        assert len([m for m in exercise.mistakes if told in m]) == 1, told
    assert len(MISTAKES[exercise.id]) == len(exercise.mistakes)
    for message, mistake in exercise.mistakes.items():
        assert check(exercise.id, mistake).lines[-1] == f"  ✗ {message}"


def test_a_context_of_zeros_is_read_with_weight():
    def zeroed(x, context, mask, *weights):
        context = context.masked_fill(~mask[..., None], 0.0)
        return cross_as_in_the_solution(x, context, mask | True, *weights)

    assert "has no value, but" in check("cross_attend", zeroed).lines[-1]


# --- wrong, and nobody listed it --------------------------------------------------

UNLISTED = [
    ("join_tokens", lambda x, m: [torch.hstack(x), torch.hstack(m)]),
    ("join_tokens", lambda x, m: (torch.hstack(x), torch.hstack(m).float())),
    ("join_tokens", lambda x, m: (torch.hstack(x).flip(1), torch.hstack(m).flip(1))),
    ("join_tokens", lambda x, m: (torch.vstack(x), torch.vstack(m))),
    ("drop_lots", lambda here, luck, p: drop_then_mend(here, luck, p).float()),
    ("drop_lots", lambda here, luck, p: drop_then_mend(here, luck, 0.5)),
    ("drop_lots", lambda here, luck, p: drop_then_mend(here, 1 - luck, p)),
    ("attention_share", lambda w, s: share_in_numpy(w, s).squeeze()),
    ("attention_share", lambda w, s: share_by_mean_first(w**2, s)),
    ("shift_right", lambda t, m, b: shift_by_pad(t, m, 0)),
    ("shift_right", lambda t, m, b: shift_by_pad(t.flip(1), m, b)),
    ("shift_right", lambda t, m, b: (*shift_by_pad(t, m, b), m)),
    ("cross_attend", crossed(lambda x, c, w: 2.0)),
    ("cross_attend", lambda x, c, m, q, k, v: (c @ v).mean(1, True) + 0 * (x @ q)),
    ("cross_attend", crossed(hide=lambda s, real: s.sigmoid())),
]


@pytest.mark.parametrize("id, answer", UNLISTED)
def test_a_wrong_answer_that_nobody_listed_is_refused(id, answer):
    assert check(id, answer).status == "incorrect"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_half_an_answer_is_refused(exercise):
    wrong = check(exercise.id, lambda *arguments: exercise.reference(*arguments)[:0])
    assert wrong.status == "incorrect"


def without_brackets(present, luck, p):
    luck = torch.where(present, luck, -1.0)
    best = luck == luck.max(dim=1, keepdim=True).values
    return present & (luck >= p) | best


def one_hot_at_the_end(present, luck, p):
    best = torch.where(present, luck, -torch.inf).argmax(dim=1)
    return present & (luck >= p) | F.one_hot(best, luck.shape[1]).bool()


@pytest.mark.parametrize("answer", [without_brackets, one_hot_at_the_end])
def test_a_row_that_has_nothing_may_get_nothing(answer):
    """Right wherever a row has something; the check asks about a row without."""
    line = check("drop_lots", answer).lines[-1]
    assert "a row that has nothing keeps nothing (are there brackets" in line


# --- questions --------------------------------------------------------------------


def test_the_right_answers():
    right = {q.id: [*q.answers][q.right] for q in QUESTIONS}
    assert right["no-picture"] == "nothing"
    assert right["dropout-price"].startswith("it costs little where all are there")
    assert right["attention-is-share"].startswith("no: weights say what is read")
