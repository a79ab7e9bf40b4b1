"""A tokenizer over boxes of any number of axes, for the tests of what tokenizers are built on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from maskedmodel.components import Settings
from maskedmodel.tokenizers.grid import GridTokenizer

AXES = ("time", "height", "width")


class BoxSettings(Settings):
    name: Literal["box"] = "box"
    channels: int = Field(1, description="Channels of a signal.")
    size: tuple[int, ...] = Field((4, 6), description="Extents, in samples.")
    patch: tuple[int, ...] = Field((2, 3), description="Extents of a token, in samples.")


class Box(GridTokenizer[BoxSettings]):
    axes = AXES[1:]

    def __init__(self, settings: BoxSettings | None = None, **values: Any) -> None:
        settings = settings or BoxSettings(**values)
        self.axes = AXES[-len(settings.size) :]  # type: ignore[assignment]
        super().__init__(settings)
