"""What every mask scheduler does by itself: ranking, counts, and what it refuses."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import MaskScheduler, Noise, Settings, Tokens
from maskedmodel.errors import PluginError
from maskedmodel.schedulers import Observed
from maskedmodel.tokens import hidden_count
from tests.boxes import Box


class FlatSettings(Settings):
    name: Literal["flat"] = "flat"
    share: float = Field(0.5, description="Share to hide.")


class Flat(MaskScheduler[FlatSettings]):
    def ratio(self, progress: float) -> float:
        return self.settings.share


def test_the_default_scores_are_the_noise() -> None:
    tokens, noise = Box().tokenize(torch.zeros(2, 1, 4, 6)), Noise.of([0, 1])
    mask = Flat().sample(tokens, 0.0, noise)
    highest = noise.uniform(4).argsort(1, descending=True)[:, :2].sort(1).values
    assert torch.equal(mask.ids_hidden, highest)
    assert Flat().observe(Observed(tokens, mask, torch.zeros(2, 2), torch.zeros(2, 3, 8), 0.0)) is None


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_ratio_of_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(PluginError, match="'flat' gave a ratio"):
        Flat(share=share).sample(Box().tokenize(torch.zeros(1, 1, 4, 6)), 0.0, Noise.of([0]))


def test_scores_of_a_wrong_shape_are_refused() -> None:
    class Short(Flat):
        def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
            return noise.uniform(tokens.length - 1)

    with pytest.raises(PluginError) as error:
        Short().sample(Box().tokenize(torch.zeros(2, 1, 4, 6)), 0.0, Noise.of([0, 1]))
    assert "(2, 4)" in str(error.value)
    assert "(2, 3)" in str(error.value)


def test_a_scheduler_may_count_for_each_sample() -> None:
    class Counting(Flat):
        def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
            return torch.tensor([1, 3])

    mask = Counting().sample(Box().tokenize(torch.zeros(2, 1, 4, 6)), 0.0, Noise.of([0, 1]))
    assert mask.hidden.sum(1).tolist() == [1, 3]


@pytest.mark.parametrize("bounds", [None, (1, 3)])
def test_counts_that_are_known_to_be_bounded_need_not_be_read(bounds: tuple[int, int] | None) -> None:
    class Bounded(Flat):
        def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
            return torch.tensor([1, 3])

        def bounds(self, tokens: Tokens, progress: float) -> tuple[int, int] | None:
            return bounds

    mask = Bounded().sample(Box().tokenize(torch.zeros(2, 1, 4, 6)), 0.0, Noise.of([0, 1]))
    assert mask.widths == (None if bounds is None else (3, 3))
    assert mask.hidden.sum(1).tolist() == [1, 3]


def test_scores_that_are_nan_are_refused() -> None:
    class Nan(Flat):
        def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
            return noise.uniform(tokens.length).masked_fill(torch.tensor([[True, False, False, False]]), torch.nan)

    with pytest.raises(PluginError, match="NaN"):
        Nan().sample(Box().tokenize(torch.zeros(2, 1, 4, 6)), 0.0, Noise.of([0, 1]))


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.7, 0.725, 0.99])
def test_counts_of_many_rows_are_those_of_each(ratio: float) -> None:
    """In float32 45 * 0.7 is 31.5, which rounds to 32; the count is 32 for both, and halves go to the even number."""
    lengths = torch.arange(0, 2000)
    assert hidden_count(lengths, ratio).tolist() == [hidden_count(length, ratio) for length in lengths.tolist()]
