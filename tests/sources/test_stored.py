"""Data that is decoded when it is opened: a sample that takes too long is broken, and the others are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from maskedmodel.errors import DataError
from maskedmodel.plugins import load_registry


def pictures(folder: Path) -> dict[str, Any]:
    for number in range(6):
        path = folder / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(path)
    return {"path": str(folder), "size": 8, "val_share": 0.34}


def sounds(folder: Path) -> dict[str, Any]:
    for number in range(6):
        path = folder / f"{'ab'[number % 2]}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, number / 10), 8000)
    return {"path": str(folder), "sample_rate": 8000, "val_share": 0.34}


def films(folder: Path) -> dict[str, Any]:
    for number in range(6):
        for frame in range(4):
            path = folder / f"{'ab'[number % 2]}/clip{number}/{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 40 * number + frame, np.uint8)).save(path)
    return {"path": str(folder), "frames": 4, "stride": 1, "size": 8, "val_share": 0.34}


KINDS: dict[str, tuple[str, Callable[[Path], dict[str, Any]], str, dict[str, Any]]] = {
    "images in memory": ("image_folder", pictures, "maskedmodel_image.dataset.decode", {"memory": True}),
    "images in a cache": ("image_folder", pictures, "maskedmodel_image.dataset.decode", {"cache": "cache"}),
    "sounds": ("audio_folder", sounds, "maskedmodel_audio.folder.read_sound", {"memory": "float32"}),
    "films": ("video_folder", films, "maskedmodel_video.frames.read_frames", {"memory": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_takes_too_long_is_broken(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make, target, how = KINDS[kind]
    if "cache" in how:
        how = {"cache": str(tmp_path / "cache")}
    settings = {**make(tmp_path / "data"), **how}
    module, _, function = target.rpartition(".")
    real = getattr(__import__(module, fromlist=[function]), function)
    calls = []

    def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(30)
        return real(*arguments, **options)

    monkeypatch.setattr(target, slow)
    source = load_registry().get("data_source", name)(**settings)
    source.read_timeout = 0.5
    opened = source.open("train")
    found: list[Any] = []
    for index in range(len(opened)):
        try:
            found.append(opened[index]["signal"])
        except DataError as error:
            found.append(error)
    broken = [one for one in found if isinstance(one, DataError)]
    assert len(found) > 2
    assert len(broken) == 1
    assert "longer than 0.5 s" in str(broken[0])
