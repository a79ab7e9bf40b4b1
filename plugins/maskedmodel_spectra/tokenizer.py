"""The `spectral` tokenizer: pictures of many bands, each band cut by itself and known by its wavelength."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from maskedmodel import GridTokenizer, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel_spectra.bands import BandSettings

_EPSILON = 1e-8  # added to a variance, so that a picture of one value isn't divided by nothing
_SPEEDS = (0.5, 1.0, 2.0, 4.0)  # half turns of a sine and a cosine for each octave of wavelength


class SpectralSettings(BandSettings):
    """Settings of the `spectral` tokenizer."""

    name: Literal["spectral"] = "spectral"
    size: PositiveInt = Field(32, description="Usual height and width of a picture, in pixels.")
    patch: PositiveInt = Field(8, description="Height and width of a token, in pixels of one band. Divides the size.")
    normalise: Literal["picture", "none"] = Field(
        "picture",
        description="picture: values less their mean, over their spread, of all pixels and bands together, so that the "
        "shape of spectra stays. none: as the data gives them.",
    )


class SpectralTokenizer(GridTokenizer[SpectralSettings]):
    """Tokens (band, place) of pictures (B, bands, height, width), band by band; a band that is absent is all NaN.

    `Tokens.channel_features` are sines and cosines of the wavelength's octaves, so weights fit any list of wavelengths.
    """

    axes = ("height", "width")
    separate_channels = True
    accepts_nan = True
    channel_features = 2 * len(_SPEEDS)
    shared_with_data = ("wavelengths",)
    described: Tensor

    def __init__(self, settings: SpectralSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channel_count = 0  # described, not numbered
        turns = torch.tensor(self.settings.wavelengths).log2()[:, None] * torch.tensor(_SPEEDS) * torch.pi
        self.register_buffer("described", torch.cat([turns.sin(), turns.cos()], 1), persistent=False)

    @property
    def channels(self) -> int:
        return len(self.settings.wavelengths)

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 4 or signal.shape[1] != self.channels or not signal.is_floating_point():
            raise ShapeError(
                "Tokenizer 'spectral' can't cut this signal.",
                expected=f"(batch, {self.channels} bands, height, width) in floating point",
                got=f"{tuple(signal.shape)} {signal.dtype}",
            )
        tokens = super().tokenize(signal)
        assert tokens.channel is not None
        return replace(tokens, channel_features=self.described.to(signal)[tokens.channel])

    def prepare(self, signal: Tensor) -> Tensor:
        signal = signal if signal.is_floating_point() else signal.float()
        if self.settings.normalise == "none":
            return signal
        away = signal - signal.nanmean((1, 2, 3), keepdim=True)
        return away / (away.square().nanmean((1, 2, 3), keepdim=True) + _EPSILON).sqrt()

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """The mean spectrum."""
        return {"mean spectrum": stored.float().nanmean((2, 3)).nan_to_num(0)}
