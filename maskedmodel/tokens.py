"""The values that travel: Tokens into the engine, Mask beside them, Output back out.

Letters in every shape of this project:
B batch, L tokens, K visible tokens, M hidden tokens, P values per token, A axes, D encoder width, E decoder width,
Q target width.

Polarity, once and for all: **True = hidden from the encoder**. `Mask` is its only owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from maskedmodel.errors import ShapeError


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
    """

    values: Tensor
    coords: Tensor
    axes: tuple[str, ...]
    grid: tuple[int, ...] | None = None
    channel: Tensor | None = None
    valid: Tensor | None = None
    observed: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.dim() != 3:
            raise ShapeError("Token values need three dimensions.", expected="(B, L, P)", got=tuple(self.values.shape))
        batch, length, _ = self.values.shape
        self._check("coords", self.coords, [(length, len(self.axes)), (batch, length, len(self.axes))])
        self._check("channel", self.channel, [(length,), (batch, length)])
        self._check("valid", self.valid, [(batch, length)])
        self._check("observed", self.observed, [tuple(self.values.shape)])

    @staticmethod
    def _check(name: str, tensor: Tensor | None, allowed: Sequence[tuple[int, ...]]) -> None:
        if tensor is not None and tuple(tensor.shape) not in allowed:
            expected = " or ".join(map(str, allowed))
            raise ShapeError(f"Tokens.{name} has a wrong shape.", expected=expected, got=tuple(tensor.shape))

    @property
    def batch(self) -> int:
        return self.values.shape[0]

    @property
    def length(self) -> int:
        """L, padding included."""
        return self.values.shape[1]

    def rows(self, rows: slice | Tensor) -> Tokens:
        """The tokens of some of the samples."""
        return replace(
            self,
            values=self.values[rows],
            coords=self.coords if self.coords.dim() == 2 else self.coords[rows],
            channel=self.channel if self.channel is None or self.channel.dim() == 1 else self.channel[rows],
            valid=None if self.valid is None else self.valid[rows],
            observed=None if self.observed is None else self.observed[rows],
        )

    def without_nan(self) -> Tokens:
        """The same tokens where NaN says that a value is absent: zeros in its place, `observed` and `valid` set.

        Both stay None where every value is there.
        """
        absent = self.values.isnan()
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


def hidden_count(length: int, ratio: float) -> int:
    """How many of `length` tokens a mask ratio hides: rounded half to even, at least one hidden and one visible."""
    return max(0, min(max(round(ratio * length), 1), length - 1))


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

    The derived ids are in raster order. Where rows keep different numbers of tokens the ids are padded, and
    `keep_valid` and `hidden_valid` say which entries are real; they are None where all are.
    """

    hidden: Tensor
    valid: Tensor | None = None
    widths: tuple[int, int] | None = None
    even: bool | None = None
    gates: Tensor | None = None

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
        Ties go to the token that comes first, so a mask is reproducible across devices.
        """
        batch, length = scores.shape
        if isinstance(counts, int) and valid is not None:
            counts = torch.full((batch,), counts, device=scores.device)
        if valid is None and not isinstance(counts, Tensor):
            hide = hidden_count(length, ratio) if counts is None else min(max(counts, 1), length - 1)
            ids = scores.argsort(dim=1, descending=True, stable=True)[:, :hide]
            hidden = torch.zeros(batch, length, dtype=torch.bool, device=scores.device).scatter_(1, ids, True)
            return cls(hidden, None, (length - hide, hide), True)
        real = torch.full((batch,), length, device=scores.device) if valid is None else valid.sum(1)
        if counts is None:
            # In float64, as Python counts: in float32 45 * 0.7 is 31.5.
            wanted, most = (real.double() * ratio).round().long(), hidden_count(length, ratio)
            # keep(n) = n - round(ratio n) and round(ratio n) both grow with n: the full row bounds every row.
            widths: tuple[int, int] | None = (max(length - most, 1), max(most, 1))
        else:
            assert isinstance(counts, Tensor)
            wanted, widths = counts.to(scores.device).long(), None
            if bounds is not None and valid is None:
                widths = (length - max(bounds[0], 1), min(max(bounds[1], 1), length - 1))
        wanted = torch.minimum(wanted.clamp(min=1), (real - 1).clamp(min=0))
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
        if self.widths is not None and self.even is not None:
            return (*self.widths, self.even)
        keep, hide = self.visible.sum(1), self.hidden.sum(1)
        widths = self.widths or (int(keep.max()), int(hide.max()))
        even = bool((keep == widths[0]).all() and (hide == widths[1]).all())
        return (*widths, even)

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

    def rows(self, rows: slice | Tensor) -> Mask:
        """The mask of some of the samples."""
        valid, gates = (None if given is None else given[rows] for given in (self.valid, self.gates))
        return Mask(self.hidden[rows], valid, self.widths, self.even, gates)

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
    """

    loss: Tensor
    prediction: Tensor
    mask: Mask
    latent: Tensor
    loss_per_token: Tensor
