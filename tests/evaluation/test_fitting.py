"""Tokens kept at half precision, and probes trained on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskedmodel.errors import DataError
from maskedmodel.evaluation import heads
from maskedmodel.evaluation.bank import Bank, Standardised, check_memory
from maskedmodel.evaluation.fitting import Recipe, fit

RECIPE = Recipe((1e-4, 3e-2), batch=64)


def needles(count: int = 200, length: int = 12, dim: int = 8, seed: int = 0) -> tuple[Bank, torch.Tensor]:
    """One token in a dozen is marked and tells the class; the mean over the tokens hardly does."""
    draw = torch.Generator().manual_seed(seed)
    x, labels = torch.randn(count, length, dim, generator=draw), torch.arange(count) % 2
    place = torch.randint(0, length, (count,), generator=draw)
    x[..., 0] = 0
    x[..., 1] *= 3
    x[torch.arange(count), place, 0] = 5.0
    x[torch.arange(count), place, 1] = labels * 2.0 - 1
    bank = Bank(count)
    bank.add(x[: count // 2])
    bank.add(x[count // 2 :])
    return bank, labels


@pytest.mark.parametrize(
    ("kind", "least"), [(heads.Attentive, 0.78), (heads.Efficient, 0.95), (heads.ClassQueries, 0.9)]
)
def test_attention_finds_what_a_mean_drowns(kind: Any, least: float) -> None:
    bank, labels = needles(800)
    train, test = torch.arange(600), torch.arange(600, 800)
    found = fit(lambda classes: kind(8, classes), bank, train, labels[train], RECIPE, seed=0)
    assert found.rate == 3e-2
    assert found.score(test, labels[test]).value > least
    means = Bank(800, values=bank.values.mean(1, keepdim=True))
    drowned = fit(lambda classes: heads.NormedLinear(8, classes), means, train, labels[train], RECIPE, seed=0)
    assert drowned.score(test, labels[test]).value < 0.7


def test_the_same_seed_gives_the_same_weights_and_draws_nothing_global() -> None:
    bank, labels = needles(60)
    rows, before = torch.arange(60), torch.get_rng_state()
    one, same, other = (
        fit(lambda classes: heads.Efficient(8, classes), bank, rows, labels, RECIPE, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.head.parameters(), same.head.parameters(), strict=True))
    assert not torch.equal(one.head.queries, other.head.queries)


def test_labels_needn_t_be_numbered_from_zero() -> None:
    bank, labels = needles(120)
    rows = torch.arange(120)
    found = fit(lambda classes: heads.ClassQueries(8, classes), bank, rows, labels * 7 + 3, RECIPE, seed=0)
    assert set(found.predict(rows).tolist()) == {3, 10}


def test_one_class_and_too_few_samples_are_refused() -> None:
    bank, labels = needles(20)
    with pytest.raises(DataError, match="2 classes or more to tell apart"):
        fit(lambda c: heads.ClassQueries(8, c), bank, torch.arange(20), torch.ones(20).long(), RECIPE, seed=0)
    with pytest.raises(DataError, match="too few labelled samples"):
        fit(lambda c: heads.ClassQueries(8, c), bank, torch.arange(2), labels[:2], RECIPE, seed=0)


def test_steps_are_epochs_but_a_few_hundred_at_least() -> None:
    assert Recipe((1.0,), batch=256, epochs=20).steps(1000) == 300
    assert Recipe((1.0,), batch=256, epochs=20).steps(50_000) == 20 * 196


def test_ragged_tokens_are_padded_and_standardised_without_padding() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 4, generator=draw) + 7, torch.randn(2, 5, 4, generator=draw)
    valid = torch.tensor([[True, True, False, False, False], [True] * 5])
    bank = Bank(4)
    bank.add(first)
    bank.add(second, valid)
    real = torch.cat([first.reshape(-1, 4), second[valid]]).half().double()
    mean, spread = bank.statistics(torch.arange(4))
    assert torch.allclose(mean.double(), real.mean(0), atol=1e-5)
    assert torch.allclose(spread.double(), real.std(0, unbiased=False), atol=1e-5)
    x, found = Standardised(bank, mean, spread).batch(torch.tensor([3, 0]), "cpu")
    assert found.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert torch.allclose(x[0], (second[1].half().float() - mean) / spread, atol=1e-5)


def test_a_constant_value_says_nothing_and_one_out_of_range_is_counted() -> None:
    bank = Bank(2)
    bank.add(torch.tensor([[[1.0, 1e6]], [[1.0, -3.0]]]))
    assert bank.beyond == 1
    assert float(bank.values[0, 0, 1]) == 65504.0
    assert torch.equal(
        Standardised.of(bank, torch.arange(2)).batch(torch.arange(2), "cpu")[0][..., 0], torch.zeros(2, 1)
    )


def test_tokens_beyond_the_limit_are_refused_with_the_setting_that_settles_it() -> None:
    check_memory(1000, 64, 96, limit=0.02)
    with pytest.raises(DataError) as caught:
        check_memory(100_000, 196, 768, limit=4)
    said = str(caught.value)
    assert "28 GiB: 100000 samples of 196 tokens of 768 values, as float16" in said
    assert "evaluate.token_memory=29.4" in said
    assert "evaluate.train_samples" in said
    bank = Bank(10, limit=10 * 4 * 2 * 2 / 2**30)
    bank.add(torch.zeros(5, 4, 2))
    with pytest.raises(DataError, match="don't fit"):
        bank.add(torch.zeros(5, 5, 2))
