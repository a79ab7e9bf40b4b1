"""patch: the conformance kit, then MAE's formula, the three losses, and patches without spread."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.patch import Patch
from pydantic import ValidationError

from maskedmodel import GridTokenizer, Settings, Tokenizer
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import boxes, generator
from tests.engine.conftest import Ragged

VIDEOMAE = {"per": "channel", "epsilon_at": "spread"}


@parametrize_checks(
    [
        Patch,
        Patch(normalise=False),
        Patch(loss="l1"),
        Patch(loss="smooth_l1", beta=0.5),
        Patch(per="channel"),
        Patch(epsilon_at="spread"),
        Patch(per="channel", epsilon_at="spread"),
    ]
)
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


def test_nothing_hidden_has_an_empty_target_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = Patch().target(torch.rand(2, 0, 12))
    assert target.shape == (2, 0, 12)


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


class Line(GridTokenizer[Settings]):
    """Tokens of 4 samples of 3 channels, in an order of choice."""

    axes, channels, size, patch = ("time",), 3, (8,), (4,)

    def __init__(self, last: bool, separate: bool = False) -> None:
        self.channels_last, self.separate_channels = last, separate
        super().__init__(Settings(name="line"))


@pytest.mark.parametrize("last", [True, False])
def test_videomaes_target_is_per_channel_with_epsilon_outside_the_root(last: bool) -> None:
    line, objective = Line(last), Patch(per="channel", epsilon_at="spread", epsilon=0.1)
    objective.attach(line)
    signal = torch.randn(2, 3, 8, generator=generator(), dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])[:, None]
    target = line.detokenize(objective.target(line.tokenize(signal).values), line.tokenize(signal)).numpy()
    for sample in range(2):
        for channel in range(3):
            for start in (0, 4):
                values = signal[sample, channel, start : start + 4].numpy()
                spread = (sum((value - values.mean()) ** 2 for value in values) / 3) ** 0.5 + 0.1
                expected = (values - values.mean()) / spread
                np.testing.assert_allclose(target[sample, channel, start : start + 4], expected, rtol=1e-12)


@pytest.mark.parametrize("last", [True, False])
def test_per_channel_statistics_bring_the_values_back(last: bool) -> None:
    line, objective = Line(last), Patch(**VIDEOMAE)
    objective.attach(line)
    values = line.tokenize(torch.randn(2, 3, 8, generator=generator())).values
    statistics = objective.statistics(values)
    assert statistics is not None
    assert statistics.shape == (2, 2, 6)
    groups = values.unflatten(-1, (4, 3)).transpose(-1, -2) if last else values.unflatten(-1, (3, 4))
    torch.testing.assert_close(statistics, torch.cat([groups.mean(-1), groups.std(-1) + 1e-6], -1))
    torch.testing.assert_close(objective.to_values(objective.target(values), statistics), values)


def test_per_channel_baseline_counts_the_values_of_a_channel() -> None:
    line, objective = Line(last=True), Patch(**VIDEOMAE)
    objective.attach(line)
    assert objective.baseline(line) == pytest.approx(3 / 4)
    target = objective.target(line.tokenize(torch.randn(64, 3, 8, generator=generator())).values)
    loss = objective.loss(torch.zeros_like(target), target)
    torch.testing.assert_close(loss, torch.full_like(loss, 3 / 4), atol=1e-4, rtol=0)


def test_tokens_of_one_channel_each_are_the_same_per_patch_and_per_channel() -> None:
    line = Line(last=True, separate=True)
    values = line.tokenize(torch.randn(2, 3, 8, generator=generator())).values
    per_channel, per_patch = Patch(per="channel"), Patch()
    per_channel.attach(line)
    assert torch.equal(per_channel.target(values), per_patch.target(values))
    assert per_channel.baseline(line) == per_patch.baseline(line) == 3 / 4


def test_per_channel_needs_a_grid_and_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="how channels lie in the tokens of 'ragged'"):
        Patch(per="channel").attach(Ragged())
    Patch(per="channel", normalise=False).attach(Ragged())
    with pytest.raises(ShapeError, match=r"(?s)doesn't know these tokens.*attach"):
        Patch(per="channel").target(torch.zeros(1, 2, 12))


@pytest.mark.parametrize("level", [0.0, 0.5, -1e4])
def test_a_constant_patch_has_a_target_of_zero_with_epsilon_outside_too(level: float) -> None:
    assert not Patch(epsilon_at="spread").target(torch.full((1, 2, 16), level)).any()


@pytest.mark.parametrize("given", [{"epsilon": 0}, {"per": "row"}, {"beta": 0}, {"loss": "l2"}, {"norm": True}])
def test_unusable_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Patch(**given)
