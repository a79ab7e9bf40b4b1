"""What the options mean, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskedmodel.comparison.arms import arms_of, distinct, slug_of
from maskedmodel.comparison.controls import ratio_curve, with_controls
from maskedmodel.errors import ConfigError
from maskedmodel.plugins import Registry
from tests.comparison.conftest import TINY


def labels(registry: Registry, masks: list[Any], vary: list[str] | None = None) -> list[str]:
    return [arm.label for arm in arms_of(TINY, [], masks, vary or [], registry)]


def test_masks_by_name_settings_and_mapping(registry: Registry) -> None:
    masks = ["uniform", "uniform:ratio=0.5", "{name: uniform, ratio: 0.25}", {"name": "ramped", "end": 0.9}]
    arms = arms_of(TINY, [], masks, [], registry)
    assert [arm.label for arm in arms] == ["uniform", "uniform ratio=0.5", "uniform ratio=0.25", "ramped end=0.9"]
    assert [arm.config.mask.model_dump().get("ratio") for arm in arms] == [0.75, 0.5, 0.25, None]
    assert [arm.slug for arm in arms] == ["uniform", "uniform-ratio=0.5", "uniform-ratio=0.25", "ramped-end=0.9"]


def test_a_list_or_a_mapping_as_a_value_keeps_its_commas(registry: Registry) -> None:
    text = "uniform:ratio={shape: linear, start: 0.6, end: 0.85}"
    (arm,) = arms_of(TINY, [], [text], ["optim.betas=[0.9, 0.99],optim.eps=1e-6"], registry)
    assert arm.config.mask.ratio.end == 0.85  # type: ignore[attr-defined]
    assert (arm.config.optim.betas, arm.config.optim.eps) == ((0.9, 0.99), 1e-6)


def test_settings_of_the_config_stay_where_a_mask_knows_them(registry: Registry) -> None:
    config = TINY | {"mask": {"name": "uniform", "ratio": 0.6}}
    one, other = arms_of(config, [], ["uniform", "blocks"], [], registry)
    assert one.config.mask.ratio == other.config.mask.ratio == 0.6  # type: ignore[attr-defined]


def test_variations_are_crossed_with_masks(registry: Registry) -> None:
    depths = ["model.decoder.depth=2", "model.decoder.depth=6"]
    assert labels(registry, [], depths) == depths
    assert labels(registry, ["uniform", "ramped"], depths) == [
        f"{mask}, {depth}" for mask in ("uniform", "ramped") for depth in depths
    ]
    assert [arm.config.model.decoder.depth for arm in arms_of(TINY, [], [], depths, registry)] == [2, 6]


BAD: dict[str, tuple[list[Any], list[str], str]] = {
    "an unknown mask": (["unifrom"], [], "Did you mean 'uniform'"),
    "a ratio of one": (["uniform:ratio=1"], [], "mask.ratio"),
    "a ratio of zero": (["uniform:ratio=0"], [], "mask.ratio"),
    "an unknown setting": (["uniform:ration=0.5"], [], "mask.ration"),
    "no name": ([":ratio=0.5"], [], "needs a name"),
    "no name in a mapping": (["{ratio: 0.5}"], [], "needs a name"),
    "no value": (["uniform:ratio"], [], "key=value"),
    "twice the same": (["uniform", "uniform:ratio=0.75"], [], "the same"),
    "other data": ([], ["data.size=16"], "the same data"),
    "another yardstick": ([], ["evaluate.pool=class"], "measured in one way"),
    "steps": ([], ["train.steps=5"], "budget"),
    "seeds": ([], ["train.seed=5"], "--seeds"),
    "an empty variation": ([], [" "], "empty"),
    "an unknown section": ([], ["modle.decoder.depth=2"], "modle"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_option(case: str, registry: Registry) -> None:
    masks, vary, said = BAD[case]
    with pytest.raises(ConfigError) as raised:
        arms_of(TINY, [], masks, vary, registry)
    assert said in str(raised.value)
    assert ("--mask" if masks else "--vary") in str(raised.value)


@given(st.text(max_size=120))
def test_a_slug_is_a_safe_name(label: str) -> None:
    slug = slug_of(label)
    assert re.fullmatch(r"[A-Za-z0-9._=-]{1,90}", slug)
    assert slug not in (".", "..")
    assert not slug.startswith((".", "-"))
    assert slug == slug_of(label)


def test_slugs_tell_labels_apart(registry: Registry) -> None:
    assert slug_of("a/b") != slug_of("a-b") != slug_of("a\\b")
    arms = arms_of(TINY, [], ["uniform", "ramped"], [], registry)
    same = distinct([arms[0], arms[0], arms[1]])
    assert [arm.label for arm in same] == ["uniform", "uniform (2)", "ramped"]
    assert len({arm.slug for arm in same}) == 3


RAMPS = {
    "ramped": 0.725,
    "ramped:shape=cosine,start=0.9,end=0.4,levels=7": 0.65,
    "uniform:ratio={shape: linear, start: 0.6, end: 0.85}": 0.725,
    "uniform:ratio={shape: steps, table: [[0, 0.5], [0.25, 0.7], [0.5, 0.8]]}": 0.7,
    "blocks:ratio={shape: cosine, start: 0.4, end: 0.6}": 0.5,
}


@pytest.mark.parametrize("mask", RAMPS)
def test_controls_of_a_ramp_have_its_mean_and_its_reverse(mask: str, registry: Registry) -> None:
    arms, notes = with_controls(arms_of(TINY, [], [mask], [], registry), TINY, (), registry)
    assert notes == []
    ramp, constant, back = (ratio_curve(arm.config.mask, registry) for arm in arms)
    assert np.ptp(constant) == 0
    assert constant.mean() == pytest.approx(ramp.mean(), abs=1e-4)
    assert constant.mean() == pytest.approx(RAMPS[mask], abs=0.01)
    assert (np.abs(back - ramp[::-1]) < 1e-6).mean() > 0.95
    assert arms[1].label.startswith(f"{arms[0].label}, constant 0.")
    assert arms[2].label == f"{arms[0].label}, reversed"
    if mask.startswith("blocks"):  # the pattern stays
        assert {arm.config.mask.name for arm in arms} == {"blocks"}


def test_what_does_not_move_has_no_controls(registry: Registry) -> None:
    arms = arms_of(TINY, [], ["uniform", "blocks:ratio=0.5"], [], registry)
    assert with_controls(arms, TINY, (), registry) == (arms, [])


def test_a_control_that_stands_there_already_is_not_doubled(registry: Registry) -> None:
    asked = arms_of(TINY, [], ["uniform:ratio=0.725", "ramped"], [], registry)
    arms, _ = with_controls(asked, TINY, (), registry)
    assert [arm.label for arm in arms] == ["uniform ratio=0.725", "ramped", "ramped, reversed"]


def test_a_ratio_drawn_at_random_has_no_reverse_and_says_so(registry: Registry) -> None:
    asked = arms_of(TINY, [], ["uniform:ratio={shape: random}"], [], registry)
    arms, notes = with_controls(asked, TINY, (), registry)
    assert len(arms) == 2
    assert "turns its ratio round" in notes[0]
