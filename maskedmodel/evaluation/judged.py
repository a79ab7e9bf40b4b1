"""How well a fine-tuned model does: its task's metrics with intervals, and the tables that a report shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskedmodel.tasks import Chart, Table, Task
from maskedmodel.training.folder import OUTCOME as OUTCOME
from maskedmodel.training.supervised import Predicted

TWIN = "from-scratch"  # the folder, within that of a run, of the same from fresh weights
RESAMPLES = 200
LEVEL = 0.95


@dataclass(frozen=True)
class Measure:
    """A metric and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Judged:
    """What a model's predictions of a validation part come to.

    metrics  by name, the task's score first; intervals are those of the bootstrap over samples (Efron 1979), 200 draws.
    score    the name of the metric that counts, and `higher` whether more of it is better.
    loss     mean loss.
    samples  how many were predicted.
    tables   what the report shows beside, and `charts`.
    """

    metrics: Mapping[str, Measure]
    score: str
    higher: bool
    loss: float
    samples: int
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()

    @classmethod
    def of(
        cls, task: Task[Any], found: Predicted, seed: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> Judged:
        """Judge predictions. The same predictions and seed give the same intervals."""
        generator = np.random.default_rng(seed)
        values, count = task.metrics(found.prediction, found.target), len(found.ids)
        draws: list[dict[str, float]] = []
        for index in range(RESAMPLES):
            rows = torch.from_numpy(generator.integers(0, count, count))
            draws.append(task.metrics(found.prediction[rows], found.target[rows]))
            if progress is not None:
                progress(index + 1, RESAMPLES)
        measures = {
            name: Measure(value, *_interval([draw.get(name, float("nan")) for draw in draws]))
            for name, value in values.items()
        }
        shown = tuple(task.tables(found.prediction, found.target)), tuple(task.charts(found.prediction, found.target))
        return cls(measures, task.score, task.higher_is_better, found.loss, count, *shown)

    @classmethod
    def read(cls, path: Path) -> tuple[Judged, int]:
        """That of an outcome.json, and how many labels it had. Raises OSError, ValueError, KeyError or TypeError."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls.from_dict(kept["judged"]), int(kept["labels"])

    @property
    def best(self) -> Measure:
        """The metric that counts."""
        return self.metrics[self.score]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Judged:
        """What `to_dict` gave. Raises KeyError or TypeError on anything else."""
        metrics = {name: Measure(**measure) for name, measure in values["metrics"].items()}
        tables = tuple(Table(**table) for table in values["tables"])
        charts = tuple(Chart(**chart) for chart in values.get("charts", ()))
        return cls(**{**values, "metrics": metrics, "tables": tables, "charts": charts})


def _interval(draws: list[float]) -> tuple[float, float]:
    known = [draw for draw in draws if np.isfinite(draw)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
