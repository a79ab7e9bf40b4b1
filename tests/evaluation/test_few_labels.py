"""What a few labels are worth: which samples are taken, and what the table says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from maskedmodel.evaluation.classifiers import Accuracy, Linear, few, few_rows, linear
from maskedmodel.evaluation.probes import ProbeResult, ProbeRow


def test_more_labels_hold_all_of_fewer_and_classes_come_in_turn() -> None:
    labels = np.array([0] * 50 + [1] * 5 + [2] * 20)
    for seed in range(3):
        ten, thirty = few_rows(labels, 10, seed), few_rows(labels, 30, seed)
        assert list(thirty[:10]) == list(ten)
        assert sorted(np.bincount(labels[ten]).tolist()) == [3, 3, 4]
        assert np.bincount(labels[thirty]).tolist() == [13, 5, 12]
        assert len(set(thirty)) == 30
    assert list(few_rows(labels, 10, 0)) != list(few_rows(labels, 10, 1))


def test_the_score_is_that_of_logistic_regression_on_those_samples() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 90)
    x = draw.normal(size=(90, 5)) + np.eye(3, 5)[labels] * 2
    expected = []
    for seed in (3, 4, 5):  # the three draws of seed 1
        rows = few_rows(labels[:60], 12, seed)
        mean, spread = x[rows].mean(0), x[rows].std(0)
        model = LogisticRegression(C=1.0, max_iter=2000).fit((x[rows] - mean) / spread, labels[rows])
        expected.append(model.score((x[60:] - mean) / spread, labels[60:]))
    parts = torch.tensor(x[:60]), torch.tensor(labels[:60]), torch.tensor(x[60:]), torch.tensor(labels[60:])
    assert few(*parts, 12, seed=1) == pytest.approx(np.mean(expected))


def test_the_table_has_a_column_for_each_number() -> None:
    accuracy = Accuracy.of(9, 10)
    row = ProbeRow("trained encoder", 4, accuracy, Linear(accuracy, 1.0, True), {"10": 0.645, "50": 0.866})
    result = ProbeResult((row,), "protocol")
    headings, (cells,) = result.table()
    assert headings[-2:] == ["10 labels", "50 labels"]
    assert cells[-2:] == ["0.645", "0.866"]
    assert ProbeResult.from_dict(result.to_dict()) == result


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_accuracy_and_auc_are_sklearns(classes: int) -> None:
    draw = np.random.default_rng(0)
    labels = np.concatenate([np.zeros(160, int), np.repeat(np.arange(1, classes), 20)])
    x = draw.normal(size=(len(labels), 4)) + np.eye(classes, 4)[labels] * 1.5
    order = draw.permutation(len(labels))
    fitted, tested = order[: len(order) // 2], order[len(order) // 2 :]
    parts = (
        torch.tensor(x[fitted]),
        torch.tensor(labels[fitted]),
        torch.tensor(x[tested]),
        torch.tensor(labels[tested]),
    )
    found = linear(*parts)
    mean, spread = x[fitted].mean(0), x[fitted].std(0)
    model = LogisticRegression(C=found.c, max_iter=2000).fit((x[fitted] - mean) / spread, labels[fitted])
    z = (x[tested] - mean) / spread
    assert found.balanced == pytest.approx(balanced_accuracy_score(labels[tested], model.predict(z)))
    likely = model.predict_proba(z)
    score = likely[:, 1] if classes == 2 else likely
    assert found.auc == pytest.approx(roc_auc_score(labels[tested], score, multi_class="ovr"), abs=1e-3)
    assert found.balanced < found.accuracy.value, "the common class is the easy one"


def test_the_table_says_more_where_classes_are_uneven() -> None:
    accuracy = Accuracy.of(9, 10)
    row = ProbeRow("trained encoder", 4, accuracy, Linear(accuracy, 1.0, True, 0.7, None))
    even, uneven = ProbeResult((row,), "protocol"), ProbeResult((row,), "protocol", uneven=True)
    assert "balanced" not in even.table()[0]
    assert uneven.table()[0][-2:] == ["balanced", "macro AUC"]
    assert uneven.table()[1][0][-2:] == ["0.700", ""]
    assert ProbeResult.from_dict(uneven.to_dict()) == uneven
