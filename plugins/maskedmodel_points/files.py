"""One file of points or of a surface to one sample, and what became of it on the way."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from pydantic import Field

from maskedmodel import Sample, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import legible, open_regular
from maskedmodel_points.meshes import read_surface
from maskedmodel_points.ply import read_header
from maskedmodel_points.reading import EXTENSIONS, MESHES, Array, Cloud, read_points


class FilesSettings(Settings):
    """How one file of points is read."""

    points: int = Field(
        4096, gt=1, description="Most points of a sample: of a larger cloud as many are drawn, by the sample's id."
    )
    surface: Literal["sample", "vertices"] = Field(
        "sample",
        description="What becomes of surfaces (.obj, .off, .stl, .ply with faces). sample: points are drawn over them "
        "by area, as many as points says, by the sample's id. vertices: their corners.",
    )
    features: tuple[str, ...] = Field(
        (),
        description="Numbers of each point to take beside x, y, z: properties of a PLY such as nx, columns of a table "
        "as 3, 4, ..., arrays of an npz such as intensity, or normals.0 where they have columns.",
    )
    array: str | None = Field(None, description="Array of an npz that holds the points. null: the only one that can.")


def read_cloud(stream: BinaryIO, name: str, key: str, settings: FilesSettings) -> tuple[torch.Tensor, list[str]]:
    """(points, 3 + features) float32 of a file, and notes of what was left out. `key` is the sample's id.

    Raises DataError, naming the file, where it is damaged, or holds no two points, or lacks a feature.
    """
    draw = np.random.default_rng(list(key.encode(errors="backslashreplace")))
    notes = list[str]()
    if _is_surface(stream, name):
        count = settings.points if settings.surface == "sample" else None
        cloud = Cloud(read_surface(stream, name, count, int(draw.integers(2**32))), {})
    else:
        cloud = read_points(stream, name, settings.array)
    columns = [*cloud.points.T, *(_feature(cloud, own, name) for own in settings.features)]
    table = np.stack([column.astype(np.float64) for column in columns], 1)
    whole = np.isfinite(table).all(1)
    if not whole.all():
        notes.append("points with numbers that aren't finite left out")
        table = table[whole]
    if not (table[1:, :3] != table[:1, :3]).any():
        got = f"{len(whole)} points, {int(whole.sum())} of them finite"
        raise DataError("The cloud holds no two points.", where=name, expected="two places or more", got=got)
    if len(table) > settings.points:
        table = table[np.sort(draw.permutation(len(table))[: settings.points])]
        notes.append(f"{settings.points} points drawn of more")
    xyz = table[:, :3]
    if np.abs(xyz).max() > 1e4 * np.ptp(xyz, axis=0).max():  # as with map coordinates: float32 has 7 digits
        table[:, :3] = xyz - xyz.mean(0)
        notes.append("moved to the origin, far from which float32 tells no points apart")
    if np.abs(table).max() > np.finfo(np.float32).max:
        raise DataError("The cloud's numbers are too large.", where=name, expected="numbers within float32")
    return torch.from_numpy(table.astype(np.float32)), notes


def _is_surface(stream: BinaryIO, name: str) -> bool:
    if name.lower().endswith(".ply"):
        header = read_header(stream.read(1 << 16), name)
        stream.seek(0)
        return header.faces > 0
    return name.lower().endswith(MESHES)


def _feature(cloud: Cloud, name: str, where: str) -> Array:
    if name in cloud.others and cloud.others[name].dtype.kind in "fiub":
        return cloud.others[name]
    raise DataError(
        f"The file has no feature {name!r}.",
        where=where,
        expected=f"one of {', '.join(list(cloud.others)[:20])}" if cloud.others else "x, y, z alone",
        got=name,
        fix="Name those in data.features." if cloud.others else "Leave data.features out.",
    )


def read_file(path: Path, settings: FilesSettings) -> Sample:
    """One file that a user names, as a source of these settings would hold it. Raises DataError."""
    name = legible(str(path))
    if not name.lower().endswith(EXTENSIONS):
        raise DataError(
            "This is no file of points.", where=name, expected=f"a name that ends in {' '.join(EXTENSIONS)}"
        )
    with open_regular(path) as stream:
        signal, notes = read_cloud(stream, name, path.name, settings)
    return Sample(signal=signal, id=legible(path.name), notes=notes)
