"""fourier: the conformance kit, then its formula against a loop over numpy's transform, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.fourier import Fourier
from pydantic import ValidationError

from maskedmodel.errors import ConfigError, PluginError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, boxes, generator
from tests.engine.conftest import Ragged


@parametrize_checks([Fourier, Fourier(share=0.0), Fourier(share=0.5, norm="ortho")])
def test_conformance(check: Callable[[], None]) -> None:
    check()


class ChannelFirst(Box):
    channels_last = False


def by_hand(
    prediction: np.ndarray, target: np.ndarray, patch: tuple[int, int], last: bool, share: float, norm: str
) -> float:
    """The loss of one token, (P,) twice, over the full spectrum of each of its channels."""
    squared = np.mean((prediction - target) ** 2)
    images = [x.reshape(*patch, -1).transpose(2, 0, 1) if last else x.reshape(-1, *patch) for x in (prediction, target)]
    differences = [
        abs(abs(one) - abs(other))
        for mine, theirs in zip(*images, strict=True)
        for one, other in zip(np.fft.fft2(mine, norm=norm).ravel(), np.fft.fft2(theirs, norm=norm).ravel(), strict=True)
    ]
    return float((1 - share) * squared + share * np.mean(differences))


@given(
    patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 3),
    last=st.booleans(),
    share=st.floats(0, 0.99),
    norm=st.sampled_from(["backward", "ortho"]),
)
@settings(deadline=None, max_examples=40)
def test_it_is_the_formula(patch: tuple[int, int], channels: int, last: bool, share: float, norm: str) -> None:
    own = Fourier(share=share, norm=norm)
    size = (2 * patch[0], 2 * patch[1])
    own.attach((Box if last else ChannelFirst)(size=size, patch=patch, channels=channels))
    values = torch.randn(2, 2, 3, patch[0] * patch[1] * channels, generator=generator())
    loss = own.loss(values[0], values[1])
    expected = [
        [by_hand(*values[:, row, token].double().numpy(), patch, last, share, norm) for token in range(3)]  # type: ignore[call-arg]
        for row in range(2)
    ]
    torch.testing.assert_close(loss, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def attached(share: float = 0.5) -> Fourier:
    own = Fourier(share=share)
    own.attach(Box(channels=1))
    return own


def spectrum_part(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The difference of magnitudes alone, of images (1, 1, 4, 4)."""
    prediction, target = prediction.flatten(-2), target.flatten(-2)
    return (attached(0.5).loss(prediction, target) - 0.5 * (prediction - target).square().mean(-1)) / 0.5


def test_texture_in_another_place_costs_nothing_in_the_spectrum() -> None:
    target = torch.randn(1, 1, 4, 4, generator=generator())
    shifted = target.roll((1, 2), (-2, -1))
    torch.testing.assert_close(spectrum_part(shifted, target), torch.zeros(1, 1), atol=1e-5, rtol=0)
    assert spectrum_part(target.mean((-1, -2), keepdim=True).expand_as(target), target) > 0.5


@pytest.mark.parametrize("start", [torch.zeros(1, 2, 16), torch.ones(1, 2, 16)])
def test_the_gradient_is_finite_where_magnitudes_are_zero(start: torch.Tensor) -> None:
    target = torch.randn(1, 2, 16, generator=generator())
    prediction = start.requires_grad_()
    attached().loss(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().max() > 0


def test_the_default_is_the_share_of_ca_mae() -> None:
    assert Fourier().settings.share == 0.01
    assert Fourier().settings.norm == "backward"


@pytest.mark.parametrize("name", ["line", "volume", "single values"])
def test_tokens_that_are_no_images_are_refused(name: str) -> None:
    box = boxes()[name]
    for call in (Fourier().width, Fourier().attach):
        with pytest.raises(ConfigError, match=rf"(?s)no images.*two axes.*axes {', '.join(box.axes)}.*patch"):
            call(box)


def test_tokenizers_that_cut_otherwise_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no images.*another way of cutting"):
        Fourier().attach(Ragged())


def test_a_loss_before_it_is_attached_is_refused() -> None:
    values = torch.zeros(1, 1, 16)
    with pytest.raises(PluginError, match=r"(?s)extents of a patch.*attach"):
        Fourier().loss(values, values)
    assert Fourier(share=0).loss(values, values) == 0  # nothing has to be known for it


@pytest.mark.parametrize("values", [{"share": -0.1}, {"share": 1.0}, {"norm": "forward"}])
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fourier(**values)
