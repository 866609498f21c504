"""Large batches: chunks, cached gradients and several processes change no number."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.large_batch import chunked_info_nce, chunked_siglip, gather, in_chunks
from mmcourse.losses import info_nce, siglip

WORKER = Path(__file__).with_name("gathering.py")


def pairs(rows=23, width=6):
    make = torch.Generator().manual_seed(0)
    return torch.randn(2, rows, width, generator=make, dtype=torch.float64)


def value_and_gradients(loss, *given):
    inputs = [x.clone().requires_grad_() for x in given]
    value = loss(*(F.normalize(x, dim=-1) for x in inputs[:2]), *inputs[2:])
    return [value.detach(), *torch.autograd.grad(value, inputs)]


NUMBERS = torch.tensor([5.0, -3.0], dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
def test_chunks_give_the_plain_formulas_value_and_gradients(chunk):
    given = (*pairs(), *NUMBERS)
    for whole, parts, n in (
        (info_nce, chunked_info_nce, 3),
        (siglip, chunked_siglip, 4),
    ):
        ours = value_and_gradients(lambda *x, f=parts: f(*x, chunk=chunk), *given[:n])
        torch.testing.assert_close(ours, value_and_gradients(whole, *given[:n]))


def test_the_scores_of_the_whole_batch_are_never_held():
    """The largest tensor that backward keeps or makes has chunk * B numbers."""
    rows, chunk, largest = 256, 16, []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest.extend(
                x.numel()
                for x in (out if isinstance(out, tuple) else (out,))
                if isinstance(x, torch.Tensor)
            )
            return out

    a, b = (F.normalize(x, dim=-1).requires_grad_() for x in pairs(rows))
    with Watch():
        chunked_info_nce(a, b, 5.0, chunk).backward()
        chunked_siglip(a, b, 5.0, -3.0, chunk).backward()
    assert max(largest) == chunk * rows
    with Watch():
        info_nce(a, b, 5.0)
    assert max(largest) == rows**2


def test_a_chunk_of_nothing_is_refused():
    a, b = (F.normalize(x, dim=-1) for x in pairs())
    with pytest.raises(ValueError, match="chunk=0"):
        chunked_info_nce(a, b, 1.0, 0)


# --- cached gradients -------------------------------------------------------------


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Dropout(0.5), nn.Linear(32, 4))


def papers_gradients(net, x, y, chunk):
    """Gao et al.'s algorithm as it stands there, with each chunk's random numbers."""
    states, embedded = [], []
    with torch.no_grad():
        for piece in x.split(chunk):
            states.append(torch.get_rng_state())
            embedded.append(net(piece))
    held = torch.cat(embedded).requires_grad_()
    value = info_nce(F.normalize(held, dim=-1), y, 5.0)
    (at_embeddings,) = torch.autograd.grad(value, held)
    net.zero_grad()
    for piece, state, gradient in zip(
        x.split(chunk), states, at_embeddings.split(chunk), strict=True
    ):
        torch.set_rng_state(state)
        net(piece).backward(gradient)
    return value.detach(), [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("chunk", [5, 23])
def test_in_chunks_equals_the_papers_algorithm_dropout_included(chunk):
    net, x = network().double(), pairs()[0]
    y = F.normalize(pairs(width=4)[1], dim=-1)
    torch.manual_seed(1)
    expected = papers_gradients(net, x, y, chunk)
    net.zero_grad()
    torch.manual_seed(1)
    embedded = in_chunks(net, x, chunk=chunk)
    value = info_nce(F.normalize(embedded, dim=-1), y, 5.0)
    value.backward()
    torch.testing.assert_close(value.detach(), expected[0])
    torch.testing.assert_close([p.grad for p in net.parameters()], expected[1])


def test_in_chunks_holds_the_activations_of_one_chunk():
    net, x = network(), torch.randn(64, 6)
    held = set()

    def pack(t):
        held.add(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        in_chunks(net, x, chunk=8)
    assert all(n <= 8 * 6 for n in held)  # inputs of a chunk, no hidden layer


def test_inputs_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 4\] rows"):
        in_chunks(lambda a, b: a + b, torch.ones(3, 2), torch.ones(4, 2), chunk=2)


# --- several processes ------------------------------------------------------------


def test_gather_is_the_identity_alone():
    x = torch.ones(2, 3)
    assert gather(x) is x


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_gradients_of_one(processes, tmp_path):
    """Eleven rows over 2 or 3 processes, so that the last batch is uneven."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    joined = environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
    }
    ranks = {str(r): joined | {"RANK": str(r)} for r in range(processes)}
    started = [
        subprocess.Popen([sys.executable, WORKER, tmp_path / f"{name}.json"], env=env)
        for name, env in {**ranks, "alone": environ}.items()
    ]
    assert [p.wait(timeout=120) for p in started] == [0] * (processes + 1)
    expected = json.loads((tmp_path / "alone.json").read_text("utf-8"))
    for rank in range(processes):
        found = json.loads((tmp_path / f"{rank}.json").read_text("utf-8"))
        assert found["rows"] < expected["rows"] == 11
        for name in ("info_nce", "siglip", "chunked"):
            for key in ("loss", "gradients"):
                torch.testing.assert_close(
                    torch.tensor(found[name][key], dtype=torch.float64),
                    torch.tensor(expected[name][key], dtype=torch.float64),
                )
