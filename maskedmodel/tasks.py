"""What a task is: what stands on an encoder once it is trained. A head, what a label is, loss, metrics, tables.

Shapes as in tokens.py, and S the number of class and register tokens before the visible ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.components import Component, S, Tokenizer
from maskedmodel.errors import ConfigError, PluginError, ShapeError
from maskedmodel.tokens import Tokens

__all__ = ["Chart", "Encoded", "Labels", "Table", "Task"]


@dataclass(frozen=True)
class Labels:
    """What data say of their labels.

    names   what the labels 0, 1, ... mean.
    counts  how many labelled samples a run trains on, by label; where a task takes targets, how many of their places.
    shape   that of one target, where a task takes targets of values. Points have names and counts, too, and (K, 3).

    Raises ConfigError where there aren't as many of the one as of the other, or a count is below 0.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.counts) or min(self.counts, default=0) < 0:
            raise ConfigError(
                "Labels need a name and a count each, of 0 or above.",
                where="Labels",
                got=f"{len(self.names)} names, counts {list(self.counts[:8])}",
            )


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder makes of a batch, as a task is given it.

    latent      (B, S + K, D): class and register tokens, then the visible tokens; behind the encoder's final norm,
                but for a task whose `before_norm` is true.
    prefix      S.
    class_token whether the first of them is a class token.
    tokens      what was encoded.
    ids         (B, K) int64: which tokens the visible ones are.
    valid       (B, K) bool or None: False where a row is filled up.
    """

    latent: Tensor
    prefix: int
    class_token: bool
    tokens: Tokens
    ids: Tensor
    valid: Tensor | None = None

    def mean(self) -> Tensor:
        """The mean over each sample's real tokens, (B, D)."""
        visible = self.latent[:, self.prefix :]
        if self.valid is None:
            return visible.mean(1)
        weight = self.valid[..., None].to(visible.dtype)
        return (visible * weight).sum(1) / weight.sum(1).clamp(min=1)

    def on_grid(self, extents: tuple[int, ...], channels: int = 0) -> Tensor:
        """The visible tokens where they stand, (B, *grid, D), or (B, channels, *grid, D) where channels are told apart.

        The mean where several tokens stand in one place, as those of a picture's channels do; zeros where none does.
        `extents` are the grid's where the tokens are ragged and know none. Raises ShapeError where one lies outside.
        """
        tokens, visible = self.tokens, self.latent[:, self.prefix :]
        grid, batch, dim = tokens.grid or extents, visible.shape[0], visible.shape[-1]
        cells = math.prod(grid)
        if tokens.grid is not None and self.valid is None and visible.shape[1] == tokens.length:  # all, in raster order
            whole = visible.reshape(batch, visible.shape[1] // cells, *grid, dim)
            return whole if channels else whole.mean(1)
        coords = tokens.coords.expand(batch, -1, -1) if tokens.coords.dim() == 2 else tokens.coords
        own = coords.gather(1, self.ids[..., None].expand(-1, -1, coords.shape[-1]))
        place, inside = torch.zeros_like(self.ids), torch.ones_like(self.ids, dtype=torch.bool)
        for axis, extent in enumerate(grid):
            place = place * extent + own[..., axis]
            inside &= (own[..., axis] >= 0) & (own[..., axis] < extent)
        if channels and tokens.channel is not None:
            channel = tokens.channel.expand(batch, -1).gather(1, self.ids)
            inside &= channel < channels
            place = channel * cells + place
        real = inside if self.valid is None else inside | ~self.valid
        if not bool(real.all()):
            raise ShapeError(
                "A token lies outside the grid on which a task puts its predictions.",
                expected=f"coordinates within {grid}" + (f" and channels below {channels}" if channels else ""),
                fix="Give signals of the size that the tokenizer's settings name.",
            )
        weight = torch.ones_like(place, dtype=visible.dtype)
        if self.valid is not None:
            weight, place = weight * self.valid, place.masked_fill(~self.valid, 0)
        summed = visible.new_zeros(batch, cells * max(channels, 1), dim)
        summed = summed.scatter_add(1, place[..., None].expand_as(visible), visible * weight[..., None])
        count = visible.new_zeros(batch, cells * max(channels, 1)).scatter_add(1, place, weight)
        mean = summed / count.clamp(min=1)[..., None]
        return mean.reshape(batch, *([channels] if channels else []), *grid, dim)

    def first(self) -> Tensor:
        """The class token, (B, D). Raises ConfigError where the encoder has none."""
        if not self.class_token:
            raise ConfigError("This encoder has no class token.", where="model.encoder.class_token", got=False)
        return self.latent[:, 0]


@dataclass(frozen=True)
class Table:
    """A table for the report: `shaded` shades numbers by their size, as a confusion matrix wants."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]
    shaded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "headings", tuple(self.headings))
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))


@dataclass(frozen=True)
class Chart:
    """A chart for the report: a dot for each of `x` and `y`, or, where there are `names`, a bar of length y for each.

    `diagonal` draws the line where x equals y. Raises PluginError where there isn't one of each.
    """

    caption: str
    y: Sequence[float]
    x: Sequence[float] = ()
    names: Sequence[str] = ()
    x_label: str = ""
    y_label: str = ""
    diagonal: bool = False

    def __post_init__(self) -> None:
        for name in ("x", "y", "names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if (len(self.x), len(self.names)) not in ((len(self.y), 0), (0, len(self.y))):
            raise PluginError(
                "A chart has an x or a name for each y.",
                where=self.caption,
                expected=f"{len(self.y)} of one",
                got=f"{len(self.x)} of x, {len(self.names)} names",
            )


class Task(Component[S], nn.Module, ABC):
    """What is learned on top of an encoder. Built anew for each run; `attach` makes its head.

    Attributes:
        score: the metric that tells which of two models is better.
        higher_is_better: whether more of it is.
        before_norm: whether `forward` is given what the encoder's last block gives, without the final norm after it.
        takes_target: whether it learns from samples' `target`, such as a label per pixel, in place of their `label`.
            `Labels` are then those of targets, and samples aren't mixed, nor tokens hidden, since a target can't be.
    """

    score: str
    higher_is_better: bool = True
    before_norm: bool = False
    takes_target: bool = False

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        nn.Module.__init__(self)
        Component.__init__(self, settings, **values)

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        """What labels may be called where this task is checked without data."""
        return ("0.5", "1.5", "2.25")

    @classmethod
    def example_target(cls, tokenizer: Tokenizer[Any], batch: int, generator: torch.Generator) -> Tensor:
        """Targets (B, ...) with which a task that takes them is checked without data, drawn from `generator` alone."""
        raise PluginError(f"Task {cls.component_name()!r} takes targets and gives no example_target to check it with.")

    @abstractmethod
    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        """Make the head, for an encoder of width `dim` and these labels. Called once, before anything else.

        Raises ConfigError where such labels or tokens don't go with the task.
        """

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Predictions (B, ...)."""

    def target(self, labels: Tensor) -> Tensor:
        """What predictions are compared with, (B, ...), of labels (B,) int64, all of them 0 or above.

        Where the task takes targets, of those (B, ...), moved as the signal was.
        """
        return labels

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A loss per sample (B,), of float32 predictions."""

    def restore(self, tokenizer: Tokenizer[Any], values: Tensor, stored: Tensor) -> Tensor:
        """Predictions or targets (B, ...) in the units of the data, given the stored batch that they are of."""
        return values

    def to_file(self, values: Tensor, stored: Tensor, box: Tensor) -> Tensor:
        """Restored predictions (B, ...) as places in the files, for `maskedmodel predict`.

        `box` (B, A, 2) is the part of its file that each stored signal shows, as `Sample` says. Default: as they are.
        """
        return values

    def digest(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What `metrics` and `tables` need of a batch's predictions and targets, (B, ...) each, such as counts."""
        return prediction, target

    def weight(self, target: Tensor) -> Tensor:
        """How much each sample counts, (B,) float32: the loss of a batch is the mean under these weights."""
        return target.new_ones(len(target)).float()

    @abstractmethod
    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Numbers over a whole data set, (N, ...) each on the CPU: `score` first. NaN where one isn't defined."""

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        """What a report shows of the predictions beside the metrics."""
        return []

    def charts(self, prediction: Tensor, target: Tensor) -> list[Chart]:
        """Charts of the predictions, as `metrics` is given them, for the report."""
        return []

    def wrongness(self, prediction: Tensor, target: Tensor) -> Tensor | None:
        """How wrong each prediction is, (N,), as `metrics` is given them; 0: not at all.

        A report shows the samples that are most wrong. None: which they are isn't of interest.
        """
        return None

    def told(self, prediction: Tensor, target: Tensor) -> Sequence[str]:
        """What is true and what is predicted, N short texts, as `metrics` is given them."""
        return [""] * len(target)

    @abstractmethod
    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """What `maskedmodel predict` writes of predictions (N, ...): columns by name, one row per sample each."""

    def maps(self, prediction: Tensor) -> Tensor | None:
        """A class number for each place, (N, ...) uint8, which `maskedmodel predict` writes as a file per sample."""
        return None

    def paint(self, places: Tensor) -> Tensor | None:
        """Colours (B, 3, H, W) in [0, 1] of predictions or targets of places, for pictures. None: none are drawn."""
        return None

    def shown(
        self, tokenizer: Tokenizer[Any], signal: Tensor, stored: Tensor, prediction: Tensor, target: Tensor
    ) -> Mapping[str, Tensor] | None:
        """Pictures (B, 3, H, W) in [0, 1] of a few samples by heading, for a task that takes targets. None: none.

        Of a prepared batch, what it was prepared from, and predictions and targets as `loss` is given them. Default:
        the signal, and the colours of truth and prediction where `paint` gives some.
        """
        truth, found = self.paint(target), self.paint(prediction)
        if truth is None or found is None:
            return None
        return {"signal": tokenizer.picture(signal), "truth": truth, "prediction": found}

    @property
    def legend(self) -> str:
        """What colours and marks of `shown` mean, in words."""
        return ""

    def strata(self, labels: Tensor) -> Tensor:
        """The class (N,) int64 of each label (N,), for subsets that hold classes in their shares."""
        return labels
