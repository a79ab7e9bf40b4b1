"""The `parquet` source: tables with a column of encoded images, as the Hugging Face hub lays them out."""

from __future__ import annotations

import glob
import io
import json
import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, PositiveInt

from maskedmodel import DataError, DataSource, DependencyError, Sample, SampleDataset, Split
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import ImageFileSettings
from maskedmodel_image.files import existing_path
from maskedmodel_image.splits import VALIDATION_NAMES, split_by_share

# Encoded row groups are kept up to this many bytes per process: a small table is then read from disk once.
_KEPT_BYTES = 1 << 30


class ParquetSettings(ImageFileSettings):
    """Settings of the `parquet` source."""

    name: Literal["parquet"] = "parquet"
    path: str = Field(
        description="A .parquet file, a folder of them, or a glob. Files named train-... and test-... (or val, valid, "
        "validation, dev) are the splits."
    )
    val_path: str | None = Field(None, description="File, folder or glob of the validation table.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the rows for validation, by a hash of file name and row, where nothing else says.",
    )
    image: str | None = Field(None, description="Column of encoded images. null = the first of a fitting type.")
    label: str | None = Field(
        None, description="Column of integer labels. null = the first marked as such, else the only integer one."
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Stored size in pixels, one number or [height, width]: the short side is resized to fit, the "
        "centre kept. null = as they are, which must then be one size.",
    )


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "Data source 'parquet' needs pyarrow.", got=str(error), fix='pip install "maskedmodel[parquet]"'
        ) from error
    return pyarrow


class Table:
    """The image column of some parquet files, read by row groups. `ids` are "file:row"."""

    def __init__(self, files: list[Path], base: Path, settings: ParquetSettings) -> None:
        arrow = _pyarrow()
        self.files, self._local = files, _Local(-1)
        self._groups: list[tuple[int, int]] = []  # number of the file, number of the row group in it
        self._starts: list[int] = []  # first row of each group, counted over all files
        self._file_starts: list[int] = []
        self.ids: list[str] = []
        self.class_names: list[str] | None = None
        labels: list[int] = []
        for number, path in enumerate(files):
            try:
                with arrow.parquet.ParquetFile(path) as file:
                    schema, metadata = file.schema_arrow, file.metadata
                    features = _features(schema)
                    if number == 0:
                        self.image = _image_column(schema, settings.image, path)
                        self.label = _label_column(schema, settings.label, features, path)
                        self.class_names = _names(features, self.label)
                    for column in (self.image, self.label):
                        if column is not None and column not in schema.names:
                            raise _missing(column, schema, path)
                    self._file_starts.append(len(self.ids))
                    row = len(self.ids)
                    for group in range(metadata.num_row_groups):
                        self._groups.append((number, group))
                        self._starts.append(row)
                        row += metadata.row_group(group).num_rows
                    own = path.relative_to(base).as_posix()
                    self.ids += [f"{own}:{index}" for index in range(metadata.num_rows)]
                    if self.label is not None:
                        labels += _labels(
                            file.read(columns=[self.label], use_threads=False).column(0), self.label, path
                        )
            except (OSError, arrow.ArrowException) as error:
                raise DataError("The parquet file can't be read.", where=path, got=str(error)) from error
        if not self.ids:
            raise DataError(
                "The parquet files have no rows.", where=", ".join(map(str, files)), expected="1 row or more"
            )
        self.labels = labels if self.label is not None else None
        self._stamps = [f"{info.st_size} {info.st_mtime_ns}" for info in (path.stat() for path in files)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": _Local(-1)}

    def __len__(self) -> int:
        return len(self.ids)

    def _file(self, index: int) -> int:
        return bisect_right(self._file_starts, index) - 1

    def name(self, index: int) -> str:
        number = self._file(index)
        return f"{self.files[number]}, row {index - self._file_starts[number]}, column {self.image!r}"

    def stamp(self, index: int) -> str:
        return self._stamps[self._file(index)]

    def open(self, index: int) -> BinaryIO:
        group = bisect_right(self._starts, index) - 1
        value = self._column(group)[index - self._starts[group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise DataError(
                "The row holds no image.",
                where=self.name(index),
                expected="the encoded bytes",
                got="null, or a path alone",
                fix="Embed the bytes in the table; files it only points to aren't read.",
            )
        return io.BytesIO(data)

    def _column(self, group: int) -> Any:
        arrow = _pyarrow()
        if self._local.process != os.getpid():  # pyarrow's open files aren't for sharing with a forked worker
            self._local = _Local(os.getpid())
        local = self._local
        with local.lock:
            if group in local.groups:
                local.groups.move_to_end(group)
                return local.groups[group]
            number, own = self._groups[group]
            try:
                if number not in local.files:
                    local.files[number] = arrow.parquet.ParquetFile(self.files[number])
                column = local.files[number].read_row_group(own, columns=[self.image], use_threads=False).column(0)
            except (OSError, arrow.ArrowException) as error:
                where = f"{self.files[number]}, row group {own}"
                raise DataError("The parquet file can't be read.", where=where, got=str(error)) from error
            local.groups[group] = column
            local.kept += column.nbytes
            while local.kept > _KEPT_BYTES and len(local.groups) > 1:
                local.kept -= local.groups.popitem(last=False)[1].nbytes
            return column


class _Local:
    """What one process has open."""

    def __init__(self, process: int) -> None:
        self.process, self.lock = process, threading.Lock()
        self.files: dict[int, Any] = {}
        self.groups: OrderedDict[int, Any] = OrderedDict()
        self.kept = 0

    def __reduce__(self) -> tuple[type[_Local], tuple[int]]:
        return _Local, (-1,)


def _missing(column: str, schema: Any, path: Path) -> DataError:
    return DataError(
        f"There is no column {column!r}.", where=path, expected=f"one of {', '.join(schema.names)}", got=column
    )


def _features(schema: Any) -> dict[str, Any]:
    """What the Hugging Face `datasets` library wrote about the columns; {} in a table from elsewhere."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return (
        {name: value for name, value in features.items() if isinstance(value, dict)}
        if isinstance(features, dict)
        else {}
    )


def _image_column(schema: Any, wanted: str | None, path: Path) -> str:
    types = _pyarrow().types

    def fits(kind: Any) -> bool:
        if types.is_struct(kind):
            index = kind.get_field_index("bytes")
            return index >= 0 and fits(kind.field(index).type)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    if wanted is not None and wanted not in schema.names:
        raise _missing(wanted, schema, path)
    for field in schema:
        if field.name == wanted or (wanted is None and fits(field.type)):
            if fits(field.type):
                return str(field.name)
            break
    raise DataError(
        "There is no column of encoded images." if wanted is None else f"Column {wanted!r} holds no encoded images.",
        where=path,
        expected="a binary column, or a struct with a binary field 'bytes'",
        got=", ".join(f"{field.name}: {field.type}" for field in schema),
    )


def _label_column(schema: Any, wanted: str | None, features: dict[str, Any], path: Path) -> str | None:
    types = _pyarrow().types
    integers = [field.name for field in schema if types.is_integer(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise _missing(wanted, schema, path)
        if wanted not in integers:
            got = str(schema.field(wanted).type)
            raise DataError(f"Column {wanted!r} holds no labels.", where=path, expected="integers", got=got)
        return wanted
    marked = [name for name in integers if features.get(name, {}).get("_type") == "ClassLabel"]
    for choice in (marked, integers if len(integers) == 1 else [], [name for name in integers if name == "label"]):
        if choice:
            return str(choice[0])
    if integers:
        raise DataError(
            "Several columns could be the label.", where=path, got=", ".join(integers), fix="Name one in data.label."
        )
    return None


def _labels(column: Any, name: str, path: Path) -> list[int]:
    if column.null_count:
        raise DataError(f"Column {name!r} has rows without a label.", where=path, got=f"{column.null_count} nulls")
    return [int(label) for label in column.to_pylist()]


def _names(features: dict[str, Any], label: str | None) -> list[str] | None:
    names = features.get(label, {}).get("names") if label is not None else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _find(setting: str, what: str) -> tuple[list[Path], Path]:
    """The parquet files that a setting means, and the folder their ids start from."""
    path = Path(setting).expanduser()
    if glob.has_magic(setting) and not path.exists():
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))
    else:
        path = existing_path(setting, what)
        files = sorted(found for found in path.rglob("*.parquet") if found.is_file()) if path.is_dir() else [path]
    if not files:
        expected = "files that end in .parquet"
        raise DataError("There are no parquet files.", where=path, expected=expected, got="none", fix="Check the path.")
    return files, path if path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))


def _of_split(files: list[Path], base: Path, names: tuple[str, ...]) -> list[Path]:
    """The files in whose name, or folder, the first of `names` that occurs stands as a word."""
    for name in names:
        word = re.compile(rf"(?:^|[/._-]){name}(?:[/._-]|$)")
        found = [file for file in files if word.search(file.relative_to(base).as_posix())]
        if found:
            return found
    return []


class Parquet(DataSource[ParquetSettings]):
    """Encoded images and integer labels out of parquet files. A sample's id is "file:row"."""

    def open(self, split: Split) -> SampleDataset:
        table, chosen = self._parts[split]
        ids = [table.ids[row] for row in chosen]
        labels = None if table.labels is None else [table.labels[row] for row in chosen]
        form = form_of(self._parts["train"][0], self.settings)
        return open_images(table, chosen, ids, labels, form, self.settings, split)

    def class_names(self) -> list[str] | None:
        table = self._parts["train"][0]
        if table.class_names is None and table.labels is not None:
            return [str(label) for label in range(max(table.labels) + 1)]
        return table.class_names

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return any(path.rglob("*.parquet")) if path.is_dir() else path.suffix.lower() == ".parquet"

    @cached_property
    def _parts(self) -> dict[Split, tuple[Table, list[int]]]:
        """For each split the table, and the rows of it that belong to the split."""
        settings = self.settings
        files, base = _find(settings.path, "path")
        train_files = _of_split(files, base, ("train",))
        val_files: list[Path] = []
        val_base = base
        if settings.val_path is not None:
            val_files, val_base = _find(settings.val_path, "val_path")
            val_files = _of_split(val_files, val_base, VALIDATION_NAMES) or val_files
            train_files = train_files or files
        elif train_files:
            val_files = _of_split(files, base, VALIDATION_NAMES)
        if train_files and val_files:
            train, val = Table(train_files, base, settings), Table(val_files, val_base, settings)
            return {"train": (train, list(range(len(train)))), "val": (val, list(range(len(val))))}
        table = Table(files, base, settings)

        def share(split: Split) -> tuple[Table, list[int]]:
            return table, split_by_share(table.ids, settings.val_share, split, settings.path)

        return {"train": share("train"), "val": share("val")}
