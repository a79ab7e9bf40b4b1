from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskedmodel.errors import DataError
from maskedmodel.report import reader as module
from maskedmodel.report.reader import read


def noise_picture(path: Path, side: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_whole_run(run: Path) -> None:
    data = read(run)
    assert (data.step, data.steps, data.baseline) == (100, 100, 0.75)
    assert len(data.training) == len(data.timings) == 10
    assert [line["val_loss"] for line in data.validation] == [1.4, 0.1875]
    assert data.probe is not None
    assert data.broken == [("train/7", "It is truncated.")]
    assert [(p.name, p.kind, p.about) for p in data.pictures] == [
        ("oracle.png", "png", "oracle - uses hidden statistics")
    ]
    assert data.unreadable == []


def test_a_run_that_just_began(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {steps: 5}\n")
    data = read(tmp_path)
    assert (data.step, data.steps, data.probe, data.pictures, data.unreadable) == (0, 5, None, [], [])


def test_a_line_that_is_still_being_written_is_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "lo')
    assert read(run).step == 100


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("probe.json", '{"rows": [{"name": 1}]}'),
        ("probe.json", "not json"),
        ("environment.json", "[1]"),
        ("summary.json", "\udcff"),
        ("timings.jsonl", '{"samples_per_second": 1}\n'),
        ("timings.jsonl", "[1]\n"),
        ("config.yaml", "a: [1"),
        ("pictures/oracle.png", "no picture"),
        ("checkpoints/step-00000100/state.json", '{"broken": [1]}'),
    ],
)
def test_a_damaged_part_is_named_and_the_rest_is_read(run: Path, name: str, content: str) -> None:
    (run / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    data = read(run)
    (note,) = data.unreadable
    assert name in note
    assert len(data.training) == 10


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the folder of a run"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "none")


def test_large_pictures_shrink_and_the_newest_have_room(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PLAIN", 5_000)
    monkeypatch.setattr(module, "_MOST", 9_000)
    monkeypatch.setattr(module, "_ROOM", 9_000)
    (run / "pictures" / "oracle.png").unlink()
    for age, name in enumerate(["new", "middle", "old"]):
        os.utime(noise_picture(run / "pictures" / f"{name}.png", 200, age), (1000 - age, 1000 - age))
    pictures = read(run).pictures
    assert [(p.name, p.kind, p.data is None) for p in pictures] == [
        ("new.png", "jpeg", False),
        ("middle.png", "jpeg", True),
        ("old.png", "jpeg", True),
    ]
    assert pictures[0].data is not None
    assert 1_000 < len(pictures[0].data) <= 9_000


def test_a_baseline_that_is_no_number_is_none(run: Path) -> None:
    (run / "summary.json").write_text(json.dumps({"baseline": None}))
    assert read(run).baseline is None
