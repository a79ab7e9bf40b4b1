"""The ratio over time, which every scheduler takes as its `ratio`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_masks.schedules import Drawn, Ramp, Steps, all_ratios, ratio_at
from maskedmodel_masks.uniform import Ramped, Uniform
from pydantic import ValidationError

from maskedmodel import MaskScheduler
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import load_registry
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import attached, layouts

SCHEDULES = [
    0.4,
    {"shape": "linear", "start": 0.3, "end": 0.7, "levels": 5},
    {"shape": "cosine", "start": 0.9, "end": 0.3},
    {"shape": "random", "low": 0.2, "high": 0.8},
    {"shape": "steps", "table": [[0, 0.6], [0.5, 0.75], [0.9, 0.3]]},
]


@parametrize_checks([Uniform(ratio=schedule) for schedule in SCHEDULES])
def test_conformance(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_ratio_on_the_way_is_among_all_of_them(schedule: Any) -> None:
    ratio = Uniform(ratio=schedule).settings.ratio
    met = {ratio_at(ratio, step / 997) for step in range(998)}
    assert met <= set(all_ratios(ratio))
    assert max(met) == max(all_ratios(ratio))
    assert min(met) == min(all_ratios(ratio))


@given(start=st.floats(0.05, 0.95), end=st.floats(0.05, 0.95), levels=st.integers(2, 40))
@settings(deadline=None, max_examples=20)
def test_ramped_is_uniform_with_a_ramp(start: float, end: float, levels: int) -> None:
    ramped = Ramped(start=start, end=end, levels=levels)
    uniform = Uniform(ratio={"shape": "linear", "start": start, "end": end, "levels": levels})
    for step in range(30):
        assert ramped.ratio(step / 29) == uniform.ratio(step / 29)


def test_random_ratios_differ_from_step_to_step_and_come_back_at_the_same_step() -> None:
    drawn = Drawn(low=0.2, high=0.8, levels=4)
    path = [drawn.at(step / 9_999) for step in range(10_000)]
    assert path == [drawn.at(step / 9_999) for step in range(10_000)]
    counts = Counter(path)
    assert sorted(counts) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    # A count of 10,000 draws over four levels has a standard deviation of 43.
    assert all(abs(count - 2_500) < 220 for count in counts.values())
    same = sum(one == other for one, other in pairwise(path))
    assert abs(same - 2_500) < 220, "neighbouring steps are independent"


def test_another_seed_gives_other_random_ratios() -> None:
    paths = [[Drawn(seed=seed).at(step / 99) for step in range(100)] for seed in (0, 1)]
    assert paths[0] != paths[1]


def test_a_table_holds_each_ratio_from_its_place_on() -> None:
    table = Steps(table=((0, 0.6), (0.5, 0.75), (0.9, 0.3)))
    assert [table.at(p) for p in (0, 0.49, 0.5, 0.89, 0.9, 1)] == [0.6, 0.6, 0.75, 0.75, 0.3, 0.3]


def test_a_ramp_may_go_down() -> None:
    assert [Ramp(start=0.8, end=0.6, levels=3).at(p) for p in (0, 0.5, 1)] == pytest.approx([0.8, 0.7, 0.6])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"shape": "random", "low": 0.8, "high": 0.2}, "low must not be above high"),
        ({"shape": "steps", "table": [[0.1, 0.5]]}, "must rise from 0"),
        ({"shape": "steps", "table": [[0, 0.5], [0.5, 0.6], [0.4, 0.7]]}, "must rise from 0"),
        ({"shape": "steps", "table": [[0, 0.5], [2, 0.6]]}, "to at most 1"),
        ({"shape": "steps", "table": []}, "at least 1"),
        ({"shape": "linear", "start": 1.0}, "greater than 0 and less than 1"),
        ({"shape": "steps", "table": [[0, 1.5]]}, "greater than 0 and less than 1"),
        ({"shape": "wavy"}, "linear, cosine, random or steps"),
        ({"start": 0.5}, "linear, cosine, random or steps"),
        ({"shape": "linear", "low": 0.5}, "Extra inputs"),
        ("much", "valid number"),
    ],
)
def test_a_bad_schedule_is_refused(schedule: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Uniform(ratio=schedule)


def config(mask: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"name": "digits"}, "tokenizer": {"name": "image", "size": 8, "patch": 2}, "mask": mask}


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (1.5, "mask.ratio: expected a number greater than 0 and less than 1, got 1.5"),
        ({"shape": "linear", "start": 2}, "mask.ratio.start: expected a number greater than 0 and less than 1, got 2"),
        ({"shape": "random", "levels": 1}, "mask.ratio.levels: expected a number at least 2, got 1"),
        ({"shape": "liner"}, "mask.ratio: expected a number between 0 and 1, or a section with shape"),
        ({"shape": "linear", "stat": 0.5}, "mask.ratio.stat: unknown setting"),
    ],
)
def test_a_config_names_the_setting(ratio: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config({"name": "uniform", "ratio": ratio}), registry=load_registry())
    assert message in str(caught.value)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_survives_the_file_of_a_run(schedule: Any, tmp_path: Path) -> None:
    registry = load_registry()
    settled = load_config(config({"name": "uniform", "ratio": schedule}), registry=registry)
    (tmp_path / "config.yaml").write_text(dump_config(settled))
    assert load_config(tmp_path / "config.yaml", registry=registry) == settled


def test_a_schedule_may_be_an_override() -> None:
    settled = load_config(
        config({"name": "uniform"}), ["mask.ratio={shape: cosine, start: 0.5}"], registry=load_registry()
    )
    assert Uniform(settled.mask).ratio(0) == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheduler", "where"),
    [
        (Uniform(ratio=0.99), "mask.ratio"),
        (Uniform(ratio=0.01), "mask.ratio"),
        (Uniform(ratio={"shape": "linear", "start": 0.5, "end": 0.98}), "mask.ratio"),
        (Uniform(ratio={"shape": "random", "low": 0.5, "high": 0.99}), "mask.ratio"),
        (Uniform(ratio={"shape": "steps", "table": [[0, 0.5], [1, 0.98]]}), "mask.ratio"),
        (Ramped(end=0.98), "mask.start and mask.end"),
    ],
)
def test_ratios_beyond_the_number_of_tokens_are_refused_when_the_model_is_built(
    scheduler: MaskScheduler[Any], where: str
) -> None:
    with pytest.raises(ConfigError, match=r"hides (all|none) of the 16 tokens") as caught:
        attached(scheduler, layouts()["one axis"])
    assert where in str(caught.value)


def test_the_most_extreme_ratios_that_leave_a_token_are_taken() -> None:
    for ratio, hidden in ((0.04, 1), (0.96, 15)):
        assert attached(Uniform(ratio=ratio), layouts()["one axis"]).ratio(0) == ratio
        assert round(ratio * 16) == hidden
