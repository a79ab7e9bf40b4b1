"""shapes: what is sampled lies on the solid, evenly by area, and depends on nothing but seed, split and index."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from maskedmodel_points.shapes import Shapes
from maskedmodel_points.solids import KINDS, surface


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_points_lie_on_the_surface() -> None:
    for seed in range(5):
        ball = surface("ball", 100, draw(seed))
        np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 1)
        across, up = _profile(surface("cylinder", 400, draw(seed)))
        tall = up.max()
        assert (np.isclose(across, 1) | np.isclose(up, 0) | np.isclose(up, tall)).all()
        across, up = _profile(surface("cone", 2000, draw(seed)))
        slope = np.isclose(up, 0) | np.isclose(across + up / np.exp(draw(seed).uniform(np.log(0.6), np.log(2.5))), 1)
        assert slope.all()
        across, up = _profile(surface("torus", 400, draw(seed)))
        tube = np.hypot(across - 1, up)
        np.testing.assert_allclose(tube, tube[0])
        across, up = _profile(surface("capsule", 4000, draw(seed)))
        tall = np.exp(draw(seed).uniform(np.log(0.6), np.log(2.5)))
        beyond = np.where(up > tall, up - tall, np.minimum(up, 0))
        assert np.abs(np.hypot(across, beyond) - 1).max() < 1e-9


def _profile(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.hypot(points[:, 0], points[:, 1]), points[:, 2]


def test_flat_faces_are_hit_by_their_area() -> None:
    """A box: on each side lies what that side is of the whole, and everything on a side."""
    points = surface("box", 60000, draw(3))
    extents = np.ptp(points, axis=0)
    low = points.min(0)
    areas = {axis: np.prod(np.delete(extents, axis)) for axis in range(3)}
    on_some = np.zeros(len(points), bool)
    for axis, area in areas.items():
        for end in (low[axis], low[axis] + extents[axis]):
            on = np.isclose(points[:, axis], end, atol=1e-9)
            on_some |= on
            share = area / (2 * sum(areas.values()))
            assert on.mean() == pytest.approx(share, abs=5 * math.sqrt(share / len(points)))
            inside = points[on][:, (axis + 1) % 3]
            assert inside.mean() == pytest.approx(low[(axis + 1) % 3] + extents[(axis + 1) % 3] / 2, abs=0.03)
    assert on_some.all()


@pytest.mark.parametrize(("kind", "share"), [("cylinder", None), ("cone", None), ("ball", 0.25), ("torus", None)])
def test_round_faces_are_hit_by_their_area(kind: str, share: float | None) -> None:
    points = surface(kind, 60000, draw(1))
    across, up = _profile(points)
    if kind == "ball":  # Archimedes: zones of equal height have equal areas
        assert (up > 0.5).mean() == pytest.approx(0.25, abs=0.01)
    elif kind == "torus":  # Pappus: the outer half has more than half, by 2 r / (pi R)
        assert (across > 1).mean() == pytest.approx(0.5 + np.ptp(up) / 2 / math.pi, abs=0.01)
    else:
        tall = up.max()
        side = 2 * tall if kind == "cylinder" else math.hypot(1, _tall(points))
        caps = 2 if kind == "cylinder" else 1
        flat = np.isclose(up, 0).mean() + (np.isclose(up, tall).mean() if kind == "cylinder" else 0)
        assert flat == pytest.approx(caps / (caps + side), abs=0.01)
        assert (across[np.isclose(up, 0)] < math.sqrt(0.5)).mean() == pytest.approx(0.5, abs=0.02)


def _tall(points: np.ndarray) -> float:
    across, up = _profile(points)
    on = up > 0.01
    return float(np.median(up[on] / (1 - across[on])))


def test_a_cloud_depends_on_seed_split_and_index_alone() -> None:
    few, many = Shapes(train_samples=10), Shapes(train_samples=40)
    for index in range(10):
        one, other = few.open("train")[index], many.open("train")[index]
        assert torch.equal(one["signal"], other["signal"])
        assert one["label"] == other["label"]
    assert not torch.equal(few.open("val")[0]["signal"][:500], few.open("train")[0]["signal"][:500])
    assert not torch.equal(Shapes(seed=1).open("train")[0]["signal"][:500], few.open("train")[0]["signal"][:500])


def test_every_part_has_all_kinds_and_every_cloud_its_own_number_of_points() -> None:
    data = Shapes(fewest=40, most=60).open("train")
    labels = [data[index]["label"] for index in range(160)]
    assert sorted(labels) == sorted(list(range(len(KINDS))) * 20)
    for step in (2, 4, 8):
        assert set(labels[::step]) == set(range(len(KINDS))), f"each {step}th sample"
    sizes = {len(data[index]["signal"]) for index in range(160)}
    assert min(sizes) >= 40
    assert max(sizes) <= 60
    assert len(sizes) > 15


def test_solids_stand_upright_or_anyhow() -> None:
    upright = Shapes(turn="upright", noise=0, size=(1, 1), fewest=400, most=400).open("train")
    flat = [index for index in range(64) if KINDS[upright[index]["label"]] == "cone"]
    for index in flat:
        points = upright[index]["signal"]
        assert (points[:, 2] - points[:, 2].min() < 1e-5).float().mean() > 0.1, "a cone stands on its base"
    anyhow = Shapes(turn="any", noise=0, size=(1, 1), fewest=400, most=400).open("train")
    tilted = [anyhow[index]["signal"] for index in flat]
    assert not any((points[:, 2] - points[:, 2].min() < 1e-5).float().mean() > 0.1 for points in tilted)
    for points in (upright[0]["signal"], anyhow[0]["signal"]):
        torch.testing.assert_close(points.norm(dim=1).max(), torch.tensor(1.0))


def test_what_no_solid_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="fewest must not exceed most"):
        Shapes(fewest=100, most=50)
    with pytest.raises(ValueError, match="0 < low <= high"):
        Shapes(size=(2, 1))
