"""What every fine-tuning promises, held for tasks with targets, too: kill and resume, the twin, bf16, torch.compile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import maskedmodel
from maskedmodel.evaluation.judged import TWIN
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.tracking import read_lines
from tests.runs import assert_same_run
from tests.training.test_loop import Killed, kill_after

TRAIN = {"steps": 6, "batch": 8, "precision": "fp32", "device": "cpu", "log_every": 1, "validate_every": 3,
         "checkpoint_every": 2}  # fmt: skip
ENCODER = {"dim": 16, "depth": 2, "heads": 2}
DECODER = {"dim": 16, "depth": 1, "heads": 2}
COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")


def segment(folder: Path) -> dict[str, Any]:
    """Bright rectangles on noise, and where they are."""
    draw = np.random.default_rng(0)
    for number in range(40):
        top, left, tall, wide = draw.integers((1, 1, 4, 4), (8, 8, 11, 11))
        mask = np.zeros((20, 20), np.uint8)
        mask[top : top + tall, left : left + wide] = 1
        pixels = (draw.integers(0, 120, mask.shape) + 110 * mask).astype(np.uint8)
        for kind, values in (("images", pixels), ("masks", mask)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{number:02d}.png")
    data = {"name": "image_folder", "path": str(folder / "images"), "mode": "grey", "size": None}
    return {
        "data": {**data, "masks": str(folder / "masks"), "mask_classes": ["ground", "block"]},
        "tokenizer": {"name": "image", "size": 16, "patch": 4, "channels": 1, "crop": [0.5, 1.0]},
        "task": {"name": "segment"},
    }


def forecast(folder: Path) -> dict[str, Any]:
    time = np.arange(300)
    noise = np.random.default_rng(0).normal(size=300)
    frame = {"date": pd.date_range("2020-01-01", periods=300, freq="h"), "load": 5 * np.sin(time / 4) + noise}
    pd.DataFrame(frame).to_csv(folder / "table.csv", index=False)
    return {
        "data": {
            **{"name": "csv", "path": str(folder / "table.csv"), "window": 30, "horizon": 6, "reach": 24},
            "split": {"train": 200, "val": 60, "test": 40},
        },
        "tokenizer": {"name": "series", "length": 24, "patch": 6},
        "task": {"name": "forecast"},
    }


def classify(folder: Path) -> dict[str, Any]:
    return {
        "data": {"name": "digits"},
        "tokenizer": {"name": "image", "size": 16, "patch": 4, "channels": 1},
        "task": {"name": "classify"},
    }


KINDS = {"segment": segment, "forecast": forecast, "classify": classify}
HIDDEN = ("horizon", "masks", "mask_classes")  # what pretraining has no use for


@pytest.fixture
def given(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The config of fine-tuning a little pretrained run, by the task that a test is about."""
    made = KINDS[request.param](tmp_path)
    data = {key: value for key, value in made["data"].items() if key not in HIDDEN}
    pretrained = {
        "data": {**data, "window": 24} if "window" in data else data,
        "tokenizer": made["tokenizer"],
        "model": {"encoder": ENCODER, "decoder": DECODER},
        "train": {**TRAIN, "steps": 2, "seed": 5},
        "evaluate": {"probe": False, "pictures": 0},
    }
    maskedmodel.pretrain(pretrained, run=tmp_path / "pretrained", quiet=True)
    return {
        **made,
        "model": {"encoder": ENCODER},
        "start": {"weights": str(tmp_path / "pretrained")},
        "optim": {"lr": 0.01, "per_batch": None},
        "train": TRAIN,
    }


both = pytest.mark.parametrize("given", ["segment", "forecast"], indirect=True)
every = pytest.mark.parametrize("given", list(KINDS), indirect=True)


@both
def test_killed_in_the_run_and_in_its_twin_both_come_to_the_same_bits(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    maskedmodel.finetune(given, run=straight, quiet=True)
    for steps, unfinished in ((3, cut), (3 + 4, cut / TWIN)):  # of the second call four are left, then come the twin's
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(Killed):
                maskedmodel.finetune(given, run=cut, quiet=True)
        assert not (unfinished / "outcome.json").exists()
        assert list((unfinished / "checkpoints").glob("step-*"))
    assert (cut / "outcome.json").exists()
    found: Any = maskedmodel.finetune(given, run=cut, quiet=True)
    for one, other in ((straight, cut), (straight / TWIN, cut / TWIN)):
        assert_same_run(one, other)
        assert json.loads((one / "outcome.json").read_text()) == json.loads((other / "outcome.json").read_text())
    assert found.twin.judged.loss != found.adapted.judged.loss
    assert "from scratch" in (cut / "report.html").read_text()


@both
def test_the_twin_has_the_same_data_and_steps_and_weights_of_its_own(given: dict[str, Any], tmp_path: Path) -> None:
    found: Any = maskedmodel.finetune(given, run=tmp_path / "run", quiet=True)
    assert found.twin.labels == found.adapted.labels
    assert found.twin.judged.samples == found.adapted.judged.samples
    assert found.twin.training.steps == found.adapted.training.steps == 6
    start, ours, theirs = (
        checkpoints.read_model(checkpoints.newest(tmp_path / name)) for name in ("pretrained", "run", f"run/{TWIN}")
    )
    name = "encoder.blocks.0.mlp.fc1.weight"
    assert float((ours[name] - start[name]).abs().max()) < 0.2 * float((theirs[name] - start[name]).abs().max())


def losses(folder: Path) -> torch.Tensor:
    return torch.tensor([line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line])


@every
def test_in_bf16_losses_are_finite_and_near(given: dict[str, Any], tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        told = [f"train.precision={precision}"]
        maskedmodel.finetune(given, run=tmp_path / precision, overrides=told, twin=False, quiet=True)
    one, other = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert len(one) == len(other) == 6
    assert not torch.equal(one, other)  # it was bf16
    torch.testing.assert_close(other, one, rtol=0.05, atol=0.02)


SLOWLY = [pytest.mark.slow, COMPILER]


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ("segment", "aot_eager"),
        *(pytest.param(name, "inductor", marks=SLOWLY) for name in KINDS),
    ],
    indirect=["given"],
)
def test_compiled_it_learns_what_it_does_eagerly(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """The graphs of forward and backward, run as they are; and, which takes minutes, as compiled code."""
    compiled, real = [], torch.nn.Module.compile

    def noted(module: torch.nn.Module) -> None:
        compiled.append(type(module).__name__)
        real(module, backend=backend)

    monkeypatch.setattr(torch.nn.Module, "compile", noted)
    for name, extra in (("eager", []), ("compiled", ["train.compile=true"])):
        assert compiled == []
        overrides = ["train.steps=3", *extra]
        maskedmodel.finetune(given, run=tmp_path / name, overrides=overrides, twin=False, quiet=True)
    assert compiled == ["Encoder"]
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "eager"), rtol=1e-4, atol=1e-5)
    ours, theirs = (checkpoints.read_model(checkpoints.newest(tmp_path / name)) for name in ("eager", "compiled"))
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {name for name in ours if name.endswith("qkv.bias")}:  # a key's bias has no gradient
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-3, msg=name)
