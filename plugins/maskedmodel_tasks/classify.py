"""One label of several per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Labels, Table
from maskedmodel_tasks.pooled import Pooled, PooledSettings

MOST_SHOWN = 30  # classes of a confusion matrix


class ClassifySettings(PooledSettings):
    name: Literal["classify"] = "classify"
    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing: the share spread over all classes.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a sample counts by one over the size of its class, so that rare ones are heard."
    )


class Classify(Pooled[ClassifySettings]):
    """Cross entropy over the classes of the data."""

    score = "accuracy"
    weights: Tensor

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        present = sum(count > 0 for count in labels.counts)
        if present < 2:
            raise ConfigError(
                "There is nothing to tell apart: the labelled training samples have one class.",
                where="data",
                expected="2 classes or more",
                got=", ".join(name for name, count in zip(labels.names, labels.counts, strict=True) if count) or "none",
                fix="Give labels of more classes, more of them with adapt.labels, or another task, such as regress.",
            )
        self.names = labels.names
        counts = torch.tensor(labels.counts, dtype=torch.float32)
        weights = torch.ones_like(counts)
        if self.settings.class_weights == "balanced":
            weights = torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), 0)
        self.register_buffer("weights", weights)
        self.make_head(dim, len(labels.names))

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(prediction, target, label_smoothing=self.settings.smoothing, reduction="none")

    def weight(self, target: Tensor) -> Tensor:
        return self.weights[target]

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Accuracy; the mean of each class's recall; area under the ROC curve, each class against the rest."""
        guess = prediction.argmax(1)
        right = (guess == target).double()
        present: list[int] = torch.unique(target).tolist()
        recalls = [float(right[target == label].mean()) for label in present]
        return {
            "accuracy": float(right.mean()),
            "balanced_accuracy": sum(recalls) / len(recalls),
            "auc": self._auc(prediction, target, present),
        }

    def _auc(self, prediction: Tensor, target: Tensor, present: Sequence[int]) -> float:
        """Mean over the classes that occur, of those that don't fill all samples, each against the rest.

        By ranks (Mann and Whitney 1947): how often a sample of the class scores above one of the others, ties as half.
        """
        from scipy.stats import rankdata  # type: ignore[import-untyped]

        shares, areas = prediction.softmax(1).numpy(), []
        for label in present:
            own = (target == label).numpy()
            ours, others = int(own.sum()), int((~own).sum())
            if others:
                above = rankdata(shares[:, label])[own].sum() - ours * (ours + 1) / 2
                areas.append(float(above) / (ours * others))
        return sum(areas) / len(areas) if areas else float("nan")

    def wrongness(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One less the probability of the true class, where another is more likely."""
        true = prediction.softmax(1).gather(1, target[:, None])[:, 0]
        return (1 - true) * (prediction.argmax(1) != target)

    def told(self, prediction: Tensor, target: Tensor) -> list[str]:
        shares = prediction.softmax(1)
        guess: list[int] = shares.argmax(1).tolist()
        return [
            f"is {self.names[true]}, said {self.names[said]} ({share[said]:.0%})"
            for true, said, share in zip(target.tolist(), guess, shares.tolist(), strict=True)
        ]

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        from sklearn.metrics import (  # type: ignore[import-untyped]
            confusion_matrix,
            precision_recall_fscore_support,
        )

        guess, labels = prediction.argmax(1).numpy(), list(range(len(self.names)))
        found = precision_recall_fscore_support(target.numpy(), guess, labels=labels, zero_division=0)
        rows = [
            (name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in zip(self.names, *found, strict=True)
        ]
        tables = [Table("By class", ("class", "precision", "recall", "F1", "samples"), rows)]
        if len(self.names) <= MOST_SHOWN:
            counts = confusion_matrix(target.numpy(), guess, labels=labels).tolist()
            crossed = [(name, *row) for name, row in zip(self.names, counts, strict=True)]
            tables.append(Table("Confusion: rows are true, columns predicted", ("", *self.names), crossed, shaded=True))
        return tables

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """The label, its probability, and the probability of each class."""
        shares = prediction.softmax(1)
        best = shares.argmax(1)
        return {
            "label": [self.names[index] for index in best.tolist()],
            "confidence": shares.amax(1),
            **{f"p_{name}": shares[:, index] for index, name in enumerate(self.names)},
        }
