"""Decoded images kept in memory or in a memory-mapped array on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel.sources import PARSER_ERRORS, check_memory, decoded, parsing, replacing
from maskedmodel_image.decode import Form

_log = logging.getLogger(__name__)

_DAMAGED: tuple[type[Exception], ...] = (*PARSER_ERRORS, DataError)

Read = Callable[[int], Tensor]
IN_MEMORY = "Use a cache folder, a smaller size, or an .npy file, which is mapped rather than loaded."


class ArrayFile:
    """An .npy file mapped into memory, opened when first read, in each process anew.

    Pickling or forking a numpy memory map is what this avoids: the former copies the whole file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: np.ndarray[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_array": None}

    @property
    def array(self) -> np.ndarray[Any, Any]:
        if self._array is None:
            with parsing("The array can't be read.", self.path):
                self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        assert self._array is not None
        return self._array

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.array[index]))


class Stored:
    """Reads decoded images; `bad` has the DataError of each that couldn't be decoded, raised when it is read."""

    def __init__(self, signals: Tensor | ArrayFile, bad: dict[int, dict[str, Any]]) -> None:
        self.signals, self.bad = signals, bad

    def __call__(self, index: int) -> Tensor:
        if index in self.bad:
            raise DataError(**self.bad[index])
        return self.signals[index]


def _record(error: DataError) -> dict[str, Any]:
    details = {"where": error.where, "expected": error.expected, "got": error.got, "fix": error.fix}
    return {"what": error.what, **{key: str(value) for key, value in details.items() if value is not None}}


def in_memory(read: Read, count: int, form: Form, timeout: float) -> Stored:
    """Decode everything now, into one tensor (N, C, H, W); an image that takes longer than `timeout` seconds is bad."""
    dtype = getattr(torch, form.dtype)
    check_memory(count * int(np.prod(form.shape)) * dtype.itemsize, "memory: true", IN_MEMORY)
    signals, bad = torch.zeros(count, *form.shape, dtype=dtype), {}
    for index, image in decoded(read, count, timeout):
        if isinstance(image, DataError):
            bad[index] = _record(image)
        else:
            signals[index] = image
    return Stored(signals, bad)


def on_disk(read: Read, ids: Sequence[str], form: Form, folder: Path, split: str, key: str, timeout: float) -> Stored:
    """The cache of a split in `folder`, built first unless one with this `key` is there.

    `<split>.json` says which array file belongs to it, and lists ids, shape and unreadable images. It is renamed into
    place last, so that a build cut off leaves the cache before it as it was. Raises DataError where the folder can't
    be written, a full disk included.
    """
    index_path = folder / f"{split}.json"
    stored = _reopen(index_path, folder, key)
    if stored is not None:
        return stored
    _log.info("decoding %d images into %s", len(ids), folder)
    array_path = folder / f"{split}-{key}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(ids), *form.shape)
        with replacing(array_path) as file:
            bad = _write_array(file, read, shape, form.dtype, timeout)
        index = {"key": key, "array": array_path.name, "shape": shape, "dtype": form.dtype, "ids": ids, "bad": bad}
        with replacing(index_path) as file:
            file.write(json.dumps(index).encode())
        for old in folder.glob(f"{split}-*.npy"):
            if old != array_path:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            "The cache of decoded images can't be written.",
            where=folder,
            got=error.strerror or error,
            fix="Choose another folder in data.cache, make room, or leave the setting out.",
        ) from error
    return Stored(ArrayFile(array_path), bad)


def _write_array(
    file: IO[bytes], read: Read, shape: tuple[int, ...], dtype: str, timeout: float
) -> dict[int, dict[str, Any]]:
    """Write an .npy file image by image: a full disk is then an error, where writing to a mapping would be a crash."""
    bad: dict[int, dict[str, Any]] = {}
    empty = bytes(int(np.prod(shape[1:])) * np.dtype(dtype).itemsize)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for index, image in decoded(read, shape[0], timeout):
        if isinstance(image, DataError):
            bad[index] = _record(image)
        file.write(empty if isinstance(image, DataError) else image.numpy().tobytes())
    return bad


def _reopen(index_path: Path, folder: Path, key: str) -> Stored | None:
    """The cache that is there, or None where there is none, it is of other data or settings, or it is damaged."""
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        if index["key"] != key:
            return None
        stored = ArrayFile(folder / index["array"])
        fits = stored.array.shape == tuple(index["shape"]) and stored.array.dtype == index["dtype"]
        return Stored(stored, {int(i): error for i, error in index["bad"].items()}) if fits else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _DAMAGED as error:
        _log.warning("the cache %s is damaged and built again: %s", index_path, error)
        return None
