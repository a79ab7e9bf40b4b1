"""The `array` source: images in an .npy or .npz file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import DataSource, Fact, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import (
    SampleDataset,
    SignalDataset,
    Split,
    class_numbers,
    existing_path,
    label_facts,
    parsing,
    split_by_share,
)
from maskedmodel_image.cache import ArrayFile
from maskedmodel_image.npz import DAMAGED, SAVE_AGAIN, SplitArrays, arrays_of_splits, read_array, read_headers

_SPLITS: tuple[Split, ...] = ("train", "val")
Layout = Literal["NCHW", "NHWC", "NHW"]


class ArraySettings(Settings):
    """Settings of the `array` source."""

    name: Literal["array"] = "array"
    path: str = Field(
        description="An .npy file, which is mapped into memory, or an .npz, which is loaded. uint8 stays as it is, "
        "uint16 becomes value / 65535, float becomes float32."
    )
    key: str | None = Field(
        None,
        description="Which array of an .npz holds the images. null = the only one. Where arrays are named by split, "
        "x_train and x_test say, it is what is left of the name: x.",
    )
    layout: Layout = Field("NCHW", description="Order of the axes: N samples, C channels, H height, W width.")
    labels: str | None = Field(
        None,
        description="Integer labels (N,): an array of the .npz by its name, without the split in it, or an .npy file "
        "by its path.",
    )
    unlabelled: int | tuple[int, ...] | None = Field(
        None, description="Labels that mean there is none, such as -1. null: none, each value is a class."
    )
    train_split: str | None = Field(
        None, description="The split to train on, as arrays of the .npz are named. null: train."
    )
    val_split: str | None = Field(
        None, description="The split for validation where there are several. null: val, else dev, else test."
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
        loaded, chosen, prefix = self._part(split)
        ids = [f"{prefix}{index}" if prefix else index for index in chosen]
        return SignalDataset(
            _Reader(loaded.array, chosen, self.settings.layout, loaded.where), ids, self._labels(loaded, chosen)
        )

    def _part(self, split: Split) -> tuple[_Loaded, Sequence[int], str]:
        """The array of a split, the numbers of its samples in there, and what ids begin with."""
        loaded = self._arrays[split if split in self._arrays else "train"]
        chosen: Sequence[int] = range(len(_values(loaded.array)))
        if "val" not in self._arrays:
            return loaded, split_by_share(chosen, self.settings.val_share, split, self.settings.path), ""
        return loaded, chosen, "val:" if split == "val" else ""

    def _labels(self, loaded: _Loaded, chosen: Sequence[int]) -> list[int | None] | None:
        if loaded.labels is None or self._classes is None:
            return None
        return [self._classes[1][loaded.labels[index]] for index in chosen]

    @cached_property
    def _classes(self) -> tuple[list[str], dict[int, int | None]] | None:
        """The labels that occur, in order, and the class of each."""
        if self._arrays["train"].labels is None:
            return None
        values = [label for loaded in self._arrays.values() for label in loaded.labels or ()]
        setting = self.settings.unlabelled
        return class_numbers(
            values, None, () if setting is None else (setting,) if isinstance(setting, int) else setting
        )

    def class_names(self) -> list[str] | None:
        return None if self._classes is None else self._classes[0]

    def facts(self) -> list[Fact]:
        own = self._arrays.values()
        shapes = [f"{loaded.where}: {_values(loaded.array).shape} {_values(loaded.array).dtype}" for loaded in own]
        facts = [Fact("files", text) for text in shapes]
        parts = {split: self._part(split) for split in _SPLITS}
        names = self.class_names()
        labels = [label for loaded, chosen, _ in parts.values() for label in self._labels(loaded, chosen) or ()]
        facts += [Fact("labels", "none")] if names is None else label_facts(names, labels, "data.labels")
        counts = ", ".join(f"{split} {len(chosen)}" for split, (_, chosen, _) in parts.items())
        return [*facts, Fact("split", f"{counts}: {self._how[0]}"), *self._how[1]]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix.lower() in (".npy", ".npz")

    @cached_property
    def _how(self) -> tuple[str, list[Fact]]:
        """What decided the split, and what was left out of it."""
        if self.settings.val_path is not None:
            return "by data.val_path", []
        if self._of_splits is not None:
            return self._of_splits.text, [Fact("split", text, True) for text in self._of_splits.notices]
        return f"a share of {self.settings.val_share:g}, by a hash of the index", []

    @cached_property
    def _of_splits(self) -> SplitArrays | None:
        """The arrays of an .npz that are named by split; None where they aren't, or val_path says the split."""
        settings = self.settings
        path = existing_path(settings.path, "path")
        if settings.val_path is not None or path.suffix.lower() != ".npz":
            return None
        with parsing(DAMAGED, path, fix=SAVE_AGAIN):
            headers = read_headers(path)
        axes = len(settings.layout)
        return arrays_of_splits(
            headers, settings.key, settings.labels, axes, settings.train_split, settings.val_split, path
        )

    @cached_property
    def _arrays(self) -> dict[Split, _Loaded]:
        settings = self.settings
        named = self._of_splits
        if named is not None:
            parts: tuple[tuple[Split, tuple[str, str | None]], ...] = (("train", named.train), ("val", named.val))
            return {split: self._load(settings.path, key, labels, "path") for split, (key, labels) in parts}
        arrays: dict[Split, _Loaded] = {"train": self._load(settings.path, settings.key, settings.labels, "path")}
        if settings.val_path is not None:
            same = settings.val_path.lower().endswith(".npz")
            val_labels = settings.val_labels or (settings.labels if same else None)
            if settings.labels is not None and val_labels is None:
                raise DataError("The validation labels are missing.", where=settings.val_path, fix="Set val_labels.")
            arrays["val"] = self._load(settings.val_path, settings.key, val_labels, "val_path")
        return arrays

    def _load(self, setting: str, key: str | None, labels: str | None, what: str) -> _Loaded:
        path = existing_path(setting, what)
        array = read_array(path, key, {labels})
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
        return _Loaded(array, None if labels is None else _read_labels(path, labels, len(values)), path)


@dataclass(frozen=True)
class _Loaded:
    """Images, the label of each as it is stored, and the file they are from."""

    array: ArrayFile | np.ndarray[Any, Any]
    labels: list[int] | None
    where: Path


def _values(array: ArrayFile | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.array if isinstance(array, ArrayFile) else array


def _read_labels(path: Path, setting: str, count: int) -> list[int]:
    inside = path.suffix.lower() == ".npz" and not setting.lower().endswith((".npy", ".npz"))
    source = path if inside else existing_path(setting, "labels")
    labels = _values(read_array(source, setting if inside else None, set()))
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            "The labels don't fit the images.",
            where=f"{source}, {setting}" if inside else source,
            expected=f"({count},) integers, one per image",
            got=f"{labels.shape} {labels.dtype}",
        )
    return [int(label) for label in labels]
