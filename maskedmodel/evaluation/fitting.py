"""Training of a probe by gradient: keyed by a seed, its learning rate chosen on a held-out part, never on the test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from maskedmodel.errors import DataError
from maskedmodel.evaluation.bank import Bank, Standardised
from maskedmodel.evaluation.classifiers import HELD_OUT, Accuracy, hold_out
from maskedmodel.evaluation.heads import Lars, loss
from maskedmodel.noise import seeded
from maskedmodel.training.data import StepBatches

FEWEST_STEPS = 300
_SCORED = 512  # samples at a time


@dataclass(frozen=True)
class Recipe:
    """How a head is trained. `rates` are the learning rates to choose from; `warmup` is a share of the steps."""

    rates: tuple[float, ...]
    optimizer: Literal["adamw", "lars"] = "adamw"
    batch: int = 256
    epochs: int = 20
    warmup: float = 0.1
    weight_decay: float = 0.01
    stratified: bool = True  # whether what is held out holds classes in their shares

    def steps(self, samples: int) -> int:
        """Steps for so many samples."""
        return max(self.epochs * math.ceil(samples / min(self.batch, samples)), FEWEST_STEPS)

    def __str__(self) -> str:
        how = f"AdamW, weight decay {self.weight_decay:g}" if self.optimizer == "adamw" else "LARS, momentum 0.9"
        rates = ", ".join(f"{rate:g}" for rate in self.rates)
        return (
            f"{how}, batches of {self.batch}, {self.epochs} epochs ({FEWEST_STEPS} steps at least), {self.warmup:.0%} "
            f"warm-up and then half a cosine; learning rate chosen from {rates} on {HELD_OUT:.0%} of the part fitted "
            f"to, held out{' by class' if self.stratified else ''}, then fitted to all of it"
        )


@dataclass(frozen=True)
class Fitted:
    """A head that was trained, what it chose, and the standardisation of what it is given."""

    head: nn.Module
    data: Standardised
    classes: Tensor
    rate: float
    device: torch.device

    def predict(self, rows: Tensor) -> Tensor:
        """The labels (N,) int64 that it gives to some samples."""
        return self.classes[_predict(self.head, self.data, rows, self.device)]

    def score(self, rows: Tensor, labels: Tensor) -> Accuracy:
        """Its accuracy on some samples, whose labels (N,) are given."""
        return Accuracy.of(int((self.predict(rows) == labels).sum()), len(rows))


def fit(
    make: Callable[[int], nn.Module],
    bank: Bank,
    rows: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Train `make(classes)` on the samples `rows` of a bank, whose labels (N,) are given.

    The same seed gives the same weights bit for bit, on one machine with one number of threads. `tell` is called with
    steps done and steps in all. Raises DataError where there is one class only, or no class with two samples.
    """
    device, tell = device or torch.device("cpu"), tell or (lambda done, steps: None)
    classes, place = torch.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError("A probe needs 2 classes or more to tell apart.", got=f"{len(classes)} class")
    held = torch.from_numpy(hold_out(labels.numpy(), seed))
    if not bool(held.any()) or len(torch.unique(place[~held])) < 2:
        raise DataError(
            "There are too few labelled samples for a probe.",
            expected="2 classes or more, of which one has 2 samples or more",
            got=f"{len(labels)} samples of {len(classes)} classes",
        )
    rate = recipe.rates[0]
    if len(recipe.rates) > 1:
        part = Standardised.of(bank, rows[~held])
        heads = train(make, part, rows[~held], place[~held], len(classes), recipe, recipe.rates, seed, device, tell)
        right = [int((_predict(head, part, rows[held], device) == place[held]).sum()) for head in heads]
        rate = recipe.rates[right.index(max(right))]  # of equally good ones the lowest
    data = Standardised.of(bank, rows)
    (head,) = train(make, data, rows, place, len(classes), recipe, (rate,), seed, device, tell)
    return Fitted(head, data, classes, rate, device)


def train(
    make: Callable[[int], nn.Module],
    data: Standardised,
    rows: Tensor,
    place: Tensor,
    classes: int,
    recipe: Recipe,
    rates: Sequence[float],
    seed: int,
    device: torch.device,
    tell: Callable[[int, int], None],
) -> list[nn.Module]:
    """One head per learning rate, all from the same weights and on the same batches, which are so read once."""
    heads = []
    for _ in rates:
        with seeded(seed):
            heads.append(make(classes).to(device).train())
    optimizers = [_optimizer(head, recipe) for head in heads]
    steps, batch = recipe.steps(len(rows)), min(recipe.batch, len(rows))
    for step, chosen in enumerate(StepBatches(len(rows), batch, seed, 0, steps)):
        own = torch.tensor([index for index, _ in chosen])
        x, valid = data.batch(rows[own], device)
        target = place[own].to(device)
        for head, optimizer, rate in zip(heads, optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * _scale(step, steps, recipe.warmup)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(head(x, valid), target))
            optimizer.step()
        tell(step + 1, steps)
    for head in heads:
        head.eval().requires_grad_(False)
    return heads


def _optimizer(head: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "lars":
        return Lars(list(head.parameters()), lr=0.0)
    return torch.optim.AdamW(head.parameters(), lr=0.0, weight_decay=recipe.weight_decay)


def _scale(step: int, steps: int, warmup: float) -> float:
    rising = max(round(warmup * steps), 1)
    if step < rising:
        return (step + 1) / rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(steps - rising, 1))


@torch.no_grad()
def _predict(head: nn.Module, data: Standardised, rows: Tensor, device: torch.device) -> Tensor:
    """Places of classes (N,), on the CPU."""
    return torch.cat([head(*data.batch(part, device)).argmax(1).cpu() for part in torch.split(rows, _SCORED)])
