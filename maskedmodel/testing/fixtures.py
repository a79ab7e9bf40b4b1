"""Small tokenizers, tokens and a model, against which the components of a plugin are checked."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel.components import Objective, Settings, Tokenizer
from maskedmodel.engine.encoder import Encoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import Noise, seeded
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.testing.building import companions
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

    by_value = True

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean(-1)


class Named(Direct):
    """The cross entropy of ids, for checks of tokenizers with a vocabulary."""

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        self.ids = tokenizer.vocabulary
        return tokenizer.token_width * self.ids

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        scores = prediction.reshape(*target.shape, self.ids).log_softmax(-1)
        wanted = target.long().clamp(0, self.ids - 1)[..., None]  # others are check_vocabulary's business
        loss: Tensor = -scores.gather(-1, wanted)[..., 0].mean(-1)
        return loss


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
        "described channels": tokens(
            24,
            raster(8).repeat(3, 1),
            ("time",),
            grid=(8,),
            channel=three,
            channel_features=torch.tensor([[0.2, 1.0], [-0.6, 0.1], [0.0, -1.0]])[three],
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
        described = tokens.channel_features
        self.channel_count = 0 if tokens.channel is None else int(tokens.channel.max()) + 1
        self.channel_features = 0 if described is None else described.shape[-1]
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


def layouts_for(scheduler: MaskScheduler[Any]) -> dict[str, Tokens]:
    """The kit's layouts, and the tokens of the scheduler's own plugin where it refuses all of those."""
    found = layouts()
    if any(_masks(scheduler, tokens) for tokens in found.values()):
        return found
    own = {f"tokenizer {name!r}": example_tokens(tokenizer, 6) for name, tokenizer in companions(scheduler)}
    return {**own, **found}


def _masks(scheduler: MaskScheduler[Any], tokens: Tokens) -> bool:
    try:
        attached(scheduler, tokens).sample(tokens, 0.5, Noise.of(range(tokens.batch)))
    except Exception:  # noqa: BLE001 - check_layouts fails on it, or finds it a clear refusal
        return False
    return True


def example_tokens(tokenizer: Tokenizer[Any], batch: int) -> Tokens:
    """The tokens of examples, prepared, statistics measured on them."""
    signal = tokenizer.prepare(tokenizer.example(batch, generator(1)))
    if tokenizer.needs_statistics:
        tokenizer.fit_statistics([signal])
        signal = tokenizer.prepare(tokenizer.example(batch, generator(1)))
    return tokenizer.tokenize(signal)


@contextmanager
def maskable(scheduler: MaskScheduler[Any]) -> Iterator[Tokenizer[Any]]:
    """The first tokenizer whose tokens the scheduler takes: of the kit's, or of those that come with it."""
    leads = Box(axes=("time",), size=(48,), patch=(6,), channels=3, separate=True)
    for box in (*boxes().values(), leads):
        if _masks(scheduler, example_tokens(box, 1)):
            yield box
            return
    for _, tokenizer in companions(scheduler):
        if _masks(scheduler, example_tokens(tokenizer, 1)):
            yield tokenizer
            return
    raise NotApplicable("no tokenizer's tokens get a mask, on which check_layouts fails")


class Suited(NamedTuple):
    """A tokenizer that an objective goes with. `values` (3, M, P) are hidden values as its tokens have.

    `own`: it comes with the objective, whose targets may be made for such values alone.
    """

    name: str
    tokenizer: Tokenizer[Any]
    values: Tensor
    own: bool


def refusal(objective: Objective[Any], tokenizer: Tokenizer[Any]) -> Exception | None:
    """What the objective raises where it meets a tokenizer that it can't go with."""
    try:
        copied = copy.deepcopy(objective)
        copied.attach(tokenizer)
        copied.width(tokenizer)
    except Exception as error:  # noqa: BLE001 - check_refusals tells whether it is a clear one
        return error
    return None


def suitable(objective: Objective[Any]) -> Generator[Suited, None, None]:
    """The tokenizers that the objective takes, of the kit's and of those that come with it; it is attached to each."""
    candidates = chain(
        ((name, box, False) for name, box in boxes().items()),
        ((f"{name} of its own", tokenizer, True) for name, tokenizer in companions(objective)),
    )
    found = False
    for name, tokenizer, own in candidates:
        if refusal(objective, tokenizer) is not None:
            continue
        found = True
        objective.attach(tokenizer)
        tokens = example_tokens(tokenizer, 3)
        values = tokens.values.float()
        if tokens.valid is not None:
            values = values[:, tokens.valid.all(0)]
        yield Suited(name, tokenizer, values, own)
    if not found:
        raise NotApplicable("it goes with no tokenizer, on which check_width fails")
