"""Tables in parquet as columns of cells; pyarrow is loaded when there is one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from maskedmodel.errors import DependencyError, install_hint
from maskedmodel.sources import legible, open_regular, parsing

Cells = dict[str, list[str | None]]  # of each column; None where there is no value


def as_text(value: Any, counts: Counter[str]) -> str | None:
    """A value of JSON or parquet as text; a list or a mapping is none."""
    if isinstance(value, list | dict | bytes):
        counts["cells that hold lists, mappings or bytes, taken for empty"] += 1
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or value != value else str(value)


def read_parquet(path: Path, where: str, counts: Counter[str]) -> Cells:
    arrow = _pyarrow(where)
    open_regular(path).close()
    with parsing("The parquet file can't be read.", where, also=(arrow.ArrowException,)):
        table = arrow.parquet.read_table(path, use_threads=False)
        about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        cells = {
            name: [as_text(value, counts) for value in table.column(name).to_pylist()] for name in table.column_names
        }
    for name, column in cells.items():  # classes that the `datasets` library wrote as numbers; -1 is none of them
        said = features.get(name, {}) if isinstance(features, dict) else {}
        names = said.get("names") if isinstance(said, dict) else None
        if isinstance(names, list) and all(cell is None or cell.lstrip("-").isdecimal() for cell in column):
            known = dict(enumerate(map(str, names)))
            cells[name] = [None if cell is None else known.get(int(cell)) for cell in column]
    return cells


def _pyarrow(where: str) -> Any:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        hint = install_hint(extra="parquet")
        raise DependencyError("A table in parquet needs pyarrow.", where=where, got=str(error), fix=hint) from error
    return pyarrow


def parquet_names(path: Path) -> list[str]:
    """The columns of a file. Raises as `read_parquet`."""
    where = legible(str(path))
    arrow = _pyarrow(where)
    with parsing("The parquet file can't be read.", where, also=(arrow.ArrowException,)):
        return list(arrow.parquet.read_schema(path).names)
