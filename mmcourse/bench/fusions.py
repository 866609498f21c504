"""Every fusion against its formula as one would write it down, on the same weights.

The references are what a first implementation looks like: one product a term, loops
over ranks, the whole outer product, attention in plain maths. They take the module
``m`` for its weights and the list ``x`` of one tensor per modality.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcourse import fusion as fu
from mmcourse.attention import Attend, attention
from mmcourse.bench.timing import Race, both_ways
from mmcourse.multimodal import Context, MultimodalConfig, MultimodalTransformer

Vectors = list[Tensor]


def concat(m: fu.Concat, x: Vectors) -> Tensor:
    """W [norm(x_1); ...] + b."""
    parts = [norm(part) for norm, part in zip(m.norms, x, strict=True)]
    return torch.cat(parts, -1) @ m.mix.weight.T + m.mix.bias


def weighted_sum(m: fu.WeightedSum, x: Vectors) -> Tensor:
    """sum softmax(w)_m P_m x_m."""
    projected = torch.stack([p(part) for p, part in zip(m.project, x, strict=True)])
    return (m.scores.softmax(0)[:, None, None] * projected).sum(0)


def gated(m: fu.Gated, x: Vectors) -> Tensor:
    """sum sigmoid(W_z [x])_m tanh(W_m x_m)."""
    hidden = [torch.tanh(f(part)) for f, part in zip(m.hidden, x, strict=True)]
    h = torch.stack(hidden, 1)
    return (torch.sigmoid(m.gate(torch.cat(x, -1))).view(h.shape) * h).sum(1)


def film(m: fu.FiLM, x: Vectors) -> Tensor:
    """gamma * x_1 + beta."""
    changes = [c(part).chunk(2, -1) for c, part in zip(m.change, x[1:], strict=True)]
    gamma, beta = zip(*changes, strict=True)
    return (1 + sum(gamma)) * x[0] + sum(beta)


def mlb(m: fu.MLB, x: Vectors) -> Tensor:
    """P prod tanh(U_m x_m)."""
    parts = [torch.tanh(f(part)) for f, part in zip(m.factors, x, strict=True)]
    return m.out(torch.stack(parts).prod(0))


def mfb(m: fu.MFB, x: Vectors) -> Tensor:
    """sum-pool_k prod U_m x_m, tamed."""
    z = torch.stack([f(part) for f, part in zip(m.factors, x, strict=True)]).prod(0)
    return _tamed(m.drop(z).view(len(z), m.dim, m.k).sum(-1))


def mutan(m: fu.MUTAN, x: Vectors) -> Tensor:
    """sum_r prod t_m N_m^r, one rank after the other."""
    bent = [torch.tanh(b(part)) for b, part in zip(m.bend, x, strict=True)]
    total = torch.zeros(())
    for r in range(m.rank):
        rows = slice(r * m.dim, (r + 1) * m.dim)
        parts = zip(bent, m.factors, strict=True)
        factors = [F.linear(b, f.weight[rows], f.bias[rows]) for b, f in parts]
        total = total.to(factors[0]) + math.prod(factors)
    return total


def mcb(m: fu.MCB, x: Vectors) -> Tensor:
    """The sketches as products with sparse matrices, and the complex FFT."""
    spectra = []
    for part, place, sign in zip(x, m.places, m.signs, strict=True):
        psi = part.new_zeros(m.dim, m.width, dtype=torch.float32)
        psi[torch.arange(m.dim), place] = sign.float()
        with torch.autocast(part.device.type, enabled=False):
            spectra.append(torch.fft.fft(part.float() @ psi))
    return m.out(_tamed(torch.fft.ifft(math.prod(spectra)).real))


def tensor_fusion(m: fu.TensorFusion, x: Vectors) -> Tensor:
    """W vec([1; x_1] (x) [1; x_2] (x) [1; x_3]) by one einsum."""
    narrow = [p(part) for p, part in zip(m.project, x, strict=True)]
    a, b, c = [torch.cat([n.new_ones(len(n), 1), n], -1) for n in narrow]
    return m.out(torch.einsum("bi,bj,bk->bijk", a, b, c).flatten(1))


def low_rank(m: fu.LowRankFusion, x: Vectors) -> Tensor:
    """sum_r prod W_m^r [1; x_m], a batched product a modality."""
    factors = []
    for f, part in zip(m.factors, x, strict=True):
        w = torch.cat([f.bias[:, None], f.weight], 1).view(m.rank, m.dim, -1)
        one = torch.cat([part.new_ones(len(part), 1), part], -1)
        factors.append(torch.einsum("bi,roi->rbo", one, w))
    return math.prod(factors).sum(0) + m.bias


def _tamed(z: Tensor) -> Tensor:
    z = torch.sign(z) * torch.sqrt(torch.abs(z) + 1e-8)
    return z / z.norm(dim=-1, keepdim=True)


def _p(m: nn.Module, x: Vectors) -> Tensor:
    parts = zip(x, m.temperatures, strict=True)
    return torch.stack([F.softmax(part / t, -1) for part, t in parts])


def average(m: fu.Average, x: Vectors) -> Tensor:
    """log mean p_m."""
    return _p(m, x).mean(0).log()


def weighted_average(m: fu.WeightedAverage, x: Vectors) -> Tensor:
    """log sum w_m p_m."""
    w = m.weights / m.weights.sum()
    return (w[:, None, None] * _p(m, x)).sum(0).log()


def product(m: fu.Product, x: Vectors) -> Tensor:
    """log prod p_m / prior^(M - 1), normalised."""
    p = _p(m, x).prod(0) / m.prior ** (len(x) - 1)
    return (p / p.sum(-1, keepdim=True)).log()


def vote(m: fu.Vote, x: Vectors) -> Tensor:
    """log (votes + mean p) / (M + 1), a tied vote split."""
    p = _p(m, x)
    best = (p == p.amax(-1, keepdim=True)).float()
    votes = (best / best.sum(-1, keepdim=True)).sum(0) + p.mean(0)
    return (votes / votes.sum(-1, keepdim=True)).log()


def stacking(m: fu.Stacking, x: Vectors) -> Tensor:
    """log softmax(W [log p_1; ...] + b)."""
    return F.log_softmax(m.regression(torch.cat([*_p(m, x).log()], -1)), -1)


FORMULAS = {
    fu.Concat: concat,
    fu.WeightedSum: weighted_sum,
    fu.Gated: gated,
    fu.FiLM: film,
    fu.MLB: mlb,
    fu.MFB: mfb,
    fu.MUTAN: mutan,
    fu.MCB: mcb,
    fu.TensorFusion: tensor_fusion,
    fu.LowRankFusion: low_rank,
    fu.Vote: vote,
    fu.Average: average,
    fu.WeightedAverage: weighted_average,
    fu.Product: product,
    fu.Stacking: stacking,
}


class PlainAttend(nn.Module):
    """Attention as its equation has it, with all its weights in memory."""

    def forward(self, q, k, v, mask, causal):
        """Attend; the fusions never ask for a causal mask."""
        return attention(q, k, v, mask)[0]


def plainly(module: nn.Module) -> nn.Module:
    """Copy a fusion, its fused attention replaced by the equation."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Attend):
                setattr(parent, name, PlainAttend())
    return module


def fusion(device: torch.device) -> Iterator[Race]:
    """Every fusion, 256 rows of width 256 in three modalities, against its formula."""
    names, rows, dim, tokens = ("a", "b", "c"), 256, 256, 8
    for kind in fu.FEATURE_LEVEL + fu.DECISION_LEVEL + fu.HYBRID_LEVEL:
        ours = kind(names, dim).to(device).eval()
        size, rounds = ((rows, tokens, dim), 15) if kind.tokens else ((rows, dim), 25)
        naive = plainly(ours) if kind.tokens else partial(FORMULAS[kind], ours)
        x = [torch.randn(size, device=device, requires_grad=True) for _ in names]
        racers = {
            "ours": _spread(ours),
            "formula": _spread(naive) if kind.tokens else lambda *x, f=naive: f([*x]),
        }
        yield from both_ways(kind.__name__, racers, tuple(x), device, rounds)


def _spread(module: nn.Module) -> Callable[..., Tensor]:
    """Call a fusion with one argument per modality."""
    return lambda *x: module(dict(zip(module.modalities, x, strict=True)))


def multimodal(device: torch.device) -> Iterator[Race]:
    """The shared decoder's step against torch's decoder, which has no causal mask."""
    from mmcourse.encoders import TextEncoderConfig

    rows, queries, keys = 32, 16, 96
    sizes = {"dim": 256, "depth": 4, "heads": 4}
    text = TextEncoderConfig(vocab=10, length=keys, dim=32, depth=1)
    config = MultimodalConfig(text=text, classes=10, queries=queries, **sizes)
    ours = MultimodalTransformer(config).to(device).eval()
    layer = nn.TransformerDecoderLayer(
        256, 4, 1024, 0.0, "gelu", batch_first=True, norm_first=True
    )
    theirs = nn.TransformerDecoder(layer, 4, nn.LayerNorm(256)).to(device).eval()
    x = torch.randn(rows, queries, 256, device=device, requires_grad=True)
    memory = torch.randn(rows, keys, 256, device=device)
    lengths = torch.linspace(keys // 2, keys, rows, device=device).long()
    mask = torch.arange(keys, device=device) < lengths[:, None]
    racers = {
        "ours": lambda x: ours.read(x, Context(memory, mask, {})),
        "torch": lambda x: theirs(x, memory, memory_key_padding_mask=~mask),
    }
    name = f"shared decoder {rows}x{queries} on {keys}, 4 deep"
    yield from both_ways(name, racers, (x,), device)
