"""Mask tokens of the first decoder block: projected once per position, or per hidden token where that is less."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskedmodel import Mask, Tokens
from tests.engine.conftest import Box, model_of, noise


def tokens_of(batch: int) -> Tokens:
    tokenizer = Box()
    return tokenizer.tokenize(torch.randn(batch, 3, 8, 12, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("attention", ["self", "cross"])
@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary"])
def test_coordinates_of_each_sample_are_as_good_as_shared_ones(attention: str, positions: str) -> None:
    kinds = {"positions": positions}
    model = model_of(Box(), encoder=kinds, decoder={**kinds, "attention": attention})
    shared = tokens_of(3)
    own = replace(shared, coords=shared.coords.expand(3, -1, -1))
    mask = model.scheduler.sample(shared, 0.0, noise(3))
    one, other = model(shared, mask), model(own, mask)
    torch.testing.assert_close(one.prediction, other.prediction, rtol=1e-5, atol=1e-6)
    names = [name for name, _ in model.named_parameters()]
    slopes = (torch.autograd.grad(output.loss, list(model.parameters())) for output in (one, other))
    for name, ours, theirs in zip(names, *slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_every_sample_gets_its_own_coordinates() -> None:
    model = model_of(Box())
    tokens = tokens_of(2)
    coords = torch.stack([tokens.coords.float(), 3.5 * tokens.coords.float().flip(1)])
    both = replace(tokens, coords=coords)
    mask = model.scheduler.sample(tokens, 0.0, noise(2))
    together = model(both, mask)
    for row in range(2):
        alone = replace(tokens.rows(slice(row, row + 1)), coords=coords[row])
        result = model(alone, mask.rows(slice(row, row + 1)))
        torch.testing.assert_close(together.prediction[row], result.prediction[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_a_sample_alone_is_as_in_a_batch(attention: str) -> None:
    """Alone it hides fewer tokens than there are positions, in the batch more."""
    model = model_of(Box(), decoder={"attention": attention})
    tokens = tokens_of(3)
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    together = model(tokens, mask)
    alone = model(tokens.rows(slice(1, 2)), Mask(mask.hidden[1:2]))
    torch.testing.assert_close(together.prediction[1], alone.prediction[0], rtol=1e-5, atol=1e-6)
