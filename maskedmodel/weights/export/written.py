"""What every export has in common: how it is compared, and what other libraries can say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.engine.signals import SignalModel
from maskedmodel.errors import CheckpointError, DependencyError
from maskedmodel.tokenizers.normalised import NormalisedTokenizer


@dataclass(frozen=True)
class Written:
    """An export as it lies on the disk.

    what         what it holds, in words.
    gives        its outputs, in words.
    load         the line that loads it.
    difference   the largest difference of an output for a prepared batch, between model and export.
    takes        what goes in; "": what the model's `encode` takes.
    """

    what: str
    gives: str
    load: str
    difference: Callable[[Tensor], float]
    takes: str = ""
    batches: tuple[int, ...] = (3,)
    notes: list[str] = field(default_factory=list)
    libraries: tuple[str, ...] = ()


def samples(model: SignalModel, batch: int, seed: int) -> Tensor:
    """A prepared batch of random signals."""
    drawn = model.tokenizer.example(batch, torch.Generator().manual_seed(seed))
    return model.tokenizer.prepare(drawn).to(model.device, model.encoder.norm.weight.dtype)


def largest(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float((one.float() - other.float()).abs().max())


def library(name: str, *, target: str, package: str | None = None) -> Any:
    """A library that an export needs. Raises DependencyError where it can't be imported."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"An export to {target} needs {package or name}, to write it and to see that it computes the same.",
            got=str(error),
            fix=f"Install it, with uv pip install {package or name} or pip install {package or name}.",
        ) from error


def refused(target: str, reasons: Sequence[str]) -> CheckpointError:
    """The error of what a target can't express."""
    return CheckpointError(
        f"{target} can't express this model.",
        where=f"--to {target}",
        got="\n    ".join(reasons),
        fix="Export it to safetensors, which takes any model, or the encoder to onnx or torch.",
    )


class Pictures:
    """What a library of vision transformers has to know of a model over a grid of 2 or 3 axes, its input normalised."""

    def __init__(self, model: SignalModel, axes: int) -> None:
        self.model, self.reasons, self.notes = model, list[str](), list[str]()
        tokenizer, encoder = model.tokenizer, model.settings.encoder
        if not isinstance(tokenizer, NormalisedTokenizer) or len(tokenizer.axes) != axes or tokenizer.separate_channels:
            self.reasons.append(
                f"its tokenizer {tokenizer.component_name()!r} doesn't cut all channels of a signal together along "
                f"{axes} axes, normalised per channel"
            )
            return
        if not tokenizer.channels_last and tokenizer.channels > 1:
            self.reasons.append("the values of a token lie in another order")
        if tokenizer.channel_features and encoder.channels:
            self.reasons.append("it knows channels by what describes them")
        if encoder.positions == "rotary":
            self.reasons.append("its positions are rotary: queries and keys are turned by the coordinates")
        if encoder.repeat_positions:
            self.reasons.append("its positions are added before every block, not once")
        if encoder.mlp != "gelu":
            self.reasons.append(f"its MLPs are gated ({encoder.mlp}), those of the models that are written aren't")
        if tokenizer.accepts_nan:
            self.notes.append(
                "absent values (NaN) are to be given as zero, after normalising, as the model takes them; a token of "
                "which all are absent the model leaves out, and the export can't"
            )
        self.tokenizer = tokenizer
        self.mean, self.std = tokenizer.mean.float(), tokenizer.std.float() * tokenizer.spreads

    @property
    def numbers(self) -> dict[str, list[float]]:
        """Mean and spread of each channel."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def normalised(self, signal: Tensor) -> Tensor:
        """A prepared batch as the other library takes it. What is absent is zero, as in the model's tokens."""
        shape = (-1, *[1] * (signal.dim() - 2))
        values = (signal - self.mean.reshape(shape)) / self.std.reshape(shape)
        return values.masked_fill(values.isnan(), 0)

    def positions(self, side: str = "encoder") -> Tensor:
        """The position of each cell (L, D)."""
        places: Any = getattr(self.model, side).places
        grid = self.tokenizer.extents
        coords = torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(-1, len(grid))
        table: Tensor = places.positions(coords, grid).detach()
        return table

    def convolution(self) -> Tensor:
        """The projection of patches (D, C, *p), as a convolution has it."""
        weight = self.model.encoder.embed.weight
        assert isinstance(weight, Tensor)
        patches = weight.reshape(weight.shape[0], *self.tokenizer.patch, self.tokenizer.channels)
        return patches.movedim(-1, 1).contiguous()

    @property
    def takes(self) -> str:
        """What the export takes, in words: here nobody normalises but the user."""
        size = ", ".join(map(str, self.tokenizer.size))
        return (
            f"(batch, {self.tokenizer.channels}, {size}), normalised: (x - mean) / std with mean "
            f"{_short(self.mean)} and std {_short(self.std)}, on the scale of a prepared batch"
        )


def _short(numbers: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in numbers.tolist())


def linear(module: nn.Module) -> bool:
    """Whether a tokenizer's projection is the plain one."""
    return isinstance(module, nn.Linear)
