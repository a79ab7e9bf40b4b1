"""A CSV file as columns: how its cells are separated, and whether a comma is a decimal mark, decided over the file."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from maskedmodel import Fact
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import MOST_SHRUNK, check_size, open_regular, parsing

SEPARATORS = (",", ";", "\t", "|")
_HARMLESS_BYTES = 64 << 20  # of text, however small the file is that it was packed in
_SAMPLED = 64  # lines that the separator is found by
_SPACE = "[ \u00a0\u202f']"  # what groups of thousands are set apart by, besides a comma or a point
_EXPONENT = r"(?:[eE][+-]?\d+)?"
# A number with a decimal point, and one with a decimal comma. A group of thousands never follows a leading zero.


def _number(thousands: str, decimal: str) -> str:
    whole = rf"(?:[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+|\d+)"
    return rf"[+-]?(?:{whole}(?:{decimal}\d*)?|{decimal}\d+){_EXPONENT}"


_POINT, _COMMA = _number(",", r"\."), _number(r"\.", ",")
_MARKED = rf"[+-]?(?:[\d.,]|{_SPACE})*\d(?:[\d.,]|{_SPACE})*{_EXPONENT}"  # digits and marks, in any order
_DATES = r"\d{1,4}\.\d{1,2}\.\d{1,4}|\d{1,2}\.\d{2}\.\d{2}"
Mark = Literal[".", ","]


def load_pandas() -> ModuleType:
    """pandas. Raises DependencyError where it can't be imported."""
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "Reading tables of time series needs pandas.", got=error, fix=install_hint(extra="timeseries")
        ) from error
    return pandas  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written: its separator, how many lines come before the names, and which columns have none."""

    separator: str
    skipped: int = 0
    unnamed: tuple[str, ...] = ()


def read_csv(path: Path, separator: str | None, decimal: Mark | None) -> tuple[Any, Dialect, list[Fact]]:
    """The table as a pandas frame: numeric columns as numbers, all others as text; spaces around names are left out.

    separator, decimal   as set by the user; None: found. Raises DataError on what can't be decided.
    """
    text = _text(path)
    found = _separator(text, path, separator)
    written = _names(text, found, path)
    names = [name or _place(number, written) for number, name in enumerate(written, 1)]
    found = replace(found, unnamed=tuple(set(names) - set(written)))
    told = _short_rows(text, found, len(names))
    frame = _parsed(text, found, names, path)
    if decimal is None and not any(_has_commas(frame[name]) for name in frame.columns):
        return frame, found, told
    cells = _parsed(text, found, names, path, dtype=str)
    mark = decimal or _decimal(cells, path)
    if mark is None:
        return frame, found, told
    for name in cells.columns:
        if load_pandas().api.types.is_integer_dtype(frame[name]):
            continue  # no mark in any cell
        numbers = as_numbers(cells[name], mark)
        if numbers is not None:
            frame[name] = numbers
        elif load_pandas().api.types.is_float_dtype(frame[name]):
            raise DataError(
                f"Column {name!r} holds what is no number with the decimal mark of this table.",
                where=path,
                expected=f"numbers such as 1{mark}5",
                got=next(cell for cell in cells[name].dropna() if as_numbers(_alone(cell), mark) is None),
            )
    word = "comma" if mark == "," else "point"
    how = "as set" if decimal else "decided over all cells"
    return frame, found, [*told, Fact("table", f"decimal {word}, {how}")]


def _place(number: int, names: list[str]) -> str:
    """What a column without a name is called: by its place, and unlike the others."""
    return next(name for name in (f"column {number}", f"column {number} of the file") if name not in names)


def _alone(cell: str) -> Any:
    return load_pandas().Series([cell])


def as_numbers(cells: Any, mark: Mark) -> NDArray[np.float64] | None:
    """Text cells as float64 with NaN for empty ones, where each of them is a number; else None."""
    there = cells.notna()
    written = cells[there].astype(str).str.strip()
    form = _POINT if mark == "." else _COMMA
    if not written.str.fullmatch(form).all():
        return None
    thousands = re.escape(",") if mark == "." else re.escape(".")
    plain = written.str.replace(f"{thousands}|{_SPACE}", "", regex=True).str.replace(",", ".", regex=False)
    values = np.full(len(cells), np.nan)
    values[there.to_numpy()] = plain.astype(np.float64).to_numpy()
    return values


def _text(path: Path) -> str:
    zipped = path.name.lower().endswith(".gz")
    with open_regular(path) as file, parsing("The table can't be read.", path, expected="a table of text in UTF-8"):
        content = _unzipped(file, path) if zipped else file.read()
        # UTF-16 is what spreadsheets call Unicode text.
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if "\0" in text:
        raise DataError("The table can't be read.", where=path, expected="a table of text", got="bytes of zero in it")
    if not text.strip():
        raise DataError("The table can't be read.", where=path, expected="a row of names, then values", got="no text")
    return str(text)


def _unzipped(file: BinaryIO, path: Path) -> bytes:
    most = max(MOST_SHRUNK * path.stat().st_size, _HARMLESS_BYTES)
    content: bytes = gzip.GzipFile(fileobj=file).read(most + 1)
    check_size(len(content), most, "decodes to", path, "Unpack the file first, if it is honest, and name that.")
    return content


def _separator(text: str, path: Path, given: str | None) -> Dialect:
    """What separates the cells: of what could, that by which the first lines have equally many cells, two or more."""
    lines = _lines(text[:200_000])
    skipped = next(number for number, line in enumerate(lines) if line.strip())
    declared = re.fullmatch(r"sep=(.)", lines[skipped].strip('\ufeff\r\n" '), re.IGNORECASE)
    if declared is not None:  # a line that spreadsheets write
        return Dialect(given or declared[1], skipped + 1)
    if given is not None:
        return Dialect(given, skipped)
    sample = "\n".join(lines[skipped : skipped + _SAMPLED])
    fitting = [separator for separator in SEPARATORS if _even(sample, separator)]
    if len(fitting) > 1:
        names = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
        raise DataError(
            "What separates the cells of the table can't be told.",
            where=path,
            expected="one of them to cut all rows into equally many cells",
            got=f"{' and '.join(names[one] for one in fitting)} both do",
            fix="Say which: data.separator, or --separator for a forecast.",
        )
    if fitting:
        return Dialect(fitting[0], skipped)
    # Uneven rows, or a single column: the parser says which, by what occurs in the names.
    return Dialect(max(SEPARATORS, key=lines[skipped].count), skipped)


def _lines(text: str) -> list[str]:
    """Lines as a CSV parser has them: other characters that end a line in Unicode don't."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _even(sample: str, separator: str) -> bool:
    try:
        widths = {len(row) for row in csv.reader(io.StringIO(sample), delimiter=separator) if row}
    except csv.Error:
        return False
    return len(widths) == 1 and widths.pop() > 1


def _names(text: str, dialect: Dialect, path: Path) -> list[str]:
    """The row of names. Raises DataError where two are the same, or where it holds values."""
    body = io.StringIO(text, newline="")
    for _ in range(dialect.skipped):
        body.readline()
    rows = csv.reader(body, delimiter=dialect.separator)
    with parsing("The table can't be read.", path, expected="a row of names, then values"):
        names = [cell.strip() for cell in next(rows, [])]
    twice = [name for name, count in Counter(name for name in names if name).items() if count > 1]
    if twice:
        raise DataError(
            f"Two columns of the table are called {twice[0]!r}.", where=path, expected="a name of its own for each"
        )
    numbers = [name for name in names if re.fullmatch(f"{_POINT}|{_COMMA}", name)]
    values = any(re.search(r"[.,eE]", name) for name in numbers)
    if (names and len(numbers) == len(names) and not _counting(names)) or (
        values and re.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", names[0])
    ):
        raise DataError(
            "The first row of the table holds values, where the names of its columns belong.",
            where=path,
            expected="a row of names, then values",
            got=", ".join(names[:5]),
            fix="Put a row of names before it.",
        )
    return names


def _short_rows(text: str, dialect: Dialect, columns: int) -> list[Fact]:
    """How many rows end before the last column, as one that was cut off does: the parser takes the rest as missing."""
    if '"' in text:  # a separator may stand within a cell
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=dialect.separator)
        widths = [len(row) for row in rows if row]
    else:
        widths = [line.count(dialect.separator) + 1 for line in _lines(text) if line]
    short = sum(width < columns for width in widths[dialect.skipped :])
    if not short:
        return []
    return [
        Fact("table", f"{short:,} rows have fewer cells than there are columns; what lacks is missing", notice=True)
    ]


def _counting(names: list[str]) -> bool:
    """Whether the names number the columns, as 0, 1, 2 do."""
    return names in ([str(first + place) for place in range(len(names))] for first in (0, 1))


def _parsed(text: str, dialect: Dialect, names: list[str], path: Path, **options: Any) -> Any:
    pandas = load_pandas()
    with (
        warnings.catch_warnings(),
        parsing("The table can't be read.", path, also=(pandas.errors.ParserWarning,)),
    ):
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row longer than the first would be cut
        frame = pandas.read_csv(
            io.StringIO(text),
            sep=dialect.separator,
            skiprows=dialect.skipped,
            index_col=False,
            low_memory=False,  # else a long column may change its type half-way
            **options,
        )
        frame.columns = names
    return frame


def _has_commas(column: Any) -> bool:
    """Whether text cells look like numbers written with commas, or with spaces between the thousands."""
    pandas = load_pandas()
    if pandas.api.types.is_numeric_dtype(column):
        return False
    written = column.dropna().astype(str)
    return bool(written.str.fullmatch(rf"\s*{_MARKED}\s*").any())


def _decimal(cells: Any, path: Path) -> Mark | None:
    """The decimal mark by which every number of the file is one; None where there is none to decide on.

    Columns that hold anything but digits and marks, such as dates and text, aren't asked.
    """
    not_point: list[str] = []
    not_comma: list[str] = []
    either: list[str] = []
    asked = False
    for name in cells.columns:
        column = cells[name].dropna().astype(str).str.strip()
        if not len(column) or not column.str.fullmatch(_MARKED).all() or column.str.fullmatch(_DATES).all():
            continue
        point, comma = column.str.fullmatch(_POINT), column.str.fullmatch(_COMMA)
        not_point += column[~point].head(1).tolist()
        not_comma += column[~comma].head(1).tolist()
        either += column[point & comma & column.str.contains("[.,]")].head(1).tolist()
        asked = asked or bool(column.str.contains(f",|{_SPACE}").any())
    if not asked:
        return None
    if not_point and not_comma:
        raise DataError(
            "Some numbers of the table have a decimal comma, others a decimal point.",
            where=path,
            expected="one decimal mark in all of the table",
            got=f"{not_point[0]} and {not_comma[0]}",
            fix="Write all numbers alike.",
        )
    if either and not not_point and not not_comma:
        raise DataError(
            "Whether a comma is a decimal mark or sets thousands apart can't be told.",
            where=path,
            expected="one number at least that can only be read one way",
            got=f"{either[0]}, which is {_reading(either[0], '.'):,g} or {_reading(either[0], ','):,g}",
            fix="Say which: data.decimal=',' or data.decimal='.', or --decimal for a forecast.",
        )
    return "," if not_point else "."


def _reading(cell: str, mark: Mark) -> float:
    thousands = "," if mark == "." else "."
    return float(re.sub(_SPACE, "", cell.replace(thousands, "")).replace(",", "."))
