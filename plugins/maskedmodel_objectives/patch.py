"""Predict the raw values of a hidden patch, optionally normalised per patch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Objective, Settings, Tokenizer


class PatchSettings(Settings):
    """The values of the patch themselves, as in MAE (He et al. 2021)."""

    name: Literal["patch"] = "patch"
    normalise: bool = Field(
        True, description="Whether each target patch is normalised by its own mean and spread (MAE's norm_pix_loss)."
    )
    loss: Literal["mse", "l1", "smooth_l1"] = Field(
        "mse", description="mse: squared difference. l1: absolute. smooth_l1: squared below beta, absolute above."
    )
    beta: float = Field(1.0, gt=0, description="Where smooth_l1 turns from squared to absolute, in target units.")
    epsilon: float = Field(
        1e-6, gt=0, description="Added to the patch's variance, so that a constant patch has a finite target."
    )


class Patch(Objective[PatchSettings]):
    """Mean difference over the values of a patch.

    Normalised, the target is (x - mean) / sqrt(var + epsilon) over all values and channels of a patch together, with
    the unbiased variance: MAE's formula.
    """

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if values.shape[-1] == 1:
            return torch.zeros_like(values), torch.ones_like(values)  # one value has no spread to normalise by
        variance, mean = torch.var_mean(values, dim=-1, keepdim=True, correction=1)
        return mean, (variance + self.settings.epsilon).sqrt()

    def target(self, values: Tensor) -> Tensor:
        if not self.settings.normalise:
            return values
        mean, spread = self._moments(values)
        return (values - mean) / spread

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.settings.loss == "mse":
            return (prediction - target).square().mean(-1)
        if self.settings.loss == "l1":
            return (prediction - target).abs().mean(-1)
        return F.smooth_l1_loss(prediction, target, reduction="none", beta=self.settings.beta).mean(-1)

    def baseline(self, tokenizer: Tokenizer[Any]) -> float | None:
        """With n values of unbiased variance one per patch, predicting zero scores (n - 1) / n in mean square."""
        count = tokenizer.token_width
        return (count - 1) / count if self.settings.normalise and self.settings.loss == "mse" and count > 1 else None

    def statistics(self, values: Tensor) -> Tensor | None:
        return torch.cat(self._moments(values), -1) if self.settings.normalise else None

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        if statistics is None:
            return prediction
        return prediction * statistics[..., 1:] + statistics[..., :1]
