"""The values that travel: Tokens into the engine, Mask beside them, Output back out.

Letters in every shape of this project:
B batch, L tokens, K visible tokens, M hidden tokens, P values per token, A axes, F values that describe a channel,
D encoder width, E decoder width, Q target width.

Polarity, once and for all: **True = hidden from the encoder**. `Mask` is its only owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import NamedTuple, overload

import torch
from torch import Tensor

from maskedmodel.errors import ShapeError

__all__ = ["Layout", "Mask", "Output", "Selection", "Tokens", "hidden_count"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of signals cut into tokens.

    values   (B, L, P) raw patch values.
    coords   (L, A) or (B, L, A): position in grid cells along each axis.
    axes     the names of the A axes, such as ("height", "width").
    grid     extents along the axes when the tokens fill a regular grid in raster order, else None. Where tokens carry
             a channel, the grid is filled once per channel, channel by channel: L = channels * prod(grid).
    channel  (L,) or (B, L) int64 or None: the channel, lead or variate a token came from.
    valid    (B, L) bool or None: True = real, False = padding. None = all real.
    observed (B, L, P) bool or None: which values of a token are there. None = all. The others hold any finite number:
             an encoder is given it, but no loss falls on them. A token of which nothing is observed is padding.
    channel_features
             (L, F) or (B, L, F) floating point or None: what is known of a token's channel, such as a wavelength or the
             place of an electrode. All tokens of a channel have the same.
    """

    values: Tensor
    coords: Tensor
    axes: tuple[str, ...]
    grid: tuple[int, ...] | None = None
    channel: Tensor | None = None
    valid: Tensor | None = None
    observed: Tensor | None = None
    channel_features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.dim() != 3:
            raise ShapeError("Token values need three dimensions.", expected="(B, L, P)", got=tuple(self.values.shape))
        batch, length, _ = self.values.shape
        self._check("coords", self.coords, [(length, len(self.axes)), (batch, length, len(self.axes))])
        self._check("channel", self.channel, [(length,), (batch, length)])
        self._check("valid", self.valid, [(batch, length)])
        self._check("observed", self.observed, [tuple(self.values.shape)])
        if self.channel_features is not None:
            width = self.channel_features.shape[-1] if self.channel_features.dim() else 0
            self._check("channel_features", self.channel_features, [(length, width), (batch, length, width)])

    @staticmethod
    def _check(name: str, tensor: Tensor | None, allowed: Sequence[tuple[int, ...]]) -> None:
        if tensor is None:
            return
        # Tuples of different lengths compare their first items, too, which would tie a graph's batch to L in export.
        if not any(len(one) == tensor.dim() and one == tuple(tensor.shape) for one in allowed):
            expected = " or ".join(map(str, allowed))
            raise ShapeError(f"Tokens.{name} has a wrong shape.", expected=expected, got=tuple(tensor.shape))

    @property
    def batch(self) -> int:
        return self.values.shape[0]

    @property
    def layout(self) -> Layout:
        """Where the tokens stand, as one value for the engine."""
        return Layout(self.coords, self.grid, self.channel, self.channel_features)

    @property
    def length(self) -> int:
        """L, padding included."""
        return self.values.shape[1]

    def rows(self, rows: slice | Tensor) -> Tokens:
        """The tokens of some of the samples."""
        features = self.channel_features
        return replace(
            self,
            values=self.values[rows],
            coords=self.coords if self.coords.dim() == 2 else self.coords[rows],
            channel=self.channel if self.channel is None or self.channel.dim() == 1 else self.channel[rows],
            channel_features=features if features is None or features.dim() == 2 else features[rows],
            valid=None if self.valid is None else self.valid[rows],
            observed=None if self.observed is None else self.observed[rows],
        )

    def without_nan(self) -> Tokens:
        """The same tokens where NaN says that a value is absent: zeros in its place, `observed` and `valid` set.

        Both stay None where every value is there. In a graph that torch.export makes they always do, since no graph
        can choose by its input which tokens there are.
        """
        absent = self.values.isnan()
        if torch.compiler.is_exporting():
            return replace(self, values=self.values.masked_fill(absent, 0))
        if not absent.any():
            return self
        present = ~absent
        some = present.any(-1)
        valid = some if self.valid is None else some & self.valid
        return replace(
            self,
            values=self.values.masked_fill(absent, 0),
            valid=None if bool(valid.all()) else valid,
            observed=None if bool(present[valid].all()) else present,
        )

    def absent_as_nan(self, values: Tensor) -> Tensor:
        """`values` (B, L, P) for these tokens with NaN where `without_nan` found it: what a signal is made of again."""
        if self.valid is not None:
            values = values.masked_fill(~self.valid[..., None], torch.nan)
        return values if self.observed is None else values.masked_fill(~self.observed, torch.nan)


class Layout(NamedTuple):
    """Where tokens stand: `coords`, `grid`, `channel` and `channel_features` as in Tokens."""

    coords: Tensor
    grid: tuple[int, ...] | None
    channel: Tensor | None
    channel_features: Tensor | None = None


class Selection(NamedTuple):
    """Which tokens are visible and which are hidden, as the ids of a Mask. Without a decoder none is hidden."""

    ids_keep: Tensor
    ids_hidden: Tensor | None = None
    keep_valid: Tensor | None = None
    hidden_valid: Tensor | None = None
    gates: Tensor | None = None


@overload
def hidden_count(length: int, ratio: float) -> int: ...


@overload
def hidden_count(length: Tensor, ratio: float) -> Tensor: ...


def hidden_count(length: int | Tensor, ratio: float) -> int | Tensor:
    """How many of `length` real tokens a mask ratio hides: rounded half to even, at least one hidden and one visible.

    `length` is a number, or an integer tensor of them, and so is the result. Of a single token none is hidden. This is
    the one place where counts are rounded; `ratio * length` is taken in float64, since in float32 45 * 0.7 is 31.5.
    """
    if isinstance(length, Tensor):
        return limited_count((length.double() * ratio).round().long(), length)
    return max(0, min(max(round(ratio * length), 1), length - 1))


def limited_count(count: Tensor, real: Tensor) -> Tensor:
    """`count` tokens to hide of `real` ones, both int64 (B,): where it can be, one at least is hidden, one visible."""
    return torch.minimum(count.clamp(min=1), (real - 1).clamp(min=0))


@dataclass(frozen=True, eq=False)
class Mask:
    """Which tokens are hidden from the encoder.

    hidden   (B, L) bool, True = hidden. Padding is never hidden: it is neither visible nor scored.
    valid    (B, L) bool or None, as in Tokens.
    widths   (K, M), upper bounds of the visible and hidden counts of a row, and
    even     whether every row has exactly K and M. Both are known to whoever made the mask by ranking; left None they
             are read from `hidden`, which makes a GPU wait.
    gates    (B, L) or None: ones, by which visible tokens are multiplied as the encoder takes them in, so that the
             gradient of the loss reaches whoever made them (a straight-through estimate).
    made_by  (B,) int64 or None: which of several schedulers made each row, as numbered by who chose among them.

    The derived ids are in raster order. Where rows keep different numbers of tokens the ids are padded, and
    `keep_valid` and `hidden_valid` say which entries are real; they are None where all are.
    """

    hidden: Tensor
    valid: Tensor | None = None
    widths: tuple[int, int] | None = None
    even: bool | None = None
    gates: Tensor | None = None
    made_by: Tensor | None = None

    def __post_init__(self) -> None:
        if self.hidden.dim() != 2 or self.hidden.dtype != torch.bool:
            got = f"{tuple(self.hidden.shape)} {self.hidden.dtype}"
            raise ShapeError("A mask is a (B, L) bool tensor, True = hidden.", expected="(B, L) torch.bool", got=got)
        if self.valid is not None and self.valid.shape != self.hidden.shape:
            raise ShapeError(
                "Mask.valid has another shape than Mask.hidden.",
                expected=tuple(self.hidden.shape),
                got=tuple(self.valid.shape),
            )

    @classmethod
    def from_scores(
        cls,
        scores: Tensor,
        ratio: float,
        valid: Tensor | None = None,
        counts: Tensor | int | None = None,
        bounds: tuple[int, int] | None = None,
    ) -> Mask:
        """Hide the tokens with the highest scores (B, L).

        Each row hides `hidden_count(real tokens, ratio)`, or what `counts` says: one number for all rows, which goes
        only with tokens that are all real, or (B,) int64, of which `bounds` are the fewest and the most where known.
        Ties go to the token that comes first, so a mask is reproducible across devices. Raises ShapeError on scores
        that aren't (B, L) and floating point, and on a ratio that is no share.
        """
        if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
            raise ShapeError(
                "Scores are one floating-point number per token.",
                expected="(B, L) of a floating-point type",
                got=f"{tuple(scores.shape)} {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__,
            )
        if counts is None and not (isinstance(ratio, Real) and 0 <= ratio <= 1):  # NaN, too
            raise ShapeError("A mask ratio is a share of the tokens.", expected="a number from 0 to 1", got=repr(ratio))
        batch, length = scores.shape
        if valid is not None and (valid.shape != scores.shape or valid.dtype != torch.bool):
            got = f"{tuple(valid.shape)} {valid.dtype}"
            raise ShapeError("`valid` doesn't fit the scores.", expected=f"{(batch, length)} torch.bool", got=got)
        if isinstance(counts, int) and valid is not None:
            counts = torch.full((batch,), counts, device=scores.device)
        if valid is None and not isinstance(counts, Tensor):
            hide = hidden_count(length, ratio) if counts is None else min(max(counts, 1), length - 1)
            ids = scores.argsort(dim=1, descending=True, stable=True)[:, :hide]
            hidden = torch.zeros(batch, length, dtype=torch.bool, device=scores.device).scatter_(1, ids, True)
            return cls(hidden, None, (length - hide, hide), True)
        real = torch.full((batch,), length, device=scores.device) if valid is None else valid.sum(1)
        if counts is None:
            wanted, most = hidden_count(real, ratio), hidden_count(length, ratio)
            # keep(n) = n - round(ratio n) and round(ratio n) both grow with n: the full row bounds every row.
            widths: tuple[int, int] | None = (max(length - most, 1), max(most, 1))
        else:
            assert isinstance(counts, Tensor)
            wanted, widths = counts.to(scores.device).long(), None
            if bounds is not None and valid is None:
                widths = (length - max(bounds[0], 1), min(max(bounds[1], 1), length - 1))
        wanted = limited_count(wanted, real)
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        hidden = rank < wanted[:, None]
        return cls(hidden, valid, widths, None if counts is not None else False)

    @classmethod
    def nothing(cls, tokens: Tokens) -> Mask:
        """Everything real is visible: the mask of `encode`."""
        hidden = torch.zeros(tokens.batch, tokens.length, dtype=torch.bool, device=tokens.values.device)
        return cls(hidden, tokens.valid, (tokens.length, 0), tokens.valid is None)

    @cached_property
    def visible(self) -> Tensor:
        """(B, L) bool: real and not hidden."""
        return ~self.hidden if self.valid is None else ~self.hidden & self.valid

    @cached_property
    def _shape(self) -> tuple[int, int, bool]:
        known = self.widths is not None and self.even is not None
        if known and self.hidden.device.type != "cpu":  # looking would make the device wait
            return (*self.widths, self.even)  # type: ignore[misc]
        keep, hide = self.visible.sum(1), self.hidden.sum(1)
        most = (int(keep.max()), int(hide.max())) if len(keep) else (0, 0)
        widths = self.widths or most
        even = bool((keep == widths[0]).all() and (hide == widths[1]).all())
        if most[0] > widths[0] or most[1] > widths[1] or (self.even is True and not even):
            raise ShapeError(
                "The widths of a mask don't fit what it hides: tokens would be left out without a word.",
                expected=f"at least {most} visible and hidden tokens a row" + ("" if even else ", even=False"),
                got=f"widths {widths}, even={self.even}",
                fix="Leave widths and even out: then they are read from the mask.",
            )
        return (*widths, even if self.even is None else self.even)

    @cached_property
    def ids_keep(self) -> Tensor:
        """(B, K) int64, the visible tokens."""
        return self._first(self.visible, self._shape[0])

    @cached_property
    def ids_hidden(self) -> Tensor:
        """(B, M) int64, the hidden tokens."""
        return self._first(self.hidden, self._shape[1])

    @cached_property
    def keep_valid(self) -> Tensor | None:
        """(B, K) bool: False where `ids_keep` is filled up; None where it never is."""
        return None if self._shape[2] else self.visible.gather(1, self.ids_keep)

    @cached_property
    def hidden_valid(self) -> Tensor | None:
        """(B, M) bool: False where `ids_hidden` is filled up; None where it never is."""
        return None if self._shape[2] else self.hidden.gather(1, self.ids_hidden)

    @property
    def scored(self) -> int:
        """The number of hidden tokens in the batch. Where rows differ it is read, and a GPU waits."""
        _, hidden, even = self._shape
        return self.hidden.shape[0] * hidden if even else int(self.hidden.sum())

    @staticmethod
    def _first(chosen: Tensor, width: int) -> Tensor:
        return (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]

    @property
    def selection(self) -> Selection:
        """The ids as one value for the engine."""
        return Selection(self.ids_keep, self.ids_hidden, self.keep_valid, self.hidden_valid, self.gates)

    def within(self, valid: Tensor | None) -> Mask:
        """The mask where only `valid` (B, L) tokens are real: padding that it hides is neither hidden nor visible."""
        if valid is None or (valid is self.valid and self.widths is not None):  # ranking hides no padding
            return self
        real = valid if self.valid is None else valid & self.valid
        even = None if self.even is None else False
        return replace(self, hidden=self.hidden & real, valid=real, even=even)

    def rows(self, rows: slice | Tensor) -> Mask:
        """The mask of some of the samples."""
        some = {name: getattr(self, name) for name in ("valid", "gates", "made_by")}
        return replace(self, hidden=self.hidden[rows], **{k: v if v is None else v[rows] for k, v in some.items()})

    def check(self) -> Mask:
        """Read the values and hold them to the invariants; returns the mask itself.

        For the kit, debugging and masks that come from outside: it makes a GPU wait.
        Raises ShapeError with the row that breaks a rule.
        """
        if self.valid is not None:
            self._refuse((self.hidden & ~self.valid).any(1), "hides padding", "padding is neither visible nor scored")
        self._refuse(~self.hidden.any(1), "hides nothing", "at least one hidden real token")
        self._refuse(~self.visible.any(1), "hides everything", "at least one visible real token")
        return self

    @staticmethod
    def _refuse(bad: Tensor, what: str, expected: str) -> None:
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ShapeError(f"Row {row} of the mask {what}.", expected=expected, got=f"{int(bad.sum())} such rows")


@dataclass(frozen=True, eq=False)
class Output:
    """What the model returns in training.

    loss            scalar: mean over the hidden tokens of the batch.
    prediction      (B, M, Q), in the order of `mask.ids_hidden`.
    mask            the mask it was made under.
    latent          (B, S + K, D): the encoder's S class and register tokens, then the visible tokens.
    loss_per_token  (B, M) float32, zero where `mask.hidden_valid` is False.

    Of an objective that sees a scene `loss_per_token` is a weighted sum, and there are also:

    loss_per_sample  (B,) float32: the weighted sum of losses per sample, whose mean is in `loss`; None without any.
    named            each of its losses, (B, M) or (B,), by name, detached and not weighted.
    """

    loss: Tensor
    prediction: Tensor
    mask: Mask
    latent: Tensor
    loss_per_token: Tensor
    loss_per_sample: Tensor | None = None
    named: Mapping[str, Tensor] = field(default_factory=dict)
