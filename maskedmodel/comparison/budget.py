"""How many steps each arm may train, decided before it starts so that its learning rate runs its whole course.

The first arm's steps set the budget; every other arm gets the number of steps whose cost comes nearest to it. What a
step costs follows from the mask ratio along the run:

    flops    the matrix products of encoder and decoder, counted, and what the scheduler says of itself (`flops`)
    tokens   the tokens that the encoder sees
    seconds  the time that training takes on this machine, measured at the start, the middle and the end of the run
    steps    the same for all
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from maskedmodel.components import DataSource
from maskedmodel.config.build import Components, build_components
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.flops import TRAIN, forward_flops
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import ConfigError, DataError, suggestion
from maskedmodel.noise import Noise, seeded
from maskedmodel.plugins import Registry
from maskedmodel.scenes import SceneObjective
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokens import Tokens, hidden_count
from maskedmodel.training.data import StepBatches, train_batches
from maskedmodel.training.distributed import World, pick_device
from maskedmodel.training.fitting import fit_statistics
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.optimizer import make_optimizer, trained
from maskedmodel.training.packing import grouped, pays
from maskedmodel.training.parts import backward

Budget = Literal["flops", "tokens", "seconds", "steps"]
UNITS: dict[Budget, str] = {"flops": "FLOPs", "tokens": "encoder tokens", "seconds": "seconds", "steps": "steps"}
Cost = Callable[[float], float]  # of a step, at a progress in [0, 1]

_SAMPLES = 32  # whose tokens stand for the data
_GRID = 16  # stretches of the run between which a cost that needs masks is interpolated
_MEASURED = (0.0, 0.5, 1.0)
_ROUNDS = 3


def budget_named(name: str) -> Budget:
    """The budget of this name. Raises ConfigError where there is none."""
    for known in UNITS:
        if name == known:
            return known
    raise ConfigError(
        "There is no such budget.", where="--budget", expected=", ".join(UNITS), got=name, fix=suggestion(name, UNITS)
    )


@dataclass(frozen=True)
class Stand:
    """A model of an arm before training, and some of its data: what costs are taken from, and thrown away after."""

    config: RunConfig
    model: MaskedAutoencoder
    source: DataSource[Any]
    tokens: Tokens
    device: torch.device

    @classmethod
    def of(cls, config: RunConfig, registry: Registry) -> Stand:
        """Build it, and take one step of the smallest size: what the arm would stumble over shows now."""
        device = pick_device(config.train.device)
        model, parts = build(config, registry)
        model.to(device)
        data = parts.source.open("train")
        if not len(data):
            raise DataError("There is no training sample.", where="data")
        fit_statistics(model, data, config.train)
        world = World(0, 1, device)
        order = StepBatches(len(data), min(config.train.batch, _SAMPLES), config.train.seed, 0, 1)
        batch = next(train_batches(data, model.tokenizer, order)).to(device)
        model.train()
        learning = MaskedModelling(model, config.train)
        for progress in _MEASURED:
            (part,) = learning.parts(batch, progress, accumulate=1)
            if part.mask is not None:
                part.mask.check()
            backward(learning, model, [part], part.count or 1, world, progress)
        model.zero_grad(set_to_none=True)
        return cls(config, model, parts.source, part.tokens, device)

    @property
    def lengths(self) -> list[int]:
        """The number of real tokens of each sample."""
        valid = self.tokens.valid
        return [self.tokens.length] * self.tokens.batch if valid is None else valid.sum(1).tolist()


def build(config: RunConfig, registry: Registry) -> tuple[MaskedAutoencoder, Components]:
    """The untrained model of a run, as pretraining builds it, and its components."""
    parts = build_components(config, registry)
    with seeded(config.train.seed):
        return MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, config.model), parts


def costs_of(stands: Sequence[Stand], budget: Budget) -> list[Cost]:
    """What a step of each arm costs along the run, in the budget's unit.

    Times are measured in turns, three rounds, so that all arms meet the same other load.
    """
    if budget == "seconds":
        rounds = [[[seconds(stand, place) for place in _MEASURED] for stand in stands] for _ in range(_ROUNDS)]
        return [
            between(_MEASURED, [median(values) for values in zip(*(one[index] for one in rounds), strict=True)])
            for index in range(len(stands))
        ]
    return [_counted(stand, budget) for stand in stands]


def _counted(stand: Stand, budget: Budget) -> Cost:
    if budget == "steps":
        return lambda progress: 1.0
    price = _flops(stand) if budget == "flops" else (lambda visible, hidden: float(visible))
    batch, scheduler = stand.config.train.batch, stand.model.scheduler
    lengths = stand.lengths

    def of_rows(rows: list[tuple[int, int]]) -> float:
        return batch * sum(price(*row) for row in rows) / len(rows)

    if type(scheduler).counts is MaskScheduler.counts and type(scheduler).sample is MaskScheduler.sample:

        @cache
        def at_ratio(ratio: float) -> float:
            hidden = [hidden_count(length, ratio) for length in lengths]
            return of_rows([(length - hide, hide) for length, hide in zip(lengths, hidden, strict=True)])

        return lambda progress: at_ratio(scheduler.ratio(progress))
    places = [index / _GRID for index in range(_GRID + 1)]
    return between(places, [of_rows(rows_at(stand, progress, budget == "flops")) for progress in places])


@torch.no_grad()
def rows_at(stand: Stand, progress: float, filled: bool = False) -> list[tuple[int, int]]:
    """How many tokens of each sample are visible and hidden at a progress, before the scheduler has learned.

    filled  count what rows are filled up with, where training fills up rows that the scheduler makes uneven. What fills
            up samples that are short by themselves counts for no arm.
    """
    noise = Noise.of(range(stand.tokens.batch), device=stand.device)
    mask = stand.model.scheduler.sample(stand.tokens, progress, noise)
    train, tokens = stand.config.train, stand.tokens
    if filled and tokens.valid is None:
        whole = train.compile or not pays(
            train.batch // train.accumulate, tokens.length, stand.config.model.encoder.dim
        )
        groups = [(tokens, mask)] if whole else grouped(tokens, mask)
        return [(part.ids_keep.shape[1], part.ids_hidden.shape[1]) for some, part in groups for _ in range(some.batch)]
    counts: Tensor = torch.stack([mask.visible.sum(1), mask.hidden.sum(1)], 1)
    return [(int(visible), int(hidden)) for visible, hidden in counts.tolist()]


def _flops(stand: Stand) -> Callable[[int, int], float]:
    """Training work of one sample of which some tokens are visible and some hidden."""
    model, batch = stand.model, stand.config.train.batch // stand.config.train.accumulate
    coords, _, channel, features = stand.tokens.layout
    shared = coords.dim() == 2 and (channel is None or channel.dim() == 1) and (features is None or features.dim() == 2)

    @cache
    def price(visible: int, hidden: int) -> float:
        work = forward_flops(model, visible, hidden, batch, shared_positions=shared).total / batch
        own = model.objective.flops(visible, hidden) if isinstance(model.objective, SceneObjective) else 0.0
        return TRAIN * work + model.scheduler.flops(visible + hidden) + own

    return price


def scheduling(stand: Stand) -> float:
    """The work of the scheduler in a training step, as it says of itself."""
    scheduler, lengths = stand.model.scheduler, stand.lengths
    return stand.config.train.batch * sum(map(scheduler.flops, lengths)) / len(lengths)


def seconds(stand: Stand, progress: float) -> float:
    """The time of a training step at a progress, data and optimizer included: the median of a fifth of a second's."""
    config, model, world = stand.config, stand.model, World(0, 1, stand.device)
    data = stand.source.open("train")
    order = StepBatches(len(data), config.train.batch, config.train.seed, 0, 1_000_000)
    batches = train_batches(data, model.tokenizer, order, workers=config.train.workers)
    optimizer, learning = make_optimizer(trained(model), config.optim), MaskedModelling(model, config.train)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the work of a step, and the weights as they are
    taken: list[float] = []
    while len(taken) < 4 or sum(taken) < 0.2:
        began = time.perf_counter()
        parts = learning.parts(next(batches).to(stand.device), progress)
        backward(learning, model, parts, sum(part.count for part in parts) or 1, world, progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if stand.device.type == "cuda":
            torch.cuda.synchronize(stand.device)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])  # the first one warms up


def between(places: tuple[float, ...] | list[float], values: list[float]) -> Cost:
    """The values at their places, and straight lines between them."""

    def at(progress: float) -> float:
        for left, right, low, high in zip(places, places[1:], values, values[1:], strict=False):
            if progress <= right:
                return low + (high - low) * (progress - left) / (right - left)
        return values[-1]

    return at


def total(cost: Cost, steps: int) -> float:
    """The cost of a whole run."""
    return math.fsum(cost(step / max(steps - 1, 1)) for step in range(steps))


def steps_within(cost: Cost, amount: float) -> int:
    """The number of steps, 1 or more, whose cost comes nearest to `amount`."""
    low, high = 1, 2
    while total(cost, high) < amount:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(cost, middle) < amount else (low, middle)
    return min((low, high), key=lambda steps: abs(total(cost, steps) - amount))


def spent(cost: Cost, steps: int, points: int = 40) -> list[float]:
    """The share of a run's cost that is spent at 0, 1, ... `points` parts of its steps."""
    sums = [0.0]
    for step in range(steps):
        sums.append(sums[-1] + cost(step / max(steps - 1, 1)))
    return [round(sums[round(index * steps / points)] / sums[-1], 6) for index in range(points + 1)]
