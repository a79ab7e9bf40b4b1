"""chamfer: the conformance kit, then its formula as a loop, its gradient, its symmetries, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.chamfer import Chamfer
from torch import Tensor

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import ConfigError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, Fixed, generator


@parametrize_checks([Chamfer, Chamfer(dims=2, order="axis"), Chamfer(dims=1)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def by_hand(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """The loss of one token: lists of points."""

    def one_way(some: list[list[float]], others: list[list[float]]) -> float:
        nearest = [min(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in others) for p in some]
        return sum(nearest) / len(nearest)

    return one_way(ours, theirs) + one_way(theirs, ours)


def flat(points: Tensor, order: str) -> Tensor:
    return (points if order == "point" else points.transpose(-1, -2)).flatten(-2)


@given(
    count=st.integers(1, 9),
    dims=st.integers(1, 4),
    tokens=st.integers(0, 3),
    order=st.sampled_from(["point", "axis"]),
    far=st.sampled_from([0.0, 1e3]),
)
@settings(max_examples=60, deadline=None)
def test_the_loss_is_the_formula(
    count: int, dims: int, tokens: int, order: Literal["point", "axis"], far: float
) -> None:
    ours, theirs = (
        far + torch.randn(2, tokens, count, dims, generator=generator(i), dtype=torch.float64) for i in (1, 2)
    )
    got = Chamfer(dims=dims, order=order).loss(flat(ours, order), flat(theirs, order))
    expected = [[by_hand(ours[b, m].tolist(), theirs[b, m].tolist()) for m in range(tokens)] for b in range(2)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64).view(2, tokens))


def test_far_from_the_origin_the_nearest_is_still_the_nearest() -> None:
    points = 1e3 + torch.randn(1, 1, 32, 3, generator=generator(3))
    shuffled = points[:, :, torch.randperm(32, generator=generator(4))]
    assert Chamfer().loss(points.flatten(-2), shuffled.flatten(-2)).item() == 0.0


@pytest.mark.parametrize("order", ["point", "axis"])
def test_the_gradient_is_that_of_finite_differences(order: Literal["point", "axis"]) -> None:
    ours, theirs = (torch.randn(2, 2, 12, generator=generator(i), dtype=torch.float64) for i in (5, 6))
    objective = Chamfer(order=order)
    assert torch.autograd.gradcheck(lambda given: objective.loss(given, theirs), ours.requires_grad_())


def test_order_of_points_and_of_sets_makes_no_difference() -> None:
    ours, theirs = (torch.randn(2, 3, 8, 3, generator=generator(i)) for i in (7, 8))
    turned = ours[:, :, torch.randperm(8, generator=generator(9))]
    objective = Chamfer()
    loss = objective.loss(ours.flatten(-2), theirs.flatten(-2))
    torch.testing.assert_close(objective.loss(turned.flatten(-2), theirs.flatten(-2)), loss)
    torch.testing.assert_close(objective.loss(theirs.flatten(-2), ours.flatten(-2)), loss)


def test_what_holds_no_points_is_refused() -> None:
    with pytest.raises(ConfigError, match="no whole number of points"):
        Chamfer(dims=5).attach(Box())

    class Gaps(Box):
        accepts_nan = True

    with pytest.raises(ConfigError, match="absent in part"):
        Chamfer().attach(Gaps())


def test_a_model_learns_points() -> None:
    torch.manual_seed(0)
    tokenizer = Box()
    settings = ModelSettings.model_validate(
        {"encoder": {"dim": 32, "depth": 1, "heads": 2}, "decoder": {"dim": 32, "depth": 1, "heads": 2}}
    )
    model = MaskedAutoencoder(tokenizer, Fixed(), Chamfer(), settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    cloud = torch.randn(1, 3, 4, 4, generator=generator(10)).repeat(8, 1, 4, 4)  # every token the same points
    losses = []
    for _ in range(60):
        loss = model(cloud).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
