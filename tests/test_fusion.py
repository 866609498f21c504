"""Fusion: each operator against its formula, by hand, with parts missing, trained."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import fusion as fu

NAMES = ("image", "text", "audio")
D, B = 8, 5
SMALL = {
    fu.MUTAN: {"width": 6, "rank": 2},
    fu.MCB: {"width": 32},
    fu.MFB: {"k": 3, "dropout": 0.0},
    fu.TensorFusion: {"inner": 3},
}
LENGTHS = dict(zip(NAMES, (4, 3, 6), strict=True))
VECTORS = pytest.mark.parametrize("kind", fu.FEATURE_LEVEL)
DECISIONS = pytest.mark.parametrize("kind", fu.DECISION_LEVEL)
SEQUENCES = pytest.mark.parametrize("kind", fu.HYBRID_LEVEL)
ALL = pytest.mark.parametrize(
    "kind", fu.FEATURE_LEVEL + fu.DECISION_LEVEL + fu.HYBRID_LEVEL
)


def make(kind, names=NAMES, dim=D):
    torch.manual_seed(0)
    return kind(names, dim, **SMALL.get(kind, {})).eval()


def inputs(kind, names=NAMES, rows=B, dim=D, seed=1):
    torch.manual_seed(seed)
    if kind.tokens:
        return {n: torch.randn(rows, LENGTHS[n], dim) for n in names}
    return {n: torch.randn(rows, dim) for n in names}


def all_there(features):
    return {n: torch.ones(x.shape[:-1], dtype=torch.bool) for n, x in features.items()}


# --- against the formula, written naively ------------------------------------------


def outer(parts):
    """The outer product of one vector per modality, flattened."""
    out = parts[0]
    for part in parts[1:]:
        out = torch.outer(out, part).flatten()
    return out


def with_one(x):
    return torch.cat([torch.ones(1), x])


def affine(layer, x):
    return layer.weight @ x + layer.bias


def naive_concat(m, x):
    joined = [n(p) for n, p in zip(m.norms, x, strict=True)]
    return m.mix.weight @ torch.cat(joined) + m.mix.bias


def naive_weighted_sum(m, x):
    w = m.scores.exp() / m.scores.exp().sum()
    return sum(w[i] * (p.weight @ x[i] + p.bias) for i, p in enumerate(m.project))


def naive_gated(m, x):
    h = [
        torch.tanh(layer.weight @ p + layer.bias)
        for layer, p in zip(m.hidden, x, strict=True)
    ]
    z = 1 / (1 + torch.exp(-(m.gate.weight @ torch.cat(x) + m.gate.bias)))
    if len(x) == 2:
        return z * h[0] + (1 - z) * h[1]
    return sum(z[i * D : (i + 1) * D] * h[i] for i in range(len(x)))


def naive_film(m, x):
    change = sum(c.weight @ p + c.bias for c, p in zip(m.change, x[1:], strict=True))
    return (1 + change[:D]) * x[0] + change[D:]


def naive_mlb(m, x):
    z = math.prod(
        torch.tanh(f.weight @ p + f.bias) for f, p in zip(m.factors, x, strict=True)
    )
    return m.out.weight @ z + m.out.bias


def naive_mfb(m, x):
    z = math.prod(f.weight @ p + f.bias for f, p in zip(m.factors, x, strict=True))
    z = torch.stack([z[i * m.k : (i + 1) * m.k].sum() for i in range(D)])
    z = z.sign() * z.abs().sqrt()
    return z / z.norm()


def naive_mutan(m, x):
    t = [torch.tanh(b.weight @ p + b.bias) for b, p in zip(m.bend, x, strict=True)]
    total = torch.zeros(D)
    for r in range(m.rank):
        rows = slice(r * D, (r + 1) * D)
        parts = zip(m.factors, t, strict=True)
        total += math.prod(f.weight[rows] @ p + f.bias[rows] for f, p in parts)
    return total


def naive_mcb(m, x):
    """The count sketch of the whole outer product: slots and signs add and multiply."""
    sketch = torch.zeros(m.width)
    for at in itertools.product(range(D), repeat=len(x)):
        slot = sum(int(m.places[i, j]) for i, j in enumerate(at)) % m.width
        sign = math.prod(float(m.signs[i, j]) for i, j in enumerate(at))
        sketch[slot] += sign * math.prod(float(x[i][j]) for i, j in enumerate(at))
    sketch = sketch.sign() * sketch.abs().sqrt()
    return m.out.weight @ (sketch / sketch.norm()) + m.out.bias


def naive_tensor_fusion(m, x):
    narrow = [
        with_one(p.weight @ v + p.bias) for p, v in zip(m.project, x, strict=True)
    ]
    return m.out.weight @ outer(narrow) + m.out.bias


def naive_low_rank(m, x):
    total = m.bias.clone()
    for r in range(m.rank):
        rows = slice(r * D, (r + 1) * D)
        factors = [
            torch.cat([f.bias[rows, None], f.weight[rows]], 1) for f in m.factors
        ]
        total += math.prod(w @ with_one(p) for w, p in zip(factors, x, strict=True))
    return total


NAIVE = {
    fu.Concat: naive_concat,
    fu.WeightedSum: naive_weighted_sum,
    fu.Gated: naive_gated,
    fu.FiLM: naive_film,
    fu.MLB: naive_mlb,
    fu.MFB: naive_mfb,
    fu.MUTAN: naive_mutan,
    fu.MCB: naive_mcb,
    fu.TensorFusion: naive_tensor_fusion,
    fu.LowRankFusion: naive_low_rank,
}


def shaken(module):
    """Move every parameter: what starts at zero or one must count too."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module


@VECTORS
@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
@torch.no_grad()
def test_equals_its_formula(kind, names):
    module, features = shaken(make(kind, names)), inputs(kind, names)
    out = module(features)
    for row in range(B):
        naive = NAIVE[kind](module, [features[n][row] for n in names])
        torch.testing.assert_close(out[row], naive, rtol=1e-3, atol=2e-4)


def test_low_rank_fusion_is_tensor_fusion_with_a_sum_of_outer_products():
    low = shaken(make(partial(fu.LowRankFusion, rank=3)))
    full = fu.TensorFusion(NAMES, D, inner=None)
    factors = [torch.cat([f.bias[:, None], f.weight], 1) for f in low.factors]
    factors = [f.view(3, D, D + 1) for f in factors]
    tensor = torch.einsum("roa,rob,roc->oabc", *factors).flatten(1)
    with torch.no_grad():
        full.out.weight.copy_(tensor)
        full.out.bias.copy_(low.bias)
    features = inputs(fu.TensorFusion)
    torch.testing.assert_close(low(features), full(features), rtol=1e-4, atol=1e-3)


def test_compact_bilinear_nears_the_outer_product_as_it_widens():
    """<sketch(x, y), sketch(u, v)> is <x, u><y, v> on average, nearer when wider."""
    torch.manual_seed(0)
    x, y = torch.randn(40, D), torch.randn(40, D)
    right = (x @ x.T) * (y @ y.T)
    errors = []
    for width in (16, 128, 1024, 8192):
        draws = []
        for _ in range(8):
            places = torch.randint(width, (2, D))
            signs = 2.0 * torch.randint(2, (2, D)) - 1
            sketch = fu.compact_bilinear([x, y], places, signs, width)
            draws.append((sketch @ sketch.T - right).square().mean().sqrt())
        errors.append(float(torch.stack(draws).mean() / right.square().mean().sqrt()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 < errors[0]


def test_film_starts_as_the_identity():
    features = inputs(fu.FiLM)
    torch.testing.assert_close(make(fu.FiLM)(features), features["image"])


def test_gated_cross_attention_starts_as_the_identity():
    features = inputs(fu.GatedCrossAttention)
    out = make(fu.GatedCrossAttention)(features)
    torch.testing.assert_close(out, features["image"].mean(dim=1))


def test_a_gate_by_hand():
    """With W_z = 0 the gate is one half: half of each tanh."""
    module = make(fu.Gated, NAMES[:2])
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.zero_()
        for h in module.hidden:
            h.weight.copy_(torch.eye(D))
            h.bias.zero_()
    features = {"image": torch.ones(1, D), "text": torch.zeros(1, D)}
    torch.testing.assert_close(module(features), torch.full((1, D), math.tanh(1) / 2))


# --- decisions by hand -------------------------------------------------------------

P = {
    "image": torch.tensor([[0.6, 0.3, 0.1]]),
    "text": torch.tensor([[0.1, 0.8, 0.1]]),
    "audio": torch.tensor([[0.5, 0.2, 0.3]]),
}


def decide(module):
    return module({n: p.log() for n, p in P.items()}).exp()[0]


def test_average_by_hand():
    torch.testing.assert_close(
        decide(fu.Average(NAMES, 3)), torch.tensor([1.2, 1.3, 0.5]) / 3
    )


def test_product_by_hand():
    product = torch.tensor([0.03, 0.048, 0.003])
    torch.testing.assert_close(decide(fu.Product(NAMES, 3)), product / product.sum())
    prior = torch.tensor([0.2, 0.5, 0.3])
    product = product / prior**2
    torch.testing.assert_close(
        decide(fu.Product(NAMES, 3, prior)), product / product.sum()
    )


@pytest.mark.parametrize("kind", [fu.Vote, fu.Average, fu.WeightedAverage, fu.Product])
def test_autocast_costs_a_decision_nothing(kind):
    z = {name: torch.randn(40, 5).round() for name in NAMES}  # rounded: many ties
    plain = kind(NAMES, 5)(z)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(kind(NAMES, 5)(z), plain)


def test_vote_by_hand_the_majority_beats_one_that_is_sure():
    out = decide(fu.Vote(NAMES, 3))
    torch.testing.assert_close(
        out, torch.tensor([2.4, 1.4333, 0.1667]) / 4, atol=1e-4, rtol=0
    )


def test_a_tie_goes_to_the_higher_mean():
    pair = fu.Vote(NAMES[:2], 3)
    out = pair({n: P[n].log() for n in NAMES[:2]})
    assert out.argmax() == 1


def test_a_modality_whose_best_classes_tie_splits_its_vote_by_hand():
    pair = fu.Vote(NAMES[:2], 3)
    z = {
        NAMES[0]: torch.tensor([[0.0, 0, -40]]),
        NAMES[1]: torch.tensor([[-40.0, 0, -40]]),
    }
    # Votes (1/2, 1/2, 0) and (0, 1, 0), mean p (1/4, 3/4, 0): together 3.
    expected = torch.tensor([[0.25, 0.75, 0]])
    torch.testing.assert_close(pair(z).exp(), expected, rtol=0, atol=1e-6)
    alone = pair(z, {NAMES[1]: torch.tensor([False])}).exp()
    torch.testing.assert_close(alone, torch.tensor([[0.5, 0.5, 0]]), rtol=0, atol=1e-6)


def test_weighted_average_by_hand():
    module = fu.WeightedAverage(NAMES, 2)
    label = torch.tensor([0, 0, 1, 1])
    says = {"image": [0, 0, 1, 1], "text": [0, 0, 1, 0], "audio": [1, 0, 1, 0]}
    logits = {n: 4.0 * F.one_hot(torch.tensor(s), 2) for n, s in says.items()}
    module.fit(logits, label)
    torch.testing.assert_close(module.weights, torch.tensor([0.5, 0.25, 0.001]))


def test_calibrating_finds_the_temperature_that_was_hidden():
    torch.manual_seed(0)
    true = torch.randn(4000, 3)
    label = torch.distributions.Categorical(logits=true).sample()
    module = fu.Average(NAMES[:2], 3)
    module.calibrate({"image": 5 * true, "text": 0.5 * true}, label)
    torch.testing.assert_close(
        module.temperatures, torch.tensor([5.0, 0.5]), rtol=0.1, atol=0
    )


def test_stacking_equals_scikit_learns_regression():
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    label = torch.randint(3, (200,))
    logits = {n: torch.randn(200, 3) + F.one_hot(label, 3) for n in NAMES}
    module = fu.Stacking(NAMES, 3)
    decay = 0.01
    module.fit(logits, label, decay)
    x = torch.cat([logits[n].log_softmax(-1) for n in NAMES], 1).numpy()
    peer = LogisticRegression(C=1 / (2 * decay * 200), tol=1e-8, max_iter=5000)
    right = torch.from_numpy(peer.fit(x, label.numpy()).predict_proba(x)).float()
    torch.testing.assert_close(module(logits).exp(), right, rtol=0, atol=2e-3)


def test_out_of_fold_never_predicts_what_it_trained_on():
    seen = []

    def train(rows):
        def predict(others):
            seen.append((set(rows.tolist()), others.tolist()))
            return others[:, None].float()

        return predict

    out = fu.out_of_fold(train, 11, folds=3)
    assert out[:, 0].tolist() == list(range(11))
    assert sorted(i for _, others in seen for i in others) == list(range(11))
    assert all(not rows & set(others) for rows, others in seen)


@DECISIONS
def test_probabilities_add_up_to_one_however_sure(kind):
    module = make(kind, dim=3)
    logits = {n: 500.0 * x for n, x in inputs(kind, dim=3).items()}
    out = module(logits)
    torch.testing.assert_close(out.exp().sum(dim=-1), torch.ones(B))
    assert torch.isfinite(F.cross_entropy(out, torch.zeros(B, dtype=torch.long)))


@pytest.mark.parametrize("kind", [fu.Vote, fu.Average, fu.WeightedAverage, fu.Product])
def test_a_voice_that_says_nothing_leaves_a_decision_alone(kind):
    """Where both modalities know nothing, no decision-level fusion knows anything."""
    out = kind(NAMES, 4)({n: torch.zeros(1, 4) for n in NAMES})
    torch.testing.assert_close(out.exp()[0, 1:], out.exp()[0, :1].expand(3))


# --- what is missing ---------------------------------------------------------------


@ALL
@pytest.mark.parametrize("missing", NAMES)
def test_what_a_missing_modality_holds_reaches_nothing(kind, missing):
    """NaN there changes nothing, and leaving it out altogether is the same."""
    module, features = shaken(make(kind)), inputs(kind)
    present = all_there(features)
    present[missing][:] = False
    one = module(features, present)
    two = module(
        features | {missing: torch.full_like(features[missing], math.nan)}, present
    )
    three = module({n: x for n, x in features.items() if n != missing})
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-5)


# [1; 0] is how low-rank and tensor fusion leave one out, with or without projections.
LEARNED = [k for k in fu.FEATURE_LEVEL + fu.HYBRID_LEVEL if k is not fu.LowRankFusion]


@pytest.mark.parametrize("kind", LEARNED)
def test_a_missing_modality_is_no_silent_zero(kind):
    module, features = shaken(make(kind)), inputs(kind)
    out = module({n: x for n, x in features.items() if n != "audio"})
    zero = module(features | {"audio": torch.zeros_like(features["audio"])})
    assert (out - zero).abs().max() > 1e-3


def test_decisions_without_a_modality_by_hand():
    for kind in (fu.Average, fu.WeightedAverage, fu.Vote):
        three, two = kind(NAMES, 3), kind(NAMES[:2], 3)
        logits = {n: P[n].log() for n in NAMES[:2]}
        torch.testing.assert_close(three(logits), two(logits))


@ALL
def test_rows_know_only_their_own_presence(kind):
    """A batch of mixed rows gives each row what it gets alone."""
    module, features = shaken(make(kind)), inputs(kind)
    present = all_there(features)
    present["image"][0] = False
    present["text"][1] = False
    present["audio"][2] = present["text"][2] = False
    out = module(features, present)
    for row in range(B):
        at = slice(row, row + 1)
        alone = module(
            {n: x[at] for n, x in features.items()},
            {n: p[at] for n, p in present.items()},
        )
        torch.testing.assert_close(out[at], alone, rtol=1e-4, atol=1e-5)


@ALL
def test_all_present_is_the_same_as_saying_nothing(kind):
    module, features = shaken(make(kind)), inputs(kind)
    torch.testing.assert_close(
        module(features), module(features, all_there(features)), rtol=1e-5, atol=1e-6
    )


@SEQUENCES
def test_padding_changes_nothing(kind):
    module, features = shaken(make(kind)), inputs(kind)
    out = module(features)
    padded = features | {"text": F.pad(features["text"], (0, 0, 0, 3), value=9.0)}
    real = torch.arange(LENGTHS["text"] + 3) < LENGTHS["text"]
    again = module(padded, {"text": real.expand(B, -1)})
    torch.testing.assert_close(out, again, rtol=1e-4, atol=1e-5)


@SEQUENCES
def test_the_order_of_tokens_without_positions_does_not_matter(kind):
    module, features = shaken(make(kind)), inputs(kind)
    turned = {n: x.flip(1) for n, x in features.items()}
    torch.testing.assert_close(module(features), module(turned), rtol=1e-4, atol=1e-5)


# --- training, saving, devices -----------------------------------------------------


@pytest.mark.parametrize("kind", fu.FEATURE_LEVEL + fu.HYBRID_LEVEL)
def test_overfits_one_batch_and_every_parameter_moves(kind):
    """A synergistic batch: the class is the exclusive or of two modalities' signs."""
    torch.manual_seed(0)
    module, head = kind(NAMES, D, **SMALL.get(kind, {})), nn.Linear(D, 2)
    features = inputs(kind, rows=24)
    signs = [x.flatten(1)[:, 0] > 0 for x in features.values()]
    label = (signs[0] ^ signs[1]).long()
    everything = [*module.parameters(), *head.parameters()]
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(everything, lr=1e-2, weight_decay=0.0)
    present = {"audio": torch.arange(24) % 6 != 0, "text": torch.arange(24) % 6 != 1}
    present["image"] = torch.arange(24) % 6 != 2
    if kind.tokens:
        present = {n: p[:, None].expand(-1, LENGTHS[n]) for n, p in present.items()}
    for step in range(400):
        # Now and then without some of them, so that what stands in is trained as well.
        loss = F.cross_entropy(head(module(features)), label)
        loss = loss + F.cross_entropy(head(module(features, present)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 and loss < 0.1:
            break
    assert loss < 0.3
    still = [n for n, p in module.named_parameters() if torch.equal(p, before[n])]
    assert not still


@ALL
def test_everything_random_is_saved(kind):
    module = shaken(make(kind))
    torch.manual_seed(99)
    other = kind(NAMES, D, **SMALL.get(kind, {})).eval()
    other.load_state_dict(module.state_dict())
    features = inputs(kind)
    assert torch.equal(module(features), other(features))


def test_mcb_sketches_are_buffers():
    names = dict(fu.MCB(NAMES, D).named_parameters())
    assert not {"places", "signs"} & names.keys()


@ALL
def test_runs_anywhere(kind, place):
    module = shaken(make(kind)).to(place.device, place.dtype)
    cpu = shaken(make(kind))
    cpu.load_state_dict(
        {
            k: v.float() if v.is_floating_point() else v
            for k, v in module.state_dict().items()
        }
    )
    features = inputs(kind)
    moved = {n: x.to(place.device, place.dtype) for n, x in features.items()}
    out = module(moved)
    out.float().sum().backward() if out.requires_grad else None
    torch.testing.assert_close(out.float().cpu(), cpu(features), **place.close)


@ALL
def test_one_row_is_a_batch(kind):
    assert make(kind)(inputs(kind, rows=1)).shape == (1, D)


# --- Q-Former's masks, and a resampler ---------------------------------------------


def test_the_three_masks_of_a_qformer_by_hand():
    unimodal = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    causal = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    for kind, right in (("unimodal", unimodal), ("causal", causal)):
        assert fu.qformer_mask(2, 2, kind).int().tolist() == right
    assert fu.qformer_mask(2, 3, "full").all()
    with pytest.raises(ValueError, match=r"kind='both': choose from .*unimodal"):
        fu.qformer_mask(2, 2, "both")


@pytest.mark.parametrize(("kind", "hears"), [("unimodal", False), ("full", True)])
def test_the_mask_decides_whether_queries_hear_the_text(kind, hears):
    module = shaken(make(partial(fu.QFormer, kind=kind)))
    features = inputs(fu.QFormer)
    other = features | {"text": torch.randn_like(features["text"])}
    assert torch.allclose(module(features), module(other), atol=1e-6) is not hears


def test_a_resampler_gives_as_many_tokens_whatever_comes_in():
    resampler = fu.PerceiverResampler(D, 2, latents=3)
    for n in (1, 7, 50):
        assert resampler(torch.randn(B, n, D)).shape == (B, 3, D)


def test_the_bottleneck_is_all_that_passes():
    """With the shared tokens cut off, no modality knows of another."""
    module = shaken(make(partial(fu.Bottleneck, depth=2, shared=2)))
    features = inputs(fu.Bottleneck)
    other = features | {"audio": torch.randn_like(features["audio"])}
    seen = []
    module.norm.register_forward_hook(lambda *args: seen.append(args[-1]))
    module(features)
    module(other)
    assert not torch.allclose(seen[0], seen[3], atol=1e-4)  # the image's stream
    seen.clear()
    first = fu.Bottleneck(NAMES, D, depth=1, shared=2).eval()  # no way back yet
    first.norm.register_forward_hook(lambda *args: seen.append(args[-1]))
    first(features)
    first(other)
    assert torch.equal(seen[0], seen[3])


# --- costs and refusals ------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "numbers"),
    [
        (fu.Concat(NAMES, D), 3 * D * D),
        (fu.WeightedSum(NAMES, D), 3 * D * D + 3),
        (fu.Gated(NAMES[:2], D), 2 * D * D + 2 * D * D),
        (fu.Gated(NAMES, D), 3 * D * D + 9 * D * D),
        (fu.FiLM(NAMES, D), 4 * D * D),
        (fu.MLB(NAMES, D, rank=6), 4 * D * 6),
        (fu.MFB(NAMES, D, k=3), 3 * D * D * 3),
        (fu.MUTAN(NAMES, D, width=6, rank=2), 3 * D * 6 * 3),
        (fu.MCB(NAMES, D, width=32), D * 32),
        (fu.TensorFusion(NAMES, D, inner=3), D * 4**3 + 3 * D * 3),
        (fu.LowRankFusion(NAMES, D, rank=2), 3 * 2 * (D + 1) * D),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_costs_as_the_docstrings_say(module, numbers):
    counted = sum(
        p.numel()
        for n, p in module.named_parameters()
        if (p.ndim == 2 and n != "absent") or n == "scores"
    )
    if isinstance(module, fu.LowRankFusion):  # the bias is the 1's column
        counted += sum(f.bias.numel() for f in module.factors)
    assert counted == numbers
    features = {n: torch.randn(4, D) for n in module.modalities}
    cost = fu.cost(module, features)
    assert cost.parameters == sum(p.numel() for p in module.parameters())
    matrices = sum(
        p.numel() for n, p in module.named_parameters() if p.ndim == 2 and n != "absent"
    )
    assert cost.flops == 2 * matrices


@pytest.mark.parametrize("kind", fu.HYBRID_LEVEL)
def test_more_tokens_cost_more(kind):
    module = kind(NAMES, D)
    few, many = (
        fu.cost(module, {m: torch.randn(2, n, D) for m in NAMES}) for n in (2, 8)
    )
    assert few.parameters == many.parameters
    assert 0 < few.flops < many.flops


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fu.Concat("image", D), r"modalities='image': name at least two"),
        (lambda: fu.Concat(("a", "a"), D), r"each once"),
        (lambda: fu.Average(NAMES, 1), r"classes=1"),
        (lambda: fu.Product(NAMES, 2, torch.tensor([1.0, 0.0])), r"shares above 0"),
        (lambda: fu.Bottleneck(NAMES, D, depth=1, alone=1), r"alone=1"),
        (lambda: fu.QFormer(NAMES, D, kind="x"), r"kind='x'"),
        (lambda: fu.out_of_fold(lambda rows: None, 3, folds=4), r"folds=4"),
    ],
)
def test_what_can_not_be_built_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("features", "present", "message"),
    [
        ({}, None, "at least one"),
        ({"smell": torch.ones(2, D)}, None, "smell"),
        ({"image": torch.ones(2, 3, D)}, None, r"takes vectors \(B, D\)"),
        ({"image": torch.ones(2, D), "text": torch.ones(3, D)}, None, "differ in rows"),
        ({"image": torch.ones(2, D), "text": torch.ones(2, 4)}, None, "or in width"),
        (
            {"image": torch.ones(2, D)},
            {"image": torch.ones(3).bool()},
            r"booleans \(2,\)",
        ),
        ({"image": torch.ones(2, D)}, {"image": torch.ones(2)}, "True where real"),
        (
            {"image": torch.ones(2, D)},
            {"image": torch.tensor([True, False])},
            "row 1 has none of",
        ),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(features, present, message):
    with pytest.raises(ValueError, match=message):
        fu.Concat(NAMES, D)(features, present)


def test_decisions_about_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"logits of .* classes: 3 are needed"):
        fu.Average(NAMES, 3)({"image": torch.ones(2, 4)})
