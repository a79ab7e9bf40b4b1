"""Predict a hidden patch's values, and the strength of every spatial frequency in it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import GridTokenizer, Objective, Settings, Tokenizer
from maskedmodel.errors import ConfigError, PluginError
from maskedmodel_objectives.amounts import refuse_ids


class FourierSettings(Settings):
    """Squared difference of values mixed with the difference of spectra, as CA-MAE (Kraus et al. 2024) means it."""

    name: Literal["fourier"] = "fourier"
    share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share a of the spectrum: the loss is (1 - a) * squared difference + a * difference of magnitudes. "
        "Below 1, as magnitudes alone leave open where things are.",
    )
    norm: Literal["backward", "ortho"] = Field(
        "backward",
        description="Scale of the spectrum. backward: as CA-MAE, magnitudes grow with the patch, by the root of its "
        "number of values. ortho: on the scale of the values, whatever the patch.",
    )


class Fourier(Objective[FourierSettings]):
    """(1 - a) * mean squared difference + a * mean absolute difference between magnitudes of 2-D Fourier transforms.

    Each token is an image of its own, and each of its channels: the spectrum is taken over the patch, and the mean over
    all its frequencies. Targets are raw values. Squared errors blur; the second term asks for texture of the right
    strength at whatever place. The public code of CA-MAE can't run its version (it reads an attribute that nothing
    sets, and reduces over the wrong shape), so this follows the formula of the paper.

    Tokens must be boxes over two axes, cut by a GridTokenizer: others are refused with a ConfigError.
    """

    _patch: tuple[int, int] | None = None
    _channels_last: bool = True

    @property
    def by_value(self) -> bool:  # type: ignore[override]
        """A spectrum needs all values of a patch."""
        return self.settings.share == 0

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        refuse_ids("fourier", tokenizer)
        self._patch, self._channels_last = _layout(tokenizer)

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        _layout(tokenizer)
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        squared = (prediction - target).square().mean(-1)
        return squared if self.settings.share == 0 else self._mixed(squared, prediction, target)

    def loss_in_part(self, prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
        """Squares over the values that are there, spectra of whole patches that are equal where there are none."""
        squared = (prediction - target).square().sum(-1) / observed.sum(-1).clamp(min=1)
        return self._mixed(squared, prediction, target)

    def _mixed(self, squared: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        share = self.settings.share
        magnitude, count = self._spectrum(prediction)
        difference = (magnitude - self._spectrum(target)[0]).abs() * count
        return (1 - share) * squared + share * difference.sum((-3, -2, -1)) / prediction.shape[-1]

    def _spectrum(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes (B, M, C, rows, columns / 2 + 1), and how many of the full spectrum's each stands for.

        The spectrum of real values is symmetric, so half of its columns say all.
        """
        if self._patch is None:
            raise PluginError(
                "Objective 'fourier' doesn't know the extents of a patch.",
                expected="attach(tokenizer) before loss(...), as a model does when it is built",
            )
        rows, columns = self._patch
        channels = values.shape[-1] // (rows * columns)
        if self._channels_last:
            images = values.reshape(*values.shape[:-1], rows, columns, channels).movedim(-1, -3)
        else:
            images = values.reshape(*values.shape[:-1], channels, rows, columns)
        # The slope of a complex magnitude is taken as zero at zero, so no epsilon is needed under a root.
        magnitude = torch.fft.rfft2(images.float(), norm=self.settings.norm).abs()
        count = torch.full((columns // 2 + 1,), 2.0, device=values.device)
        count[0] = 1
        if columns % 2 == 0:
            count[-1] = 1
        return magnitude, count

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        return prediction


def _layout(tokenizer: Tokenizer[Any]) -> tuple[tuple[int, int], bool]:
    """Extents of a token, and whether its channels run fastest. Raises ConfigError where a token is no image."""
    if not isinstance(tokenizer, GridTokenizer) or len(tokenizer.axes) != 2:
        cut = "another way of cutting" if not isinstance(tokenizer, GridTokenizer) else f"patch {tokenizer.patch}"
        raise ConfigError(
            f"Objective 'fourier' can't go with tokenizer {tokenizer.component_name()!r}: its tokens are no images.",
            where="objective.name",
            expected="patches over two axes, such as height and width",
            got=f"axes {', '.join(tokenizer.axes)}; {cut}",
            fix="Choose objective.name: patch.",
        )
    rows, columns = tokenizer.patch
    return (rows, columns), tokenizer.channels_last
