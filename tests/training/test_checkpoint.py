from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maskedmodel.errors import CheckpointError, TrainingError
from maskedmodel.training import checkpoint as checkpoints

MODEL = {"weight": torch.arange(6.0).reshape(2, 3).T, "tied": torch.ones(3)}


def write(run: Path, step: int) -> Path:
    return checkpoints.save(run, step, MODEL, {"weight:step": torch.tensor(float(step))}, {"data": "x", "broken": []})


def test_round_trip_with_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    path = write(tmp_path, 1000)
    assert path.name == "step-00001000"
    read = checkpoints.read_model(path)
    assert all(torch.equal(read[key], MODEL[key]) for key in MODEL)
    assert checkpoints.read_state(path)["step"] == 1000
    assert checkpoints.read_optimizer(path)["weight:step"] == 1000
    assert {p.name for p in path.iterdir()} == {"model.safetensors", "optimizer.safetensors", "state.json", "COMMITTED"}


def test_nothing_found_in_a_new_run(tmp_path: Path) -> None:
    assert checkpoints.find(tmp_path) is None
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        checkpoints.newest(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "COMMITTED"])
def test_damaged_newest_falls_back(tmp_path: Path, harm: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    before, newest = write(tmp_path, 1), write(tmp_path, 2)
    if (harm, name) == (flip, "COMMITTED"):
        (newest / name).write_text("{")  # a flipped bit of white space would be no damage
    else:
        harm(newest / name)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path) == before
    assert "step-00000002" in caplog.text
    assert "damaged" in caplog.text


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    truncate(write(tmp_path, 1) / "model.safetensors")
    with pytest.raises(CheckpointError, match="Every checkpoint") as raised:
        checkpoints.find(tmp_path)
    assert "model.safetensors differs" in str(raised.value)


def test_a_cut_write_doesnt_count_and_is_cleaned(tmp_path: Path) -> None:
    kept = write(tmp_path, 1)
    shutil.copytree(kept, kept.with_name(".step-00000002.writing"))
    assert checkpoints.newest(tmp_path) == kept
    checkpoints.keep_last(tmp_path, 2)
    assert [path.name for path in kept.parent.iterdir()] == ["step-00000001"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    truncate(write(tmp_path, 1) / "model.safetensors")
    again = write(tmp_path, 1)
    assert checkpoints.newest(tmp_path) == again


def test_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(1, 6):
        write(tmp_path, step)
    checkpoints.keep_last(tmp_path, 2)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000004", "step-00000005"]

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    checkpoints.keep_last(tmp_path, 1)
    assert "can't be removed" in caplog.text


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_full_disk_leaves_the_old_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    kept = write(tmp_path, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if file == "model.safetensors":
        monkeypatch.setattr(checkpoints, "save_file", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrainingError, match="earlier ones are untouched") as raised:
        write(tmp_path, 2)
    assert "No space left" in str(raised.value)
    assert list((tmp_path / "checkpoints").iterdir()) == [kept]
    assert checkpoints.newest(tmp_path) == kept


def test_write_text_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    checkpoints.write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match="can't be written"):
        checkpoints.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="another format") as raised:
        checkpoints.read_state(path)
    assert "99" in str(raised.value)


def test_weights_of_another_shape_are_named() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="another model") as raised:
        checkpoints.load_weights(module, {"weight": torch.ones(2, 4), "extra": torch.ones(1)}, "here")
    text = str(raised.value)
    assert "weight: (2, 4) where (2, 3) is due" in text
    assert "1 missing (bias)" in text
    assert "1 unexpected (extra)" in text


def test_optimizer_state_comes_back_bit_for_bit() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    data = torch.randn(4, 3)

    def train(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        module(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    first = torch.optim.AdamW(one.parameters(), fused=True)
    train(one, first)
    names = {p: n for n, p in one.named_parameters()}
    tensors = {k: t.clone() for k, t in checkpoints.optimizer_tensors(first, names).items()}
    other.load_state_dict(one.state_dict())
    second = torch.optim.AdamW(other.parameters(), fused=True)
    checkpoints.restore_optimizer(second, {p: n for n, p in other.named_parameters()}, tensors)
    train(one, first)
    train(other, second)
    assert torch.equal(one.weight, other.weight)
    with pytest.raises(CheckpointError, match="another model"):
        checkpoints.restore_optimizer(second, {}, tensors)
