"""The period of a series: from the frequency of its time stamps, or found in its values."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from maskedmodel.errors import ConfigError

# Steps of a period for one step of the unit, likeliest first: the candidates of VisionTS (Chen et al. 2024).
_OF_UNIT: dict[str, tuple[int, ...]] = {
    "second": (3600,),  # an hour
    "minute": (1440, 10080),  # a day, a week
    "hour": (24, 168),  # a day, a week
    "day": (7, 30, 365),  # a week, a month, a year
    "business day": (5,),  # a week
    "week": (52, 4),  # a year, a month
    "month": (12, 6, 3),  # a year, half of one, a quarter
    "quarter": (4, 2),  # a year, half of one
    "year": (),
    "shorter": (),
}
# pandas' names, those before version 2.2 too: of ends and starts of a span, and of business days.
_UNITS: dict[str, str] = {
    **dict.fromkeys(("s", "S"), "second"),
    **dict.fromkeys(("min", "T"), "minute"),
    **dict.fromkeys(("h", "H"), "hour"),
    "D": "day",
    **dict.fromkeys(("B", "C"), "business day"),
    "W": "week",
    **dict.fromkeys(("ME", "M", "MS", "BME", "BM", "BMS", "CBME", "CBM", "CBMS"), "month"),
    **dict.fromkeys(("QE", "Q", "QS", "BQE", "BQ", "BQS"), "quarter"),
    **dict.fromkeys(("YE", "Y", "A", "YS", "AS", "BYE", "BY", "BA", "BYS", "BAS"), "year"),
    **dict.fromkeys(("ms", "L", "us", "U", "ns", "N"), "shorter"),
}
# A peak counts from this autocorrelation on, and where it stands out this far above the valley before it.
_LEAST_CORRELATION, _LEAST_RISE = 0.2, 0.2
_PEAKS = 64  # of the periodogram, the highest first: a train of spikes has many harmonics of one height


def periods_of_frequency(frequency: str) -> tuple[int, ...]:
    """Likely periods in steps, likeliest first and 1 (none) last, of a pandas frequency such as "h", "15min" or "ME".

    Raises ConfigError on what is no frequency.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(?:-[A-Za-z]+)?", frequency.strip())
    unit = _UNITS.get(match.group(2)) if match else None
    if match is None or unit is None or match.group(1) == "0":
        raise ConfigError(
            "This is no frequency of time steps.",
            expected=f"a pandas frequency such as h, 15min, D or ME; units: {', '.join(_UNITS)}",
            got=frequency,
        )
    count = int(match.group(1) or 1)
    whole = (steps // count for steps in _OF_UNIT[unit] if steps % count == 0)
    return (*(steps for steps in whole if steps > 1), 1)


def find_period(values: NDArray[np.floating]) -> int:
    """The period in steps of a series (T,), or of variates (V, T) that share one; 1 where there is none.

    Peaks of the periodogram, the highest first, are tried against the autocorrelation: the first that lies on a hill
    of it is the period (Vlachos, Yu and Castelli 2005). The periodogram alone confuses a period with its fractions and
    with a trend; the autocorrelation alone, with its multiples. NaN is left out, a straight trend is removed. At
    least three periods must lie in the series.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    power, correlation, used = None, None, 0
    for row in rows:
        level = _detrended(row)
        if level is None:
            continue
        own_power, own_correlation = _spectra(level, ~np.isnan(row))
        power = own_power if power is None else power + own_power
        correlation = own_correlation if correlation is None else correlation + own_correlation
        used += 1
    if power is None or correlation is None:
        return 1
    correlation = correlation / used
    steps = rows.shape[1]
    longest = steps // 3
    order = np.argsort(power)[::-1]
    peaks = [int(k) for k in order if k >= 3 and _is_peak(power, int(k))][:_PEAKS]
    for k in peaks:
        # A frequency of k periods in the series is known to half a period either way.
        low, high = max(int(steps / (k + 0.5)), 2), min(-(-steps * 2 // (2 * k - 1)), longest)
        if low > high:
            continue
        lag = low + int(np.argmax(correlation[low : high + 1]))
        if _on_a_hill(correlation, lag):
            return _sharpened(correlation, lag)
    return 1


def _detrended(row: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The row less a straight line, in units of its spread, missing values zero; None where it has no spread."""
    there = ~np.isnan(row)
    if there.sum() < 4:
        return None
    time = np.arange(len(row), dtype=np.float64)
    line = np.polynomial.Polynomial.fit(time[there], row[there], 1)
    level = np.where(there, row - line(time), 0.0)
    spread = np.sqrt(np.square(level).sum() / there.sum())
    scale = np.abs(row[there]).max()
    return level / spread if spread > 1e-9 * max(scale, 1e-300) else None


def _spectra(level: NDArray[np.float64], there: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The periodogram, and the autocorrelation at lags 0 to T - 1 over the pairs of values that are there."""
    steps = len(level)
    power = np.square(np.abs(np.fft.rfft(level)))
    transform, presence = np.fft.rfft(level, 2 * steps), np.fft.rfft(there.astype(np.float64), 2 * steps)
    products = np.fft.irfft(np.square(np.abs(transform)))[:steps]
    pairs = np.fft.irfft(np.square(np.abs(presence)))[:steps].round()
    correlation = np.divide(products, pairs, out=np.zeros(steps), where=pairs > 0)
    return power, correlation


def _is_peak(power: NDArray[np.float64], k: int) -> bool:
    before = power[k - 1] if k else 0.0
    after = power[k + 1] if k + 1 < len(power) else 0.0
    return bool(power[k] > before and power[k] >= after)


def _on_a_hill(correlation: NDArray[np.float64], lag: int) -> bool:
    """Whether the autocorrelation has a peak of its own at this lag, not merely a slope."""
    if lag + 1 >= len(correlation) or correlation[lag] < _LEAST_CORRELATION:
        return False
    if correlation[lag] < correlation[lag - 1] or correlation[lag] < correlation[lag + 1]:
        return False
    valley = correlation[1:lag].min(initial=correlation[lag])
    # What wanders rather than repeats has hills too, but not one after another.
    again = correlation[2 * lag - 1 : 2 * lag + 2].max(initial=-1.0)
    return bool(correlation[lag] - valley >= _LEAST_RISE and again >= correlation[lag] / 2)


def _sharpened(correlation: NDArray[np.float64], lag: int) -> int:
    """The lag within one in fifty of this one whose multiples correlate best: the top of a broad hill is flat."""
    around = range(max(lag - max(lag // 50, 1), 2), lag + max(lag // 50, 1) + 1)
    repeats = max(len(correlation) // 2 // around[-1], 1)
    return max(around, key=lambda own: float(correlation[own * np.arange(1, repeats + 1)].mean()))
