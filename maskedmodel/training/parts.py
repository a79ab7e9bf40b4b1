"""A step as a list of parts, each with a loss and the count that weights it.

What a run learns by is a `Learning`: masked modelling (masked.py) or a task on labels (supervised.py). The loop knows
nothing else of it, so order of data, accumulation, ranks, checkpoints and records are written once for all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.config.sections import TrainSettings
from maskedmodel.tokens import Mask, Tokens
from maskedmodel.training.data import Batch, Broken
from maskedmodel.training.distributed import World
from maskedmodel.training.optimizer import Groups, trained
from maskedmodel.training.tracking import has_bf16


@dataclass(frozen=True, eq=False)
class Part:
    """A micro-batch, ready for the model. `count` is what its loss is a sum over: hidden tokens, say."""

    tokens: Tokens
    mask: Mask | None
    count: float


class Losses(NamedTuple):
    """What a part amounts to.

    summed   the sum of its losses over what `Part.count` counts.
    own      a further loss, a mean over its samples, which is no part of the loss that is recorded.
    samples  the sum of its losses per sample.
    """

    summed: Tensor
    own: Tensor | None = None
    samples: Tensor | None = None


P = TypeVar("P", bound=Part)


M = TypeVar("M", bound=nn.Module)


class Learning(ABC, Generic[M, P]):
    """How a model learns: from a batch to parts, from a part to its loss, and what is measured on the way.

    title     what the progress bar says.
    best_by   the name of the validated number by which the best checkpoint is chosen, and whether higher is better.
    """

    title: str
    best_by: tuple[str, bool] = ("val_loss", False)

    def __init__(self, model: M, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.unread: dict[str, Broken] = {}  # samples of the validation part that were left out

    def note_unread(self, sample: Broken) -> None:
        """Keep a validation sample that can't be read, to be told with the run."""
        self.unread[sample.id] = sample

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer[Any]:
        """What cuts the signals."""

    @abstractmethod
    def parts(self, batch: Batch, progress: float, accumulate: int | None = None) -> list[P]:
        """The micro-batches of a step, all made before the first is used, since their counts weight every loss.

        In `accumulate` parts; as many as the settings say where it isn't given. None of a batch without samples.
        """

    @abstractmethod
    def loss(self, model: nn.Module, part: P, progress: float) -> Losses:
        """The losses of a part.

        `model` is the model, or what wraps it for several ranks: the forward pass goes through it.
        """

    @abstractmethod
    def idle(self, model: nn.Module) -> Tensor:
        """A loss of zero over every parameter, for a rank whose samples are all broken."""

    @abstractmethod
    def validate(self, dataset: SampleDataset, world: World) -> dict[str, float]:
        """What is measured on the validation part, `val_loss` first. The same weights always give the same."""

    def group(self, parts: list[P]) -> list[P]:
        """Parts cut further where that saves work; the sum of their losses stays what it is."""
        return parts

    def fit(self, dataset: SampleDataset) -> None:
        """Measure what settings leave to be measured, before the first step of a run."""

    def weigh(self, groups: list[dict[str, Any]], rate: float, step: int) -> None:
        """Set the learning rate of every group of parameters for a step, of which `rate` is the run's."""
        for group in groups:
            group["lr"] = rate * group["scale"]

    def groups(self) -> Groups:
        """The trained parameters by the factor of their learning rate."""
        return trained(self.model)

    def after_step(self, progress: float) -> None:
        """Called after each update of the weights, without gradients."""

    def sums(self) -> Mapping[str, tuple[float, float]]:
        """By name: the sum and the count of further losses since `parts`; the same names, in order, on every rank."""
        return {}

    def figures(self, progress: float) -> dict[str, float]:
        """What a line of metrics holds of a step beside loss, rate and gradient."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """What making parts changes, so that a step can be made again."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put `state` back."""

    def compile(self) -> None:
        """Compile the engine in place."""

    def rows(self, batch: Batch, accumulate: int | None) -> Iterator[slice]:
        """The rows of each micro-batch."""
        size = math.ceil(len(batch.ids) / (accumulate or self.settings.accumulate))
        for start in range(0, len(batch.ids), max(size, 1)):
            yield slice(start, start + size)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context for `train.precision`; auto takes bf16 where the hardware has units for it."""
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def backward(
    learning: Learning[Any, P],
    model: nn.Module,
    parts: list[P],
    count: float,
    world: World,
    progress: float = 0.0,
    samples: float | None = None,
) -> float:
    """Gradients of the mean over all `count` of the global batch; returns this rank's share of the loss.

    Losses per sample are averaged over all `samples` of the global batch, by default those of `parts`. A loss that is a
    mean over samples counts in each part by its share of the rank's samples.
    """
    wrapped = isinstance(model, DistributedDataParallel)
    if not parts and world.size > 1:
        learning.idle(model).backward()  # type: ignore[no-untyped-call]
        return 0.0
    parts = learning.group(parts)
    total, here = 0.0, sum(part.tokens.batch for part in parts)
    for index, part in enumerate(parts):
        # DDP averages over ranks at the last part; times the world size makes that a sum.
        quiet = model.no_sync() if wrapped and index < len(parts) - 1 else nullcontext()  # type: ignore[operator]
        with quiet:
            summed, own, by_sample = learning.loss(model, part, progress)
            loss = summed / count
            if by_sample is not None:
                loss = loss + by_sample / (samples or here)
            if own is not None:  # its gradient alone
                loss = loss + (own - own.detach()) * (part.tokens.batch / here / world.size)
            loss.mul(world.size).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total
