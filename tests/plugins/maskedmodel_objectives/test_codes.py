"""codes: the conformance kit, then torch's cross entropy, training on ids, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_objectives.chamfer import Chamfer
from maskedmodel_objectives.codes import Codes
from maskedmodel_objectives.fourier import Fourier
from maskedmodel_objectives.patch import Patch
from pydantic import ValidationError
from torch.nn import functional as F

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, Fixed, boxes, generator


@parametrize_checks([Codes, Codes(classes=300)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


@given(classes=st.integers(2, 40), batch=st.integers(1, 3), tokens=st.integers(0, 7), scale=st.floats(0.1, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_loss_and_its_gradient_are_those_of_torch(classes: int, batch: int, tokens: int, scale: float) -> None:
    ids = torch.randint(classes, (batch, tokens, 1), generator=generator(1))
    scores = scale * torch.randn(batch, tokens, classes, generator=generator(2), dtype=torch.float64)
    objective = Codes(classes=classes)
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = objective.loss(ours, objective.target(ids.float()))
    expected = F.cross_entropy(theirs.flatten(0, 1), ids.flatten(), reduction="none").view(batch, tokens)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), ours)[0], torch.autograd.grad(expected.sum(), theirs)[0])


def test_the_baseline_is_the_loss_of_zeros() -> None:
    objective, tokenizer = Codes(classes=10), Codes.example_tokenizer()
    target = objective.target(torch.arange(10.0).view(1, 10, 1))
    assert objective.loss(torch.zeros(1, 10, 10), target).mean().item() == pytest.approx(
        objective.baseline(tokenizer), abs=1e-6
    )
    assert objective.baseline(tokenizer) == math.log(10)


def test_an_impossible_other_id_is_no_nan() -> None:
    scores = torch.tensor([[[0.0, -math.inf, 0.0]]])
    assert Codes(classes=3).loss(scores, Codes(classes=3).target(torch.zeros(1, 1, 1))).item() == pytest.approx(
        math.log(2)
    )


def test_ids_come_back() -> None:
    objective = Codes(classes=2**10)
    ids = torch.tensor([[[0.0], [7.0], [1023.0]]])
    assert torch.equal(objective.to_values(objective.target(ids), None), ids)


@pytest.mark.parametrize(
    ("value", "words"), [(5.0, "0 to 4"), (-1.0, "-1"), (0.5, "not all integers"), (math.nan, "not all integers")]
)
def test_what_is_no_class_is_refused(value: float, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Codes(classes=5).target(torch.tensor([[[1.0], [value]]]))


@pytest.mark.parametrize("name", sorted(boxes()))
def test_amounts_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no ids"):
        Codes().attach(boxes()[name])


def test_a_token_of_several_ids_is_refused() -> None:
    class Tables(Box):
        def make_embed(self, dim: int) -> Any:
            return torch.nn.Identity()

    with pytest.raises(ConfigError, match="48 values per token"):
        Codes().attach(Tables())


class TestVocabulary:
    """The tokenizer says how many ids there are, unless the settings do."""

    class Tables(Box):
        vocabulary = 7

        def make_embed(self, dim: int) -> Any:
            return torch.nn.Identity()

    def test_classes_are_those_of_the_tokenizer(self) -> None:
        objective, tokenizer = Codes(), Codes.example_tokenizer()
        objective.attach(tokenizer)
        assert objective.width(tokenizer) == 256
        assert objective.baseline(tokenizer) == math.log(256)
        assert Codes(classes=9).width(tokenizer) == 9

    def test_several_ids_of_a_token_are_asked_for_each(self) -> None:
        objective, tokenizer = Codes(), self.Tables()
        objective.attach(tokenizer)
        width = tokenizer.token_width
        assert objective.width(tokenizer) == 7 * width
        ids = torch.randint(7, (2, 3, width), generator=generator(1))
        scores = torch.randn(2, 3, width * 7, generator=generator(2))
        target = objective.target(ids.float())
        expected = F.cross_entropy(scores.view(-1, 7), ids.flatten(), reduction="none").view(2, 3, width).mean(-1)
        torch.testing.assert_close(objective.loss(scores, target), expected)
        assert torch.equal(objective.to_values(target, None), ids.float())

    def test_a_tokenizer_that_says_nothing_is_asked_for_with_the_setting(self) -> None:
        class Silent(type(Codes.example_tokenizer())):  # type: ignore[misc]
            vocabulary = 0

        with pytest.raises(ConfigError, match=r"(?s)how many ids.*objective\.classes"):
            Codes().attach(Silent())
        Codes(classes=256).attach(Silent())

    @pytest.mark.parametrize("objective", [Patch(), Fourier(), Chamfer(dims=3)])
    def test_objectives_on_amounts_refuse_ids(self, objective: Any) -> None:
        with pytest.raises(ConfigError, match=r"(?s)values are ids.*objective\.name=codes"):
            objective.attach(self.Tables())


def test_one_class_is_no_question() -> None:
    with pytest.raises(ValidationError):
        Codes(classes=1)


def test_a_model_learns_ids_that_follow_from_others() -> None:
    torch.manual_seed(0)
    tokenizer, steps = Codes.example_tokenizer(), 60
    settings = ModelSettings.model_validate(
        {"encoder": {"dim": 32, "depth": 1, "heads": 2}, "decoder": {"dim": 32, "depth": 1, "heads": 2}}
    )
    objective = Codes(classes=8)
    model = MaskedAutoencoder(tokenizer, Fixed(), objective, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        ids = torch.randint(8, (32, 1, 1), generator=generator(step)).float().expand(32, 1, 16)  # all the same
        loss = model(ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8 * objective.baseline(tokenizer)
    assert losses[-1] < 0.2 * objective.baseline(tokenizer)
