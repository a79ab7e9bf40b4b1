"""Tables of time series: one row per time step, one column per variate, read from CSV or parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel import Fact
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import check_memory, existing_path, memory_of_machine, open_regular, parsing, row_batches
from maskedmodel_timeseries.cells import load_pandas, read_csv
from maskedmodel_timeseries.columns import Roles, TableReading, id_column, roles_of
from maskedmodel_timeseries.spacing import frequency_of, with_gaps

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet",)
_TOO_LARGE = "Take fewer rows or columns: write the part that is wanted to a table of its own."
_LONG = 0.1  # share of rows whose time comes again, from which on a table is taken for a long one


@dataclass(frozen=True, eq=False)
class Table:
    """A table in the order of time.

    values     (V, T) float64, NaN where a value is missing.
    times      T time stamps (a pandas DatetimeIndex), T integers, T floats of a clock, or None where there is no time.
    time_name  what the column of time is called.
    frequency  the step between rows as pandas calls it, such as "h"; None where rows aren't evenly spaced.
    inserted   rows that the file lacks between others, put in as missing.
    series     which series of a long table it is; None where the table is one.
    told       what the file was taken for, and what was left out, converted or guessed.
    """

    path: Path
    names: tuple[str, ...]
    values: NDArray[np.float64]
    times: Any = None
    time_name: str = "time"
    frequency: str | None = None
    inserted: int = 0
    series: str | None = None
    told: tuple[Fact, ...] = ()

    @property
    def rows(self) -> int:
        return int(self.values.shape[1])

    @property
    def title(self) -> str:
        """The file's name, with the series of a long table."""
        return self.path.name if self.series is None else f"{self.path.name}/{self.series}"

    def after(self, count: int) -> list[str]:
        """The `count` times after the last row, as text: by the frequency, else by the usual step, else by number."""
        pandas = load_pandas()
        if self.times is None:
            return [str(self.rows + step) for step in range(count)]
        if not isinstance(self.times, pandas.DatetimeIndex):
            step = np.median(np.diff(self.times))
            if np.issubdtype(self.times.dtype, np.integer):
                return [str(int(self.times[-1]) + int(step) * (number + 1)) for number in range(count)]
            return [f"{self.times[-1] + step * (number + 1):.10g}" for number in range(count)]
        if self.frequency is not None:
            future = pandas.date_range(self.times[-1], periods=count + 1, freq=self.frequency)[1:]
        else:
            future = self.times[-1] + (np.arange(count) + 1) * pandas.Series(self.times).diff().median()
        return self.stamps(pandas.DatetimeIndex(future))

    def stamps(self, times: Any) -> list[str]:
        """Time stamps as text: days where all of the table's are days, else to the second or finer."""
        days = bool((self.times == self.times.normalize()).all())
        return [str(time.date()) if days and time == time.normalize() else str(time) for time in times]

    def time(self, row: int) -> str:
        """The time of a row as text; its number where there is no time."""
        if self.times is None:
            return f"row {row % self.rows}"
        stamped = isinstance(self.times, load_pandas().DatetimeIndex)
        return self.stamps(self.times[[row]])[0] if stamped else f"{self.times[row]:.10g}"


def read_table(path: str | Path, how: TableReading | None = None) -> Table:
    """The one series in a .csv, .tsv (also .gz) or .parquet file.

    Raises what `read_tables` does, and DataError where the table holds several series.
    """
    return the_only(read_tables(path, how or TableReading()))


def the_only(tables: Sequence[Table]) -> Table:
    """The series of a table that holds one. Raises DataError where there are more."""
    if len(tables) > 1:
        raise DataError(
            f"The table holds {len(tables):,} series, where one is needed.",
            where=tables[0].path,
            expected="a table for each series; a run's own data may be a long table",
            got=f"series {', '.join(str(table.series) for table in tables[:3])} and so on",
        )
    return tables[0]


def read_tables(path: str | Path, how: TableReading) -> list[Table]:
    """The series in a .csv, .tsv (also .gz) or .parquet file: one, or as many as column `how.series` tells apart.

    Rows are put in the order of time; rows missing between evenly spaced ones are put in as NaN. Rows without a time
    and rows that occur twice are left out. All of it is told in `Table.told`, of which the first table has that of the
    whole file.

    Raises DataError that names the column on what can't be decided and the setting that decides it, on text, on two
    rows of one time, on infinite values, on a variate without any value, and where there are fewer than two rows.
    """
    found = existing_path(str(path), "table")
    frame, unnamed, told = _frame(found, how)
    if len(frame) < 2:
        raise DataError(
            "A time series needs two rows at least.",
            where=found,
            expected="a row of column names, and 2 rows of values or more",
            got=f"{len(frame)} row{'s' if len(frame) != 1 else ''} of values",
        )
    roles = roles_of(frame, how, found, unnamed)
    told += roles.told
    _refuse_long(frame, roles, found)
    values = np.stack([_numbers(frame[name], name, found) for name in roles.variates])
    times = roles.stamps.times if roles.stamps is not None else None
    kept = _kept(frame, roles, times, told, found)
    tables = []
    for name, rows in _series(roles, kept):
        own = times[rows] if times is not None else None
        tables.append(_in_order(found, roles, values[:, rows], own, name))
    told += _told_of(tables)
    tables[0] = replace(tables[0], told=(*told, *tables[0].told))
    return tables


def _frame(path: Path, how: TableReading) -> tuple[Any, Sequence[str], list[Fact]]:
    """The table as a pandas frame, which of its columns have no name in the file, and what is to be told."""
    name = path.name.lower()
    if name.endswith(CSV_SUFFIXES):
        frame, dialect, told = read_csv(path, how.separator, how.decimal)
        mark = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.get(dialect.separator, dialect.separator)
        shape = f"{len(frame):,} rows and {frame.shape[1]} columns, separated by {mark}"
        return frame, dialect.unnamed, [Fact("table", f"{path.name}: {shape}"), *told]
    if name.endswith(PARQUET_SUFFIXES):
        frame, told = _read_parquet(path)
        frame.columns = [str(name) for name in frame.columns]
        return frame, (), [Fact("table", f"{path.name}: {len(frame):,} rows and {frame.shape[1]} columns"), *told]
    raise DataError(
        "The table is of an unknown kind.",
        where=path,
        expected=", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES)),
        got=path.suffix or "no suffix",
    )


def _read_parquet(path: Path) -> tuple[Any, list[Fact]]:
    pandas = load_pandas()
    try:
        from pyarrow import ArrowException, Table, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        fix = install_hint(extra="timeseries")
        raise DependencyError("Reading parquet needs pyarrow.", where=path, got=error, fix=fix) from error
    with parsing("The table can't be read.", path, expected="a parquet file", also=(ArrowException,)):
        with open_regular(path) as opened:
            file = parquet.ParquetFile(opened)
            check_memory(8 * file.metadata.num_rows * file.metadata.num_columns, path, _TOO_LARGE, share=0.5)
            most = memory_of_machine() or 1 << 40
            batches = list(row_batches(file, most // 2, path, _TOO_LARGE))
        frame = Table.from_batches(batches, file.schema_arrow).to_pandas()
    # An index without a name only numbers the rows, unless it is of times.
    if frame.index.name is not None or isinstance(frame.index, pandas.DatetimeIndex):
        return frame.reset_index(), []
    numbered = isinstance(frame.index, pandas.RangeIndex)
    return frame, [] if numbered else [Fact("table", "an index without a name is left out", notice=True)]


def _numbers(column: Any, name: str, path: Path) -> NDArray[np.float64]:
    """A column as float64, missing values as NaN."""
    pandas = load_pandas()
    types = pandas.api.types
    if not types.is_numeric_dtype(column):
        decimals = len(column) and column.map(lambda cell: cell is None or type(cell).__name__ == "Decimal").all()
        numbers = pandas.to_numeric(column.astype(float) if decimals else column, errors="coerce")
        wrong = numbers.isna() & column.notna()
        if wrong.any() or types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
            row = int(wrong.to_numpy().argmax())
            raise DataError(
                f"Column {name!r} holds text, so it is no variate.",
                where=f"{path}, row {row + 1} of values",
                expected="numbers, empty where one is missing",
                got=f"{column.iloc[row]!r}",
                fix="Name the variates to take: columns: [...]. Or, of a long table, what tells its series apart: "
                "series: NAME. A column of times that weren't recognised: time and time_format.",
            )
        column = numbers
    if types.is_complex_dtype(column):
        raise DataError(f"Column {name!r} holds complex numbers.", where=path, expected="real numbers")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"Column {name!r} holds an infinite value, in {int(infinite.sum()):,} of {len(values):,} rows.",
            where=f"{path}, row {int(infinite.argmax()) + 1} of values",
            expected="finite numbers, empty where one is missing",
        )
    if np.isnan(values).all():
        raise DataError(
            f"Column {name!r} holds no value: all {len(values)} are missing.",
            where=path,
            fix="Leave it out: columns: [...] names the variates to take.",
        )
    return values  # type: ignore[no-any-return]


def _kept(frame: Any, roles: Roles, times: Any, told: list[Fact], path: Path) -> NDArray[np.int64]:
    """Numbers of the rows that are taken: those that have a time and a series, and of equal ones the first."""
    pandas = load_pandas()
    kept = np.ones(len(frame), dtype=bool)
    for about, column in (("time", times), ("series", roles.series)):
        absent = np.zeros(len(frame), dtype=bool) if column is None else np.asarray(pandas.isna(column))
        if absent.any():
            told.append(Fact(about, f"{int((absent & kept).sum()):,} rows without a {about} are left out", notice=True))
            kept &= ~absent
    if times is not None:
        every = {name: frame[name].to_numpy() for name in roles.variates} | {"__time": np.asarray(times)}
        if roles.series is not None:
            every["__series"] = roles.series.to_numpy()
        again = pandas.DataFrame(every).duplicated().to_numpy() & kept
        if again.any():
            told.append(Fact("time", f"{int(again.sum()):,} rows that occur twice are taken once", notice=True))
            kept &= ~again
    if kept.sum() < 2:
        raise DataError("A time series needs two rows at least.", where=path, got=f"{int(kept.sum())} with a time")
    return np.flatnonzero(kept)


def _series(roles: Roles, kept: NDArray[np.int64]) -> list[tuple[str | None, NDArray[np.int64]]]:
    """Name and rows of each series, in the order in which they begin."""
    if roles.series is None:
        return [(None, kept)]
    codes, names = load_pandas().factorize(roles.series.iloc[kept])
    order = np.argsort(codes, kind="stable")
    cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
    return [(str(name), kept[rows]) for name, rows in zip(names, np.split(order, cuts), strict=True)]


def _in_order(path: Path, roles: Roles, values: NDArray[np.float64], times: Any, name: str | None) -> Table:
    """A series sorted by time and, where rows are evenly spaced but for gaps, with the gaps filled with NaN."""
    if times is None:
        return Table(path, roles.variates, values, None, roles.time_name, series=name)
    pandas = load_pandas()
    order = np.argsort(np.asarray(times), kind="stable")
    told = []
    if (np.diff(order) < 0).any():
        told.append(Fact("time", "rows that weren't in the order of time are sorted", notice=True))
    times, values = times[order], values[:, order]
    same = np.asarray(times[1:] == times[:-1])
    if same.any():
        raise _twice(path, roles, times[:-1][same][0], int(same.sum()), name)
    times, values, inserted, even = with_gaps(times, values)
    frequency = frequency_of(times)
    if inserted:
        told.append(
            Fact("gaps", f"{inserted:,} rows are missing between others; put in as missing values", notice=True)
        )
    if not even and frequency is None and len(times) > 2:
        steps = pandas.Series(times).diff().dropna()
        told.append(
            Fact("time", f"rows aren't evenly spaced ({steps.min()} to {steps.max()}): each is one step", notice=True)
        )
    return Table(path, roles.variates, values, times, roles.time_name, frequency, inserted, name, tuple(told))


def _refuse_long(frame: Any, roles: Roles, path: Path) -> None:
    """Raises DataError where a table without `series` has many rows of one time that another column tells apart."""
    if roles.stamps is None or roles.series is not None:
        return
    again = load_pandas().Series(np.asarray(roles.stamps.times)).duplicated()
    if again.sum() < _LONG * len(frame):
        return
    apart = id_column(frame, roles.stamps.times, [name for name in frame.columns if name != roles.time_name])
    if apart is not None:
        raise DataError(
            f"The table is a long one: column {apart!r} tells apart the rows that have the same time.",
            where=f"{path}, column {roles.time_name!r}",
            expected="one row per time step, or the column that tells series apart",
            got=f"{roles.stamps.times[int(again.to_numpy().argmax())]} in several rows",
            fix=f"Read each as a series of its own: data.series={apart}.",
        )


def _twice(path: Path, roles: Roles, time: Any, count: int, name: str | None) -> DataError:
    return DataError(
        f"Two rows have the same time and different values: {count:,} such rows.",
        where=f"{path}, column {roles.time_name!r}" + (f", series {name!r}" if name is not None else ""),
        expected="one row per time step, all variates side by side",
        got=time,
        fix="Turn a long table into a wide one or name what tells its series apart (data.series), remove double rows, "
        "and write local times of an hour that comes twice with their offsets.",
    )


def _still(values: NDArray[np.float64]) -> bool:
    there = values[~np.isnan(values)]
    return not len(there) or bool(there.min() == there.max())


def _told_of(tables: Sequence[Table]) -> list[Fact]:
    """Series, span, missing and constant values over all series."""
    told = []
    if len(tables) > 1 or tables[0].series is not None:
        lengths = sorted(table.rows for table in tables)
        told.append(Fact("series", f"{len(tables):,} series of {lengths[0]:,} to {lengths[-1]:,} rows"))
        again = [fact for table in tables[1:] for fact in table.told]
        for about in dict.fromkeys(fact.about for fact in again):
            texts = [fact.text for fact in again if fact.about == about]
            told.append(Fact(about, f"in {len(texts):,} more series as in the first: {texts[0]}", notice=True))
    first = tables[0]
    if first.times is not None:
        step = f", steps of {first.frequency}" if first.frequency is not None else ""
        told.append(Fact("time", f"from {first.time(0)} to {first.time(-1)}{step}"))
    names, shown = first.names, 5
    told.append(
        Fact("variates", f"{len(names)}: {', '.join(names[:shown])}{' and more' if len(names) > shown else ''}")
    )
    missing = sum(int(np.isnan(table.values).sum()) for table in tables)
    if missing:
        total = sum(table.values.size for table in tables)
        told.append(Fact("values", f"{missing:,} of {total:,} values are missing", notice=True))
    still = [name for row, name in enumerate(names) if all(_still(table.values[row]) for table in tables)]
    if still:
        told.append(
            Fact("values", f"constant: {', '.join(still[:shown])}{' and more' if len(still) > shown else ''}", True)
        )
    return told
