"""Callbacks in fine-tuning: the same loop, so the same promises; a label curve goes its whole length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from maskedmodel.adapting.curve import label_curve
from maskedmodel.adapting.run import Adapted
from maskedmodel.commands.adapt import FinetuneResult
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.plugins import Registry
from maskedmodel.training.tracking import read_lines
from tests.adapting.conftest import ALONE
from tests.runs import assert_same_run
from tests.training.test_loop import Killed, kill_after

Go = Callable[..., Adapted]
IMPATIENT = (
    "train.validate_every=2",
    "callbacks.early_stopping.monitor=val_accuracy",
    "callbacks.early_stopping.goal=higher",
    "callbacks.early_stopping.min_delta=2",  # nothing is better by that
    "callbacks.early_stopping.patience=3",
)


def test_a_metric_may_stop_a_run_which_a_kill_does_not_change(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(tmp_path / "straight", *IMPATIENT)
    assert straight.stopped is not None
    assert straight.stopped.step == 6
    assert "val_accuracy was not higher by more than 2 than" in straight.stopped.why
    summary = json.loads((tmp_path / "straight/summary.json").read_text())
    assert (summary["steps"], summary["stopped"]["by"]) == (6, "early_stopping")
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            run(tmp_path / "cut", *IMPATIENT)
    run(tmp_path / "cut", *IMPATIENT)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_a_stopped_run_says_so_again_and_goes_on_when_told_to(run: Go, tmp_path: Path) -> None:
    first = run(tmp_path / "run", *IMPATIENT)
    again = run(tmp_path / "run", *IMPATIENT)
    assert (again.stopped, again.judged) == (first.stopped, first.judged)
    text = str(FinetuneResult(again, None, True, tmp_path / "report.html"))
    assert "stopped early  fine-tuned, at step 6 of 12 by early_stopping: val_accuracy was not" in text
    assert "to go on       change the settings of early_stopping" in text
    on = run(tmp_path / "run", "train.validate_every=2")
    assert on.stopped is None
    straight = run(tmp_path / "straight", "train.validate_every=2")
    assert_same_run(tmp_path / "straight", tmp_path / "run")
    assert on.judged == straight.judged


def test_a_label_curve_trains_each_run_to_its_end(
    configured: Callable[..., FinetuneConfig],
    registry: Registry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = configured(*IMPATIENT, "train.steps=8")
    label_curve(config, tmp_path, registry, ALONE, labels=[8], seeds=1, scratch=False, quiet=True)
    assert read_lines(tmp_path / "labels-8/started/seed-0/metrics.jsonl")[-1]["step"] == 8
    assert "early_stopping asks to stop at step 6" in caplog.text
    assert "all of them train the same number of steps" in caplog.text
