"""The same path through every modality: pretrain, kill, resume, reconstruct, probe, embed, on the embedded data."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskedmodel
from maskedmodel.config.load import load_config
from maskedmodel.plugins import load_registry
from maskedmodel.training import checkpoint as checkpoints
from tests.runs import ENVIRONMENT, assert_same_run, command, pretrain, wait_for

# What makes each quickstart a matter of seconds beside what tests/runs.py makes small.
SMALLER = {
    "image-quickstart": (),
    "audio-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "video-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "signals-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "timeseries-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "microscopy-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "points-quickstart": ("data.train_samples=48", "data.val_samples=24"),
    "text-quickstart": ("data.train_samples=48", "data.val_samples=24"),
}
# One modality is looked at by default. Killing and resuming is the loop's, which commands/test_commands.py tries.
SHOWN = [pytest.param(name, marks=() if name == "image-quickstart" else pytest.mark.slow) for name in SMALLER]
STEPS = ("train.steps=10", "train.checkpoint_every=3", "optim.warmup=0")


@pytest.mark.slow
@pytest.mark.parametrize("config", SMALLER)
def test_killed_resumed_and_used(config: str, tmp_path: Path) -> None:
    settings = (*STEPS, *SMALLER[config])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    pretrain(straight, *settings, config=config)
    process = pretrain(killed, *settings, wait=False, config=config)
    wait_for(killed, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert checkpoints.find(killed) is not None
    pretrain(killed, *settings, "train.workers=1", config=config)
    assert_same_run(straight, killed)

    assert Image.open(maskedmodel.reconstruct(killed, count=2)).width > 100
    result = maskedmodel.probe(killed, quiet=True)
    assert [row.name for row in result.rows][:2] == ["trained encoder", "same encoder, random weights"]
    features = np.load(maskedmodel.embed(killed, "val", to=tmp_path / "features.npz", quiet=True))
    assert features["feature"].shape[1] == 24
    assert np.isfinite(features["feature"]).all()
    assert len(np.unique(features["feature"].round(4), axis=0)) > 1
    page = (killed / "report.html").read_text()
    assert "same encoder, random weights" in page


@pytest.mark.parametrize("config", SHOWN)
def test_a_quickstart_can_be_looked_at_before_it_is_run(config: str, tmp_path: Path) -> None:
    for verb in (("preview", config, *SMALLER[config], "--out", str(tmp_path / "p.png")), ("doctor", config)):
        done = subprocess.run(command(*verb), capture_output=True, text=True, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.png").is_file()


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_valid_and_says_what_to_expect(path: Path) -> None:
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    verb = "compare" if path.stem.startswith("compare") else "pretrain"
    for said in (f"maskedmodel {verb} ", "Measured on 2026", "AMD EPYC"):
        assert said in head, f"the head of {path.name} doesn't say {said!r}"
    resolved = load_config(path, ["data.path=some/where"] if "data.path=" in head else [], registry=load_registry())
    assert resolved.train.steps > 0
