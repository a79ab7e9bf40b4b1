"""Predict the points of a hidden token as a set: in whatever order they stand."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Objective, Settings, Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel_objectives.amounts import refuse_ids


class ChamferSettings(Settings):
    """The points of a hidden token as a set, by chamfer distance (Fan et al. 2017), as in Point-MAE (Pang 2022)."""

    name: Literal["chamfer"] = "chamfer"
    dims: int = Field(3, gt=0, description="Numbers of a point, such as x, y, z.")
    order: Literal["point", "axis"] = Field(
        "point",
        description="How the values of a token lie. point: all numbers of the first point, then of the next "
        "(x y z x y z). axis: the first number of all points, then the next (x x y y z z).",
    )


class Chamfer(Objective[ChamferSettings]):
    """Symmetric chamfer distance: the mean over points of the squared distance to the nearest of the other set.

    Both ways are added: predicted points to true ones, and true points to predicted ones. In squared units of the
    tokens' values. Of equally near points the first is taken, and the gradient goes to it alone.
    """

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        """Raises ConfigError on ids, where a token is no whole number of points, and where values may be absent."""
        refuse_ids("chamfer", tokenizer)
        if tokenizer.token_width % self.settings.dims:
            raise ConfigError(
                f"Objective 'chamfer' can't go with tokenizer {tokenizer.component_name()!r}: its tokens hold no whole "
                "number of points.",
                where="objective.dims",
                expected=f"a multiple of dims = {self.settings.dims} values per token",
                got=f"{tokenizer.token_width} values",
                fix="Set objective.dims to the numbers that a point has.",
            )
        if tokenizer.accepts_nan:
            raise ConfigError(
                f"Objective 'chamfer' can't go with tokenizer {tokenizer.component_name()!r}: points of its tokens may "
                "be absent in part.",
                where="objective.name",
                expected="a tokenizer with accepts_nan = False",
                got="accepts_nan = True",
                fix="Choose objective.name=patch.",
            )

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values.float()

    def _points(self, values: Tensor) -> Tensor:
        """(B, M, P) to (B, M, n, k)."""
        dims, count = self.settings.dims, values.shape[-1] // self.settings.dims
        if self.settings.order == "point":
            return values.reshape(*values.shape[:-1], count, dims)
        return values.reshape(*values.shape[:-1], dims, count).transpose(-1, -2)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        ours, theirs = self._points(prediction), self._points(target)
        with torch.no_grad():  # which point is nearest has no gradient, so n x n distances needn't be kept
            # By differences, not by a matrix product, whose rounding could call a far point the nearest.
            apart = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
            to_theirs, to_ours = apart.argmin(-1), apart.argmin(-2)
        return _mean_squared(ours, _chosen(theirs, to_theirs)) + _mean_squared(theirs, _chosen(ours, to_ours))

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor:
        return prediction


def _chosen(points: Tensor, which: Tensor) -> Tensor:
    return points.gather(-2, which[..., None].expand(*which.shape, points.shape[-1]))


def _mean_squared(points: Tensor, nearest: Tensor) -> Tensor:
    return (points - nearest).square().sum(-1).mean(-1)
