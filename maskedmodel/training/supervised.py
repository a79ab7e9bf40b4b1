"""A task on labels as a way to learn: the recipe of MAE's fine-tuning (He et al. 2021), each part of it a setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.config.finetune import AdaptSettings, FinetuneConfig
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.errors import ConfigError, PluginError
from maskedmodel.noise import Noise
from maskedmodel.tasks import Task
from maskedmodel.training.data import Batch, Reading, eval_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.fitting import fit_all, prepared
from maskedmodel.training.memory import Fitting
from maskedmodel.training.mixing import mixed
from maskedmodel.training.optimizer import Group, Groups
from maskedmodel.training.parts import Learning, Losses, Part, autocast
from maskedmodel.training.stripes import require_spectrogram, striped
from maskedmodel.training.targeted import target_of

HEAD = "head"  # what the head's groups of parameters are called


@dataclass(frozen=True, eq=False)
class LabelledPart(Part):
    """Tokens with what they should give.

    targets  pairs of a target (B, ...) and its weight (B,): more than one where samples were mixed.
    kept     (B, blocks, 2), what the halves of the encoder's blocks are multiplied by, or None.
    """

    targets: tuple[tuple[Tensor, Tensor], ...]
    kept: Tensor | None


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of a data set on the CPU, in its order, and what they should be, as the task digests both."""

    prediction: Tensor
    target: Tensor
    loss: float
    ids: tuple[str | int, ...]


def predicted(
    model: FineTuned,
    dataset: SampleDataset,
    reading: Reading,
    precision: str = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """What a model predicts of labelled samples, in evaluation mode, and its mean loss. Modes stay as they were.

    Where memory runs out, fewer rows at a time are taken.
    """
    predictions, targets, ids = [], [], []
    total, weight, was_training = 0.0, 0.0, model.training
    count = len(dataset) if reading.limit is None else min(reading.limit, len(dataset))
    task: Any = model.average["task"] if model.average is not None else model.task
    model.eval()
    fitting = Fitting("the predictions")
    with torch.inference_mode():
        for batch in eval_batches(dataset, model.tokenizer, reading):
            prediction = predictions_of(model, batch.signal, fitting, precision)
            target = target_of(task, model.tokenizer, batch)
            weights = task.weight(target)
            total += float((losses(task, prediction, target) * weights).sum())
            weight += float(weights.sum())
            assert batch.stored is not None
            both = (task.restore(model.tokenizer, values, batch.stored) for values in (prediction, target))
            kept, against = task.digest(*both)
            predictions.append(kept.cpu())
            targets.append(against.cpu())
            ids += batch.ids
            if progress is not None:
                progress(len(ids), count)
    model.train(was_training)
    return Predicted(torch.cat(predictions), torch.cat(targets), total / weight if weight else 0.0, tuple(ids))


def losses(task: Task[Any], prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of each sample (B,). Raises PluginError where the task gives something else: it would weigh wrongly."""
    if len(prediction) != len(target):
        raise _breach(task, f"a prediction of each of {len(target)} samples", tuple(prediction.shape))
    found = task.loss(prediction, target)
    if found.shape != (len(target),):
        raise _breach(task, f"a loss of each of {len(target)} samples", tuple(found.shape))
    return found


def _breach(task: Task[Any], expected: str, got: object) -> PluginError:
    return PluginError("A task breaks its contract.", where=type(task).__name__, expected=expected, got=got)


def predictions_of(model: FineTuned, signal: Tensor, fitting: Fitting, precision: str) -> Tensor:
    """The predictions of a prepared batch in float32, of as many rows at once as memory holds."""
    with autocast(precision, signal.device):
        return torch.cat(fitting(lambda rows: model(signal[rows]).float(), len(signal)))


def branches(noise: Noise, depth: int, rate: float) -> Tensor | None:
    """(B, depth, 2): zero where a half of a block is left out for a sample, else one over how often it is kept.

    The rate grows evenly from 0 in the first block to `rate` in the last, as in timm and MAE.
    """
    if not rate:
        return None
    rates = torch.linspace(0, rate, depth, device=noise.keys.device).repeat_interleave(2)
    return ((noise.uniform(2 * depth, "drop path") >= rates) / (1 - rates)).view(-1, depth, 2)


class Supervised(Learning[FineTuned, LabelledPart]):
    """A fine-tuned model on labelled samples, by `ranks` processes. Raises ConfigError where pairs would be cut."""

    title = "fine-tuning"

    def __init__(self, model: FineTuned, config: FinetuneConfig, ranks: int = 1) -> None:
        super().__init__(model, config.train)
        self.adapt: AdaptSettings = config.adapt
        self.best_by = (f"val_{model.task.score}", model.task.higher_is_better)
        size = config.train.batch // (config.train.accumulate * ranks)
        if self.mixes and size % 2:
            raise ConfigError(
                "Samples are mixed in pairs, and a micro-batch has an odd number of them.",
                where="train.batch, train.accumulate",
                expected="an even number of samples in each micro-batch of each rank",
                got=size,
            )
        if self.adapt.mixup and model.tokenizer.vocabulary:
            raise ConfigError(
                "The values of this tokenizer are ids, and there is nothing between two ids.",
                where="adapt.mixup",
                expected="0; adapt.cutmix mixes whole tokens",
                got=self.adapt.mixup,
                fix="Set adapt.mixup=0.",
            )
        if model.task.takes_target and (self.mixes or model.scheduler is not None):
            raise ConfigError(
                "Neither can samples be mixed nor tokens hidden where places have a target of their own.",
                where="adapt.mixup, adapt.cutmix" if self.mixes else "mask",
                expected="adapt.mixup=0 adapt.cutmix=0 mask=null",
                fix="Leave both out, or choose a task with one label per sample.",
            )
        if self.adapt.stripes:
            require_spectrogram(model.tokenizer)
        freeze(model, self.adapt.freeze)

    @property
    def tokenizer(self) -> Tokenizer[Any]:
        return self.model.tokenizer

    def parts(self, batch: Batch, progress: float, accumulate: int | None = None) -> list[LabelledPart]:
        """Tokens and targets, weighted as the task says."""
        if not batch.ids:
            return []
        noise = batch.noise(self.settings.seed)
        signal = self.tokenizer.augment(batch.signal, noise)
        whole = target_of(self.model.task, self.tokenizer, batch, noise)
        parts = []
        for rows in self.rows(batch, accumulate):
            own = noise.rows(rows)
            tokens, target = self.model.tokens(signal[rows]), whole[rows]
            weight = self.model.task.weight(target)
            targets: tuple[tuple[Tensor, Tensor], ...] = ((target, weight),)
            if self.mixes:
                tokens, share, partner = mixed(tokens, own, self.adapt.mixup, self.adapt.cutmix)
                targets = ((target, weight * share), (target[partner], weight[partner] * (1 - share)))
            if self.adapt.stripes:
                shares = self.adapt.stripe_time, self.adapt.stripe_frequency
                tokens = striped(tokens, self.tokenizer, signal[rows], own, self.adapt.stripes, shares)
            mask = None if self.model.scheduler is None else self.model.scheduler.sample(tokens, progress, own)
            kept = branches(own, self.model.settings.encoder.depth, self.adapt.drop_path)
            count = float(sum(weight.sum() for _, weight in targets))
            parts.append(LabelledPart(tokens, mask, count, targets, kept))
        return parts

    def rows(self, batch: Batch, accumulate: int | None) -> Iterator[slice]:
        """As for all, but no pair of mixed samples is cut in two."""
        size = math.ceil(len(batch.ids) / (accumulate or self.settings.accumulate))
        size += size % 2 if self.mixes else 0
        for start in range(0, len(batch.ids), size):
            yield slice(start, start + size)

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed in pairs."""
        return bool(self.adapt.mixup or self.adapt.cutmix)

    def loss(self, model: nn.Module, part: LabelledPart, progress: float) -> Losses:
        device = part.tokens.values.device
        with autocast(self.settings.precision, device):
            prediction = model(part.tokens, part.mask, part.kept)
        task = self.model.task
        weighted = [losses(task, prediction.float(), target) * weight for target, weight in part.targets]
        return Losses(torch.stack([one.sum() for one in weighted]).sum())

    def idle(self, model: nn.Module) -> Tensor:
        example = self.tokenizer.example(1, torch.Generator().manual_seed(0)).to(self.model.device)
        loss: Tensor = model(self.model.tokens(self.tokenizer.prepare(example))).float().sum().mul(0)
        return loss

    def validate(self, dataset: SampleDataset, world: World) -> dict[str, float]:
        size = max(self.settings.batch // self.settings.accumulate, 1)
        reading = Reading.of(self.settings, world.device, batch=size, limit=self.settings.validation_samples)
        reading = replace(reading, record=self.note_unread)
        found = predicted(self.model, dataset, reading, self.settings.precision)
        metrics = self.model.task.metrics(found.prediction, found.target)
        if self.model.task.score not in metrics:
            raise _breach(self.model.task, f"the score {self.model.task.score!r} among its metrics", sorted(metrics))
        return {"val_loss": found.loss, **{f"val_{name}": value for name, value in metrics.items()}}

    def fit(self, dataset: SampleDataset) -> None:
        batches = prepared(self.tokenizer, dataset, self.settings, self.model.device)
        fit_all(self.tokenizer, self.model.scheduler, batches)
        self.model.follow(0.0)  # weights may have been put in since the average was made

    def groups(self) -> Groups:
        """The head at the full rate, and each block of the encoder at less the further it is from it."""
        decay, depth = self.adapt.layer_decay, self.model.settings.encoder.depth
        layers: dict[tuple[int, str], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                part = HEAD if name.startswith("task.") else ""
                layers.setdefault((layer_of(name, depth), part), []).append((name, parameter))
        return [Group(decay ** (depth + 1 - layer), named, part) for (layer, part), named in sorted(layers.items())]

    def weigh(self, groups: list[dict[str, Any]], rate: float, step: int) -> None:
        """As of `adapt.head_steps` all learn; before that the head alone."""
        alone = self.adapt.head_steps
        until = round(alone * self.settings.steps) if alone < 1 else alone
        for group in groups:
            group["lr"] = 0.0 if step < until and group["part"] != HEAD else rate * group["scale"]

    def after_step(self, progress: float) -> None:
        if self.adapt.ema is not None:  # a young average follows faster, or it would long be that of fresh weights
            step = round(progress * max(self.settings.steps - 1, 1))
            self.model.follow(min(self.adapt.ema, (1 + step) / (10 + step)))
        if self.model.scheduler is not None:
            self.model.scheduler.after_step(self.model.encoder, progress)

    def figures(self, progress: float) -> dict[str, float]:
        return {} if self.model.scheduler is None else {"ratio": self.model.scheduler.ratio(progress)}

    def compile(self) -> None:
        self.model.encoder.compile()


def layer_of(name: str, depth: int) -> int:
    """Which layer a parameter belongs to, as MAE counts: 0 embeddings and tokens, n the n-th block, then the rest."""
    if name.startswith("encoder.blocks."):
        return int(name.split(".")[2]) + 1
    first = name.startswith("encoder.") and not name.startswith("encoder.norm.")
    return 0 if first else depth + 1


def freeze(model: FineTuned, blocks: int | str) -> None:
    """Let the first `blocks` blocks of the encoder and its embeddings be, or all of it; of 0, nothing."""
    if blocks == 0:
        return
    depth = model.settings.encoder.depth
    last = depth + 1 if blocks == "all" else int(blocks)
    for name, parameter in model.encoder.named_parameters():
        if layer_of(f"encoder.{name}", depth) <= last:
            parameter.requires_grad_(False)
