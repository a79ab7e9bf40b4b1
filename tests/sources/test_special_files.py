"""A named pipe in place of any file that is read: refused in words, and never waited for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import maskedmodel
from maskedmodel.errors import CheckpointError, DataError
from maskedmodel.limits import time_limit
from maskedmodel.plugins import load_registry

SOURCES = load_registry().data_sources
SUFFIXES = {
    "image_folder": ".png",
    "tiff_folder": ".tif",
    "audio_folder": ".wav",
    "video_folder": ".mp4",
    "parquet": ".parquet",
}
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    with time_limit(10):
        yield


def a_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_pipe_given_as_a_file_is_refused(name: str, tmp_path: Path) -> None:
    settings = SOURCES[name].settings_class.model_validate({"name": name, "path": str(tmp_path)})
    path = a_pipe(tmp_path / f"pipe{SUFFIXES[name]}")
    with pytest.raises(DataError, match="can't be read"):
        SOURCES[name](settings).read(path)


def test_a_pipe_among_the_frames_of_a_video_is_refused(tmp_path: Path) -> None:
    settings = SOURCES["video_folder"].settings_class.model_validate({"name": "video_folder", "path": str(tmp_path)})
    a_pipe(tmp_path / "0.png")
    with pytest.raises(DataError, match="named pipe"):
        SOURCES["video_folder"](settings).read(tmp_path)


@pytest.mark.parametrize("name", ["csv", "csv.gz", "parquet"])
def test_a_pipe_given_as_a_table_is_refused(name: str, tmp_path: Path) -> None:
    from maskedmodel_timeseries.tables import read_table

    with pytest.raises(DataError, match="can't be read"):
        read_table(a_pipe(tmp_path / f"table.{name}"))


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".pth"])
def test_a_pipe_given_as_weights_is_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be read"):
        maskedmodel.read_weights(a_pipe(tmp_path / f"pipe{suffix}"))
