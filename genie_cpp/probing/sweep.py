"""Trains probes of several learning rates and weight decays at once, on the same batches of features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genie_cpp.errors import GenieError
from genie_cpp.probing.classifier import AttentiveClassifier
from genie_cpp.probing.features import Features


@dataclass(frozen=True)
class ProbeRecipe:
    """How probes are trained; the defaults are V-JEPA 2's frozen evaluation, with 3 blocks of self-attention.

    AdamW; each learning rate falls along a half cosine to 0. A probe for each learning rate and weight decay.
    """

    batch_size: int = 16
    epochs: int = 10
    learning_rates: tuple[float, ...] = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4)
    weight_decays: tuple[float, ...] = (0.01,)
    depth: int = 4
    num_heads: int = 16

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise GenieError(f"probe: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rates", "weight_decays"):
            rates = getattr(self, name)
            if not rates or not all(0 <= rate < math.inf for rate in rates):
                raise GenieError(f"probe: {name} must be numbers from 0, at least one; got {list(rates)}")


@dataclass(frozen=True)
class Head:
    """One probe of a sweep: accuracies (top-1) on the clips it was chosen by and on those of the test."""

    learning_rate: float
    weight_decay: float
    selection: float
    test: float | None
    loss: float  # of the last epoch


@dataclass(frozen=True)
class SweepResult:
    """All probes, in the order of the sweep."""

    heads: list[Head] = field(default_factory=list)

    @property
    def best(self) -> Head:
        """The one with the highest accuracy on the selection clips; of equals the first."""
        return max(self.heads, key=lambda head: head.selection)

    @property
    def accuracy(self) -> float:
        """The best one's on the test clips, or on the selection clips where there are no others."""
        best = self.best
        return best.selection if best.test is None else best.test


def accuracy(probe: AttentiveClassifier, features: Features, batch_size: int, device: torch.device) -> float:
    """Share of clips whose class has the highest logit."""
    right = 0
    probe.eval()
    with torch.no_grad():
        for values, labels in zip(
            features.values.split(batch_size), features.labels.split(batch_size), strict=True
        ):
            logits = probe(values.to(device).float())
            right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(features.labels)


def train_probes(
    training: Features,
    selection: Features,
    test: Features | None = None,
    num_classes: int | None = None,
    recipe: ProbeRecipe | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> SweepResult:
    """A probe for each learning rate and weight decay of `recipe`, trained on `training` only.

    All see the same batches, drawn anew each epoch from `seed`, and start from the same weights. `progress`
    is called with the number of epochs done. Raises GenieError where labels and classes don't fit.
    """
    recipe = recipe or ProbeRecipe()
    sets = [part for part in (training, selection, test) if part is not None]
    count = num_classes or 1 + max(int(part.labels.max()) for part in sets)
    if any(int(part.labels.min()) < 0 or int(part.labels.max()) >= count for part in sets):
        raise GenieError(f"probe: labels must be 0..{count - 1} for {count} classes")
    place = torch.device(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = training.values.shape[2]
        first = AttentiveClassifier(width, recipe.num_heads, depth=recipe.depth, num_classes=count)
    settings = list(itertools.product(recipe.learning_rates, recipe.weight_decays))
    probes, optimizers = [], []
    for rate, decay in settings:
        probe = AttentiveClassifier(width, recipe.num_heads, depth=recipe.depth, num_classes=count)
        probe.load_state_dict(first.state_dict())
        probes.append(probe.to(place).train())
        optimizers.append(torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=decay))
    losses = _fit(probes, optimizers, [rate for rate, _ in settings], training, recipe, seed, place, progress)
    heads = []
    for (rate, decay), probe, loss in zip(settings, probes, losses, strict=True):
        chosen_by = accuracy(probe, selection, recipe.batch_size, place)
        measured = None if test is None else accuracy(probe, test, recipe.batch_size, place)
        heads.append(Head(rate, decay, chosen_by, measured, loss))
    return SweepResult(heads)


def _fit(
    probes: list[AttentiveClassifier],
    optimizers: list[torch.optim.AdamW],
    rates: list[float],
    training: Features,
    recipe: ProbeRecipe,
    seed: int,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> list[float]:
    """Mean loss of each probe in the last epoch."""
    generator = torch.Generator().manual_seed(seed)
    batches = math.ceil(len(training.labels) / recipe.batch_size)
    steps, step = batches * recipe.epochs, 0
    sums = [0.0] * len(probes)
    for epoch in range(recipe.epochs):
        sums = [0.0] * len(probes)
        order: Tensor = torch.randperm(len(training.labels), generator=generator)
        for chosen in order.split(recipe.batch_size):
            values = training.values[chosen].to(device).float()
            labels = training.labels[chosen].to(device)
            factor = 0.5 * (1 + math.cos(math.pi * step / steps))
            step += 1
            for i, (probe, optimizer) in enumerate(zip(probes, optimizers, strict=True)):
                for group in optimizer.param_groups:
                    group["lr"] = rates[i] * factor
                loss = torch.nn.functional.cross_entropy(probe(values), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                sums[i] += float(loss.detach()) / batches
        if progress is not None:
            progress(epoch + 1)
    return sums
