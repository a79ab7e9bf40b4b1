"""How long a read may take: of a whole sample, and, where nobody has said that, of some bytes or of a folder's names.

Whoever reads a sample sets the limit for all that happens in it. What is read to open data, such as tables, headers and
the index of an archive, may be much, so there it is each single read that has one. In the main thread of a process;
elsewhere there is none.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any

from maskedmodel.errors import DataError


class TooLong(BaseException):
    """Reading takes too long. No Exception, so that no reader takes it for a damaged file."""


class _State:
    """What holds in this process."""

    held = False  # whether somebody has set a limit, or said that there is none
    seconds = 300.0  # of a single read elsewhere; 0: no limit


def limit_single_reads(seconds: float) -> None:
    """Let a single read take so many seconds from here on, where no other limit holds; 0: any time."""
    _State.seconds = seconds


@contextmanager
def time_limit(seconds: float, keep: Callable[[FrameType | None], Path | None] | None = None) -> Iterator[None]:
    """Raise TooLong, which says where, once the block has taken `seconds`; 0: never. Of nested limits the outer holds.

    `keep` is given the frame, and may say in which file it has kept its stack.
    """
    if _State.held or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, frame: FrameType | None) -> None:
        place = traceback.extract_stack(frame)[-1] if frame is not None else None
        said = "an unknown place" if place is None else f"{place.name} ({place.filename}:{place.lineno})"
        kept = None if keep is None else keep(frame)
        raise TooLong(said if kept is None else f"{said}; its stack stands in {kept}")

    _State.held = True
    before = signal.signal(signal.SIGALRM, ring) if seconds else None
    try:
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        _State.held = False
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@contextmanager
def read_within(seconds: float, where: object) -> Iterator[None]:
    """A block that reads one thing. Raises DataError, which says `where`, once it has taken `seconds`; 0: never."""
    try:
        with time_limit(seconds):
            yield
    except TooLong as error:
        raise DataError(
            f"Reading this took longer than {seconds:g} s, at {error}.",
            where=where,
            fix="See whether the disk answers, or give it longer with train.data_timeout.",
        ) from error


@contextmanager
def single_read(where: object) -> Iterator[None]:
    """A block that asks the disk for one thing. Raises DataError where it doesn't answer in time."""
    if _State.held or not _State.seconds:
        yield
        return
    with read_within(_State.seconds, where):
        yield


class LimitedFile(FileIO):
    """A file of which each read is a `single_read`, `where` its name in messages."""

    def __init__(self, number: int, where: object) -> None:
        super().__init__(number, "rb")
        self.where = where

    def readinto(self, buffer: Any, /) -> int | None:
        if _State.held:  # the usual case, within a sample
            return super().readinto(buffer)
        with single_read(self.where):
            return super().readinto(buffer)

    def readall(self) -> bytes | None:  # type: ignore[override]
        with single_read(self.where):
            return super().readall()
