"""Predict the raw values of a hidden patch, optionally normalised per patch or per channel of it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import GridTokenizer, Objective, Settings, Tokenizer
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel_objectives.amounts import refuse_ids


class PatchSettings(Settings):
    """The values of the patch themselves, as in MAE (He et al. 2021) and VideoMAE (Tong et al. 2022)."""

    name: Literal["patch"] = "patch"
    normalise: bool = Field(
        True, description="Whether each target patch is normalised by its own mean and spread (MAE's norm_pix_loss)."
    )
    per: Literal["patch", "channel"] = Field(
        "patch",
        description="What a mean and spread are taken over. patch: all values of a patch together (MAE). channel: the "
        "values of each channel in it (VideoMAE).",
    )
    epsilon_at: Literal["variance", "spread"] = Field(
        "variance",
        description="What epsilon is added to. variance: the spread is sqrt(var + epsilon) (MAE). spread: it is "
        "sqrt(var) + epsilon (VideoMAE).",
    )
    epsilon: float = Field(
        1e-6,
        gt=0,
        description="Added so that a constant patch has a finite target, in the units of the tokens' values, squared "
        "where it is added to the variance.",
    )
    loss: Literal["mse", "l1", "smooth_l1"] = Field(
        "mse", description="mse: squared difference. l1: absolute. smooth_l1: squared below beta, absolute above."
    )
    beta: float = Field(1.0, gt=0, description="Where smooth_l1 turns from squared to absolute, in target units.")


class Patch(Objective[PatchSettings]):
    """Mean difference over the values of a patch.

    Normalised, the target is (x - mean) / spread with the unbiased variance. By default both are over all values and
    channels of a patch, and the spread is sqrt(var + epsilon): MAE's formula. With `per: channel` and
    `epsilon_at: spread` it is VideoMAE's.
    """

    _channels: int | None = None  # of a token, where means and spreads are per channel; known once attached
    _channels_last = True

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        """Learn how channels lie in a token. Raises ConfigError where `per: channel` has no meaning for its tokens, and
        on ids.
        """
        refuse_ids("patch", tokenizer)
        if not self._per_channel:
            return
        if not isinstance(tokenizer, GridTokenizer):
            raise ConfigError(
                f"Nothing tells how channels lie in the tokens of {tokenizer.component_name()!r}.",
                where="objective.per",
                expected="a tokenizer on a grid",
                got="per: channel",
                fix="Set objective.per=patch.",
            )
        self._channels = 1 if tokenizer.separate_channels else tokenizer.channels
        self._channels_last = tokenizer.channels_last

    @property
    def by_value(self) -> bool:  # type: ignore[override]
        """A channel's own mean and spread can't be told from the mean of a token in which values are absent."""
        return not self._per_channel or self._channels == 1

    @property
    def _per_channel(self) -> bool:
        return self.settings.normalise and self.settings.per == "channel"

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def _grouped(self, values: Tensor) -> Tensor:
        """(..., P) to (..., G, n): n values for each of the G means and spreads of a token."""
        if not self._per_channel:
            return values[..., None, :]
        if self._channels is None or values.shape[-1] % self._channels:
            raise ShapeError(
                "Objective 'patch' with per: channel doesn't know these tokens.",
                expected="attach(tokenizer) first" if self._channels is None else f"a multiple of {self._channels}",
                got=f"{values.shape[-1]} values",
            )
        if self._channels_last:
            return values.reshape(*values.shape[:-1], -1, self._channels).transpose(-1, -2)
        return values.reshape(*values.shape[:-1], self._channels, -1)

    def _flat(self, groups: Tensor) -> Tensor:
        """The way back from `_grouped`."""
        return (groups.transpose(-1, -2) if self._per_channel and self._channels_last else groups).flatten(-2)

    def _moments(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of each group, (..., G, 1)."""
        if groups.shape[-1] == 1 or groups.numel() == 0:  # one value has no spread to normalise by, nothing has none
            return torch.zeros_like(groups[..., :1]), torch.ones_like(groups[..., :1])
        variance, mean = torch.var_mean(groups, dim=-1, keepdim=True, correction=1)
        if self.settings.epsilon_at == "spread":
            return mean, variance.sqrt() + self.settings.epsilon
        return mean, (variance + self.settings.epsilon).sqrt()

    def target(self, values: Tensor) -> Tensor:
        if not self.settings.normalise:
            return values
        groups = self._grouped(values)
        mean, spread = self._moments(groups)
        return self._flat((groups - mean) / spread)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.settings.loss == "mse":
            return (prediction - target).square().mean(-1)
        if self.settings.loss == "l1":
            return (prediction - target).abs().mean(-1)
        return F.smooth_l1_loss(prediction, target, reduction="none", beta=self.settings.beta).mean(-1)

    def baseline(self, tokenizer: Tokenizer[Any]) -> float | None:
        """With n values of unbiased variance one per mean, predicting zero scores (n - 1) / n in mean square."""
        if not self.settings.normalise or self.settings.loss != "mse":
            return None
        count = tokenizer.token_width
        if self._per_channel and isinstance(tokenizer, GridTokenizer) and not tokenizer.separate_channels:
            count //= tokenizer.channels
        return (count - 1) / count if count > 1 else None

    def statistics(self, values: Tensor) -> Tensor | None:
        """Mean, then spread, of each group: (..., 2 G), G the channels of a token with `per: channel`, else 1."""
        return torch.cat(self._moments(self._grouped(values)), -2).flatten(-2) if self.settings.normalise else None

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        if statistics is None:
            return prediction
        mean, spread = statistics[..., None].chunk(2, -2)
        return self._flat(self._grouped(prediction) * spread + mean)
