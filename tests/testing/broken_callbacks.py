"""Callbacks that break one rule each."""

from __future__ import annotations

import random
import sys
from typing import Any, Literal

import torch
from broken import fails  # type: ignore[import-not-found]

from maskedmodel import Callback, Settings
from maskedmodel.callbacks import Moment, RunEnd, RunStart
from maskedmodel.errors import DependencyError


class BestSettings(Settings):
    name: Literal["best"] = "best"


@fails()
class Best(Callback[BestSettings]):
    """Stops a run whose validations have been worse than the best one nine times in a row."""

    recalls = True

    def on_start(self, run: RunStart) -> None:
        self.best, self.worse = float("inf"), 0

    def on_validation(self, moment: Moment) -> Any:
        loss = moment.figures["val_loss"]
        self.best, self.worse = min(self.best, loss), 0 if loss < self.best else self.worse + 1
        return f"{self.worse} validations were worse than {self.best}" if self.worse >= 9 else None


@fails("resumed")
class Forgets(Best):
    """What it keeps in mind is lost at a resume."""

    recalls = False


_worse: list[float] = []


@fails("resumed")
class KeepsInTheProcess(Best):
    """What it saw in one run, it takes for the next one's."""

    def on_start(self, run: RunStart) -> None: ...

    def on_validation(self, moment: Moment) -> Any:
        _worse.append(moment.figures["val_loss"])
        return "eighty were seen" if len(_worse) % 80 == 0 else None


@fails("events")
class SaysTrue(Best):
    def on_validation(self, moment: Moment) -> Any:
        return super().on_validation(moment) is not None or None


@fails("events")
class SaysNothing(Best):
    def on_step(self, moment: Moment) -> Any:
        return ""


@fails("events")
class ChangesFigures(Best):
    def on_step(self, moment: Moment) -> Any:
        moment.figures["loss"] = 0.0  # type: ignore[index]


@fails("events")
class NeedsAFigureThatIsNotAlwaysThere(Best):
    def on_validation(self, moment: Moment) -> Any:
        return "good enough" if moment.figures["val_accuracy"] > 0.9 else None


@fails("events")
class ClosesWhatIsNotOpen(Best):
    """It opens at the first step, and a run may end before."""

    def on_step(self, moment: Moment) -> Any:
        self.file: list[int] = []

    def on_end(self, end: RunEnd) -> None:
        self.file.clear()


@fails("global_generators")
class Draws(Best):
    def on_validation(self, moment: Moment) -> Any:
        torch.rand(1)


@fails("global_generators")
class DrawsFromPython(Best):
    def on_end(self, end: RunEnd) -> None:
        random.random()


def _run() -> Any:
    """The run on whose step a callback was called, if there is one."""
    frame: Any = sys._getframe()
    while frame is not None:
        run = frame.f_locals.get("run")
        if hasattr(run, "optimizer"):
            return run
        frame = frame.f_back
    return None


@fails("same_bits")
class TouchesWeights(Best):
    """It looks for the model in the frames of its callers."""

    def on_step(self, moment: Moment) -> Any:
        run = _run()
        if run is not None:
            with torch.no_grad():
                next(run.model.parameters()).mul_(1 + 1e-6)


@fails("same_bits")
class TouchesMetrics(Best):
    def on_start(self, run: RunStart) -> None:
        super().on_start(run)
        self.folder = run.folder

    def on_validation(self, moment: Moment) -> Any:
        path = self.folder / "metrics.jsonl"
        if path.exists():
            path.write_text('{"step": 0}\n')


@fails()
class NeedsALibrary(Best):
    """Where its package is missing there is nothing to check, and that is said."""

    def on_start(self, run: RunStart) -> None:
        raise DependencyError("It needs a package.")
