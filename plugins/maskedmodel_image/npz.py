"""Numpy files as foreign bytes: nothing pickled is loaded, and nothing allocated before a header is believed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from maskedmodel.errors import DataError
from maskedmodel.sources import check_memory, named_split, names_among, open_regular, parsing, split_word
from maskedmodel_image.cache import IN_MEMORY, ArrayFile

DAMAGED = "The array can't be read: it is damaged, or holds pickled objects, which are never loaded."
SAVE_AGAIN = "Save it with numpy.save or numpy.savez as numbers."
Headers = dict[str, tuple[int, ...]]  # name of an array, and its shape


def read_array(path: Path, key: str | None, others: set[str | None]) -> ArrayFile | np.ndarray[Any, Any]:
    """The array in a file, mapped or loaded. Nothing is allocated before the file is known to hold what it claims.

    `others` are arrays of an .npz that are not meant where no `key` says which. Raises DataError.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise DataError("The file is of another kind.", where=path, expected=".npy or .npz", got=suffix or path.name)
    with open_regular(path) as stream, parsing(DAMAGED, path, fix=SAVE_AGAIN):
        if suffix == ".npy":
            _claimed(stream, path.stat().st_size)
            mapped = ArrayFile(path)
            _ = mapped.array  # what is wrong with it comes to light now
            return mapped
        return _read_member(path, stream, key, others)


def read_headers(path: Path) -> Headers:
    """The arrays of an .npz with their shapes. Raises what a damaged file makes zipfile and numpy raise."""
    with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
        return {
            member.filename.removesuffix(".npy"): _claimed(archive.open(member), member.file_size)[0]
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }


def _read_member(path: Path, stream: IO[bytes], key: str | None, others: set[str | None]) -> np.ndarray[Any, Any]:
    with zipfile.ZipFile(stream) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        candidates = [name for name in names if name not in others]
        if key is None and len(candidates) == 1:
            key = candidates[0]
        if key is None or key not in names:
            raise _which(path, names, key)
        member = archive.getinfo(f"{key}.npy")
        with archive.open(member) as inside:
            size = _claimed(inside, member.file_size)[1]
        check_memory(size, path, IN_MEMORY)
        with archive.open(member) as inside:
            values: np.ndarray[Any, Any] = np.lib.format.read_array(inside, allow_pickle=False)
        return values


def _which(path: Path, names: Sequence[str], key: str | None) -> DataError:
    return DataError(
        "Which array of the .npz?",
        where=path,
        expected=f"one of {', '.join(names)}",
        got="none chosen" if key is None else repr(key),
        fix="Set data.key.",
    )


def _claimed(stream: IO[bytes], stored: int) -> tuple[tuple[int, ...], int]:
    """Shape and bytes of the values that an .npy header announces. Raises ValueError unless just these are stored."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    size = dtype.itemsize
    for extent in shape:  # Python's integers, which don't overflow
        if extent < 0:
            raise ValueError(f"the header claims the shape {shape}")
        size *= extent
    if dtype.hasobject:
        raise ValueError(f"the array holds Python objects, {dtype}")
    if stream.tell() + size != stored:
        raise ValueError(f"the header claims {shape} {dtype}, {size} bytes, of {stored - stream.tell()} stored")
    return shape, size


@dataclass(frozen=True)
class SplitArrays:
    """Arrays of an .npz that are named by split: images and labels of each, and how they were found."""

    train: tuple[str, str | None]
    val: tuple[str, str | None]
    text: str
    notices: tuple[str, ...]


def arrays_of_splits(
    headers: Headers,
    key: str | None,
    labels: str | None,
    axes: int,
    train_split: str | None,
    val_split: str | None,
    path: Path,
) -> SplitArrays | None:
    """The arrays named x_train, x_test and the like; None where there are none for training and validation both.

    key, labels  what is left of the names without the split: "x", "y". Without a key it is the one with `axes` axes.
    Raises DataError where several may be meant, or a split that is asked for isn't there.
    """
    if key in headers:
        return None
    families = _families(headers)
    images = {name: own for name, own in families.items() if name != labels and (key is None or name == key)}
    images = {name: own for name, own in images.items() if all(len(headers[array]) == axes for array in own.values())}
    images = {name: own for name, own in images.items() if any(split_word(split) == "train" for split in own)} or images
    if not images or (train_split is None and val_split is None and all(len(own) < 2 for own in images.values())):
        return None
    if len(images) > 1:
        raise _which(path, sorted(images), key)
    own = next(iter(images.values()))
    splits = sorted(own)
    counts: list[str | None] = [split for split in splits for _ in range(headers[own[split]][0])]
    if train_split and not names_among(splits, [train_split]):
        raise _which(path, list(own.values()), train_split)
    train = None if train_split is None else (train_split,)
    fix = "Name the splits in data.train_split and data.val_split."
    found = named_split(counts, train, val_split, "arrays", path, fix)
    if found is None or found.val is None:
        return None
    chosen = [counts[found.train[0]] or "", counts[found.val[0]] or ""]
    said = families.get(labels or "", {})
    if labels is not None and any(split not in said for split in chosen):
        raise DataError(
            "There are no labels of both splits.",
            where=path,
            expected=f"arrays called {labels} with {chosen[0]} and {chosen[1]}, as the images are",
            got=", ".join(headers),
        )
    others = sorted(set(headers) - set(own.values()) - set(said.values()))
    left = (f"arrays {', '.join(others)} aren't read (data.labels may name some)",) if others else ()
    pairs = [(own[split], said.get(split) if labels is not None else None) for split in chosen]
    return SplitArrays(pairs[0], pairs[1], found.text, (*found.notices, *left))


def _families(headers: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Arrays by what is left of their names without the split, and by the split: {"x": {"train": "x_train"}}."""
    families: dict[str, dict[str, str]] = {}
    for name in headers:
        parts = re.split(r"[._\-\s]+", name)
        for place, part in enumerate(parts):
            if split_word(part) is not None:
                rest = "_".join(parts[:place] + parts[place + 1 :])
                families.setdefault(rest, {})[part] = name
                break
    return families
