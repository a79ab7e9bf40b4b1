"""Random resized crop and flip of a whole batch, on its own device, without a loop over samples.

A crop with its resize is linear and separable: along each axis it is a matrix (output pixels, stored pixels) per
sample, so a batch is two batched matrix products. The flip reverses rows of the horizontal matrix and costs nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from maskedmodel import Noise

Interpolation = Literal["bicubic", "bilinear"]

# As many draws as the random resized crop of MAE's recipe makes before it gives up.
_ATTEMPTS = 10


def crop_boxes(noise: Noise, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]) -> Tensor:
    """(B, 4) float32: top, left, height and width of one box per sample, in whole pixels of a (height, width) image.

    The law of MAE's recipe (Szegedy et al. 2015): the box covers a share of the image uniform in `area`, its
    width / height is log-uniform in `aspect`, its place is uniform. The first of 10 draws that fits inside the image
    counts. Where none fits, the first draw is clamped to the image (the recipe takes a centre crop there); with the
    default ranges on a square image that is one sample in some millions.
    """
    draw = noise.uniform(2 * _ATTEMPTS + 2, purpose="crop")
    share = area[0] + (area[1] - area[0]) * draw[:, :_ATTEMPTS]
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(log_low + (log_high - log_low) * draw[:, _ATTEMPTS : 2 * _ATTEMPTS])
    boxes_h = (height * width * share / ratio).sqrt().round()
    boxes_w = (height * width * share * ratio).sqrt().round()
    fits = (boxes_h >= 1) & (boxes_h <= height) & (boxes_w >= 1) & (boxes_w <= width)
    first = fits.to(torch.int64).argmax(dim=1, keepdim=True)  # the first maximum: draw 0 where none fits
    box_h = boxes_h.gather(1, first)[:, 0].clamp(1, height)
    box_w = boxes_w.gather(1, first)[:, 0].clamp(1, width)
    # float32 may round u * (n + 1) up to n + 1, hence the minimum.
    top = torch.minimum((draw[:, -2] * (height - box_h + 1)).floor(), height - box_h)
    left = torch.minimum((draw[:, -1] * (width - box_w + 1)).floor(), width - box_w)
    return torch.stack([top, left, box_h, box_w], dim=1)


def resized_crop(
    image: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: Interpolation, flipped: Tensor | None = None
) -> Tensor:
    """Cut each image (B, C, H, W) to its box (B, 4) and resize it to `size`: (B, C, *size), floating point.

    `boxes` as from `crop_boxes`; `flipped` (B,) bool mirrors those samples left to right. Each box equals
    `F.interpolate(crop, size, mode=interpolation, antialias=True)`, with the pixel centres of align_corners=False and
    the cubic of a = -0.5: what Pillow computes, up to its rounding to 8 bits.
    """
    top, left, box_h, box_w = boxes.to(image.dtype).unbind(1)
    down = _weights(top, box_h, image.shape[2], size[0], interpolation)
    across = _weights(left, box_w, image.shape[3], size[1], interpolation)
    if flipped is not None:
        across = torch.where(flipped[:, None, None], across.flip(1), across)
    batch, channels, height, _ = image.shape
    # Under autocast these products would round pixel values to bfloat16.
    with torch.autocast(image.device.type, enabled=False):
        rows = torch.bmm(image.reshape(batch, channels * height, -1), across.transpose(1, 2))
        return torch.matmul(down[:, None], rows.reshape(batch, channels, height, size[1]))


def nearest_crop(classes: Tensor, boxes: Tensor, size: tuple[int, int], flipped: Tensor | None = None) -> Tensor:
    """Classes of pixels (B, H, W) cut and resized as `resized_crop` does pictures: (B, *size), of the same type.

    An output pixel has the class of the stored pixel in which its centre lies, so none is made up.
    """
    top, left, box_h, box_w = boxes.unbind(1)
    rows = _places(top, box_h, classes.shape[1], size[0])
    columns = _places(left, box_w, classes.shape[2], size[1])
    if flipped is not None:
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    sample = torch.arange(len(classes), device=classes.device)[:, None, None]
    return classes[sample, rows[:, :, None], columns[:, None, :]]


def moved_points(points: Tensor, boxes: Tensor, size: tuple[int, int], flipped: Tensor | None = None) -> Tensor:
    """Points (B, K, 3) cut and resized as `resized_crop` does pictures, in pixels of the result; they may lie outside.

    A point is x, y and the number of its mirror image, whose place it takes where the picture is mirrored.
    """
    top, left, box_h, box_w = boxes.to(points.dtype)[:, None].unbind(2)
    x = (points[..., 0] - left) * (size[1] / box_w)
    y = (points[..., 1] - top) * (size[0] / box_h)
    moved = torch.stack([x, y, points[..., 2]], 2)
    if flipped is None:
        return moved
    partner = points[..., 2].long()
    mirrored = torch.stack([size[1] - x, y, points[..., 2]], 2)
    mirrored[..., :2] = mirrored[..., :2].gather(1, partner.clamp(min=0)[..., None].expand(-1, -1, 2))
    mirrored[..., :2] = mirrored[..., :2].masked_fill((partner < 0)[..., None], math.nan)
    return torch.where(flipped[:, None, None], mirrored, moved)


def _places(start: Tensor, extent: Tensor, stored: int, out: int) -> Tensor:
    """(B, out) int64: the stored pixel under the centre of each output pixel."""
    centre = (torch.arange(out, device=start.device) + 0.5) * (extent / out)[:, None] + start[:, None]
    return centre.floor().long().clamp(0, stored - 1)


def _weights(start: Tensor, extent: Tensor, stored: int, out: int, interpolation: Interpolation) -> Tensor:
    """(B, out, stored): how much each stored pixel gives to each output pixel. Pixels outside the box give nothing."""
    scale = extent / out  # stored pixels per output pixel
    # A kernel stretched by `scale` when shrinking is what antialiasing means.
    stretch = scale.clamp(min=1)
    centre = (torch.arange(out, device=start.device) + 0.5) * scale[:, None]
    pixel = torch.arange(stored, device=start.device) + 0.5 - start[:, None]
    distance = (pixel[:, None, :] - centre[:, :, None]) / stretch[:, None, None]
    weight = _KERNELS[interpolation](distance.abs_())
    weight *= ((pixel > 0) & (pixel < extent[:, None]))[:, None, :]
    return weight.div_(weight.sum(dim=2, keepdim=True))


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5, of distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    x = x.clamp(max=2)  # the far branch is zero at 2
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}
