"""Blocks, the regular lattice and filtered noise: the kit, exact counts, shape, even coverage, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_masks.blocks import Blocks
from maskedmodel_masks.filtered_noise import FilteredNoise
from maskedmodel_masks.grid import Grid
from maskedmodel_masks.uniform import Uniform
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import MaskScheduler
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import attached, layouts
from maskedmodel.tokens import hidden_count
from tests.plugins.maskedmodel_masks.mask_tokens import grid, masks

RAMP = {"shape": "linear", "start": 0.3, "end": 0.7, "levels": 5}
PATTERNS = [Blocks, Grid, FilteredNoise]


@parametrize_checks(
    [
        Blocks,
        Blocks(ratio=RAMP, shared=True, smallest=0.02, largest=0.02, aspect=1),
        Grid,
        Grid(ratio=RAMP, period=3, shared=True),
        FilteredNoise,
        FilteredNoise(ratio=RAMP, colour="red", shared=True),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("cls", PATTERNS)
@given(
    ratio=st.floats(0.05, 0.95), extents=st.lists(st.integers(2, 7), min_size=1, max_size=3), channels=st.integers(0, 3)
)
@settings(deadline=None, max_examples=15)
def test_counts_are_exact(cls: type[MaskScheduler[Any]], ratio: float, extents: list[int], channels: int) -> None:
    tokens = grid(3, *extents, channels=channels)
    hidden = masks(cls(ratio=ratio), tokens).hidden
    assert hidden.sum(1).unique().tolist() == [hidden_count(tokens.length, ratio)]


def joins(hidden: Tensor) -> float:
    """The share of neighbours along rows and columns (B, H, W) that are both hidden or both visible."""
    across, down = hidden[:, 1:] == hidden[:, :-1], hidden[:, :, 1:] == hidden[:, :, :-1]
    return float(torch.cat([across.flatten(), down.flatten()]).float().mean())


# Coverage


@pytest.mark.parametrize(
    "scheduler",
    [
        Blocks(ratio=0.5),
        Blocks(ratio=0.8, smallest=0.02, largest=0.3),
        Grid(ratio=0.75),
        Grid(ratio=0.4, period=3),
        FilteredNoise(ratio=0.6),
        FilteredNoise(ratio=0.6, colour="red"),
    ],
)
@pytest.mark.parametrize("extents", [(12,), (6, 9), (2, 4, 4)])
def test_every_token_is_hidden_about_as_often(scheduler: MaskScheduler[Any], extents: tuple[int, ...]) -> None:
    tokens = grid(4000, *extents)
    hidden = masks(scheduler, tokens).hidden.float()
    share = float(hidden.mean())
    # A share of 4,000 draws has a standard deviation of 0.008; blocks are cut and grown by a rule that knows edges.
    wide = 0.06 if isinstance(scheduler, Blocks) else 0.035
    torch.testing.assert_close(hidden.mean(0), torch.full((tokens.length,), share), atol=wide, rtol=0)


# Blocks


def test_blocks_hold_together() -> None:
    tokens = grid(500, 14, 14)
    blocks, single = (masks(s, tokens).hidden.reshape(-1, 14, 14) for s in (Blocks(ratio=0.5), Uniform(ratio=0.5)))
    assert joins(single) == pytest.approx(0.5, abs=0.01)
    assert joins(blocks) > 0.75


def test_a_single_size_below_the_ratio_makes_rectangles() -> None:
    """Two blocks of a quarter at most, and half of the tokens: hidden is a union of few boxes."""
    tokens = grid(200, 16)
    hidden = masks(Blocks(ratio=0.25, smallest=0.4, largest=0.4, aspect=1), tokens).hidden
    runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0]
    assert float((runs <= 2).float().mean()) > 0.95


def test_smaller_blocks_are_more_numerous_and_looser() -> None:
    tokens = grid(300, 14, 14)
    large, small = (
        joins(masks(Blocks(ratio=0.5, smallest=size, largest=size), tokens).hidden.reshape(-1, 14, 14))
        for size in (0.2, 0.02)
    )
    assert large > small > 0.55
    assert Blocks(smallest=0.02, largest=0.02).blocks(0.5, 2) > Blocks(smallest=0.2, largest=0.2).blocks(0.5, 2)


def test_blocks_work_off_the_grid() -> None:
    tokens = layouts()["off the grid"]
    hidden = masks(Blocks(ratio=0.4), tokens).hidden
    distance = torch.cdist(tokens.coords, tokens.coords)
    both = hidden[:, :, None] & hidden[:, None]
    other = hidden[:, :, None] & ~hidden[:, None]
    assert float(distance[both].mean()) < float(distance[other].mean()) - 0.5


def test_channels_have_blocks_of_their_own_unless_shared() -> None:
    tokens = grid(50, 8, 8, channels=3, axes=("height", "width"))
    for cls in PATTERNS:
        own = masks(cls(ratio=0.5), tokens).hidden.reshape(50, 3, 64)
        shared = masks(cls(ratio=0.5, shared=True), tokens).hidden.reshape(50, 3, 64)
        assert float((own[:, 0] == own[:, 1]).float().mean()) < 0.7
        # The count is exact, so the last block or place may be hidden in some channels only.
        assert float((shared[:, 0] == shared[:, 1]).float().mean()) > 0.9


# The lattice


def test_the_lattice_keeps_one_of_each_four() -> None:
    visible = masks(Grid(), grid(64, 8, 6)).visible.reshape(64, 4, 2, 3, 2)
    cells = visible.permute(0, 1, 3, 2, 4).reshape(64, 12, 4)
    assert (cells.sum(2) == 1).all()
    assert (cells == cells[:, :1]).all()
    assert cells[:, 0].float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.2)


def test_the_lattice_may_repeat_along_some_axes() -> None:
    visible = masks(Grid(ratio=0.5, axes=("height",)), grid(16, 8, 5)).visible.reshape(16, 4, 2, 5)
    assert (visible == visible[:, :1, :, :1]).all()


def test_a_lattice_that_does_not_divide_still_counts_exactly() -> None:
    hidden = masks(Grid(ratio=0.7, period=3), grid(16, 7, 5)).hidden
    assert hidden.sum(1).unique().tolist() == [hidden_count(35, 0.7)]


def test_an_axis_that_the_lattice_lacks_is_refused_when_the_model_is_built() -> None:
    with pytest.raises(ConfigError, match="no axis 'depth'") as caught:
        attached(Grid(axes=("height", "depth")), layouts()["two axes"])
    assert caught.value.where == "mask.axes"


# Filtered noise


def test_colours_sort_by_how_much_neighbours_join() -> None:
    tokens = grid(400, 14, 14)
    order = [
        joins(masks(FilteredNoise(ratio=0.5, colour=colour), tokens).hidden.reshape(-1, 14, 14))
        for colour in ("blue", "green", "red")
    ]
    assert order == sorted(order)
    assert order[0] < 0.45 < 0.55 < order[1] < order[2]


def test_noise_is_band_pass() -> None:
    """The power of a green field lies between those of the widths; that of a purple one outside."""
    white = torch.randn(200, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    frequency = torch.fft.fftfreq(32)[:, None].square() + torch.fft.fftfreq(32)[None].square()
    frequency = frequency.sqrt()
    power = {}
    for colour in ("green", "purple"):
        field = FilteredNoise(colour=colour)._filtered(white, (32, 32))
        assert float(field.mean((2, 3)).abs().max()) < 1e-6
        power[colour] = torch.fft.fft2(field).abs().square().mean((0, 1))
    inside, outside = (
        (frequency > 0.12) & (frequency < 0.25),
        ((frequency < 0.05) | (frequency > 0.6)) & (frequency > 0),
    )
    assert float(power["green"][inside].mean()) > 4 * float(power["green"][outside].mean())
    assert float(power["purple"][inside].mean()) < 0.5 * float(power["purple"][outside].mean())


def test_noise_on_a_grid_of_one_falls_back_on_the_noise_of_tokens() -> None:
    """Along an axis of one cell no filter leaves anything, and which channel is hidden is even chance."""
    hidden = masks(FilteredNoise(ratio=0.5), grid(2000, 1, channels=4)).hidden.float()
    torch.testing.assert_close(hidden.mean(0), torch.full((4,), 0.5), atol=0.05, rtol=0)


@pytest.mark.parametrize("scheduler", [Grid(), FilteredNoise()])
def test_what_needs_a_grid_refuses_tokens_off_it(scheduler: MaskScheduler[Any]) -> None:
    with pytest.raises(ShapeError, match="needs tokens on a grid"):
        masks(scheduler, layouts()["off the grid"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Blocks(smallest=0.3, largest=0.2), "smallest must not be above largest"),
        (lambda: Blocks(aspect=0), "greater than 0"),
        (lambda: Blocks(largest=1), "less than 1"),
        (lambda: Grid(period=1), "greater than or equal to 2"),
        (lambda: Grid(axes=()), "at least 1"),
        (lambda: FilteredNoise(fine=2, coarse=1), "fine must be below coarse"),
        (lambda: FilteredNoise(colour="pink"), "green"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()


@pytest.mark.parametrize("cls", PATTERNS)
def test_ratios_beyond_the_number_of_tokens_are_refused_when_the_model_is_built(cls: type[MaskScheduler[Any]]) -> None:
    with pytest.raises(ConfigError, match="hides all of the 24 tokens"):
        attached(cls(ratio={"shape": "linear", "start": 0.5, "end": 0.99}), layouts()["two axes"])
