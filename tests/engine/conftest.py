"""Small models over signals of one to three axes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import GridTokenizer, MaskedAutoencoder, MaskScheduler, Noise, Objective, Settings, Tokenizer, Tokens
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import ShapeError
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry


class BoxSettings(Settings):
    name: Literal["box"] = "box"
    channels: int = Field(3, description="Channels.")
    size: tuple[int, ...] = Field((8, 12), description="Extents.")
    patch: tuple[int, ...] = Field((2, 3), description="Extents of a token.")
    separate: bool = Field(False, description="Whether channels give tokens of their own.")
    last: bool = Field(True, description="Whether the channel runs fastest.")


class Box(GridTokenizer[BoxSettings]):
    def __init__(self, settings: BoxSettings | None = None, **values: Any) -> None:
        settings = settings or BoxSettings(**values)
        self.axes = ("time", "height", "width")[-len(settings.size) :]
        self.separate_channels, self.channels_last = settings.separate, settings.last
        super().__init__(settings)


class RaggedSettings(Settings):
    name: Literal["ragged"] = "ragged"


class Ragged(Tokenizer[RaggedSettings]):
    """A signal (B, L, 5) whose rows end in zeros: those are padding."""

    axes = ("time",)
    token_width = 4

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or signal.shape[2] != 5:
            raise ShapeError("Rows of five values are expected.", expected="(B, L, 5)", got=tuple(signal.shape))
        valid = signal[..., 4] > 0
        return Tokens(signal[..., :4], torch.arange(signal.shape[1])[:, None], self.axes, None, None, valid)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        assert like.valid is not None
        return torch.cat([values, like.valid[..., None].to(values.dtype)], -1)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.of([12] * batch, 12, generator)

    def of(self, lengths: list[int], width: int, generator: torch.Generator) -> Tensor:
        """Rows of these lengths, filled up to `width`; a row's values don't depend on the other rows."""
        rows = torch.zeros(len(lengths), width, 5)
        for row, length in enumerate(lengths):
            rows[row, :length, :4] = torch.randn(length, 4, generator=generator)
            rows[row, :length, 4] = 1
        return rows


def scheduler(name: str = "uniform", **settings: Any) -> MaskScheduler[Any]:
    return load_registry().get("mask_scheduler", name)(**settings)


def objective(**settings: Any) -> Objective[Any]:
    return load_registry().get("objective", "patch")(**settings)


def model_of(
    tokenizer: Tokenizer[Any],
    *,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    normalise: bool = False,
    ratio: float = 0.75,
) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(**{"dim": 24, "depth": 2, "heads": 2, **(encoder or {})}),
        decoder=DecoderSettings(**{"dim": 16, "depth": 2, "heads": 2, **(decoder or {})}),
    )
    with seeded(0):
        model = MaskedAutoencoder(tokenizer, scheduler(ratio=ratio), objective(normalise=normalise), settings)
        for parameter in model.parameters():  # biases and norms too, so that no term goes untested
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


def noise(batch: int, epoch: int = 0) -> Noise:
    return Noise.of([f"sample {row}" for row in range(batch)], epoch=epoch)
