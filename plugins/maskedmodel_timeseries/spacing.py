"""The step between the rows of a series, and rows that lack between others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskedmodel_timeseries.cells import load_pandas

_MOST_GROWTH = 10  # times as many rows, once the missing ones are put in
_JITTER = 0.01  # of a step, by which a clock in floating point may be off


def frequency_of(times: Any) -> str | None:
    """pandas' name of the step between time stamps, None where they are too few, uneven, or numbers."""
    pandas = load_pandas()
    if not isinstance(times, pandas.DatetimeIndex) or len(times) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3 announces that an offset will come instead of its name
        found = pandas.infer_freq(times)
    name: str | None = getattr(found, "freqstr", found)
    return name


def with_gaps(times: Any, values: NDArray[np.float64]) -> tuple[Any, NDArray[np.float64], int, bool]:
    """Times and values (V, T) with the rows put in that are missing between evenly spaced ones, as NaN.

    Returns them with the number of rows put in, and whether the rows are evenly spaced now. Steps of the calendar,
    such as months and business days, differ in length and are no gaps; where one of them lacks, it is put in too.
    """
    pandas = load_pandas()
    if len(times) < 3 or frequency_of(times) is not None:
        return times, values, 0, True
    stamped = isinstance(times, pandas.DatetimeIndex)
    for ordinals, back in _calendars(times) if stamped else [(np.asarray(times), lambda numbers: numbers)]:
        places = _places(ordinals)
        if places is None:
            continue
        if places[-1] + 1 == len(ordinals):
            return times, values, 0, True
        whole = np.full((len(values), int(places[-1]) + 1), np.nan)
        whole[:, places] = values
        span = ordinals[-1] - ordinals[0]
        step = span // places[-1] if ordinals.dtype.kind == "i" else span / places[-1]  # integers beyond a float's
        every = ordinals[0] + np.arange(whole.shape[1]) * step
        return back(every), whole, whole.shape[1] - len(ordinals), True
    return times, values, 0, False


def _places(ordinals: NDArray[Any]) -> NDArray[np.int64] | None:
    """Which step from the first each row is; None where rows aren't evenly spaced, or too many would be put in."""
    steps = np.diff(ordinals)
    if ordinals.dtype.kind == "f":
        usual = float(np.median(steps))
        places = (ordinals - ordinals[0]) / usual
        nearest = np.round(places)
        if (np.abs(places - nearest) > _JITTER).any() or (np.diff(nearest) < 1).any():
            return None
        whole = nearest.astype(np.int64)
    else:
        kinds, counts = np.unique(steps, return_counts=True)
        usual = int(kinds[counts.argmax()])
        if (steps % usual).any():
            return None
        whole = ((ordinals - ordinals[0]) // usual).astype(np.int64)
    return whole if whole[-1] + 1 < _MOST_GROWTH * len(ordinals) else None


def _calendars(times: Any) -> list[tuple[NDArray[np.int64], Any]]:
    """Ways to count time stamps by equal steps, each with the way back: months, business days, and plain time."""
    pandas = load_pandas()
    ways: list[tuple[NDArray[np.int64], Any]] = []
    clock = times - times.normalize()
    if len(times) > 2 and bool((clock == clock[0]).all()):
        months = np.asarray(times.year * 12 + times.month, dtype=np.int64)
        last = bool(times.is_month_end.all())
        same = times[0].day <= 28 and bool((times.day == times[0].day).all())  # a day that every month has
        if len(np.unique(months)) == len(months) and (last or same):

            def from_months(numbers: NDArray[np.int64]) -> Any:
                starts = ((numbers - 1) - 1970 * 12).astype("datetime64[M]")
                if last:
                    days = (starts + 1).astype("datetime64[D]") - 1
                else:
                    days = starts.astype("datetime64[D]") + (times[0].day - 1)
                return pandas.DatetimeIndex(days).as_unit(times.unit) + clock[0]

            ways.append((months, from_months))
        days = times.normalize().to_numpy().astype("datetime64[D]")
        weeks = days[-1] - days[0] > np.timedelta64(7, "D")
        if bool(np.is_busday(days).all()) and weeks and (np.diff(days) == np.timedelta64(1, "D")).any():
            ordinals = np.busday_count(np.datetime64("1970-01-01"), days).astype(np.int64)

            def from_workdays(numbers: NDArray[np.int64]) -> Any:
                found = np.busday_offset(np.datetime64("1970-01-01"), numbers, roll="forward")
                return pandas.DatetimeIndex(found).as_unit(times.unit) + clock[0]

            ways.append((ordinals, from_workdays))

    def from_ticks(numbers: NDArray[np.int64]) -> Any:
        return pandas.DatetimeIndex(numbers.astype(f"datetime64[{times.unit}]"))

    ways.append((np.asarray(times.asi8), from_ticks))
    return ways
