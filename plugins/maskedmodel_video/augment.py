"""Multi-scale crop and flip of a whole batch of clips, on its own device, without a loop over samples.

Resizing is linear and separable: along each axis it is a matrix (output pixels, stored pixels). Multi-scale cropping
knows few boxes, a handful of extents at five places along an axis, so that all their matrices fit into one small table,
and a batch is two batched matrix products. The flip reverses rows of the horizontal matrix and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskedmodel import Noise

# Where a box may lie, in quarters of the room that it leaves: (down, across). The corners, the centre, the middles of
# the sides, and the centres of the quadrants.
_PLACES = [(d, a) for d in (0, 2, 4) for a in (0, 2, 4)] + [(d, a) for d in (1, 3) for a in (1, 3)]
_STEPS = 5


def crop_choice(noise: Noise, scales: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each sample is cropped to, four (B,) int64: scale and place of the box, down, then across.

    The law of VideoMAE's multi-scale crop, which is that of temporal segment networks (Wang et al. 2016): the box's
    height and width are of neighbouring scales, or the same, any such pair as likely; so is any of the 13 places.
    """
    pairs = [(i, j) for i in range(len(scales)) for j in range(len(scales)) if abs(i - j) <= 1]
    draw = noise.uniform(2, purpose="crop").double()
    device = draw.device
    pair = torch.tensor(pairs, device=device)[(draw[:, 0] * len(pairs)).long()]
    place = torch.tensor(_PLACES, device=device)[(draw[:, 1] * len(_PLACES)).long()]
    return pair[:, 0], place[:, 0], pair[:, 1], place[:, 1]


def crop_matrices(extents: Sequence[int], stored: int, out: int, device: torch.device) -> Tensor:
    """(len(extents), 5, out, stored): how much each stored pixel gives to each output pixel, by box extent and place.

    Each box equals `F.interpolate(box, out, mode="bilinear", antialias=True)` along this axis.
    """
    table = torch.zeros(len(extents), _STEPS, out, stored, device=device)
    for number, extent in enumerate(extents):
        unit = torch.eye(extent, device=device)[None, None]
        box = F.interpolate(unit, (out, extent), mode="bilinear", antialias=True)[0, 0]
        for step in range(_STEPS):
            start = step * ((stored - extent) // (_STEPS - 1))
            table[number, step, :, start : start + extent] = box
    return table


def multi_scale_crop(
    clips: Tensor, noise: Noise, size: tuple[int, int], scales: Sequence[float], flipped: Tensor | None = None
) -> Tensor:
    """Cut each clip (B, C, T, H, W) to a box of its own and resize it: (B, C, T, *size), floating point.

    scales    extents of a box, as shares of the clip's short side.
    flipped   (B,) bool, the samples to mirror left to right.
    """
    batch, channels, frames, height, width = clips.shape
    extents = [max(int(min(height, width) * scale), 1) for scale in scales]
    tall, down, wide, across = crop_choice(noise, scales)
    rows = crop_matrices(extents, height, size[0], clips.device)[tall, down].to(clips.dtype)
    columns = crop_matrices(extents, width, size[1], clips.device)[wide, across].to(clips.dtype)
    if flipped is not None:
        columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    # Under autocast these products would round pixel values to bfloat16.
    with torch.autocast(clips.device.type, enabled=False):
        narrow = torch.bmm(clips.reshape(batch, -1, width), columns.transpose(1, 2))
        cropped = torch.matmul(rows[:, None], narrow.reshape(batch, channels * frames, height, size[1]))
    return cropped.reshape(batch, channels, frames, *size)


def centre(clips: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, T, H, W) to (B, C, T, *size), floating point: the short side resized, the centre kept."""
    batch, channels, frames, height, width = clips.shape
    if (height, width) == size:
        return clips
    scale = max(size[0] / height, size[1] / width)
    resized = max(round(height * scale), size[0]), max(round(width * scale), size[1])
    planes = clips.reshape(batch, channels * frames, height, width)
    planes = F.interpolate(planes, resized, mode="bilinear", antialias=True)
    top, left = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    return planes[:, :, top : top + size[0], left : left + size[1]].reshape(batch, channels, frames, *size)


def moving_frames(stored: Tensor) -> Tensor:
    """(B,) int64: how many frames of (B, C, T, H, W) there are before nothing changes any more, at least one.

    A source fills a short clip up with its last frame. What is filled up so isn't worth a place in a clip.
    """
    still = (stored == stored[:, :, -1:]).all(dim=4).all(dim=3).all(dim=1)
    run = still.flip(1).long().cumprod(1).sum(1)  # frames at the end that equal the last one, itself included
    return stored.shape[2] - run + 1


def take_frames(stored: Tensor, start: Tensor, frames: int, stride: int) -> Tensor:
    """Every `stride`-th frame of (B, C, T, H, W) from `start` (B,) on: (B, C, frames, H, W).

    Beyond the last one it is the last one again.
    """
    index = (start[:, None] + stride * torch.arange(frames, device=stored.device)).clamp(max=stored.shape[2] - 1)
    row = torch.arange(stored.shape[0], device=stored.device)[:, None]
    return stored.transpose(1, 2)[row, index].transpose(1, 2)
