"""points: centres and neighbours against a plain version, and what order and number of points may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.chamfer import Chamfer
from maskedmodel_points.embedding import MiniPointNet
from maskedmodel_points.neighbours import farthest_points, nearest_points
from maskedmodel_points.tokenizer import Points
from torch import Tensor, nn

from maskedmodel import Mask, MaskedAutoencoder, Noise
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import ShapeError
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry


def cloud(count: int, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def padded(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A batch of one, filled up with points that aren't real."""
    real = torch.arange(size) < len(points)
    return torch.cat([points, points.new_zeros(size - len(points), 3)])[None], real[None]


def by_hand(points: np.ndarray, count: int) -> list[int]:
    """Farthest-point sampling as a loop over points."""
    first = int(np.square(points - points.mean(0)).sum(1).argmax())
    found = [first]
    while len(found) < count:
        nearest = [min(np.square(points[i] - points[j]).sum() for j in found) for i in range(len(points))]
        if max(nearest) == 0:
            break
        found.append(int(np.argmax(nearest)))
    return found


@given(number=st.integers(1, 40), count=st.integers(1, 12), more=st.integers(0, 7), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_centres_are_those_of_a_plain_loop(number: int, count: int, more: int, seed: int) -> None:
    points = cloud(number, seed)
    centres, distinct = farthest_points(*padded(points, number + more), count)
    expected = by_hand(points.double().numpy(), count)
    assert distinct[0].tolist() == [place < number for place in range(count)]
    assert centres[0, : len(expected)].tolist() == expected


@given(number=st.integers(1, 40), count=st.integers(1, 50), more=st.integers(0, 7), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_neighbours_are_those_of_a_sort(number: int, count: int, more: int, seed: int) -> None:
    points, places = cloud(number, seed), cloud(3, 9)
    found = nearest_points(places[None], *padded(points, number + more), count)[0]
    apart = (places.double()[:, None] - points.double()).square().sum(2).numpy()
    order = np.argsort(apart, 1, kind="stable")
    assert found.tolist() == [[int(row[i % min(number, count)]) for i in range(count)] for row in order]


def test_of_equally_far_points_the_first_counts() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    twice = torch.cat([corners, corners])
    real = torch.ones(1, 16, dtype=torch.bool)
    centres, distinct = farthest_points(twice[None], real, 10)
    assert distinct[0].tolist() == [True] * 8 + [False] * 2, "points that coincide are one place"
    assert centres[0, 0] == 0
    assert sorted(centres[0, :8].tolist()) == list(range(8))
    assert nearest_points(torch.zeros(1, 1, 3), twice[None], real, 5)[0, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_points_says_nothing() -> None:
    tokenizer = Points(points=100, groups=8, group=5)
    points = tokenizer.prepare(cloud(100)[None])
    turned = points[:, torch.randperm(100, generator=torch.Generator().manual_seed(3))]
    one, other = tokenizer.tokenize(points), tokenizer.tokenize(turned)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.coords, other.coords)


def test_tokens_are_the_neighbourhoods_of_their_centres() -> None:
    tokenizer = Points(points=60, groups=6, group=7, features=2, cell=0.5)
    stored = cloud(60, channels=5)[None]
    signal = tokenizer.prepare(stored)
    tokens = tokenizer.tokenize(signal)
    assert tokens.values.shape == (1, 6, 35)
    assert tokens.valid is None
    assert tokens.grid is None
    for token, place in zip(tokens.values[0].unflatten(1, (7, 5)), tokens.coords[0] * 0.5, strict=True):
        assert token[0, :3].abs().max() < 1e-7, "the centre is a point, and the nearest to itself"
        for point in token:
            apart = (signal[0, :, :3] - point[:3] - place).abs().amax(1)
            assert apart.min() < 1e-6
            assert torch.equal(signal[0, apart.argmin(), 3:], point[3:]), "features stay with their point"
    back = tokenizer.detokenize(tokens.values, tokens)
    assert back.shape == (1, 42, 5)
    assert (back[0, :, None] - signal[0]).abs().amax(2).amin(1).max() < 1e-6, "what comes back are points of the cloud"


def test_clouds_fill_a_unit_sphere() -> None:
    signal = Points(points=50).prepare(7 + 30 * cloud(50)[None])
    assert signal.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(signal.norm(dim=2).max(), torch.tensor(1.0))
    plain = 7 + 30 * cloud(50)[None]
    assert torch.equal(Points(points=50, normalise="none").prepare(plain), plain)
    assert torch.isfinite(Points(points=50).prepare(torch.ones(1, 50, 3))).all(), "points of one place"


def test_any_number_of_points_and_none_of_the_others_matters() -> None:
    tokenizer = Points(points=40, groups=8, group=12)
    clouds = [cloud(count, count) for count in (90, 40, 20, 5)]
    together = tokenizer.tokenize(tokenizer.prepare(tokenizer.collate(clouds)))
    assert together.valid is not None
    assert together.valid.sum(1).tolist() == [8, 8, 8, 5]
    noise = Noise.of(range(4))
    moved = tokenizer.augment(tokenizer.collate(clouds), noise)
    for row, points in enumerate(clouds):
        alone = tokenizer.tokenize(tokenizer.prepare(points[None]))
        real = together.valid[row]
        assert torch.equal(together.values[row], alone.values[0])
        assert torch.equal(together.coords[row], alone.coords[0])
        assert torch.equal(together.values[row][~real], torch.zeros(int((~real).sum()), 36))
        by_itself = tokenizer.augment(points[None], noise.rows(slice(row, row + 1)))
        assert torch.equal(by_itself[0].nan_to_num(-9), moved[row].nan_to_num(-9))


def test_of_larger_clouds_a_part_is_taken() -> None:
    tokenizer = Points(points=10, groups=2, group=2, normalise="none", scale=(1, 1), shift=0)
    stored = torch.arange(90.0).view(1, 30, 3)
    assert torch.equal(tokenizer.prepare(stored), stored[:, ::3])
    drawn = [tokenizer.augment(stored, Noise.of(["a"], epoch=epoch))[0] for epoch in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(set(drawn[0][:, 0].tolist())) == 10, "without repeats"
    assert set(drawn[0][:, 0].tolist()) <= set(stored[0, :, 0].tolist())
    counts = torch.zeros(30)
    for epoch in range(300):
        counts[(tokenizer.augment(stored, Noise.of(["a"], epoch=epoch))[0, :, 0] / 3).long()] += 1
    assert 60 < counts.min() < counts.max() < 145, "each point as likely: 100 of 300 times"


@pytest.mark.parametrize("turn", ["upright", "any"])
def test_turns_keep_distances_and_are_even(turn: Any) -> None:
    tokenizer = Points(points=30, groups=2, group=2, turn=turn, scale=(1, 1), shift=0)
    stored = tokenizer.prepare(cloud(30).expand(2000, -1, -1))
    turned = tokenizer.augment(stored, Noise.of(range(2000)))
    torch.testing.assert_close(
        torch.cdist(turned[:50], turned[:50]), torch.cdist(stored[:50], stored[:50]), atol=1e-3, rtol=0
    )
    assert torch.linalg.det(turned[:50, :3]).sub(torch.linalg.det(stored[:50, :3])).abs().max() < 1e-4, (
        "none is mirrored"
    )
    mean = turned[:, 0].mean(0)
    if turn == "upright":
        torch.testing.assert_close(turned[..., 2], stored[..., 2], atol=1e-5, rtol=0)
        mean = mean[:2]
    assert mean.abs().max() < 0.05, "no direction is preferred"


def test_axes_are_stretched_and_moved_within_the_range() -> None:
    tokenizer = Points(points=20, groups=2, group=2)
    stored = tokenizer.prepare(cloud(20).expand(300, -1, -1))
    moved = tokenizer.augment(stored, Noise.of(range(300)))
    factor = (moved.amax(1) - moved.amin(1)) / (stored.amax(1) - stored.amin(1))
    assert factor.min() >= 2 / 3 - 1e-5
    assert factor.max() <= 1.5 + 1e-5
    assert factor.max() - factor.min() > 0.75
    shift = moved.mean(1)
    assert 0.19 < shift.abs().max() <= 0.2 + 1e-5


def test_what_is_no_cloud_is_refused() -> None:
    tokenizer = Points(points=20)
    with pytest.raises(ShapeError, match=r"\(batch, points, 3\)"):
        tokenizer.prepare(torch.zeros(2, 3, 20))
    with pytest.raises(ShapeError, match="prepare a stored batch first"):
        tokenizer.tokenize(torch.zeros(2, 21, 3))
    with pytest.raises(ShapeError, match="differ in shape"):
        tokenizer.collate([torch.zeros(4, 3), torch.zeros(4, 4)])
    with pytest.raises(ValueError, match="directions"):
        Points(features=3, turn="any")
    with pytest.raises(ValueError, match="low <= high"):
        Points(scale=(2, 1))


def model_of(**changes: Any) -> MaskedAutoencoder:
    both = {"dim": 24, "depth": 2, "heads": 2, "positions": "mlp", "repeat_positions": True}
    tokenizer = Points(points=64, groups=8, group=6, embed=16, **changes)
    scheduler = load_registry(allow=["masks"]).get("mask_scheduler", "uniform")(ratio=0.5)
    with seeded(0):
        chosen = ModelSettings.model_validate({"encoder": {**both, "class_token": False}, "decoder": both})
        return MaskedAutoencoder(tokenizer, scheduler, Chamfer(dims=tokenizer.channels), chosen)


def test_point_mae_with_clouds_of_uneven_sizes() -> None:
    """Each cloud's loss is what it is alone, and no gradient comes from what fills a smaller one up."""
    model = model_of()
    clouds = [cloud(count, count) for count in (64, 30, 6)]
    signal = model.tokenizer.prepare(model.tokenizer.collate(clouds))
    tokens = model.tokens(signal)
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(3)))
    output = model(tokens, mask)
    assert torch.isfinite(output.loss)
    total, count = 0.0, 0
    for row in range(3):
        length = 8 if tokens.valid is None else int(tokens.valid[row].sum())
        alone = model(
            type(tokens)(tokens.values[row : row + 1, :length], tokens.coords[row : row + 1, :length], tokens.axes),
            Mask(mask.hidden[row : row + 1, :length]),
        )
        total, count = total + float(alone.loss_per_token.detach().sum()), count + alone.loss_per_token.numel()
    assert float(output.loss.detach()) == pytest.approx(total / count, rel=1e-5)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.parameters())


def test_the_embedding_takes_points_as_a_set() -> None:
    model = model_of(features=1)
    values = torch.randn(2, 3, 24)
    turned = values.unflatten(2, (6, 4))[:, :, torch.tensor([3, 0, 5, 1, 4, 2])].flatten(2)
    torch.testing.assert_close(model.encoder.embed(turned), model.encoder.embed(values))
    twice = values.unflatten(2, (6, 4))[:, :, torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])].flatten(2)
    torch.testing.assert_close(model.encoder.embed(twice), model.encoder.embed(values), msg="repeats are no change")


def test_it_makes_a_graph_for_a_batch_of_any_size() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = Points(points=30, groups=4, group=5)

        def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
            tokens = self.tokenizer.tokenize(signal)
            return tokens.values, tokens.coords

    given = torch.stack([cloud(30, seed) for seed in range(4)])  # as many clouds as tokens
    program = torch.export.export(Cut(), (given[:3],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for ours, theirs in zip(Cut()(given), program.module()(given), strict=True):
        assert torch.equal(ours, theirs)


def test_the_embedding_is_the_formula() -> None:
    """One token in numpy: two layers a point, the largest of each feature beside them, two layers, the largest."""
    with seeded(3):
        module = MiniPointNet(3, 5, 4)
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape)
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))

    def layers(x: np.ndarray, stack: Any) -> np.ndarray:
        first, norm, _, second = ({k: v.double().numpy() for k, v in part.state_dict().items()} for part in stack)
        x = x @ first["weight"].T + first["bias"]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * norm["weight"] + norm["bias"]
        return np.maximum(x, 0) @ second["weight"].T + second["bias"]

    alone = layers(points.double().numpy(), module.alone)
    together = layers(np.concatenate([np.tile(alone.max(0), (7, 1)), alone], 1), module.together)
    got = module(points.flatten()[None, None]).detach().numpy()
    np.testing.assert_allclose(got, together.max(0)[None, None], atol=1e-5)


def test_the_picture_draws_each_point_where_it_is_and_nothing_else() -> None:
    tokenizer = Points(points=64, groups=8, group=6)
    signal = tokenizer.prepare(cloud(64)[None])
    white = (tokenizer.picture(signal) == 1).all(1)
    assert 0.3 < float(white.float().mean()) < 1
    none = tokenizer.picture(torch.full_like(signal, torch.nan), signal)
    assert (none == 1).all()
    one = torch.full_like(signal, torch.nan)
    one[0, 5] = signal[0, 5]
    inked = ~(tokenizer.picture(one, signal) == 1).all(1)
    assert 0 < int(inked.sum()) <= 5
    assert not (inked & white).any()


def test_plain_features_do_not_depend_on_how_a_cloud_is_turned() -> None:
    tokenizer = Points(points=200)
    stored = tokenizer.prepare(cloud(200)[None])
    turned = Points(points=200, turn="any", scale=(1, 1), shift=0).augment(stored, Noise.of(["x"]))
    one, other = tokenizer.plain_features(stored), tokenizer.plain_features(turned)
    assert set(one) == {"distances of points", "spread along axes"}
    torch.testing.assert_close(one["spread along axes"], other["spread along axes"], atol=1e-4, rtol=0)
    assert (one["distances of points"] - other["distances of points"]).abs().max() < 2e-3
    assert float(one["distances of points"].sum()) == pytest.approx(1, abs=1e-5)
    few = tokenizer.plain_features(tokenizer.collate([cloud(5), cloud(200)]))
    assert all(torch.isfinite(found).all() for found in few.values())
