"""Channels as people look at them: one grey picture each, and a composite in colours below."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from maskedmodel.pictures import ABSENT

# A channel's black and white: the rest is clipped, as one bright speck would else darken all (0.1 % and 99.8 %).
_BLACK, _WHITE = 0.001, 0.998


def drawn_slots(signal: Tensor) -> list[int]:
    """The slots of a batch (B, V, H, W) that any of its samples has; all where none has any."""
    there = (~signal.isnan()).any(3).any(2).any(0)
    slots: list[int] = there.nonzero()[:, 0].tolist()
    return slots or list(range(signal.shape[1]))


def draw(signal: Tensor, like: Tensor) -> Tensor:
    """(B, 3, (n + 1) * H, W) in [0, 1]: the n channels of `like` in grey, one under the other, then the composite.

    Each channel of each sample is on the scale of its own in `like`. In the composite every channel has its colour, and
    colours add up. What is absent is grey.
    """
    slots = drawn_slots(like)
    signal, like = signal[:, slots].detach().float(), like[:, slots].detach().float()
    black, white = _ends(like)
    level = ((signal - black) / (white - black).clamp(min=1e-12)).clamp(0, 1)
    absent = signal.isnan()
    grey = torch.where(absent, ABSENT, level)
    rows = grey.flatten(1, 2)[:, None].expand(-1, 3, -1, -1)
    colours = _colours(len(slots)).to(level)
    mixed = torch.einsum("bvhw,vc->bchw", level.nan_to_num(0), colours).clamp(0, 1)
    return torch.cat([rows, torch.where(absent.all(1, keepdim=True), ABSENT, mixed)], 2)


def _ends(like: Tensor) -> tuple[Tensor, Tensor]:
    """The values (B, n, 1, 1) that are black and white, of the pixels that are there."""
    pixels = like.flatten(2)
    count = (~pixels.isnan()).sum(2, keepdim=True)
    ordered = pixels.nan_to_num(torch.inf).sort(2).values  # what is absent goes last
    ends = [
        ordered.gather(2, (share * (count - 1).clamp(min=0)).round().long())[..., None] for share in (_BLACK, _WHITE)
    ]
    return ends[0], ends[1]


def _colours(count: int) -> Tensor:
    """(count, 3): hues spread evenly from blue on, together as bright as white; one channel alone is white."""
    if count == 1:
        return torch.ones(1, 3)
    hues = torch.tensor([colorsys.hsv_to_rgb((2 / 3 + index / count) % 1, 1, 1) for index in range(count)])
    return hues / hues.sum(0).clamp(max=1.5)


def footprint(chosen: Tensor, there: Tensor, slots: list[int], patch: tuple[int, int]) -> Tensor:
    """(B, (n + 1) * H, W) bool: where `draw` shows chosen tokens alone.

    chosen, there  (B, V, rows, columns) bool: which tokens are chosen, and which there are at all.
    """
    chosen, there = chosen[:, slots], there[:, slots]
    composite = there.any(1, keepdim=True) & (chosen | ~there).all(1, keepdim=True)
    cells = torch.cat([chosen & there, composite], 1)
    return cells.repeat_interleave(patch[0], 2).repeat_interleave(patch[1], 3).flatten(1, 2)
