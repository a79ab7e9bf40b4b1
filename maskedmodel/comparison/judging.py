"""What judging takes: whether the scores asked for can be had, and what they cost beside the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from maskedmodel.comparison.budget import Stand
from maskedmodel.comparison.finetuning import check_labels, config_of
from maskedmodel.comparison.scores import by_label, labels_of, probes_of
from maskedmodel.engine.flops import TRAIN, forward_flops
from maskedmodel.errors import DataError, MaskedModelError
from maskedmodel.evaluation.dense import check as check_dense
from maskedmodel.evaluation.encoders import of_model
from maskedmodel.evaluation.judging import NEED_LOOK, OTHERS, Data
from maskedmodel.evaluation.judging import check as check_probes
from maskedmodel.plugins import Registry
from maskedmodel.training.data import Reading
from maskedmodel.training.distributed import World


def check(scores: Sequence[str], stands: Sequence[Stand], folder: Path, registry: Registry) -> None:
    """Refuse, before anything is trained, scores that can't be had: no labels, no class token, no memory.

    Raises ConfigError or DataError, naming --score.
    """
    first = stands[0]
    if by_label(scores) and first.source.class_names() is None:
        raise DataError(
            "These data have no labels, so the runs can't be scored by them.",
            where="--score",
            got=", ".join(by_label(scores)),
            fix="Leave --score out: losses alone are compared. Or use labelled data, such as one folder per class.",
        )
    others = [name for name in probes_of(scores) if name in OTHERS]
    for stand in stands:
        settings, reading = stand.config.evaluate, Reading.of(stand.config.train, stand.device)
        parts = [
            (stand.source.open("train"), "", settings.train_samples),
            (stand.source.open("val"), "", settings.val_samples),
        ]
        data = Data(parts, stand.model.tokenizer, reading)
        try:
            if "dense" in scores:
                check_dense(stand.source, stand.model.tokenizer)
            check_probes(others, [of_model(stand.model, "the encoder", settings.pool)], data, settings)
            if stand is first:
                check_labels(stand.config, scores, folder, registry, World(0, 1, stand.device))
        except MaskedModelError as error:
            where = "--score" if error.where is None else f"--score, {error.where}"
            raise type(error)(error.what, where=where, expected=error.expected, got=error.got, fix=error.fix) from error


def flops_of(scores: Sequence[str], stand: Stand, folder: Path, registry: Registry) -> tuple[float, float]:
    """The encoder's work in judging one run: on frozen features, and in fine-tuning. Heads aren't counted."""
    settings, lengths = stand.config.evaluate, stand.lengths
    sample = sum(forward_flops(stand.model, length, 0).encoder for length in lengths) / len(lengths)
    train, val = (len(stand.source.open(split)) for split in ("train", "val"))
    read = min(train, settings.train_samples or train) + min(val, settings.val_samples or val)
    probes = probes_of(scores)
    passes = bool(by_label(probes)) + bool(set(probes) & set(NEED_LOOK)) + ("dense" in probes)
    tuning = 0.0
    for labels in labels_of(scores):
        run = config_of(stand.config, folder, labels, registry, untrained=True).train
        looks = 1 + (math.ceil(run.steps / run.validate_every) if run.validate_every else 1)
        validated = looks * min(val, run.validation_samples) + val
        tuning += TRAIN * sample * run.steps * run.batch + sample * validated
    return passes * read * sample, tuning


def said_of(scores: Sequence[str], stand: Stand, folder: Path, registry: Registry, training: float) -> str:
    """The cost in words. `training` is what the first arm's training takes, in FLOPs."""
    frozen, tuning = flops_of(scores, stand, folder, registry)
    parts = [f"{frozen:.3g} FLOPs for features"] if frozen else []
    parts += (
        [f"{tuning:.3g} FLOPs for fine-tuning, {stand.config.evaluate.finetune_steps} steps each"] if tuning else []
    )
    times = (frozen + tuning) / training
    return (
        f"Judging by {', '.join(scores)} is no part of the budget. For each run and for the weights at the start it "
        f"takes {' and '.join(parts)}: {times:.2g} times the first arm's training. Heads on frozen features aren't "
        "counted."
    )
