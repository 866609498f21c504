"""Decision-level fusion: each modality decides by itself, then they vote or average.

In: logits (B, C) of one classifier a modality. Out: log-probabilities (B, C), which
cross entropy and argmax take as they take logits. A missing modality has no say. What
all of these have in common: a sum over modalities, so that nothing which only two
modalities together know can come out. Taught in 05_fusion.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmcourse.fusion.base import Fusion, weighted

Logits = dict[str, Float[Tensor, "B C"]]
Scores = list[Float[Tensor, "B C"]]  # in the order of ``modalities``
Here = Bool[Tensor, "B M"] | None


class DecisionFusion(Fusion):
    """Combine logits z_m, each divided by its temperature; see the module.

    ``calibrate`` first, on validation data, where the classifiers are over-confident.
    """

    def __init__(self, modalities: Sequence[str], classes: int):
        super().__init__(modalities)
        if classes < 2:
            raise ValueError(f"classes={classes}: a decision is between two at least")
        self.classes = classes
        self.register_buffer("temperatures", torch.ones(len(self.modalities)))

    def forward(
        self, features: dict[str, Tensor], present: dict[str, Tensor] | None = None
    ) -> Float[Tensor, "B C"]:
        """Fuse logits (B, C) into log-probabilities; see ``Fusion``."""
        here = self.here(features, present)
        return self.fuse(self._scores(features, here), here)

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Combine what each modality says; where it is missing, z is zero: uniform."""
        raise NotImplementedError

    def calibrate(self, features: Logits, label: Int[Tensor, " B"]) -> None:
        """Choose the temperature of each modality that makes its p likeliest.

        p = softmax(logits / t), of 200 t from 0.05 to 20. Guo et al., 2017, arXiv
        1706.04599. Give data that the classifiers were not trained on.
        """
        tried = torch.logspace(-1.3, 1.3, 200, device=label.device)
        for i, name in enumerate(self.modalities):
            if name in features:
                logits = features[name].detach()
                losses = [F.cross_entropy(logits / t, label) for t in tried]
                self.temperatures[i] = tried[torch.stack(losses).argmin()]

    def _scores(self, features: Logits, here: Here) -> Scores:
        given = {name: x.shape[1] for name, x in features.items()}
        if set(given.values()) != {self.classes}:
            raise ValueError(f"logits of {given} classes: {self.classes} are needed")
        some = next(iter(features.values()))  # in the place of one that is missing
        parts = zip(self.modalities, self.temperatures, strict=True)
        z = [features.get(name, some) / t for name, t in parts]
        if here is None:
            return z
        return [x.masked_fill(~here[:, i, None], 0.0) for i, x in enumerate(z)]


def _mean(
    z: Scores, here: Here, weight: Float[Tensor, " M"] | None = None
) -> Float[Tensor, "B C"]:
    """sum_m w_m softmax(z_m); the weights of what is there add up to 1."""
    p = [x.softmax(dim=-1) for x in z]
    if here is None and weight is None:
        return _sum(p) / len(p)
    if here is not None:
        weight = here.to(p[0]) if weight is None else here * weight
    weight = (weight / weight.sum(dim=-1, keepdim=True)).to(p[0])
    shares = weight.unsqueeze(-1).unbind(dim=-2)  # (1,) or (B, 1) a modality
    return weighted(shares, p)


def _sum(parts: list[Tensor]) -> Tensor:
    return sum(parts[1:], parts[0])  # without adding to zero


def _log(p: Tensor) -> Tensor:
    return p.add_(torch.finfo(p.dtype).tiny).log()  # p is nobody else's


class Average(DecisionFusion):
    """Mean of the probabilities: p = 1/M sum_m p_m. One sure modality can't rule."""

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Average over what is there."""
        return _log(_mean(z, here))


class WeightedAverage(DecisionFusion):
    """p = sum_m w_m p_m, weighted by how much better than chance each one decides.

    ``fit`` sets w_m from accuracy on validation data; equal before. Where a modality is
    missing, the others' weights are scaled up.
    """

    def __init__(self, modalities: Sequence[str], classes: int):
        super().__init__(modalities, classes)
        self.register_buffer("weights", torch.ones(len(self.modalities)))

    def fit(self, features: Logits, label: Int[Tensor, " B"]) -> None:
        """Set w_m = accuracy_m - 1/C, and at least 0.001, from validation data."""
        z = self._scores(features, None)
        right = torch.stack([(x.argmax(dim=-1) == label).float().mean() for x in z])
        self.weights.copy_((right - 1 / self.classes).clamp(min=1e-3))

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Average by weight over what is there."""
        return _log(_mean(z, here, self.weights))


class Product(DecisionFusion):
    """Product of experts: p ~ prod_m p_m / prior^(M - 1). Anyone can veto.

    In logarithms, logits are added. It is Bayes' rule where the modalities are
    independent given the class. ``prior`` (C,) is uniform where None; a frequent class
    would otherwise count M times. Hinton, 2002, Neural Computation 14.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: int,
        prior: Float[Tensor, " C"] | None = None,
    ):
        super().__init__(modalities, classes)
        prior = torch.full((classes,), 1 / classes) if prior is None else prior
        if prior.shape != (classes,) or bool((prior <= 0).any()):
            raise ValueError(f"prior={prior.tolist()}: give {classes} shares above 0")
        self.register_buffer("prior", prior / prior.sum())

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Add the logits of what is there, and normalise."""
        voices = len(z) if here is None else here.sum(dim=1, keepdim=True)
        return (_sum(z) - (voices - 1) * self.prior.log()).log_softmax(dim=-1)


class Vote(DecisionFusion):
    """Majority vote: the class that most modalities choose.

    A modality whose best classes tie splits its vote among them. The mean probability
    has a voice of less than one vote: it decides ties. (votes + mean p) / (M + 1).
    """

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Count the votes of what is there."""
        total = _mean(z, here)
        for i, x in enumerate(z):
            x = x.detach()  # a vote has no slope
            best = torch.eq(x, x.amax(dim=-1, keepdim=True), out=torch.empty_like(x))
            count = best.sum(dim=-1, keepdim=True)
            total.addcdiv_(best if here is None else best * here[:, i, None], count)
        voices = len(z) if here is None else here.sum(dim=1, keepdim=True)
        return _log(total.div_(voices + 1))


class Stacking(DecisionFusion):
    """A logistic regression on what the modalities say: W [log p_1; ...; log p_M] + b.

    ``fit`` it on predictions for items that the classifiers were not trained on
    (``out_of_fold``), or it learns to trust the one that overfits most. Wolpert, 1992.
    """

    def __init__(self, modalities: Sequence[str], classes: int):
        super().__init__(modalities, classes)
        self.regression = nn.Linear(len(self.modalities) * classes, classes)

    def fuse(self, z: Scores, here: Here) -> Float[Tensor, "B C"]:
        """Weigh every log-probability of every modality."""
        log_p = torch.cat([x.log_softmax(dim=-1) for x in z], dim=-1)
        return self.regression(log_p).log_softmax(dim=-1)

    def fit(
        self, features: Logits, label: Int[Tensor, " B"], decay: float = 1e-3
    ) -> None:
        """Minimise cross entropy + decay |W|^2 by L-BFGS: there is one minimum."""
        z = [x.detach() for x in self._scores(features, None)]
        optimizer = torch.optim.LBFGS(
            self.regression.parameters(), max_iter=200, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.nll_loss(self.fuse(z, None), label)
            loss = loss + decay * self.regression.weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)


def out_of_fold(
    train: Callable[[Tensor], Callable[[Tensor], Tensor]],
    n: int,
    folds: int = 5,
    seed: int = 0,
) -> Float[Tensor, "B C"]:
    """Predict each of ``n`` items by a classifier that has not seen it.

    ``train(rows)`` trains on those row numbers and returns what predicts logits for
    other row numbers; it is called ``folds`` times.
    """
    if not 2 <= folds <= n:
        raise ValueError(f"folds={folds}: choose from 2 to the {n} items")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(folds)
    logits = []
    for i, held_out in enumerate(parts):
        rest = torch.cat([part for j, part in enumerate(parts) if j != i])
        logits.append(train(rest)(held_out))
    return torch.cat(logits)[order.argsort()]
