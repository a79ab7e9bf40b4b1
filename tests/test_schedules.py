"""Weights over time: what they say at each point of a run, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from maskedmodel.schedules import Slope, Weight, eased, weight_at

WEIGHT: TypeAdapter[Any] = TypeAdapter(Weight)


@pytest.mark.parametrize(
    ("given", "places"),
    [
        (0.5, [0.5, 0.5, 0.5]),
        (0, [0, 0, 0]),
        ({"start": 0, "end": 2}, [0, 1, 2]),
        ({"start": 2, "end": 0}, [2, 1, 0]),
        ({"shape": "cosine", "start": 1, "end": 3}, [1, 2, 3]),
    ],
)
def test_a_weight_at_start_middle_and_end(given: Any, places: list[float]) -> None:
    weight = WEIGHT.validate_python(given)
    assert [weight_at(weight, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(places)
    assert weight_at(weight, -1) == weight_at(weight, 0)
    assert weight_at(weight, 2) == weight_at(weight, 1)
    assert WEIGHT.validate_json(WEIGHT.dump_json(weight)) == weight


@pytest.mark.parametrize(
    "given", [-1, float("nan"), float("inf"), {"start": -1}, {"shape": "steps"}, {"begin": 1}, "x"]
)
def test_no_weights_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        WEIGHT.validate_python(given)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_change_never_turns_round(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for shape in ("linear", "cosine"):
        assert 0 <= eased(low, shape) <= eased(high, shape) <= 1


def test_cosine_is_slow_at_both_ends() -> None:
    assert weight_at(Slope(shape="cosine", start=0, end=1), 0.1) < 0.03
