"""Masks that follow the density of information, without a weight to learn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import GridTokenizer, Noise, Tokenizer, Tokens
from maskedmodel.errors import PluginError
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel_masks.ranking import Sign, direction, gumbel, ranks, real_counts
from maskedmodel_masks.schedules import all_ratios, refuse_extremes
from maskedmodel_masks.uniform import RatioSettings, Scheduled, usual_count

BINS = 16  # of the histogram whose entropy is taken


class AdaptiveSettings(RatioSettings):
    """Dense tokens are hidden less often than empty ones, or more often; dense samples may keep more tokens."""

    name: Literal["adaptive"] = "adaptive"
    signal: Literal["variance", "gradient", "entropy"] = Field(
        "variance",
        description="What makes a token dense. variance: of its values. gradient: the mean square of differences "
        "between neighbouring values. entropy: of the histogram of its values over the sample's range, in 16 bins.",
    )
    sign: Sign = Field(
        "show", description="What happens to dense tokens. show: they stay visible more often. hide: the reverse."
    )
    strength: float = Field(
        3.0,
        ge=0,
        description="How much density decides: the logarithm of the odds between the densest and the emptiest token of "
        "a sample. 0 = nothing, all are as likely.",
    )
    spread: float = Field(
        0.0,
        gt=-1,
        lt=1,
        description="How far the ratio of a sample may lie from `ratio`, by how dense the sample is among the training "
        "data; on average it is `ratio`. Above 0 dense samples keep more tokens, below 0 fewer; 0 = all alike.",
    )
    levels: int = Field(
        5,
        ge=2,
        le=8,
        description="Number of distinct ratios that `spread` makes. Samples of one go through the model together.",
    )

    @model_validator(mode="after")
    def _inside(self) -> AdaptiveSettings:
        lowest, highest = min(all_ratios(self.ratio)) - abs(self.spread), max(all_ratios(self.ratio)) + abs(self.spread)
        if not (lowest > 0 and highest < 1):
            raise ValueError(f"ratio and spread go from {lowest:.3g} to {highest:.3g}, which isn't between 0 and 1")
        return self


class Adaptive(Scheduled[AdaptiveSettings]):
    """Draws tokens without replacement, with odds that follow the rank of their density in the sample."""

    edges: Tensor  # (levels - 1,) densities of samples between one level and the next, over the training data

    def __init__(self, settings: AdaptiveSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.register_buffer("edges", torch.full((self.settings.levels - 1,), torch.nan, dtype=torch.float64))
        self._measured = False  # whether `edges` are known to be there: looked at once, as it makes a device wait
        self._inside: tuple[int, ...] = ()  # how the values of a token lie

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Learns how a token's values lie; where the tokenizer cuts no grid, they are taken as a line.

        Raises ConfigError where the ratios hide none or all of the usual number of tokens.
        """
        count, spread = usual_count(tokenizer), abs(self.settings.spread)
        if count is not None:
            ratios = [ratio + side * spread for ratio in all_ratios(self.settings.ratio) for side in (-1, 1)]
            refuse_extremes(ratios, count, "mask.ratio and mask.spread" if spread else "mask.ratio", "tokens")
        self._inside = ()
        if isinstance(tokenizer, GridTokenizer):
            channels = tokenizer.token_width // math.prod(tokenizer.patch)
            self._inside = (*tokenizer.patch, channels) if tokenizer.channels_last else (channels, *tokenizer.patch)
            self._channel_dim = len(tokenizer.patch) if tokenizer.channels_last else 0

    def density(self, tokens: Tokens) -> Tensor:
        """How much there is in each token, (B, L) float32, zero or above."""
        values = tokens.values.float()
        if self.settings.signal == "variance":
            return _variance(values, tokens.observed)
        if self.settings.signal == "gradient":
            return self._gradient(values, tokens.observed)
        return _entropy(values, tokens)

    def _gradient(self, values: Tensor, observed: Tensor | None) -> Tensor:
        """The mean square of differences between neighbours along the axes of a token, of observed values alone."""
        shape = (*values.shape[:2], *self._inside) if self._inside else values.shape
        values = values.reshape(shape)
        present = None if observed is None else observed.reshape(shape)
        total, count = values.new_zeros(shape[:2]), values.new_zeros(shape[:2])
        for dim in range(2, values.dim()):
            if self._inside and dim - 2 == self._channel_dim:
                continue  # one channel isn't the neighbour of another
            squares = values.diff(dim=dim).square()
            if present is None:
                count = count + squares[0, 0].numel()
            else:
                both = present.narrow(dim, 1, shape[dim] - 1) & present.narrow(dim, 0, shape[dim] - 1)
                squares, count = squares * both, count + both.flatten(2).sum(2)
            total = total + squares.flatten(2).sum(2)
        return total / count.clamp(min=1)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        push = direction(self.settings.sign) * self.settings.strength
        return push * ranks(self.density(tokens), tokens.valid) + gumbel(tokens, noise)

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor | int | None:
        if not self.settings.spread:
            return None
        self._measured = self._measured or not bool(self.edges.isnan().any())
        if not self._measured:
            raise PluginError(
                "The densities of the training data weren't measured, so no sample can be told to be dense.",
                where="mask.spread",
                expected="fit_statistics before the first mask",
                fix="Call scheduler.fit_statistics(batches of tokens), as training does, or set mask.spread=0.",
            )
        # Equal steps from -1 for the emptiest samples to 1 for the densest, each taken by as many training samples.
        step = torch.bucketize(self._sample_density(tokens), self.edges).double()
        level = step * (2 / (self.settings.levels - 1)) - 1
        ratio = self.ratio(progress) - self.settings.spread * level
        return (real_counts(tokens.values, tokens.valid) * ratio).round().long()

    def bounds(self, tokens: Tokens, progress: float) -> tuple[int, int] | None:
        if not self.settings.spread:
            return None
        ratio, spread = self.ratio(progress), abs(self.settings.spread)
        return round(tokens.length * (ratio - spread)), round(tokens.length * (ratio + spread))

    def _sample_density(self, tokens: Tokens) -> Tensor:
        """(B,) float64: the mean over real tokens of the density's logarithm, as densities spread over magnitudes."""
        density = self.density(tokens).double()
        if self.settings.signal != "entropy":
            density = (density + 1e-12).log()
        if tokens.valid is None:
            return density.mean(1)
        return (density * tokens.valid).sum(1) / tokens.valid.sum(1).clamp(min=1)

    @property
    def needs_statistics(self) -> bool:
        return self.settings.spread != 0

    def fit_statistics(self, batches: Iterable[Tokens]) -> None:
        """Measure how dense samples are. Ranked within a batch, masks would depend on its size and its company."""
        density = torch.cat([self._sample_density(tokens) for tokens in batches])
        levels = self.settings.levels
        places = torch.arange(1, levels, dtype=torch.float64, device=density.device) / levels
        self.edges.copy_(density.quantile(places))


def _variance(values: Tensor, observed: Tensor | None) -> Tensor:
    if observed is None:
        return values.var(-1, correction=0)
    count = observed.sum(-1, keepdim=True).clamp(min=1)
    mean = (values * observed).sum(-1, keepdim=True) / count
    return ((values - mean).square() * observed).sum(-1) / count.squeeze(-1)


def _entropy(values: Tensor, tokens: Tokens) -> Tensor:
    """In nats, of each token's histogram over the range of the sample's values."""
    there = tokens.observed if tokens.observed is not None else None
    if tokens.valid is not None:
        real = tokens.valid[..., None].expand_as(values)
        there = real if there is None else there & real
    low = values if there is None else values.masked_fill(~there, torch.inf)
    high = values if there is None else values.masked_fill(~there, -torch.inf)
    least, most = low.amin((1, 2), keepdim=True), high.amax((1, 2), keepdim=True)
    place = ((values - least) / (most - least).clamp(min=1e-12) * BINS).clamp(0, BINS - 1).long()
    weight = torch.ones_like(values) if there is None else there.to(values.dtype)
    histogram = values.new_zeros(*values.shape[:2], BINS).scatter_add_(2, place, weight)
    share = histogram / histogram.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1)  # type: ignore[no-any-return]
