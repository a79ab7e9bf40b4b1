"""A cloud seen from one side: near points dark, far ones pale, in front of white."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIDE = 144  # pixels
_NEAR, _FAR = (0.07, 0.17, 0.42), (0.70, 0.82, 0.94)
_DOT = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if not down or not across]
_ROUND, _TILT = math.radians(35), math.radians(25)  # where it is looked at from, about and above the third axis


def draw(clouds: Tensor, like: Tensor) -> Tensor:
    """(B, n, 3) to (B, 3, SIDE, SIDE) in [0, 1], in the frame of clouds `like` (B, m, 3). Rows of NaN aren't drawn."""
    low, high = like.nan_to_num(torch.inf).amin(1), like.nan_to_num(-torch.inf).amax(1)
    middle = ((low + high) / 2).nan_to_num(0, 0, 0)[:, None]
    radius = (like - middle).square().sum(2).nan_to_num(0).amax(1).sqrt().clamp(min=1e-6)
    seen = ((clouds - middle) / radius[:, None, None]) @ _view().to(clouds)
    real = ~seen.isnan().any(2)
    right, up, near = seen.nan_to_num(0).clamp(-1.02, 1.02).unbind(2)
    column, row = ((0.5 + 0.47 * value) * (SIDE - 1) for value in (right, -up))
    depth = torch.full((len(clouds), SIDE * SIDE), -1.0, device=clouds.device)
    shade = torch.where(real, (near + 1.02) / 2.04, -1.0).float()
    for down, across in _DOT:
        place = (row.round().long() + down) * SIDE + column.round().long() + across
        depth = depth.scatter_reduce(1, place, shade, "amax")
    depth = depth.reshape(-1, 1, SIDE, SIDE)
    near_colour, far_colour = (torch.tensor(colour, device=clouds.device)[:, None, None] for colour in (_NEAR, _FAR))
    return torch.where(depth < 0, 1.0, far_colour + (near_colour - far_colour) * depth)


def _view() -> Tensor:
    """(3, 3): columns are right, up and towards the eye."""
    round_, tilt = _ROUND, _TILT
    right = (-math.sin(round_), math.cos(round_), 0.0)
    eye = (math.cos(tilt) * math.cos(round_), math.cos(tilt) * math.sin(round_), math.sin(tilt))
    up = (-math.sin(tilt) * math.cos(round_), -math.sin(tilt) * math.sin(round_), math.cos(tilt))
    return torch.tensor([right, up, eye]).T
