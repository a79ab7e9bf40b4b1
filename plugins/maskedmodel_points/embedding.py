"""The embedding of a token's points as a set."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MiniPointNet(nn.Module):
    """A small PointNet (Qi et al. 2017) over the points of each token, as Point-MAE has it (Pang et al. 2022).

    Each point alone passes two layers; what is largest in each feature over the points stands beside each point, and
    two layers on the largest is taken again. So the order of points has no influence. Point-MAE normalises over the
    batch; here LayerNorm does, over the features of a point, as no token may depend on others.
    """

    def __init__(self, channels: int, dim: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.alone = nn.Sequential(
            nn.Linear(channels, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2 * width)
        )
        self.together = nn.Sequential(
            nn.Linear(4 * width, 4 * width), nn.LayerNorm(4 * width), nn.ReLU(), nn.Linear(4 * width, dim)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(..., points * channels) to (..., D)."""
        points = self.alone(values.reshape(*values.shape[:-1], -1, self.channels))
        most = points.amax(-2, keepdim=True).expand_as(points)
        out: Tensor = self.together(torch.cat([most, points], -1)).amax(-2)
        return out
