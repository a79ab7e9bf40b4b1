"""A run's folder: who may write in it, and whether a config still fits what lies there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maskedmodel.components import DataSource, Fact
from maskedmodel.config.load import difference, dump_config, load_config
from maskedmodel.config.sections import Trained
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError, ConfigError, TrainingError
from maskedmodel.files import path_of, remove_leftovers
from maskedmodel.plugins import Registry
from maskedmodel.training.checkpoint import find, read_state, write_text
from maskedmodel.training.hanging import remove_empty, stacks_in
from maskedmodel.training.loop import TrainResult

# What may change between a run and its resume without changing what it computes.
FREE = ("callbacks", "evaluate.", "train.checkpoint_every", "train.data_timeout", "train.device", "train.keep",
        "train.trackers", "train.workers", "train.keep_best", "train.on_out_of_memory")  # fmt: skip
TOLD = ("train.steps",)  # may change, and changes what is computed
OUTCOME = "outcome.json"  # what a finished fine-tuning run came to
log = logging.getLogger("maskedmodel")


def run_folder(config: str | Path | Mapping[Any, Any] | None, run: str | Path | None) -> Path:
    """Where a run lives: as said, else runs/<config name>."""
    if run is not None:
        return path_of(run)
    if isinstance(config, Mapping):
        raise ConfigError("A config given as a mapping has no name to call its run by.", fix='Say run="runs/my-run".')
    return Path("runs") / ("image-quickstart" if config is None else Path(config).stem)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone. Raises TrainingError where that can't be.

    The lock is the operating system's: it ends with the process, however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise TrainingError(
                    "The file system of the run's folder has no locks, so two processes could train in it at once.",
                    where=folder,
                    got=error.strerror,
                    fix="Choose a folder on another disk with --run.",
                ) from error
            lock.seek(0)
            raise TrainingError(
                "Another process trains in this folder.",
                where=folder,
                got=f"process {lock.read().strip() or 'unknown'}",
                fix="Wait for it or stop it, or choose another folder with --run.",
            ) from error
        try:
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())  # past the buffer, which would be written again at close
        except OSError as error:
            raise _unwritable(folder, error) from error
        remove_leftovers(folder)
        remove_empty(folder)
        with stacks_in(folder):
            yield


def _unwritable(folder: Path, error: OSError) -> TrainingError:
    return TrainingError(
        "The run's folder can't be written to.",
        where=folder,
        got=error.strerror,
        fix="Choose another folder with --run, free disk space, or check its permissions.",
    )


def settle(folder: Path, config: Trained, registry: Registry) -> None:
    """Write config.yaml, or hold the config against the one a checkpoint was trained with.

    Raises ConfigError listing every setting that changed and may not, and CheckpointError where there are checkpoints
    and no config.yaml to compare with. What a changed length means for the schedules is told.
    """
    path, found = folder / "config.yaml", find(folder)
    if found is not None and not path.exists():
        raise CheckpointError(
            "The run has checkpoints, but its config.yaml is gone: what they were trained with can't be compared.",
            where=folder,
            fix="Bring config.yaml back, or start a new run with --run ANOTHER_FOLDER.",
        )
    if found is not None:
        changed = difference(load_config(path, registry=registry, needs_data=False, kind=type(config)), config)
        bound = [(where, old, new) for where, old, new in changed if not where.startswith((*FREE, *TOLD))]
        step = read_state(found)["step"]
        for where, old, new in changed:
            if where in TOLD and not bound and step >= new:
                log.warning(
                    "%s was %s and is %s now, but the run has come to step %d: nothing more is trained.",
                    where,
                    old,
                    new,
                    step,
                )
            elif where in TOLD and not bound:
                log.warning(
                    "%s was %s and is %s now. From step %d on the learning rate and every schedule follow the new "
                    "length, so the run differs from one of that length from the start.",
                    where,
                    old,
                    new,
                    step,
                )
        if bound:
            raise ConfigError(
                "The run was started with another config.",
                where=folder,
                got="; ".join(f"{where} was {old!r}, now {new!r}" for where, old, new in bound),
                fix="Give the settings as they were to resume, or start a new run with --run ANOTHER_FOLDER.",
            )
    write_text(path, dump_config(config))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_summary(folder: Path, model: MaskedAutoencoder, training: TrainResult, baseline: float | None) -> None:
    """summary.json: what a finished run came to, and what always predicting zero scores, where that is known."""
    write_json(
        folder / "summary.json",
        {
            "steps": training.steps,
            "val_loss_start": training.val_loss_start,
            "val_loss_end": training.val_loss_end,
            "val_ratio": training.val_ratio,
            "baseline": baseline,
            "seconds": round(training.seconds, 1),
            "parameters": {
                part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("encoder", "decoder")
            },
            "stopped": None if training.stopped is None else asdict(training.stopped),
            "broken": [asdict(sample) for sample in training.broken],
            "broken_val": [asdict(sample) for sample in training.broken_val],
        },
    )


def tell(source: DataSource[Any], folder: Path) -> None:
    """Say what was left out, converted or guessed of the data as a whole, and keep all of it with the run."""
    write_json(folder / "data.json", {"facts": [asdict(fact) for fact in notices(source)]})


def notices(source: DataSource[Any]) -> list[Fact]:
    """The facts of a source, of which the notices are told."""
    facts = source.facts()
    for fact in facts:
        if fact.notice:
            log.warning("%s: %s", fact.about, fact.text)
    return facts
