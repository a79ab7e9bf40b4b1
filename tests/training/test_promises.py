"""What a run promises beside the same bits: its length, memory, the best checkpoint, spoilt steps, moved folders."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import pty
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from maskedmodel.config.load import dump_config
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError, ConfigError, DataError, TrainingError
from maskedmodel.files import replacing
from maskedmodel.report.reader import read
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training import loop, masked, tracking
from maskedmodel.training.folder import claimed, settle
from maskedmodel.training.tracking import Clock, Display, read_lines
from maskedmodel.weights.runs import load
from tests import runs
from tests.training.test_loop import Go, Killed, assert_same_run, final, kill_after


def test_a_run_may_be_lengthened_and_ended_early(
    configured: Any, registry: Any, run: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a"
    run(folder, "train.steps=8")
    (folder / "config.yaml").write_text(dump_config(configured("train.steps=8")))
    with caplog.at_level(logging.WARNING):
        settle(folder, configured("train.steps=12"), registry)
    assert "train.steps was 8 and is 12 now. From step 8 on" in caplog.text
    longer = run(folder, "train.steps=12")
    assert longer.steps == 12
    rates = {line["step"]: line["lr"] for line in read_lines(folder / "metrics.jsonl") if "lr" in line}
    assert rates[8] == 0  # the end of the short run
    assert rates[9] > 0
    assert rates[12] == 0
    ended = run(folder, "train.steps=10")  # it stands at 12 already
    assert ended.steps == 12
    assert ended.val_loss_end == longer.val_loss_end
    with pytest.raises(ConfigError, match="another config"):
        settle(folder, configured("train.steps=20", "optim.lr=0.5"), registry)


def test_a_run_that_ends_early_is_validated_where_it_stands(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(monkeypatch, 9)
    with pytest.raises(Killed):
        run(tmp_path, "train.validate_every=0")
    monkeypatch.undo()
    ended = run(tmp_path, "train.validate_every=0", "train.steps=6")
    assert ended.steps == 8
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if "val_loss" in line] == [0, 8]


def test_checkpoints_without_their_config_are_refused(configured: Any, registry: Any, run: Go, tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.yaml is gone"):
        settle(tmp_path, configured(), registry)


@pytest.mark.parametrize(("mask", "ratio"), [("mask.name=uniform", 0.75), ("mask.end=0.4", 0.4), ("mask.end=0.8", 0.6)])
def test_validation_hides_the_mean_of_the_masks_ratio(run: Go, tmp_path: Path, mask: str, ratio: float) -> None:
    result = run(tmp_path, mask, "train.steps=2")
    assert result.val_ratio == pytest.approx(ratio, abs=1e-3)
    told = [line["val_ratio"] for line in read_lines(tmp_path / "metrics.jsonl") if "val_loss" in line]
    assert told == [result.val_ratio] * 2
    assert run(tmp_path / "set", mask, "train.steps=2", "train.validation_ratio=0.5").val_ratio == 0.5


def test_the_best_checkpoint_is_kept(run: Go, tmp_path: Path, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([9.0, 3.0, 1.0, 2.0, 5.0, 5.0])
    monkeypatch.setattr(masked, "validation_loss", lambda *_: next(losses))
    run(tmp_path, "train.keep_best=true", "train.keep=1", "train.validate_every=3")
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == ["step-00000006", "step-00000014"]
    assert checkpoints.best(tmp_path) == tmp_path / "checkpoints/step-00000006"
    (tmp_path / "checkpoints/step-00000006/COMMITTED").unlink()
    assert checkpoints.best(tmp_path) is None


def test_load_takes_the_best_one(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "weights/golden/0.1.0"
    with pytest.raises(CheckpointError, match="keeps no best"):
        load(golden, checkpoint="best")


NAMES = ("four", "halved")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["cuda", "ram"])
@pytest.mark.parametrize("mask", ["mask.name=ramped", "mask.name=sampled"])
def test_half_the_micro_batch_gives_the_curve_of_accumulation(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, mask: str
) -> None:
    """More than two samples at once don't fit: as of that step the run is one with train.accumulate=4."""
    run(tmp_path / "four", mask, "train.accumulate=4")
    real = loop.backward

    def small(learning: Any, model: nn.Module, parts: Any, *arguments: Any) -> float:
        if max(part.tokens.batch for part in parts) > 2:
            real(learning, model, parts, *arguments)  # what was done before memory ran out must leave no trace
            raise error
        return real(learning, model, parts, *arguments)

    monkeypatch.setattr(loop, "backward", small)
    run(tmp_path / "halved", mask, "train.on_out_of_memory=halve")
    ours, theirs = final(tmp_path / "four"), final(tmp_path / "halved")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    curves = [[line for line in read_lines(tmp_path / name / "metrics.jsonl") if "loss" in line] for name in NAMES]
    assert curves[0] == curves[1]
    with pytest.raises(TrainingError, match="isn't enough memory") as raised:
        run(tmp_path / "fails", mask)
    assert "8 samples of 8 tokens at once" in str(raised.value)
    assert "train.accumulate=2" in str(raised.value)


def test_memory_that_never_suffices_ends_the_run(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> float:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to ...")

    monkeypatch.setattr(loop, "backward", never)
    with pytest.raises(TrainingError, match="1 samples of 8 tokens"):
        run(tmp_path, "train.on_out_of_memory=halve")

    def other(*_: Any) -> float:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "backward", other)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(tmp_path / "other", "train.on_out_of_memory=halve")


def test_where_memory_runs_out_a_validation_takes_fewer_rows(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first step, too; the figures are the same but for rounding."""
    straight, real, most = run(tmp_path / "straight"), MaskedAutoencoder.forward, 3

    def tight(model: MaskedAutoencoder, tokens: Any, mask: Any, progress: float = 0.0) -> Any:
        if not model.training and tokens.batch > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, tokens, mask, progress=progress)

    monkeypatch.setattr(MaskedAutoencoder, "forward", tight)
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "tight")
    assert "Out of memory: going on with 2 samples at a time." in caplog.text
    assert found.first == pytest.approx(straight.first, abs=1e-6)
    assert found.last == pytest.approx(straight.last, abs=1e-6)
    most = 0
    with pytest.raises(DataError, match="isn't enough memory for the validation of one sample"):
        run(tmp_path / "never")


def test_validation_samples_that_cant_be_read_are_kept_with_the_run(run: Go, tmp_path: Path) -> None:
    """In the checkpoint and in the result, also of a run that was stopped after its first validation."""
    given = ("data.broken_val=[1,3]", "train.on_bad_sample=skip")
    found = run(tmp_path, *given, "train.steps=4")
    assert [one.id for one in found.broken_val] == ["1", "3"]
    assert found.broken == []
    state = checkpoints.read_state(checkpoints.newest(tmp_path))
    assert [one["id"] for one in state["broken_val"]] == ["1", "3"]
    ended = run(tmp_path, *given, "train.steps=4")  # which validates nothing
    assert ended.broken_val == found.broken_val
    assert read(tmp_path).broken[0][0] == "of val: 1"


def test_memory_that_runs_out_in_a_validation_is_told(run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(masked, "validation_loss", never)
    with pytest.raises(TrainingError, match="isn't enough memory beside the steps") as raised:
        run(tmp_path)
    assert "train.accumulate=2" in str(raised.value)
    assert "2.00 GiB" in str(raised.value)


def test_a_batch_that_spoils_a_step_is_kept(run: Go, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="isn't finite") as raised:
        run(tmp_path, "data.infinite=[3]")
    (kept,) = tmp_path.glob("not-finite-step-*.json")
    assert kept.name in str(raised.value)
    told = json.loads(kept.read_text())
    assert "train-3" in told["ids"]
    assert load_file(kept.with_suffix(".safetensors"))["signal"].shape == (8, 2, 24)


def test_a_gradient_that_is_not_finite_stops_before_the_update(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite all along: NaN comes in a gradient, in the third step."""
    run(tmp_path / "two", "train.steps=14", "train.checkpoint_every=2")
    real, count = loop.backward, [0]

    def spoilt(learning: Any, model: Any, *arguments: Any) -> float:
        loss = real(learning, model, *arguments)
        count[0] += 1
        if count[0] == 3:
            next(model.parameters()).grad.view(-1)[0] = torch.nan
        return loss

    monkeypatch.setattr(loop, "backward", spoilt)
    with pytest.raises(TrainingError, match="gradient norm nan"):
        run(tmp_path / "cut", "train.checkpoint_every=2")
    monkeypatch.undo()
    run(tmp_path / "cut", "train.checkpoint_every=2")
    assert_same_run(tmp_path / "two", tmp_path / "cut")


@pytest.mark.parametrize("gone", [True, False], ids=["removed", "another in its place"])
def test_a_folder_that_moves_ends_the_run_and_is_not_made_again(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    real, count = loop.backward, [0]

    def move(*arguments: Any) -> float:
        count[0] += 1
        if count[0] == 6:
            folder.rename(moved)
            if not gone:
                folder.mkdir()
        return real(*arguments)

    monkeypatch.setattr(loop, "backward", move)
    with pytest.raises(TrainingError, match="moved, renamed or removed") as raised:
        run(folder)
    assert str(folder) in str(raised.value)
    assert not (folder / "checkpoints").exists()
    monkeypatch.undo()
    run(moved)
    run(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", moved)


# Checkpoints


def write(run: Path, model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor] | None = None) -> Path:
    run.mkdir(exist_ok=True)
    return checkpoints.save(run, 1, model, optimizer or {}, {"data": "x", "broken": []})


def test_tied_tensors_are_kept_once_and_come_back_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
            self.head.weight = self.embed.weight
            self.register_buffer("whole", torch.arange(6.0))
            self.register_buffer("part", self.whole[2:4])
            self.register_buffer("turned", self.whole.reshape(2, 3).t())

    one, other = Tied(), Tied()
    kept = write(tmp_path, one.state_dict())
    assert "head.weight" not in load_file(kept / "model.safetensors")
    checkpoints.load_weights(other, checkpoints.read_model(kept), kept)
    assert other.head.weight is other.embed.weight
    for (name, mine), theirs in zip(other.state_dict().items(), one.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_what_cannot_be_saved_is_told_before_the_first_step(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("Some tensors can't be saved")

    monkeypatch.setattr(checkpoints, "save_file", refuse)
    monkeypatch.setattr(loop, "backward", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(TrainingError, match="can't be written"):
        run(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def spoil(checkpoint: Path, name: str, content: object) -> None:
    """Whole by its checksum, wrong by its content."""
    (checkpoint / name).write_text(json.dumps(content))
    committed = json.loads((checkpoint / "COMMITTED").read_text())
    committed["sha256"][name] = checkpoints._sha256(checkpoint / name)
    (checkpoint / "COMMITTED").write_text(json.dumps(committed))


@pytest.mark.parametrize("content", [[1], 3, {}, {"step": "x"}, None])
def test_a_state_that_tells_no_step_falls_back(tmp_path: Path, content: object) -> None:
    spoil(write(tmp_path, {"a": torch.ones(1)}), "state.json", content)
    with pytest.raises(CheckpointError, match="tells no step"):
        checkpoints.find(tmp_path)


@pytest.mark.parametrize("committed", [{"sha256": {}}, {"sha256": []}, [], {"sha256": {"state.json": "x"}}])
def test_committed_must_list_every_file(tmp_path: Path, committed: object) -> None:
    path = write(tmp_path, {"a": torch.ones(1)})
    (path / "COMMITTED").write_text(json.dumps(committed))
    assert checkpoints.damage(path) is not None


def test_an_optimizer_that_lacks_entries_is_refused(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    names = {parameter: name for name, parameter in layer.named_parameters()}
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    tensors = checkpoints.optimizer_tensors(optimizer, names)
    path = write(tmp_path, layer.state_dict(), tensors)
    state = json.loads((path / "state.json").read_text())
    spoil(path, "state.json", {**state, "optimizer": [*state["optimizer"], "weight:max_exp_avg_sq"]})
    with pytest.raises(CheckpointError, match="1 missing: weight:max_exp_avg_sq"):
        checkpoints.read_optimizer(path)
    fresh = torch.optim.AdamW(layer.parameters())
    del tensors["bias:exp_avg"]
    with pytest.raises(CheckpointError, match="1 missing: bias:exp_avg"):
        checkpoints.restore_optimizer(fresh, names, tensors)


def test_damaged_lines_of_metrics_are_left_out_and_told(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill_after(monkeypatch, 9)
    with pytest.raises(Killed):
        run(tmp_path)
    monkeypatch.undo()
    path = tmp_path / "metrics.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    damaged = ["[1]\n", '{"loss": 1}\n', '{"step": "x"}\n', "\ufffd{\n"]
    path.write_text("".join([first, *damaged, *rest]))
    with caplog.at_level(logging.WARNING):
        run(tmp_path)
    assert "4 damaged lines" in caplog.text
    assert json.loads(path.read_text().splitlines()[0])["step"] == 0
    run(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path)


# Files and folders


def test_two_writers_of_one_target_never_meet(tmp_path: Path) -> None:
    """Each reader sees a whole file of one of the writers, and nothing is left behind."""
    target, faults = tmp_path / "target", []

    def writer(letter: bytes) -> None:
        try:
            for _ in range(60):
                with replacing(target) as file:
                    file.write(letter * 2000)
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=writer, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if target.exists():
            seen.add(target.read_bytes())
    assert not faults
    assert seen <= {letter * 2000 for letter in (b"a", b"b", b"c")}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_without_locks_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[..., None]:
        def lock(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        return lock

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with pytest.raises(TrainingError, match="has no locks"), claimed(tmp_path):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EWOULDBLOCK))
    with pytest.raises(TrainingError, match="Another process"), claimed(tmp_path):
        pass


def test_a_disk_without_room_for_the_lock_is_one_error(tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most[1]))
    try:
        with pytest.raises(TrainingError, match="can't be written to"), claimed(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".config.yaml.123-abc.writing"
    left.write_text("half")
    with claimed(tmp_path):
        assert not left.exists()


# What is shown


def test_a_clock_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 4.0
    clock.read(1.0, 80)
    with clock.stopped():
        now[0] = 100.0
    assert clock.rate == 20
    assert clock.share_waited == 0.25


class Broken:
    """A stream whose other end has gone."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return self.terminal

    terminal = False


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "terminal"), BrokenPipeError(), ValueError("I/O operation on closed file.")]
)
def test_a_display_that_nobody_sees_is_no_error(
    error: BaseException, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Broken(error)
    stream.terminal = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    display = Display("training", 10, interval=0)
    with display:
        for done in range(10):
            display.update(done + 1, "loss 1")
    assert display.gone


def test_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    """A real terminal closes under a run that ignores SIGHUP, as after disown: the run goes on to its end."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        words = ["pretrain", "image-quickstart", "--run", str(tmp_path / "run"), *runs.SMALL, "train.steps=60"]
        os.execve(sys.executable, runs.command(*words), runs.ENVIRONMENT)
    seen = b""
    while b"/60" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert read_lines(tmp_path / "run/metrics.jsonl")[-1]["step"] == 60
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.slow  # as its terminal
def test_a_run_outlives_its_pipe(tmp_path: Path) -> None:
    process = runs.pretrain(tmp_path / "run", "train.steps=40", wait=False)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "run/report.html").exists()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    runs.pretrain(folder, "train.steps=20")
    return folder


def test_slurm_may_ask_a_run_to_leave_and_start_it_again(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runs.ENVIRONMENT, "SLURM_JOB_ID", "17")
    monkeypatch.setitem(runs.ENVIRONMENT, "SLURM_RESTART_COUNT", "1")
    process = runs.pretrain(tmp_path / "run", "train.steps=20", wait=False)
    runs.wait_for(tmp_path / "run", 8, process)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, err
    assert "Traceback" not in err
    runs.pretrain(tmp_path / "run", "train.steps=20")
    runs.assert_same_run(straight, tmp_path / "run")


def test_ctrl_c_during_start_up_leaves_nothing_half_done(tmp_path: Path, straight: Path) -> None:
    # Where the tests themselves run in the background, SIGINT is ignored, and a process inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # A worker takes longer to start than the signal to come.
        process = runs.pretrain(tmp_path / "run", "train.steps=20", "train.workers=1", wait=False)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (tmp_path / "run").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    runs.pretrain(tmp_path / "run", "train.steps=20")
    runs.assert_same_run(straight, tmp_path / "run")
