"""Conversions against what they stand for, computed by timm or by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_patch_embed
from torch import Tensor

from maskedmodel.weights.convert import (
    TokenLayout,
    chosen_channels,
    head_channels,
    repeated_channels,
    resampled_axis,
    resampled_embed,
    resampled_head,
    resize_matrix,
)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("new", [(8, 8), (3, 6), (4, 4), (2, 2)])
def test_another_patch_is_flexivits(new: tuple[int, int]) -> None:
    kernel = random(6, 4, 4, 3)
    theirs = resample_patch_embed(kernel.permute(0, 3, 1, 2), list(new)).permute(0, 2, 3, 1)
    torch.testing.assert_close(resampled_embed(kernel, (4, 4), new), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("new", [(5,), (4, 6), (2, 4, 5)])
def test_a_larger_patch_gives_what_the_smaller_gave(new: tuple[int, ...]) -> None:
    old = tuple(extent - 1 if extent > 2 else extent for extent in new)
    kernel, patches = random(6, *old, 2), random(5, *old, 2)
    larger = resampled_head(patches, old, new)  # the same resizing
    before = patches.flatten(1) @ kernel.flatten(1).T
    after = larger.flatten(1) @ resampled_embed(kernel, old, new).flatten(1).T
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_a_resized_prediction_is_a_resized_picture() -> None:
    patch = random(1, 3, 6, 6)
    theirs = F.interpolate(patch, (4, 9), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    ours = resampled_head(patch.permute(0, 2, 3, 1), (6, 6), (4, 9))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert torch.allclose(resize_matrix(6, 4).sum(1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(("old", "new"), [(3, 5), (3, 1), (1, 3)])
def test_repeated_channels_see_a_grey_picture_alike(old: int, new: int) -> None:
    kernel, grey = random(6, 4, old), random(2, 4, 1)
    before = grey.expand(2, 4, old).flatten(1) @ kernel.flatten(1).T
    after = grey.expand(2, 4, new).flatten(1) @ repeated_channels(kernel, new).flatten(1).T
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_channels_by_number() -> None:
    kernel = random(6, 4, 3)
    chosen = chosen_channels(kernel, [2, None, 0])
    assert torch.equal(chosen[..., 0], kernel[..., 2])
    assert not chosen[..., 1].any()
    assert torch.equal(chosen[..., 2], kernel[..., 0])
    rows = head_channels(kernel, 3, [2, None, 0])
    assert torch.equal(rows[..., 0], kernel[..., 2])
    torch.testing.assert_close(rows[..., 1], kernel.mean(-1))
    torch.testing.assert_close(head_channels(kernel, 2, None), kernel.mean(-1, keepdim=True).expand(6, 4, 2))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_token_unfolds_and_folds(channels_last: bool) -> None:
    layout = TokenLayout((2, 3), 4, channels_last)
    values = random(5, layout.width)
    box = layout.unfold(values)
    assert box.shape == (5, 2, 3, 4)
    place = (1 * 3 + 2) * 4 + 3 if channels_last else (3 * 2 + 1) * 3 + 2
    assert torch.equal(box[:, 1, 2, 3], values[:, place])
    assert torch.equal(layout.fold(box), values)


def test_a_table_along_an_axis_stretches() -> None:
    line = torch.arange(4.0)[:, None]
    assert resampled_axis(line, 4) is line
    torch.testing.assert_close(resampled_axis(line, 2), torch.tensor([[0.5], [2.5]]))
    torch.testing.assert_close(resampled_axis(line, 8)[:3], torch.tensor([[0.0], [0.25], [0.75]]))
