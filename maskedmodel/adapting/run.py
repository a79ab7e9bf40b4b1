"""One fine-tuning run: labelled data, weights to start from, the training, and how well it does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from maskedmodel.adapting.places import SHOWN, draw_most_wrong, draw_places
from maskedmodel.config.build import FinetuneComponents, build_callbacks, build_finetune
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.evaluation.judged import OUTCOME, Judged
from maskedmodel.plugins import Registry
from maskedmodel.training.audience import Stopped
from maskedmodel.training.data import Broken, Reading
from maskedmodel.training.distributed import World
from maskedmodel.training.folder import claimed, settle, tell, write_json
from maskedmodel.training.hanging import stacks_in
from maskedmodel.training.interrupt import Signals
from maskedmodel.training.labelled import LabelledData, labelled
from maskedmodel.training.loop import TrainResult, train
from maskedmodel.training.supervised import Supervised, predicted
from maskedmodel.training.targeted import targeted
from maskedmodel.training.tracking import Display, environment
from maskedmodel.weights.finetuned import build, write_labels
from maskedmodel.weights.start import begin

log = logging.getLogger("maskedmodel")


@dataclass(frozen=True)
class Adapted:
    """What a run came to: how well its model does on the validation part, and of how many labelled samples."""

    folder: Path
    judged: Judged
    labels: int
    training: TrainResult | None  # None where the run had been finished before
    left_out: tuple[int, int] = (0, 0)  # samples of train and val that couldn't be read

    @property
    def stopped(self) -> Stopped | None:
        """Where a callback asked for the end, if one did."""
        return None if self.training is None else self.training.stopped


@contextmanager
def told_once() -> Iterator[None]:
    """Inside, a notice that several runs of the same data and start would repeat is told by the first alone."""
    seen: set[str] = set()

    def first(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in seen
        seen.add(text)
        return new

    log.addFilter(first)
    try:
        yield
    finally:
        log.removeFilter(first)


def adapt(
    config: FinetuneConfig,
    folder: Path,
    registry: Registry,
    world: World,
    *,
    quiet: bool = False,
    whole: str | None = None,
) -> Adapted | None:
    """Fine-tune in a folder, from its newest checkpoint where it has one. All ranks but the first get None.

    `whole` says why callbacks may not stop it; None: they may.

    Raises ConfigError, DataError and CheckpointError before anything is trained for what can't be; Interrupted after
    SIGTERM or SIGINT, the state saved.
    """
    parts = build_finetune(config, registry)
    assert parts.source is not None
    resolved = config.model_copy(update={"data": parts.source.resolved()})
    reading = Reading.of(config.train, world.device)
    if parts.task.takes_target:
        with Display("looking", 1, quiet=quiet or not world.leads) as display:
            data = targeted(
                parts.source,
                reading,
                config.adapt.labels,
                config.train.seed,
                lambda split, done, total: display.phase(f"targets of {split}", done, total),
            )
    else:
        data = labelled(parts.source, reading, config.adapt.labels, config.train.seed, parts.task.strata)
    if not world.leads:
        world.wait_patiently()
        with stacks_in(folder):
            _train(resolved, folder, parts, data, registry, world, quiet=True, whole=whole)
        return None
    with claimed(folder):
        settle(folder, resolved, registry)
        tell(parts.source, folder)
        write_labels(folder, data.labels, data.left_out)
        write_json(folder / "environment.json", environment(world.device))
        done = outcome(folder, config.train.steps) if world.size == 1 else None
        if done is not None:
            return done
        world.wait_patiently()
        learning, training = _train(resolved, folder, parts, data, registry, world, quiet=quiet, whole=whole)
        with Signals() as signals, signals.may_cut(), Display("looking", 1, quiet=quiet) as display:
            found = predicted(
                learning.model,
                data.val,
                replace(reading, record=learning.note_unread),
                config.train.precision,
                lambda done, total: display.phase("predictions of the validation part", done, total),
            )
            judged = Judged.of(
                learning.model.task,
                found,
                config.train.seed,
                lambda done, total: display.phase("intervals", done, total),
            )
            pictures = folder / "pictures"
            draw_places(learning.model, data.val, replace(reading, limit=SHOWN), pictures)
            draw_most_wrong(learning.model, data.val, found, reading, pictures)
        broken = [*data.broken["train"], *training.broken], [*data.broken["val"], *learning.unread.values()]
        _write(folder, learning, training, judged, len(data.train), broken)
        return Adapted(folder, judged, len(data.train), training, (len(broken[0]), len(broken[1])))


def _train(
    config: FinetuneConfig,
    folder: Path,
    parts: FinetuneComponents,
    data: LabelledData,
    registry: Registry,
    world: World,
    *,
    quiet: bool,
    whole: str | None,
) -> tuple[Supervised, TrainResult]:
    model = build(config, parts, data.labels)
    begin(config, folder, model, registry, leads=world.leads)
    learning = Supervised(model, config, world.size)
    callbacks = build_callbacks(config, registry)
    return learning, train(config, folder, learning, data, world, quiet=quiet, callbacks=callbacks, whole=whole)


def _write(
    folder: Path,
    learning: Supervised,
    training: TrainResult,
    judged: Judged,
    labels: int,
    broken: tuple[list[Broken], list[Broken]],
) -> None:
    """summary.json and outcome.json."""
    model = learning.model
    write_json(
        folder / "summary.json",
        {
            "steps": training.steps,
            "first": training.first,
            "last": training.last,
            "seconds": round(training.seconds, 1),
            "stopped": None if training.stopped is None else asdict(training.stopped),
            "parameters": {
                "encoder": sum(p.numel() for p in model.encoder.parameters()),
                "head": sum(p.numel() for p in model.task.parameters()),
                "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            },
            "broken": [vars(sample) for sample in broken[0]],
            "broken_val": [vars(sample) for sample in broken[1]],
        },
    )
    write_json(folder / OUTCOME, {"labels": labels, "judged": judged.to_dict()})


def outcome(folder: Path, steps: int) -> Adapted | None:
    """What a run of so many steps came to, or None where it isn't finished, or what it came to can't be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if summary["steps"] != steps:
            return None
        left_out = len(summary["broken"]), len(summary.get("broken_val", ()))
        return Adapted(folder, *Judged.read(folder / OUTCOME), None, left_out)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
