"""`wandb` and `trackio`: everything that a run records, to Weights & Biases or trackio, which share three calls."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from maskedmodel import Callback, Settings
from maskedmodel.callbacks import Moment, RunEnd, RunStart
from maskedmodel.errors import DependencyError


class ServiceSettings(Settings):
    project: str = Field("maskedmodel", min_length=1, description="Project there.")
    run: str | None = Field(None, min_length=1, description="Name of the run there. null: that of the run's folder.")


class WandbSettings(ServiceSettings):
    name: Literal["wandb"] = "wandb"
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None, description="Whether figures are sent as they come, kept to be sent later, or dropped. null: wandb's own."
    )


class TrackioSettings(ServiceSettings):
    name: Literal["trackio"] = "trackio"


class _Service(Callback[Any]):
    module: Any
    options: tuple[str, ...] = ()  # settings that `init` takes by their own names

    def on_start(self, run: RunStart) -> None:
        settings = self.settings
        try:
            self.module = import_module(settings.name)
        except ImportError as error:
            raise DependencyError(
                f"The callback {settings.name!r} needs a package that isn't installed.",
                got=f"{error}",
                fix=f"Install {settings.name}, with uv pip install or pip install, or leave the callback out.",
            ) from error
        given = {name: getattr(settings, name) for name in self.options if getattr(settings, name) is not None}
        self.module.init(project=settings.project, name=settings.run or run.name, config=dict(run.config), **given)

    def on_step(self, moment: Moment) -> None:
        self.module.log({**moment.figures, **moment.timings}, step=moment.step)

    on_validation = on_look = on_step

    def on_end(self, end: RunEnd) -> None:
        self.module.finish()


class WeightsAndBiases(_Service, Callback[WandbSettings]):
    """Sends each figure and timing to Weights & Biases (wandb)."""

    options = ("mode",)

    @classmethod
    def example_settings(cls, folder: Path) -> WandbSettings:
        return WandbSettings(mode="disabled")


class Trackio(_Service, Callback[TrackioSettings]):
    """Keeps each figure and timing with trackio."""
