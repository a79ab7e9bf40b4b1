"""A model card for an export, made from its run: what it is, what it was trained on and how well, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskedmodel.config.files import read_config
from maskedmodel.engine.signals import SignalModel
from maskedmodel.training.folder import OUTCOME
from maskedmodel.weights.place import CONFIG

_LIBRARY = {"huggingface": "transformers", "timm": "timm", "onnx": "onnx"}


def card(model: SignalModel, run: Path, about: Mapping[str, Any]) -> str:
    """README.md of an export whose export.json says `about`. Names of folders on this machine don't get in."""
    origin = about["started_from"]
    head = ["---", f"library_name: {_LIBRARY.get(about['target'], 'maskedmodel')}", "tags:", "- masked-autoencoder"]
    if origin is not None and origin.get("licence"):
        head += ["license: other"]
    encoder, config = model.settings.encoder, read_config(run / CONFIG)
    done = "fine-tuned" if config.get("task") else "pretrained"
    sections = ("data", "tokenizer", "task", "mask", "objective")
    lines = [
        *head,
        "---",
        "",
        f"# {about['source']}",
        "",
        f"A masked autoencoder {done} with maskedmodel {about['versions']['maskedmodel']}: {about['what']}.",
        "",
        "## Input and output",
        "",
        f"- takes {about['takes']}",
        f"- gives {about['gives']}",
        *(f"- {note}" for note in about["notes"]),
        "",
        "## Loading",
        "",
        f"    {about['load']}",
        "",
        f"Outputs differ from the model's own by at most {about['difference']:.3g}, on random input.",
        "",
        "## Training",
        "",
        f"- encoder: {encoder.depth} blocks of width {encoder.dim}, {encoder.heads} heads, "
        f"{sum(p.numel() for p in model.encoder.parameters()):,} parameters, {encoder.positions} positions",
        *(_component(config, section) for section in sections if config.get(section)),
        *_numbers(run, config),
    ]
    if origin is not None:
        lines += ["", "## Licence", "", f"It started from {origin['source']}. {origin.get('licence') or ''}".rstrip()]
    return "\n".join(lines) + "\n"


def _component(config: Mapping[Any, Any], section: str) -> str:
    """A component's name and settings but those that hold text, which may be a path or a person's file."""
    settings = config[section]
    told = {key: value for key, value in settings.items() if isinstance(value, bool | int | float | list | dict)}
    plain = {key: value for key, value in told.items() if "/" not in json.dumps(value, default=str)}
    shown = ", ".join(f"{key} {json.dumps(value, default=str)}" for key, value in plain.items())
    return f"- {section}: {settings.get('name')}" + (f" ({shown})" if shown and section != "data" else "")


def _numbers(run: Path, config: Mapping[Any, Any]) -> list[str]:
    """What the run came to, as far as it has ended: losses, and probes with their protocol."""
    lines = []
    summary, probe = (_read(run / f"{name}.json") for name in ("summary", "probe"))
    judged = _read(run / OUTCOME)
    if judged is not None:
        found = judged["judged"]
        for name, measure in found["metrics"].items():
            told = f"{measure['value']:.3f}, 95 % from {measure['low']:.3f} to {measure['high']:.3f}"
            lines.append(f"- {name} on {found['samples']} validation samples: {told}")
    if summary is not None and "val_loss_start" in summary:
        training = config.get("train") or {}
        lines.append(
            f"- {summary['steps']} steps of {training.get('batch')} samples; masked validation loss "
            f"{summary['val_loss_start']:.4f} before, {summary['val_loss_end']:.4f} after, "
            f"{summary['val_ratio']:.0%} hidden"
        )
    if probe is not None and all(row["knn"] and row["linear"] for row in probe["rows"]):
        lines += ["", "## Probes", "", "| features | k-NN | linear |", "|---|---|---|"]
        for row in probe["rows"]:
            scores = row["knn"]["value"], row["linear"]["accuracy"]["value"]
            lines.append(f"| {row['name']} | {scores[0]:.3f} | {scores[1]:.3f} |")
        lines += ["", str(probe["protocol"])]
    return lines


def _read(path: Path) -> dict[str, Any] | None:
    """A file of the run, where it is there."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
