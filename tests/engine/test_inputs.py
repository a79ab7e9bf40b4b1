"""What encode, embed and the model take: other widths, numpy arrays, values that somebody has normalised already."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskedmodel import MaskedAutoencoder
from maskedmodel.errors import ShapeError
from tests.engine.conftest import Box, model_of


@pytest.fixture
def model() -> MaskedAutoencoder:
    return model_of(Box(), encoder={"class_token": True})


def signal() -> Tensor:
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("convert", [Tensor.double, Tensor.numpy, lambda x: x.double().numpy(), lambda x: x.numpy()[:]])
def test_other_widths_and_numpy_give_the_same_features(model: MaskedAutoencoder, convert: Callable[[Any], Any]) -> None:
    torch.testing.assert_close(model.encode(convert(signal())), model.encode(signal()), rtol=0, atol=0)
    torch.testing.assert_close(model.embed(convert(signal()), "class"), model.embed(signal(), "class"), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "close"), [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float64, 1e-5)])
@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary"])
def test_a_model_of_another_width_works(kind: torch.dtype, close: float, positions: str) -> None:
    model = model_of(Box(), encoder={"positions": positions}, decoder={"positions": positions})
    other = copy.deepcopy(model).to(kind)
    features = other.encode(signal())
    assert features.dtype == kind
    torch.testing.assert_close(features.float(), model.encode(signal()), rtol=close, atol=10 * close)
    assert torch.isfinite(other.embed(signal())).all()
    output = other(signal().to(kind))
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    assert torch.isfinite(output.loss.detach())


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        "x",
        [1.0],
        torch.zeros(3),
        torch.zeros(2, 3, 8, 12, dtype=torch.bool),
        torch.zeros(2, 3, 8, 12) + 0j,
        np.zeros((2, 3, 8, 12), object),
        np.full((2, 3), "x"),
        torch.zeros(2, 3, 8, 12).to_sparse(),
        torch.zeros(2, 3, 8, 12, device="meta"),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_batch_is_refused(model: MaskedAutoencoder, wrong: Any) -> None:
    for call in (model, model.encode, model.embed, model.reconstruct):
        with pytest.raises(ShapeError, match="prepared batch"):
            call(wrong)


class Ranged(Box):
    value_range = (0.0, 1.0)


def test_values_that_were_normalised_already_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of(Ranged())
    with caplog.at_level(logging.WARNING, "maskedmodel"):
        model.encode(signal() * 1.1 - 0.05)  # as after bicubic interpolation
        assert not caplog.records
        model.encode((signal() - 0.485) / 0.229)
        model.embed((signal() - 0.485) / 0.229)
    (told,) = caplog.messages
    assert "a prepared batch has 0 to 1" in told


class Overlapping(Box):
    overlapping = True


def test_tokens_that_overlap_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "maskedmodel"):
        model_of(Overlapping())
    assert "overlap" in caplog.text


def test_numbers_of_another_byte_order_are_the_same_numbers(model: MaskedAutoencoder) -> None:
    batch = signal()
    assert torch.equal(model.encode(batch.numpy().astype(">f4")), model.encode(batch))


def test_a_slip_in_a_word_is_refused(model: MaskedAutoencoder) -> None:
    """What isn't "mean" was taken for it, and what isn't "visible" for "oracle", which borrows what was hidden."""
    for pool in ("means", ["mean"], None):
        with pytest.raises(ShapeError, match="mean, class or concat"):
            model.embed(signal(), pool)
    for statistics in ("visble", ["visible"], None):
        with pytest.raises(ShapeError, match="visible or oracle"):
            model.reconstruct(signal(), statistics=statistics)


@pytest.mark.parametrize("mask", [[1], "uniform", torch.zeros(2, 24, dtype=torch.bool)])
def test_what_is_no_mask_is_refused(model: MaskedAutoencoder, mask: Any) -> None:
    for call in (model, model.reconstruct):
        with pytest.raises(ShapeError, match="no mask"):
            call(signal(), mask)
