"""Small tokenizers, tokens and a model, against which the components of a plugin are checked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel.components import Objective, Settings, Tokenizer
from maskedmodel.engine.encoder import Encoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import MaskedModelError
from maskedmodel.noise import Noise, seeded
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.testing.rules import NotApplicable
from maskedmodel.tokenizers.grid import GridTokenizer
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
    separate: bool = Field(False, description="Whether each channel gives tokens of its own.")


class Box(GridTokenizer[BoxSettings]):
    """A tokenizer over any axes, for checks of objectives and schedulers."""

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.settings.axes

    @property
    def separate_channels(self) -> bool:  # type: ignore[override]
        return self.settings.separate


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

    row = torch.arange(batch) % 6
    real = torch.tensor([20, 20, 13, 8, 5, 2])[row]
    corner = torch.tensor([[4, 6], [4, 6], [3, 6], [2, 3], [4, 5], [4, 2]])[row]  # extents of each picture
    three = torch.arange(3).repeat_interleave(8)
    plane = raster(4, 6)
    return {
        "one axis": tokens(16, raster(16), ("time",), grid=(16,)),
        "two axes": tokens(24, raster(4, 6), ("height", "width"), grid=(4, 6)),
        "three axes": tokens(24, raster(2, 3, 4), ("time", "height", "width"), grid=(2, 3, 4)),
        "channels": tokens(24, raster(8).repeat(3, 1), ("time",), grid=(8,), channel=three),
        "off the grid": tokens(20, 8 * torch.rand(batch, 20, 2, generator=draw), ("height", "width")),
        "padding": tokens(20, raster(20), ("time",), valid=torch.arange(20) < real[:, None]),
        "uneven extents": tokens(24, plane, ("height", "width"), grid=(4, 6), valid=(plane < corner[:, None]).all(-1)),
        "uneven channels": tokens(
            24,
            raster(8).repeat(3, 1),
            ("time",),
            grid=(8,),
            channel=three,
            valid=three < torch.tensor([3, 3, 2, 3, 2, 1])[row][:, None],
        ),
    }


class LaidSettings(Settings):
    """Settings of the tokenizer that stands for tokens made by hand."""

    name: Literal["kit-laid"] = "kit-laid"


class Laid(Tokenizer[LaidSettings]):
    """Knows of given tokens what a tokenizer knows of its own; it cuts no signal."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.axes, self.token_width = tokens.axes, tokens.values.shape[-1]
        self.channel_count = 0 if tokens.channel is None else int(tokens.channel.max()) + 1
        self._extents = tokens.grid

    @property
    def extents(self) -> tuple[int, ...] | None:
        return self._extents

    def tokenize(self, signal: Tensor) -> Tokens:
        raise AssertionError("tokens made by hand have no signal")

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        raise AssertionError("tokens made by hand have no signal")

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        raise AssertionError("tokens made by hand have no signal")


def attached(scheduler: MaskScheduler[Any], tokens: Tokens) -> MaskScheduler[Any]:
    """A copy of the scheduler as a model for such tokens has it: attached to an encoder, and its statistics measured.

    Raises what `attach` raises.
    """
    copied, tokenizer = copy.deepcopy(scheduler), Laid(tokens)
    with seeded(0):
        copied.attach(tokenizer, Encoder(TINY_MODEL.encoder, tokenizer))
    if copied.needs_statistics:
        copied.fit_statistics([tokens])
    return copied


def maskable(scheduler: MaskScheduler[Any]) -> Box:
    """The first of the kit's tokenizers whose tokens the scheduler doesn't refuse; one of them separates channels."""
    leads = Box(axes=("time",), size=(48,), patch=(6,), channels=3, separate=True)
    for box in (*boxes().values(), leads):
        tokens = box.tokenize(box.example(1, generator()))
        try:
            attached(scheduler, tokens).sample(tokens, 0.5, Noise.of(range(1)))
        except MaskedModelError:
            continue  # a clear refusal: check_layouts demands that one is left
        return box
    raise NotApplicable("no tokenizer's tokens get a mask, on which check_layouts fails")


def suitable(objective: Objective[Any]) -> Iterator[tuple[str, Box, Tensor]]:
    """The kit's tokenizers that the objective doesn't refuse, each with hidden values (3, M, P) as its tokens have."""
    for name, box in boxes().items():
        try:
            objective.attach(box)
            objective.width(box)
        except MaskedModelError:
            continue  # a clear refusal: check_width demands that one is left
        yield name, box, box.tokenize(box.example(3, generator(1))).values
