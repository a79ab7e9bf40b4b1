"""Small tokenizers, tokens and a model, against which the components of a plugin are checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel.components import Objective, Settings, Tokenizer
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import MaskedModelError
from maskedmodel.grid import GridTokenizer
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokens import Tokens

# A model of some 400,000 weights: enough to learn one batch by heart, and 30 steps of it take about a second.
TINY_MODEL = ModelSettings(
    encoder=EncoderSettings(dim=128, depth=1, heads=4), decoder=DecoderSettings(dim=128, depth=1, heads=4)
)


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own, on the CPU."""
    return torch.Generator().manual_seed(seed)


class BoxSettings(Settings):
    """Settings of the kit's own tokenizer."""

    name: Literal["kit-box"] = "kit-box"
    axes: tuple[str, ...] = Field(("height", "width"), description="Names of the axes.")
    size: tuple[int, ...] = Field((16, 16), description="Extents of a signal along the axes.")
    patch: tuple[int, ...] = Field((4, 4), description="Extents of a token along the axes.")
    channels: int = Field(3, description="Number of channels.")


class Box(GridTokenizer[BoxSettings]):
    """A tokenizer over any axes, for checks of objectives and schedulers."""

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.settings.axes

    @property
    def channels(self) -> int:
        return self.settings.channels

    @property
    def size(self) -> tuple[int, ...]:
        return self.settings.size

    @property
    def patch(self) -> tuple[int, ...]:
        return self.settings.patch


def boxes() -> dict[str, Box]:
    """Tokenizers over one, two and three axes, by name, and one whose tokens hold a single value."""
    return {
        "image": Box(),
        "line": Box(axes=("time",), size=(48,), patch=(6,), channels=2),
        "volume": Box(axes=("time", "height", "width"), size=(4, 8, 8), patch=(2, 4, 4), channels=1),
        "single values": Box(axes=("time",), size=(16,), patch=(1,), channels=1),
    }


class FixedSettings(Settings):
    """Settings of the kit's own mask scheduler."""

    name: Literal["kit-fixed"] = "kit-fixed"


class Fixed(MaskScheduler[FixedSettings]):
    """Random masks that hide half, for checks of tokenizers and objectives."""

    def ratio(self, progress: float) -> float:
        return 0.5


class DirectSettings(Settings):
    """Settings of the kit's own objective."""

    name: Literal["kit-direct"] = "kit-direct"


class Direct(Objective[DirectSettings]):
    """The squared difference to raw values, for checks of tokenizers and schedulers."""

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean(-1)


def layouts(batch: int = 6) -> dict[str, Tokens]:
    """Tokens of every layout that the contract allows, by name: what a mask scheduler may meet."""
    draw = generator(7)

    def tokens(length: int, coords: Tensor, axes: tuple[str, ...], **more: Any) -> Tokens:
        return Tokens(torch.randn(batch, length, 12, generator=draw), coords, axes, **more)

    def raster(*extents: int) -> Tensor:
        return torch.cartesian_prod(*(torch.arange(n) for n in extents)).reshape(-1, len(extents))

    real = torch.tensor([20, 20, 13, 8, 5, 2])[torch.arange(batch) % 6]
    return {
        "one axis": tokens(16, raster(16), ("time",), grid=(16,)),
        "two axes": tokens(24, raster(4, 6), ("height", "width"), grid=(4, 6)),
        "three axes": tokens(24, raster(2, 3, 4), ("time", "height", "width"), grid=(2, 3, 4)),
        "channels": tokens(
            24, raster(8).repeat(3, 1), ("time",), grid=(8,), channel=torch.arange(3).repeat_interleave(8)
        ),
        "off the grid": tokens(20, 8 * torch.rand(batch, 20, 2, generator=draw), ("height", "width")),
        "padding": tokens(20, raster(20), ("time",), valid=torch.arange(20) < real[:, None]),
    }


def suitable(objective: Objective[Any]) -> Iterator[tuple[str, Box, Tensor]]:
    """The kit's tokenizers that the objective doesn't refuse, each with hidden values (3, M, P) as its tokens have."""
    for name, box in boxes().items():
        try:
            objective.attach(box)
            objective.width(box)
        except MaskedModelError:
            continue  # a clear refusal: check_width demands that one is left
        yield name, box, box.tokenize(box.example(3, generator(1))).values
