"""`maskedmodel doctor`: what a run would stand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from maskedmodel.commands.run import Config, some_samples
from maskedmodel.comparison.compare import compare as compare
from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.state import fit_all
from maskedmodel.training.tracking import environment


def doctor(config: Config = None, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a run would stand on: versions, device, plugins; given a config, also one step of it, untrained.

    Raises MaskedModelError for the first thing that a run of this config would stumble over.
    """
    registry = load_registry()
    device = pick_device("auto")
    found: dict[str, Any] = {
        "environment": environment(device),
        "plugins": [plugin.name for plugin in registry.plugins],
        "failures": [f"{failure.plugin}: {failure.reason}" for failure in registry.failures],
    }
    if config is None and not overrides:
        return found
    resolved = load_config(config, overrides, registry=registry)
    parts = build_components(resolved, registry)
    signals, _ = some_samples(parts, resolved, min(resolved.train.batch, 8), device)
    fit_all(parts.tokenizer, parts.scheduler, lambda: [signals])
    signals, _ = some_samples(parts, resolved, len(signals), device)  # prepared with what was measured
    with seeded(resolved.train.seed), torch.inference_mode():
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model).to(device)
        output = model(signals)
    return found | {
        "samples": {split: len(parts.source.open(split)) for split in ("train", "val")},
        "tokens": output.mask.hidden.shape[1],
        "visible": output.mask.ids_keep.shape[1],
        "values per token": parts.tokenizer.token_width,
        "parameters": {
            "encoder": sum(p.numel() for p in model.encoder.parameters()),
            "decoder": sum(p.numel() for p in model.decoder.parameters()),
        },
        "loss": float(output.loss),
        "epochs": round(resolved.train.steps * resolved.train.batch / len(parts.source.open("train")), 2),
        "learning rate": resolved.optim.peak_lr(resolved.train.batch),
    }
