"""Comparisons from the command line: killed and taken up again, two at a time, stopped by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskedmodel.comparison import pool
from maskedmodel.comparison.worker import Job, error_of
from maskedmodel.errors import ConfigError, PluginError, TrainingError
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.interrupt import Interrupted

PLUGINS = "image,masks,objectives,tasks"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASKEDMODEL_PLUGINS": PLUGINS, "COLUMNS": "200"}
SETTINGS = (
    "data.size=8",
    "tokenizer.size=8",
    "model.encoder.dim=16",
    "model.encoder.depth=1",
    "model.encoder.heads=2",
    "model.decoder.dim=16",
    "model.decoder.depth=1",
    "train.batch=16",
    "train.precision=fp32",
    "train.device=cpu",
    "train.validation_samples=16",
    "train.log_every=5",
)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "maskedmodel", "compare", "--run", str(folder), *SETTINGS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait(condition: object, process: subprocess.Popen[str], what: str) -> None:
    limit = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def workers(folder: Path) -> list[int]:
    """Processes that still hold a run of the comparison."""
    found = []
    for path in folder.glob("runs/*/*/.lock"):
        text = path.read_text().strip()
        if text and Path(f"/proc/{text}").exists():
            found.append(int(text))
    return found


@pytest.mark.slow  # test_compare.py holds by default that what is finished isn't done again
def test_killed_and_taken_up_again(tmp_path: Path) -> None:
    """The first arm is done, the second is on its way, then all is killed; the same command does what is missing."""
    arguments = (
        "--mask",
        "uniform",
        "--mask",
        "ramped",
        "--seeds",
        "1",
        "--jobs",
        "1",
        "train.checkpoint_every=20",
        "evaluate.probe=false",
    )
    folder = tmp_path / "cut"
    process = start(folder, *arguments, "train.steps=120")
    first, second = folder / "runs/uniform/seed-0", folder / "runs/ramped/seed-0"
    wait(lambda: (first / "yardstick.json").exists(), process, "the first run doesn't end")
    wait(lambda: checkpoints.find(second) is not None, process, "the second run doesn't get on")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until = time.monotonic() + 60
    while workers(folder):  # they hear that the parent is gone, save and leave
        assert time.monotonic() < wait_until, "a worker outlives its parent"
        time.sleep(0.05)
    assert not (second / "yardstick.json").exists()
    state = checkpoints.read_state(checkpoints.newest(second))["step"]
    assert 0 < state < json.loads((folder / "plan.json").read_text())["arms"][1]["steps"]
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.name not in ("config.yaml", ".lock")}
    lines = (second / "metrics.jsonl").read_text().splitlines()

    again = start(folder, *arguments, "train.steps=120")
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert "ramped against uniform:" in out
    assert "no verdict" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = [line for line in lines if json.loads(line)["step"] <= state]
    assert (second / "metrics.jsonl").read_text().splitlines()[: len(kept)] == kept
    assert json.loads((folder / "results.json").read_text())["done"] == 2


@pytest.mark.slow  # test_scores.py holds by default that fine-tuning that was cut goes on to the same bits
def test_killed_in_fine_tuning_and_taken_up_again(tmp_path: Path) -> None:
    """Killed while the second arm's encoder is fine-tuned; the same command ends as one that was never killed."""
    arguments = (
        *("--mask", "uniform", "--mask", "uniform:ratio=0.5", "--seeds", "1", "--jobs", "1", "train.steps=10"),
        *("--score", "finetune:10%", "evaluate.finetune_steps=120"),
    )
    straight, folder = tmp_path / "straight", tmp_path / "cut"
    out, err = (process := start(straight, *arguments)).communicate(timeout=240)
    assert process.returncode == 0, err
    process = start(folder, *arguments)
    tuned = folder / "runs/uniform-ratio=0.5/seed-0/finetune/labels-10-percent-steps-120"
    wait(lambda: checkpoints.find(tuned) is not None, process, "fine-tuning doesn't get on")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    limit = time.monotonic() + 60
    while workers(folder):
        assert time.monotonic() < limit, "a worker outlives its parent"
        time.sleep(0.05)
    assert not (tuned / "outcome.json").exists()
    assert 0 < checkpoints.read_state(checkpoints.newest(tuned))["step"] < 120
    again = start(folder, *arguments)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert "fine-tuned, 10%" in out
    one, other = (json.loads((of / "results.json").read_text()) for of in (straight, folder))
    for ours, theirs in zip(one["arms"], other["arms"], strict=True):
        (mine,), (its,) = ours["runs"], theirs["runs"]
        for key in ("finetune:10%", "loss@0.25", "loss@0.9"):
            assert mine["values"][key] == its["values"][key]
    assert one["untrained"] == other["untrained"]


FAKE = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
def end(*_):
    open(job["folder"] + "/saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print(json.dumps({"phase": "pretraining", "done": 0, "total": 9}), flush=True)
open(job["folder"] + "/metrics.jsonl", "w").write(json.dumps({"step": 5}) + chr(10))
if job["kind"] == "error":
    while not os.path.exists(job["folder"] + "/../a/metrics.jsonl"):  # the first one is under way
        time.sleep(0.01)
    print(json.dumps({"error": job["config"]}), flush=True)
    sys.exit(2)
if job["kind"] == "run":
    time.sleep(60)
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that need no torch: `kind` run waits to be stopped, error fails with what its config says."""
    monkeypatch.setattr(pool, "WORKER", [sys.executable, "-c", FAKE])
    monkeypatch.setattr(pool, "_LOOK", 0.02)


def job(folder: Path, does: str = "done", told: dict[str, object] | None = None) -> Job:
    return Job(does, str(folder), told or {}, "key", False, False, 1)


def test_two_at_a_time_and_a_signal_stops_both(
    fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = [pool.Task(name, job(tmp_path / name, "run")) for name in ("a", "b", "c")]
    real, seen = pool.Signals.check, [0]

    def check(self: pool.Signals) -> None:  # type: ignore[name-defined]
        """The user presses Ctrl-C once both are under way."""
        both = (tmp_path / "a/metrics.jsonl").exists() and (tmp_path / "b/metrics.jsonl").exists()
        seen[0] += both
        if seen[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        real(self)

    monkeypatch.setattr(pool.Signals, "check", check)
    with pytest.raises(Interrupted) as raised:
        pool.work(tasks, [None, None], quiet=True)
    assert raised.value.exit_code == 130
    assert (tmp_path / "a/saved").exists()
    assert (tmp_path / "b/saved").exists()
    assert not (tmp_path / "c").exists()  # never started


def test_an_error_of_a_worker_keeps_its_kind_and_names_the_run(fake: None, tmp_path: Path) -> None:
    told = error_of(ConfigError("There is no such mask.", where="mask.name", got="unifrom"))
    tasks = [
        pool.Task("uniform, seed 1", job(tmp_path / "a", "run")),
        pool.Task("ramped, seed 1", job(tmp_path / "b", "error", told)),
    ]
    with pytest.raises(ConfigError, match="no such mask") as raised:
        pool.work(tasks, [None, None], quiet=True)
    assert "mask.name, in run ramped, seed 1" in str(raised.value)
    assert (tmp_path / "a/saved").exists()


def test_a_loss_that_is_not_finite_is_told_on_and_the_rest_goes_on(fake: None, tmp_path: Path) -> None:
    told = error_of(TrainingError("The loss isn't finite.", where="step 3"))
    tasks = [
        pool.Task("good", job(tmp_path / "a")),
        pool.Task("bad", job(tmp_path / "b", "error", told)),
        pool.Task("better", job(tmp_path / "c")),
    ]
    heard: list[tuple[str, bool]] = []
    pool.work(tasks, [None], quiet=True, finished=lambda task, error: heard.append((task.name, error is not None)))
    assert heard == [("good", False), ("bad", True), ("better", False)]
    assert not (tmp_path / "a/log.txt").exists()  # nothing to say


def test_a_worker_that_dies_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("Traceback\nKeyError: 'x'\n")
    error = pool._error(pool.Task("a", job(tmp_path)), None, -9, tmp_path / "log.txt")
    assert isinstance(error, PluginError)
    assert "exit code -9: KeyError: 'x'" in str(error)


def test_devices_and_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert pool.places(None, "auto" if not torch.cuda.is_available() else "cpu") == [None]
    assert pool.places(3, "cpu") == [None] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pool.places(None, "auto") == ["0", "1"]
    assert pool.places(3, "auto") == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert pool.places(None, "cuda") == ["4", "6"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert (pool.threads(1), pool.threads(3), pool.threads(20)) == (8, 2, 1)


def test_the_last_step_is_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert pool._last_step(path) == 0
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 500)) + '{"step"')
    assert pool._last_step(path) == 499
