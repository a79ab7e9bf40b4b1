"""Times that are written out: one form for a whole column, and never a guess between two that both fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import DataError
from maskedmodel_timeseries.cells import load_pandas
from maskedmodel_timeseries.times import Stamps, naive, odd_cell, text_of

_MOSTLY = 0.9  # share of a column's cells from which on it is one of times, and the others are faults
_CLOCK = (
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
_OFFSET = r"(?P<offset>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_REST = rf"(?:(?:[T,]\s*|\s+){_CLOCK}\s*{_OFFSET}?)?"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBERS = re.compile(rf"(?P<a>\d{{4}}|\d{{1,2}})(?P<by>[-/.])(?P<b>\d{{1,2}})(?P=by)(?P<c>\d{{4}}|\d{{1,2}}){_REST}")
_NAMED = re.compile(
    rf"(?:(?P<a>\d{{1,2}})[- ./]?\s*(?P<b>[A-Za-z]{{3,9}})\.?|(?P<B>[A-Za-z]{{3,9}})\.?\s*(?P<A>\d{{1,2}}))"
    rf"[- ./,]\s*(?P<c>\d{{4}}|\d{{2}}){_REST}"
)
_COMPACT = re.compile(rf"(?P<a>\d{{4}})(?P<b>\d{{2}})(?P<c>\d{{2}}){_REST}")
_MONTHLY = re.compile(r"(?P<c>\d{4})[-/.](?P<b>\d{1,2})|(?P<B>\d{1,2})[-/.](?P<C>\d{4})")


def written_times(column: Any, dayfirst: bool | None, where: str) -> Stamps | None:
    """A column of text or of time stamps as times; None where it holds something else.

    The date has one form over all cells; the time of day may be left out, as some programs do at midnight. Raises
    DataError where day and month could be exchanged and `dayfirst` doesn't say, and on single cells that don't fit.
    """
    pandas = load_pandas()
    types = pandas.api.types
    if types.is_datetime64_any_dtype(column):
        zone = getattr(column.dt, "tz", None)
        return Stamps(
            naive(column), "times of the file" if zone is None else f"read as UTC, from {zone}", zone is not None
        )
    if types.is_numeric_dtype(column) or types.is_bool_dtype(column) or types.is_timedelta64_dtype(column):
        return None
    text = text_of(column)
    there = text.notna().to_numpy()
    first = text.dropna()
    if not len(first) or not re.search(r"\d", str(first.iloc[0])):
        return None
    for read in (_iso, _compact, _numeric, _named, _monthly):
        found = read(text, there, dayfirst, where)
        if found is not None:
            return found
    return None


def clock_times(column: Any) -> NDArray[np.float64] | None:
    """Times of day, "13:05" or whole hours from 0 to 24, in seconds; None where the column holds something else."""
    pandas = load_pandas()
    if pandas.api.types.is_numeric_dtype(column) and not pandas.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        fits = (values == np.floor(values)) & (values >= 0) & (values <= 24)
        return values * 3600 if bool(fits.all()) else None
    text = text_of(column)
    if text.isna().any():
        return None
    parts = text.str.extract(re.compile(rf"^{_CLOCK}$"))
    return None if parts["hour"].isna().any() else _seconds(parts)


def _iso(text: Any, there: NDArray[np.bool_], dayfirst: bool | None, where: str) -> Stamps | None:
    """Year, month, day as ISO 8601 has them, with or without a time of day and an offset."""
    pandas = load_pandas()
    fits = (
        text.str.match(r"^\d{4}-\d{2}-\d{2}(?![-\d])(?!.*[AaPp]\.?[Mm])|^\d{8}T").fillna(False).astype(bool).to_numpy()
    )
    if fits.sum() < _MOSTLY * max(there.sum(), 1):
        return None
    offset = text.str.contains(r"(?:\d[Tt ].*[+-]\d{2}(?::?\d{2})?|[Zz]|UTC)$").fillna(False).astype(bool).to_numpy()
    read = pandas.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    wrong = read.isna().to_numpy() & there
    if wrong.any():
        raise odd_cell(text, wrong, where, "times as in the other cells, such as 2020-01-31 13:00:00")
    _alike(offset, there, text, where)
    return Stamps(naive(read), "read as UTC, by its offsets" if offset.any() else "year-month-day", bool(offset.any()))


def _alike(offset: NDArray[np.bool_], there: NDArray[np.bool_], text: Any, where: str) -> None:
    if offset.any() and not offset[there].all():
        raise DataError(
            "Some times have an offset from UTC, others have none.",
            where=where,
            expected="offsets in all cells, or in none",
            got=f"{text[offset].iloc[0]} and {text[there & ~offset].iloc[0]}",
        )


def _compact(text: Any, there: NDArray[np.bool_], dayfirst: bool | None, where: str) -> Stamps | None:
    """Year, month and day without a mark between, with or without a time of day: 20200131 13:00."""
    parts = text.str.extract(re.compile(f"^{_COMPACT.pattern}$"))
    if (found := _mostly(parts["a"].notna().to_numpy(), there, text, where)) is None:
        return None
    year, month, day = (_ints(parts[name], found) for name in "abc")
    days = _days(year, month, day, found)
    if days is None:
        raise odd_cell(text, found & ~_valid(year, month, day), where, "days that are in the calendar")
    return _with_clock(days, parts, found, there, text, where, "yearmonthday")


def _numeric(text: Any, there: NDArray[np.bool_], dayfirst: bool | None, where: str) -> Stamps | None:
    """Three numbers with one mark between them, in the one order that gives a date in every cell."""
    parts = text.str.extract(re.compile(f"^{_NUMBERS.pattern}$"))
    if (found := _mostly(parts["a"].notna().to_numpy(), there, text, where)) is None:
        return None
    a, b, c = (_ints(parts[name], found) for name in "abc")
    long_first, long_last = ((parts[name].str.len() == 4).to_numpy() for name in "ac")
    for long in (long_first, long_last):
        if long.any() and not long[found].all():  # a year of four digits in some cells, of two in others
            raise odd_cell(text, found & ~long, where, f"years as in the other cells, such as {text[long].iloc[0]}")
    orders: dict[str, tuple[Any, Any, Any]] = {}
    if long_first.any():
        orders = {"year-month-day": (a, b, c)}
    else:
        orders = {"day-month-year": (c, b, a), "month-day-year": (c, a, b)}
        if not long_last.any():
            orders["year-month-day"] = (a, b, c)
    if dayfirst is not None and not long_first.any():
        orders = (
            {"day-month-year": orders["day-month-year"]} if dayfirst else {"month-day-year": orders["month-day-year"]}
        )
    fitting = {name: days for name, numbers in orders.items() if (days := _days(*numbers, found)) is not None}
    if not fitting:
        name, numbers = next(iter(orders.items()))
        wrong = found & ~_valid(*numbers)
        raise odd_cell(text, wrong, where, f"one order of day, month and year in all cells, such as {name}")
    forms = list(fitting)
    differing = np.zeros(len(text), dtype=bool)
    for other in forms[1:]:
        differing |= fitting[other] != fitting[forms[0]]
    if (differing & found).any():
        row = int((differing & found).argmax())
        raise DataError(
            "Whether day or month stands first can't be told: all cells are dates either way.",
            where=where,
            expected="one cell at least that is a date one way only",
            got=f"{text.iloc[row]!r}, which may be {' or '.join(str(fitting[form][row]) for form in forms)}",
            fix="Say which: data.dayfirst=true or data.dayfirst=false, or data.time_format=%d/%m/%y and the like "
            "(--dayfirst, --monthfirst, --time-format for a forecast).",
        )
    told = "" if dayfirst is None else ", as set"
    return _with_clock(fitting[forms[0]], parts, found, there, text, where, forms[0] + told)


def _named(text: Any, there: NDArray[np.bool_], dayfirst: bool | None, where: str) -> Stamps | None:
    """Dates with the English name of a month, full or of three letters."""
    parts = text.str.extract(re.compile(f"^{_NAMED.pattern}$"))
    month = parts["b"].fillna(parts["B"]).str.lower().str[:3].map({name: n + 1 for n, name in enumerate(_MONTHS)})
    if (found := _mostly(month.notna().to_numpy(), there, text, where)) is None:
        return None
    day, year = _ints(parts["a"].fillna(parts["A"]), found), _ints(parts["c"], found)
    numbers = month.fillna(1).to_numpy().astype(np.int64)
    days = _days(year, numbers, day, found)
    if days is None:
        raise odd_cell(text, found & ~_valid(year, numbers, day), where, "days that are in the calendar")
    return _with_clock(days, parts, found, there, text, where, "day, name of the month, year")


def _monthly(text: Any, there: NDArray[np.bool_], dayfirst: bool | None, where: str) -> Stamps | None:
    """Months: 2020-01, 01/2020."""
    parts = text.str.extract(re.compile(f"^(?:{_MONTHLY.pattern})$"))
    year, month = parts["c"].fillna(parts["C"]), parts["b"].fillna(parts["B"])
    if (found := _mostly(year.notna().to_numpy(), there, text, where)) is None:
        return None
    years, months = _ints(year, found), _ints(month, found)
    days = _days(years, months, np.ones_like(years), found)
    if days is None:
        return None  # such as numbers with a decimal point
    return _with_clock(days, None, found, there, text, where, "months")


def _mostly(fits: NDArray[np.bool_], there: NDArray[np.bool_], text: Any, where: str) -> NDArray[np.bool_] | None:
    """Which cells fit, where nearly all do. Raises DataError where some of them don't."""
    if fits.sum() < _MOSTLY * max(there.sum(), 1):
        return None
    wrong = there & ~fits
    if wrong.any():
        raise odd_cell(text, wrong, where, f"times as in the other cells, such as {text[fits].iloc[0]}")
    return fits


def _ints(column: Any, found: NDArray[np.bool_]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.where(found, "1").fillna("1").astype(np.int64).to_numpy()
    return numbers


def _valid(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.bool_]:
    months = np.clip(month, 1, 12)
    start = _month(year, months)
    length = ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64)
    valid: NDArray[np.bool_] = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= length)
    return valid


def _month(year: NDArray[np.int64], month: NDArray[np.int64]) -> Any:
    return ((year - 1970) * 12 + month - 1).astype("datetime64[M]")


def _days(year: Any, month: Any, day: Any, found: NDArray[np.bool_]) -> Any:
    """Dates (T,) datetime64[D]; None where a cell isn't in the calendar. Two digits are years from 1970 to 2069."""
    year = np.where(year < 100, np.where(year < 70, year + 2000, year + 1900), year)
    if not _valid(year, month, day)[found].all():
        return None
    days = _month(year, np.clip(month, 1, 12)).astype("datetime64[D]") + (np.clip(day, 1, 31) - 1)
    return np.where(found, days, np.datetime64("NaT", "D"))


def _with_clock(
    days: Any, parts: Any, found: NDArray[np.bool_], there: NDArray[np.bool_], text: Any, where: str, form: str
) -> Stamps:
    pandas = load_pandas()
    times = days.astype("datetime64[us]")
    if parts is None or parts["hour"].isna().all():
        return Stamps(naive(times), form)
    seconds = _seconds(parts)
    if np.isnan(seconds[found]).any():
        raise odd_cell(text, found & np.isnan(seconds), where, "times of a day of 24 hours")
    times = times + np.round(np.nan_to_num(seconds) * 1e6).astype("timedelta64[us]")
    offset = parts["offset"].notna().to_numpy()
    _alike(offset, there & parts["hour"].notna().to_numpy(), text, where)
    if not offset.any():
        return Stamps(naive(times), form)
    shift = parts["offset"].map(_minutes, na_action="ignore").fillna(0).to_numpy().astype(np.int64)
    return Stamps(
        naive(pandas.DatetimeIndex(times - shift.astype("timedelta64[m]"))),
        f"{form}, read as UTC by its offsets",
        True,
    )


def _minutes(offset: str) -> int:
    if offset[0] not in "+-":
        return 0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return (1 if offset[0] == "+" else -1) * (int(digits[:2]) * 60 + int(digits[2:]))


def _seconds(parts: Any) -> NDArray[np.float64]:
    """Seconds of the day, 0 where none is written, NaN where there is no such time. 24:00 is the end of a day."""
    number: Callable[[str], Any] = lambda name: parts[name].fillna("0").astype(np.float64).to_numpy()  # noqa: E731
    hour, minute, second = number("hour"), number("minute"), number("second")
    part = ("0." + parts["part"].fillna("0")).astype(np.float64).to_numpy()
    half = parts["half"].fillna("").str.lower().str[:1].to_numpy()
    halved = half != ""
    wrong = (minute > 59) | (second > 60) | (hour > 24) | (halved & ((hour < 1) | (hour > 12)))
    hour = np.where(halved, hour % 12 + 12 * (half == "p"), hour)
    total = hour * 3600 + minute * 60 + second + part
    wrong |= total > 86400
    return np.where(wrong, np.nan, total)
