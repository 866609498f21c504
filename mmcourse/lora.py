"""LoRA: a frozen model learns by small changes of low rank to its matrices.

W x + alpha / r B A x: Hu et al., 2021, arXiv 2106.09685. W stays as it is, A and B
learn; B begins at zero, so the model begins as it was. Taught in
13_vision_language_model.
"""

import math
from collections.abc import Collection, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LoRALinear(nn.Module):
    """A frozen linear layer and a change of rank r: y = W x + b + scale B A x.

    A is ``down`` (r, In), B is ``up`` (Out, r), and scale = ``alpha`` / r, so that
    another rank asks for less tuning. In: (..., In), out: (..., Out).
    """

    def __init__(self, linear: nn.Linear, rank: int = 8, alpha: float | int = 16):
        super().__init__()
        out, into = linear.weight.shape
        if not 1 <= rank <= min(out, into):
            raise ValueError(
                f"rank={rank}: a matrix {out} x {into} has ranks 1 to {min(out, into)}"
            )
        self.linear = linear.requires_grad_(False)
        like = {"device": linear.weight.device, "dtype": torch.float32}
        self.down = nn.Parameter(torch.randn(rank, into, **like) / math.sqrt(into))
        self.up = nn.Parameter(torch.zeros(out, rank, **like))
        self.scale = alpha / rank
        self.strength = 1.0

    def forward(self, x: Float[Tensor, "... In"]) -> Float[Tensor, "... Out"]:
        """Add the change to what the frozen layer says; two thin products."""
        change = x @ self.down.T.to(x) @ self.up.T.to(x)
        return self.linear(x) + self.strength * self.scale * change

    @property
    def weight(self) -> Float[Tensor, "Out In"]:
        """W + scale B A: the one matrix that would do the same."""
        change = self.strength * self.scale * (self.up @ self.down)
        return self.linear.weight + change.to(self.linear.weight)

    @property
    def bias(self) -> Float[Tensor, " Out"] | None:
        """The frozen layer's."""
        return self.linear.bias


def adapt(
    model: nn.Module, names: Collection[str], rank: int = 8, alpha: float | int = 16
) -> nn.Module:
    """Freeze a model, and let its linear layers of these ``names`` change; return it.

    ``names`` are last parts of paths: "qkv" is every block's ``attention.qkv``.
    """
    if any(isinstance(m, LoRALinear) for m in model.modules()):
        raise ValueError("the model has LoRA layers already: merge() them first")
    linear = {n.split(".")[-1] for n, m in model.named_modules() if _is_linear(m)}
    if missing := sorted(set(names) - linear):
        raise ValueError(
            f"no linear layer is called {missing}: choose from {sorted(linear)}"
        )
    model.requires_grad_(False)
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if name in names and _is_linear(child):
                setattr(parent, name, LoRALinear(child, rank, alpha))
    return model


def merge(model: nn.Module) -> nn.Module:
    """Put plain layers with W + scale B A in the place of LoRA's; return the model.

    It does the same, as fast as before ``adapt``; what was frozen stays so.
    """
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, LoRALinear):
                plain = child.linear
                plain.weight = nn.Parameter(child.weight.detach(), requires_grad=False)
                setattr(parent, name, plain)
    return model


def changes(model: nn.Module) -> dict[str, Tensor]:
    """Return the A and B of every LoRA layer, by the names ``load_state_dict`` has."""
    return {
        f"{path}.{name}": p.detach()
        for path, layer in _layers(model)
        for name, p in (("down", layer.down), ("up", layer.up))
    }


def strengthen(model: nn.Module, strength: float | int) -> None:
    """Add ``strength`` times every change: 0 leaves the frozen model, 1 the learnt."""
    for _, layer in _layers(model):
        layer.strength = strength


def _layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    named = model.named_modules()
    return ((path, m) for path, m in named if isinstance(m, LoRALinear))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)
