"""Tubes, strips, channels and the same place in every channel: the kit, structure, counts, coverage, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_masks.structured import Aligned, Channels, Strips, Tube
from pydantic import ValidationError

from maskedmodel import MaskScheduler, Noise
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import attached, layouts
from maskedmodel.tokens import hidden_count
from tests.plugins.maskedmodel_masks.mask_tokens import grid, masks

HALF = {"shape": "linear", "start": 0.34, "end": 0.66, "levels": 3}


@parametrize_checks(
    [
        Tube(ratio=0.75),
        Tube(axis="height", ratio=HALF),
        Tube(axis="time", ratio=0.5),
        Strips(shares={"time": 0.5}),
        Strips(shares={"height": 0.5, "width": HALF}),
        Channels(ratio=HALF),
        Channels(ratio=0.66),
        Aligned(),
        Aligned(ratio=HALF),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


# Structure


def test_a_tube_is_videomaes() -> None:
    """16 frames of 224 pixels in tubelets of 2 x 16 x 16: 176 of 196 hidden in each of 8 slots, the same ones."""
    hidden = masks(Tube(), grid(5, 8, 14, 14)).hidden.reshape(5, 8, 196)
    assert hidden.sum(2).unique().tolist() == [176]
    assert (hidden == hidden[:, :1]).all()
    assert (hidden[0, 0] != hidden[1, 0]).any()


@given(ratio=st.floats(0.1, 0.9), extents=st.tuples(*[st.integers(2, 5)] * 3), axis=st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_a_tube_may_lie_along_any_axis(ratio: float, extents: tuple[int, int, int], axis: int) -> None:
    names = ("depth", "rows", "columns")
    hidden = masks(Tube(axis=names[axis], ratio=ratio), grid(4, *extents, axes=names)).hidden.reshape(4, *extents)
    across = hidden.movedim(axis + 1, 1)
    assert (across == across[:, :1]).all()
    tubes = across[:, 0].flatten(1)
    assert tubes.sum(1).unique().tolist() == [hidden_count(tubes.shape[1], ratio)]


def test_tubes_of_separate_channels_are_tubes_of_their_own() -> None:
    hidden = masks(Tube(ratio=0.5), grid(64, 4, 8, channels=2, axes=("time", "row"))).hidden.reshape(64, 2, 4, 8)
    assert (hidden == hidden[:, :, :1]).all()
    assert (hidden[:, 0] != hidden[:, 1]).any()


def test_strips_hide_whole_times() -> None:
    hidden = masks(Strips(shares={"time": 0.75}), grid(6, 16, 4, axes=("time", "frequency"))).hidden.reshape(6, 16, 4)
    assert (hidden == hidden[:, :, :1]).all()
    assert hidden[:, :, 0].sum(1).unique().tolist() == [12]


def test_strips_of_both_axes_are_audiomaes() -> None:
    """AudioMAE keeps 19 of 64 times and 5 of 8 frequencies: 95 of 512 tokens."""
    scheduler = Strips(shares={"time": 0.7, "frequency": 0.375})
    mask = masks(scheduler, grid(4, 64, 8, axes=("time", "frequency")))
    visible = mask.visible.reshape(4, 64, 8)
    times, frequencies = visible.any(2), visible.any(1)
    assert times.sum(1).unique().tolist() == [19]
    assert frequencies.sum(1).unique().tolist() == [5]
    assert (visible == times[:, :, None] & frequencies[:, None]).all()
    assert mask.visible.sum(1).unique().tolist() == [95]
    assert scheduler.ratio(0) == pytest.approx(1 - 0.3 * 0.625)


def test_channels_are_hidden_as_a_whole() -> None:
    hidden = masks(Channels(ratio=0.4), grid(32, 7, channels=5)).hidden.reshape(32, 5, 7)
    assert (hidden == hidden[:, :, :1]).all()
    assert hidden[:, :, 0].sum(1).unique().tolist() == [2]


def test_aligned_hides_the_same_places_in_every_channel() -> None:
    hidden = masks(Aligned(), grid(8, 4, 4, channels=3)).hidden.reshape(8, 3, 16)
    assert (hidden == hidden[:, :1]).all()
    assert hidden[:, 0].sum(1).unique().tolist() == [12]


@pytest.mark.parametrize(
    ("scheduler", "shape"),
    [
        (Tube(axis="height", ratio=0.5), (4, 6)),
        (Strips(shares={"height": 0.5}), (4, 6)),
        (Strips(shares={"height": 0.25, "width": 0.5}), (4, 6)),
    ],
)
def test_pictures_of_uneven_extents_keep_the_structure(scheduler: MaskScheduler[Any], shape: tuple[int, int]) -> None:
    tokens = layouts()["uneven extents"]
    assert tokens.valid is not None
    mask = masks(scheduler, tokens)
    hidden, real = mask.hidden.reshape(-1, *shape), tokens.valid.reshape(-1, *shape)
    rows = real.any(2).sum(1)
    if isinstance(scheduler, Tube):
        assert (hidden == (hidden.any(1, keepdim=True) & real)).all()
    else:
        whole = (hidden | ~real).all(2) & real.any(2)  # rows hidden as a whole
        shares = scheduler.settings.shares
        assert whole.sum(1).tolist() == [hidden_count(int(n), float(shares["height"])) for n in rows]


def test_samples_with_fewer_channels_hide_their_share_of_them() -> None:
    tokens = layouts()["uneven channels"]
    hidden = masks(Channels(ratio=0.5), tokens).hidden.reshape(-1, 3, 8)
    # Of 3 channels 2 are hidden, of 2 one. A sample with a single channel hides half of its tokens, one by one.
    assert hidden.all(2).sum(1).tolist() == [2, 2, 1, 2, 1, 0]
    assert hidden.sum((1, 2)).tolist() == [16, 16, 8, 16, 8, 4]


# Even rows, and what a mask knows of itself without being read


@pytest.mark.parametrize(
    ("scheduler", "tokens"),
    [
        (Tube(), grid(3, 8, 14, 14)),
        (Strips(shares={"time": 0.7, "frequency": 0.3}), grid(3, 64, 8, axes=("time", "frequency"))),
        (Channels(ratio=0.4), grid(3, 7, channels=5)),
        (Aligned(), grid(3, 4, 4, channels=3)),
    ],
)
def test_whole_grids_give_even_rows_without_a_look_at_the_mask(scheduler: MaskScheduler[Any], tokens: Any) -> None:
    mask = masks(scheduler, tokens)
    assert mask.even is True
    assert mask.widths == (int(mask.visible.sum(1)[0]), int(mask.hidden.sum(1)[0]))
    assert isinstance(scheduler.counts(tokens, 0.0, Noise.of(range(3))), int)


# Coverage


@pytest.mark.parametrize(
    ("scheduler", "tokens"),
    [
        (Tube(ratio=0.5), grid(3000, 2, 2, 3)),
        (Strips(shares={"height": 0.5, "width": 0.25}), grid(3000, 4, 4)),
        (Channels(ratio=0.5), grid(3000, 2, channels=4)),
        (Aligned(ratio=0.5), grid(3000, 6, channels=2)),
    ],
)
def test_every_token_is_hidden_about_as_often(scheduler: MaskScheduler[Any], tokens: Any) -> None:
    hidden = masks(scheduler, tokens).hidden.float()
    share = float(hidden.mean())
    # A share of 3,000 draws has a standard deviation of 0.009.
    torch.testing.assert_close(hidden.mean(0), torch.full((tokens.length,), share), atol=0.045, rtol=0)


# Refusals


def test_tubes_off_the_grid_are_refused() -> None:
    with pytest.raises(ShapeError, match="needs tokens on a grid"):
        masks(Tube(axis="height"), layouts()["off the grid"])


@pytest.mark.parametrize(
    ("scheduler", "layout", "message"),
    [
        (Tube(), "two axes", "no axis 'time'"),
        (Strips(shares={"frequency": 0.5}), "two axes", "no axis 'frequency'"),
        (Tube(ratio=0.9), "one axis", "all of the 1 tubes along time"),
        (Strips(shares={"time": 0.9}), "three axes", "hides all of the 2 slices across time"),
        (Strips(shares={"height": 0.5, "width": 0.05}), "two axes", "hides none of the 6 slices across width"),
        (Strips(shares={"time": {"shape": "linear", "end": 0.99}}), "one axis", "hides all of the 16 slices"),
        (Channels(ratio=0.9), "channels", "hides all of the 3 channels"),
        (Aligned(ratio=0.97), "channels", "hides all of the 8 places"),
    ],
)
def test_what_can_be_known_is_refused_when_the_model_is_built(
    scheduler: MaskScheduler[Any], layout: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        attached(scheduler, layouts()[layout])
    assert "mask." in str(caught.value.where)


@pytest.mark.parametrize(("scheduler", "setting"), [(Tube(), "mask.axis"), (Strips(), "mask.shares")])
def test_an_axis_that_the_tokens_lack_is_named_with_its_setting(scheduler: MaskScheduler[Any], setting: str) -> None:
    with pytest.raises(ConfigError, match="no axis 'time'") as caught:
        masks(scheduler, layouts()["two axes"])
    assert caught.value.where == setting
    assert "height, width" in str(caught.value)


@pytest.mark.parametrize("scheduler", [Channels(), Aligned()])
def test_tokens_without_channels_are_refused(scheduler: MaskScheduler[Any]) -> None:
    with pytest.raises(ShapeError, match="carry none"):
        masks(scheduler, layouts()["two axes"])


@pytest.mark.parametrize(
    ("scheduler", "tokens"),
    [
        (Tube(ratio=0.5), grid(2, 8)),
        (Strips(shares={"height": 0.5}), grid(2, 1, 8)),
        (Channels(), grid(2, 8, channels=1)),
    ],
)
def test_a_single_place_would_hide_everything(scheduler: MaskScheduler[Any], tokens: Any) -> None:
    with pytest.raises(ShapeError, match="would hide everything"):
        masks(scheduler, tokens)


@pytest.mark.parametrize("shares", [{}, {"time": 1}, {"time": 0}, {"time": "much"}])
def test_bad_shares_are_refused(shares: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Strips(shares=shares)


def test_channels_may_have_any_number_and_be_named_per_sample() -> None:
    tokens = grid(4, 6, channels=3)
    assert tokens.channel is not None
    named = replace(tokens, channel=(tokens.channel * 1000 + 7).expand(4, -1))
    assert torch.equal(masks(Channels(), named).hidden, masks(Channels(), tokens).hidden)
    off = replace(named, grid=None)
    hidden = masks(Channels(), off).hidden.reshape(4, 3, 6)
    assert (hidden == hidden[:, :, :1]).all()
