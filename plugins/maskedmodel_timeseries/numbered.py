"""Times in numbers, and times of a form that the user names."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import ConfigError, DataError
from maskedmodel_timeseries.cells import load_pandas
from maskedmodel_timeseries.times import Stamps, naive, odd_cell, text_of

COUNTED = ("unix", "unix_ms", "unix_us", "unix_ns", "excel", "count")
_UNITS = {"unix": "s", "unix_ms": "ms", "unix_us": "us", "unix_ns": "ns"}
# Between 1973 and 2103, what Unix time counts in each unit.
_RANGES = {name: (1e8 * 10**power, 4.2e9 * 10**power) for name, power in zip(_UNITS, (0, 3, 6, 9), strict=True)}
_EXCEL = (20_000, 80_000)  # days between 1954 and 2119
_YEARS = (1800, 2200)


def given_format(column: Any, form: str, where: str) -> Stamps:
    """A column as `time_format` says: strptime codes, or one of COUNTED. Raises DataError on cells that don't fit."""
    pandas = load_pandas()
    if form in COUNTED:
        numbers = pandas.to_numeric(column, errors="coerce")
        wrong = numbers.isna() & column.notna()
        if wrong.any():
            raise odd_cell(column, wrong.to_numpy(), where, f"numbers, for time_format {form!r}")
        if form == "count":
            values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
            return Stamps(_whole(values), "counts")
        return Stamps(_counted(numbers, form, where), _called(form))
    if "%" not in form:
        raise ConfigError(
            "Setting time_format isn't a format of times.",
            expected=f"strptime codes such as %d.%m.%Y %H:%M, or one of {', '.join(COUNTED)}",
            got=form,
        )
    text = text_of(column)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = pandas.to_datetime(text, format=form, errors="coerce", utc="%z" in form)
        except ValueError as error:
            raise ConfigError("Setting time_format isn't a format of times.", got=form, fix=str(error)) from error
    wrong = read.isna() & text.notna()
    if wrong.any():
        raise odd_cell(column, wrong.to_numpy(), where, f"times as {form}")
    return Stamps(naive(read), f"read as {form}")


def counted_times(column: Any, name: str, where: str) -> Stamps | None:
    """A column of numbers whose name says that it is of time, as times; None where it can't be.

    Recognised: 20200131, 202001, years, and Unix time in seconds to nanoseconds. Raises DataError for numbers in the
    range of a spreadsheet's days in a column of dates, which may as well count.
    """
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    there = values[~np.isnan(values)]
    if not len(there) or np.isinf(there).any():
        return None
    whole = bool((there == np.floor(there)).all())
    dated = name.casefold().strip() not in ("step", "index", "t", "id")
    if whole:
        dates = digit_dates(column)
        if dates is not None:
            return dates
        yearly = name.casefold().strip() in ("year", "yr", "date", "ds")
        if yearly and ((there >= _YEARS[0]) & (there <= _YEARS[1])).all():
            return Stamps(
                naive(load_pandas().to_datetime(column.astype("Int64").astype("string"), format="%Y")), "years"
            )
    for form, (low, high) in _RANGES.items():
        if dated and ((there >= low) & (there <= high)).all():
            read = _counted(column, form, where)
            return Stamps(read, f"numbers such as {there[0]:.15g} read as {_called(form)}", guess=True)
    if dated and name.casefold().strip() not in ("time",) and ((there >= _EXCEL[0]) & (there <= _EXCEL[1])).all():
        day = load_pandas().Timestamp("1899-12-30") + load_pandas().Timedelta(days=there[0])
        raise DataError(
            "Whether a column of numbers holds a spreadsheet's days or counts can't be told.",
            where=where,
            expected="dates that are written as such",
            got=f"{there[0]:.15g}, which would be {day}",
            fix="Say which: data.time_format=excel or data.time_format=count (--time-format for a forecast).",
        )
    if not whole and bool((np.diff(there) < 0).any()):
        return None  # no clock: it runs backward
    return Stamps(_whole(values), "counts" if whole else "a clock in numbers")


def digit_dates(column: Any) -> Stamps | None:
    """Whole numbers each of which is a day such as 20200131, or a month such as 202001; None where one isn't."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    there = values[~np.isnan(values)]
    if not len(there) or (there != np.floor(there)).any():
        return None
    for form, said, digits in (("%Y%m%d", "yyyymmdd", 8), ("%Y%m", "yyyymm", 6)):
        low, high = (year * 10 ** (digits - 4) for year in (_YEARS[0], _YEARS[1] + 1))
        if ((there >= low) & (there < high)).all():
            read = load_pandas().to_datetime(column.astype("Int64").astype("string"), format=form, errors="coerce")
            if not (read.isna() & column.notna()).any():
                return Stamps(naive(read), f"numbers such as {int(there[0])} read as dates ({said})", guess=True)
    return None


def _whole(values: NDArray[np.float64]) -> Any:
    exact = bool((values == np.floor(values)).all()) and bool((np.abs(values) < 2**53).all())
    return values.astype(np.int64) if exact else values


def _called(form: str) -> str:
    return "days of a spreadsheet" if form == "excel" else f"Unix time in {_UNITS[form]}"


def _counted(numbers: Any, form: str, where: str) -> Any:
    pandas = load_pandas()
    try:
        if form == "excel":
            return naive(pandas.to_datetime(numbers, unit="D", origin="1899-12-30").dt.round("ms"))
        return naive(pandas.to_datetime(numbers, unit=_UNITS[form]))
    except (ValueError, OverflowError) as error:  # pandas' own are of these kinds
        raise DataError(f"Numbers are out of the range of {_called(form)}.", where=where, got=str(error)) from error
