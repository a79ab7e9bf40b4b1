"""`maskedmodel doctor`: what a run would stand on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from maskedmodel.commands.run import Config, some_samples
from maskedmodel.components import Fact, Split
from maskedmodel.config.build import Components, build_components
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.fastest import described
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from maskedmodel.training.data import Broken, Guarded, spread
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.fitting import fit_all
from maskedmodel.training.tracking import environment
from maskedmodel.weights.start import start


def doctor(config: Config = None, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a run would stand on: versions, device, plugins; given a config, also one step of it, untrained.

    Raises MaskedModelError for the first thing that a run of this config would stumble over.
    """
    registry = load_registry()
    device = pick_device("auto")
    found: dict[str, Any] = {
        "environment": environment(device),
        "kernels": described(),
        "plugins": [plugin.name for plugin in registry.plugins],
        "failures": [f"{failure.plugin}: {failure.reason}" for failure in registry.failures],
    }
    if config is None and not overrides:
        return found
    resolved = load_config(config, overrides, registry=registry)
    parts = build_components(resolved, registry)
    signals, _ = some_samples(parts.source, parts.tokenizer, resolved, min(resolved.train.batch, 8), device)
    fit_all(parts.tokenizer, parts.scheduler, lambda: [signals])
    signals, _ = some_samples(
        parts.source, parts.tokenizer, resolved, len(signals), device
    )  # prepared with what was measured
    with seeded(resolved.train.seed), torch.inference_mode():
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model)
        if resolved.start.weights is not None:
            found["start"] = start(model, resolved.start, registry).summary()
        model.to(device)
        output = model(signals)
    return found | {
        "data": _by_subject(parts.source.facts()),
        "samples": {split: measured(parts, split, resolved) for split in ("train", "val")},
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


LOOKED_AT = 64  # samples of each part, evenly spread


def _by_subject(facts: Sequence[Fact]) -> dict[str, str]:
    """What is said of each subject; one after the other where a source says several things of one."""
    found: dict[str, str] = {}
    for fact in facts:
        found[fact.about] = f"{found[fact.about]}; {fact.text}" if fact.about in found else fact.text
    return found


def measured(parts: Components, split: Split, config: RunConfig) -> dict[str, Any]:
    """What a spread of the samples of a part is like, as the source stores them: to be checked before a long run."""
    dataset = parts.source.open(split)
    shapes: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    broken: list[str] = []
    low, high, missing, values = math.inf, -math.inf, 0, 0
    names = parts.source.class_names()
    guarded = Guarded(dataset, parts.tokenizer.accepts_nan, config.train.data_timeout)
    for index in spread(len(dataset), LOOKED_AT):
        sample, _ = guarded[index, 0]
        if isinstance(sample, Broken):
            broken.append(f"{sample.id}: {sample.reason.splitlines()[0]}")
            continue
        signal, label = sample["signal"], sample.get("label")
        shapes[f"{tuple(signal.shape)} {str(signal.dtype).removeprefix('torch.')}"] += 1
        notes.update(sample.get("notes", ()))
        labels["none" if label is None else names[label] if names else str(label)] += 1
        there = signal[~signal.isnan()] if signal.is_floating_point() else signal
        missing, values = missing + signal.numel() - there.numel(), values + signal.numel()
        if there.numel():
            low, high = min(low, float(there.min())), max(high, float(there.max()))
    return {
        "count": len(dataset),
        "looked at": min(len(dataset), LOOKED_AT),
        "shapes": dict(shapes.most_common(8)),
        "values": f"{low:.6g} to {high:.6g}" if values > missing else "none",
        "missing values": f"{missing / values:.1%}" if values else "none",
        "labels": dict(labels.most_common(20)),
        **({"notes": dict(notes)} if notes else {}),
        **({"broken": broken} if broken else {}),
    }
