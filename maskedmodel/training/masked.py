"""Masked modelling as a way to learn: masks keyed by sample, a loss per hidden token, validation under fixed masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.config.sections import TrainSettings
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.noise import Noise
from maskedmodel.scenes import SceneObjective
from maskedmodel.schedulers import MaskScheduler, Observed
from maskedmodel.tokens import Mask
from maskedmodel.training.data import Batch, Broken, Reading, eval_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.fitting import fit_statistics
from maskedmodel.training.memory import Fitting
from maskedmodel.training.packing import packed
from maskedmodel.training.parts import Learning, Losses, Part, autocast


def mean_ratio(scheduler: MaskScheduler[Any], points: int = 101) -> float:
    """The mean of a scheduler's ratio over a run."""
    return sum(scheduler.ratio(point / (points - 1)) for point in range(points)) / points


def validation_ratio(model: MaskedAutoencoder, settings: TrainSettings) -> float:
    """The share of tokens that validation hides: as set, else the mean of the mask's ratio over the run."""
    if settings.validation_ratio is not None:
        return settings.validation_ratio
    return round(mean_ratio(model.scheduler), 4)


def validation_loss(
    model: MaskedAutoencoder,
    dataset: SampleDataset,
    settings: TrainSettings,
    world: World,
    record: Callable[[Broken], object] | None = None,
) -> float:
    """Loss per hidden token under fixed masks: uniform, one ratio, keyed by seed and sample id.

    The training scheduler has no part in it, so curves compare across runs, and the same weights always score the same.
    `record` is given each sample that is left out. Where memory runs out, fewer rows at a time are taken.
    """
    total = scored = by_sample = samples = 0.0
    ratio, was_training = validation_ratio(model, settings), model.training
    size = max(settings.batch // settings.accumulate, 1)
    reading = Reading.of(settings, world.device, batch=size, limit=settings.validation_samples)
    model.eval()
    fitting = Fitting("the validation")
    with torch.inference_mode():
        for batch in eval_batches(dataset, model.tokenizer, replace(reading, record=record)):
            noise = batch.noise(settings.seed, epoch=-1)

            def score(rows: slice, batch: Batch = batch, noise: Noise = noise) -> tuple[float, float, float]:
                tokens = model.tokens(batch.signal[rows])
                scores = noise.rows(rows).uniform(tokens.length, "validation")
                mask = Mask.from_scores(scores, ratio, tokens.valid)
                with autocast(settings.precision, world.device):
                    output = model(tokens, mask, progress=1.0)
                own = 0.0 if output.loss_per_sample is None else float(output.loss_per_sample.sum())
                return float(output.loss_per_token.sum()), mask.scored, own

            for loss, count, own in fitting(score, len(batch.ids)):
                total, scored, by_sample = total + loss, scored + count, by_sample + own
            samples += len(batch.ids)
    model.train(was_training)
    return total / max(scored, 1) + by_sample / max(samples, 1)


class MaskedModelling(Learning[MaskedAutoencoder, Part]):
    """A masked autoencoder on signals without labels."""

    title = "pretraining"

    def __init__(self, model: MaskedAutoencoder, settings: TrainSettings) -> None:
        super().__init__(model, settings)
        self._sums: dict[str, tuple[float, float]] = {}  # of the objective's losses by name, over a step's parts

    @property
    def tokenizer(self) -> Tokenizer[Any]:
        return self.model.tokenizer

    def parts(self, batch: Batch, progress: float, accumulate: int | None = None) -> list[Part]:
        """Tokens and masks, weighted by their hidden tokens."""
        objective = self.model.objective
        names = objective.names if isinstance(objective, SceneObjective) else ()
        self._sums = {name: (0.0, 0.0) for name in names}
        if not batch.ids:
            return []
        noise = batch.noise(self.settings.seed)
        signal = self.tokenizer.augment(batch.signal, noise)
        parts = []
        for rows in self.rows(batch, accumulate):
            tokens = self.model.tokens(signal[rows])
            mask = self.model.scheduler.sample(tokens, progress, noise.rows(rows))
            parts.append(Part(tokens, mask, mask.scored))
        return parts

    def loss(self, model: nn.Module, part: Part, progress: float) -> Losses:
        assert part.mask is not None
        with autocast(self.settings.precision, part.tokens.values.device):
            output = model(part.tokens, part.mask, progress=progress)
        seen = Observed(part.tokens, part.mask, output.loss_per_token.detach(), output.latent, progress)
        for name, loss in output.named.items():
            total, count = self._sums[name]
            self._sums[name] = total + float(loss.sum()), count + (part.mask.scored if loss.dim() == 2 else len(loss))
        per_sample = None if output.loss_per_sample is None else output.loss_per_sample.sum()
        return Losses(output.loss_per_token.sum(), self.model.scheduler.observe(seen), per_sample)

    def sums(self) -> Mapping[str, tuple[float, float]]:
        return {f"loss_{name}": pair for name, pair in self._sums.items()}

    def idle(self, model: nn.Module) -> Tensor:
        assert isinstance(model, DistributedDataParallel)
        example = self.tokenizer.example(1, torch.Generator().manual_seed(0)).to(self.model.device)
        loss: Tensor = model(self.model.tokens(self.tokenizer.prepare(example))).loss.mul(0)
        return loss

    def validate(self, dataset: SampleDataset, world: World) -> dict[str, float]:
        loss = validation_loss(self.model, dataset, self.settings, world, self.note_unread)
        return {"val_loss": loss, "val_ratio": validation_ratio(self.model, self.settings)}

    def group(self, parts: list[Part]) -> list[Part]:
        """Where rows of a mask differ in length: groups of equal ones, unless shapes must stay for a compiled model."""
        if self.settings.compile:
            return parts
        dim = self.model.settings.encoder.dim
        groups = []
        for part in parts:
            assert part.mask is not None
            groups += [Part(tokens, mask, 0) for tokens, mask in packed(part.tokens, part.mask, dim)]
        return groups

    def fit(self, dataset: SampleDataset) -> None:
        fit_statistics(self.model, dataset, self.settings)

    def after_step(self, progress: float) -> None:
        self.model.scheduler.after_step(self.model.encoder, progress)
        if isinstance(self.model.objective, SceneObjective):
            self.model.objective.after_step(self.model.encoder, progress)

    def figures(self, progress: float) -> dict[str, float]:
        return {"ratio": self.model.scheduler.ratio(progress)}

    def state(self) -> Mapping[str, Tensor]:
        return {name: value.clone() for name, value in self.model.scheduler.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.model.scheduler.load_state_dict(dict(state))

    def compile(self) -> None:
        self.model.compile_engine()
