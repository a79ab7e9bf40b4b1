"""One run of a comparison in a process of its own: `python -m maskedmodel.comparison.worker`.

The job comes as a line of JSON on standard input, which then stays open: when it closes, the parent is gone, and the
run saves itself and stops. What happens goes to standard output, a line of JSON each: {"phase", "done", "total"} on the
way, {"error"} where the run can't go on. A process of its own has its own peak of memory, its own threads and device,
and leaves no state to the next.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from maskedmodel.comparison.budget import build
from maskedmodel.comparison.finetuning import finetuned
from maskedmodel.comparison.yardstick import Measured, measure
from maskedmodel.config.build import build_callbacks
from maskedmodel.config.load import load_config
from maskedmodel.errors import MaskedModelError
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.distributed import World, pick_device
from maskedmodel.training.fitting import fit_statistics
from maskedmodel.training.folder import claimed, settle, write_json, write_summary
from maskedmodel.training.interrupt import Interrupted, Signals
from maskedmodel.training.loop import train
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.tracking import environment
from maskedmodel.weights.start import begin

WHOLE = "A run of a comparison goes on: each arm spends its whole budget."


@dataclass(frozen=True)
class Job:
    """What a worker does.

    kind    run, or untrained: measure the weights as they are at the start, pretrain nothing.
    scores  by what it is measured; None: as the config says.
    """

    kind: str
    folder: str
    config: dict[str, Any]
    key: str
    learns: bool
    drawn: bool
    threads: int
    scores: list[str] | None = None


class Channel:
    """Lines of JSON to the parent. What anything else prints goes to standard error instead."""

    def __init__(self) -> None:
        self.file: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(self, **values: Any) -> None:
        with suppress(BrokenPipeError):  # the parent is gone: standard input says so too
            print(json.dumps(values), file=self.file, flush=True)

    def progress(self, phase: str, done: int, total: int) -> None:
        self.say(phase=phase, done=done, total=total)


def perform(job: Job, registry: Registry, channel: Channel) -> Measured:
    """Train and measure."""
    config = load_config(job.config, registry=registry)
    folder = Path(job.folder)
    world = World(0, 1, pick_device(config.train.device))
    model, parts = build(config, registry)
    with claimed(folder):
        if job.kind == "run":
            settle(folder, config, registry)
            write_json(folder / "environment.json", environment(world.device))
            begin(config, folder, model, registry)
            channel.progress("pretraining", 0, config.train.steps)
            training = train(
                config,
                folder,
                MaskedModelling(model, config.train),
                parts.source,
                world,
                quiet=True,
                callbacks=build_callbacks(config, registry),
                whole=WHOLE,
            )
        untrained = job.kind == "untrained"
        tuned = finetuned(
            config, folder, job.scores or (), registry, world, untrained=untrained, progress=channel.progress
        )
        with Signals() as signals, signals.may_cut():
            if untrained:
                begin(config, folder, model, registry)
                model.to(world.device)
                fit_statistics(model, parts.source.open("train"), config.train)
            measured = measure(
                config,
                folder,
                model,
                parts,
                registry,
                world,
                key=job.key,
                learns=job.learns,
                drawn=job.drawn,
                progress=channel.progress,
                scores=job.scores,
                tuned=tuned,
            )
            if not untrained:
                if measured.probe is not None:
                    write_json(folder / "probe.json", measured.probe.to_dict())
                write_summary(folder, model, training, parts.objective.baseline(parts.tokenizer))
                write_report(folder)
                checkpoints.keep_last(folder, 1)
    return measured


def error_of(error: MaskedModelError) -> dict[str, Any]:
    """An error as JSON values."""
    details = {name: None if value is None else str(value) for name, value in vars(error).items()}
    return {"kind": type(error).__name__, **details}


def _follow_the_parent() -> None:
    """End like after SIGTERM once standard input closes."""

    def wait() -> None:
        while sys.stdin.read(1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Run the job on standard input. Exit code 0 done, 2 an error that was told, 130 or 143 stopped after saving."""
    channel = Channel()
    job = Job(**json.loads(sys.stdin.readline()))
    _follow_the_parent()
    torch.set_num_threads(job.threads)
    try:
        perform(job, load_registry(), channel)
    except MaskedModelError as error:
        channel.say(error=error_of(error))
        return 2
    except Interrupted as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
