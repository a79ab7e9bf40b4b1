"""The task `forecast`: what comes after a history, by a linear layer on the tokens of each variate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maskedmodel import Settings, Task, Tokenizer
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.pictures import columns_of, draw_lines
from maskedmodel.tasks import Encoded, Labels
from maskedmodel_timeseries.series import SeriesTokenizer

_FORECAST = (0.1, 0.1, 0.1)  # no variate is black
HEAD_SPREAD = 2e-5  # of the head's first weights: the first forecast is the mean of the history


class ForecastSettings(Settings):
    """Settings of the `forecast` task."""

    name: Literal["forecast"] = "forecast"
    loss: Literal["squared", "absolute"] = Field(
        "squared", description="Of which error of a value the mean is lowered."
    )


class Forecast(Task[ForecastSettings]):
    """All tokens of a variate, one after the other, through a norm and a linear layer to its horizon (Nie et al. 2023).

    The layer is shared by all variates. Predictions are (B, V, H), normalised as the window is; metrics are in the
    units of the data, so of each variate's spread over the training part where the source standardises.
    """

    score = "MSE"
    higher_is_better = False
    takes_target = True

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        return ()  # values have no names

    @classmethod
    def example_target(cls, tokenizer: Tokenizer[Any], batch: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(batch, 1, 6, generator=generator)
        drawn[::4, :, 0] = torch.nan
        return drawn

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        if labels.names or len(labels.shape) != 2 or tokenizer.extents is None:
            raise ConfigError(
                "There is nothing to forecast: samples don't come with values of variates over time.",
                where="data.horizon, tokenizer.name",
                expected="targets (variates, steps), as data.horizon of a table gives, and tokens on a grid",
                got=f"targets of shape {labels.shape}",
            )
        left_out = getattr(tokenizer.settings, "horizon", 0)
        if left_out:
            raise ConfigError(
                "The tokenizer leaves the end of a window out of its statistics, as if it were the horizon, which is "
                "not in the signal here.",
                where="tokenizer.horizon",
                expected=0,
                got=left_out,
                fix="Set tokenizer.horizon=0; data.horizon says how far to forecast.",
            )
        self.variates, self.horizon = labels.shape
        self.extents = tuple(tokenizer.extents)
        self.groups = self.variates if tokenizer.channel_count else 1  # what has tokens of its own
        width = math.prod(self.extents) * dim
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, self.variates // self.groups * self.horizon)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_SPREAD)
        nn.init.zeros_(self.head.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """(B, V, H)."""
        tokens = encoded.on_grid(self.extents, self.groups)
        if tuple(tokens.shape[1:-1]) != (self.groups, *self.extents):
            raise ShapeError(
                "A forecast is made of histories of one length.",
                expected=f"{self.groups} x {self.extents} tokens",
                got=f"{tokens.shape[1]} x {tuple(tokens.shape[2:-1])}",
                fix="Cut or choose samples of the length that tokenizer.length says.",
            )
        ahead: Tensor = self.head(self.norm(tokens.flatten(2)))
        return ahead.reshape(ahead.shape[0], self.variates, self.horizon)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        error = (prediction - target).nan_to_num(0)
        each = error.square() if self.settings.loss == "squared" else error.abs()
        return each.flatten(1).sum(1) / self.weight(target).clamp(min=1)

    def weight(self, target: Tensor) -> Tensor:
        """How many values of the horizon are there."""
        return (~target.isnan()).flatten(1).sum(1).float()

    def restore(self, tokenizer: Tokenizer[Any], values: Tensor, stored: Tensor) -> Tensor:
        if not isinstance(tokenizer, SeriesTokenizer):
            return values
        mean, std = tokenizer.scale_of(stored)
        return values * std + mean

    def digest(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of squared and absolute errors (B, 2), and how many values there are (B,)."""
        error = (prediction - target).nan_to_num(0).double().flatten(1)
        return torch.stack([error.square().sum(1), error.abs().sum(1)], 1), self.weight(target).double()

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Mean squared and absolute error over all values of all horizons."""
        squared, absolute = (prediction.sum(0) / target.sum()).tolist()
        return {"MSE": squared, "MAE": absolute}

    def told(self, prediction: Tensor, target: Tensor) -> list[str]:
        mean = (prediction[:, 1] / target).tolist()
        return [f"MAE {value:.3g}" if math.isfinite(value) else "nothing is known" for value in mean]

    def shown(
        self, tokenizer: Tokenizer[Any], signal: Tensor, stored: Tensor, prediction: Tensor, target: Tensor
    ) -> Mapping[str, Tensor] | None:
        """History, what came and what was forecast, on one scale per variate; None of what aren't series (B, V, T)."""
        if stored.dim() != 3:
            return None
        history = stored.float()
        truth, found = (self.restore(tokenizer, values, stored).float() for values in (target, prediction))
        known, whole = torch.cat([history, truth], 2), torch.cat([history, truth, found], 2)
        nothing = torch.full_like(known, torch.nan)
        ahead = torch.cat([torch.full_like(history, torch.nan), found], 2)
        blank, line = draw_lines(nothing, nothing.nan_to_num(0.0)), draw_lines(ahead, whole)
        drawn = (line != blank).any(1, keepdim=True)
        seen = columns_of(known.shape[2]) * history.shape[2] / known.shape[2]
        begun = torch.arange(blank.shape[3], device=blank.device) >= seen
        picture = draw_lines(known, whole)
        picture = torch.where(begun & (picture == 1).all(1, keepdim=True), 0.94, picture)
        ink = torch.tensor(_FORECAST, device=picture.device)[:, None, None]
        return {"history, truth and forecast": torch.where(drawn, ink, picture)}

    @property
    def legend(self) -> str:
        return "A band for each variate. Black: the forecast, coloured: the data. Grey: what the model doesn't see."

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """A number for each step ahead of each variate: step_1, or variate_0_step_1 where there are several."""
        variates, steps = prediction.shape[1:]
        return {
            ("" if variates == 1 else f"variate_{variate}_") + f"step_{step + 1}": prediction[:, variate, step]
            for variate in range(variates)
            for step in range(steps)
        }
