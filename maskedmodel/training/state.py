"""What a run is at a step, and its way to the disk and back."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file
from torch import Tensor

from maskedmodel.components import SampleDataset, Split
from maskedmodel.config.sections import Trained
from maskedmodel.engine.fastest import in_use, take_up
from maskedmodel.errors import CheckpointError, ConfigError, TrainingError
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.audience import Audience, Stopped
from maskedmodel.training.data import (
    Batch,
    Broken,
    broken_error,
)
from maskedmodel.training.distributed import World
from maskedmodel.training.fingerprint import fingerprint, fingerprint_of_ids
from maskedmodel.training.optimizer import make_optimizer
from maskedmodel.training.parts import Learning
from maskedmodel.training.tracking import Records

log = logging.getLogger("maskedmodel")


def _place(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of the same name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Opens(Protocol):
    """Where a run's samples come from: a data source, or what chose some of its samples."""

    def open(self, split: Split) -> SampleDataset:
        """The samples of a split."""


class Run:
    """One run in its folder: what the loop needs at hand, and what a checkpoint holds."""

    def __init__(
        self, config: Trained, folder: Path, learning: Learning[Any, Any], source: Opens, world: World
    ) -> None:
        self.config, self.folder, self.learning, self.world = config, folder, learning, world
        self.model = learning.model
        self.settings = config.train
        if self.settings.batch % (world.size * self.settings.accumulate):
            raise ConfigError(
                "The batch doesn't divide over ranks and micro-batches.",
                where="train.batch",
                expected=f"a multiple of {world.size * self.settings.accumulate}",
                got=self.settings.batch,
            )
        self.train_data, self.val_data = source.open("train"), source.open("val")
        self.optimizer = make_optimizer(learning.groups(), config.optim)
        self.names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        self.broken: dict[str, Broken] = {}
        self.notes: Counter[str] = Counter()  # what was converted or left out of samples, by this process
        self.named: dict[str, float] = {}  # the step's further losses by name, over all ranks
        self.step = self.saved = 0
        self.stopped: Stopped | None = None  # who asked the run to end here
        self.accumulate = self.settings.accumulate  # more of them once memory has run out
        self.place = _place(folder)
        self.data = fingerprint(self.train_data, self.settings.data_timeout)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        found = checkpoints.find(self.folder)
        if found is None:
            self.learning.fit(self.train_data)
            return
        state = checkpoints.read_state(found)
        # 0.1.0 knew a data set by its ids alone; ":" stands in what is kept since.
        now = self.data if ":" in state["data"] else fingerprint_of_ids(self.train_data, self.settings.data_timeout)
        if state["data"] != now:
            raise CheckpointError(
                "The training data changed since the checkpoint was written: their number, names or content.",
                where=found,
                expected=f"data set {state['data']}",
                got=f"data set {now}, {len(self.train_data)} samples",
                fix="Bring the data back as it was, or start again in another folder with --run.",
            )
        take_up(state.get("kernels"))
        checkpoints.load_weights(self.model, checkpoints.read_model(found), found)
        checkpoints.restore_optimizer(self.optimizer, self.names, checkpoints.read_optimizer(found))
        self.broken = {b["id"]: Broken(**b) for b in state["broken"]}
        self.learning.unread = {b["id"]: Broken(**b) for b in state.get("broken_val", ())}
        self.step = self.saved = state["step"]

    @property
    def _state(self) -> dict[str, Any]:
        train, val = ([vars(b) for b in part] for part in self.left_out)
        return {"data": self.data, "broken": train, "kernels": in_use(), **({"broken_val": val} if val else {})}

    @property
    def left_out(self) -> tuple[list[Broken], list[Broken]]:
        """The samples that couldn't be read: of the training part, by all ranks, and of the validation part."""
        return list(self.broken.values()), list(self.learning.unread.values())

    def rehearse(self) -> None:
        """See that a checkpoint can be written before anything is trained. Raises TrainingError where it can't."""
        if self.world.leads and not self.saved:
            checkpoints.rehearse(self.folder, self.model.state_dict(), self._state)

    @property
    def ended(self) -> bool:
        """Whether no step follows."""
        return self.step >= self.settings.steps or self.stopped is not None

    def hear(self, audience: Audience) -> None:
        """Let a callback that asked for it end the run here, but not before its first step: there is nothing to save.

        Who asked is on the disk before the checkpoint is, so that no kill in between lets the run go on.
        """
        wish = audience.wish() if self.step else None
        if wish is not None and not self.ended:
            self.stopped = replace(wish, step=self.step)
            if self.world.leads:
                self.stopped.write(self.folder)
                log.warning("Stopped %s.", self.stopped)

    def keep_best(self, records: Records) -> None:
        """Write this step's checkpoint where no validation so far was better."""
        name, higher = self.learning.best_by
        value = records.validated[self.step][name]
        others = [found[name] for found in records.validated.values() if name in found]
        if self.settings.keep_best and self.step and value == (max(others) if higher else min(others)):
            records.sync()
            self.save()
            checkpoints.mark_best(self.folder, self.step, name, value)

    def keep_batch(self, batch: Batch, loss: float, norm: float) -> Path:
        """Keep a batch that spoilt a step: what it was, and its signal as stored."""
        path = self.folder / f"not-finite-step-{self.step + 1:08d}"
        if self.world.leads:
            found = {"step": self.step + 1, "seed": self.settings.seed, "loss": str(loss), "gradient_norm": str(norm)}
            kept = {**found, "ids": [str(i) for i in batch.ids], "epochs": batch.epochs.tolist()}
            checkpoints.write_text(path.with_suffix(".json"), json.dumps(kept, indent=1) + "\n")
            save_file({"signal": batch.signal.detach().cpu().contiguous()}, path.with_suffix(".safetensors"))
        return path.with_suffix(".json")

    def _still_here(self) -> None:
        if _place(self.folder) != self.place:
            raise TrainingError(
                "The run's folder was moved, renamed or removed while the run was going on.",
                where=self.folder.absolute(),
                got=f"step {self.step}; the last checkpoint is of step {self.saved}",
                fix="Move it back, or name its new place with --run: the same command then resumes.",
            )

    def save(self) -> None:
        """Write a checkpoint of this step, unless it stands already."""
        if self.saved < self.step and self.world.leads:
            self._still_here()
            state = self._state
            tensors = checkpoints.optimizer_tensors(self.optimizer, self.names)
            checkpoints.save(self.folder, self.step, self.model.state_dict(), tensors, state)
            checkpoints.keep_last(self.folder, self.settings.keep)
        self.saved = self.step

    def note_broken(self, batch: Batch) -> None:
        """Apply the policy for samples that can't be read, of all ranks together, and tell what was converted."""
        for note in dict.fromkeys(batch.notes):
            if note not in self.notes:
                log.warning("Samples are read so: %s (such as %s)", note, batch.ids[0])
        self.notes.update(batch.notes)
        for sample in self.world.joined(batch.broken):
            if self.settings.on_bad_sample == "fail":
                raise broken_error(sample)
            self.broken[sample.id] = sample
        if len(self.broken) > self.settings.bad_sample_budget:
            listed = "; ".join(f"{b.id}: {b.said}" for b in list(self.broken.values())[:3])
            raise TrainingError(
                "Too many samples can't be read.",
                where="train.bad_sample_budget",
                expected=f"at most {self.settings.bad_sample_budget}",
                got=f"{len(self.broken)}, such as {listed}",
                fix="Mend or remove them, or raise the budget.",
            )
