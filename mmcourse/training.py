"""The training loop, in sight: loss, backward, clip, step, log.

accelerate gives it devices and several processes; everything else stands here. AdamW:
Loshchilov & Hutter, 2019, arXiv 1711.05101; cosine schedule: 2017, arXiv 1608.03983;
mixup: Zhang et al., 2018, arXiv 1710.09412. Taught in 04_vision_transformer and
18_scaling_out.
"""

import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from mmcourse import plots
from mmcourse.device import pick_device, pick_dtype, seed_everything

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. ``warmup`` is a share of all steps; the rest falls as a cosine.

    ``precision`` is fp32 or bf16; None takes bf16 where the device computes in it.
    ``mixup`` > 0 mixes pictures and labels and needs ``classes``. With a ``folder``, a
    checkpoint is written every ``save_every`` steps and a killed run goes on from it.
    ``device`` is cpu, cuda or mps; None takes the fastest there is.
    """

    epochs: int = 10
    lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float | None = 1.0
    precision: str | None = None
    mixup: float = 0.0
    classes: int | None = None
    seed: int = 0
    device: str | None = None
    folder: str | Path | None = None
    save_every: int = 100

    def __post_init__(self):
        """Refuse settings that can't train."""
        if self.epochs < 1 or self.save_every < 1:
            raise ValueError(
                f"epochs={self.epochs}, save_every={self.save_every}: at least 1 each"
            )
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr}: choose it above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup={self.warmup}: a share of the steps, 0 to below 1"
            )
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip={self.clip}: choose it above 0, or None")
        if self.precision not in (None, "fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}: choose fp32, bf16 or None")
        if self.mixup > 0 and self.classes is None:
            raise ValueError(f"mixup={self.mixup} mixes labels: say how many classes=")


@dataclass
class History:
    """What happened: the loss and learning rate of every step, a record per epoch."""

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    epochs: list[dict[str, float | int]] = field(default_factory=list)

    def plot(self, ax=None):
        """Draw the loss of each step, and the validation loss after each epoch."""
        ax = plots.axes(ax)
        ax.plot(range(1, len(self.loss) + 1), self.loss, linewidth=1, label="training")
        seen = [(e["step"], e["val_loss"]) for e in self.epochs if "val_loss" in e]
        if seen:
            ax.plot(*zip(*seen, strict=True), marker="o", label="validation")
        ax.set(xlabel="step", ylabel="loss")
        ax.legend(frameon=False)
        return ax


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rise in a straight line over the warm-up, then fall as half a cosine to zero.

    ``step`` counts from 0. lr * (s + 1) / w, then lr * (1 + cos(pi t)) / 2.
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    train: DataLoader,
    val: Iterable[Batch] | None,
    config: TrainConfig,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
) -> History:
    """Train ``model`` in place by ``loss(model, batch)`` and return what happened.

    After every epoch the mean loss over ``val`` is logged, and what ``measure(model)``
    returns. Every step draws from a seed of its own, so a run that goes on from a
    checkpoint has the losses of one never stopped; draw in the loss, not in the loader.
    """
    accelerator = _accelerator(config)
    device, bf16 = accelerator.device, _uses_bf16(config, accelerator.device)
    groups = _groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, config.lr, fused=True)
    model, optimizer, train = accelerator.prepare(model, optimizer, train)
    steps = config.epochs * len(train)
    history = _resume(config, steps, accelerator.unwrap_model(model), optimizer)
    start, bare = len(history.loss), accelerator.unwrap_model(model)

    quiet = bool(os.environ.get("TQDM_DISABLE"))  # notebooks' bars don't ask for it
    bar = tqdm(total=steps, initial=start, desc="training", leave=False, disable=quiet)
    for epoch in range(start // len(train), config.epochs):
        train.set_epoch(epoch)
        model.train()
        seen = len(history.loss) - epoch * len(train)
        for batch in accelerator.skip_first_batches(train, seen):
            step = len(history.loss)
            seed_everything(_seed(config.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, config)
            if config.mixup > 0:
                batch = mixup(batch, config.mixup, config.classes)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                value = loss(model, batch)
            optimizer.zero_grad()
            accelerator.backward(value)
            if config.clip is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

            history.loss.append(_finite(value, step))
            history.lr.append(optimizer.param_groups[0]["lr"])
            bar.update()
            bar.set_postfix(loss=f"{history.loss[-1]:.3f}", refresh=False)
            if (step + 1) % config.save_every == 0 and (step + 1) % len(train) > 0:
                _save(config, steps, bare, optimizer, history, accelerator)
        record = {"step": len(history.loss)}
        if val is not None:
            record["val_loss"] = mean_loss(bare, loss, val)
        history.epochs.append(record | (measure(bare) if measure else {}))
        _save(config, steps, bare, optimizer, history, accelerator)
    bar.close()
    bare.eval()
    return history


@torch.no_grad()
def mean_loss(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], val: Iterable[Batch]
) -> float:
    """Return the mean of the loss over batches, in evaluation mode, weighed by size."""
    device = next(model.parameters()).device
    total = rows = 0
    with evaluating(model):
        for batch in val:
            batch = {k: v.to(device) for k, v in batch.items()}
            n = len(next(iter(batch.values())))
            total, rows = total + n * loss(model, batch).item(), rows + n
    if rows == 0:
        raise ValueError("val holds no batches: leave it out, or fill it")
    return total / rows


@contextmanager
def evaluating(model: nn.Module):
    """Switch dropout off for a block of code, then back to what it was."""
    before = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(before)


def mixup(batch: Batch, alpha: float, classes: int) -> Batch:
    """Blend each picture and its label with another's: l x_i + (1 - l) x_j.

    l is drawn from Beta(alpha, alpha), one for the batch; labels become (B, classes).
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    other = torch.randperm(len(batch["label"]), device=batch["label"].device)
    label = F.one_hot(batch["label"], classes).float()
    mixed = {"image": batch["image"], "label": label}
    return batch | {k: share * v + (1 - share) * v[other] for k, v in mixed.items()}


class _Rows(Dataset):
    def __init__(self, tensors: Batch):
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitems__(self, rows: list[int]) -> Batch:
        return {name: values[rows] for name, values in self.tensors.items()}


def batches(tensors: Batch, size: int, shuffle: bool = True) -> DataLoader:
    """Make a loader of batches of tensors that have one row per item."""
    lengths = {name: len(values) for name, values in tensors.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"rows of the tensors: {lengths}; as many of each are needed")
    return DataLoader(_Rows(tensors), size, shuffle, collate_fn=lambda batch: batch)


def _accelerator(config: TrainConfig):
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed)
    cpu = pick_device(config.device).type == "cpu"
    return Accelerator(cpu=cpu, dataloader_config=order)


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision is None:
        return pick_dtype(device) == torch.bfloat16
    return config.precision == "bf16"


def _groups(model: nn.Module, decay: float) -> list[dict]:
    """Decay matrices; leave gains, biases and temperatures alone."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if len(trained) == 0:
        raise ValueError(f"{type(model).__name__} has no parameter to train")
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _seed(seed: int, step: int, process: int) -> int:
    return (seed * 1_000_003 + step * 1_009 + process) % 2**32


def _finite(value: Tensor, step: int) -> float:
    number = value.item()
    if not math.isfinite(number):
        raise FloatingPointError(
            f"the loss of step {step} is {number}: lower lr, clip gradients, or look "
            "for a logarithm of zero; the last checkpoint is untouched"
        )
    return number


# --- checkpoints: one safetensors file, written whole or not at all ---------------


def _checkpoint(config: TrainConfig) -> Path:
    return Path(config.folder) / "last.safetensors"


def _settings(config: TrainConfig, steps: int) -> dict:
    """Return what must agree for a run to go on as if it had never stopped."""
    kept = replace(config, folder=None, device=None, save_every=1)
    return asdict(kept) | {"steps": steps}


def _save(config, steps, model, optimizer, history, accelerator) -> None:
    if config.folder is None or not accelerator.is_main_process:
        return
    tensors = {f"model.{k}": v.clone() for k, v in _changing(model).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v.clone() for k, v in state.items()}
    about = {"settings": _settings(config, steps), "history": asdict(history)}
    path = _checkpoint(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(tensors, part, {k: json.dumps(v) for k, v in about.items()})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers, without what is frozen: whoever calls has that."""
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, p in parameters if not p.requires_grad}
    return {k: v for k, v in model.state_dict().items() if k not in frozen}


def _resume(config, steps, model, optimizer) -> History:
    """Load model and optimiser from the last checkpoint where there is one."""
    if config.folder is None or not _checkpoint(config).exists():
        return History()
    with safe_open(_checkpoint(config), "pt") as file:
        about = {k: json.loads(v) for k, v in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = _settings(config, steps)
    differ = [k for k, v in about["settings"].items() if settings.get(k) != v]
    if differ:
        raise ValueError(
            f"{config.folder} holds a run with another {', '.join(differ)}: choose "
            "another folder, or remove it to begin again"
        )
    of_model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(model.state_dict() | of_model)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return History(**about["history"])
