"""One file to one cloud: x, y, z of its points and whatever else it says of each."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from maskedmodel.errors import DataError
from maskedmodel.sources import parsing
from maskedmodel_points.ply import read_ply

Array = np.ndarray[Any, np.dtype[Any]]
MESHES = (".obj", ".off", ".stl")
EXTENSIONS = (".npy", ".npz", ".ply", ".xyz", *MESHES)
_USUAL = ("points", "xyz", "pos", "coords", "vertices")  # what an npz calls its points
_MOST_COLUMNS = 64
_MOST_BYTES = 1 << 31  # of one file, unpacked


@dataclass(frozen=True)
class Cloud:
    """What a file holds: points (N, 3), and named numbers (N,) of each."""

    points: Array
    others: Mapping[str, Array]


def read_points(stream: BinaryIO, name: str, array: str | None) -> Cloud:
    """The points of a .npy, .npz, .ply or .xyz file. Raises DataError where it holds none, or more than one reading."""
    kind = PurePosixPath(name.lower()).suffix
    with parsing("The file can't be read.", name):
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DataError("The file is too large.", where=name, expected=f"at most {_MOST_BYTES >> 20} MiB")
    if kind == ".ply":
        return Cloud(*read_ply(content, name))
    readers: dict[str, Callable[[], tuple[Array, dict[str, Array]]]] = {
        ".npy": lambda: (_array(io.BytesIO(content), name), {}),
        ".npz": lambda: _archive(content, name, array),
        ".xyz": lambda: (_text(content, name), {}),
    }
    with parsing("The file can't be read.", name):
        table, others = readers[kind]()
    table = _table(table, name)
    columns = {str(number): table[:, number] for number in range(3, table.shape[1])}
    return Cloud(table[:, :3], {**columns, **others})


def _array(stream: BinaryIO, name: str) -> Array:
    with parsing("The array can't be read.", name, expected="an array of numbers, not of objects"):
        found: Array = np.load(stream, allow_pickle=False)
    return found


def _archive(content: bytes, name: str, wanted: str | None) -> tuple[Array, dict[str, Array]]:
    """The array of points, and the others that hold a number, or several, for each of them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MOST_BYTES:
            got = f"{unpacked >> 20} MiB unpacked"
            raise DataError("The file is too large.", where=name, expected=f"at most {_MOST_BYTES >> 20} MiB", got=got)
    arrays: dict[str, Array] = dict(np.load(io.BytesIO(content), allow_pickle=False))
    tables = [key for key, value in arrays.items() if value.ndim == 2 and value.shape[1] >= 3]
    usual = [key for key in _USUAL if key in tables]
    key = wanted if wanted is not None else usual[0] if len(usual) == 1 else tables[0] if len(tables) == 1 else None
    if key is None or key not in arrays:
        shapes = ", ".join(f"{key} {value.shape}" for key, value in arrays.items()) or "none"
        fix = "Name the array with data.array."
        raise DataError("Which array holds the points?", where=name, expected="one (N, 3 or more)", got=shapes, fix=fix)
    others: dict[str, Array] = {}
    for other, value in arrays.items():
        if other != key and value.ndim in (1, 2) and len(value) == len(arrays[key]):
            columns = [value] if value.ndim == 1 else list(value.T)
            others |= {f"{other}.{n}" if value.ndim == 2 else other: column for n, column in enumerate(columns)}
    return arrays[key], others


def _text(content: bytes, name: str) -> Array:
    """Rows of numbers between blanks, commas or semicolons. A first line may be a count, or names of columns."""
    rows: list[list[str]] = []
    for number, line in enumerate(content.decode("utf-8-sig").splitlines()):
        words = re.split(r"[\s,;]+", line.partition("#")[0].strip(" \t,;"))
        if words == [""] or (number == 0 and (not any(map(_number, words)) or len(words) == 1)):
            continue
        if len(words) < 3 or not all(map(_number, words)) or (rows and len(words) != len(rows[0])):
            expected = f"{len(rows[0])} numbers" if rows else "three numbers or more"
            raise DataError("A line holds no point.", where=f"{name}, line {number + 1}", expected=expected, got=line)
        rows.append(words)
    return np.array(rows, np.float64)


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _table(table: Array, name: str) -> Array:
    """(N, 3 or more). Raises DataError where an array is no table of points, or may be one lying on its side."""
    fits = table.ndim == 2 and table.dtype.kind in "fiu" and 3 <= table.shape[1] <= _MOST_COLUMNS
    if fits and len(table):
        return table
    on_its_side = table.ndim == 2 and 3 <= len(table) <= _MOST_COLUMNS < table.shape[1]
    raise DataError(
        "The file holds no points." if table.size == 0 else "The file holds no table of points.",
        where=name,
        expected=f"numbers, a row for each point: (N, 3 to {_MOST_COLUMNS})",
        got=f"{table.shape} {table.dtype}",
        fix="Transpose it: a row for each point." if on_its_side else None,
    )
