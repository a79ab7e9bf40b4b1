"""Runs of a comparison in processes of their own, some at a time, with progress for the whole and for each."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from maskedmodel import errors
from maskedmodel.comparison.worker import Job
from maskedmodel.errors import ConfigError, MaskedModelError, TrainingError
from maskedmodel.training.interrupt import Signals

_START = """
from maskedmodel.installed import spare_others
spare_others()
from runpy import run_module
run_module("maskedmodel.comparison.worker", run_name="__main__")
"""
WORKER = [sys.executable, "-c", _START]
_LOOK = 0.2  # seconds between two looks at the processes
_SAVE = 120  # seconds that a run is given to save itself


@dataclass(frozen=True)
class Task:
    """A job under the name that people see; `run` is the arm and seed it stands for, None for none."""

    name: str
    job: Job
    run: tuple[str, int] | None = None


@dataclass
class Slot:
    """A place for one process at a time, with its device."""

    device: str | None
    process: subprocess.Popen[str] | None = None
    task: Task | None = None
    bar: TaskID | None = None
    listener: threading.Thread | None = None
    lines: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    phase: tuple[str, int, int] = ("starting", 0, 1)
    error: dict[str, Any] | None = None


def places(jobs: int | None, device: str) -> list[str | None]:
    """One entry per process that runs at a time: the CUDA device it may see, or None where it needs none.

    Without a number: one per device, or one. Raises ConfigError on a number below 1.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError("At least one process must run.", where="--jobs", expected="1 or more", got=jobs)
    if device == "cpu" or not torch.cuda.is_available():
        return [None] * (jobs or 1)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else None
    devices = seen or [str(index) for index in range(torch.cuda.device_count())]
    return [devices[index % len(devices)] for index in range(jobs or len(devices))]


def threads(jobs: int) -> int:
    """This process's threads shared out over `jobs` processes."""
    return max(torch.get_num_threads() // jobs, 1)


def work(
    tasks: Sequence[Task],
    devices: Sequence[str | None],
    *,
    done_before: int = 0,
    quiet: bool = False,
    finished: Callable[[Task, MaskedModelError | None], None] = lambda task, error: None,
) -> None:
    """Work through the tasks in order, as many at a time as there are `devices`.

    `finished` hears of each task as it ends. A TrainingError, such as a loss that isn't finite, is the result of that
    run, and the others go on. Any other error stops the comparison: what runs is told to save itself, then it is
    raised. So does a signal, which raises Interrupted.
    """
    waiting = list(tasks)
    slots = [Slot(device) for device in devices]
    board = Board(done_before, done_before + len(tasks), quiet=quiet)
    with Signals() as signals, board:
        try:
            while waiting or any(slot.process is not None for slot in slots):
                signals.check()
                for slot in slots:
                    if slot.process is None and waiting:
                        start(slot, waiting.pop(0))
                    if slot.process is not None:
                        _attend(slot, board, finished)
                time.sleep(_LOOK)
        finally:
            _stop(slots)


def start(slot: Slot, task: Task) -> None:
    """Start a task in a free slot, apart from our terminal: a signal from there reaches it through us alone."""
    environment = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": str(task.job.threads)}
    if slot.device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot.device
    folder = Path(task.job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died already: looking after it will tell
        process.stdin.write(json.dumps(asdict(task.job)) + "\n")
        process.stdin.flush()
    slot.process, slot.task, slot.phase, slot.error = process, task, ("starting", 0, 1), None
    slot.lines = queue.SimpleQueue()
    slot.listener = threading.Thread(target=_listen, args=(process, slot.lines), daemon=True)
    slot.listener.start()


def _listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(json.loads(line))


def _attend(slot: Slot, board: Board, finished: Callable[[Task, MaskedModelError | None], None]) -> None:
    """Look what a slot's process says, and whether it has ended."""
    process, task = slot.process, slot.task
    assert process is not None
    assert task is not None
    code = process.poll()
    if code is not None and slot.listener is not None:
        slot.listener.join()  # its last words
    while not slot.lines.empty():
        said = slot.lines.get()
        if "error" in said:
            slot.error = said["error"]
        else:
            slot.phase = (said["phase"], said["done"], said["total"])
    if slot.phase[0] == "pretraining":
        slot.phase = ("pretraining", _last_step(Path(task.job.folder) / "metrics.jsonl"), slot.phase[2])
    board.show(slot, task, code is None)
    if code is None:
        return
    slot.process = None
    log = Path(task.job.folder) / "log.txt"
    if code == 0 and log.exists() and not log.stat().st_size:
        log.unlink()
    error = None if code == 0 else _error(task, slot.error, code, log)
    if error is not None and not isinstance(error, TrainingError):
        raise error
    board.count(failed=error is not None)
    finished(task, error)


def _last_step(path: Path) -> int:
    """The step of the last whole line of a file of metrics, from its last bytes; 0 where there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2000, 0))
        steps = re.findall(rb'"step": (\d+)', file.read())
    return int(steps[-1]) if steps else 0


def _error(task: Task, told: dict[str, Any] | None, code: int, log: Path) -> MaskedModelError:
    """What a process that failed said, or that it died without a word."""
    if told is not None:
        kind = getattr(errors, told["kind"], MaskedModelError)
        where = f"run {task.name}" if told["where"] is None else f"{told['where']}, in run {task.name}"
        error: MaskedModelError = kind(
            told["what"], where=where, expected=told["expected"], got=told["got"], fix=told["fix"]
        )
        return error
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] if log.exists() else []
    return errors.PluginError(
        "A run of the comparison died.",
        where=f"run {task.name}",
        got=f"exit code {code}{''.join(f': {line}' for line in last)}",
        fix=f"See {log}. The same command goes on with what is missing.",
    )


def _stop(slots: Sequence[Slot]) -> None:
    """Tell what still runs to save itself, and wait for it."""
    running = [slot.process for slot in slots if slot.process is not None and slot.process.poll() is None]
    for process in running:
        process.terminate()
    limit = time.monotonic() + _SAVE
    for process in running:
        try:
            process.wait(max(limit - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Board:
    """A bar for the whole and one for each run under way; elsewhere than on a terminal a line now and then."""

    def __init__(self, done: int, total: int, *, quiet: bool, interval: float = 10) -> None:
        self.done, self.total, self.failed, self.interval = done, total, 0, interval
        self.said = time.monotonic()
        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.whole = self.progress.add_task("comparison, runs", total=total, completed=done)

    def __enter__(self) -> Board:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, slot: Slot, task: Task, alive: bool) -> None:
        """Where a run stands."""
        phase, done, total = slot.phase
        text = f"{task.name}: {phase}"
        if slot.bar is None:
            slot.bar = self.progress.add_task(text, total=total)
        self.progress.update(slot.bar, description=text, completed=done, total=total)
        now = time.monotonic()
        if alive and not self.console.is_terminal and now - self.said >= self.interval:
            self.said = now
            self._line(f"{self.done}/{self.total} runs  {text} {done}/{total}")
        if not alive:
            self.progress.remove_task(slot.bar)
            slot.bar = None

    def count(self, failed: bool) -> None:
        """A run has ended."""
        self.done += 1
        self.failed += failed
        self.progress.update(self.whole, completed=self.done)
        if not self.console.is_terminal:
            self._line(f"{self.done}/{self.total} runs{f', {self.failed} failed' if self.failed else ''}")

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)
