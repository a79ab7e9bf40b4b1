"""Marks of points on pictures."""

from __future__ import annotations

import torch
from torch import Tensor

# Told apart with most kinds of colour blindness (Okabe and Ito 2008).
TRUE, FOUND = ("Blue", 0x56B4E9), ("Orange", 0xE69F00)
_RADIUS, _WIDTH, _EDGE = 8.0, 1.1, 1.3  # pixels: of a mark, of half a line, of the dark about it


def marked(pictures: Tensor, true: Tensor, found: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) with crosses at true points (B, K, 2), x and y, rings at found ones, and lines between.

    A true point that is NaN has no mark; nor has a found one whose true one isn't known a line.
    """
    height, width = pictures.shape[2:]
    y, x = (torch.arange(extent, device=pictures.device) + 0.5 for extent in (height, width))
    out = pictures.clone()
    for number in range(true.shape[1]):
        one, other = true[:, number], found[:, number]
        drawn = (
            (_segment(x, y, one, other), FOUND[1]),
            ((_distance(x, y, other) - _RADIUS).abs(), FOUND[1]),
            (_cross(x, y, one), TRUE[1]),
        )
        for away, colour in drawn:
            ink = torch.tensor([colour >> 16 & 255, colour >> 8 & 255, colour & 255], device=out.device) / 255
            # NaN compares as False, so what isn't known draws nothing.
            out = torch.where((away <= _WIDTH + _EDGE)[:, None], 0.0, out)
            out = torch.where((away <= _WIDTH)[:, None], ink[:, None, None], out)
    return out


def _offsets(x: Tensor, y: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) each: how far pixels lie right of and below a point (B, 2)."""
    shape = len(point), len(y), len(x)
    right = (x[None, None] - point[:, 0, None, None]).expand(shape)
    return right, (y[None, :, None] - point[:, 1, None, None]).expand(shape)


def _distance(x: Tensor, y: Tensor, point: Tensor) -> Tensor:
    right, down = _offsets(x, y, point)
    return torch.hypot(right, down)


def _cross(x: Tensor, y: Tensor, point: Tensor) -> Tensor:
    """How far pixels lie from the two arms of a cross."""
    right, down = (offset.abs() for offset in _offsets(x, y, point))
    arms = [torch.hypot((along - _RADIUS).clamp(min=0), across) for along, across in ((right, down), (down, right))]
    return torch.minimum(*arms)


def _segment(x: Tensor, y: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """How far pixels lie from the line between two points."""
    right, down = _offsets(x, y, start)
    along = (end - start)[:, :, None, None]
    share = ((right * along[:, 0] + down * along[:, 1]) / along.square().sum(1).clamp(min=1e-6)).clamp(0, 1)
    return torch.hypot(right - share * along[:, 0], down - share * along[:, 1])
