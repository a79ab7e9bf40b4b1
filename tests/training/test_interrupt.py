from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training import loop, masked
from maskedmodel.training.interrupt import Interrupted, Signals, remember_interrupts
from tests.training.test_loop import assert_same_run

Go = Callable[..., loop.TrainResult]


def told_to_stop_while_waiting(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)
    raise AssertionError("the wait wasn't cut")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_wait_that_may_be_cut_is_cut_at_once(number: int, code: int) -> None:
    before = signal.getsignal(number)
    began = time.monotonic()
    with pytest.raises(Interrupted) as raised, Signals() as signals, signals.may_cut():
        told_to_stop_while_waiting(number)
    assert raised.value.exit_code == code
    assert time.monotonic() - began < 5
    assert signal.getsignal(number) == before


def test_an_interrupt_that_a_library_swallows_still_stops_the_run() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        remember_interrupts()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), Signals():
            raise AssertionError("entered")
        with Signals():  # told once
            pass
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        remember_interrupts()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_cut_that_is_swallowed_cuts_at_the_end_of_the_wait() -> None:
    with pytest.raises(Interrupted), Signals() as signals, signals.may_cut(), contextlib.suppress(Interrupted):
        signal.raise_signal(signal.SIGTERM)


def test_elsewhere_a_signal_is_noted_and_cuts_the_next_wait() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with signals.may_cut(False):
            pass  # a rank that may not leave on its own
        with pytest.raises(Interrupted), signals.may_cut():
            raise AssertionError("entered")


def test_stopped_during_validation_saves_and_resumes_the_same(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "straight")
    real = masked.validation_loss
    calls = []

    def slow(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 2:  # the one at step 5
            told_to_stop_while_waiting()
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(masked, "validation_loss", slow)
        with pytest.raises(Interrupted):
            run(tmp_path / "cut")
    assert checkpoints.read_state(checkpoints.newest(tmp_path / "cut"))["step"] == 5
    run(tmp_path / "cut")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_stopped_while_waiting_for_data_saves_and_resumes_the_same(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "straight")
    real = loop.train_batches

    def slow(*arguments: Any, **more: Any) -> Iterator[Any]:
        for number, batch in enumerate(real(*arguments, **more)):
            if number == 3:
                told_to_stop_while_waiting()
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_batches", slow)
        with pytest.raises(Interrupted):
            run(tmp_path / "cut")
    assert checkpoints.read_state(checkpoints.newest(tmp_path / "cut"))["step"] == 3
    run(tmp_path / "cut")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
