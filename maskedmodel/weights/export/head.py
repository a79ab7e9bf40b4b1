"""Exports of fine-tuned models: our own layout with the head, and transformers' ViTForImageClassification."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry
from maskedmodel.weights.export.transformers import encoder_config, encoder_reasons, fill, processor, silent
from maskedmodel.weights.export.written import Pictures, Written, largest, library, refused
from maskedmodel.weights.place import OWN, WEIGHTS
from maskedmodel.weights.runs import load_own


def gives(model: FineTuned) -> str:
    """What predictions are, in words."""
    task = model.task.component_name()
    names = model.labels.names
    told = f", of {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
    return f"predictions of task {task!r}: (batch, ...){told}; maskedmodel.load(RUN).task.columns says what they mean"


def write_own(model: FineTuned, folder: Path, registry: Registry | None) -> Written:
    """The whole model: model.safetensors, and config.json with its task and labels."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    parts = {"tokenizer": model.tokenizer.settings, "task": model.task.settings, "model": model.settings}
    config = {name: settings.model_dump(mode="json") for name, settings in parts.items()}
    about = {"format": OWN, "version": 1, **config, "labels": asdict(model.labels)}
    (folder / "config.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    again = load_own(folder, registry)
    return Written(
        what=f"the encoder with its head for task {model.task.component_name()!r}",
        gives="a FineTuned",
        load=f"maskedmodel.load({str(folder)!r})",
        difference=lambda signal: largest(model(signal), again(signal)),
        libraries=("safetensors",),
    )


def write_huggingface(model: FineTuned, folder: Path, registry: Registry | None) -> Written:
    """ViTForImageClassification. Raises CheckpointError on what it can't express, DependencyError without it."""
    hub = library("transformers", target="huggingface")
    pictures = Pictures(model, axes=2)
    task: Any = model.task
    if not pictures.reasons:
        pictures.reasons += encoder_reasons(model, pictures)
    if model.settings.encoder.registers:
        pictures.reasons.append("its ViT has no register tokens")
    if task.component_name() != "classify":
        pictures.reasons.append(f"its class for a head is one of classes, this task is {task.component_name()!r}")
    elif task.before_norm:
        pictures.reasons.append(
            "its head stands on the class token, this one on the mean of the tokens; fine-tune with task.pool=class"
        )
    if pictures.reasons:
        raise refused("transformers", pictures.reasons)
    names = dict(enumerate(model.labels.names))
    with seeded(0), silent(hub):
        config = hub.ViTConfig(
            **encoder_config(model, pictures), id2label=names, label2id={name: place for place, name in names.items()}
        )
        theirs = hub.ViTForImageClassification(config)
        fill(theirs.vit, model, pictures)
        theirs.classifier.load_state_dict(task.head.state_dict())
        theirs.save_pretrained(folder)
        again, info = hub.ViTForImageClassification.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
    lost = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if lost:
        raise refused("transformers", [f"what it reads back differs in {len(lost)} tensors, such as {lost[0]}"])
    if model.tokenizer.value_range == (0.0, 1.0):
        (folder / "preprocessor_config.json").write_text(json.dumps(processor(pictures, False), indent=1) + "\n")
    again = again.eval()

    def difference(signal: Tensor) -> float:
        return largest(model(signal), again(pictures.normalised(signal)).logits)

    return Written(
        what="ViTForImageClassification",
        takes=pictures.takes,
        gives=f"logits (batch, {len(names)})",
        load=f"transformers.ViTForImageClassification.from_pretrained({str(folder)!r})",
        difference=difference,
        notes=pictures.notes,
        libraries=("transformers", "safetensors"),
    )


def write_timm(model: FineTuned, folder: Path, registry: Registry | None) -> Written:
    """Always refused."""
    raise refused("timm", ["it is fine-tuned, and no head is written for timm yet"])
