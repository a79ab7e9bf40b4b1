"""Against numpy and scipy, and against what a verdict may never say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from maskedmodel.evaluation.statistics import (
    FEWEST,
    Difference,
    Spread,
    bootstrap_interval,
    student_interval,
    student_quantile,
)

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30, 101])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_quantile_is_students(freedom: int, level: float) -> None:
    assert student_quantile(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


@given(VALUES)
def test_the_interval_is_scipys(values: list[float]) -> None:
    assume(np.std(values) > 1e-3)
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert student_interval(values) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(VALUES)
def test_spread_is_numpys(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert spread.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert (spread.low, spread.high, spread.count) == (min(values), max(values), len(values))


def test_one_value_has_no_spread() -> None:
    assert Spread.of([2.0]).deviation is None


def test_the_bootstrap_is_scipys_percentile() -> None:
    values = [0.3, 0.1, 0.7, 0.4, 0.2, 0.9, 0.5]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap_interval(values, resamples=50_000) == pytest.approx(tuple(theirs), abs=0.01)


@given(VALUES, st.integers(0, 5))
def test_the_bootstrap_is_seeded_and_stays_among_the_values(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(values, seed)
    assert (low, high) == bootstrap_interval(values, seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_a_clear_difference_by_hand() -> None:
    ours, theirs = [0.61, 0.63, 0.62], [0.50, 0.51, 0.52]
    difference = Difference.of(ours, theirs, "higher")
    assert difference.mean == pytest.approx(0.11)
    half = 4.302652729696 * np.std([0.11, 0.12, 0.10], ddof=1) / math.sqrt(3)
    assert difference.student == pytest.approx((0.11 - half, 0.11 + half))
    assert difference.missed == pytest.approx(half)
    assert difference.verdict == "better"
    assert Difference.of(ours, theirs, "lower").verdict == "worse"
    assert Difference.of(theirs, ours, "higher").verdict == "worse"


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=FEWEST - 1))
def test_too_few_seeds_never_give_a_verdict(pairs: list[tuple[float, float]]) -> None:
    difference = Difference.of([one for one, _ in pairs], [other for _, other in pairs], "higher")
    assert difference.verdict == "no verdict"
    assert f"{FEWEST} or more" in difference.why


def test_one_seed_has_no_interval() -> None:
    difference = Difference.of([0.9], [0.1], "higher")
    assert (difference.bootstrap, difference.student, difference.missed) == (None, None, None)
    assert "one seed" in difference.why


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=FEWEST, max_size=8))
def test_a_verdict_needs_both_intervals_to_leave_out_zero(pairs: list[tuple[float, float]]) -> None:
    difference = Difference.of([one for one, _ in pairs], [other for _, other in pairs], "higher")
    assert difference.bootstrap is not None
    assert difference.student is not None
    clear = all(low > 0 or high < 0 for low, high in (difference.bootstrap, difference.student))
    assert (difference.verdict in ("better", "worse")) == clear


def test_three_seeds_that_agree_by_chance_are_no_verdict() -> None:
    """Three differences of one sign: the bootstrap alone would call it, as it would one time in four by chance."""
    difference = Difference.of([1.0, 1.2, 3.0], [0.9, 0.7, 0.2], "higher")
    assert difference.bootstrap is not None
    assert difference.bootstrap[0] > 0
    assert difference.verdict == "no difference seen"
    assert "unseen" in difference.why


def test_false_alarms_are_as_rare_as_promised() -> None:
    generator = np.random.default_rng(0)
    rounds = 400
    alarms = sum(
        Difference.of(generator.normal(size=4).tolist(), generator.normal(size=4).tolist(), "higher").verdict
        in ("better", "worse")
        for _ in range(rounds)
    )
    assert alarms / rounds < 0.08


def test_equal_results_are_no_difference() -> None:
    difference = Difference.of([1.0] * 3, [1.0] * 3, "lower")
    assert difference.verdict == "no difference seen"
    assert "zero" in difference.why
