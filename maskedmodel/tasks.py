"""What a task is: what stands on an encoder once it is trained. A head, what a label is, loss, metrics, tables.

Shapes as in tokens.py, and S the number of class and register tokens before the visible ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from maskedmodel.components import Component, S, Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tokens import Tokens

__all__ = ["Encoded", "Labels", "Table", "Task"]


@dataclass(frozen=True)
class Labels:
    """What data say of their labels.

    names   what the labels 0, 1, ... mean.
    counts  how many labelled samples a run trains on, by label.

    Raises ConfigError where there aren't as many of the one as of the other, or a count is below 0.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

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


class Task(Component[S], nn.Module, ABC):
    """What is learned on top of an encoder. Built anew for each run; `attach` makes its head.

    Attributes:
        score: the metric that tells which of two models is better.
        higher_is_better: whether more of it is.
        before_norm: whether `forward` is given what the encoder's last block gives, without the final norm after it.
    """

    score: str
    higher_is_better: bool = True
    before_norm: bool = False

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        nn.Module.__init__(self)
        Component.__init__(self, settings, **values)

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        """What labels may be called where this task is checked without data."""
        return ("0.5", "1.5", "2.25")

    @abstractmethod
    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        """Make the head, for an encoder of width `dim` and these labels. Called once, before anything else.

        Raises ConfigError where such labels or tokens don't go with the task.
        """

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Predictions (B, ...)."""

    def target(self, labels: Tensor) -> Tensor:
        """What predictions are compared with, (B, ...), of labels (B,) int64, all of them 0 or above."""
        return labels

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A loss per sample (B,), of float32 predictions."""

    def weight(self, target: Tensor) -> Tensor:
        """How much each sample counts, (B,) float32: the loss of a batch is the mean under these weights."""
        return target.new_ones(len(target)).float()

    @abstractmethod
    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Numbers over a whole data set, (N, ...) each on the CPU: `score` first. NaN where one isn't defined."""

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        """What a report shows of the predictions beside the metrics."""
        return []

    @abstractmethod
    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """What `maskedmodel predict` writes of predictions (N, ...): columns by name, one row per sample each."""

    def strata(self, labels: Tensor) -> Tensor:
        """The class (N,) int64 of each label (N,), for subsets that hold classes in their shares."""
        return labels
