"""What a model looks at: the attention weights of a forward pass, read by hooks.

The fused kernels never store the weights. A hook on each ``Attend`` computes them from
the same queries and keys, so recording changes no output. Taught in 02_self_attention
and 15_interpretability.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from mmcourse.attention import Attend, attention, causal_mask


@contextmanager
def record_attention(
    model: nn.Module,
) -> Iterator[dict[str, Float[Tensor, "B H N K"]]]:
    """Collect weights (B, H, N, K) by the name of their layer, in order of use.

    ``with record_attention(model) as weights: model(x)``. A layer that runs again
    overwrites what it left before. ValueError for a model without an ``Attend``.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, Attend)}
    if len(layers) == 0:
        raise ValueError(
            f"{type(model).__name__} has no Attend layer: record models built of "
            "mmcourse.attention, or load the weights into one"
        )
    weights: dict[str, Tensor] = {}

    def hook(name: str):
        def record(_, inputs: tuple, output: Tensor) -> None:
            q, k, v, mask, causal = inputs
            if causal:
                mask = causal_mask(q.shape[2], k.shape[2], q.device)
            groups = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            weights[name.removesuffix(".attend")] = attention(q, k, v, mask)[1].detach()

        return record

    handles = [m.register_forward_hook(hook(n)) for n, m in layers.items()]
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()
