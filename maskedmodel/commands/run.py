"""What the verbs share: a run opened, a few of its samples, pictures and probes of its model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import DataSource, Tokenizer
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.signals import SignalModel
from maskedmodel.evaluation import probes
from maskedmodel.evaluation import reconstruct as pictures
from maskedmodel.evaluation.canvas import save_file, save_png
from maskedmodel.evaluation.encoders import Encoder
from maskedmodel.evaluation.probes import ProbeResult
from maskedmodel.files import path_of
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.tracking import Display
from maskedmodel.weights.runs import load, load_pretrained

log = logging.getLogger("maskedmodel")
Config = str | Path | Mapping[Any, Any] | None


def opened(run: str | Path) -> tuple[Path, RunConfig, Registry, MaskedAutoencoder, torch.device]:
    """A run folder, its config, and its model on the device of its config."""
    registry = load_registry()
    folder = path_of(run)
    model = load_pretrained(folder, registry=registry)
    config = load_config(folder / "config.yaml", registry=registry, needs_data=False)
    device = pick_device(config.train.device)
    return folder, config, registry, model.to(device), device


def opened_any(run: str | Path) -> tuple[Path, Trained, Registry, SignalModel, torch.device]:
    """As `opened`, of a pretrained or a fine-tuned run."""
    registry, folder = load_registry(), path_of(run)
    model = load(folder, registry=registry)
    kind: type[Trained] = FinetuneConfig if isinstance(model, FineTuned) else RunConfig
    config = load_config(folder / "config.yaml", registry=registry, needs_data=False, kind=kind)
    device = pick_device(config.train.device)
    return folder, config, registry, model.to(device), device


def some_samples(
    source: DataSource[Any], tokenizer: Tokenizer[Any], config: RunConfig, count: int, device: torch.device
) -> tuple[Tensor, list[str | int]]:
    """A few validation samples, prepared by a tokenizer, which of a trained model is its own: it has measured."""
    reading = Reading.of(config.train, device, batch=count, limit=count)
    batches = eval_batches(source.open("val"), tokenizer, reading)
    batch = next(iter(batches))
    return batch.signal, batch.ids


def pictures_folder(folder: Path) -> Path:
    path = folder / "pictures"
    path.mkdir(exist_ok=True)
    return path


def draw(
    model: MaskedAutoencoder,
    signals: Tensor,
    ids: Sequence[str | int],
    path: Path,
    config: RunConfig,
    step: int,
    mode: str | None = None,
    captions: Sequence[str] | None = None,
) -> Path:
    """The picture, and what shows its samples in time in a folder beside it."""
    done = pictures.complete(model, signals, ids, mode=mode, seed=config.train.seed)
    for name, content in pictures.media(model, done).items():
        beside = path.with_suffix("")
        beside.mkdir(exist_ok=True)
        save_file(content, beside / name)
    return save_png(pictures.draw(model, done, step=step, captions=captions), path)


def run_probe(
    config: RunConfig,
    model: MaskedAutoencoder,
    source: DataSource[Any],
    device: torch.device,
    quiet: bool,
    beside: Sequence[Encoder] = (),
) -> ProbeResult:
    with Display("looking", 1, quiet=quiet) as display:
        result = probes.probe(
            model,
            source,
            config.evaluate,
            Reading.of(config.train, device),
            seed=config.train.seed,
            beside=beside,
            progress=display.phase,
        )
    return result
