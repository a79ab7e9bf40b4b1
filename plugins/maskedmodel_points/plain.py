"""Features of a cloud that need no training: what an encoder has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

_LOOKED_AT, _BINS = 128, 32  # points of each cloud, of which all pairs are measured


def plain_features(clouds: Tensor) -> dict[str, Tensor]:
    """Of prepared clouds (B, N, 3): neither depends on how a cloud is turned.

    distances of points   histogram of the distances of pairs of points, up to twice the radius: D2 (Osada et al. 2002).
    spread along axes     standard deviations along the principal axes, the largest first.
    """
    real = ~clouds.isnan().any(2)
    xyz = clouds.float().nan_to_num(0)
    number = real.sum(1, keepdim=True)
    # Real points come first: as many of them as are looked at, evenly spread.
    place = torch.arange(_LOOKED_AT, device=clouds.device) * number.clamp(min=1) // _LOOKED_AT
    some = xyz.gather(1, place[..., None].expand(-1, -1, 3))
    pairs = torch.combinations(torch.arange(_LOOKED_AT, device=clouds.device))
    apart = (some[:, pairs[:, 0]] - some[:, pairs[:, 1]]).norm(dim=2)
    bins = (apart * (_BINS / 2)).long().clamp(max=_BINS - 1)
    histogram = torch.zeros(len(clouds), _BINS, device=clouds.device)
    histogram = histogram.scatter_add(1, bins, torch.ones_like(apart)) / len(pairs)
    weight = real[..., None].float()
    centred = (xyz - (xyz * weight).sum(1, keepdim=True) / number[..., None].clamp(min=1)) * weight
    moments = centred.transpose(1, 2) @ centred / number[..., None].clamp(min=1)
    spreads = torch.linalg.eigvalsh(moments).clamp(min=0).sqrt().flip(1)
    return {"distances of points": histogram, "spread along axes": spreads}
