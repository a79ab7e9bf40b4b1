"""Where a process was that overran the limit on reading a sample.

A read that hangs in Python is ended by `limits.time_limit`. One that hangs within a library never comes back to Python,
so in a data worker a thread of faulthandler's watches, which needs neither the interpreter nor its lock: it writes the
stack into a file of the run's folder and ends the process, which no polite signal could.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import IO

from torch.utils.data import get_worker_info

_NAME = "data-stacks-{}.txt"
_folder: ContextVar[Path | None] = ContextVar("folder of stacks", default=None)


@contextmanager
def stacks_in(folder: Path) -> Iterator[None]:
    """Inside, stacks of reads that hang are kept in a folder. Elsewhere they go to standard error."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def remove_empty(folder: Path) -> None:
    """Remove files that killed processes left without a stack in them."""
    for path in folder.glob(_NAME.format("*")):
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()


class Stacks:
    """The file of a main process and its data workers. Made in the main process; travels to workers."""

    def __init__(self) -> None:
        folder = _folder.get()
        self.path = None if folder is None else folder / _NAME.format(os.getpid())
        self._file: IO[str] | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_file": None, "_owner": 0}

    def _open(self) -> IO[str] | None:
        """The file, opened once in each process; None where that can't be."""
        if self._owner != os.getpid():
            self._owner, self._file = os.getpid(), None
            with suppress(OSError):
                self._file = sys.stderr if self.path is None else self.path.open("a")
        return self._file

    @contextmanager
    def watch(self, seconds: float) -> Iterator[None]:
        """Inside a data worker and after so many seconds, its stack is written and it ends; 0: never."""
        file = self._open() if seconds and get_worker_info() is not None else None
        if file is None:
            yield
            return
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def keep(self, frame: FrameType | None) -> Path | None:
        """Write the stack of a frame, where there is a folder for it; returns the file."""
        file = None if self.path is None or frame is None else self._open()
        if file is None:
            return None
        with suppress(OSError):
            traceback.print_stack(frame, file=file)
            file.flush()
        return self.path

    def kept(self) -> Path | None:
        """The file, where it holds a stack; without one it is removed."""
        if self.path is not None:
            with suppress(OSError):
                if self.path.stat().st_size:
                    return self.path
                self.path.unlink()
        return None
