"""The `parquet` source: tables with a column of encoded images, as the Hugging Face hub lays them out."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import (
    VALIDATION_NAMES,
    FolderFiles,
    NamedSplit,
    SampleDataset,
    Split,
    class_numbers,
    doubt_labels,
    existing_path,
    label_facts,
    legible,
    named_split,
    names_among,
    path_of,
    split_by_share,
    split_in_name,
    split_word,
)
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import ImageFileSettings
from maskedmodel_image.table import Table, load_pyarrow

_SPLITS: tuple[Split, ...] = ("train", "val")


class ParquetSettings(ImageFileSettings):
    """Settings of the `parquet` source."""

    name: Literal["parquet"] = "parquet"
    path: str = Field(
        description="A .parquet file, a folder of them, or a glob. Files named as splits are these, in any spelling "
        "(train-..., Test.parquet, validation/...); else a column called split says them."
    )
    val_path: str | None = Field(None, description="File, folder or glob of the validation table.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the rows for validation, by a hash of file name and row, where nothing else says.",
    )
    train_split: str | tuple[str, ...] | None = Field(
        None, description="Names of the splits to train on, as files or the column call them. null: train."
    )
    val_split: str | None = Field(
        None, description="Name of the split for validation where there are several. null: val, else dev, else test."
    )
    image: str | None = Field(None, description="Column of encoded images. null = the first of a fitting type.")
    label: str | None = Field(
        None,
        description="Column of integer labels. null = the first marked as such, else the one called label, else the "
        'only integer one; an empty name "" = no labels.',
    )
    unlabelled: int | tuple[int, ...] | None = Field(
        None,
        description="Labels that mean there is none. null = -1 where the file names its classes, as the hub does; none "
        "elsewhere.",
    )
    max_group_mib: PositiveInt | None = Field(
        None,
        description="Most MiB that the encoded images of one row group may take: more is refused unread. null = 2048, "
        "but no more than 64 where that is over 200 times the file's own size.",
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Stored size in pixels, one number or [height, width]: the short side is resized to fit, the "
        "centre kept. null = as they are, which must then be one size.",
    )


_FILES_ARE = "Name the splits in data.train_split and data.val_split, or give the files of one in data.path."
_ROWS_ARE = "Name the splits in data.train_split and data.val_split."
_Rows = tuple[Table, list[int]]


@dataclass(frozen=True)
class _Found:
    """Parquet files, the folder their ids start from, and what else lies there."""

    files: list[Path]
    base: Path
    facts: list[Fact]

    def names(self) -> list[str]:
        """Of each file the split that its name has, else its name."""
        inside = [legible(file.relative_to(self.base).with_suffix("").as_posix()) for file in self.files]
        return [split_in_name(name) or name for name in inside]


def _find(setting: str, what: str) -> _Found:
    """The parquet files that a setting means."""
    path = path_of(setting, DataError)
    if glob.has_magic(setting) and not path.exists():
        found = sorted(Path(file) for file in glob.glob(str(path), recursive=True))
        files = [file for file in found if not file.is_dir()]
    else:
        path = existing_path(setting, what)
        files = [path]
        if path.is_dir():
            inside = FolderFiles(path, (".parquet",))
            files = [inside.location(index) for index in range(len(inside))]
            if files:
                return _Found(files, path, inside.census.facts())
    if not files:
        expected = "files that end in .parquet"
        raise DataError("There are no parquet files.", where=path, expected=expected, got="none", fix="Check the path.")
    base = Path(os.path.commonpath([file.parent for file in files]))
    return _Found(files, base, [Fact("files", f"{len(files)} parquet files read")])


class Parquet(DataSource[ParquetSettings]):
    """Encoded images and integer labels out of parquet files.

    A sample's id is "file:row", after "val:" under val_path.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> ParquetSettings:
        """Random pictures of two classes in a table, written into `folder`: what the conformance kit reads."""
        from PIL import Image

        images = []
        for pixels in np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        arrow = load_pyarrow()
        table = arrow.table({"image": images, "label": [row % 2 for row in range(20)]})
        arrow.parquet.write_table(table, folder / "pictures.parquet", row_group_size=8)
        return ParquetSettings(path=str(folder / "pictures.parquet"))

    def open(self, split: Split) -> SampleDataset:
        table, chosen = self._parts.rows[split]
        ids = [table.ids[row] for row in chosen]
        form = form_of(self._parts.rows["train"][0], self.settings)
        return open_images(table, chosen, ids, self._labels(split), form, self.settings, split, self.read_timeout)

    def class_names(self) -> list[str] | None:
        return self._classes[0] if self._classes is not None else None

    def _labels(self, split: Split) -> list[int | None] | None:
        table, chosen = self._parts.rows[split]
        if self._classes is None or table.labels is None:
            return None
        return [self._classes[1][table.labels[row]] for row in chosen]

    @cached_property
    def _classes(self) -> tuple[list[str], dict[int, int | None]] | None:
        """The classes, and the class of each label that occurs. Raises DataError where labels look like none."""
        train, val = (self._parts.rows[split][0] for split in ("train", "val"))
        if train.labels is None:
            return None
        values = train.labels if val is train else train.labels + (val.labels or [])
        reason = doubt_labels(values) if train.guessed else None
        if reason is not None:
            raise DataError(
                f"Column {train.label!r} looks like no classes.",
                where=self.settings.path,
                expected="a few integers that repeat",
                got=reason,
                fix=f'Set data.label={train.label} to take it all the same, or data.label="" for no labels.',
            )
        setting = self.settings.unlabelled
        by_format = () if train.class_names is None else (-1,)
        unlabelled = by_format if setting is None else (setting,) if isinstance(setting, int) else setting
        try:
            return class_numbers(values, train.class_names, unlabelled)
        except KeyError as error:
            raise DataError(
                f"A label in column {train.label!r} has no name.",
                where=self.settings.path,
                expected=f"0 to {len(train.class_names or ()) - 1}, as the file names its classes",
                got=error.args[0],
            ) from error

    def facts(self) -> list[Fact]:
        facts = list(self._parts.facts)
        table = self._parts.rows["train"][0]
        labels = [label for split in _SPLITS for label in self._labels(split) or ()]
        names = self.class_names()
        if names is None:
            facts.append(Fact("labels", "none"))
        else:
            facts += label_facts(names, labels, f"column {table.label!r}", "rows")
            if table.guessed and (table.label or "").casefold() != "label":
                facts.append(Fact("labels", f"column {table.label!r} is taken for the label, as integers", True))
        counts = ", ".join(f"{split} {len(self._parts.rows[split][1])}" for split in _SPLITS)
        facts.append(Fact("split", f"{counts}: {self._parts.how}"))
        return [*facts, *(Fact("split", notice, True) for notice in self._parts.notices)]

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return any(path.rglob("*.parquet")) if path.is_dir() else path.suffix.lower() == ".parquet"

    @cached_property
    def _parts(self) -> _Parts:
        """By val_path, by the names of files, by the column `split`, or by a hash. Raises DataError."""
        settings = self.settings
        found = _find(settings.path, "path")
        elsewhere = settings.val_path is not None
        by_file = self._named(found.names(), "file names", found.base, _FILES_ARE, elsewhere)
        train_files = found.files if by_file is None else [found.files[index] for index in by_file.train]
        train = self._table(train_files, found, "")
        every = list(range(len(train)))
        notices = by_file.notices if by_file is not None else ()
        if settings.val_path is not None:
            val_found = _find(settings.val_path, "val_path")
            val_files, left = _evaluation(val_found)
            val = self._table(val_files, val_found, "val:")
            rows: dict[Split, _Rows] = {"train": (train, every), "val": (val, list(range(len(val))))}
            how = "by data.val_path" + (f"; {by_file.text}" if by_file is not None else "")
            return _Parts(rows, how, (*notices, *left), [*found.facts, *val_found.facts])
        if by_file is not None and by_file.val is not None:
            val = self._table([found.files[index] for index in by_file.val], found, "")
            rows = {"train": (train, every), "val": (val, list(range(len(val))))}
            return _Parts(rows, by_file.text, notices, found.facts)
        by_row = None
        if train.splits is not None:
            by_row = self._named(train.splits, f"column {train.split!r}", found.base, _ROWS_ARE, False)
        if by_row is not None:
            notices, every = (*notices, *by_row.notices), by_row.train
            if by_row.val is not None:
                return _Parts({"train": (train, every), "val": (train, by_row.val)}, by_row.text, notices, found.facts)
        if by_file is None and by_row is None and (settings.train_split or settings.val_split):
            raise DataError(
                "Nothing names the splits that data.train_split and data.val_split ask for.",
                where=settings.path,
                expected="files, or cells of a column 'split', of these names",
                got=", ".join(found.names()[:10]),
            )
        keys = [train.ids[row] for row in every]

        def share(split: Split) -> _Rows:
            return train, [every[at] for at in split_by_share(keys, settings.val_share, split, settings.path)]

        said = [part.text for part in (by_file, by_row) if part is not None]
        how = "; ".join([*said, f"a share of {settings.val_share:g} of the rows, by a hash of file and row"])
        return _Parts({"train": share("train"), "val": share("val")}, how, notices, found.facts)

    def _named(
        self, names: Sequence[str | None], said_by: str, where: Path, fix: str, elsewhere: bool
    ) -> NamedSplit | None:
        """Splits by `names`; None where they name none, or not those that the settings name."""
        train, val = self.settings.train_split, self.settings.val_split
        train = (train,) if isinstance(train, str) else train
        if (train or val) and not names_among(names, [*(train or ()), *([val] if val else ())]):
            return None
        return named_split(names, train, val, said_by, where, fix, elsewhere)

    def _table(self, files: list[Path], found: _Found, prefix: str) -> Table:
        settings = self.settings
        most = None if settings.max_group_mib is None else settings.max_group_mib << 20
        return Table(files, found.base, settings.image, settings.label, prefix, most)


@dataclass(frozen=True)
class _Parts:
    """For each split the table, and the rows of it that belong to the split; how that was decided."""

    rows: dict[Split, _Rows]
    how: str
    notices: tuple[str, ...]
    facts: list[Fact]


def _evaluation(found: _Found) -> tuple[list[Path], list[str]]:
    """The validation files under val_path: the first of the splits their names have, else all; what is left out."""
    words = [split_word(name) for name in found.names()]
    word = next((name for name in VALIDATION_NAMES if name in words), None)
    files = [file for file, own in zip(found.files, words, strict=True) if word is None or own == word]
    left = len(found.files) - len(files)
    return files, [f"{left} files under data.val_path that aren't {word} are left out"] if left else []
