"""Point clouds: the `points` tokenizer, and the sources `shapes` and `points_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_points.tokenizer import Points

    return [Points]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_points.folder import PointsFolder
    from maskedmodel_points.shapes import Shapes

    return [Shapes, PointsFolder]
