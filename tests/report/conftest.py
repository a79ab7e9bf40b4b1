"""A run folder such as training leaves behind, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CONFIG = "data:\n  name: digits\ntrain:\n  steps: 100\n"


def accuracy(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "count": 360}


def probe(**values: Any) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "width": 96,
            "knn": accuracy(level),
            "linear": {"accuracy": accuracy(level + 0.02), "c": 0.1, "converged": True},
        }
        for name, level in (("trained encoder", 0.93), ("same encoder, random weights", 0.67), ("raw values", 0.95))
    ]
    return {"rows": rows, "protocol": "Feature: mean over the tokens.", "notes": [], **values}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "image-quickstart"
    checkpoint = folder / "checkpoints" / "step-00000100"
    checkpoint.mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    training = [
        {"step": s, "epoch": 0, "loss": 1 / s, "lr": 1e-4, "ratio": 0.75, "grad_norm": 0.5, "scored": 48}
        for s in range(10, 101, 10)
    ]
    write_lines(folder / "metrics.jsonl", [{"step": 0, "val_loss": 1.4}, *training, {"step": 100, "val_loss": 0.1875}])
    timing = {"samples_per_second": 812.0, "data_wait": 0.25, "memory_mb": 300}
    write_lines(folder / "timings.jsonl", [{"step": s, **timing} for s in range(10, 101, 10)])
    (folder / "environment.json").write_text(json.dumps({"torch": "2.13.0", "device": "cpu"}))
    (folder / "summary.json").write_text(json.dumps({"baseline": 0.75}))
    (folder / "probe.json").write_text(json.dumps(probe()))
    (checkpoint / "state.json").write_text(
        json.dumps({"format": 1, "step": 100, "broken": [{"id": "train/7", "reason": "It is truncated."}]})
    )
    info = PngInfo()
    info.add_itxt("mode", "oracle - uses hidden statistics")
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "oracle.png", pnginfo=info)
    return folder
