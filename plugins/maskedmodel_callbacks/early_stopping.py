"""`early_stopping`: a run ends once its validations get no better (Prechelt 1998, "Early Stopping - But When?")."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from maskedmodel import Callback, Settings
from maskedmodel.callbacks import Moment, RunStart
from maskedmodel.errors import ConfigError


class EarlyStoppingSettings(Settings):
    name: Literal["early_stopping"] = "early_stopping"
    patience: int = Field(5, gt=0, description="Validations in a row without a better one, after which the run ends.")
    min_delta: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How much better than the best so far a validation must be to count, in units of the figure.",
    )
    monitor: str = Field(
        "val_loss", min_length=1, description="The figure of a validation that counts, as metrics.jsonl calls it."
    )
    goal: Literal["lower", "higher"] = Field("lower", description="Which values of it are better.")


class EarlyStopping(Callback[EarlyStoppingSettings]):
    """Asks to stop after `patience` validations in a row that were not better than the best one before them."""

    recalls = True

    def on_start(self, run: RunStart) -> None:
        self.best: tuple[float, int] | None = None  # its value, and the step at which it was measured
        self.waited = 0
        if not run.config["train"]["validate_every"]:
            raise ConfigError(
                "early_stopping looks at validations, and this run has one at its start and one at its end alone.",
                where="train.validate_every",
                expected="1 or more",
                got=0,
                fix=f"Set train.validate_every={max(run.steps // 20, 1)}, or leave early_stopping out.",
            )

    def on_validation(self, moment: Moment) -> str | None:
        settings = self.settings
        if settings.monitor not in moment.figures:
            raise ConfigError(
                f"A validation has no figure {settings.monitor!r}: it has {', '.join(moment.figures)}.",
                where="early_stopping.monitor",
            )
        value = moment.figures[settings.monitor]
        sign = 1 if settings.goal == "lower" else -1
        # Not a number is no better than anything, and anything is better than that.
        if self.best is None or math.isnan(self.best[0]) or sign * (self.best[0] - value) > settings.min_delta:
            self.best, self.waited = (value, moment.step), 0
            return None
        self.waited += 1
        if self.waited < settings.patience:
            return None
        than = f" by more than {settings.min_delta:g}" if settings.min_delta else ""
        return (
            f"{settings.monitor} was not {settings.goal}{than} than {self.best[0]:.4g} (step {self.best[1]:,}) "
            f"in {self.waited} validations"
        )
