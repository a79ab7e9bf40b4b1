"""Signals that come twice or in the middle of a save, clocks that jump, and numbers of half the width."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training import loop
from maskedmodel.training.interrupt import Interrupted
from tests.engine.conftest import Box, model_of, noise
from tests.runs import ENVIRONMENT, SMALL, assert_same_run, pretrain

Go = Callable[..., loop.TrainResult]
SETTINGS = ("train.steps=12", "train.checkpoint_every=4")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    pretrain(folder, *SETTINGS)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_second_signal_ends_a_run_at_once_even_in_the_middle_of_a_save(
    number: signal.Signals, straight: Path, tmp_path: Path
) -> None:
    """Both signals come while the second checkpoint is being written: it is left half-written, and the first counts."""
    run = tmp_path / "run"
    script = (
        "import os, sys; from maskedmodel.cli.app import run_cli; from maskedmodel.training import checkpoint;"
        "real = checkpoint.save_file\n"
        "def save_file(tensors, path):\n"
        "    real(tensors, path)\n"
        "    if 'step-00000008' in str(path):\n"
        f"        os.kill(os.getpid(), {int(number)}); os.kill(os.getpid(), {int(number)})\n"
        "checkpoint.save_file = save_file\n"
        f"sys.exit(run_cli(['pretrain', '--run', {str(run)!r}, *{SMALL!r}, *{SETTINGS!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert ended.returncode == 128 + number, ended.stderr
    assert "Traceback" not in ended.stderr
    (half,) = (run / "checkpoints").glob(".*")
    assert re.fullmatch(r"\.step-00000008\.\d+-[0-9a-f]{8}\.writing", half.name)
    assert checkpoints.read_state(checkpoints.newest(run))["step"] == 4
    pretrain(run, *SETTINGS)
    assert_same_run(straight, run)
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_save_waits_for_its_end(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    run(tmp_path / "straight")
    real = checkpoints.save_file

    def asked(tensors: Any, path: Path) -> None:
        if "step-00000008" in str(path) and "model" in path.name:
            os.kill(os.getpid(), number)
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", asked)
    with pytest.raises(Interrupted) as raised:
        run(tmp_path / "run")
    assert raised.value.exit_code == 128 + number
    assert checkpoints.read_state(checkpoints.newest(tmp_path / "run"))["step"] == 8
    monkeypatch.undo()
    run(tmp_path / "run")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_checkpoint_is_whole_before_the_next_step_and_holds_its_own_step(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is saved beside the training: as the next step begins, the file has what the run has in memory."""
    real, seen = loop.gradient, []

    def looked(state: Any, *given: Any) -> Any:
        if state.step and state.step % 4 == 0:
            kept = checkpoints.folder_of(tmp_path, state.step)
            assert checkpoints.damage(kept) is None
            own = {**state.model.state_dict(), **checkpoints.optimizer_tensors(state.optimizer, state.names)}
            on_disk = {**checkpoints.read_model(kept), **checkpoints.read_optimizer(kept)}
            assert own.keys() == on_disk.keys()
            assert all(torch.equal(own[name], on_disk[name]) for name in own)
            seen.append(state.step)
        return real(state, *given)

    monkeypatch.setattr(loop, "gradient", looked)
    run(tmp_path)
    assert seen == [4, 8, 12]


def test_a_clock_that_jumps_changes_nothing(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight")
    monkeypatch.setattr(time, "time", lambda: random.uniform(-1e9, 1e10))
    run(tmp_path / "run")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_fifty_steps_in_bf16_stay_near_fp32(run: Go, tmp_path: Path) -> None:
    found = {
        precision: run(tmp_path / precision, "train.steps=50", f"train.precision={precision}", "optim.lr=0.003")
        for precision in ("fp32", "bf16")
    }
    assert all(math.isfinite(result.val_loss_end) for result in found.values())
    assert found["fp32"].val_loss_end < 0.9 * found["fp32"].val_loss_start
    assert found["bf16"].val_loss_end == pytest.approx(found["fp32"].val_loss_end, rel=0.05)


def numerics() -> tuple[object, ...]:
    """What a process is set to: whether products may take TF32 or fewer bits, and whether denormals become zero."""
    backends = torch.backends
    chosen = (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
    return (*chosen, float(torch.tensor([1e-40]) * 0.5))


def test_a_run_leaves_the_numerics_of_its_process_as_they_were(run: Go, tmp_path: Path) -> None:
    before = numerics()
    assert before[0] == "highest"
    assert not before[1]
    run(tmp_path, "train.steps=2")
    assert numerics() == before


def test_a_run_is_the_same_where_denormal_numbers_become_zero(run: Go, tmp_path: Path) -> None:
    straight = run(tmp_path / "straight")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor can't flush denormal numbers")
    try:
        assert float(torch.tensor([1e-40]) * 0.5) == 0
        flushed = run(tmp_path / "flushed")
    finally:
        torch.set_flush_denormal(False)
    assert flushed.last == pytest.approx(straight.last, rel=1e-5)


@pytest.mark.parametrize("size", [1e-38, 1e-42, 1e-45])
def test_signals_of_denormal_numbers_have_a_finite_loss_and_gradient(size: float) -> None:
    tokenizer = Box()
    model = model_of(tokenizer, normalise=True)
    signal = torch.rand((2, 3, 8, 12), generator=torch.Generator().manual_seed(0)) * size
    output = model(signal, noise=noise(2))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
