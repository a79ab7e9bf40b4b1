"""What a table of labels, or a JSON file beside each file, says of the files; and what of it wasn't understood."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from maskedmodel.components import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources.foreign import parsing
from maskedmodel.sources.naming import match_names

TABLES = ("metadata.csv", "index.csv")  # looked for at the top of a folder or archive
_FILE_COLUMNS = ("file_name", "filename", "file", "path")
# What programs write where a value is missing. "None" and "NA" may as well be classes: data.unlabelled settles those.
_MISSING = frozenset(("", "nan", "+nan", "-nan", "<na>", "#n/a", "nat"))


class Beside(Protocol):
    """Files that have others beside them."""

    paths: list[str]

    def beside(self, path: str) -> bytes | None: ...


@dataclass
class Sayings:
    """What was said of each file, by path and by column.

    said_by  what it is from, for people; None where nothing says anything.
    used     paths of the tables or JSON files that were read.
    rows     how often a row of one file said something else than another: file, column, the two values.
    """

    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    said_by: str | None = None
    used: list[str] = field(default_factory=list)
    told: list[Fact] = field(default_factory=list)
    conflicts: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # column: file, one value, another

    def column(self, wanted: str) -> str | None:
        """The column of that name: as spelled, else whatever the case and spaces. None where there is none."""
        if wanted in self.columns:
            return wanted
        return next((own for own in self.columns if _plain(own) == _plain(wanted)), None)

    def check(self, column: str | None, where: object) -> None:
        """Raises DataError where two rows of one file differ in a column that is used."""
        if column in self.conflicts:
            name, one, other = self.conflicts[column]
            raise DataError(
                f"Two rows of one file differ in {column!r}.",
                where=f"{where}, {name}",
                expected="one row for each file",
                got=f"{one!r} and {other!r}",
                fix="Mend the table.",
            )


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


def missing(value: str | None) -> bool:
    """Whether a cell says that there is no value."""
    return value is None or value.strip().casefold() in _MISSING


def read_sayings(files: Beside, base: str, setting: str, sidecars: Iterable[str]) -> Sayings:
    """Of a table at the top, in the folder `base` that holds everything, or in the one that holds that; else of the
    JSON files in `sidecars` that go by a file's name. Raises DataError on what can't be understood.
    """
    for name in TABLES:
        for folder in dict.fromkeys(("", base, f"{base.rpartition('/')[0].rpartition('/')[0]}/".lstrip("/"))):
            content = files.beside(folder + name)
            if content is not None:
                return _table(content, files.paths, folder, name, f"{setting}/{folder}{name}")
    return _json(files, frozenset(sidecars))


def _table(content: bytes, paths: Sequence[str], folder: str, name: str, where: str) -> Sayings:
    says = Sayings(said_by=folder + name, used=[folder + name])
    header, rows = _cells(content, where, says)
    column = next(
        (place for wanted in _FILE_COLUMNS for place, own in enumerate(header) if _plain(own) == wanted), None
    )
    if column is None:
        raise DataError(
            "The table of labels doesn't say which file a row is about.",
            where=where,
            expected=f"a column called {', '.join(_FILE_COLUMNS)}",
            got=", ".join(header) or "nothing",
        )
    says.columns = [own for own in header if own]
    named = [row for row in rows if column < len(row) and row[column].strip()]
    matching = match_names([row[column] for row in named], paths, folder)
    repeated = [
        paths[number]
        for row, number in zip(named, matching.files, strict=True)
        if number is not None and _say(says, paths[number], dict(zip(header, row, strict=False)))
    ]
    _tell_of_rows(says, repeated, len(rows) - len(named), matching.how, matching.ambiguous)
    without = [row[column] for row, number in zip(named, matching.files, strict=True) if number is None]
    if not says.facts:
        raise DataError(
            "No row of the table of labels names a file that is here.",
            where=where,
            expected=f"names such as {paths[0]}",
            got=(", ".join(without[:3]) or "no row with a file's name")
            + (f"; {matching.ambiguous} fit several files" if matching.ambiguous else ""),
            fix="Write paths as they are below the folder of the table.",
        )
    if without:
        text = f"rows of {name} that name no file here: {len(without)} ({_first(without)})"
        says.told.append(Fact("labels", text, True))
    unnamed = [path for path in paths if path not in says.facts]
    if unnamed:
        says.told.append(Fact("labels", f"files without a row in {name}: {len(unnamed)} ({_first(unnamed)})", True))
    return says


def _cells(content: bytes, where: str, says: Sayings) -> tuple[list[str], list[list[str]]]:
    """Header and rows, spaces around each cell left out."""
    with parsing("The table of labels can't be read.", where, expected="CSV in UTF-8"):
        text = content.decode("utf-8-sig")
    first = text.lstrip().partition("\n")[0]
    separator = max((",", ";", "\t"), key=first.count)  # the first of them where none occurs
    with parsing("The table of labels can't be read.", where, expected="CSV in UTF-8"):
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator))
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    header = [cell.strip() for cell in lines[0]] if lines else []
    twice = sorted(name for name, count in Counter(_plain(cell) for cell in header if cell).items() if count > 1)
    if twice:
        raise DataError(
            "Two columns of the table of labels have one name.",
            where=where,
            expected="a name of its own for each, whatever the case and spaces",
            got=", ".join(name for name in header if _plain(name) in twice),
        )
    rows = lines[1:]
    long = next((number for number, row in enumerate(rows, 2) if any(c.strip() for c in row[len(header) :])), None)
    if long is not None:
        raise DataError(
            "A row of the table of labels has more cells than the header.",
            where=f"{where}, row {long} of those that aren't empty",
            expected=f"{len(header)} cells",
            got=f"{len(rows[long - 2])}: {separator.join(rows[long - 2])[:200]}",
            fix="Quote cells that hold a separator.",
        )
    short = sum(len(row) < len(header) for row in rows)
    if separator != ",":
        says.told.append(Fact("labels", f"columns of the table are separated by {separator!r}"))
    if short:
        says.told.append(Fact("labels", f"rows of the table that are shorter than its header: {short}", True))
    spaced = sum(cell != cell.strip() for row in [lines[0], *rows] for cell in row) if lines else 0
    if spaced:
        says.told.append(Fact("labels", f"cells of the table with spaces around them, left out: {spaced}", True))
    return header, [[cell.strip() for cell in row] for row in rows]


def _say(says: Sayings, path: str, cells: dict[str, str]) -> bool:
    """Note a row, and say whether it repeats a file: the first row holds, and what differs is a conflict."""
    before = says.facts.setdefault(path, cells)
    for name in (name for name in {**before, **cells} if before.get(name, "") != cells.get(name, "")):
        says.conflicts.setdefault(name, (path, before.get(name, ""), cells.get(name, "")))
    return before is not cells


def _tell_of_rows(says: Sayings, repeated: Sequence[str], nameless: int, how: str, ambiguous: int) -> None:
    if repeated:
        says.told.append(Fact("labels", f"rows that repeat a file: {len(repeated)} ({_first(repeated)})", True))
    if nameless:
        says.told.append(Fact("labels", f"rows that name no file, left out: {nameless}", True))
    if how:
        says.told.append(Fact("labels", f"names in the table are matched {how}", True))
    if ambiguous:
        says.told.append(Fact("labels", f"rows that fit several files, left out: {ambiguous}", True))


def _json(files: Beside, sidecars: frozenset[str]) -> Sayings:
    says = Sayings()
    odd = nested = 0
    for path in files.paths:
        beside = str(PurePosixPath(path).with_suffix(".json"))
        if beside not in sidecars and (beside := f"{path}.json") not in sidecars:
            continue
        content = files.beside(beside)
        if content is None:  # it has gone since
            continue
        with parsing("The JSON beside a file can't be read.", beside):
            said: Any = json.loads(content)
            cells = {str(key): _text(value) for key, value in said.items()} if isinstance(said, dict) else None
        says.used.append(beside)
        if cells is None:
            odd += 1
            continue
        nested += any(value is None for value in cells.values())
        says.facts[path] = {key: value for key, value in cells.items() if value is not None}
    if not says.used:
        return says
    says.said_by = "JSON files beside the files"
    says.columns = sorted({key for facts in says.facts.values() for key in facts})
    without = [path for path in files.paths if path not in says.facts]
    if without:
        says.told.append(Fact("labels", f"files without JSON beside them: {len(without)} ({_first(without)})", True))
    if odd:
        says.told.append(Fact("labels", f"JSON files that hold something else than names and values: {odd}", True))
    if nested:
        says.told.append(Fact("labels", f"JSON files with lists or mappings, which are left out: {nested}"))
    return says


def _text(value: Any) -> str | None:
    """A JSON value as a cell of a table; None where it is a list or a mapping."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 1.0 and 1 are one label
    return None if isinstance(value, list | dict) else str(value).strip()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
