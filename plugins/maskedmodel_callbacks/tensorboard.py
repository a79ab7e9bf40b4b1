"""`tensorboard`: everything that a run records, as scalars in files that TensorBoard reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from maskedmodel import Callback, Settings
from maskedmodel.callbacks import Moment, RunEnd, RunStart
from maskedmodel.errors import DependencyError, install_hint


class TensorBoardSettings(Settings):
    name: Literal["tensorboard"] = "tensorboard"
    folder: str = Field("tensorboard", min_length=1, description="Where events go, relative to the run's folder.")


class TensorBoard(Callback[TensorBoardSettings]):
    """Writes each figure and timing as a scalar of its name, for `tensorboard --logdir RUN`."""

    def on_start(self, run: RunStart) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                "The callback 'tensorboard' needs a package that isn't installed.",
                got=f"{error}",
                fix=install_hint(extra="tensorboard"),
            ) from error

        self.writer = SummaryWriter(run.folder / self.settings.folder)

    def on_step(self, moment: Moment) -> None:
        for name, value in {**moment.figures, **moment.timings}.items():
            self.writer.add_scalar(name, value, moment.step)

    on_validation = on_look = on_step

    def on_end(self, end: RunEnd) -> None:
        self.writer.close()
