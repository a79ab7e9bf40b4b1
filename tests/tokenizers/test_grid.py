from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskedmodel.errors import ShapeError
from tests.boxes import AXES, Box


class Slow(Box):
    """The channel runs slowest within a token."""

    channels_last = False


class Separate(Box):
    """Each channel gives tokens of its own."""

    separate_channels = True


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    axes = draw(st.integers(1, 3))
    patch = draw(st.tuples(*[st.integers(1, 3)] * axes))
    cells = draw(st.tuples(*[st.integers(1, 4)] * axes))
    kind = draw(st.sampled_from([Box, Slow, Separate]))
    size = tuple(p * n for p, n in zip(patch, cells, strict=True))
    return kind(channels=draw(st.integers(1, 4)), size=size, patch=patch)


def numbered(box: Box, batch: int = 2) -> Tensor:
    """A signal of which no two values are equal."""
    shape = (batch, box.channels, *box.size)
    return torch.arange(math.prod(shape)).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(boxes())
def test_tokens_partition_the_signal(box: Box) -> None:
    signal = numbered(box)
    tokens = box.tokenize(signal)
    assert tokens.values.shape[2] == box.token_width
    assert tokens.grid == box.extents
    for row in range(2):  # every value is there once, and in its own sample
        assert tokens.values[row].flatten().sort().values.tolist() == signal[row].flatten().tolist()
    assert torch.equal(box.detokenize(tokens.values, tokens), signal)
    assert tokens.values.dtype == signal.dtype


@settings(max_examples=60, deadline=None)
@given(boxes())
def test_a_token_is_the_box_at_its_coordinates(box: Box) -> None:
    signal = numbered(box)
    tokens = box.tokenize(signal)
    assert tokens.length == math.prod(box.extents) * (box.channels if box.separate_channels else 1)
    for index in range(tokens.length):
        corner = [int(c) * p for c, p in zip(tokens.coords[index], box.patch, strict=True)]
        inside = tuple(slice(c, c + p) for c, p in zip(corner, box.patch, strict=True))
        if box.separate_channels:
            assert tokens.channel is not None
            expected = signal[(slice(None), int(tokens.channel[index]), *inside)]
        else:
            assert tokens.channel is None
            expected = signal[(slice(None), slice(None), *inside)]
            if box.channels_last:
                expected = expected.movedim(1, -1)
        assert torch.equal(tokens.values[:, index], expected.flatten(1))


def test_raster_order() -> None:
    tokens = Box(size=(2, 2, 3), patch=(1, 1, 1)).tokenize(torch.zeros(1, 1, 2, 2, 3))
    assert tokens.axes == AXES
    assert tokens.coords.tolist() == [list(index) for index in np.ndindex(2, 2, 3)]
    channels = Separate(channels=2, size=(3,), patch=(1,)).tokenize(torch.zeros(1, 2, 3))
    assert channels.coords[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert channels.channel is not None
    assert channels.channel.tolist() == [0, 0, 0, 1, 1, 1]


def test_other_sizes_than_the_usual_one() -> None:
    box = Box(size=(4, 6), patch=(2, 3))
    signal = torch.randn(2, 1, 8, 3)
    tokens = box.tokenize(signal)
    assert (tokens.grid, tokens.length) == ((4, 1), 4)
    assert torch.equal(box.detokenize(tokens.values, tokens), signal)


def test_separate_channels_may_be_fewer() -> None:
    box = Separate(channels=3)
    signal = torch.randn(2, 2, 4, 6)
    tokens = box.tokenize(signal)
    assert tokens.length == 8
    assert torch.equal(box.detokenize(tokens.values, tokens), signal)


@pytest.mark.parametrize("extent", [5, 1, 0])
def test_an_extent_that_does_not_divide_is_refused_with_the_nearest(extent: int) -> None:
    with pytest.raises(ShapeError) as error:
        Box(size=(4, extent), patch=(2, 3))
    assert "The width doesn't divide by the patch" in str(error.value)
    assert "multiple of 3" in str(error.value)
    assert "nearest: 3 or 6" in str(error.value)
    assert f"got: {extent}" in str(error.value)
    with pytest.raises(ShapeError, match="The width"):
        Box().tokenize(torch.zeros(1, 1, 4, extent))


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6), (2, 2, 4, 6), (2, 0, 4, 6), (2, 1, 4, 6, 1), (3,)])
def test_other_layouts_are_refused_with_numbers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as error:
        Box().tokenize(torch.zeros(shape))
    assert "(batch, 1 channels, height, width)" in str(error.value)
    assert str(shape) in str(error.value)
    with pytest.raises(ShapeError, match="1 to 2 channels"):
        Separate(channels=2).tokenize(torch.zeros(1, 3, 4, 6))


def test_axes_sizes_and_patches_must_be_as_many() -> None:
    with pytest.raises(ShapeError, match="one size and one patch"):
        Box(size=(4, 6), patch=(2,))


@settings(max_examples=20, deadline=None)
@given(boxes())
def test_examples_come_from_their_generator_alone(box: Box) -> None:
    before = torch.get_rng_state()
    one, two = (box.example(2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (2, box.channels, *box.size)
    assert one.isfinite().all()
    assert torch.equal(torch.get_rng_state(), before)
    assert box.tokenize(one).length > 0
