"""The `array` source: images in an .npy or .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import DataSource, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import SampleDataset, SignalDataset, Split, existing_path, split_by_share
from maskedmodel_image.cache import ArrayFile, check_memory

Layout = Literal["NCHW", "NHWC", "NHW"]


class ArraySettings(Settings):
    """Settings of the `array` source."""

    name: Literal["array"] = "array"
    path: str = Field(
        description="An .npy file, which is mapped into memory, or an .npz, which is loaded. uint8 stays as it is, "
        "uint16 becomes value / 65535, float becomes float32."
    )
    key: str | None = Field(None, description="Which array of an .npz holds the images. null = the only one.")
    layout: Layout = Field("NCHW", description="Order of the axes: N samples, C channels, H height, W width.")
    labels: str | None = Field(
        None, description="Integer labels (N,): an array of the .npz by its name, or an .npy file by its path."
    )
    val_path: str | None = Field(None, description="An .npy or .npz of the validation images.")
    val_labels: str | None = Field(None, description="Their labels, where they aren't in an .npz by the same name.")
    val_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the samples for validation, by a hash of their index, without val_path."
    )


class _Reader:
    """Sample `chosen[index]` of an array as (C, H, W)."""

    def __init__(
        self, array: ArrayFile | np.ndarray[Any, Any], chosen: Sequence[int], layout: Layout, where: Path
    ) -> None:
        self.array, self.chosen, self.layout, self.where = array, chosen, layout, where

    def __call__(self, index: int) -> Tensor:
        number = self.chosen[index]
        sample = (self.array.array if isinstance(self.array, ArrayFile) else self.array)[number]
        if sample.dtype == np.uint16:
            values = sample.astype(np.float32) / np.float32(65535)
        elif sample.dtype == np.uint8:
            values = np.array(sample)
        else:
            # What float32 can't hold becomes infinite, which is refused below.
            with np.errstate(over="ignore"):
                values = sample.astype(np.float32)
            if not np.isfinite(values).all():
                raise DataError(
                    "The sample holds values that aren't finite.",
                    where=f"{self.where}, index {number}",
                    got=f"{int((~np.isfinite(values)).sum())} of {values.size} values NaN, infinite or beyond float32",
                    fix="Fill them in or leave the sample out.",
                )
        signal = torch.from_numpy(values)
        if self.layout == "NHW":
            return signal[None]
        return signal.permute(2, 0, 1).contiguous() if self.layout == "NHWC" else signal


class Array(DataSource[ArraySettings]):
    """Images of one shape out of numpy files. A sample's id is its index, "val:index" under val_path.

    Nothing pickled is ever loaded.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> ArraySettings:
        """Random pictures of two classes in an .npz, written into `folder`: what the conformance kit reads."""
        pictures = np.random.default_rng(0).random((20, 3, 8, 8), dtype=np.float32)
        np.savez(folder / "pictures.npz", pictures=pictures, labels=np.arange(20) % 2)
        return ArraySettings(path=str(folder / "pictures.npz"), labels="labels")

    def open(self, split: Split) -> SampleDataset:
        array, labels, where = self._arrays["val" if split == "val" and self.settings.val_path else "train"]
        chosen: Sequence[int] = range(len(_values(array)))
        if self.settings.val_path is None:
            chosen = split_by_share(chosen, self.settings.val_share, split, self.settings.path)
        prefixed = split == "val" and self.settings.val_path is not None
        ids = [f"val:{index}" if prefixed else index for index in chosen]
        own = None if labels is None else [labels[index] for index in chosen]
        return SignalDataset(_Reader(array, chosen, self.settings.layout, where), ids, own)

    def class_names(self) -> list[str] | None:
        labels = self._arrays["train"][1]
        return None if labels is None else [str(label) for label in range(max(labels) + 1)]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix.lower() in (".npy", ".npz")

    @cached_property
    def _arrays(self) -> dict[Split, tuple[ArrayFile | np.ndarray[Any, Any], list[int] | None, Path]]:
        settings = self.settings
        arrays = {"train": self._load(settings.path, settings.labels, "path")}
        if settings.val_path is not None:
            same = settings.val_path.lower().endswith(".npz")
            val_labels = settings.val_labels or (settings.labels if same else None)
            if settings.labels is not None and val_labels is None:
                raise DataError("The validation labels are missing.", where=settings.val_path, fix="Set val_labels.")
            arrays["val"] = self._load(settings.val_path, val_labels, "val_path")
        return arrays  # type: ignore[return-value]

    def _load(
        self, setting: str, labels: str | None, what: str
    ) -> tuple[ArrayFile | np.ndarray[Any, Any], list[int] | None, Path]:
        path = existing_path(setting, what)
        array = _read(path, self.settings.key, {labels})
        values = _values(array)
        if values.ndim != len(self.settings.layout) or 0 in values.shape:
            raise DataError(
                "The array has another shape than the layout says.",
                where=path,
                expected=f"{len(self.settings.layout)} axes, {self.settings.layout}, none of them empty",
                got=values.shape,
                fix="Set data.layout.",
            )
        if values.dtype not in (np.uint8, np.uint16) and values.dtype.kind != "f":
            raise DataError(
                "The array's type isn't supported.",
                where=path,
                expected="uint8, uint16 or a float type",
                got=values.dtype,
                fix="Convert it, so that it is plain which value is black and which is white.",
            )
        return array, None if labels is None else _read_labels(path, labels, len(values)), path


def _values(array: ArrayFile | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.array if isinstance(array, ArrayFile) else array


def _read_labels(path: Path, setting: str, count: int) -> list[int]:
    inside = path.suffix.lower() == ".npz" and not setting.lower().endswith((".npy", ".npz"))
    source = path if inside else existing_path(setting, "labels")
    labels = _values(_read(source, setting if inside else None, set()))
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            "The labels don't fit the images.",
            where=f"{source}, {setting}" if inside else source,
            expected=f"({count},) integers, one per image",
            got=f"{labels.shape} {labels.dtype}",
        )
    return [int(label) for label in labels]


def _read(path: Path, key: str | None, others: set[str | None]) -> ArrayFile | np.ndarray[Any, Any]:
    """The array in a file, mapped or loaded. Nothing is allocated before the file is known to hold what it claims."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise DataError("The file is of another kind.", where=path, expected=".npy or .npz", got=suffix or path.name)
    damaged = (OSError, ValueError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error, NotImplementedError)
    try:
        if suffix == ".npy":
            with path.open("rb") as stream:
                _claimed_bytes(stream, path.stat().st_size)
            return ArrayFile(path)
        return _read_member(path, key, others)
    except damaged as error:
        raise DataError(
            "The array can't be read: it is damaged, or holds pickled objects, which are never loaded.",
            where=path,
            got=f"{type(error).__name__}: {error}",
            fix="Save it with numpy.save or numpy.savez as numbers.",
        ) from error


def _read_member(path: Path, key: str | None, others: set[str | None]) -> np.ndarray[Any, Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        candidates = [name for name in names if name not in others]
        if key is None and len(candidates) == 1:
            key = candidates[0]
        if key is None or key not in names:
            got = "none chosen" if key is None else repr(key)
            raise DataError(
                "Which array of the .npz?",
                where=path,
                expected=f"one of {', '.join(names)}",
                got=got,
                fix="Set data.key.",
            )
        member = archive.getinfo(f"{key}.npy")
        with archive.open(member) as stream:
            size = _claimed_bytes(stream, member.file_size)
    check_memory(size, path)
    with np.load(path, allow_pickle=False) as arrays:
        values: np.ndarray[Any, Any] = arrays[key]
    return values


def _claimed_bytes(stream: IO[bytes], stored: int) -> int:
    """Bytes of the values that an .npy header announces. Raises ValueError unless just these are `stored` after it."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    size = dtype.itemsize
    for extent in shape:  # Python's integers, which don't overflow
        size *= extent
    if dtype.hasobject:
        raise ValueError(f"the array holds Python objects, {dtype}")
    if stream.tell() + size != stored:
        raise ValueError(f"the header claims {shape} {dtype}, {size} bytes, of {stored - stream.tell()} stored")
    return size
