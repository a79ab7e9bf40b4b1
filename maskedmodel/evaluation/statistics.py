"""What a few seeds allow to be said: paired differences, their intervals, and a verdict in words.

Runs of one seed share their weights at the start, the order of their samples and the yardstick, so they are compared
seed by seed. A verdict needs both intervals of the mean difference to leave out zero: the bootstrap's (Efron 1979,
percentiles), which assumes no distribution but is too narrow for a handful of seeds, and Student's (1908), which is
honest about a handful but assumes a normal one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 3  # seeds for a verdict

Direction = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "no difference seen", "no verdict"]


@dataclass(frozen=True)
class Spread:
    """Values over seeds: their mean, their standard deviation (None for one seed), lowest and highest."""

    count: int
    mean: float
    deviation: float | None
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        numbers = np.asarray(values, dtype=np.float64)
        deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
        return cls(len(numbers), float(numbers.mean()), deviation, float(numbers.min()), float(numbers.max()))


@dataclass(frozen=True)
class Difference:
    """Of paired runs, `ours - theirs`: the mean, two 95 % intervals (None for one pair) and what they allow to say.

    `missed` is half of Student's interval: a true difference smaller than that would mostly have gone unseen.
    """

    count: int
    mean: float
    bootstrap: tuple[float, float] | None
    student: tuple[float, float] | None
    missed: float | None
    verdict: Verdict
    why: str

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float], better: Direction, seed: int = 0) -> Difference:
        """`ours` and `theirs` hold one value or more per seed, in the same order of seeds."""
        differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
        count, mean = len(differences), float(differences.mean())
        bootstrap = bootstrap_interval(differences.tolist(), seed) if count > 1 else None
        student = student_interval(differences.tolist()) if count > 1 else None
        missed = None if student is None else (student[1] - student[0]) / 2
        verdict, why = _verdict(count, mean, bootstrap, student, missed, better)
        return cls(count, mean, bootstrap, student, missed, verdict, why)


def _verdict(
    count: int,
    mean: float,
    bootstrap: tuple[float, float] | None,
    student: tuple[float, float] | None,
    missed: float | None,
    better: Direction,
) -> tuple[Verdict, str]:
    if count < FEWEST or bootstrap is None or student is None or missed is None:
        seeds = "one seed says" if count == 1 else f"{count} seeds say"
        return "no verdict", f"{seeds} nothing about chance: {FEWEST} or more are needed"
    if any(low <= 0 <= high for low, high in (bootstrap, student)):
        unseen = f"a difference below {missed:.2g} would have gone unseen" if missed else "all differences are zero"
        return "no difference seen", f"with {count} seeds, {unseen}"
    won = (mean > 0) == (better == "higher")
    return ("better" if won else "worse"), f"over {count} seeds, both 95 % intervals leave out zero"


def bootstrap_interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The percentile interval of the mean at LEVEL: `resamples` draws with replacement, seeded."""
    numbers = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = numbers[generator.integers(0, len(numbers), (resamples, len(numbers)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean at LEVEL, of two values or more."""
    spread = Spread.of(values)
    assert spread.deviation is not None, "one value has no spread"
    half = student_quantile(spread.count - 1) * spread.deviation / math.sqrt(spread.count)
    return spread.mean - half, spread.mean + half


def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """The bound that Student's t of `freedom` degrees stays within with probability `level`, by bisection."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """P(|T| <= t), the finite sums of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(2 if odd else 1, freedom - 2, 2):
        term *= cosine * cosine * k / (k + 1)
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
