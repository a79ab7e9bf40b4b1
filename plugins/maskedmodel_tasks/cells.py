"""Several values for each token as a finer grid than that of the tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def unfolded(cells: Tensor, channels: int, inside: Sequence[int]) -> Tensor:
    """(B, *grid, channels * prod(inside)) as (B, channels, *fine): `inside` cells of each token along each axis."""
    batch, *grid, _ = cells.shape
    axes = len(grid)
    order = [0, 1 + axes]  # then, axis by axis, tokens and the cells inside one
    for axis in range(axes):
        order += [1 + axis, 2 + axes + axis]
    fine = [count * own for count, own in zip(grid, inside, strict=True)]
    return cells.reshape(batch, *grid, channels, *inside).permute(order).reshape(batch, channels, *fine)
