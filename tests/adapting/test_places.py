"""A class for each pixel, from masks to maps: the run, its twin, resuming, predictions, and what is refused."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskedmodel
from maskedmodel.adapting import predictions
from maskedmodel.errors import ConfigError, DataError, MaskedModelError
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.data import Reading
from maskedmodel.training.targeted import targeted

CONFIG = {
    "tokenizer": {"name": "image", "size": 16, "patch": 4, "channels": 1, "crop": [0.5, 1.0]},
    "task": {"name": "segment", "class_weights": "balanced"},
    "model": {"encoder": {"dim": 32, "depth": 2, "heads": 2}},
    "optim": {"lr": 0.01, "per_batch": None},
    "train": {
        "steps": 40,
        "batch": 8,
        "precision": "fp32",
        "device": "cpu",
        "validate_every": 20,
        "checkpoint_every": 10,
    },
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    """Bright rectangles on noise, 40 pictures of which two have no mask."""
    draw = np.random.default_rng(0)
    for number in range(40):
        top, left, tall, wide = draw.integers((1, 1, 4, 4), (8, 8, 11, 11))
        mask = np.zeros((20, 20), np.uint8)
        mask[top : top + tall, left : left + wide] = 1
        pixels = (draw.integers(0, 120, mask.shape) + 110 * mask).astype(np.uint8)
        for kind, values in (("images", pixels), ("masks", mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            if kind == "images" or number > 1:
                Image.fromarray(values).save(tmp_path / kind / f"{number:02d}.png")
    data = {
        "name": "image_folder",
        "path": str(tmp_path / "images"),
        "masks": str(tmp_path / "masks"),
        "mask_classes": ["ground", "block"],
        "mode": "grey",
        "size": None,
    }
    return {**CONFIG, "data": data}


def test_pixels_are_told_apart_and_mapped(
    config: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    found = maskedmodel.finetune(config, run=run, quiet=True)
    judged = found.adapted.judged
    assert judged.score == "mIoU"
    assert judged.best.value > 0.8
    assert judged.best.low <= judged.best.value <= judged.best.high
    assert any("Without a target, left out:" in line for line in caplog.messages)
    kept = json.loads((run / "labels.json").read_text())
    assert kept["names"] == ["ground", "block"]
    assert sum(kept["left_out"].values()) == 2
    assert sum(kept["counts"]) == found.adapted.labels * 400
    assert (run / "pictures" / "places.png").is_file()
    page = (run / "report.html").read_text()
    assert "mIoU" in page
    assert "places.png" in page

    rows = maskedmodel.predict(run, "val", to=tmp_path / "out.csv", quiet=True)
    assert rows.maps == tmp_path / "out-maps"
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,share_ground,share_block"
    maps = sorted(rows.maps.iterdir())
    assert len(maps) == len(lines) - 1 == rows.rows
    values = np.asarray(Image.open(maps[0]))
    assert values.shape == (16, 16)
    share = float(next(line for line in lines if line.startswith(maps[0].stem)).split(",")[2])
    assert (values == 1).mean() == pytest.approx(share)
    model = maskedmodel.load(run)
    assert tuple(model(torch.rand(2, 1, 16, 16)).shape) == (2, 2, 16, 16)


def test_resumed_it_comes_to_the_same_bits(config: dict[str, object], tmp_path: Path) -> None:
    short = ("train.steps=20", "train.validate_every=0")
    maskedmodel.finetune(config, run=tmp_path / "straight", overrides=short, quiet=True)
    shutil.copytree(tmp_path / "straight", tmp_path / "cut")
    for path in (tmp_path / "cut" / "checkpoints").glob("step-*20"):
        shutil.rmtree(path)
    for name in ("summary.json", "outcome.json"):
        (tmp_path / "cut" / name).unlink()
    maskedmodel.finetune(config, run=tmp_path / "cut", overrides=short, quiet=True)
    straight, cut = (checkpoints.read_model(checkpoints.newest(tmp_path / name)) for name in ("straight", "cut"))
    for name, tensor in straight.items():
        assert torch.equal(cut[name], tensor), name


def test_micro_batches_of_unevenly_many_labelled_pixels_make_the_same_step(
    config: dict[str, object], tmp_path: Path
) -> None:
    for number in range(2, 40, 3):
        path = tmp_path / "masks" / f"{number:02d}.png"
        values = np.asarray(Image.open(path)).copy()
        values[:15] = 255
        Image.fromarray(values).save(path)
    steps = []
    for accumulate in (1, 4):
        overrides = ("train.steps=2", "train.log_every=1", "data.mask_ignore=255", f"train.accumulate={accumulate}")
        run = tmp_path / f"run{accumulate}"
        maskedmodel.finetune(config, run=run, overrides=overrides, quiet=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps.append([(line["loss"], line["grad_norm"]) for line in lines if "loss" in line])
    assert len(steps[0]) == 2
    for one, other in zip(*steps, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_killed_prediction_goes_on(
    config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maskedmodel.finetune(config, run=tmp_path / "run", overrides=("train.steps=2",), quiet=True)
    monkeypatch.setattr(predictions, "PIECE", 10)
    images = tmp_path / "images"
    maskedmodel.predict(tmp_path / "run", images, to=tmp_path / "whole.csv", quiet=True)
    calls, real = [], predictions._predict

    def cut(*given: object) -> None:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(predictions, "_predict", cut)
    with pytest.raises(KeyboardInterrupt):
        maskedmodel.predict(tmp_path / "run", images, to=tmp_path / "cut.csv", quiet=True)
    done = len(calls)
    maskedmodel.predict(tmp_path / "run", images, to=tmp_path / "cut.csv", quiet=True)
    assert len(calls) - done < 4 + 1
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert len(list((tmp_path / "cut-maps").iterdir())) == 40


@pytest.mark.parametrize(
    ("override", "error", "text"),
    [
        ("adapt.mixup=0.2", ConfigError, "Neither can samples be mixed"),
        ("mask.name=uniform", ConfigError, "nor tokens hidden"),
        ("data.masks=null", DataError, "no targets"),
        ("data.mask_values=[0,255]", DataError, "no class"),
        ("data.mask_values=[1,0]", None, ""),
        ("tokenizer.patch=5", MaskedModelError, "divide"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    config: dict[str, object], tmp_path: Path, override: str, error: type[Exception] | None, text: str
) -> None:
    overrides = ("train.steps=1", override)
    if error is None:
        maskedmodel.finetune(config, run=tmp_path / "run", overrides=overrides, quiet=True)
        return
    with pytest.raises(error, match=text):
        maskedmodel.finetune(config, run=tmp_path / "run", overrides=overrides, quiet=True)


def test_one_class_alone_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    with pytest.raises(ConfigError, match="one class"):
        maskedmodel.finetune(config, run=tmp_path / "run", quiet=True)


def test_a_target_that_hangs_is_a_broken_sample_in_time() -> None:
    class Source:
        def target_names(self) -> list[str]:
            return ["ground", "block"]

        def open(self, split: str) -> Any:
            return Places()

    class Places:
        ids = ("first", "second")

        def __len__(self) -> int:
            return 2

        def targets(self, index: int) -> torch.Tensor:
            if index == 0:
                time.sleep(30)
                raise AssertionError("it was waited for")
            return torch.zeros(4, 4, dtype=torch.int64)

    source: Any = Source()
    with pytest.raises(DataError, match=r"longer than 0\.2 s"):
        targeted(source, Reading(batch=1, timeout=0.2), None, 0)
    data = targeted(source, Reading(batch=1, timeout=0.2, on_bad_sample="skip"), None, 0)
    assert list(data.train.chosen) == [1]
    assert [broken.id for broken in data.broken["train"]] == ["first"]


def test_a_mask_of_another_size_stops_the_run_or_is_left_out(config: dict[str, object], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 22), np.uint8)).save(tmp_path / "masks" / "07.png")
    with pytest.raises(DataError, match="another size"):
        maskedmodel.finetune(config, run=tmp_path / "run", quiet=True)
    skip = ("train.steps=1", "train.on_bad_sample=skip")
    maskedmodel.finetune(config, run=tmp_path / "other", overrides=skip, quiet=True)
    assert sum(json.loads((tmp_path / "other" / "labels.json").read_text())["left_out"].values()) == 2
    (broken,) = json.loads((tmp_path / "other" / "summary.json").read_text())["broken"]
    assert broken["id"] == "07.png"
    assert "another size" in broken["reason"]
