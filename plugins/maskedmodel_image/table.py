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
from maskedmodel.sources import MOST_SHRUNK, PARSER_ERRORS, check_size, legible, open_regular, parsing, row_batches

# Encoded row groups are kept up to this many bytes per process: a small table is then read from disk once.
_KEPT_BYTES = 1 << 30
# Rows of all files: each has an id in memory, and a file of a kilobyte can claim any number.
_MOST_ROWS = 50_000_000
# Rows that are decoded before their size is looked at: what a file declares may be a lie.
_ROWS_AT_ONCE = 16
# Most bytes of a row group; and so many are no harm, however small the file is.
_MOST_BYTES, _HARMLESS_BYTES = 1 << 31, 64 << 20
_TOO_LARGE = "Write it with smaller row groups, or raise data.max_group_mib if it is honest."
_CANT = "The parquet file can't be read."


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

    `image` and `label` name the columns, None = found by type; label "" = no labels. `ids` are "file:row", files
    relative to `base`, after `prefix`. A row group takes `most` bytes at most, by what it declares and as it is
    decoded; None = 2 GiB, but 64 MiB where that is over 200 times the file's size. Safe to pickle, to fork, and to read
    from several threads.

    labels       of each row as the column has it; None where there is no column of labels.
    guessed      whether the column was neither named nor marked as labels.
    class_names  what labels mean where the file says so, as the `datasets` library writes it; -1 is no label then.
    splits       what a column called "split" says of each row; None where there is none.
    """

    def __init__(
        self, files: list[Path], base: Path, image: str | None, label: str | None, prefix: str, most: int | None = None
    ) -> None:
        self.files, self.most, self._local = files, most, _Local(-1)
        self._groups: list[tuple[int, int]] = []  # number of the file, number of the row group in it
        self._starts: list[int] = []  # first row of each group, counted over all files
        self._file_starts: list[int] = []
        self.ids: list[str] = []
        self.class_names: list[str] | None = None
        self.guessed = False
        labels: list[int] = []
        splits: list[str | None] = []
        self.split: str | None = None
        for number, path in enumerate(files):
            file = _parquet_file(path)
            schema, features, rows = _described(file, path)
            if number == 0:
                self.image = _image_column(schema, image, path)
                self.label, self.guessed = _label_column(schema, label, features, path)
                self.split = _split_column(schema)
                self.class_names = _names(features, self.label)
            for column in (self.image, self.label, self.split):
                if column is not None and column not in schema.names:
                    raise _missing(column, schema, path)
            if len(self.ids) + sum(rows) > _MOST_ROWS:
                got = f"{sum(rows)} more than {len(self.ids)}"
                raise DataError(
                    "The tables have too many rows.", where=path, expected=f"at most {_MOST_ROWS} in all", got=got
                )
            self._file_starts.append(len(self.ids))
            row = len(self.ids)
            for group, count in enumerate(rows):
                self._groups.append((number, group))
                self._starts.append(row)
                row += count
            own = prefix + legible(path.relative_to(base).as_posix())
            self.ids += [f"{own}:{index}" for index in range(sum(rows))]
            if self.label is not None:
                labels += _labels(_read_column(file, self.label, path, self._most(path)), self.label, path)
            if self.split is not None:
                splits += [
                    None if cell is None else str(cell)
                    for cell in _read_column(file, self.split, path, self._most(path))
                ]
        if not self.ids:
            raise DataError(
                "The parquet files have no rows.", where=", ".join(map(str, files)), expected="1 row or more"
            )
        self.labels = labels if self.label is not None else None
        self.splits = splits if self.split is not None else None
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
        if self._local.process != os.getpid():  # pyarrow's open files aren't for sharing with a forked worker
            self._local = _Local(os.getpid())
        local = self._local
        with local.lock:
            if group in local.groups:
                local.groups.move_to_end(group)
                return local.groups[group]
            number, own = self._groups[group]
            if number not in local.files:
                local.files[number] = _parquet_file(self.files[number])
            column = self._decode(local.files[number], own, self.files[number])
            local.groups[group] = column
            local.kept += column.nbytes
            while local.kept > _KEPT_BYTES and len(local.groups) > 1:
                local.kept -= local.groups.popitem(last=False)[1].nbytes
            return column

    def _decode(self, file: Any, group: int, path: Path) -> Any:
        """The images of a row group, still encoded as files. Raises DataError where they take too many bytes."""
        arrow, most = load_pyarrow(), self._most(path)
        where = f"{path}, row group {group}"
        with parsing(_CANT, where, also=(arrow.ArrowException,)):
            metadata = file.metadata.row_group(group)
            check_size(max(metadata.total_byte_size, 0), most, "declares", where, _TOO_LARGE)
            batches = row_batches(
                file, most, where, _TOO_LARGE, columns=[self.image], group=group, at_once=_ROWS_AT_ONCE
            )
            pieces = [batch.column(0) for batch in batches]
            _all_there(sum(map(len, pieces)), metadata.num_rows)
            return arrow.chunked_array(pieces, type=file.schema_arrow.field(self.image).type)

    def _most(self, path: Path) -> int:
        """How many bytes a row group of a file may take. Encoded images hardly shrink when they are stored."""
        if self.most is not None:
            return self.most
        return min(_MOST_BYTES, max(_HARMLESS_BYTES, MOST_SHRUNK * path.stat().st_size))


def _parquet_file(path: Path) -> Any:
    """A regular file, open as parquet. Raises DataError where it isn't one, or is damaged."""
    arrow = load_pyarrow()
    file = open_regular(path)
    with parsing(_CANT, legible(str(path)), also=(arrow.ArrowException,)):
        return arrow.parquet.ParquetFile(file)


def _described(file: Any, path: Path) -> tuple[Any, dict[str, Any], list[int]]:
    """Schema, what `datasets` wrote about the columns, and the rows of each row group."""
    with parsing(_CANT, legible(str(path)), also=(load_pyarrow().ArrowException,)):
        schema, metadata = file.schema_arrow, file.metadata
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
            raise ValueError(f"{metadata.num_rows} rows in all, but {rows[:5]} in its row groups")
        str(schema)  # names that aren't UTF-8 come to light here
        return schema, _features(schema), rows


def _read_column(file: Any, name: str, path: Path, most: int) -> list[Any]:
    """A column of labels or of splits' names. Raises DataError where it takes more than `most` bytes."""
    where = f"{legible(str(path))}, column {name!r}"
    with parsing(_CANT, where, also=(load_pyarrow().ArrowException,)):
        batches = row_batches(file, most, where, _TOO_LARGE, columns=[name])
        values = [value for batch in batches for value in batch.column(0).to_pylist()]
        _all_there(len(values), file.metadata.num_rows)
        return values


def _all_there(found: int, declared: int) -> None:
    """Raises ValueError where a damaged page ends a column early: rows of other columns would go with wrong ones."""
    if found != declared:
        raise ValueError(f"{found} values of {declared} rows")


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
    except PARSER_ERRORS:  # somebody else's metadata, which says nothing here
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


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


def _label_column(schema: Any, wanted: str | None, features: dict[str, Any], path: Path) -> tuple[str | None, bool]:
    """The column of labels, and whether it was guessed."""
    if wanted == "":
        return None, False
    types = load_pyarrow().types
    integers = [field.name for field in schema if types.is_integer(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise _missing(wanted, schema, path)
        if wanted not in integers:
            got = str(schema.field(wanted).type)
            raise DataError(f"Column {wanted!r} holds no labels.", where=path, expected="integers", got=got)
        return wanted, False
    marked = [name for name in integers if features.get(name, {}).get("_type") == "ClassLabel"]
    called = [name for name in integers if name.strip().casefold() == "label"]
    for choice, guessed in ((marked, False), (called, True), (integers if len(integers) == 1 else [], True)):
        if choice:
            return str(choice[0]), guessed
    if integers:
        raise DataError(
            "Several columns could be the label.", where=path, got=", ".join(integers), fix="Name one in data.label."
        )
    return None, False


def _split_column(schema: Any) -> str | None:
    """The column called "split", in any case, that holds words."""
    types = load_pyarrow().types

    def words(kind: Any) -> bool:
        return bool(
            types.is_string(kind)
            or types.is_large_string(kind)
            or (types.is_dictionary(kind) and words(kind.value_type))
        )

    return next(
        (str(field.name) for field in schema if field.name.strip().casefold() == "split" and words(field.type)), None
    )


def _labels(values: list[int | None], name: str, path: Path) -> list[int]:
    nulls = values.count(None)
    if nulls:
        raise DataError(f"Column {name!r} has rows without a label.", where=path, got=f"{nulls} nulls")
    return [int(label) for label in values if label is not None]


def _names(features: dict[str, Any], label: str | None) -> list[str] | None:
    names = features.get(label, {}).get("names") if label is not None else None
    return [str(name) for name in names] if isinstance(names, list) else None
