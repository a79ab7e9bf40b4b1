"""The objective `latent`: its loss against the formula written out, its work against torch's counter, its watch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_objectives.latent import effective_rank

import maskedmodel
from maskedmodel import MaskedAutoencoder
from maskedmodel.engine import kernels
from maskedmodel.engine.flops import flop_counter
from maskedmodel.errors import PluginError
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
    monkeypatch.setattr(
        kernels, "chosen_attention", kernels.Attention(400)
    )  # torch's counter doesn't know the fused attention
    objective: Any = model.objective
    tokens = model.tokens(torch.randn(1, 2, 24))
    with torch.no_grad(), flop_counter() as counter:
        objective.teacher.features(tokens)
    assert objective.flops(3, 5) == counter.get_total_flops()


def test_a_run_ends_without_reconstructions_and_names_no_command_that_would_refuse_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ("model.encoder.dim=24", "model.encoder.depth=1", "model.decoder.dim=16", "model.decoder.depth=1")
    given = ("objective.name=latent", "train.steps=2", "train.batch=8", "train.device=cpu", "evaluate.probe=false")
    result = maskedmodel.pretrain("image-quickstart", run=tmp_path / "run", overrides=[*small, *given], quiet=True)
    assert result is not None
    assert result.picture is None
    assert "No pictures of what it completes: objective 'latent' predicts no signal." in caplog.text
    assert [path.name for path in (tmp_path / "run" / "pictures").iterdir()] == ["inside.png"]
    assert "maskedmodel embed" in str(result)
    assert "reconstruct" not in str(result)
    with pytest.raises(PluginError, match="can't turn predictions back"):
        maskedmodel.reconstruct(tmp_path / "run")


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
