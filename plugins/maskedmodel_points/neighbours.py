"""Centres spread over a cloud, and the nearest points of each: both exact, and the same on every machine.

Distances are sums of three squares in float32, taken one operation at a time, so that each is rounded as IEEE says and
none depends on the batch a cloud comes in. Of equally far points the first counts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def farthest_points(xyz: Tensor, real: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which points (B, count) int64 are centres, and which of those are real (B, count) bool.

    xyz (B, N, 3) float32, finite; real (B, N) bool. Farthest-point sampling (Eldar et al. 1997): each centre is the
    point farthest from those before it, the first the one farthest from the mean, so that the order of points says
    nothing. A cloud of fewer distinct points has fewer centres.
    """
    weight = real[..., None].to(xyz.dtype)
    middle = (xyz * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    away = squared_distances(middle, xyz)[:, 0].masked_fill(~real, -1)
    found, distinct = [away.argmax(1)], [real.any(1)]
    nearest = torch.full_like(away, torch.inf).masked_fill(~real, -1)
    while len(found) < count:
        last = xyz.gather(1, found[-1][:, None, None].expand(-1, 1, 3))
        nearest = torch.minimum(nearest, squared_distances(last, xyz)[:, 0])
        far, place = nearest.max(1)
        found.append(place)
        distinct.append(far > 0)
    return torch.stack(found, 1), torch.stack(distinct, 1)


def nearest_points(centres: Tensor, xyz: Tensor, real: Tensor, count: int) -> Tensor:
    """The `count` real points nearest to each centre (B, L, count) int64, the nearest first.

    A cloud of fewer points gives them over again from the nearest on: as a set that is no change.
    """
    away = squared_distances(centres, xyz).masked_fill(~real[:, None], torch.inf)
    order = away
    if not torch.compiler.is_exporting():  # ONNX has no such bits, and takes the first of equals anyway
        # The bits of a float that isn't negative rise with it; below them the index, so that no two are equal.
        order = away.view(torch.int32).to(torch.int64) << 32 | torch.arange(xyz.shape[1], device=xyz.device)
    chosen = order.topk(min(count, xyz.shape[1]), 2, largest=False).indices
    there = real.sum(1).clamp(min=1)[:, None, None]
    again = torch.arange(count, device=xyz.device) % there.clamp(max=count)
    return chosen.gather(2, again.expand(-1, chosen.shape[1], -1))


def squared_distances(ones: Tensor, others: Tensor) -> Tensor:
    """(B, n, 3) and (B, m, 3) to (B, n, m)."""
    x, y, z = ((a[:, :, None] - b[:, None]).square() for a, b in zip(ones.unbind(2), others.unbind(2), strict=True))
    return x + y + z
