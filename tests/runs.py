"""Whole runs in processes of their own: what tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from maskedmodel.training import checkpoint as checkpoints

# A quickstart of some seconds: the real data, a smaller model.
SMALL = (
    "train.batch=16",
    "train.log_every=1",
    "train.precision=fp32",
    "train.device=cpu",
    "train.validation_samples=32",
    "model.encoder.dim=24",
    "model.encoder.depth=1",
    "model.decoder.dim=16",
    "model.decoder.depth=1",
    "evaluate.probe=false",
    "evaluate.pictures=2",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASKEDMODEL_PLUGINS": "", "COLUMNS": "200"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "maskedmodel", *arguments]


def pretrain(run: Path, *overrides: str, wait: bool = True, config: str = "image-quickstart") -> subprocess.Popen[str]:
    """A small run of a config that ships; without `wait` it goes on by itself, in a process group of its own."""
    process = subprocess.Popen(
        command("pretrain", config, "--run", str(run), *SMALL, *overrides),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    if wait:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        process.shown = out  # type: ignore[attr-defined]
    return process


def on_two_ranks(run: Path, *overrides: str, script: Path | None = None) -> None:
    """The quickstart as `pretrain` makes it, by two processes under torchrun; a script may stand for the command."""
    what = ["-m", "maskedmodel", "--"] if script is None else ["--", str(script)]
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *what,
         "pretrain", "--run", str(run), *SMALL, *overrides],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=240,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(run: Path, lines: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while steps_done(run) < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, "the run doesn't get on"
        time.sleep(0.02)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    last = checkpoints.newest(run)
    found = {**load_file(last / "model.safetensors"), **load_file(last / "optimizer.safetensors")}
    return {name: tensor.clone() for name, tensor in found.items()}  # what is loaded maps the file, which tests damage


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
