"""Tables of texts as columns of cells: CSV, TSV and JSON lines here, parquet by pyarrow."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from maskedmodel.errors import DataError, MaskedModelError
from maskedmodel.sources import legible, open_regular, parsing
from maskedmodel_text.decode import Decoder, TextSettings
from maskedmodel_text.parquet import Cells, as_text, parquet_names, read_parquet

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def read_table(path: Path, settings: TextSettings, counts: Counter[str]) -> Cells:
    """The columns of a table that hold texts or numbers. Raises DataError on what is no such table."""
    where = legible(str(path))
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, where, counts)
    with open_regular(path) as file:
        content = Decoder(settings.model_copy(update={"undecodable": "refuse"}), counts)(file.read(), where)
    assert content is not None, "what can't be decoded is refused"
    text = content.decode()
    kind = path.suffix.lower()
    return _csv(text, where, kind, counts) if kind in (".csv", ".tsv") else _json(text, where, counts)


def _csv(text: str, where: str, kind: str, counts: Counter[str]) -> Cells:
    first = text.partition("\n")[0]
    separator = "\t" if kind == ".tsv" else max((",", ";", "\t"), key=first.count)
    before = csv.field_size_limit(sys.maxsize >> 33)  # of all readers in this process; a text may be long
    try:
        with parsing("The table can't be read.", where, expected=f"cells separated by {separator!r}, texts in quotes"):
            lines = [
                line for line in csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator) if line
            ]
    finally:
        csv.field_size_limit(before)
    header = [name.strip() for name in lines[0]] if lines else []
    if len(set(header)) < len(header):
        raise DataError("Two columns of the table have one name.", where=where, got=", ".join(header)[:300])
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(header):
            raise DataError(
                "A row of the table has more cells than its header.",
                where=f"{where}, row {number} of those that aren't empty",
                expected=f"{len(header)} cells",
                got=f"{len(line)}: {separator.join(line)[:200]}",
                fix="Put texts that hold the separator in quotes.",
            )
        counts["rows that are shorter than the header"] += len(line) < len(header)
    return {
        name: [line[place] or None if place < len(line) else None for line in lines[1:]]
        for place, name in enumerate(header)
    }


def _json(text: str, where: str, counts: Counter[str]) -> Cells:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            with parsing("A line of the table can't be read.", f"{where}, line {number}", expected="a JSON object"):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"it holds a {type(row).__name__}")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [as_text(row.get(name), counts) for row in rows] for name in names}


def has_texts(path: Path) -> bool:
    """Whether a table has a column called text; JSON lines are taken to be texts."""
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        return True
    try:
        with open_regular(path) as file:
            line = file.readline(1 << 16).decode("utf-8-sig", "replace")
        names = parquet_names(path) if kind == ".parquet" else re.split("[,;\t]", line)
    except MaskedModelError:
        return False
    return kind in EXTENSIONS and "text" in [name.strip(' "\r\n').casefold() for name in names]
