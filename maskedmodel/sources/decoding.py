"""Samples that are all decoded at once, for memory or a cache, by threads: what decodes lets go of the interpreter."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from maskedmodel.errors import DataError

T = TypeVar("T")
_Job = tuple[int, "Future[T]"]


def decoded(read: Callable[[int], T], count: int, timeout: float) -> Iterator[tuple[int, T | DataError]]:
    """What `read` gives for 0 to `count` - 1, in order; for one that it can't read, its DataError.

    So is one whose reading takes more than `timeout` seconds; 0: there is no limit. Such a read goes on by itself until
    the process ends, since no thread can be stopped, and another takes its place. What else `read` raises is raised.
    """
    jobs: SimpleQueue[_Job[T] | None] = SimpleQueue()
    started: dict[int, float] = {}

    def work() -> None:
        while (job := jobs.get()) is not None:
            index, future = job
            started[index] = time.monotonic()
            try:
                future.set_result(read(index))
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                future.set_exception(error)

    # A pool of concurrent.futures waits for its threads when the process ends, which one that hangs would hold up.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(os.cpu_count() or 1, 16))]
    ahead = 16 * len(threads)  # what waits in memory at any time
    waiting: deque[_Job[T]] = deque()
    for thread in threads:
        thread.start()
    try:
        for index in range(count + ahead):
            if index < count:
                waiting.append((index, Future()))
                jobs.put(waiting[-1])
            if index >= ahead and waiting:
                job = waiting.popleft()
                result = _result(job, started, timeout)
                if result is None:
                    threads.append(threading.Thread(target=work, daemon=True))
                    threads[-1].start()
                    yield job[0], DataError(f"Reading it took longer than {timeout:g} s.", where=f"sample {job[0]}")
                else:
                    yield job[0], result[0]
                started.pop(job[0], None)
    finally:
        for _ in threads:
            jobs.put(None)


def _result(job: _Job[T], started: dict[int, float], timeout: float) -> tuple[T | DataError] | None:
    """What a job gives; None once it has taken too long."""
    index, future = job
    while True:
        left = started[index] + timeout - time.monotonic() if timeout and index in started else timeout
        if timeout and left <= 0 and not future.done():
            return None
        try:
            return (future.result(max(left, 0.01) if timeout else None),)
        except DataError as error:
            return (error,)
        except TimeoutError:
            if future.done():  # it is what reading raised
                raise
