"""Checkpoints: written beside, synced, renamed; they count only with COMMITTED and right checksums.

checkpoints/step-00001000/
    model.safetensors       every parameter and buffer of the MaskedAutoencoder
    optimizer.safetensors   "<parameter name>:<state name>" of AdamW
    state.json              step, format, data fingerprint, broken samples, names of tied tensors
    COMMITTED               sha256 of the files above, written last

A tensor that stands under several names, as tied weights do, is kept once; reading gives it under all of them. What is
kept depends on the step alone, so a run may go on with another number of ranks or workers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskedmodel.errors import CheckpointError, TrainingError
from maskedmodel.files import WRITING, folder_beside, remove_leftovers, replacing

FORMAT = 1
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
BEST = "best.json"
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
    with _beside(final) as beside:
        _write(beside, step, model, optimizer, state)
        if final.exists():  # a damaged one of the same step: whole ones are never written twice
            shutil.rmtree(final)
        beside.rename(final)
        _sync(final.parent)
    return final


def rehearse(run: Path, model: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint and throw it away, so that what can't be saved is told before hours of training.

    Raises TrainingError as `save` does.
    """
    with _beside(folder_of(run, 0)) as beside:
        _write(beside, 0, model, {}, state)


@contextmanager
def _beside(final: Path) -> Iterator[Path]:
    """A folder to write a checkpoint in. What is left of it at the end is removed. The run's own folder is never made:
    where it is gone, somebody has moved it.
    """
    try:
        final.parent.mkdir(exist_ok=True)
        with folder_beside(final) as beside:
            yield beside
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            "A checkpoint can't be written; earlier ones are untouched.",
            where=final,
            got=str(error),
            fix="See that the folder is there, may be written to and has room, then run the same command again.",
        ) from error


def _write(
    folder: Path, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    tied = {}
    for name, tensors in (("model", model), ("optimizer", optimizer)):
        own, tied[name] = _untied(tensors)
        save_file(own, folder / f"{name}.safetensors")
    kept = {"format": FORMAT, "step": step, "tied": tied, "optimizer": sorted(optimizer), **state}
    (folder / "state.json").write_text(json.dumps(kept, indent=1))
    sums = {name: _sha256(folder / name) for name in FILES}
    for name in sums:
        _sync(folder / name)
    (folder / COMMITTED).write_text(json.dumps({"format": FORMAT, "sha256": sums}, indent=1))
    _sync(folder / COMMITTED)
    _sync(folder)


def _untied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors on the CPU, each once, and the first name of those that have several, by every further name."""
    first: dict[tuple[Any, ...], str] = {}
    own, tied = {}, {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        # Views of one storage that aren't the same tensor are kept apart: cloned, since no file holds them together.
        shared = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
        moved = tensor.detach().cpu().contiguous()
        own[name] = moved.clone() if shared and moved.data_ptr() == tensor.data_ptr() else moved
    return own, tied


def keep_last(run: Path, count: int) -> None:
    """Remove all but the newest `count` checkpoints and the best one, and leftovers of cut writes. Never fatal."""
    folder, spared = run / "checkpoints", best(run)
    remove_leftovers(folder)
    # The run is this process's alone: half checkpoints go where the file system has no locks for folders, too.
    for path in [*folder.glob(f".step-*{WRITING}"), *_newest_first(run)[count:]]:
        if path == spared:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("An old checkpoint can't be removed: %s (%s)", path, error.strerror)


def mark_best(run: Path, step: int, name: str, value: float) -> None:
    """Note that no validation so far gave a better `name` than that of a step, whose checkpoint is kept."""
    write_text(run / "checkpoints" / BEST, json.dumps({"step": step, name: value}) + "\n")


def best(run: Path) -> Path | None:
    """The checkpoint of the best validation, where the run keeps one and it is whole."""
    try:
        step = json.loads((run / "checkpoints" / BEST).read_text())["step"]
        found = folder_of(run, int(step))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if damage(found) is None else None


def _newest_first(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint doesn't count, or None when it is whole."""
    try:
        sums = json.loads((checkpoint / COMMITTED).read_text())["sha256"]
        unlisted = [name for name in FILES if name not in sums]
        if unlisted:
            return f"{COMMITTED} doesn't list {', '.join(unlisted)}"
        for name, expected in sums.items():
            if _sha256(checkpoint / name) != expected:
                return f"{name} differs from its checksum"
        state = json.loads((checkpoint / "state.json").read_text())
        if not isinstance(state, dict) or not isinstance(state.get("step"), int):
            return "state.json tells no step"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    return _read(checkpoint, "model")


def read_optimizer(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of optimizer.safetensors, on the CPU. Raises CheckpointError where some of those kept are missing."""
    tensors, kept = _read(checkpoint, "optimizer"), read_state(checkpoint).get("optimizer")
    missing = sorted(set(kept) - tensors.keys()) if kept is not None else []  # 0.1.0 kept no list
    if missing:
        raise _incomplete(checkpoint, missing)
    return tensors


def _read(checkpoint: Path, part: Literal["model", "optimizer"]) -> dict[str, Tensor]:
    tensors = load_file(checkpoint / f"{part}.safetensors")
    tied = read_state(checkpoint).get("tied", {}).get(part, {})
    missing = sorted(set(tied.values()) - tensors.keys())
    if missing:
        raise _incomplete(checkpoint, missing)
    return tensors | {name: tensors[first] for name, first in tied.items()}


def _incomplete(where: object, missing: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        "The checkpoint lacks tensors that it should hold.",
        where=where,
        got=f"{len(missing)} missing: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
        fix="Remove this checkpoint, so that the one before is taken, or start again in another folder with --run.",
    )


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
    states: dict[str, set[str]] = {}
    for key in tensors:
        states.setdefault(key.rpartition(":")[0], set()).add(key.rpartition(":")[2])
    every = set().union(*states.values())
    missing = sorted(f"{name}:{state}" for name, own in states.items() for state in every - own)
    if missing:
        raise _incomplete("the optimizer's state", missing)
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
