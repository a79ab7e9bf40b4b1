import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_timeseries.period import find_period, periods_of_frequency

from maskedmodel.errors import ConfigError

TIME = np.arange(2000)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ("s", "S", (3600, 1)),
        ("min", "T", (1440, 10080, 1)),
        ("15min", "15T", (96, 672, 1)),
        ("h", "H", (24, 168, 1)),
        ("4h", "4H", (6, 42, 1)),
        ("D", "D", (7, 30, 365, 1)),
        ("B", "B", (5, 1)),
        ("W-SUN", "W", (52, 4, 1)),
        ("ME", "M", (12, 6, 3, 1)),
        ("MS", "BM", (12, 6, 3, 1)),
        ("QE-DEC", "Q-DEC", (4, 2, 1)),
        ("2QE", "2Q", (2, 1)),
        ("YE", "A-DEC", (1,)),
        ("ms", "L", (1,)),
        ("24h", "24H", (7, 1)),
    ],
)
def test_new_and_old_names_of_a_frequency_have_the_same_periods(new, old, expected):
    assert periods_of_frequency(new) == periods_of_frequency(old) == expected


@pytest.mark.parametrize("wrong", ["", "0h", "hourly", "15", "x", "1h30min"])
def test_what_is_no_frequency_is_refused(wrong):
    with pytest.raises(ConfigError, match="frequency"):
        periods_of_frequency(wrong)


@settings(max_examples=30, deadline=None)
@given(period=st.integers(4, 300), seed=st.integers(0, 1000))
def test_a_noisy_season_on_a_trend_is_found(period, seed):
    draw = np.random.default_rng(seed)
    series = np.sin(2 * np.pi * TIME / period + draw.uniform(0, 6)) + 0.2 * draw.normal(size=2000) + 0.003 * TIME
    assert abs(find_period(series) - period) <= max(1, period // 50)


@pytest.mark.parametrize("period", [7, 24, 52, 96, 144])
def test_a_sawtooth_and_a_train_of_spikes_are_found_though_their_harmonics_are_strong(period):
    noise = 0.1 * np.random.default_rng(0).normal(size=2000)
    assert find_period((TIME % period) / period + noise) == period
    assert find_period((TIME % period == 0) + noise / 4) == period


def test_of_a_day_and_a_week_the_stronger_one_is_found():
    day, week = np.sin(2 * np.pi * TIME / 24), np.sin(2 * np.pi * TIME / 168)
    assert find_period(day + 0.5 * week) == 24
    assert find_period(0.5 * day + week) == 168


def test_noise_has_no_period_and_a_random_walk_hardly_ever():
    draw = np.random.default_rng(1)
    assert [find_period(draw.normal(size=1000)) for _ in range(20)] == [1] * 20
    walks = [find_period(draw.normal(size=1000).cumsum()) for _ in range(40)]
    assert walks.count(1) >= 36


def test_missing_values_are_left_out_and_variates_share_a_period():
    draw = np.random.default_rng(2)
    rows = np.sin(2 * np.pi * TIME / 24) * np.array([[5.0], [0.1], [100]]) + np.array([[0], [1e3], [-5]])
    rows[1] += 0.05 * draw.normal(size=2000)
    rows[:, draw.random(2000) < 0.4] = np.nan
    rows[2, 300:900] = np.nan
    assert find_period(rows) == 24
    assert find_period(rows[1]) == 24


@pytest.mark.parametrize("series", [np.ones(100), np.full(100, np.nan), np.arange(100.0), np.array([1.0, 2.0])])
def test_what_has_no_spread_or_no_length_has_no_period(series):
    assert find_period(series) == 1
