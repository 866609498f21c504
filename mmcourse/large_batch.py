"""Contrast over batches that don't fit: in chunks, with cached gradients, gathered.

A contrastive loss learns from all B^2 pairs of a batch. ``chunked_info_nce`` and
``chunked_siglip`` never hold them all; ``in_chunks`` encodes without holding all
activations, GradCache, Gao et al., 2021, arXiv 2101.06983; ``gather`` makes the batches
of several processes one. Each has exactly the gradients of the plain formula. Taught in
07_contrastive_learning and 18_scaling_out.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmcourse.losses import check_pairs

# --- the loss: one chunk of rows at a time ----------------------------------------


def chunked_info_nce(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    chunk: int = 512,
) -> Float[Tensor, ""]:
    """``info_nce`` in memory that grows with B, not with B^2.

    CE(S, i) = mean_i [logsumexp_j S_ij - S_ii]. A chunk of rows of S gives their
    logsumexp, and a part of every column's: logsumexp of the parts is the column's.
    The scores are forgotten and computed again when gradients are asked for.
    """
    check_pairs(a, b, scale)
    _check_chunk(chunk)

    def sums(a: Tensor, b: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
        scores = scale * a @ b.T
        return scores.logsumexp(dim=1), scores.logsumexp(dim=0)

    parts = [_forget(sums, rows, b, scale) for rows in a.split(chunk)]
    by_row = torch.cat([rows for rows, _ in parts])
    by_column = torch.stack([columns for _, columns in parts]).logsumexp(dim=0)
    right = scale * (a * b).sum(dim=1)
    return ((by_row + by_column) / 2 - right).mean()


def chunked_siglip(
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    chunk: int = 512,
) -> Float[Tensor, ""]:
    """``siglip`` in memory that grows with B: its terms are a sum, so chunks are too.

    log sigmoid(x) = log sigmoid(-x) + x mends the diagonal of what counts all as wrong.
    """
    check_pairs(a, b, scale)
    _check_chunk(chunk)

    def all_wrong(a: Tensor, b: Tensor, scale, bias) -> Tensor:
        return F.logsigmoid(-(scale * a @ b.T + bias)).sum()

    wrong = sum(_forget(all_wrong, rows, b, scale, bias) for rows in a.split(chunk))
    right = scale * (a * b).sum(dim=1) + bias
    return -(wrong + right.sum()) / len(a)


def _forget(f: Callable, *args):
    """Call ``f``, and once more when gradients are asked for, to hold less between."""
    return checkpoint(f, *args, use_reentrant=False, preserve_rng_state=False)


def _check_chunk(chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: at least 1 row at a time is needed")


# --- the encoders: one chunk of pictures or texts at a time -----------------------


def in_chunks(encode: Callable[..., Tensor], *inputs: Tensor, chunk: int) -> Tensor:
    """Encode a large batch while holding the activations of one chunk: GradCache.

    ``encode(*inputs) -> (B, D)`` must treat each row by itself (no batch norm). The
    paper embeds without gradients, takes the loss's gradient at the embeddings, then
    encodes each chunk again, with the random numbers of the first time, to carry it to
    the weights. That is checkpointing with the chunk as the block, so autograd does it:
    twice the forward passes for a memory that doesn't grow with B, but for embeddings.
    """
    _check_chunk(chunk)
    rows = {len(x) for x in inputs}
    if len(rows) != 1:
        raise ValueError(f"inputs have {sorted(rows)} rows: as many of each are needed")
    pieces = zip(*(x.split(chunk) for x in inputs), strict=True)
    done = [checkpoint(encode, *piece, use_reentrant=False) for piece in pieces]
    return torch.cat(done)


# --- several processes: one batch -------------------------------------------------


def gather(x: Float[Tensor, "b D"]) -> Float[Tensor, "B D"]:
    """Join the rows of all processes, in their order, and carry gradients back.

    Each process then computes the loss of the whole batch. The gradients of x come from
    the losses of all W processes, so they are W times too large, and the mean over
    processes that DistributedDataParallel takes makes them exactly those of one process
    with the whole batch. Processes may hold different numbers of rows. Without a
    process group it returns ``x``.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return x
    return _Gather.apply(x)


class _Gather(torch.autograd.Function):
    """All-gather; backward: the sum over processes of the gradients of our rows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        mine = torch.tensor([len(x)], device=x.device)
        counts = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, mine)
        ctx.counts = [int(n) for n in counts]
        padded = x.new_zeros(max(ctx.counts), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[dist.get_rank()]
