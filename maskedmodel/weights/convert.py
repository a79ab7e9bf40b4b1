"""Weights of one size made to fit another: explicit functions on tensors, each right by a rule that a test computes.

Letters: D width, P values in a token, C channels, *p extents of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TokenLayout:
    """How the P values of a token lie: a box `patch` of `channels` each, the channel running fastest or slowest."""

    patch: tuple[int, ...]
    channels: int
    channels_last: bool = True

    @property
    def width(self) -> int:
        """P."""
        return math.prod(self.patch) * self.channels

    def unfold(self, tensor: Tensor) -> Tensor:
        """(..., P) to (..., *p, C)."""
        if self.channels_last:
            return tensor.reshape(*tensor.shape[:-1], *self.patch, self.channels)
        return tensor.reshape(*tensor.shape[:-1], self.channels, *self.patch).movedim(-1 - len(self.patch), -1)

    def fold(self, tensor: Tensor) -> Tensor:
        """(..., *p, C) to (..., P)."""
        inner = len(self.patch) + 1
        return (tensor if self.channels_last else tensor.movedim(-1, -inner)).flatten(-inner)


def resize_matrix(old: int, new: int) -> Tensor:
    """What bicubic resizing (antialiased) does to `old` values along an axis, as a matrix (new, old), float64."""
    # The rows are samples of their own. Along a lone column, torch 2.13 repeats the first value instead of resizing.
    basis = torch.eye(old, dtype=torch.float64)[None, None]
    return F.interpolate(basis, (old, new), mode="bicubic", align_corners=False, antialias=True)[0, 0].T


def _along(tensor: Tensor, dim: int, matrix: Tensor) -> Tensor:
    changed: Tensor = torch.tensordot(tensor, matrix, dims=([dim], [1])).movedim(-1, dim)
    return changed


def resampled_embed(kernel: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """A patch projection (D, *old, C) for patches of another size, (D, *new, C), by FlexiViT's pseudo-inverse.

    Of all projections it is the one whose outputs for resized patches are nearest to those for the patches themselves
    (Beyer et al. 2023); for larger patches they are equal.
    """
    changed = kernel.double()
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after:
            changed = _along(changed, 1 + axis, torch.linalg.pinv(resize_matrix(before, after).T))
    return changed.to(kernel.dtype)


def resampled_head(rows: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """A prediction of patches (..., *old, C), or the weights that make it, resized to (..., *new, C)."""
    changed, first = rows.double(), rows.dim() - 1 - len(old)
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after:
            changed = _along(changed, first + axis, resize_matrix(before, after))
    return changed.to(rows.dtype)


def repeated_channels(kernel: Tensor, count: int) -> Tensor:
    """A patch projection (..., C) for `count` channels: the mean over C, rescaled by C / count.

    A picture whose channels are all alike gives what it gave before.
    """
    total = kernel.sum(-1, keepdim=True) / count
    return total.expand(*kernel.shape[:-1], count).contiguous()


def chosen_channels(kernel: Tensor, sources: Sequence[int | None]) -> Tensor:
    """A patch projection (..., C) for channels taken from those of numbers `sources`; None adds nothing at first."""
    none = torch.zeros_like(kernel[..., 0])
    return torch.stack([none if source is None else kernel[..., source] for source in sources], -1)


def head_channels(rows: Tensor, count: int, sources: Sequence[int | None] | None) -> Tensor:
    """Predictions (..., C), or the weights that make them, for other channels: those of `sources`, else the mean."""
    mean = rows.mean(-1)
    sources = [None] * count if sources is None else sources
    return torch.stack([mean if source is None else rows[..., source] for source in sources], -1)


def resampled_axis(table: Tensor, extent: int) -> Tensor:
    """A table of positions along one axis (n, D) for another extent, by linear interpolation, centres aligned."""
    if table.shape[0] == extent:
        return table
    return F.interpolate(table.T[None], extent, mode="linear", align_corners=False)[0].T.contiguous()
