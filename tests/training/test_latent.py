"""The objective `latent`: its loss against the formula written out, its work against torch's counter, its watch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from maskedmodel_objectives.latent import effective_rank
from torch.utils.flop_counter import FlopCounterMode

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine import kernels
from maskedmodel.plugins import Registry
from tests.training import conftest


@pytest.fixture
def model(configured: Callable[..., Any], registry: Registry) -> MaskedAutoencoder:
    return conftest.build(configured("objective.name=latent"), registry)[0]


def test_the_loss_is_the_formula(model: MaskedAutoencoder) -> None:
    signal = torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(1))
    output = model(signal)
    features = model.encode(signal).detach()  # the teacher begins as the encoder
    losses = []
    for row in range(3):
        target = features[row, output.mask.ids_hidden[row]].double()
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        away = (output.prediction[row].double() - target).abs()
        losses.append(torch.where(away < 1, 0.5 * away.square(), away - 0.5).mean(-1))
    torch.testing.assert_close(output.loss_per_token.double(), torch.stack(losses), rtol=1e-5, atol=1e-6)


def test_the_declared_work_is_what_torch_counts(model: MaskedAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ONEDNN", False)  # products that torch's counter knows
    monkeypatch.setattr(kernels, "PLAIN_KEYS", 400)
    objective: Any = model.objective
    tokens = model.tokens(torch.randn(1, 2, 24))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        objective.teacher.features(tokens)
    assert objective.flops(3, 5) == counter.get_total_flops()


def test_effective_rank() -> None:
    drawn = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(drawn) == pytest.approx(8, rel=0.02)
    assert effective_rank(drawn[:, :1] @ torch.ones(1, 8)) == pytest.approx(1)
    assert effective_rank(torch.ones(50, 8)) == 0
    assert effective_rank(drawn[:5]) is None


def test_collapsed_features_are_told_once(model: MaskedAutoencoder, caplog: pytest.LogCaptureFixture) -> None:
    signal = torch.ones(16, 2, 24)
    teacher: Any = model.objective.teacher  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            model(signal)
    assert [record.message for record in caplog.records if "effective rank" in record.message] == [
        "The teacher's features of different tokens are nearly the same: their effective rank is 0.00 of 16. The loss "
        "may fall while nothing is learned; raise objective.momentum, or lower optim.lr."
    ]
