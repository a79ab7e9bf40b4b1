"""One cube out of an .npy or MATLAB file, with its wavelengths. Nothing pickled is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part, parsing, tally
from maskedmodel_spectra.bands import Array, CubesSettings


@dataclass(frozen=True)
class Cube:
    """values (bands, height, width), wavelengths (bands,) in nm, rising."""

    values: Array
    wavelengths: NDArray[np.float64]


def read_cube(stream: BinaryIO, part: Part, number: int, settings: CubesSettings) -> Cube:
    """A file as a cube. Raises DataError where it is none, or nothing says its wavelengths."""
    where = part.name(number)
    said: NDArray[Any] | None = None
    if where.lower().endswith(".npy"):
        with parsing("The cube can't be read: it is damaged, or holds pickled objects, which are never loaded.", where):
            values = np.load(stream, allow_pickle=False)
    else:
        values, said = _of_matlab(stream, where, settings)
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise DataError(
            "This is no cube.", where=where, expected="3 axes of numbers", got=f"{values.shape} {values.dtype}"
        )
    values = values.transpose(2, 0, 1) if settings.layout == "HWC" else values
    wavelengths = _wavelengths(part, number, said, settings)
    if len(wavelengths) != len(values) or not (np.isfinite(wavelengths) & (wavelengths > 0)).all():
        raise DataError(
            "A cube's wavelengths don't fit its bands.",
            where=where,
            expected=f"{len(values)} numbers above 0, in nm, one for each band",
            got=f"{len(wavelengths)} from {wavelengths.min(initial=0):g} to {wavelengths.max(initial=0):g}",
            fix="Mend the wavelengths, or set data.layout to the other order of the axes.",
        )
    order = np.argsort(wavelengths, kind="stable")
    return Cube(np.ascontiguousarray(values[order], dtype=np.float32), wavelengths[order])


def _of_matlab(stream: BinaryIO, where: str, settings: CubesSettings) -> tuple[NDArray[Any], NDArray[Any] | None]:
    from scipy.io import loadmat, whosmat  # type: ignore[import-untyped]

    fix = "Save it as version 7, without -v7.3."
    with parsing("The MATLAB file can't be read.", where, fix=fix):
        shapes = {name: shape for name, shape, _ in whosmat(stream)}
    cubes = [name for name, shape in shapes.items() if len(shape) == 3]
    key = settings.key if settings.key is not None else cubes[0] if len(cubes) == 1 else None
    if key not in shapes:
        raise DataError(
            "Which variable is the cube?",
            where=where,
            expected="one of " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            got="none chosen" if key is None else key,
            fix="Set data.key.",
        )
    wanted = [key, settings.wavelength_key]
    stream.seek(0)
    with parsing("The MATLAB file can't be read.", where, fix=fix):
        found = loadmat(stream, variable_names=wanted)
        return np.asarray(found[key]), found.get(settings.wavelength_key)


def _wavelengths(part: Part, number: int, said: NDArray[Any] | None, settings: CubesSettings) -> NDArray[np.float64]:
    """The setting's, else those of a file beside the cube, else the MATLAB file's own."""
    where, path = part.name(number), PurePosixPath(part.path(number))
    if settings.own is not None:
        return np.asarray(settings.own)
    for name in (path.with_suffix(".wavelengths.txt"), path.with_name("wavelengths.txt")):
        text = part.files.beside(str(name))
        if text is not None:
            with parsing("Wavelengths can't be read.", f"{name}, for {where}", expected="a number a line, in nm"):
                return np.array([float(word) for word in text.decode("utf-8").replace(",", " ").split()])
    if said is None:
        raise DataError(
            "Nothing says which wavelengths a cube's bands have.",
            where=where,
            expected=f"{path.stem}.wavelengths.txt or wavelengths.txt beside it, a number a line, in nm"
            + ("" if path.suffix.lower() == ".npy" else f", or a variable {settings.wavelength_key!r} in it"),
            fix="Write that file, or set data.own=[...].",
        )
    with parsing("Wavelengths can't be read.", where, expected="numbers, in nm"):
        return np.asarray(said, dtype=np.float64).ravel()


def band_facts(cubes: Sequence[Cube | DataError], wanted: tuple[float, ...]) -> list[Fact]:
    """Bands of all cubes that can be read, and which wavelengths they don't reach."""
    read = [cube for cube in cubes if isinstance(cube, Cube)]
    counts = tally((len(cube.wavelengths) for cube in read), "of {} bands")
    found = [Fact("bands", f"{counts}, taken at {len(wanted)} wavelengths between their own")] if read else []
    if len(read) < len(cubes):
        found.append(Fact("cubes", f"{len(cubes) - len(read)} of {len(cubes)} can't be used", notice=True))
    for wavelength in wanted:
        absent = sum(not cube.wavelengths[0] <= wavelength <= cube.wavelengths[-1] for cube in read)
        if absent:
            text = f"{wavelength:g} nm is beyond the bands of {absent} of {len(read)} cubes, where it is absent"
            found.append(Fact("bands", text, notice=True))
    return found
