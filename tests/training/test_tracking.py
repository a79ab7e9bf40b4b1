from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from maskedmodel.errors import TrainingError
from maskedmodel.training.tracking import Display, Lines, Trackers, environment, has_bf16, peak_memory, read_lines


def test_lines_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Lines(path, None)
    for step in (1, 2, 3):
        first.write(step=step, loss=step / 3)
    first.file.write('{"step": 4, "lo')  # what a kill leaves
    first.file.close()
    second = Lines(path, 2)
    second.write(step=3, loss=0.5)
    second.file.close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]
    assert read_lines(path)[1]["loss"] == 2 / 3
    assert Lines(path, None).kept == []
    assert path.read_text() == ""


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(tmp_path / "metrics.jsonl", None)
    lines.file.close()
    lines.file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(TrainingError, match="can't be written") as raised:
        lines.write(step=1)
    assert "No space left" in str(raised.value)


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def log(self, values: Any, step: int) -> None:
        self.calls += 1
        raise ConnectionError("quota exceeded")

    def close(self) -> None:
        raise AssertionError("a tracker that is left out isn't closed")


def test_a_failing_tracker_is_named_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trackers = Trackers([], tmp_path, {})
    failing = Failing()
    trackers.live["wandb"] = failing
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            trackers.log({"loss": 1.0}, step)
        trackers.close()
    assert failing.calls == 1
    assert caplog.text.count("quota exceeded") == 1


def test_a_tracker_that_isnt_installed_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trackers = Trackers(["trackio"], tmp_path, {})
    assert trackers.live == {}
    assert "trackio can't start" in caplog.text


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    trackers = Trackers(["tensorboard"], tmp_path, {})
    trackers.log({"loss": 0.5}, 3)
    trackers.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]


def test_display_away_from_a_terminal_prints_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("pretraining", 3, interval=0) as display:
        for step in (1, 2, 3):
            display.update(step, f"loss {step}")
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert [line.split("  ")[0] for line in shown.splitlines()] == [f"pretraining {n}/3" for n in (1, 2, 3)]
    assert "s left" in shown


def test_quiet_display_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("pretraining", 1, quiet=True, interval=0) as display:
        display.phase("probing", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_environment_is_json_and_names_versions() -> None:
    found = environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert peak_memory(torch.device("cpu")) > 10


@pytest.mark.parametrize(("flags", "fast"), [("avx2 amx_bf16", True), ("avx512_bf16", True), ("avx2 fma", False)])
def test_bf16_only_where_the_processor_has_it(flags: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskedmodel.training.tracking._cpuinfo", lambda: ["model name: x", f"flags\t: fpu {flags}"])
    assert has_bf16(torch.device("cpu")) is fast
