"""Where tokens lie: which cell of a grid, along which axes, in which channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskedmodel import Tokenizer, Tokens
from maskedmodel.errors import ConfigError, ShapeError

# What the setting `shared` of several masks means.
SHARED = "Whether the same pattern is hidden in every channel, as far as the count allows."


@dataclass(frozen=True)
class Cells:
    """A place for each token; tokens may share one.

    index  (1, L) or (B, L) int64, in [0, count).
    sizes  how many places there are along each dimension they were made from, channels first where they count.
    even   whether every place holds the same number of tokens in every sample.
    """

    index: Tensor
    sizes: tuple[int, ...]
    even: bool

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    def spread(self, values: Tensor) -> Tensor:
        """Values of places (B, count) for each token (B, L)."""
        return values.gather(1, self.index.expand(values.shape[0], -1))

    def real(self, tokens: Tokens) -> Tensor | None:
        """(B, count) bool, the places that hold a real token; None where all do."""
        if self.even:
            return None
        held = tokens.valid if tokens.valid is not None else tokens.values.new_ones(tokens.values.shape[:2]).bool()
        index = self.index.expand(tokens.batch, -1)
        empty = torch.zeros(tokens.batch, self.count, dtype=torch.int64, device=held.device)
        return empty.scatter_add_(1, index, held.long()) > 0


def axis_number(axes: Sequence[str], axis: str, setting: str) -> int:
    """The place of an axis among those of the tokens. Raises ConfigError, naming the setting, where they lack it."""
    if axis not in axes:
        raise ConfigError(
            f"The tokens have no axis {axis!r}.",
            where=setting,
            expected=f"one of {', '.join(axes)}",
            got=axis,
            fix=f"Set {setting} to an axis of the tokenizer, or choose another mask.",
        )
    return list(axes).index(axis)


def channels_of(tokens: Tokens) -> tuple[Tensor, int]:
    """The channel of each token, numbered as they come (R, L), R = 1 or B, and how many there are.

    Raises ShapeError where tokens carry no channel.
    """
    if tokens.channel is None:
        raise ShapeError(
            "This mask hides channels, and these tokens carry none.",
            where="mask.name",
            expected="a tokenizer that makes tokens of each channel on its own",
            got="Tokens.channel is None",
            fix="Choose another mask, or set the tokenizer to separate its channels where it can.",
        )
    if tokens.grid is not None:  # channel by channel: no value needs to be read
        cells = math.prod(tokens.grid)
        return torch.arange(tokens.length, device=tokens.values.device)[None] // cells, tokens.length // cells
    known, number = torch.unique(tokens.channel, return_inverse=True)
    return number.reshape(-1, tokens.length), len(known)


def cells_along(tokens: Tokens, axes: Sequence[int], channels: bool) -> Cells:
    """Cells by the cells along `axes`, and by channel where `channels` and the tokens carry one.

    Raises ShapeError where the tokens lie off the grid.
    """
    index, used = torch.zeros(1, tokens.length, dtype=torch.int64, device=tokens.values.device), []
    if channels and tokens.channel is not None:
        index, count = channels_of(tokens)
        used.append(count)
    if axes:
        cells, sizes = grid_cells(tokens)
        for axis in axes:
            index = index * sizes[axis] + cells[..., axis]
            used.append(sizes[axis])
    return Cells(index, tuple(used), tokens.grid is not None and tokens.valid is None)


def grid_cells(tokens: Tokens) -> tuple[Tensor, tuple[int, ...]]:
    """The cell of each token (R, L, A) int64, R = 1 or B, and the extents. Raises ShapeError off the grid."""
    if tokens.grid is None and tokens.coords.is_floating_point():
        raise ShapeError(
            "This mask needs tokens on a grid.",
            where="mask.name",
            expected="whole numbers as coordinates",
            got=f"positions off the grid along {', '.join(tokens.axes)}",
            fix="Choose a mask that needs no grid, such as uniform, blocks or adaptive.",
        )
    coords = tokens.coords if tokens.coords.dim() == 3 else tokens.coords[None]
    cells = coords.long()
    if tokens.grid is not None:
        return cells, tokens.grid
    return cells, tuple(int(extent) + 1 for extent in cells.amax((0, 1)))


def usual_sizes(tokenizer: Tokenizer[Any], axes: Sequence[int]) -> list[int] | None:
    """The usual extents along some axes, in tokens, where the tokenizer knows them."""
    return None if tokenizer.extents is None else [tokenizer.extents[axis] for axis in axes]
