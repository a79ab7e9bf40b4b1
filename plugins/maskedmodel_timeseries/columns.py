"""Which columns of a table are its time, which tell series apart, which are no signal, and which are variates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel_timeseries.cells import Mark, load_pandas
from maskedmodel_timeseries.numbered import counted_times, digit_dates, given_format
from maskedmodel_timeseries.times import Stamps
from maskedmodel_timeseries.written import clock_times, written_times

# Names of columns of numbers that are taken for times. Columns of dates are found by what they hold.
_TIMES = frozenset(
    ("time", "timestamp", "date", "datetime", "date_time", "ds", "step", "index", "t", "epoch", "unix", "unixtime")
) | {"unix_time", "elapsed", "seconds", "second", "sec", "year", "yyyymm", "yyyymmdd"}
_UNITS = ("(s)", "[s]", "(sec)", "(ms)", "[ms]", "(us)", "(ns)", "_s", "_ms", "_us", "_ns", "_sec", "_seconds")
_PARTS = (("year", "yr"), ("month", "mon"), ("day", "mday"), ("hour", "hr"), ("minute", "min"), ("second", "sec"))
_TELLING = 10  # rows of valid dates in numbers, from which on a column of any name is one of times
_CLOCKS = ("time", "hour", "hr", "clock", "timeofday", "time_of_day")
_IDS = ("id", "unique_id", "item_id", "series", "series_id", "entity", "name", "symbol", "station", "sensor")


@dataclass(frozen=True)
class TableReading:
    """How a table of time series is to be read.

    time         column of time; None: found.
    columns      variates to take, in this order; None: all that are left.
    time_format  strptime codes, or unix, unix_ms, unix_us, unix_ns, excel or count; None: found.
    dayfirst     whether 01/02/2020 is in February; None: refused unless a cell tells.
    series       column that tells the series of a long table apart; None: all rows are of one.
    decimal      decimal mark of a CSV file; None: found.
    separator    what separates its cells; None: found.
    """

    time: str | None = None
    columns: Sequence[str] | None = None
    time_format: str | None = None
    dayfirst: bool | None = None
    series: str | None = None
    decimal: Mark | None = None
    separator: str | None = None


@dataclass(frozen=True, eq=False)
class Roles:
    """What the columns of a table are. `stamps` is None where there is no time; `series` where there is one series."""

    stamps: Stamps | None
    time_name: str
    variates: tuple[str, ...]
    series: Any
    told: tuple[Fact, ...]


def roles_of(frame: Any, how: TableReading, where: object, unnamed: Sequence[str]) -> Roles:
    """The roles of a table's columns. `unnamed` are those without a name in the file."""
    for name in (how.time, how.series, *(how.columns or ())):
        if name is not None and name not in frame.columns:
            raise DataError(
                f"The table has no column {name!r}.", where=where, expected=", ".join(frame.columns), got=name
            )
    told: list[Fact] = []
    left_out = _row_numbers(frame, how, unnamed, told)
    free = [name for name in frame.columns if name not in left_out and name != how.series]
    if how.columns is not None:
        free = [name for name in free if name not in how.columns or name == how.time]
    ids = frame[how.series] if how.series is not None else None
    time_name, stamps, used = _time(frame, how, free, ids, where)
    if stamps is not None:
        told.append(
            Fact("time", f"column{'s' if len(used) > 1 else ''} {', '.join(used)}: {stamps.form}", stamps.guess)
        )
    taken = {*used, *left_out, how.series}
    variates = tuple(how.columns) if how.columns is not None else tuple(n for n in frame.columns if n not in taken)
    if not variates:
        raise DataError(
            "The table has no column of values.",
            where=where,
            expected="numbers beside the column of time",
            got=", ".join(frame.columns),
        )
    if how.columns is None:
        told += _doubtful(frame, variates)
    else:
        others = [name for name in frame.columns if name not in {*variates, *used, how.series}]
        if others:
            told.append(Fact("variates", f"columns that weren't asked for are left out: {_some(others)}"))
    return Roles(stamps, time_name, variates, ids, tuple(told))


def _row_numbers(frame: Any, how: TableReading, unnamed: Sequence[str], told: list[Fact]) -> list[str]:
    """Columns without a name that number the rows or are empty, which are left out."""
    asked = {how.time, how.series, *(how.columns or ())}
    found = []
    for name in frame.columns:
        if name in asked or not (name in unnamed or name.startswith("Unnamed: ")):
            continue
        if frame[name].isna().all():
            told.append(Fact("variates", f"{name!r} has no name and no value: left out", True))
            found.append(name)
        elif _counts(frame[name]):
            told.append(Fact("variates", f"{name!r} has no name and numbers the rows: left out", True))
            found.append(name)
        elif load_pandas().api.types.is_numeric_dtype(frame[name]):
            told.append(Fact("variates", f"a column without a name is called {name!r}", True))
    return found


def _counts(column: Any) -> bool:
    """Whether it counts up by one from row to row."""
    if not load_pandas().api.types.is_integer_dtype(column) or column.isna().any():
        return False
    return bool((np.diff(column.to_numpy(dtype=np.int64)) == 1).all())


def _doubtful(frame: Any, variates: Sequence[str]) -> list[Fact]:
    """Variates that look like something else than a signal, told with the way to leave them out."""
    counting = [name for name in variates if len(frame) > 8 and _counts(frame[name])]
    parts = [name for name in variates if any(_plain(name) in names for names in _PARTS)]
    told = []
    if counting:
        text = f"{_some(counting)} counts the rows and is taken as a variate; data.columns=[...] leaves it out"
        told.append(Fact("variates", text, True))
    if parts:
        text = f"{_some(parts)} may be parts of the time and are taken as variates; data.columns=[...] leaves them out"
        told.append(Fact("variates", text, True))
    return told


def _time(
    frame: Any, how: TableReading, free: Sequence[str], ids: Any, where: object
) -> tuple[str, Stamps | None, list[str]]:
    """Name and times of the column of time, and the columns that it is made of; ("step", None, []) without one."""
    if how.time is not None:
        found = _named_time(frame[how.time], how, f"{where}, column {how.time!r}")
        return _with_clock(frame, how.time, found, free, ids)
    if how.time_format is not None:
        likely = [name for name in free if _timely(name)] or list(free[:1])
        return _time(frame, replace(how, time=likely[0]), free, ids, where) if likely else ("step", None, [])
    for name in free:
        stamps = written_times(frame[name], how.dayfirst, f"{where}, column {name!r}")
        if stamps is not None:
            return _with_clock(frame, name, stamps, free, ids)
    assembled = _assembled(frame, free)
    if assembled is not None:
        return assembled
    types = load_pandas().api.types
    for name in free:
        column = frame[name]
        if types.is_timedelta64_dtype(column):
            return name, Stamps(column.dt.total_seconds().to_numpy(), "a duration in seconds"), [name]
        if not types.is_numeric_dtype(column) or types.is_bool_dtype(column) or not _timely(name):
            continue
        if _unlike_time(frame, name, how, ids):
            continue
        stamps = counted_times(column, name, f"{where}, column {name!r}")
        if stamps is not None:
            return name, stamps, [name]
    for name in free:  # whatever its name: numbers that are no dates aren't valid ones row for row
        column = frame[name]
        if types.is_integer_dtype(column) and len(frame) >= _TELLING and not _unlike_time(frame, name, how, ids):
            dates = digit_dates(column)
            if dates is not None:
                return name, dates, [name]
    return "step", None, []


def _unlike_time(frame: Any, name: str, how: TableReading, ids: Any) -> bool:
    """Whether numbers repeat as times don't, unless another column tells apart the rows that share one."""
    if not _repeats(frame[name], ids):
        return False
    return ids is not None or id_column(frame, frame[name], [c for c in frame.columns if c != name]) is None


def _repeats(times: Any, ids: Any) -> bool:
    pandas = load_pandas()
    keys = {"time": times} if ids is None else {"time": times, "id": ids}
    return bool(pandas.DataFrame(keys).dropna(subset=["time"]).duplicated().any())


def id_column(frame: Any, times: Any, names: Sequence[str]) -> str | None:
    """The column whose values tell apart all rows that have one time, as a long table has it; None without one."""
    pandas = load_pandas()
    types = pandas.api.types
    likely = [name for name in names if _plain(name) in _IDS]
    likely += [n for n in names if n not in likely and not types.is_numeric_dtype(frame[n])]
    likely += [n for n in names if n not in likely and types.is_integer_dtype(frame[n])]
    for name in likely:
        kinds = frame[name].nunique()
        if 1 < kinds <= len(frame) / 2 and not _repeats(
            pandas.Series(np.asarray(times)), frame[name].reset_index(drop=True)
        ):
            return name
    return None


def _named_time(column: Any, how: TableReading, where: str) -> Stamps:
    if how.time_format is not None:
        return given_format(column, how.time_format, where)
    stamps = written_times(column, how.dayfirst, where)
    types = load_pandas().api.types
    if stamps is None and types.is_timedelta64_dtype(column):
        stamps = Stamps(column.dt.total_seconds().to_numpy(), "a duration in seconds")
    if stamps is None and types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        stamps = counted_times(column, str(column.name), where)
    if stamps is None:
        raise DataError(
            f"Column {column.name!r} holds no times.",
            where=where,
            expected="dates and times, or numbers",
            got=f"values such as {column.iloc[0]!r}",
            fix="Say how they are written: data.time_format=%d.%m.%Y and the like (--time-format for a forecast).",
        )
    return stamps


def _with_clock(frame: Any, name: str, stamps: Stamps, free: Sequence[str], ids: Any) -> tuple[str, Stamps, list[str]]:
    """Days that repeat, together with a column of the time of day where there is one."""
    pandas = load_pandas()
    if not isinstance(stamps.times, pandas.DatetimeIndex) or not _repeats(pandas.Series(stamps.times), _fresh(ids)):
        return name, stamps, [name]
    if not bool((stamps.times == stamps.times.normalize())[~stamps.times.isna()].all()):
        return name, stamps, [name]
    for other in free:
        if other != name and _plain(other) in _CLOCKS:
            seconds = clock_times(frame[other])
            if seconds is not None:
                times = stamps.times + pandas.to_timedelta(np.round(seconds * 1e6).astype(np.int64), unit="us")
                return name, Stamps(times, f"{stamps.form}, with the time of day of {other!r}", True), [name, other]
    return name, stamps, [name]


def _fresh(ids: Any) -> Any:
    return None if ids is None else ids.reset_index(drop=True)


def _assembled(frame: Any, free: Sequence[str]) -> tuple[str, Stamps, list[str]] | None:
    """Times out of columns of years, months, days and so on; None where there are no months, or one isn't whole."""
    pandas = load_pandas()
    columns: list[str] = []
    for names in _PARTS:
        own = [name for name in free if _plain(name) in names]
        if len(own) != 1 or not pandas.api.types.is_integer_dtype(frame[own[0]]):
            break
        columns += own
    if len(columns) < 2:
        return None
    words = ("year", "month", "day", "hour", "minute", "second")
    parts = {word: frame[name] for word, name in zip(words, columns, strict=False)}
    parts.setdefault("day", pandas.Series(1, index=frame.index))
    year = parts["year"]
    if not bool(((year >= 1800) & (year <= 2200)).all()):
        return None
    hours = parts.pop("hour", pandas.Series(0, index=frame.index))  # from 0 to 24
    times = pandas.to_datetime(pandas.DataFrame(parts), errors="coerce")
    if times.isna().any() or not bool(((hours >= 0) & (hours <= 24)).all()):
        return None
    index = pandas.DatetimeIndex(times).as_unit("ns") + pandas.to_timedelta(hours.to_numpy(), unit="h")
    return "time", Stamps(index, "put together to a time", True), columns


def _timely(name: str) -> bool:
    plain = _plain(name)
    for unit in _UNITS:
        plain = plain.removesuffix(unit)
    return plain in _TIMES


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
