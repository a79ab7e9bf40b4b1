"""A look at the encoder while it trains: k-NN, a linear probe, effective rank, and the loss at several mask ratios.

Everything is a function of the weights and of fixed samples. Nothing is drawn, no weight or mode is left changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import DataSource
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.evaluation.classifiers import Regression, knn
from maskedmodel.evaluation.features import Features, extract
from maskedmodel.training.data import UNLABELLED, Reading
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import validation_loss

RATIOS = (0.25, 0.5, 0.75, 0.9)


def rank_me(features_ND: Tensor) -> float:
    """Effective rank (RankMe, Garrido et al. 2023): exp of the entropy of the singular values' shares.

    From 1, where all features lie on a line, to min(N, D), where they spread evenly. Zero features have rank 0.
    """
    values = torch.linalg.svdvals(features_ND.double())
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


class Watch:
    """What `evaluate.every` asks for. Called with a model it gives the figures of that moment by name.

    rankme          effective rank of the validation features, as published, and
    rankme_centred  with their mean taken off: what all features share is else most of what there is.
    loss@RATIO      masked validation loss where so much is hidden, under fixed uniform masks.
    knn, linear     accuracy on the validation samples, fitted to the training samples; not where there are no labels.
    """

    def __init__(self, config: RunConfig, source: DataSource[Any]) -> None:
        self.config = config
        self.train_data, self.val_data = source.open("train"), source.open("val")
        self.labelled = source.class_names() is not None

    def __call__(self, model: MaskedAutoencoder, world: World) -> dict[str, float]:
        evaluate, settings = self.config.evaluate, self.config.train
        reading = replace(Reading.of(settings, world.device), limit=evaluate.every_samples)
        test = extract(model, self.val_data, reading, pool=evaluate.pool)
        found = {"rankme": rank_me(test.values), "rankme_centred": rank_me(test.values - test.values.mean(0))}
        for ratio in RATIOS:
            fixed = settings.model_copy(update={"validation_ratio": ratio})
            found[f"loss@{ratio:g}"] = validation_loss(model, self.val_data, fixed, world)
        if self.labelled:
            train = extract(model, self.train_data, reading, pool=evaluate.pool)
            found |= self._accuracies(train, test)
        return found

    def _accuracies(self, train: Features, test: Features) -> dict[str, float]:
        if train.labels is None or test.labels is None:
            return {}
        a, b = train.labels != UNLABELLED, test.labels != UNLABELLED
        y, z = train.labels[a], test.labels[b]
        if len(torch.unique(y)) < 2 or not len(z):
            return {}
        evaluate = self.config.evaluate
        near = knn(train.values[a], y, test.values[b], z, evaluate.neighbours, evaluate.temperature)
        fitted = Regression(train.values[a].double().numpy(), y.numpy())
        fitted.fit(1.0)
        return {"knn": near.value, "linear": fitted.right(test.values[b].double().numpy(), z.numpy()) / len(z)}
