"""What components measure on the data before training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.config.sections import TrainSettings
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.training.data import Reading, eval_batches

STATISTICS_SAMPLES = 4096  # what Tokenizer.fit_statistics sees at most


def fit_statistics(model: MaskedAutoencoder, dataset: SampleDataset, settings: TrainSettings) -> None:
    """Let the tokenizer, and then the scheduler, measure what their settings leave to be measured."""
    fit_all(model.tokenizer, model.scheduler, prepared(model.tokenizer, dataset, settings, model.device))


def prepared(
    tokenizer: Tokenizer[Any], dataset: SampleDataset, settings: TrainSettings, device: torch.device
) -> Callable[[], Iterator[Tensor]]:
    """What gives the prepared batches of a data set, anew each time it is called."""

    def batches() -> Iterator[Tensor]:
        reading = Reading.of(settings, device, limit=STATISTICS_SAMPLES)
        return (batch.signal for batch in eval_batches(dataset, tokenizer, reading))

    return batches


def fit_all(
    tokenizer: Tokenizer[Any], scheduler: MaskScheduler[Any] | None, batches: Callable[[], Iterable[Tensor]]
) -> None:
    """As `fit_statistics`, over what `batches()` gives."""
    with torch.no_grad():
        if tokenizer.needs_statistics:
            tokenizer.fit_statistics(batches())
        if scheduler is not None and scheduler.needs_statistics:
            scheduler.fit_statistics(tokenizer.tokenize(signal) for signal in batches())
