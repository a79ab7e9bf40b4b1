"""Ranks in processes of their own: a run that goes on with another number of them, and one that loses one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from maskedmodel.training import checkpoint as checkpoints
from tests.runs import ENVIRONMENT, SMALL, command, on_two_ranks, pretrain, wait_for

SETTINGS = ("train.steps=6", "train.checkpoint_every=3")


def on_one(run: Path, *overrides: str) -> None:
    pretrain(run, *overrides)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, straight to its end."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    on_one(folder, *SETTINGS)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on two ranks."""
    folder = tmp_path_factory.mktemp("together") / "run"
    on_two_ranks(folder, *SETTINGS)
    return folder


def assert_near(run: Path, straight: Path) -> None:
    """Every line of metrics, and every weight but those that rounding alone moves: a key's bias has no gradient."""
    ours, theirs = (
        [json.loads(line) for line in (of / "metrics.jsonl").read_text().splitlines()] for of in (run, straight)
    )
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    one, other = (checkpoints.read_model(checkpoints.newest(of)) for of in (run, straight))
    assert one.keys() == other.keys()
    for name in one.keys() - {name for name in one if name.endswith("qkv.bias")}:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["one rank", "two ranks"])
def test_a_run_goes_on_with_another_number_of_ranks(first: str, alone: Path, together: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(alone if first == "one rank" else together, run)
    shutil.rmtree(checkpoints.newest(run))  # as if it had been killed at step 3
    assert checkpoints.read_state(checkpoints.newest(run))["step"] == 3
    (on_two_ranks if first == "one rank" else on_one)(run, *SETTINGS)
    assert checkpoints.read_state(checkpoints.newest(run))["step"] == 6
    assert_near(run, alone)
    assert_near(run, together)


def test_a_callback_stops_two_ranks_together_and_where_it_stops_one(tmp_path: Path) -> None:
    patience = (
        "train.steps=40",
        "train.validate_every=2",
        "train.checkpoint_every=3",
        "callbacks.early_stopping.patience=2",
        "callbacks.early_stopping.min_delta=50",
    )
    one, two = tmp_path / "one", tmp_path / "two"
    shown = pretrain(one, *patience).shown  # type: ignore[attr-defined]
    assert "stopped early           at step 4 of 40 by early_stopping: val_loss was not lower" in shown
    on_two_ranks(two, *patience)
    stops = [json.loads((run / "stopped.json").read_text()) for run in (one, two)]
    assert [(stop["step"], stop["by"]) for stop in stops] == [(4, "early_stopping")] * 2
    assert [checkpoints.read_state(checkpoints.newest(run))["step"] for run in (one, two)] == [4, 4]
    assert json.loads((two / "summary.json").read_text())["stopped"]["step"] == 4
    assert "Stopped at step 4 of 40 by early_stopping" in (two / "report.html").read_text()
    assert_near(two, one)
    before = (two / "metrics.jsonl").read_bytes()
    on_two_ranks(two, *patience)  # which says so again, and trains nothing
    assert (two / "metrics.jsonl").read_bytes() == before


def test_when_a_rank_dies_the_others_end_with_an_error(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            command("pretrain", "image-quickstart", "--run", str(run), *SMALL, "train.steps=100000",
                    "train.checkpoint_every=5"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    wait_for(run, 12, ranks[0])
    os.kill(ranks[1].pid, signal.SIGKILL)
    _, err = ranks[0].communicate(timeout=60)
    ranks[1].communicate()
    assert ranks[0].returncode == 2, err
    assert "Another rank of the run has gone" in err
    assert "Traceback" not in err
    assert checkpoints.read_state(checkpoints.newest(run))["step"] >= 5


# What the first rank does alone, drawn out beyond the limit that the others have for each other.
PATIENCE = """
import sys, time
from contextlib import contextmanager
from datetime import timedelta
from torch.distributed.distributed_c10d import _set_pg_timeout
from maskedmodel.cli.app import run_cli
from maskedmodel.commands import train
from maskedmodel.training import checkpoint, masked, state

join, limit, alone = train.join, 5, 11

@contextmanager
def impatient(*given):
    with join(*given) as world:
        _set_pg_timeout(timedelta(seconds=limit))
        yield world

def slow(place, name):
    real = getattr(place, name)
    def called(*given, **named):
        time.sleep(alone)
        return real(*given, **named)
    setattr(place, name, called)

train.join = impatient
slow({place}, {name!r})
sys.exit(run_cli(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param("masked", "validation_loss", id="validation", marks=pytest.mark.slow),
        pytest.param("train", "settle", id="start", marks=pytest.mark.slow),
        pytest.param("state.checkpoints", "rehearse", id="rehearsal", marks=pytest.mark.slow),
        pytest.param("state.checkpoints", "save", id="save", marks=pytest.mark.slow),
    ],
)
def test_the_others_wait_without_a_limit_while_the_first_rank_works_alone(
    place: str, name: str, alone: Path, tmp_path: Path
) -> None:
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(PATIENCE.format(place=place, name=name))
    on_two_ranks(run, *SETTINGS, script=script)
    assert checkpoints.read_state(checkpoints.newest(run))["step"] == 6
    assert_near(run, alone)


@pytest.mark.slow
def test_looks_while_two_ranks_train_change_no_bit_and_are_written_once(together: Path, tmp_path: Path) -> None:
    """The first rank looks alone, while the other waits: no weight, no state and no other line of metrics differs."""
    run = tmp_path / "run"
    on_two_ranks(run, *SETTINGS, "evaluate.every=2", "evaluate.every_samples=40")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    looks = [line for line in lines if "rankme" in line]
    assert [json.loads(line)["step"] for line in looks] == [0, 2, 4, 6]
    assert all({"knn", "linear", "loss@0.9"} <= json.loads(line).keys() for line in looks)
    assert [line for line in lines if line not in looks] == (together / "metrics.jsonl").read_text().splitlines()
    for name in ("model.safetensors", "optimizer.safetensors"):
        with_looks, without = (checkpoints.newest(of) / name for of in (run, together))
        assert with_looks.read_bytes() == without.read_bytes(), name


@pytest.mark.slow
def test_a_run_that_has_ended_ends_again_on_two_ranks(together: Path, tmp_path: Path) -> None:
    """The first rank alone has read that the last validation is done; the other one must not wait for it."""
    run = tmp_path / "run"
    shutil.copytree(together, run)
    on_two_ranks(run, *SETTINGS)
    assert (run / "metrics.jsonl").read_bytes() == (together / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_killed_just_after_a_validation_goes_on_with_two_ranks(tmp_path: Path) -> None:
    settings = (*SETTINGS, "train.validate_every=3")
    straight, run = tmp_path / "straight", tmp_path / "run"
    on_one(straight, *settings)
    shutil.copytree(straight, run)
    shutil.rmtree(checkpoints.newest(run))  # the newest one left is of step 3, whose validation is done
    on_two_ranks(run, *settings)
    assert_near(run, straight)


@pytest.mark.slow
def test_two_ranks_with_a_teacher_equal_one_process(tmp_path: Path) -> None:
    settings = ("train.steps=4", "objective.name=latent")
    on_one(tmp_path / "one", *settings)
    on_two_ranks(tmp_path / "two", *settings)
    assert_near(tmp_path / "two", tmp_path / "one")
