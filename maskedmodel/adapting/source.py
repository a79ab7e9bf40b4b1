"""What a user names to be fine-tuned, as a config: a run, weights of another library, or a config itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskedmodel.config.files import read_config
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import load_config
from maskedmodel.errors import ConfigError
from maskedmodel.files import path_of
from maskedmodel.plugins import Registry
from maskedmodel.weights.finetuned import is_finetuned
from maskedmodel.weights.place import CONFIG
from maskedmodel.weights.start import read_start

log = logging.getLogger("maskedmodel")
# How a run reads its data and computes, which its fine-tuning does alike.
KEPT = ("seed", "precision", "device", "workers", "data_timeout", "on_bad_sample", "bad_sample_budget")


def finetune_config(
    source: str | Path | Mapping[Any, Any], overrides: Sequence[str], registry: Registry
) -> FinetuneConfig:
    """The settled config of fine-tuning what a user names.

    source  the folder of a run, or of one of its checkpoints: its data, tokenizer and encoder; a YAML file, the name
            of one that comes with maskedmodel, or a mapping: as it says; else weights that `maskedmodel import` reads,
            whose data the overrides name.

    Of a run that is fine-tuned already it is the task, too. Raises ConfigError, and CheckpointError on weights that
    can't be read.
    """
    if isinstance(source, Mapping):
        return load_config(source, overrides, registry=registry, kind=FinetuneConfig)
    path = path_of(source)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    if (folder / CONFIG).is_file():
        return load_config(_of_run(folder, path), overrides, registry=registry, kind=FinetuneConfig)
    if path.exists() and path.suffix not in (".yaml", ".yml"):
        return load_config(_of_weights(path, registry), overrides, registry=registry, kind=FinetuneConfig)
    return load_config(source, overrides, registry=registry, kind=FinetuneConfig)


def name_of(source: str | Path | Mapping[Any, Any]) -> str:
    """What a run of this source is called: `<run>-finetune`, or the config's own name."""
    if isinstance(source, Mapping):
        raise ConfigError("A config given as a mapping has no name to call its run by.", fix='Say run="runs/my-run".')
    path = path_of(source)
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.resolve().name}-finetune"
    if path.suffix in (".yaml", ".yml") or not path.exists():
        return path.stem
    return f"{path.resolve().name if path.is_dir() else path.stem}-finetune"


def _of_run(folder: Path, start: Path) -> dict[str, Any]:
    config = read_config(folder / CONFIG)
    given = of_pretraining(config, {"weights": str(start)})
    if is_finetuned(config):
        given["task"] = config["task"]
        log.warning(
            "%s is fine-tuned already: its encoder is fine-tuned further, in a run of its own. To go on with that run "
            "itself, give its config: maskedmodel finetune %s --run %s",
            folder,
            folder / CONFIG,
            folder,
        )
    return given


def of_pretraining(config: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """The config of fine-tuning, from that of a run: its data, tokenizer, encoder and way of reading, and a start."""
    train = config.get("train") or {}
    model = config.get("model") or {}
    given = {
        "tokenizer": config.get("tokenizer"),
        "model": {"encoder": model.get("encoder") or {}},
        "start": dict(start),
        "train": {key: train[key] for key in KEPT if key in train},
    }
    return given if config.get("data") is None else {"data": config["data"], **given}


def _of_weights(path: Path, registry: Registry) -> dict[str, Any]:
    model, _ = read_start(path, registry)
    return {
        "tokenizer": model.tokenizer.settings.model_dump(mode="json"),
        "model": {"encoder": model.settings.encoder.model_dump(mode="json")},
        "start": {"weights": str(path)},
    }


def from_scratch(config: FinetuneConfig) -> FinetuneConfig:
    """The same run from fresh weights. What protects learned weights is off: there are none to protect."""
    adapt = config.adapt.model_copy(update={"layer_decay": 1.0, "freeze": 0, "head_steps": 0.0})
    start = config.start.model_copy(update={"weights": None, "parts": "all", "channels": None})
    return config.model_copy(update={"start": start, "adapt": adapt})
