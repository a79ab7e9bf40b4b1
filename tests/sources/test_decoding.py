"""Samples decoded all at once: in order, faults in their places, and none that holds the others up for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from maskedmodel.errors import DataError
from maskedmodel.sources import decoded


@pytest.mark.parametrize("count", [0, 1, 7, 700])
def test_everything_comes_in_order_with_faults_in_their_places(count: int) -> None:
    def read(index: int) -> int:
        if index % 5 == 3:
            raise DataError("Damaged.", where=index)
        return index * index

    found = list(decoded(read, count, 10))
    assert [index for index, _ in found] == list(range(count))
    for index, value in found:
        assert (isinstance(value, DataError) and value.where == index) if index % 5 == 3 else value == index * index


def test_what_hangs_is_left_behind_even_if_more_do_than_there_are_threads() -> None:
    go_on = threading.Event()

    def read(index: int) -> int:
        if index < 40:
            go_on.wait(60)
        return index

    try:
        found = dict(decoded(read, 50, 0.05))
    finally:
        go_on.set()
    assert all("longer than 0.05 s" in str(found[index]) for index in range(40))
    assert [found[index] for index in range(40, 50)] == list(range(40, 50))


def test_without_a_limit_what_is_slow_is_waited_for() -> None:
    assert dict(decoded(lambda index: time.sleep(0.2) or index, 2, 0)) == {0: 0, 1: 1}


def test_a_timeout_that_reading_raises_is_not_taken_for_ours() -> None:
    def read(index: int) -> int:
        raise TimeoutError("the disk said so")

    with pytest.raises(TimeoutError, match="the disk said so"):
        list(decoded(read, 1, 5))


def test_only_so_much_waits_in_memory() -> None:
    begun: list[int] = []
    found = decoded(lambda index: begun.append(index) or index, 10_000, 5)
    next(found)
    time.sleep(0.2)
    assert len(begun) <= 16 * 16 + 1


def test_a_read_that_never_ends_does_not_keep_the_process() -> None:
    code = (
        "import threading\nfrom maskedmodel.sources import decoded\n"
        "print(type(dict(decoded(lambda i: threading.Event().wait(), 1, 0.1))[0]).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "DataError\n"), done.stderr
