"""Checkpoints: written beside, synced, renamed; they count only with COMMITTED and right checksums.

checkpoints/step-00001000/
    model.safetensors       every parameter and buffer of the MaskedAutoencoder
    optimizer.safetensors   "<parameter name>:<state name>" of AdamW
    state.json              step, format, data fingerprint, broken samples
    COMMITTED               sha256 of the files above, written last
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskedmodel.errors import CheckpointError, TrainingError
from maskedmodel.files import replacing

FORMAT = 1
COMMITTED = "COMMITTED"
log = logging.getLogger("maskedmodel")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: beside, synced, renamed."""
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise TrainingError(
            "A file of the run can't be written.",
            where=path,
            got=error.strerror,
            fix="Free disk space or check the folder's permissions, then run the same command again.",
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_of(run: Path, step: int) -> Path:
    """Where a run's checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def save(
    run: Path, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of a step. Raises TrainingError, leaving nothing half-written, when the disk refuses."""
    final = folder_of(run, step)
    beside = final.with_name(f".{final.name}.writing")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, beside / f"{name}.safetensors")
        (beside / "state.json").write_text(json.dumps({"format": FORMAT, "step": step, **state}, indent=1))
        sums = {path.name: _sha256(path) for path in sorted(beside.iterdir())}
        for name in sums:
            _sync(beside / name)
        (beside / COMMITTED).write_text(json.dumps({"format": FORMAT, "sha256": sums}, indent=1))
        _sync(beside / COMMITTED)
        _sync(beside)
        if final.exists():  # a damaged one of the same step: whole ones are never written twice
            shutil.rmtree(final)
        beside.rename(final)
        _sync(final.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise TrainingError(
            "A checkpoint can't be written; earlier ones are untouched.",
            where=final,
            got=str(error),
            fix="Free disk space or check the folder's permissions, then run the same command again.",
        ) from error
    return final


def keep_last(run: Path, count: int) -> None:
    """Remove all but the newest `count` checkpoints, and leftovers of writes that were cut. Never fatal."""
    folder = run / "checkpoints"
    for path in [*folder.glob(".*.writing"), *_newest_first(run)[count:]]:
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("An old checkpoint can't be removed: %s (%s)", path, error.strerror)


def _newest_first(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint doesn't count, or None when it is whole."""
    try:
        committed = json.loads((checkpoint / COMMITTED).read_text())
        sums = committed["sha256"]
        for name, expected in sums.items():
            if _sha256(checkpoint / name) != expected:
                return f"{name} differs from its checksum"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{COMMITTED} can't be read ({type(error).__name__})"
    return None


def find(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None where there is none at all.

    A damaged one is passed over with a warning that names it. Raises CheckpointError when all are damaged.
    """
    found = _newest_first(run)
    reasons = []
    for checkpoint in found:
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        reasons.append(f"{checkpoint.name}: {reason}")
        log.warning("Checkpoint %s is damaged (%s): falling back to the one before.", checkpoint, reason)
    if reasons:
        raise CheckpointError(
            "Every checkpoint of the run is damaged.",
            where=run,
            got="; ".join(reasons),
            fix="Restore one from a backup, or start again in another folder with --run.",
        )
    return None


def newest(run: Path) -> Path:
    """As `find`, but raises CheckpointError where there is none."""
    checkpoint = find(run)
    if checkpoint is None:
        raise CheckpointError(
            "The run holds no checkpoint yet.", where=run, fix="Let it train until train.checkpoint_every steps."
        )
    return checkpoint


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json. Raises CheckpointError when it is of a format this version doesn't know."""
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
    if state.get("format") != FORMAT:
        raise CheckpointError(
            "The checkpoint is of another format.",
            where=checkpoint,
            expected=FORMAT,
            got=state.get("format"),
            fix="Use the version of maskedmodel that wrote it.",
        )
    return state


def read_model(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, on the CPU."""
    return load_file(checkpoint / "model.safetensors")


def read_optimizer(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of optimizer.safetensors, on the CPU."""
    return load_file(checkpoint / "optimizer.safetensors")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name."""
    return {
        f"{names[parameter]}:{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back. Raises CheckpointError where they belong to other parameters."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, tensor in tensors.items():
        name, _, state = key.rpartition(":")
        if name not in by_name:
            raise CheckpointError("The optimizer state is of another model.", where=key)
        optimizer.state[by_name[name]][state] = tensor.to(by_name[name].device)


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Load a state dict whole. Raises CheckpointError naming what is missing, unexpected or of another shape."""
    own = module.state_dict()
    wrong = [
        f"{k}: {tuple(tensors[k].shape)} where {tuple(own[k].shape)} is due"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if wrong or missing or unexpected:
        parts = {"other shapes": wrong, "missing": missing, "unexpected": unexpected}
        said = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in parts.items()
            if keys
        ]
        raise CheckpointError(
            "The checkpoint is of another model.",
            where=where,
            got="; ".join(said),
            fix="Use the config it was trained with, or start again in another folder with --run.",
        )
    module.load_state_dict(dict(tensors))
