"""All rows of the tables at a path, and which of their columns holds texts and which labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NoReturn

from maskedmodel.errors import DataError
from maskedmodel.sources import FolderFiles, doubt_labels, existing_path, legible, split_in_name
from maskedmodel_text.decode import TextSettings
from maskedmodel_text.rows import EXTENSIONS, read_table

_WORDS = 3  # of a cell, on the average, from which on a column reads like text


@dataclass
class Rows:
    """The rows of all files.

    cells   of each column; None where there is no value.
    ids     file and number of each row.
    splits  the split that the name of its file says, None where it says none.
    counts  what was changed on reading.
    """

    where: str
    cells: dict[str, list[str | None]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def at(cls, setting: str, settings: TextSettings) -> Rows:
        """Of a table, or of all tables in a folder. Raises DataError where there is none, or one can't be read."""
        path = existing_path(setting, "path")
        inside = FolderFiles(path, EXTENSIONS) if path.is_dir() else None
        paths = [path] if inside is None else [inside.location(index) for index in range(len(inside))]
        rows = cls(legible(str(path)))
        if not paths or not paths[0].name.lower().endswith(EXTENSIONS):
            expected = f"a file, or a folder of files, that end in {' '.join(EXTENSIONS)}"
            raise DataError("There is no table of texts.", where=rows.where, expected=expected, fix="Check the path.")
        for one in paths:
            table = read_table(one, settings, rows.counts)
            name = legible(one.name if inside is None else one.relative_to(path).as_posix())
            before, count = len(rows.ids), len(next(iter(table.values()), []))
            for column in {**rows.cells, **table}:
                rows.cells.setdefault(column, [None] * before).extend(table.get(column, [None] * count))
            rows.ids.extend(f"{name}:{number}" for number in range(count))
            rows.splits.extend([split_in_name(name.rpartition(".")[0])] * count)
        return rows

    def column(self, setting: str, wanted: str | None, usual: str = "") -> str | None:
        """The column a setting names, else the one of the usual name, whatever its case; None where there is none.

        Raises DataError where the one named isn't there.
        """
        name = (wanted or usual).strip().casefold()
        found = [own for own in self.cells if own == wanted] or [own for own in self.cells if own.casefold() == name]
        if wanted and not found:
            self._refuse(f"There is no column {wanted!r}.", setting, f"one of {', '.join(self.cells)}", wanted)
        return found[0] if found and wanted != "" else None

    def texts(self, wanted: str | None) -> tuple[str, bool]:
        """The column of texts, and whether it was guessed. Raises DataError where none or several read so."""
        found = self.column("text", wanted, "text")
        if found is not None:
            return found, False
        read = [name for name, cells in self.cells.items() if _reads(cells)]
        if len(read) != 1:
            what = "Several columns read like text." if read else "No column reads like text."
            self._refuse(what, "text", "a column called text, or one alone whose cells have several words", read)
        return read[0], True

    def labels(self, wanted: str | None) -> str | None:
        """The column of labels, if any. Raises DataError where one that isn't named holds no classes."""
        found = self.column("label", wanted, "label")
        reason = None
        if found is not None and wanted is None:
            reason = doubt_labels([cell for cell in self.cells[found] if cell is not None])
        if reason is not None:
            what = f"Column {found!r} looks like no classes."
            self._refuse(what, "label", 'a few values that repeat; an empty name "" means no labels', reason)
        return found

    def _refuse(self, what: str, setting: str, expected: str, got: object) -> NoReturn:
        said = ", ".join(map(str, got or self.cells)) if isinstance(got, list) else got
        raise DataError(what, where=self.where, expected=expected, got=said, fix=f"Name the column in data.{setting}.")


def _reads(cells: list[str | None]) -> bool:
    there = [cell for cell in cells if cell is not None]
    return bool(there) and sum(len(cell.split()) for cell in there) >= _WORDS * len(there)
