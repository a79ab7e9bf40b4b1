"""A column of times, and what all ways of reading one share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import DataError
from maskedmodel_timeseries.cells import load_pandas


@dataclass(frozen=True, eq=False)
class Stamps:
    """A column of times.

    times   T time stamps (a DatetimeIndex without zone; of UTC where the file gives offsets; NaT where a cell is
            empty), or T integers, or T floats of a clock.
    form    how it was read, for people.
    guess   whether that is more than the file says, so that it is told.
    """

    times: Any
    form: str
    guess: bool = False


def text_of(column: Any) -> Any:
    """Cells as text without spaces around, NA where they are empty. Numbers without the .0 of floats."""
    pandas = load_pandas()
    if pandas.api.types.is_float_dtype(column) and bool((column.dropna() == column.dropna().round()).all()):
        column = column.astype("Int64")
    text = column.astype("object").where(column.notna(), None)
    text = text.map(lambda cell: None if cell is None else str(cell).strip() or None)
    return pandas.Series(text, dtype="object")


def naive(read: Any) -> Any:
    """A DatetimeIndex without zone, of UTC where there was one, in nanoseconds where its years allow."""
    pandas = load_pandas()
    index = pandas.DatetimeIndex(read)
    index = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    try:
        return index.as_unit("ns")
    except pandas.errors.OutOfBoundsDatetime:
        return index.as_unit("us")


def odd_cell(column: Any, wrong: NDArray[np.bool_], where: str, expected: str, fix: str | None = None) -> DataError:
    row = int(wrong.argmax())
    return DataError(
        f"{int(wrong.sum()):,} of {len(column):,} cells hold no time.",
        where=f"{where}, row {row + 1} of values",
        expected=expected,
        got=repr(column.iloc[row]),
        fix=fix,
    )
