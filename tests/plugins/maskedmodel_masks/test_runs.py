"""Whole runs under schedulers that learn or measure: resumed as straight, the same on two ranks, few graphs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_masks.uniform import Ramped, Uniform
from torch._dynamo.testing import CompileCounter

from maskedmodel import MaskScheduler, Noise
from maskedmodel.config.load import load_config
from maskedmodel.plugins import load_registry
from maskedmodel.testing.fixtures import Box
from maskedmodel.training.distributed import World
from maskedmodel.training.loop import train
from maskedmodel.training.masked import MaskedModelling
from tests.plugins.maskedmodel_masks.test_learned import model_of
from tests.training.conftest import BASE, Wave, Waves, build
from tests.training.test_loop import Killed, assert_same_run, final, kill_after

MASKS: list[dict[str, Any]] = [
    {"name": "uniform", "ratio": {"shape": "random", "low": 0.3, "high": 0.7}},
    {"name": "adaptive", "ratio": 0.5, "spread": 0.25},
    {"name": "hard_patches", "ratio": 0.5, "width": 8, "heads": 1, "decay": 0.5, "decay_end": 0.9},
    {"name": "sampled", "ratio": 0.5, "width": 8, "heads": 1},
    {"name": "gated", "ratio": 0.5, "width": 8, "heads": 1},
    {"name": "curriculum", "ratio": 0.5, "width": 8, "heads": 1},
    {"name": "attention", "ratio": 0.5, "decay": 0.5, "decay_end": 0.9, "hint": 0.3},
    {
        "name": "choose",
        "parts": [
            {"of": {"name": "sampled", "ratio": 0.5, "width": 8, "heads": 1}, "weight": {"start": 1, "end": 0.3}},
            {"of": {"name": "attention", "ratio": 0.4, "decay": 0.5, "decay_end": 0.9}},
            {"of": {"name": "invert", "of": {"name": "gated", "width": 8, "heads": 1}, "ratio": 0.5}},
        ],
    },
    {
        "name": "sum",
        "ratio": 0.5,
        "parts": [
            {"of": {"name": "sampled", "width": 8, "heads": 1}, "weight": {"start": 0, "end": 1}},
            {"of": {"name": "adaptive", "spread": 0.1}},
        ],
    },
]


def go(folder: Path, mask: dict[str, Any], *overrides: str, world: World | None = None) -> None:
    """A run of 14 steps on toy waves."""
    built_in = load_registry(strict=True)
    registry = replace(
        built_in,
        tokenizers={**built_in.tokenizers, "wave": Wave},
        data_sources={**built_in.data_sources, "waves": Waves},
    )
    config = load_config({**BASE, "mask": mask}, overrides, registry=registry)
    folder.mkdir(parents=True, exist_ok=True)
    model, source = build(config, registry)
    learning = MaskedModelling(model, config.train)
    train(config, folder, learning, source, world or World(0, 1, torch.device("cpu")), quiet=True)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask["name"])
def test_straight_run_equals_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: dict[str, Any]
) -> None:
    go(tmp_path / "straight", mask)
    with monkeypatch.context() as patch:
        kill_after(patch, 9)  # a checkpoint stands at step 8
        with pytest.raises(Killed):
            go(tmp_path / "cut", mask)
    go(tmp_path / "cut", mask, "train.workers=2")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def losses(folder: Path) -> list[float]:
    """Training and validation losses in the order of the run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if "loss" in key]


def assert_alike(one: Path, other: Path) -> None:
    """The same losses, to rounding. Weights may differ: where a gradient is zero but for rounding, as that of the bias
    of keys, AdamW takes rounding for a direction.
    """
    assert losses(one) == pytest.approx(losses(other), rel=1e-3)
    ours, theirs = final(one), final(other)
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask["name"])
def test_two_micro_batches_train_as_one(tmp_path: Path, mask: dict[str, Any]) -> None:
    for accumulate in (1, 2):
        go(tmp_path / str(accumulate), mask, f"train.accumulate={accumulate}", "train.steps=6")
    assert_alike(tmp_path / "1", tmp_path / "2")


RANKS = """
import sys, json
from pathlib import Path
from tests.plugins.maskedmodel_masks.test_runs import MASKS, go
from maskedmodel.training.distributed import join
with join("cpu") as world:
    for mask in MASKS:
        go(Path(sys.argv[1]) / mask["name"], mask, "train.steps=6", world=world)
"""


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    for mask in MASKS:
        go(tmp_path / "1" / mask["name"], mask, "train.steps=6")
    root = Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "plugins")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    (tmp_path / "ranks.py").write_text(RANKS)
    subprocess.run([*command, tmp_path / "ranks.py", tmp_path / "2"], env=environment, cwd=root, check=True)
    for mask in MASKS:
        assert_alike(tmp_path / "1" / mask["name"], tmp_path / "2" / mask["name"])


@pytest.mark.parametrize(
    ("scheduler", "most"),
    [
        (Uniform(), 1),
        (Ramped(start=0.3, end=0.7, levels=4), 3),
        (Uniform(ratio={"shape": "random", "low": 0.3, "high": 0.7, "levels": 4}), 3),
    ],
)
def test_a_ramp_compiles_few_graphs(scheduler: MaskScheduler[Any], most: int) -> None:
    """One for the first count, one with dynamic shapes at the second, and at most one more; never one for each step."""
    torch._dynamo.reset()
    model, counter = model_of(scheduler), CompileCounter()
    model.encoder.compile(backend=counter)
    tokens = Box().tokenize(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    for step in range(24):
        mask = model.scheduler.sample(tokens, step / 23, Noise.of(range(4), epoch=step))
        model(tokens, mask).loss.backward()
    torch._dynamo.reset()
    assert 1 <= counter.frame_count <= most
