"""What is done to a batch of clouds before they are cut: chosen, normalised, and moved about in training.

A batch is (B, N, C): x, y, z and further numbers of each point. A row of NaN is no point: it fills a smaller cloud up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedmodel import Noise


def there(clouds: Tensor) -> Tensor:
    """(B, N) bool: which rows are points."""
    return ~clouds.isnan().any(2)


def chosen(clouds: Tensor, count: int, noise: Noise | None = None) -> Tensor:
    """(B, count, C): all points of a cloud of up to `count`, rows of NaN after them; of a larger one so many.

    Without noise they are spread evenly over the order that the cloud lies in; with it they are drawn.
    """
    real, size = there(clouds), clouds.shape[1]
    number = real.sum(1, keepdim=True)
    rank = torch.arange(size, device=clouds.device).expand(len(clouds), -1)
    if noise is not None and size > count:
        drawn = noise.uniform(size, "points").argsort(dim=1, stable=True).argsort(1)
        rank = torch.where(number > count, drawn, rank)
    order = torch.where(real, rank, size).argsort(dim=1, stable=True)
    place = torch.arange(count, device=clouds.device).expand(len(clouds), -1)
    if noise is None:
        place = torch.where(number > count, place * number // count, place)
    index = order.gather(1, place.clamp(max=size - 1))
    points = clouds.gather(1, index[..., None].expand(-1, -1, clouds.shape[2]))
    return points.masked_fill((place >= number)[..., None], torch.nan)


def in_unit_sphere(clouds: Tensor) -> Tensor:
    """Each cloud with its mean at the origin and its farthest point at a distance of 1."""
    xyz = clouds[..., :3]
    xyz = xyz - xyz.nanmean(1, keepdim=True)
    radius = xyz.square().sum(2).nan_to_num(0).amax(1).sqrt().clamp(min=torch.finfo(xyz.dtype).tiny)
    return torch.cat([xyz / radius[:, None, None], clouds[..., 3:]], 2)


def moved(clouds: Tensor, noise: Noise, scale: tuple[float, float], shift: float, turns: Tensor | None) -> Tensor:
    """Each axis stretched by a factor within `scale`, then moved by up to `shift`, then turned by `turns` (B, 3, 3)."""
    draw = noise.uniform(6, "move").to(clouds.dtype)[:, None]
    xyz = clouds[..., :3] * (scale[0] + (scale[1] - scale[0]) * draw[..., :3]) + shift * (2 * draw[..., 3:] - 1)
    if turns is not None:
        xyz = xyz @ turns.to(xyz.dtype)
    return torch.cat([xyz, clouds[..., 3:]], 2)


def turned_about_z(noise: Noise) -> Tensor:
    """Rotations (B, 3, 3) about the third axis."""
    angle = 2 * math.pi * noise.uniform(1, "turn")[:, 0]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1]
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def turned_anyhow(noise: Noise) -> Tensor:
    """Rotations (B, 3, 3), all equally likely: by unit quaternions out of three numbers (Shoemake 1992)."""
    share, one, other = noise.uniform(3, "turn").unbind(1)
    one, other = 2 * math.pi * one, 2 * math.pi * other
    low, high = (1 - share).sqrt(), share.sqrt()
    x, y, z, w = low * one.sin(), low * one.cos(), high * other.sin(), high * other.cos()
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, 1).reshape(-1, 3, 3)
