"""Keypoints: for each a map of how likely it is where, and the place where that is highest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Settings, Task, Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Encoded, Labels, Table
from maskedmodel_tasks.cells import unfolded
from maskedmodel_tasks.marks import FOUND, TRUE, marked

AXES = ("height", "width")
_SHOWN = 320  # pixels of a picture's longer side, at least
SHARES = (0.1, 0.2)  # of the reference, within which a point counts as found


class PointsSettings(Settings):
    name: Literal["points"] = "points"
    finer: int = Field(
        4, ge=1, description="Cells of a heatmap along each axis of a token; never more than it has pixels."
    )
    spread: float = Field(
        1.0, gt=0, description="Standard deviation, in cells, of the Gaussian that stands for a true point."
    )
    reference: Literal["points"] | PositiveFloat = Field(
        "points",
        description="What distances are measured by in PCK. points: the longer side of the box round a sample's true "
        "points, so a sample with one point has none. A number: so many pixels of the stored picture.",
    )


class Points(Task[PointsSettings]):
    """A softmax over the cells of a heatmap for each point (He et al. 2017), against a Gaussian round the true place
    (Tompson et al. 2014): Kullback and Leibler's divergence, the mean over the points that are known.

    Predictions are logits (B, K, *cells), targets (B, K, 2): x and y in pixels of the prepared picture, NaN where a
    point isn't known or lies outside, as after a crop. A point's place is the mean under the softmax near its peak,
    and its score the probability there.
    """

    score = "PCK@0.1"
    takes_target = True

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        return ("nose", "left_eye", "right_eye")

    @classmethod
    def example_target(cls, tokenizer: Tokenizer[Any], batch: int, generator: torch.Generator) -> Tensor:
        assert isinstance(tokenizer, GridTokenizer)
        drawn = torch.rand(batch, 3, 2, generator=generator) * torch.tensor(tokenizer.size[::-1])
        drawn[::4, 0] = torch.nan
        return torch.cat([drawn, torch.arange(3.0)[None, :, None].expand(batch, -1, -1)], 2)

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        if not isinstance(tokenizer, GridTokenizer) or tokenizer.axes != AXES:
            raise ConfigError(
                "Points lie in pictures.",
                where="tokenizer.name",
                expected=f"a GridTokenizer with the axes {' and '.join(AXES)}, such as image",
                got=f"{tokenizer.component_name()}, whose axes are {', '.join(tokenizer.axes)}",
            )
        if not labels.names or labels.shape != (len(labels.names), 3):
            raise ConfigError(
                "These data have no points to learn.",
                where="data, task.name",
                expected="data.points, the names of keypoints",
                fix="Name them with data.points=[nose,tail], or choose task.name=segment for masks.",
            )
        if len(labels.names) == 1 and self.settings.reference == "points":
            raise ConfigError(
                "A single point has no box round it by which distances could be measured.",
                where="task.reference",
                expected="a number of pixels",
                fix="Set task.reference to the size of what is shown, such as task.reference=64.",
            )
        self.names, self.extents = labels.names, tokenizer.extents
        self.size = tuple(int(extent) for extent in tokenizer.size)
        self.inside = [min(self.settings.finer, patch) for patch in tokenizer.patch]
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, len(self.names) * math.prod(self.inside))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """(B, K, cells along the height, along the width)."""
        cells: Tensor = self.head(self.norm(encoded.on_grid(self.extents)))
        return unfolded(cells, len(self.names), self.inside)

    def target(self, labels: Tensor) -> Tensor:
        """(B, K, 2), NaN where a point isn't in the picture."""
        points = labels[..., :2]
        most = points.new_tensor(self.size[::-1])
        return torch.where(((points >= 0) & (points <= most)).all(-1, keepdim=True), points, torch.nan)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        known = ~target.isnan().any(-1)
        wanted = self._gaussians(target.nan_to_num(0.0), prediction.shape[2:])
        divergence = (torch.xlogy(wanted, wanted) - wanted * prediction.flatten(2).log_softmax(-1)).sum(-1)
        return (divergence * known).sum(1).clamp(min=0) / known.sum(1).clamp(min=1)

    def weight(self, target: Tensor) -> Tensor:
        """How many points of each sample are known."""
        return (~target.isnan().any(-1)).sum(1).float()

    def _gaussians(self, points: Tensor, cells: Sequence[int]) -> Tensor:
        """(B, K, cells), each a distribution."""
        lines = []
        for axis, count in enumerate(cells):
            at = points[..., 1 - axis, None] * (count / self.size[axis])  # in cells
            away = torch.arange(count, device=points.device) + 0.5 - at
            lines.append((-0.5 * (away / self.settings.spread).square()).softmax(-1))
        return (lines[0][..., :, None] * lines[1][..., None, :]).flatten(2)

    def places(self, prediction: Tensor) -> Tensor:
        """x, y and score, (B, K, 3), of logits, in pixels of the prepared picture; what isn't logits stays as it is."""
        if prediction.dim() != 4:
            return prediction
        rows, columns = prediction.shape[2:]
        share = prediction.flatten(2).softmax(-1)
        peak = share.argmax(-1)[..., None]
        row, column = (torch.arange(count, device=share.device) for count in (rows, columns))
        near = math.ceil(2 * self.settings.spread)
        by_row, by_column = (row - peak // columns).abs() <= near, (column - peak % columns).abs() <= near
        share = share.reshape(prediction.shape) * by_row[..., :, None] * by_column[..., None, :]
        mass = share.sum((2, 3))
        x = (share.sum(2) * (column + 0.5)).sum(-1) / mass * (self.size[1] / columns)
        y = (share.sum(3) * (row + 0.5)).sum(-1) / mass * (self.size[0] / rows)
        return torch.stack([x, y, mass], -1)

    def restore(self, tokenizer: Tokenizer[Any], values: Tensor, stored: Tensor) -> Tensor:
        """Places in pixels of the stored picture: (B, K, 3) of predictions, with their scores, (B, K, 2) of targets."""
        found = self.places(values)
        ends = found.new_tensor([[0.0, 0.0, 0.0], [stored.shape[3], stored.shape[2], 1.0]]).expand(len(found), -1, -1)
        first, last = tokenizer.move_target(ends, stored)[..., :2].unbind(1)  # where its corners are put
        scale = (last - first) / ends[:, 1, :2]
        return torch.cat([(found[..., :2] - first[:, None]) / scale[:, None], found[..., 2:]], -1)

    def to_file(self, values: Tensor, stored: Tensor, box: Tensor) -> Tensor:
        extents = box.flip(1)  # along x, then y
        scale = (extents[..., 1] - extents[..., 0]) / values.new_tensor([stored.shape[3], stored.shape[2]])
        return torch.cat([extents[:, None, :, 0] + values[..., :2] * scale[:, None], values[..., 2:]], -1)

    def digest(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (B, K), NaN where a point isn't known, and what they are measured by, (B,)."""
        distance = (self.places(prediction)[..., :2] - target).double().square().sum(-1).sqrt()
        if self.settings.reference != "points":
            return distance, distance.new_full((len(target),), float(self.settings.reference))
        known = ~target.isnan().any(-1, keepdim=True)
        high = target.masked_fill(~known, -torch.inf).amax(1)
        low = target.masked_fill(~known, torch.inf).amin(1)
        side = (high - low).amax(1).double()
        return distance, torch.where((known[..., 0].sum(1) > 1) & (side > 0), side, torch.nan)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """The share of points nearer than 0.1 and 0.2 of the reference (Yang and Ramanan 2013), of those known in
        samples that have one; the mean distance of all that are known, in pixels of the stored picture.
        """
        relative = prediction / target[:, None]
        known = ~relative.isnan()
        found = {f"PCK@{share}": _share((relative <= share) & known, known) for share in SHARES}
        there = prediction[~prediction.isnan()]
        return {**found, "distance": float(there.mean()) if len(there) else math.nan}

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        rows: list[tuple[str | float, ...]] = []
        for place, name in enumerate(self.names):
            found = self.metrics(prediction[:, place, None], target)
            rows.append((name, *found.values(), int((~prediction[:, place].isnan()).sum())))
        headings = ("point", *(f"PCK@{share}" for share in SHARES), "distance", "samples")
        return [Table("By point", headings, rows)]

    def told(self, prediction: Tensor, target: Tensor) -> list[str]:
        mean = prediction.nanmean(1)
        return ["no point is known" if math.isnan(value) else f"{value:.3g} pixels away" for value in mean.tolist()]

    def shown(
        self, tokenizer: Tokenizer[Any], signal: Tensor, stored: Tensor, prediction: Tensor, target: Tensor
    ) -> Mapping[str, Tensor]:
        picture, found = tokenizer.picture(signal), self.places(prediction)[..., :2]
        factor = max(-(-_SHOWN // max(picture.shape[2:])), 1)
        large = picture.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        scale = large.new_tensor([large.shape[3] / self.size[1], large.shape[2] / self.size[0]])
        return {"signal": large, "truth and prediction": marked(large, target * scale, found * scale)}

    @property
    def legend(self) -> str:
        return f"{TRUE[0]} crosses: true points. {FOUND[0]} rings: predicted, with a line to the true one."

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """x, y and score of each point."""
        places = self.places(prediction)
        return {
            f"{name}_{what}": places[:, number, index]
            for number, name in enumerate(self.names)
            for index, what in enumerate(("x", "y", "score"))
        }


def _share(some: Tensor, of: Tensor) -> float:
    return float(some.sum() / of.sum()) if bool(of.any()) else math.nan
