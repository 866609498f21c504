"""torch.compile gives the same numbers with no graph break.

In a process of its own: the shapes checked in the other tests by beartype would be
compiled as well, and no user has them.
"""

import subprocess
import sys

import pytest
import torch

CASES = {
    "encoder": """
from mmcourse.transformer import Encoder
model, x = Encoder(32, 2, 4), torch.randn(2, 6, 32)
run = model
""",
    "vit": """
from mmcourse.vit import ViT, ViTConfig
kwargs = {"registers": 2, "layer_scale": 0.1, "qk_norm": True, "classes": 5}
model = ViT(ViTConfig(32, 8, dim=32, depth=2, heads=4, **kwargs))
x, run = torch.randn(2, 3, 32, 32), model.logits
""",
}
SCRIPT = """
import torch
torch.manual_seed(0)
{case}
device, backend = "{device}", "{backend}"
model.to(device).eval()
x = x.to(device)
compiled = torch.compile(run, fullgraph=True, backend=backend)
with torch.no_grad():
    assert torch.allclose(compiled(x), run(x), atol=1e-5), (compiled(x) - run(x)).max()
compiled(x).sum().backward()
after = [p.grad.clone() for p in model.parameters()]
model.zero_grad(), run(x).sum().backward()
assert all(torch.allclose(a, p.grad, rtol=1e-3, atol=1e-4)
           for a, p in zip(after, model.parameters(), strict=True))
print("the same")
"""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("device", "backend"),
    [
        ("cpu", "aot_eager"),  # traces as inductor does, and needs no C++ compiler
        pytest.param("cuda", "inductor", marks=pytest.mark.gpu),
    ],
)
def test_compiled_it_gives_the_same_in_one_graph(case, device, backend):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    script = SCRIPT.format(case=CASES[case], device=device, backend=backend)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.stdout.strip() == "the same", done.stderr[-2000:]
