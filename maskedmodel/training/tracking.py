"""What a run records and shows: metrics, timings, the environment, progress.

metrics.jsonl holds only what the run computes, so that a resumed run's file equals a straight one's byte for byte;
what depends on the machine goes to timings.jsonl.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskedmodel.errors import TrainingError
from maskedmodel.training.audience import Audience, Seen
from maskedmodel.training.checkpoint import write_text

log = logging.getLogger("maskedmodel")


class Lines:
    """A file of one JSON object a line, cut back at a resume to what the checkpoint knows."""

    def __init__(self, path: Path, keep_to: int | None) -> None:
        """Keep the lines up to step `keep_to`; None starts the file anew. Raises TrainingError on a full disk."""
        self.path = path
        self.kept = [] if keep_to is None else [line for line in read_lines(path) if line["step"] <= keep_to]
        if keep_to is not None and (damaged := damaged_lines(path)):
            log.warning("%d damaged lines of %s are left out.", damaged, path)
        write_text(path, "".join(json.dumps(line) + "\n" for line in self.kept))
        self.file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Add a line; it reaches the operating system at once, so a kill can cut at most this line."""
        try:
            self.file.write(json.dumps(values) + "\n")
            self.file.flush()
        except OSError as error:
            raise TrainingError(
                "A line of metrics can't be written.",
                where=self.path,
                got=error.strerror,
                fix="Free disk space, then run the same command again: it resumes from the last checkpoint.",
            ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file that tell of a step, without damaged ones and a last one that a kill cut."""
    return [line for line in _parsed(path) if line is not None]


def damaged_lines(path: Path) -> int:
    """How many lines can't be read, beside a last one that was cut."""
    return sum(line is None for line in _parsed(path))


def _parsed(path: Path) -> list[dict[str, Any] | None]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    whole, _, cut = text.rpartition("\n")
    lines = [_line(line) for line in whole.split("\n") if line]
    return lines if _line(cut) is None else [*lines, _line(cut)]


def _line(text: str) -> dict[str, Any] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and type(values.get("step")) is int else None


class Records:
    """All that a run writes down as it goes. Only the leading rank's is `active`."""

    def __init__(self, folder: Path, resumed: int | None, audience: Audience, active: bool):
        self.audience = audience
        self.validated: dict[int, dict[str, float]] = {}  # step to what was measured there
        self.watched: set[int] = set()  # steps at which the encoder was looked at
        self.files: list[Lines] = []
        if active:
            self.files = [Lines(folder / f"{name}.jsonl", resumed) for name in ("metrics", "timings")]
            self.watched = {line["step"] for line in self.files[0].kept if "rankme" in line}
            kept = [dict(line) for line in self.files[0].kept if "val_loss" in line]
            self.validated = {line.pop("step"): line for line in kept}

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The lines of metrics that a resumed run goes on from."""
        return self.files[0].kept if self.files else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lines in self.files:
            lines.file.close()

    def validation(self, step: int, measured: dict[str, float]) -> None:
        """What validation measured, `val_loss` among it."""
        self.validated[step] = measured
        self._write("validation", step, measured)

    def watch(self, step: int, figures: Mapping[str, float]) -> None:
        """What a look at the encoder found at a step."""
        self._write("look", step, figures)

    def step(self, step: int, figures: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """What a step came to, and how fast it went."""
        self._write("step", step, figures, timings)

    def _write(
        self, kind: Seen, step: int, figures: Mapping[str, float], timings: Mapping[str, float] | None = None
    ) -> None:
        if self.files:
            self.files[0].write(step=step, **figures)
            if timings is not None:
                self.files[1].write(step=step, **timings)
            self.audience.show(kind, step, figures, timings or {})

    def sync(self) -> None:
        """To the disk itself: a checkpoint must not know more than the files beside it."""
        for lines in self.files:
            os.fsync(lines.file.fileno())


class Clock:
    """How fast steps go: samples a second and the share of time spent waiting for data, pauses left out."""

    def __init__(self) -> None:
        self.began, self.waited, self.samples, self._paused = time.monotonic(), 0.0, 0, 0.0

    def read(self, seconds: float, samples: int) -> None:
        """`samples` came after `seconds` of waiting."""
        self.waited, self.samples = self.waited + seconds, self.samples + samples

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """For what isn't training, such as validation and checkpoints."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began

    @property
    def _passed(self) -> float:
        return max(time.monotonic() - self.began - self._paused, 1e-9)

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self._passed

    @property
    def share_waited(self) -> float:
        """The share of the time that went by waiting for data."""
        return self.waited / self._passed


class _Console(Console):
    """rich's, but a pipe that broke is an error like any other, not the end of the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Display:
    """A progress bar on a terminal; elsewhere a plain line every `interval` seconds.

    It is decoration: a terminal or pipe that goes away ends it, and nothing else.
    """

    def __init__(self, title: str, total: int, start: int = 0, *, quiet: bool = False, interval: float = 10) -> None:
        self.title, self.total, self.interval = title, total, interval
        self.console = _Console(stderr=True, quiet=quiet)
        self.gone = False
        self.began, self.first, self.said, self.drawn = time.monotonic(), start, time.monotonic(), 0.0
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,  # its thread would die of a closed terminal, with a traceback
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=total, completed=start, figures="")

    def __enter__(self) -> Self:
        self.streams = sys.stdout, sys.stderr
        with self._shown():
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._shown():
            self.progress.stop()
        sys.stdout, sys.stderr = self.streams  # where stopping failed half-way, rich's stand-ins are still there

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Around whatever writes: once that can't be done any more, nothing is written."""
        try:
            yield
        except (OSError, ValueError, IndexError) as error:
            # ValueError: a stream that was closed in this process. IndexError: rich stops what didn't quite start.
            if not (isinstance(error, OSError) or self.gone or "closed file" in str(error)):
                raise
            self.gone = True
            self.console.quiet = True

    def phase(self, title: str, done: int, total: int) -> None:
        """As `update`, for work that comes in several parts of their own lengths."""
        if title != self.title or total != self.total:
            self.title, self.total, self.first = title, total, 0
            self.began = self.said = time.monotonic()
            self.progress.reset(self.task, total=total, description=title)
        self.update(done)

    def update(self, done: int, figures: str = "") -> None:
        """`done` of `total`, and what to show beside it."""
        if self.gone:
            return
        now = time.monotonic()
        self.progress.update(self.task, completed=done, figures=figures)
        if self.console.is_terminal and (now - self.drawn >= 0.1 or done == self.total):
            self.drawn = now
            with self._shown():
                self.progress.refresh()
        if not self.console.is_terminal and (now - self.said >= self.interval or done == self.total):
            self.said = now
            rate = (done - self.first) / max(now - self.began, 1e-9)
            left = f"{(self.total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
            line = f"{self.title} {done}/{self.total}  {figures}  {left}"
            with self._shown():
                self.console.print(line, soft_wrap=True, highlight=False)


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB: the device's on CUDA, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # unlike ru_maxrss it doesn't begin with what the parent process had
            return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def environment(device: torch.device) -> dict[str, str]:
    """What the run runs on: versions and machine, no names of people or folders."""
    packages = ("maskedmodel", "numpy", "pydantic", "pluggy", "safetensors")
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    found = {"python": platform.python_version(), "system": platform.system(), "processor": model}
    found["threads"] = str(torch.get_num_threads())
    found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return found | {name: metadata.version(name) for name in packages} | {"torch": torch.__version__}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is fast there. A CPU without bf16 units is some four times slower in bf16 than in fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    return "amx_bf16" in flags.split() or "avx512_bf16" in flags.split()
