from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from maskedmodel.errors import DataError
from maskedmodel.evaluation import classifiers as module
from maskedmodel.evaluation.classifiers import Accuracy, at_a_time, hold_out, knn, knn_predict, linear, linear_over


def brute_force(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, k: int, temperature: float) -> list[int]:
    """One sample and one neighbour at a time, as one would explain it."""
    found = []
    for row in test.double():
        near = [float(row @ other / (row.norm() * other.norm())) for other in train.double()]
        order = sorted(range(len(near)), key=lambda i: (-near[i], i))[:k]
        votes: dict[int, float] = {}
        for i in order:
            votes[int(labels[i])] = votes.get(int(labels[i]), 0.0) + math.exp(near[i] / temperature)
        found.append(min(votes, key=lambda label: (-votes[label], label)))
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 4), st.sampled_from([0.05, 0.07, 1.0]))
def test_knn_equals_brute_force(seed: int, k: int, chunk: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    train, test = torch.randn(11, 3, generator=generator), torch.randn(7, 3, generator=generator)
    labels = torch.randint(-1, 3, (11,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 11 * chunk)
        assert knn_predict(train, labels, test, k, temperature).tolist() == brute_force(
            train, labels, test, k, temperature
        )


def test_knn_ties_go_to_the_first_neighbour_and_the_lowest_class() -> None:
    train = torch.tensor([[1.0, 0], [2, 0], [3, 0], [0, 1]])  # three of one direction
    test = torch.tensor([[1.0, 0]])
    assert knn_predict(train, torch.tensor([5, 2, 2, 0]), test, k=1).tolist() == [5]
    assert knn_predict(train, torch.tensor([5, 2, 2, 0]), test, k=2).tolist() == [2]


def test_knn_survives_low_temperature_and_zero_vectors() -> None:
    train, labels = torch.tensor([[1.0, 0], [0, 1], [0, 0]]), torch.tensor([0, 1, 2])
    assert knn_predict(train, labels, torch.tensor([[1.0, 0.1], [0, 0]]), k=3, temperature=1e-4).tolist() == [0, 0]


def test_knn_accuracy_counts_right_answers() -> None:
    train, labels = torch.eye(3), torch.tensor([0, 1, 2])
    score = knn(train, labels, torch.eye(3), torch.tensor([0, 1, 1]), k=1)
    assert (score.value, score.count) == (2 / 3, 3)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 10, 0.0, 0.27754), (5, 10, 0.23659, 0.76341), (10, 10, 0.72246, 1.0), (900, 1000, 0.87987, 0.91707)],
)
def test_wilson_interval(right: int, count: int, low: float, high: float) -> None:
    accuracy = Accuracy.of(right, count)
    assert accuracy.value == right / count
    assert accuracy.low == pytest.approx(low, abs=2e-4)
    assert accuracy.high == pytest.approx(high, abs=2e-4)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_hold_out_takes_some_of_each_class_and_never_all(labels: list[int], seed: int) -> None:
    y = np.array(labels)
    held = hold_out(y, seed)
    assert np.array_equal(held, hold_out(y, seed))
    for label in set(labels):
        members = labels.count(label)
        taken = int(held[y == label].sum())
        assert taken == (0 if members == 1 else max(round(0.2 * members), 1))


def blobs(count: int, seed: int, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0, 5], [2, 0, 5], [0, 2, 5]])
    return centres[labels] + spread * torch.randn(count, 3, generator=generator), labels


def test_linear_probe_separates_blobs_whatever_their_scale() -> None:
    (train, y), (test, z) = blobs(90, 0), blobs(60, 1)
    result = linear(train, y, test, z, seed=0)
    assert result.accuracy.value > 0.9
    assert result.converged
    assert result.c in module.C_GRID
    scaled = torch.tensor([1e3, 1e-3, 1.0])
    assert linear(train * scaled, y, test * scaled, z, seed=0) == result


def test_linear_probe_is_reproducible_and_leaves_global_randomness_alone() -> None:
    (train, y), (test, z) = blobs(60, 0, 2.0), blobs(60, 1, 2.0)
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index, union-attr]
    assert linear(train, y, test, z, seed=4) == linear(train, y, test, z, seed=4)
    assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index, union-attr]


def test_the_test_part_has_no_say_in_c() -> None:
    (train, y), (test, z) = blobs(60, 0, 2.0), blobs(60, 1, 2.0)
    assert linear(train, y, test, z, seed=0).c == linear(train, y, -test, (z + 1) % 3, seed=0).c


def test_constant_features_are_ignored() -> None:
    (train, y), (test, z) = blobs(60, 0), blobs(30, 1)
    with_constant = [torch.cat([x, torch.full((len(x), 1), 0.1)], 1) for x in (train, test)]
    # Constant in training, not in the test part: what says nothing in training must not decide later.
    with_constant[1][:, -1] = 1e6
    assert linear(with_constant[0], y, with_constant[1], z) == linear(train, y, test, z)
    only = linear(torch.ones(8, 2), torch.arange(8) % 2, torch.ones(4, 2), torch.arange(4) % 2)
    assert only.accuracy.value == 0.5


def test_an_unconverged_fit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITERATIONS", 1)
    (train, y), (test, z) = blobs(60, 0), blobs(30, 1)
    assert not linear(train, y, test, z).converged


def test_too_few_samples_are_refused() -> None:
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="2 classes or more"):
        linear(x, torch.zeros(4, dtype=torch.long), x, torch.zeros(4, dtype=torch.long))
    with pytest.raises(DataError, match="too few labelled samples"):
        linear(x, torch.arange(4), x, torch.arange(4))


def test_more_features_than_samples_give_the_same_probe_in_fewer_dimensions() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 200)) * generator.uniform(0.1, 5, 200), np.arange(30) % 3
    x[:, :3] += 3 * np.eye(3)[y]
    test = generator.normal(size=(50, 200))
    regression = module.Regression(x, y)
    assert regression.x.shape == (30, 30)
    assert regression.fit(0.1)
    full = LogisticRegression(C=0.1, solver="lbfgs", max_iter=2000).fit((x - x.mean(0)) / x.std(0), y)
    found = regression.model.predict_proba(regression._standardise(test))
    np.testing.assert_allclose(found, full.predict_proba((test - x.mean(0)) / x.std(0)), atol=1e-3)


@pytest.mark.parametrize(("classes", "width"), [(2, 40), (3, 40), (4, 90)])
def test_either_solver_finds_the_same_optimum(classes: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's method for few weights, L-BFGS for many; both within the tolerance of a fit that stops much later."""
    generator = np.random.default_rng(classes)
    y = np.arange(200) % classes
    x = generator.normal(size=(200, width)) @ generator.normal(size=(width, width)) + np.eye(classes, width)[y]
    standardised = (x - x.mean(0)) / x.std(0)
    for c in module.C_GRID[:5]:
        exact = LogisticRegression(C=c, tol=1e-9, max_iter=100_000).fit(standardised, y)
        for most, name in ((0, "lbfgs"), (10_000, "newton-cholesky")):
            monkeypatch.setattr(module, "FEW_WEIGHTS", most)
            regression = module.Regression(x, y)
            assert regression.model.solver == name
            assert regression.fit(c)
            found, wanted = (model.predict_proba(standardised) for model in (regression.model, exact))
            np.testing.assert_allclose(found, wanted, atol=2e-3 if name == "newton-cholesky" else 2e-2)


def test_which_solver_goes_by_the_number_of_weights() -> None:
    x = np.random.default_rng(0).normal(size=(400, 150))
    solvers = [module.Regression(x, np.arange(400) % classes).model.solver for classes in (2, 3)]
    assert solvers == ["newton-cholesky", "lbfgs"]  # 150 and 450 weights
    assert module.Regression(x[:100], np.arange(100) % 2).model.solver == "lbfgs"  # more features than samples


@pytest.mark.parametrize("threads", [1, 3])
def test_folds_side_by_side_are_those_one_after_the_other(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, y = blobs(90, 0, 2.0)
    rows = torch.arange(90)
    folds = [(rows[rows % 5 != fold], rows[rows % 5 == fold]) for fold in range(5)]
    assert [at_a_time(count) for count in (1, 2, 5)] == [1, min(threads, 2), threads]
    found = list(linear_over(x, y, folds, seed=3))
    assert found == [linear(x[a], y[a], x[b], y[b], seed=3) for a, b in folds]
    assert len({fold.accuracy.value for fold in found}) > 1


def test_a_fold_that_cant_be_fitted_is_told() -> None:
    x, y = blobs(9, 0)
    rows = torch.arange(9)
    folds = [(rows[y != 0], rows[y == 0]), (rows[y == 0], rows[y != 0])]
    with pytest.raises(DataError, match="2 classes or more"):
        list(linear_over(x, y, folds))
