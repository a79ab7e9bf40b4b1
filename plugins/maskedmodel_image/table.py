"""Parquet files as a table of encoded images and labels."""

from __future__ import annotations

import io
import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from maskedmodel.errors import DataError, DependencyError, install_hint

# Encoded row groups are kept up to this many bytes per process: a small table is then read from disk once.
_KEPT_BYTES = 1 << 30


def load_pyarrow() -> Any:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "Data source 'parquet' needs pyarrow.", got=str(error), fix=install_hint(extra="parquet")
        ) from error
    return pyarrow


class Table:
    """The image and label columns of some parquet files; images are read by row groups.

    `image` and `label` name the columns, None = found by type. `ids` are "file:row", files relative to `base`, after
    `prefix`. Safe to pickle, to fork, and to read from several threads.
    """

    def __init__(self, files: list[Path], base: Path, image: str | None, label: str | None, prefix: str) -> None:
        arrow = load_pyarrow()
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
                        self.image = _image_column(schema, image, path)
                        self.label = _label_column(schema, label, features, path)
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
                    own = prefix + path.relative_to(base).as_posix()
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
        arrow = load_pyarrow()
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
    types = load_pyarrow().types

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
    types = load_pyarrow().types
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
