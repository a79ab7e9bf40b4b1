"""Who looks at a run on its way: what they are shown, what they may ask for, and that they change nothing."""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from maskedmodel import Callback, Settings
from maskedmodel.callbacks import Moment, RunEnd, RunStart
from maskedmodel.errors import ConfigError, DependencyError, TrainingError
from maskedmodel.plugins import Registry
from maskedmodel.training import audience, loop
from maskedmodel.training.interrupt import Interrupted
from tests.training import conftest
from tests.training.test_loop import Killed, assert_same_run, final, kill_after

Go = Callable[..., loop.TrainResult]
# Validations at steps 0, 2, 4, ... of which none is better by 100: it stops at step 6, where there is no checkpoint.
IMPATIENT = (
    "train.validate_every=2",
    "callbacks.early_stopping.patience=3",
    "callbacks.early_stopping.min_delta=100",
)


class NoteSettings(Settings):
    name: Literal["note"] = "note"
    recalls: bool = Field(False, description="Whether it is shown again what was recorded.")
    stop_at: int | None = Field(None, description="The step at which it asks to stop.")
    fail_in: str | None = Field(None, description="The method that fails.")


class Note(Callback[NoteSettings]):
    """Notes what it is shown."""

    seen: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, settings: NoteSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.recalls = self.settings.recalls

    def note(self, method: str, value: Any) -> None:
        self.seen.append((method, value))
        torch.rand(1), np.random.random(), random.random()  # which nothing of a run depends on
        if method == self.settings.fail_in:
            raise ConnectionError("quota exceeded")

    def on_start(self, run: RunStart) -> None:
        self.note("on_start", run)

    def on_step(self, moment: Moment) -> Any:
        self.note("on_step", moment)
        return f"it is\nstep {moment.step}" if moment.step == self.settings.stop_at else None

    def on_validation(self, moment: Moment) -> Any:
        self.note("on_validation", moment)
        return True if self.settings.fail_in == "reason" else None

    def on_look(self, moment: Moment) -> None:
        self.note("on_look", moment)

    def on_end(self, end: RunEnd) -> None:
        self.note("on_end", end)


@pytest.fixture(scope="module")
def registry() -> Registry:
    from maskedmodel.plugins import load_registry

    built_in = load_registry(strict=True)
    return replace(
        built_in,
        tokenizers={**built_in.tokenizers, "wave": conftest.Wave},
        data_sources={**built_in.data_sources, "waves": conftest.Waves},
        callbacks={**built_in.callbacks, "note": Note},
    )


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Note.seen.clear()


def lines(run: Path, name: str = "metrics") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_a_callback_is_shown_what_the_run_records(run: Go, tmp_path: Path) -> None:
    run(tmp_path / "a", "callbacks=[note]", watch=lambda *_: None)
    (begin, about), *shown, (finish, end) = Note.seen
    assert (begin, finish) == ("on_start", "on_end")
    assert (about.kind, about.step, about.steps, about.name) == ("pretrain", 0, 14, "a")
    assert about.config["train"]["batch"] == 8
    assert (end.outcome, end.step, end.why) == ("finished", 14, "")
    assert [{"step": one.step, **one.figures} for _, one in shown] == lines(tmp_path / "a")
    timed = [{"step": one.step, **one.timings} for _, one in shown if one.timings]
    assert timed == lines(tmp_path / "a", "timings")
    assert {method for method, one in shown if "val_loss" in one.figures} == {"on_validation"}
    assert end.figures == shown[-1][1].figures
    with pytest.raises(TypeError):
        shown[0][1].figures["loss"] = 0.0


def test_a_look_at_the_encoder_is_shown(run: Go, tmp_path: Path) -> None:
    found = {"knn": 0.5, "rankme": 2.0}
    run(tmp_path, "callbacks=[note]", "evaluate.every=7", watch=lambda *_: lambda model, world: found)
    looks = [(one.step, dict(one.figures)) for method, one in Note.seen if method == "on_look"]
    assert looks == [(0, found), (7, found), (14, found)]


def test_a_run_with_callbacks_is_the_same_to_the_last_bit(run: Go, tmp_path: Path) -> None:
    run(tmp_path / "alone", "train.validate_every=2")
    run(tmp_path / "watched", "train.validate_every=2", "callbacks=[note, early_stopping, tensorboard]")
    assert_same_run(tmp_path / "alone", tmp_path / "watched")


def test_a_callback_stops_a_run_which_is_saved_and_says_who_asked(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    every = ("train.checkpoint_every=2", "train.keep=9")
    run(tmp_path / "straight", *every)
    caplog.clear()
    done = run(tmp_path / "run", "callbacks=[{name: note, stop_at: 7}]")
    assert done.steps == 7
    assert str(done.stopped) == "at step 7 of 14 by note: it is step 7"
    assert lines(tmp_path / "run")[-1].keys() == {"step", "val_loss", "val_ratio"}, "it ends with a validation"
    assert Note.seen[-1][1].outcome == "stopped"
    assert Note.seen[-1][1].why == "note: it is step 7"
    assert caplog.text.count("Stopped at step 7 of 14 by note") == 1

    # The same again trains nothing and says so; without the callback, or with other settings, it goes on.
    Note.seen.clear()
    caplog.clear()
    again = run(tmp_path / "run", "callbacks=[{name: note, stop_at: 7}]")
    assert (again.steps, again.stopped) == (7, done.stopped)
    assert again.last == done.last
    assert Note.seen == []
    assert "The run was stopped at step 7 of 14 by note" in caplog.text
    assert "leave it out" in caplog.text
    on = run(tmp_path / "run", "callbacks=[{name: note, stop_at: 9}]")
    assert on.steps == 9
    end = run(tmp_path / "run", "callbacks=[]")
    assert (end.steps, end.stopped) == (14, None)
    assert not (tmp_path / "run/stopped.json").exists()
    ours, theirs = final(tmp_path / "run"), final(tmp_path / "straight")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_run_is_not_stopped_before_its_first_step(run: Go, tmp_path: Path) -> None:
    done = run(tmp_path, "callbacks=[{name: early_stopping, patience: 1, min_delta: 100}]", "train.validate_every=1")
    assert done.steps == 1  # the validation before it is the best so far
    assert done.stopped is not None
    assert done.stopped.step == 1


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_early_stopping_decides_alike_in_a_run_that_was_killed(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    straight = run(tmp_path / "straight", *IMPATIENT, "train.checkpoint_every=2")
    assert straight.stopped is not None
    assert (straight.steps, straight.stopped.by) == (6, "early_stopping")
    with monkeypatch.context() as patch:
        kill_after(patch, cut)
        with pytest.raises(Killed):
            run(tmp_path / "cut", *IMPATIENT, "train.checkpoint_every=2")
    resumed = run(tmp_path / "cut", *IMPATIENT, "train.checkpoint_every=2")
    assert resumed.stopped == straight.stopped
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


@pytest.mark.parametrize("checkpoints", [2, 4])
@pytest.mark.parametrize("when", ["before it is written who asked", "after it"])
def test_a_kill_as_a_run_is_stopped_does_not_let_it_go_on(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, checkpoints: int
) -> None:
    settings = (*IMPATIENT, f"train.checkpoint_every={checkpoints}")
    straight = run(tmp_path / "straight", *settings)
    real = audience.Stopped.write

    def die(stopped: audience.Stopped, folder: Path) -> None:
        if when == "after it":
            real(stopped, folder)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(audience.Stopped, "write", die)
        with pytest.raises(Killed):
            run(tmp_path / "cut", *settings)
    assert run(tmp_path / "cut", *settings).stopped == straight.stopped
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_only_a_callback_that_recalls_is_shown_the_past_again(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = "callbacks=[note, {name: note, recalls: true}]"
    with monkeypatch.context() as patch:
        kill_after(patch, 6)
        with pytest.raises(Killed):
            run(tmp_path, both)
    Note.seen.clear()
    run(tmp_path, both)
    starts = [value.step for method, value in Note.seen if method == "on_start"]
    assert starts == [4, 4]
    again = [value for method, value in Note.seen if isinstance(value, Moment) and value.again]
    assert [{"step": one.step, **one.figures} for one in again] == [
        line for line in lines(tmp_path) if line["step"] <= 4
    ]
    assert not any(one.timings for one in again)


@pytest.mark.parametrize("method", ["on_start", "on_step", "on_validation", "reason"])
def test_a_callback_that_fails_is_told_of_once_and_left_out(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with caplog.at_level(logging.WARNING):
        done = run(tmp_path, f"callbacks=[{{name: note, fail_in: {method}}}, {{name: note, recalls: true}}]")
    assert done.steps == 14
    assert done.stopped is None
    assert caplog.text.count("is left out") == 1
    assert "Callback note (callbacks[0]) failed in" in caplog.text
    assert ("neither None nor why to stop" if method == "reason" else "quota exceeded") in caplog.text
    assert sum(one == "on_end" for one, _ in Note.seen) == 1, "the one that is left out isn't closed"


def test_what_fails_at_the_end_leaves_the_run_whole(run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(tmp_path, "callbacks=[{name: note, fail_in: on_end}]").steps == 14
    assert "failed in on_end" in caplog.text


def test_callbacks_are_told_how_a_run_ended(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError):
        run(tmp_path / "bad", "callbacks=[note]", "data.infinite=[3]")
    assert Note.seen[-1][1].outcome == "failed"
    assert "isn't finite" in Note.seen[-1][1].why
    real = loop.backward

    def told(*arguments: Any) -> float:
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", told)
        with pytest.raises(Interrupted):
            run(tmp_path / "signal", "callbacks=[note]")
    assert loop.backward is real
    assert Note.seen[-1][1].outcome == "interrupted"


def test_where_a_run_has_to_go_its_whole_length_a_wish_is_told_and_not_followed(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(tmp_path, *IMPATIENT, whole="It goes on.")
    assert (done.steps, done.stopped) == (14, None)
    assert caplog.text.count("early_stopping asks to stop at step 6") == 1
    assert not (tmp_path / "stopped.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks=[early_stopping]", "train.validate_every=0"], "Set train.validate_every="),
        (["callbacks=[wandb]"], "Install wandb"),
    ],
)
def test_what_a_callback_refuses_as_it_begins_is_for_the_user(
    run: Go, tmp_path: Path, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises((ConfigError, DependencyError), match=message) as raised:
        run(tmp_path, *overrides)
    assert "callbacks[0]" in str(raised.value)
    assert lines(tmp_path) == [], "nothing was trained"


def test_early_stopping_names_the_figures_where_its_own_is_missing(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(tmp_path, *IMPATIENT, "callbacks.early_stopping.monitor=val_accuracy").stopped is None
    assert "no figure 'val_accuracy': it has val_loss, val_ratio" in caplog.text


def test_early_stopping_counts_from_the_best_and_takes_higher_as_better(registry: Registry) -> None:
    def answers(values: list[float], **settings: Any) -> list[int]:
        callback = registry.get("callback", "early_stopping")(**settings)
        callback.on_start(RunStart(Path(), {"train": {"validate_every": 1}}, "finetune", 0, 99))
        moments = [Moment(step, 99, {"val_loss": value}) for step, value in enumerate(values)]
        return [moment.step for moment in moments if callback.on_validation(moment) is not None]

    assert answers([3, 2, 2.5, 1.9, 2, 2, 1.9], patience=3) == [6]
    assert answers([3, 2, 2.5, 1.9, 2, 2, 1.9], patience=3, min_delta=0.2) == [4, 5, 6]
    assert answers([0.1, 0.5, 0.4, 0.5, 0.6], patience=2, goal="higher") == [3]
    assert answers([float("nan"), 5, float("nan"), 6], patience=2) == [3]


def test_trackers_are_callbacks_and_one_that_is_listed_is_not_there_twice(run: Go, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    both = ("train.trackers=[tensorboard]", "callbacks=[{name: tensorboard, folder: events}]")
    for folder, place, overrides in (("old", "tensorboard", both[:1]), ("new", "events", both)):
        run(tmp_path / folder, *overrides)
        assert [path.name for path in (tmp_path / folder).iterdir() if path.name in ("tensorboard", "events")] == [
            place
        ]
        events = EventAccumulator(str(tmp_path / folder / place))
        events.Reload()
        losses = {line["step"]: line["loss"] for line in lines(tmp_path / folder) if "loss" in line}
        assert {one.step: one.value for one in events.Scalars("loss")} == pytest.approx(losses)
        assert [one.step for one in events.Scalars("val_loss")] == [0, 5, 10, 14]
        assert len(events.Scalars("samples_per_second")) == 14


def test_a_tracker_that_isnt_installed_is_left_out(
    run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert run(tmp_path, "train.trackers=[trackio]", "train.steps=2").steps == 2
    assert "Callback trackio (train.trackers) failed in on_start and is left out" in caplog.text


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_is_sent_settings_figures_and_the_end(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls: list[tuple[str, Any]] = []
    service = SimpleNamespace(
        init=lambda **given: calls.append(("init", given)),
        log=lambda values, step: calls.append(("log", {"step": step, **values})),
        finish=lambda: calls.append(("finish", None)),
    )
    monkeypatch.setitem(sys.modules, name, service)
    run(tmp_path / "mine", f"callbacks.{name}.project=cells", "train.log_every=7")
    (first, given), *sent, (last, _) = calls
    assert (first, last) == ("init", "finish")
    assert (given["project"], given["name"]) == ("cells", "mine")
    assert given["config"]["train"]["steps"] == 14
    assert given.keys() == {"project", "name", "config"}
    assert [values["step"] for _, values in sent] == [0, 1, 5, 7, 10, 14, 14]
    assert {"loss", "lr", "samples_per_second", "memory_mb"} < sent[1][1].keys()
