"""patch: the conformance kit, then MAE's formula, the three losses, and patches without spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.patch import Patch
from pydantic import ValidationError

from maskedmodel import Tokenizer
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import boxes, generator


@parametrize_checks([Patch, Patch(normalise=False), Patch(loss="l1"), Patch(loss="smooth_l1", beta=0.5)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def normalised(values: np.ndarray, epsilon: float) -> np.ndarray:
    """MAE's norm_pix_loss target in float64, value by value: unbiased variance, epsilon inside the root."""
    out = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        patch = values[place]
        mean = sum(patch) / len(patch)
        variance = sum((value - mean) ** 2 for value in patch) / (len(patch) - 1)
        out[place] = (patch - mean) / (variance + epsilon) ** 0.5
    return out


@given(
    seed=st.integers(0, 1000),
    width=st.integers(2, 20),
    scale=st.floats(1e-3, 1e3),
    epsilon=st.sampled_from([1e-6, 0.1]),
)
@settings(deadline=None, max_examples=20)
def test_the_target_is_maes(seed: int, width: int, scale: float, epsilon: float) -> None:
    values = scale * torch.randn(2, 3, width, generator=generator(seed), dtype=torch.float64)
    expected = torch.from_numpy(normalised(values.numpy(), epsilon))
    torch.testing.assert_close(Patch(epsilon=epsilon).target(values), expected)
    torch.testing.assert_close(Patch(epsilon=epsilon).target(values.float()).double(), expected, atol=1e-4, rtol=1e-4)


def test_the_loss_of_maes_formula() -> None:
    draw = generator()
    values, prediction = (torch.randn(2, 5, 12, generator=draw) for _ in range(2))
    objective = Patch()
    expected = ((prediction.double().numpy() - normalised(values.double().numpy(), 1e-6)) ** 2).mean(-1)
    loss = objective.loss(prediction, objective.target(values))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_raw_targets_are_the_values() -> None:
    values = torch.randn(2, 3, 4, generator=generator())
    assert torch.equal(Patch(normalise=False).target(values), values)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", (0.25 + 9.0 + 0.0 + 1.0) / 4),
        ("l1", (0.5 + 3.0 + 0.0 + 1.0) / 4),
        # beta = 2: d^2 / (2 beta) below it, d - beta / 2 above.
        ("smooth_l1", (0.0625 + 2.0 + 0.0 + 0.25) / 4),
    ],
)
def test_losses_by_hand(loss: Any, expected: float) -> None:
    prediction, target = torch.tensor([[[0.5, -3.0, 7.0, 1.0]]]), torch.tensor([[[0.0, 0.0, 7.0, 2.0]]])
    assert Patch(loss=loss, beta=2.0).loss(prediction, target).tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize("name", list(boxes()))
def test_predicting_zero_scores_the_baseline(name: str) -> None:
    box, objective = boxes()[name], Patch()
    count = box.token_width
    if count == 1:
        assert objective.baseline(box) is None
        return
    assert objective.baseline(box) == (count - 1) / count
    target = objective.target(torch.randn(16, 50, count, generator=generator()))
    # Exact for each patch, not on average alone: its n normalised values have a sum of squares of n - 1.
    loss = objective.loss(torch.zeros_like(target), target)
    torch.testing.assert_close(loss, torch.full_like(loss, (count - 1) / count), atol=1e-4, rtol=0)


@pytest.mark.parametrize("given", [{"normalise": False}, {"loss": "l1"}, {"loss": "smooth_l1"}])
def test_other_baselines_depend_on_the_data(given: dict[str, Any]) -> None:
    box: Tokenizer[Any] = boxes()["image"]
    assert Patch(**given).baseline(box) is None


def test_a_single_value_has_no_spread_to_normalise_by() -> None:
    values = torch.tensor([[[3.0], [-2.0]]])
    objective = Patch()
    target = objective.target(values)
    assert torch.equal(target, values)
    assert torch.equal(objective.to_values(target, objective.statistics(values)), values)


@pytest.mark.parametrize("level", [0.0, 0.5, -1e4])
def test_a_constant_patch_has_a_target_of_zero(level: float) -> None:
    values = torch.full((1, 2, 16), level)
    target = Patch().target(values)
    assert torch.equal(target, torch.zeros_like(values))


def test_statistics_are_mean_and_spread() -> None:
    values = torch.tensor([[[1.0, 2.0, 3.0]]])
    statistics = Patch(epsilon=1e-6).statistics(values)
    torch.testing.assert_close(statistics, torch.tensor([[[2.0, (1 + 1e-6) ** 0.5]]]))
    assert Patch(normalise=False).statistics(values) is None


def test_normalising_forgets_contrast_and_brightness() -> None:
    values = torch.randn(1, 4, 16, generator=generator())
    torch.testing.assert_close(Patch().target(5 * values + 3), Patch().target(values), atol=1e-4, rtol=0)


@pytest.mark.parametrize("given", [{"epsilon": 0}, {"beta": 0}, {"loss": "l2"}, {"norm": True}])
def test_unusable_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Patch(**given)
