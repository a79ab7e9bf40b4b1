from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maskedmodel.errors import TrainingError
from maskedmodel.training.tracking import Display, Lines, environment, has_bf16, peak_memory, read_lines


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
