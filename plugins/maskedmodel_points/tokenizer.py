"""The `points` tokenizer: neighbourhoods of a point cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel import Noise, Tokenizer, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel.pictures import Scales
from maskedmodel_points import clouds, picture
from maskedmodel_points.embedding import MiniPointNet
from maskedmodel_points.neighbours import farthest_points, nearest_points
from maskedmodel_points.plain import plain_features
from maskedmodel_points.settings import PointsSettings


class Points(Tokenizer[PointsSettings]):
    """Neighbourhoods of a cloud (B, N, 3 + features), as Point-MAE cuts them (Pang et al. 2022, arXiv 2203.06604).

    Centres by farthest-point sampling, the nearest points of each, relative to it. A value of a token is a coordinate
    of a point, all numbers of a point together, the nearest first; a token's coordinates are its centre. Neighbourhoods
    overlap. A cloud may have any number of points: `collate` fills up with rows of NaN, and a cloud of fewer distinct
    points than `groups` has fewer tokens. Features aren't normalised.
    """

    axes = ("x", "y", "z")
    overlapping = True
    leaves_out = True

    def __init__(self, settings: PointsSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channels = 3 + self.settings.features
        self.token_width = self.settings.group * self.channels

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, N, C) to (B, points, C): of a larger cloud points spread evenly over its order; normalised."""
        return self._normalised(clouds.chosen(self._checked(signal), self.settings.points))

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """As `prepare`, of a larger cloud points drawn at random; then stretched, moved and turned."""
        s = self.settings
        cloud = self._normalised(clouds.chosen(self._checked(signal), s.points, noise))
        turns = {"none": None, "upright": clouds.turned_about_z, "any": clouds.turned_anyhow}[s.turn]
        return clouds.moved(cloud, noise, s.scale, s.shift, turns and turns(noise))

    def tokenize(self, signal: Tensor) -> Tokens:
        """(B, points, C) as `prepare` gives it to (B, groups, group * C)."""
        s, cloud = self.settings, self._checked(signal, self.settings.points)
        real, xyz = clouds.there(cloud), cloud[..., :3].float().nan_to_num(0)
        centres, distinct = farthest_points(xyz, real, s.groups)
        places = xyz.gather(1, centres[..., None].expand(-1, -1, 3))
        members = nearest_points(places, xyz, real, s.group).flatten(1)
        values = cloud.gather(1, members[..., None].expand(-1, -1, self.channels))
        values = values.reshape(-1, s.groups, s.group, self.channels)
        values = torch.cat([values[..., :3] - places[:, :, None].to(values.dtype), values[..., 3:]], 3)
        values = values.flatten(2).masked_fill(~distinct[..., None], 0)
        places = (places / s.cell).masked_fill(~distinct[..., None], 0)
        # No graph that torch.export makes can choose by its input whether all are there.
        whole = not torch.compiler.is_exporting() and bool(distinct.all())
        return Tokens(values, places, self.axes, valid=None if whole else distinct)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        """(B, groups * group, C): the points of all neighbourhoods; NaN for those of tokens that aren't there."""
        points = like.absent_as_nan(values).reshape(*values.shape[:2], -1, self.channels)
        centres = (like.coords * self.settings.cell).to(values.dtype)
        return torch.cat([points[..., :3] + centres[..., None, :], points[..., 3:]], 3).flatten(1, 2)

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """Clouds of any numbers of points as one batch, filled up with rows of NaN."""
        if len({signal.shape[1:] for signal in signals}) > 1 or signals[0].dim() != 2:
            return super().collate(signals)
        return nn.utils.rnn.pad_sequence(list(signals), batch_first=True, padding_value=torch.nan)

    def make_embed(self, dim: int) -> nn.Module:
        return MiniPointNet(self.channels, dim, self.settings.embed)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Points of ellipsoids, their features smooth over them."""
        points = torch.randn(batch, self.settings.points, 3, generator=generator)
        points = points / points.norm(dim=2, keepdim=True) * (0.5 + torch.rand(batch, 1, 3, generator=generator))
        return torch.cat([points, *[points[..., number % 3, None].sin() for number in range(self.channels - 3)]], 2)

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        signal = signal.detach().float()
        return picture.draw(signal[..., :3], (signal if like is None else like.detach().float())[..., :3])

    def scales(self, signal: Tensor) -> Scales:
        return Scales()  # a view from one side has none

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        return plain_features(self.prepare(stored)[..., :3])

    def _normalised(self, cloud: Tensor) -> Tensor:
        return clouds.in_unit_sphere(cloud) if self.settings.normalise == "sphere" else cloud

    def _checked(self, signal: Tensor, points: int | None = None) -> Tensor:
        """A signal as it came. Raises ShapeError where it is no batch of clouds, or has another number of points."""
        fits = signal.dim() == 3 and signal.shape[2] == self.channels and signal.is_floating_point()
        if fits and signal.shape[1] and points in (None, signal.shape[1]):
            return signal
        raise ShapeError(
            f"Tokenizer 'points' with features: {self.settings.features} can't cut this signal.",
            expected=f"(batch, {points or 'points'}, {self.channels}) floating point",
            got=f"{tuple(signal.shape)} {signal.dtype}",
            fix="Let tokenizer.features be what points have beside x, y, z, and prepare a stored batch first.",
        )
