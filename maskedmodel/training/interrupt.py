"""SIGTERM, SIGINT and SIGUSR1 (which SLURM can send before a job's time is up): finish the step, save, leave.

Where waiting is safe to cut, leave at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupted(BaseException):
    """The run was asked to stop and has saved. Exit code 130 after SIGINT, 143 after SIGTERM."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"Stopped by {signal.Signals(number).name}; the same command resumes.")


_swallowed = False


def remember_interrupts() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt as before, and one that was swallowed still stops the next run.

    A library that calls back into Python may swallow what is raised there: pydantic-core makes a warning of it. To be
    called in a process that is this project's own. Where SIGINT is ignored, as under nohup, it stays ignored.
    """

    def note(number: int, frame: FrameType | None) -> None:
        global _swallowed
        _swallowed = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


class Signals:
    """While entered, the first signal is noted, and the second ends the process at once: writes are atomic."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._cut = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        global _swallowed
        if _swallowed:
            _swallowed = False
            raise KeyboardInterrupt
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses handlers
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if self._cut:
            raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def may_cut(self, allowed: bool = True) -> Iterator[None]:
        """Inside, a signal raises Interrupted wherever it lands: only around what can be thrown away."""
        if allowed:
            self.check()
        self._cut = allowed
        try:
            yield
            if allowed:
                self.check()  # what was raised may have been swallowed on its way
        finally:
            self._cut = False
