"""Our CLIP beside open_clip's and transformers'; memory of large batches.

All three have one size, and ours has transformers' weights. open_clip is installed by
``make setup-test``.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcourse.bench.timing import Memory, Race, hf_sizes, peak_of, race
from mmcourse.dual_encoder import DualEncoder
from mmcourse.large_batch import chunked_info_nce
from mmcourse.losses import info_nce

ROUNDS = 5  # a step of this size takes many seconds on a CPU
# width, layers, heads and patch of ViT-S/16; width, layers, heads, length, vocabulary
IMAGE, TEXT, SPACE = (384, 12, 6, 16), (384, 6, 6, 32, 16_384), 512
BATCHES = [1024, 2048, 4096, 8192, 16_384, 32_768]
PLAIN = 8192  # the largest batch that the plain formula is tried with


def contrastive(device: torch.device) -> Iterator[Race]:
    """Race a step: both encoders forward, the loss, and backward."""
    size = 1024 if device.type == "cuda" else 64

    def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad()
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                value = loss()
            value.backward()

        return run

    steps = {who: step(*racer) for who, racer in racers(device, size).items()}
    name = f"CLIP step, ViT-S/16 and {TEXT[1]} layers of text, batch {size}"
    yield from race(name, steps.pop("ours"), steps, device, ROUNDS)


def racers(
    device: torch.device, size: int, image: Sequence[int] = IMAGE, text=TEXT
) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Make the three models of one size, and what computes the loss of each."""
    pixels = 14 * image[-1]
    pictures = torch.randn(size, 3, pixels, pixels, device=device)
    tokens = torch.randint(4, text[-1] - 1, (size, text[3]), device=device)
    tokens[:, -1] = text[-1] - 1  # the end, at which all three pool
    hf = _transformers(image, text, pixels).to(device).train()
    ours = DualEncoder.from_hf(hf).to(device).train()
    other = _open_clip(image, text, pixels).to(device).train()
    from open_clip.loss import ClipLoss

    batch = {"image": pictures, "tokens": tokens}
    theirs = {"pixel_values": pictures, "input_ids": tokens, "return_loss": True}
    return {
        "ours": (ours, lambda: ours.loss(*ours(batch))),
        "transformers": (hf, lambda: hf(**theirs).loss),
        "open_clip": (other, lambda: ClipLoss()(*other(pictures, tokens)[:3])),
    }


def _transformers(image: Sequence[int], text: Sequence[int], pixels: int) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        projection_dim=SPACE,
        vision_config=hf_sizes(*image[:3])
        | {"image_size": pixels, "patch_size": image[3], "hidden_act": "gelu"},
        text_config=hf_sizes(*text[:3])
        | {
            "hidden_act": "gelu",
            "max_position_embeddings": text[3],
            "vocab_size": text[4],
            "bos_token_id": None,
            "eos_token_id": text[4] - 1,
        },
        attn_implementation="sdpa",
    )
    return CLIPModel(config)


def _open_clip(image: Sequence[int], text: Sequence[int], pixels: int) -> nn.Module:
    try:
        from open_clip.model import CLIP
    except ImportError as error:
        raise OSError("open_clip isn't installed: run `make setup-test`") from error
    vision = {
        "layers": image[1],
        "width": image[0],
        "head_width": image[0] // image[2],
        "patch_size": image[3],
        "image_size": pixels,
    }
    texts = {
        "context_length": text[3],
        "vocab_size": text[4],
        "width": text[0],
        "heads": text[2],
        "layers": text[1],
    }
    return CLIP(SPACE, vision, texts)


def large_batches(
    device: torch.device, batches: Sequence[int] = BATCHES, width: int = SPACE
) -> Iterator[Memory]:
    """Measure the memory of the loss and its gradients, beyond the embeddings."""
    for size in batches:
        draw = torch.randn(2, size, width, device=device)
        a, b = (F.normalize(x, dim=-1).requires_grad_() for x in draw)

        def held(loss: Callable, a=a, b=b) -> float:
            return peak_of(
                lambda: torch.autograd.grad(loss(a, b, 14.3), (a, b)), device
            )

        plain = held(info_nce) if size <= PLAIN else None
        yield Memory(f"InfoNCE, width {width}", size, held(chunked_info_nce), plain)
