"""Keypoints: the conformance kit, losses and metrics by hand, and that points move as their pictures do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_image.tokenizer import ImageTokenizer
from maskedmodel_tasks.points import Points
from scipy.stats import entropy
from torch import Tensor

from maskedmodel import Noise
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Labels
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, generator

NAMES = ("nose", "left_eye", "right_eye")


@parametrize_checks([Points, Points(finer=1, spread=0.7, reference=20.0), Points(finer=100)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def attached(tokenizer: Any = None, names: tuple[str, ...] = NAMES, **settings: Any) -> Points:
    task = Points(**settings)
    tokenizer = tokenizer or ImageTokenizer(size=(24, 16), patch=8, channels=1)
    task.attach(tokenizer, 8, Labels(names, (4,) * len(names), (len(names), 3)))
    return task


def known(*points: tuple[float, float]) -> Tensor:
    return torch.tensor([points])


NONE = (math.nan, math.nan)


def test_the_loss_is_the_divergence_from_a_gaussian_round_the_point() -> None:
    """Against scipy: cells of 2 pixels, a spread of 1.5 of them, a point anywhere."""
    task = attached(spread=1.5)
    logits = torch.randn(1, 3, 12, 8, generator=generator())
    point = (7.3, 15.1)
    found = task.loss(logits, known(NONE, point, NONE))
    rows, columns = np.meshgrid(np.arange(12) * 2 + 1, np.arange(8) * 2 + 1, indexing="ij")
    wanted = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / 2 / 3.0**2)
    expected = entropy((wanted / wanted.sum()).ravel(), logits[0, 1].flatten().softmax(0).numpy())
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert task.weight(known(NONE, point, NONE)).tolist() == [1]
    both = task.loss(logits, known(point, point, NONE))
    alone = [task.loss(logits, known(*(point if place == own else NONE for place in range(3)))) for own in (0, 1)]
    torch.testing.assert_close(both, torch.stack(alone).mean(0))


def test_a_point_that_is_not_known_has_no_gradient_at_all() -> None:
    task = attached()
    logits = torch.randn(2, 3, 12, 8, generator=generator()).requires_grad_()
    target = torch.tensor([[NONE, (3.0, 4.0), (9.0, 20.0)], [NONE, NONE, NONE]])
    loss = task.loss(logits, target)
    assert loss[1] == 0
    (loss * task.weight(target)).sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, 0].any()
    assert not logits.grad[1].any()
    assert bool(logits.grad[0, 1:].any())


@pytest.mark.parametrize("point", [(8.0, 12.0), (5.37, 17.9), (11.0, 6.2), (0.3, 0.4), (15.8, 23.9)])
def test_a_perfect_heatmap_gives_its_point_back(point: tuple[float, float]) -> None:
    """Within a cell, at the border within half a spread of it."""
    task = attached()
    heat = task._gaussians(known(point, point, point), (12, 8)).reshape(1, 3, 12, 8)
    found = task.places(heat.clamp(min=1e-30).log())
    inside = 3 < point[0] < 13 and 3 < point[1] < 21
    assert found[0, 0, :2].tolist() == pytest.approx(point, abs=0.35 if inside else 2.0)
    assert 0.5 < float(found[0, 0, 2]) <= 1


def test_shares_of_points_by_hand() -> None:
    task = attached()
    truth = torch.tensor(
        [[(0.0, 0.0), (10.0, 0.0), (10.0, 20.0)], [(1.0, 1.0), NONE, NONE], [(0.0, 0.0), (5.0, 5.0), NONE]]
    )
    away = torch.tensor([[(1.5, 0.0), (0.0, 3.0), (0.0, 4.5)], [(9.0, 0.0)] * 3, [(0.24, 0.18)] * 3])
    guess = truth.nan_to_num(3.0) + away
    guess = torch.cat([guess, torch.ones(3, 3, 1)], 2)
    distance, side = task.digest(guess, truth)
    assert side[0] == 20
    assert math.isnan(side[1])  # a single point has no box
    assert side[2] == 5
    found = task.metrics(distance, side)
    # Within 2: 1.5; within 4: and 3. Of the last sample both, 0.3 of 5 each.
    assert found["PCK@0.1"] == pytest.approx(3 / 5)
    assert found["PCK@0.2"] == pytest.approx(4 / 5)
    assert found["distance"] == pytest.approx((1.5 + 3 + 4.5 + 9 + 0.3 + 0.3) / 6)
    rows = task.tables(distance, side)[0].rows
    assert [row[0] for row in rows] == list(NAMES)
    assert rows[0][1:] == (1.0, 1.0, pytest.approx((1.5 + 9 + 0.3) / 3), 3)
    assert [row[-1] for row in rows] == [3, 2, 1]
    fixed = attached(reference=30.0)
    assert fixed.metrics(*fixed.digest(guess, truth))["PCK@0.1"] == pytest.approx(4 / 6)
    nothing = task.metrics(torch.full((2, 3), torch.nan), torch.full((2,), torch.nan))
    assert all(math.isnan(value) for value in nothing.values())


SIZES = [((20, 20), 16), ((31, 17), (24, 16)), ((16, 16), 16), ((13, 40), (16, 24))]


def dot(height: int, width: int, x: int, y: int) -> Tensor:
    picture = torch.zeros(1, 1, height, width)
    picture[0, 0, y, x] = 1
    return picture


def brightest(picture: Tensor) -> tuple[float, float]:
    """The middle of mass, in pixels from the upper left edge."""
    weight = picture[0, 0].clamp(min=0).double()
    rows, columns = (torch.arange(extent) + 0.5 for extent in weight.shape)
    return float((weight.sum(0) * columns).sum() / weight.sum()), float((weight.sum(1) * rows).sum() / weight.sum())


@pytest.mark.parametrize(("stored", "size"), SIZES)
@pytest.mark.parametrize("crop", [None, (0.3, 1.0)])
def test_points_move_as_their_pictures_do(stored: tuple[int, int], size: Any, crop: Any) -> None:
    """A dot in a picture lies where its point does, prepared and augmented, in whatever size; lost ones lie outside."""
    tokenizer = ImageTokenizer(size=size, patch=8, channels=1, crop=crop, interpolation="bilinear")
    height, width = tokenizer.size
    inside = outside = 0
    for seed in range(30):
        x, y = seed * 7 % stored[1], seed * 5 % stored[0]
        picture, point = dot(*stored, x, y), torch.tensor([[[x + 0.5, y + 0.5, 0.0]]])
        for noise in (None, Noise.of([f"s{seed}"])):
            seen = tokenizer.prepare(picture) if noise is None else tokenizer.augment(picture, noise)
            to_x, to_y, mate = tokenizer.move_target(point, picture, noise)[0, 0].tolist()
            assert mate == 0
            step = max(height / stored[0], width / stored[1]) + 1
            if 2 * step < to_x < width - 2 * step and 2 * step < to_y < height - 2 * step:
                assert brightest(seen) == pytest.approx((to_x, to_y), abs=0.35 * step)
                inside += 1
            elif not (-step < to_x < width + step and -step < to_y < height + step):
                assert not seen.any()
                outside += 1
    assert inside > 5
    assert outside > 0 or crop is None


def test_mirrored_points_change_places_and_those_without_a_partner_are_lost() -> None:
    tokenizer = ImageTokenizer(size=16, patch=8, channels=1, crop=None, flip=True)
    points = torch.tensor([[[3.0, 4.0, 1], [10.0, 5.0, 0], [8.0, 9.0, 2], [2.0, 2.0, -1]]]).expand(40, -1, -1)
    noise = Noise.of(range(40))
    flipped = noise.uniform(1, purpose="flip")[:, 0] < 0.5
    assert 5 < int(flipped.sum()) < 35
    found = tokenizer.move_target(points, torch.zeros(40, 1, 16, 16), noise)
    for row, mirrored in zip(found, flipped.tolist(), strict=True):
        if not mirrored:
            assert torch.equal(row, points[0])
            continue
        assert row[:3].tolist() == [[6, 5, 1], [13, 4, 0], [8, 9, 2]]
        assert row[3, :2].isnan().all()


def test_what_a_crop_leaves_out_is_not_scored() -> None:
    task = attached()
    moved = torch.tensor([[[-0.1, 4.0, 0], [3.0, 24.0, 1], [16.01, 5.0, 2]]])
    assert task.target(moved)[0].isnan().any(-1).tolist() == [True, False, True]


def test_places_go_back_through_preparing_and_to_the_file() -> None:
    tokenizer = ImageTokenizer(size=(24, 16), patch=8, channels=1)
    task = attached(tokenizer)
    stored = torch.zeros(2, 1, 37, 29)
    points = torch.rand(2, 3, 2, generator=generator()) * 20 + 5
    given = torch.cat([points, torch.zeros(2, 3, 1)], 2)
    seen = tokenizer.move_target(given, stored)[..., :2]
    back = task.restore(tokenizer, torch.cat([seen, torch.full((2, 3, 1), 0.5)], 2), stored)
    torch.testing.assert_close(back[..., :2], points, rtol=1e-4, atol=1e-4)
    assert bool((back[..., 2] == 0.5).all())
    box = torch.tensor([[[0.0, 37.0], [0.0, 29.0]], [[10.0, 84.0], [3.0, 61.0]]])
    found = task.to_file(back, stored, box)
    torch.testing.assert_close(found[0], back[0])
    torch.testing.assert_close(found[1, :, 0], 3 + 2 * back[1, :, 0])
    torch.testing.assert_close(found[1, :, 1], 10 + 2 * back[1, :, 1])


@pytest.mark.parametrize(
    ("tokenizer", "labels", "settings", "text"),
    [
        (Box(), Labels(("a", "b"), (1, 1)), {}, "no points to learn"),
        (Box(), Labels((), (), (1, 4)), {}, "no points to learn"),
        (Box(axes=("time",), size=(48,), patch=(6,)), Labels(("a", "b"), (1, 1), (2, 3)), {}, "Points lie in pictures"),
        (Box(), Labels(("a",), (1,), (1, 3)), {}, "single point has no box"),
        (Box(), Labels(("a",), (1,), (1, 3)), {"reference": 8.0}, None),
    ],
)
def test_what_has_no_points_is_refused(tokenizer: Box, labels: Labels, settings: Any, text: str | None) -> None:
    if text is None:
        Points(**settings).attach(tokenizer, 8, labels)
        return
    with pytest.raises(ConfigError, match=text):
        Points(**settings).attach(tokenizer, 8, labels)
