"""Tables of time series: one row per time step, one column per variate, read from CSV or parquet."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import existing_path

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet",)
_NUMBERED_TIME = ("time", "timestamp", "date", "datetime", "ds", "step", "index", "t")
_MOST_GROWTH = 10  # times as many rows, once the missing ones are put in


def _needs() -> str:
    return install_hint(extra="timeseries")


def load_pandas() -> ModuleType:
    """pandas. Raises DependencyError where it can't be imported."""
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError("Reading tables of time series needs pandas.", got=error, fix=_needs()) from error
    return pandas  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Table:
    """A table in the order of time.

    values     (V, T) float64, NaN where a value is missing.
    times      T time stamps (a pandas DatetimeIndex), T integers, or None where the table has no time.
    time_name  what the column of time is called.
    frequency  the step between rows as pandas calls it, such as "h"; None where rows aren't evenly spaced.
    inserted   rows that the file lacks between others, put in as missing.
    """

    path: Path
    names: tuple[str, ...]
    values: NDArray[np.float64]
    times: Any = None
    time_name: str = "time"
    frequency: str | None = None
    inserted: int = 0

    @property
    def rows(self) -> int:
        return int(self.values.shape[1])

    def after(self, count: int) -> list[str]:
        """The `count` times after the last row, as text: by the frequency, else by the usual step, else by number."""
        pandas = load_pandas()
        if self.times is None:
            return [str(self.rows + step) for step in range(count)]
        if not isinstance(self.times, pandas.DatetimeIndex):
            step = int(np.median(np.diff(self.times)))
            return [str(int(self.times[-1]) + step * (number + 1)) for number in range(count)]
        if self.frequency is not None:
            future = pandas.date_range(self.times[-1], periods=count + 1, freq=self.frequency)[1:]
        else:
            future = self.times[-1] + (np.arange(count) + 1) * pandas.Series(self.times).diff().median()
        return self.stamps(pandas.DatetimeIndex(future))

    def stamps(self, times: Any) -> list[str]:
        """Time stamps as text: days where all of the table's are days, else to the second or finer."""
        days = bool((self.times == self.times.normalize()).all())
        return [str(time.date()) if days and time == time.normalize() else str(time) for time in times]


def read_table(path: str | Path, *, time: str | None = None, columns: Sequence[str] | None = None) -> Table:
    """The table in a .csv, .tsv (also .gz) or .parquet file.

    time     column of time; None: the first that holds dates or times, else a counting one called time, date or so.
    columns  variates to take, in this order; None: all columns but the one of time.

    Rows are put in the order of time; rows missing between evenly spaced ones are put in as NaN. Raises DataError that
    names the column on text, on two rows of one time, on infinite values, on a variate without any value, and where
    there are fewer than two rows.
    """
    found = existing_path(str(path), "table")
    if found.name.lower().endswith(CSV_SUFFIXES):
        frame = _read_csv(found)
    elif found.name.lower().endswith(PARQUET_SUFFIXES):
        frame = _read_parquet(found)
    else:
        raise DataError(
            "The table is of an unknown kind.",
            where=found,
            expected=", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES)),
            got=found.suffix or "no suffix",
        )
    if len(frame) < 2:
        raise DataError(
            "A time series needs two rows at least.",
            where=found,
            expected="a row of column names, and 2 rows of values or more",
            got=f"{len(frame)} row{'s' if len(frame) != 1 else ''} of values",
        )
    frame.columns = [str(name) for name in frame.columns]
    time_name, times = _time_of(frame, time, found)
    names = tuple(columns) if columns is not None else tuple(name for name in frame.columns if name != time_name)
    unknown = [name for name in names if name not in frame.columns]
    if unknown or not names:
        raise DataError(
            f"The table has no column {unknown[0]!r}." if unknown else "The table has no column of values.",
            where=found,
            expected=", ".join(frame.columns) if unknown else "numbers beside the column of time",
            got=unknown[0] if unknown else f"{time_name!r} only",
        )
    values = np.stack([_numbers(frame[name], name, found) for name in names])
    return _in_order(found, names, values, times, time_name)


def _read_csv(path: Path) -> Any:
    pandas = load_pandas()
    zipped = path.name.lower().endswith(".gz")
    try:
        opener: Any = gzip.open if zipped else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            head, first = file.readline(), file.readline()
        separator = max("\t;,", key=head.count)
        decimal = "," if separator == ";" and "," in first else "."
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row longer than the first would be cut
            return pandas.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                encoding="utf-8-sig",
                compression="gzip" if zipped else None,
                index_col=False,
                low_memory=False,  # else a long column may change its type half-way
            )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, pandas.errors.ParserWarning) as error:
        # pandas' own errors of parsing and of empty files are ValueErrors.
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError("The table can't be read.", where=path, got=got) from error


def _read_parquet(path: Path) -> Any:
    pandas = load_pandas()
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise DependencyError("Reading parquet needs pyarrow.", where=path, got=error, fix=_needs()) from error
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError("The table can't be read.", where=path, got=f"{type(error).__name__}: {error}") from error
    # An index without a name only numbers the rows, unless it is of times.
    kept = frame.index.name is not None or isinstance(frame.index, pandas.DatetimeIndex)
    return frame.reset_index() if kept else frame


def _time_of(frame: Any, wanted: str | None, path: Path) -> tuple[str, Any]:
    """The name of the column of time and its values; ("step", None) where there is none."""
    pandas = load_pandas()
    if wanted is not None and wanted not in frame.columns:
        raise DataError(
            f"The table has no column {wanted!r}.", where=path, expected=", ".join(frame.columns), got=wanted
        )
    for name in [wanted] if wanted is not None else frame.columns:
        stamps = _as_stamps(frame[name])
        if stamps is not None:
            return name, pandas.DatetimeIndex(stamps)
    for name in [wanted] if wanted is not None else frame.columns:
        column = frame[name]
        counts = pandas.api.types.is_integer_dtype(column) and len(set(column)) == len(column)
        if counts and (wanted is not None or name.lower() in _NUMBERED_TIME):
            return name, column.to_numpy()
    if wanted is not None:
        raise DataError(
            f"Column {wanted!r} holds no times.",
            where=path,
            expected="dates and times, or integers that all differ",
            got=f"values such as {frame[wanted].iloc[0]!r}",
        )
    return "step", None


def _as_stamps(column: Any) -> Any:
    """The column as time stamps where each of its values is one, else None. Numbers aren't."""
    pandas = load_pandas()
    types = pandas.api.types
    if types.is_datetime64_any_dtype(column):
        return None if column.isna().any() else column
    if types.is_numeric_dtype(column) or types.is_bool_dtype(column) or column.isna().any():
        return None
    for options in ({}, {"dayfirst": True}, {"format": "mixed"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas warns where the format isn't plain from the first value
            stamps = pandas.to_datetime(column, errors="coerce", **options)
        if types.is_datetime64_any_dtype(stamps) and not stamps.isna().any():
            return stamps
    return None


def _numbers(column: Any, name: str, path: Path) -> NDArray[np.float64]:
    """A column as float64, missing values as NaN."""
    pandas = load_pandas()
    if not pandas.api.types.is_numeric_dtype(column):
        numbers = pandas.to_numeric(column, errors="coerce")
        wrong = numbers.isna() & column.notna()
        if wrong.any() or pandas.api.types.is_datetime64_any_dtype(column):
            row = int(wrong.to_numpy().argmax())
            raise DataError(
                f"Column {name!r} holds text, so it is no variate.",
                where=f"{path}, row {row + 1} of values",
                expected="numbers, empty where one is missing",
                got=f"{column.iloc[row]!r}",
                fix="Name the variates to take: columns: [...].",
            )
        column = numbers
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise DataError(f"Column {name!r} holds an infinite value.", where=f"{path}, row {row + 1} of values")
    if np.isnan(values).all():
        raise DataError(
            f"Column {name!r} holds no value: all {len(values)} are missing.",
            where=path,
            fix="Leave it out: columns: [...] names the variates to take.",
        )
    return values  # type: ignore[no-any-return]


def _in_order(path: Path, names: tuple[str, ...], values: NDArray[np.float64], times: Any, time_name: str) -> Table:
    """The table sorted by time and, where rows are evenly spaced but for gaps, with the gaps filled with NaN."""
    if times is None:
        return Table(path, names, values, None, time_name)
    pandas = load_pandas()
    order = np.argsort(np.asarray(times), kind="stable")
    times, values = times[order], values[:, order]
    ticks = times.as_unit("ns").asi8 if isinstance(times, pandas.DatetimeIndex) else np.asarray(times)
    steps = np.diff(ticks)
    if (steps == 0).any():
        raise DataError(
            "Two rows have the same time.",
            where=f"{path}, column {time_name!r}",
            expected="one row per time step, all variates side by side",
            got=times[int((steps == 0).argmax())],
            fix="Turn a long table into a wide one, or remove the double row.",
        )
    # Calendar steps, such as months and business days, differ in length but are no gaps: pandas knows them.
    frequency, inserted = _frequency(times), 0
    usual = _step_with_gaps(ticks, steps) if frequency is None else None
    if usual is not None:
        places = (ticks - ticks[0]) // usual
        whole = np.full((len(names), int(places[-1]) + 1), np.nan)
        whole[:, places] = values
        inserted, values = whole.shape[1] - len(ticks), whole
        every = np.arange(whole.shape[1]) * usual
        stamped = isinstance(times, pandas.DatetimeIndex)
        times = times[0] + pandas.to_timedelta(every, unit="ns") if stamped else ticks[0] + every
        frequency = _frequency(times)
    return Table(path, names, values, times, time_name, frequency, inserted)


def _step_with_gaps(ticks: NDArray[np.int64], steps: NDArray[np.int64]) -> int | None:
    """The step between rows that are evenly spaced but for missing ones; None where they have none, or lack none."""
    kinds, counts = np.unique(steps, return_counts=True)
    usual = int(kinds[counts.argmax()])
    rows = (int(ticks[-1]) - int(ticks[0])) // usual
    return usual if len(kinds) > 1 and not (steps % usual).any() and rows < _MOST_GROWTH * len(ticks) else None


def _frequency(times: Any) -> str | None:
    """pandas' name of the step between time stamps, None where they are too few, uneven, or numbers."""
    pandas = load_pandas()
    if not isinstance(times, pandas.DatetimeIndex) or len(times) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3 announces that an offset will come instead of its name
        found = pandas.infer_freq(times)
    name: str | None = getattr(found, "freqstr", found)
    return name
