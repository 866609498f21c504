"""One process of test_large_batch.py: gathered losses and gradients, as JSON.

With WORLD_SIZE it is one of several, joined by gloo; without, it has the whole batch.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmcourse.large_batch import chunked_info_nce, gather
from mmcourse.losses import info_nce, siglip

ROWS = 11
LOSSES = {
    "info_nce": lambda a, b, s: info_nce(a, b, s),
    "siglip": lambda a, b, s: siglip(a, b, s, -s),
    "chunked": lambda a, b, s: chunked_info_nce(a, b, s, 4),
}


class Towers(nn.Module):
    """Two linear towers and a scale."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4).double(), nn.Linear(7, 4).double()
        self.log_scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, a, b):
        """Embed both sides, and say the scale."""
        embedded = (self.a(a), self.b(b))
        return *(F.normalize(x, dim=-1) for x in embedded), self.log_scale.exp()


def main(file: str) -> None:
    """Compute each loss and its gradients, and write them."""
    rank, world = 0, int(os.environ.get("WORLD_SIZE", "0"))
    if world:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, 5).double(), torch.randn(ROWS, 7).double()
    mine = list(torch.arange(ROWS).tensor_split(max(world, 1)))[rank]
    found = {"rows": len(mine)}
    for name, loss in LOSSES.items():
        torch.manual_seed(1)
        towers = Towers()
        model = DistributedDataParallel(towers) if world else towers
        a, b, scale = model(x[mine], y[mine])
        value = loss(gather(a), gather(b), scale)
        value.backward()
        gradients = torch.cat([p.grad.flatten() for p in towers.parameters()])
        found[name] = {"loss": value.item(), "gradients": gradients.tolist()}
    Path(file).write_text(json.dumps(found), encoding="utf-8")
    if world:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
