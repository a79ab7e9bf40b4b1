"""Models of fine-tuning runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maskedmodel.config.build import FinetuneComponents, component
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import load_config
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.errors import CheckpointError
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry
from maskedmodel.tasks import Labels
from maskedmodel.training import checkpoint as checkpoints

LABELS = "labels.json"


def is_finetuned(config: Mapping[Any, Any]) -> bool:
    """Whether the config of a run, as read, is that of a fine-tuning run."""
    return "task" in config


def write_labels(folder: Path, labels: Labels, left_out: Mapping[Any, int]) -> None:
    """Keep what labels mean with the run: its model can't be built without."""
    kept = {**asdict(labels), "left_out": dict(left_out)}
    checkpoints.write_text(folder / LABELS, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read_labels(folder: Path) -> Labels:
    """What `write_labels` kept. Raises CheckpointError where it is gone or damaged."""
    try:
        kept = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unknown(folder / LABELS, error) from error
    return labels_from(kept, folder / LABELS)


def labels_from(kept: Any, where: Path) -> Labels:
    """What a JSON file says that labels mean. Raises CheckpointError where it says something else."""
    try:
        numbers = (tuple(map(int, kept[name])) for name in ("counts", "shape") if name in kept)
        return Labels(tuple(map(str, kept["names"])), *numbers)
    except (ValueError, KeyError, TypeError) as error:
        raise _unknown(where, error) from error


def _unknown(where: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        "What the labels of the run mean can't be read.",
        where=where,
        got=f"{type(error).__name__}: {error}",
        fix="Bring the file back, or fine-tune again in another folder with --run.",
    )


def build(config: FinetuneConfig, parts: FinetuneComponents, labels: Labels) -> FineTuned:
    """The untrained model of a run, the same for the same seed."""
    with seeded(config.train.seed):
        averaged = config.adapt.ema is not None
        return FineTuned(parts.tokenizer, parts.task, config.model, labels, parts.scheduler, averaged)


def load_finetuned(folder: Path, checkpoint: Path, registry: Registry) -> tuple[FineTuned, FinetuneConfig]:
    """The model of a run at a checkpoint, in evaluation mode, and the run's config. Its data needn't be there."""
    config = load_config(folder / "config.yaml", registry=registry, needs_data=False, kind=FinetuneConfig)
    parts = FinetuneComponents(
        component("tokenizer", config.tokenizer, registry),
        component("task", config.task, registry),
        None if config.mask is None else component("mask", config.mask, registry),
        None,
    )
    model = build(config, parts, read_labels(folder))
    checkpoints.load_weights(model, checkpoints.read_model(checkpoint), checkpoint)
    model.settle()
    return model.eval(), config
