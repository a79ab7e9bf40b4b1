"""Checks of callbacks: shown a run that was made up, and one that is trained, with and without them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from maskedmodel.callbacks import Callback, Moment, RunEnd, RunStart
from maskedmodel.components import Sample, SampleDataset
from maskedmodel.config.build import Listed
from maskedmodel.config.sections import OptimSettings, RunConfig, TrainSettings
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import DependencyError, PluginError
from maskedmodel.noise import seeded
from maskedmodel.testing.fixtures import Box, Direct, Fixed, generator
from maskedmodel.testing.rules import NotApplicable, require, same, untouched_generators
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.audience import Outcome, reason
from maskedmodel.training.distributed import World
from maskedmodel.training.loop import train
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.tracking import read_lines

AnyCallback = Callback[Any]
STEPS, BEST = 48, 8  # of the run that is made up: validations get worse from step BEST on
TRAINED = 4  # steps of the real one
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Shown = tuple[str, Moment]


def _config(steps: int) -> RunConfig:
    return RunConfig(
        tokenizer=Box().settings,
        mask=Fixed().settings,
        objective=Direct().settings,
        model=ModelSettings(
            encoder=EncoderSettings(dim=16, depth=1, heads=2), decoder=DecoderSettings(dim=16, depth=1, heads=2)
        ),
        optim=OptimSettings(lr=0.01, per_batch=None),
        train=TrainSettings(
            steps=steps,
            batch=4,
            device="cpu",
            precision="fp32",
            log_every=1,
            validate_every=1,
            checkpoint_every=1,
            keep=steps,
        ),
    )


def _moments() -> list[Shown]:
    """What a run of STEPS steps shows, in its order: its loss falls, and its validations first fall, then rise."""
    shown: list[Shown] = []
    for step in range(STEPS + 1):
        if step:
            figures = {"epoch": step // 4, "loss": 1 / step, "lr": 1e-3, "ratio": 0.5, "grad_norm": 0.3, "scored": 32}
            timings = {"samples_per_second": 100.0, "data_wait": 0.01, "memory_mb": 500}
            shown.append(("on_step", Moment(step, STEPS, figures, timings)))
        loss = 1 + abs(step - BEST) / STEPS
        shown.append(("on_validation", Moment(step, STEPS, {"val_loss": loss, "val_ratio": 0.5})))
        if step % 8 == 0:
            look = {"knn": 0.5, "linear": 0.6, "rankme": 4.0, "rankme_centred": 3.0, "loss@0.5": loss}
            shown.append(("on_look", Moment(step, STEPS, look)))
    return shown


def _begin(callback: AnyCallback, folder: Path, step: int = 0) -> AnyCallback:
    """A fresh one of its settings, begun. Raises NotApplicable where it needs a package that isn't there."""
    fresh = type(callback)(callback.settings)
    try:
        fresh.on_start(RunStart(folder, _config(STEPS).model_dump(mode="json"), "pretrain", step, STEPS))
    except DependencyError as error:
        raise NotApplicable(f"it can't start here: {error.what}") from None
    return fresh


def _replies(callback: AnyCallback, shown: Sequence[Shown]) -> list[object]:
    return [getattr(callback, method)(moment) for method, moment in shown]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="maskedmodel-kit-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def check_events(callback: AnyCallback) -> None:
    """It takes everything that a run shows, however that ends, and returns None or a text that says why to stop."""
    for number, outcome in enumerate(OUTCOMES):
        with _folder() as folder:
            fresh, shown = _begin(callback, folder), _moments()[: 0 if number else None]
            for (method, moment), said in zip(shown, _replies(fresh, shown), strict=True):
                if said is None:
                    continue
                try:
                    reason(said, method)
                except PluginError as error:
                    require(
                        False,
                        callback,
                        "what it returns is no reason to stop",
                        expected="None, or a text that says why",
                        got=f"{error.got} from {method} at step {moment.step}",
                        fix="Return None to let the run go on.",
                    )
            fresh.on_end(RunEnd(STEPS if outcome == "finished" else 0, STEPS, outcome, "", {"val_loss": 1.0}))


def check_global_generators(callback: AnyCallback) -> None:
    """Nothing that it does draws from a global random generator."""
    with _folder() as folder, untouched_generators(callback):
        fresh = _begin(callback, folder)
        _replies(fresh, _moments())
        fresh.on_end(RunEnd(STEPS, STEPS, "finished"))


def check_resumed(callback: AnyCallback) -> None:
    """In a run that was stopped anywhere and goes on it asks to stop where it would in a straight one."""
    with _folder() as folder:
        straight = _begin(callback, folder)
        shown = _moments()
        asked = [said is not None for said in _replies(straight, shown)]
        straight.on_end(RunEnd(STEPS, STEPS, "finished"))
    for cut in (2, BEST + 3, STEPS // 2):
        before, after = ([pair for pair in shown if (pair[1].step <= cut) is early] for early in (True, False))
        with _folder() as folder:
            killed = _begin(callback, folder)
            _replies(killed, before)
            killed.on_end(RunEnd(cut, STEPS, "interrupted"))
            fresh = _begin(callback, folder, cut)
            if callback.recalls:
                _replies(fresh, [(m, Moment(one.step, STEPS, one.figures, again=True)) for m, one in before])
            again = [said is not None for said in _replies(fresh, after)]
            fresh.on_end(RunEnd(STEPS, STEPS, "finished"))
        steps = [
            moment.step
            for (_, moment), then, now in zip(after, asked[len(before) :], again, strict=True)
            if then is not now
        ]
        require(
            not steps,
            callback,
            f"resumed after step {cut} it asks to stop at other steps than in a run that was never stopped",
            expected="the same at every step",
            got=f"another answer at step {steps[0] if steps else 0}",
            fix="Set recalls = True, and keep in mind only what was shown since on_start.",
        )


class _Twelve:
    """The kit's own data: twelve signals, or four for validation."""

    def __init__(self, split: str) -> None:
        self.signals = Box().example(12 if split == "train" else 4, generator(0 if split == "train" else 1))

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index: int) -> Sample:
        return {"signal": self.signals[index], "id": index}


class _Source:
    def open(self, split: str) -> SampleDataset:
        return _Twelve(split)


def _trained(callbacks: Sequence[Listed], folder: Path) -> list[dict[str, Tensor]]:
    """Weights and the optimizer's state after each step of a small run."""
    config = _config(TRAINED)
    with seeded(0):
        model = MaskedAutoencoder(Box(), Fixed(), Direct(), config.model)
    learning, world = MaskedModelling(model, config.train), World(0, 1, torch.device("cpu"))
    log = logging.getLogger("maskedmodel")
    log.addFilter(_silent)  # a stop is told, and so is a callback that fails, which another check finds
    try:
        result = train(config, folder, learning, _Source(), world, quiet=True, callbacks=callbacks)
    finally:
        log.removeFilter(_silent)
    places = [checkpoints.folder_of(folder, step) for step in range(1, result.steps + 1)]
    return [{**checkpoints.read_model(place), **checkpoints.read_optimizer(place)} for place in places]


def _silent(record: logging.LogRecord) -> bool:
    return False


@lru_cache(maxsize=1)
def _alone() -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """The same run without callbacks, and its lines of metrics."""
    with _folder() as folder:
        return _trained([], folder), read_lines(folder / "metrics.jsonl")


def check_same_bits(callback: AnyCallback) -> None:
    """A run with it has the weights, the optimizer's state and the metrics of one without it, to the last bit."""
    with _folder() as folder:
        _begin(callback, folder).on_end(RunEnd(0, STEPS, "interrupted"))  # where it can't start there is nothing to see
    states, lines = _alone()
    with _folder() as folder:
        found = _trained([Listed("the kit", callback, needed=False)], folder)
        written = read_lines(folder / "metrics.jsonl")
    fix = "Leave the run alone: look at the figures that you are shown, and write to files of your own."
    for step, (alone, beside) in enumerate(zip(states, found, strict=False), 1):
        moved = [name for name in alone if not same(alone[name], beside.get(name))]
        require(
            not moved,
            callback,
            "it changes what a run computes",
            expected="the same weights and optimizer state to the last bit",
            got=f"another {moved[0] if moved else ''} after step {step}",
            fix=fix,
        )
    last = len(found)
    require(
        written == [line for line in lines if line["step"] <= last],
        callback,
        "it changes what a run records",
        expected="the same metrics.jsonl",
        fix=fix,
    )
