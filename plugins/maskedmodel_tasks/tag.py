"""Any number of labels per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Chart, Labels, Table
from maskedmodel_tasks.pooled import Pooled, PooledSettings


class TagSettings(PooledSettings):
    name: Literal["tag"] = "tag"
    separator: str = Field("|", min_length=1, description="What stands between the tags in a sample's label.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a tag is given.")


class Tag(Pooled[TagSettings]):
    """Binary cross entropy per tag, as in AudioMAE's fine-tuning. A sample's label holds its tags: `dog|rain`."""

    score = "mAP"
    table: Tensor

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        return ("a", "a|b", "b|c")

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        sets = [{tag.strip() for tag in name.split(self.settings.separator) if tag.strip()} for name in labels.names]
        self.names = tuple(sorted(set().union(*sets)))
        if not any(len(tags) > 1 for tags in sets):
            raise ConfigError(
                "No sample has more than one tag.",
                where="task.separator",
                expected=f"labels such as a{self.settings.separator}b",
                got=", ".join(labels.names[:5]),
                fix="Set task.separator to what stands between tags, or task.name=classify for one label per sample.",
            )
        table = torch.tensor([[float(tag in tags) for tag in self.names] for tags in sets])
        self.register_buffer("table", table)
        self.make_head(dim, len(self.names))

    def target(self, labels: Tensor) -> Tensor:
        """(B, tags) of zeros and ones."""
        return self.table[labels]

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(prediction, target, reduction="none").mean(1)

    def _known(self, target: Tensor) -> Tensor:
        """Tags that some samples have and others haven't."""
        return (target.sum(0) > 0) & (target.sum(0) < len(target))

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Mean average precision over tags that some samples have and others haven't; F1 over all, and by tag."""
        from sklearn.metrics import average_precision_score, f1_score  # type: ignore[import-untyped]

        known = self._known(target)
        guess = (prediction.sigmoid() >= self.settings.threshold).numpy()
        precision = float("nan")
        if bool(known.any()):
            precision = float(average_precision_score(target[:, known].numpy(), prediction[:, known].numpy()))
        truth = target.numpy()
        return {
            "mAP": precision,
            "f1": float(f1_score(truth, guess, average="micro", zero_division=0)),
            "f1_macro": float(f1_score(truth, guess, average="macro", zero_division=0)),
        }

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        from sklearn.metrics import average_precision_score, f1_score

        guess = prediction.sigmoid() >= self.settings.threshold
        rows = []
        for index, name in enumerate(self.names):
            truth = target[:, index].numpy()
            defined = bool(self._known(target)[index])
            average = float(average_precision_score(truth, prediction[:, index].numpy())) if defined else float("nan")
            score = float(f1_score(truth, guess[:, index].numpy(), zero_division=0))
            rows.append((name, average, score, int(truth.sum())))
        return [Table("By tag", ("tag", "average precision", "F1", "samples"), rows)]

    def charts(self, prediction: Tensor, target: Tensor) -> list[Chart]:
        """The average precision of each tag, from the highest down."""
        rows = self.tables(prediction, target)[0].rows
        known = sorted(((str(row[0]), float(row[1])) for row in rows), key=lambda row: (math.isnan(row[1]), -row[1]))
        names, values = [name for name, _ in known], [value for _, value in known]
        return [Chart("Average precision by tag", y=values, names=names, y_label="average precision")]

    def wrongness(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss, where the tags given aren't the true ones."""
        right = ((prediction.sigmoid() >= self.settings.threshold) == target.bool()).all(1)
        return self.loss(prediction, target) * ~right

    def told(self, prediction: Tensor, target: Tensor) -> list[str]:
        rows = zip(self._given(target), self._given(prediction.sigmoid()), strict=True)
        return [f"is {true or 'none'}, said {said or 'none'}" for true, said in rows]

    def _given(self, shares: Tensor) -> list[str]:
        """The tags whose probability is high enough."""
        return [
            self.settings.separator.join(
                name for name, share in zip(self.names, row, strict=True) if share >= self.settings.threshold
            )
            for row in shares.tolist()
        ]

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """The tags given, and the probability of each."""
        shares = prediction.sigmoid()
        return {"tags": self._given(shares), **{f"p_{name}": shares[:, index] for index, name in enumerate(self.names)}}
