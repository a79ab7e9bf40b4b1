"""What a folder of clouds and surfaces was taken for, by the headers of some of its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part, looked_at, spread, tally
from maskedmodel_points.ply import read_header
from maskedmodel_points.reading import MESHES

_LOOKED_AT = 64  # files


def facts_of(parts: Sequence[Part], surface: Literal["sample", "vertices"]) -> list[Fact]:
    """Clouds and surfaces among up to 64 files, evenly spread, and what becomes of surfaces."""
    files = [(part, index) for part in parts for index in range(len(part.ids))]
    chosen = spread(files, _LOOKED_AT)
    kinds = [_kind(part, index) for part, index in chosen]
    found = Fact("points", f"{looked_at(len(chosen), len(files), 'files')}: {tally(kinds)}")
    count = kinds.count("surface")
    if not count:
        return [found]
    how = "points are drawn over it by area" if surface == "sample" else "its corners are taken as points"
    return [found, Fact("points", f"where a file holds a surface, {how} (data.surface)", notice=True)]


def _kind(part: Part, index: int) -> str:
    name = part.name(index).lower()
    if name.endswith(MESHES):
        return "surface"
    if not name.endswith(".ply"):
        return "cloud"
    try:
        with part.open(index) as stream:
            return "surface" if read_header(stream.read(1 << 16), name).faces else "cloud"
    except DataError:
        return "damaged PLY"
