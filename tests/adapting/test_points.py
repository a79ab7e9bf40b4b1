"""Keypoints from a table to coordinates: the run, its twin, kill and resume, predictions, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_image.keypoints import Boxes
from PIL import Image

import maskedmodel
from maskedmodel.errors import ConfigError, DataError
from tests.runs import assert_same_run
from tests.training.test_loop import Killed, kill_after

NAMES = ("left_spot", "right_spot", "cross")
FIELDS = ["file_name", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]


def draw(path: Path, seed: int) -> dict[str, float | str]:
    """A bright spot left of another one, on noise, and a dark cross below; pictures of two sizes. Where they are."""
    draws = np.random.default_rng(seed)
    scale = 1 + seed % 2  # half of them twice as large
    pixels = draws.integers(60, 110, (32, 40)).astype(np.uint8)
    left, right = int(draws.integers(5, 14)), int(draws.integers(22, 33))
    rows = draws.integers(3, 14, 2)
    cross = int(draws.integers(20, 28)), int(draws.integers(8, 31))
    for row, column in zip(rows, (left, right), strict=True):
        pixels[row - 1 : row + 2, column - 1 : column + 2] = 255
    pixels[cross[0] - 2 : cross[0] + 3, cross[1]] = 0
    pixels[cross[0], cross[1] - 2 : cross[1] + 3] = 0
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(path)
    places = ((left, rows[0]), (right, rows[1]), cross[::-1])
    points = {f"{name}_{axis}": scale * (float(value) + 0.5) for name, at in zip(NAMES, places, strict=True)
              for axis, value in zip("xy", at, strict=True)}  # fmt: skip
    return {"file_name": path.name, **points}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """80 pictures; of the third the cross isn't known, of the fourth and fifth no point is."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = [draw(folder / f"{number:02d}.png", number) for number in range(80)]
    rows[2] |= {"cross_x": "", "cross_y": ""}
    rows[3:5] = [{"file_name": row["file_name"]} for row in rows[3:5]]
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return {
        "data": {"name": "image_folder", "path": str(folder), "mode": "grey", "size": 32, "points": list(NAMES)},
        "tokenizer": {"name": "image", "size": 32, "patch": 8, "channels": 1, "crop": [0.6, 1.0]},
        "task": {"name": "points"},
        "model": {"encoder": {"dim": 48, "depth": 2, "heads": 2}},
        "optim": {"lr": 0.006, "per_batch": None},
        "train": {
            "steps": 6,
            "batch": 16,
            "precision": "fp32",
            "device": "cpu",
            "log_every": 1,
            "validate_every": 0,
            "checkpoint_every": 2,
        },
    }


def test_points_are_found_and_written_in_pixels_of_their_files(
    config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    found: Any = maskedmodel.finetune(config, run=run, overrides=["train.steps=150"], quiet=True)
    judged = found.adapted.judged
    assert judged.score == "PCK@0.1"
    assert judged.best.value > 0.8
    assert judged.metrics["distance"].value < 2.5
    assert any("Without a target, left out:" in line for line in caplog.messages)
    assert any("left_spot and right_spot, by their names" in line for line in caplog.messages)
    kept = json.loads((run / "labels.json").read_text())
    assert kept["names"] == list(NAMES)
    assert sum(kept["left_out"].values()) == 2
    assert kept["shape"] == [3, 3]
    assert "PCK@0.1" in (run / "report.html").read_text()

    other = tmp_path / "new"
    other.mkdir()
    truth = [draw(other / f"{seed}.png", seed) for seed in range(200, 212)]
    written = maskedmodel.predict(run, other, to=tmp_path / "out.csv", quiet=True)
    assert written.rows == 12
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(next(iter(rows.values()))) == [
        "id", *(f"{name}_{what}" for name in NAMES for what in ("x", "y", "score"))
    ]  # fmt: skip
    near = []
    for said in truth:
        scale = 2 if int(str(said["file_name"]).split(".")[0]) % 2 else 1
        row = rows[str(said["file_name"])]
        for name in NAMES:
            away = [float(row[f"{name}_{axis}"]) - float(said[f"{name}_{axis}"]) for axis in "xy"]
            near.append(math.hypot(*away) / scale < 3)
    assert np.mean(near) > 0.7
    alone = maskedmodel.predict(run, other / "201.png", to=tmp_path / "one.csv", quiet=True)
    assert alone.rows == 1
    with (tmp_path / "one.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for name in FIELDS[1:]:
        assert float(row[name]) == pytest.approx(float(rows["201.png"][name]), abs=1e-3)


def test_where_in_its_file_an_image_lies_is_asked_by_points_alone(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = Boxes.__call__

    def noted(boxes: Boxes, index: int) -> torch.Tensor:
        asked.append(index)
        return real(boxes, index)

    monkeypatch.setattr(Boxes, "__call__", noted)
    maskedmodel.finetune(config, run=tmp_path / "points", overrides=["train.steps=1"], quiet=True)
    assert not asked
    rows = maskedmodel.predict(tmp_path / "points", "val", to=tmp_path / "points.csv", quiet=True).rows
    assert len(asked) == rows > 0
    asked.clear()
    for number in range(80):
        place = tmp_path / "classes" / str(number % 2) / f"{number:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((tmp_path / "images" / place.name).read_bytes())
    data = {"name": "image_folder", "path": str(tmp_path / "classes"), "mode": "grey", "size": 32}
    classes = {**config, "data": data, "task": {"name": "classify"}}
    maskedmodel.finetune(classes, run=tmp_path / "classify", overrides=["train.steps=1"], quiet=True)
    maskedmodel.predict(tmp_path / "classify", "val", to=tmp_path / "classes.csv", quiet=True)
    assert not asked


def test_killed_and_resumed_it_comes_to_the_same_bits(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maskedmodel.finetune(config, run=tmp_path / "straight", quiet=True)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            maskedmodel.finetune(config, run=tmp_path / "cut", quiet=True)
    maskedmodel.finetune(config, run=tmp_path / "cut", quiet=True)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_micro_batches_of_unevenly_many_points_make_the_same_step(config: dict[str, Any], tmp_path: Path) -> None:
    steps = []
    for accumulate in (1, 4):
        run = tmp_path / f"run{accumulate}"
        overrides = ["train.steps=2", f"train.accumulate={accumulate}"]
        maskedmodel.finetune(config, run=run, overrides=overrides, quiet=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps.append([(line["loss"], line["grad_norm"]) for line in lines if "loss" in line])
    for one, other in zip(*steps, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        (["data.points=[]"], DataError, "no targets"),
        (["data.points=[nose,cross]"], DataError, "Nothing says the keypoint 'nose_x'"),
        (["data.points=[cross]"], ConfigError, "single point has no box"),
        (["task.name=segment"], ConfigError, "points or values to learn"),
        (["task.name=forecast"], ConfigError, "nothing to forecast"),
        (["adapt.mixup=0.2"], ConfigError, "Neither can samples be mixed"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    config: dict[str, Any], tmp_path: Path, overrides: list[str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        maskedmodel.finetune(config, run=tmp_path / "run", overrides=overrides, quiet=True)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))
