"""A number, or several, per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Chart, Labels
from maskedmodel_tasks.pooled import Pooled, PooledSettings


class RegressSettings(PooledSettings):
    name: Literal["regress"] = "regress"
    separator: str = Field(";", min_length=1, description="What stands between the numbers in a sample's label.")
    loss: Literal["squared", "huber"] = Field(
        "squared", description="squared: the squared error. huber: the absolute error above 1 standard deviation."
    )


class Regress(Pooled[RegressSettings]):
    """Labels read as numbers, predicted in units of their mean and spread over the training samples."""

    score = "R2"
    table: Tensor
    mean: Tensor
    spread: Tensor

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        rows = [self._numbers(name) for name in labels.names]
        if len({len(row) for row in rows}) != 1:
            raise ConfigError(
                "The labels don't hold equally many numbers.",
                where="task.separator",
                expected=f"{len(rows[0])} numbers each, as in {labels.names[0]!r}" if rows else "labels",
                got=next((name for name, row in zip(labels.names, rows, strict=True) if len(row) != len(rows[0])), "-"),
            )
        table = torch.tensor(rows, dtype=torch.float64)
        counts = torch.tensor(labels.counts, dtype=torch.float64)[:, None]
        mean = (table * counts).sum(0) / counts.sum()
        spread = ((table - mean).square() * counts).sum(0).div(counts.sum()).sqrt()
        if not bool((spread > 0).all()):
            raise ConfigError(
                "There is nothing to predict: a number is the same for every labelled training sample.",
                where="data",
                got=", ".join(labels.names[:5]),
            )
        for name, value in (("table", table), ("mean", mean), ("spread", spread)):
            self.register_buffer(name, value.float())
        self.make_head(dim, table.shape[1])

    def _numbers(self, text: str) -> list[float]:
        try:
            numbers = [float(part) for part in text.split(self.settings.separator)]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError(
                "A label is no number.",
                where="data",
                expected=f"numbers, with {self.settings.separator!r} between several (task.separator)",
                got=text,
                fix="Name the column of numbers with data.label, or choose task.name=classify.",
            )
        return numbers

    def target(self, labels: Tensor) -> Tensor:
        """(B, numbers), in the labels' own unit."""
        return self.table[labels]

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        scaled = (target - self.mean) / self.spread
        if self.settings.loss == "huber":
            return F.smooth_l1_loss(prediction, scaled, reduction="none").mean(1)
        return F.mse_loss(prediction, scaled, reduction="none").mean(1)

    def _values(self, prediction: Tensor) -> Tensor:
        """Predictions in the labels' own unit."""
        return prediction * self.spread.to(prediction.device) + self.mean.to(prediction.device)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """R2, the share of the variance that is explained, and the mean absolute error in the labels' unit."""
        error = (self._values(prediction) - target).double()
        spread = (target - target.mean(0)).double().square().sum(0)
        explained = 1 - error.square().sum(0) / spread if bool((spread > 0).all()) else spread.new_tensor([math.nan])
        return {"R2": float(explained.mean()), "MAE": float(error.abs().mean())}

    def charts(self, prediction: Tensor, target: Tensor) -> list[Chart]:
        """What is predicted against what is true, of each number."""
        values, several = self._values(prediction), target.shape[1] > 1
        return [
            Chart(
                f"Predicted against true{f', value_{index}' if several else ''}",
                y=values[:, index].tolist(),
                x=target[:, index].tolist(),
                x_label="true",
                y_label="predicted",
                diagonal=True,
            )
            for index in range(target.shape[1])
        ]

    def wrongness(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The absolute error in units of each number's spread, the mean over the numbers."""
        return ((self._values(prediction) - target) / self.spread.to(target.device)).abs().mean(1)

    def told(self, prediction: Tensor, target: Tensor) -> list[str]:
        def numbers(row: list[float]) -> str:
            return self.settings.separator.join(f"{value:.4g}" for value in row)

        rows = zip(target.tolist(), self._values(prediction).tolist(), strict=True)
        return [f"is {numbers(true)}, said {numbers(said)}" for true, said in rows]

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """The number, or value_0, value_1, ... where there are several."""
        values = self._values(prediction)
        if values.shape[1] == 1:
            return {"value": values[:, 0]}
        return {f"value_{index}": values[:, index] for index in range(values.shape[1])}

    def strata(self, labels: Tensor) -> Tensor:
        """Numbers make no classes."""
        return torch.zeros_like(labels)
