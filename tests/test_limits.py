"""How long a read may take: of a sample by whoever reads it, of single bytes and names everywhere else."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskedmodel import limits
from maskedmodel.config.build import own_source
from maskedmodel.config.load import load_config
from maskedmodel.errors import DataError
from maskedmodel.limits import LimitedFile, TooLong, limit_single_reads, single_read, time_limit
from maskedmodel.plugins import load_registry
from maskedmodel.sources import folders


@pytest.fixture(autouse=True)
def short() -> Iterator[None]:
    before = limits._State.seconds
    limit_single_reads(0.3)
    yield
    limit_single_reads(before)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert not limits._State.held


@pytest.fixture
def silent() -> Iterator[int]:
    """A file from which nothing ever comes, as from a disk that is gone: a read of it waits in the system."""
    read, write = os.pipe()
    yield read
    os.close(write)


@pytest.mark.parametrize("read", [lambda file: file.read(), lambda file: file.read(10), lambda file: file.readline()])
def test_a_read_that_waits_for_ever_ends(silent: int, read: Callable[[Any], object]) -> None:
    said = r"longer than 0\.3 s(.|\n)*the disk(.|\n)*train\.data_timeout"
    with io.BufferedReader(LimitedFile(silent, "the disk")) as file, pytest.raises(DataError, match=said):
        read(file)


def test_whoever_reads_a_sample_decides(silent: int) -> None:
    limit_single_reads(0.05)
    begun = time.monotonic()
    file = io.BufferedReader(LimitedFile(silent, "the disk"))
    with file, pytest.raises(TooLong, match="readinto"), time_limit(0.4):
        file.read(1)
    assert time.monotonic() - begun > 0.35


def test_no_limit_means_none_within_it(silent: int) -> None:
    limit_single_reads(0.05)
    woken = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, lambda *_: (_ for _ in ()).throw(InterruptedError("woken")))
    woken.start()
    try:
        file = io.BufferedReader(LimitedFile(silent, "the disk"))
        with file, pytest.raises(InterruptedError, match="woken"), time_limit(0):
            file.read(1)
    finally:
        woken.join()
        signal.signal(signal.SIGUSR1, before)


def test_the_outer_of_two_limits_holds_and_goes_on_holding() -> None:
    def read() -> None:
        with time_limit(0.3):
            with time_limit(0.01):
                time.sleep(0.1)
            time.sleep(5)

    with pytest.raises(TooLong):
        read()


def test_many_reads_may_take_long_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    with folders.open_regular(tmp_path / "a") as file:
        for _ in range(8):
            time.sleep(0.05)
            assert file.read(1) == b"\0"


def test_elsewhere_than_in_the_main_thread_there_is_none() -> None:
    said: list[str] = []

    def look() -> None:
        with single_read("somewhere"):
            time.sleep(0.5)
        said.append("read")

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert said == ["read"]


class Waiting(io.FileIO):
    """A file on a disk that is gone."""

    def readinto(self, buffer: Any, /) -> int | None:
        time.sleep(60)
        return super().readinto(buffer)

    def readall(self) -> bytes | None:  # type: ignore[override]
        time.sleep(60)
        return super().readall()


class Gone(LimitedFile, Waiting):
    """The same, opened as all data are."""


def pictures(folder: Path) -> None:
    for number in range(4):
        path = folder / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(path)


def as_folder(folder: Path) -> Path:
    pictures(folder)
    return folder


def as_zip(folder: Path) -> Path:
    pictures(folder)
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    return folder / "all.zip"


def as_tar(folder: Path) -> Path:
    pictures(folder)
    with tarfile.open(folder / "all.tar", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.add(path, path.relative_to(folder))
    return folder / "all.tar"


@pytest.mark.parametrize("make", [as_folder, as_zip, as_tar])
def test_opening_data_on_a_disk_that_is_gone_ends(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers, and the index of an archive. The config's `train.data_timeout` is the limit."""
    given = {
        "data": {"name": "image_folder", "path": str(make(tmp_path))},
        "tokenizer": {"name": "image", "size": 8, "patch": 4},
        "train": {"data_timeout": 0.2},
    }
    registry = load_registry()
    config = load_config(given, registry=registry)
    assert config.data is not None
    source = own_source(config, config.data, registry)
    monkeypatch.setattr(folders, "LimitedFile", Gone)
    with pytest.raises(DataError, match=r"longer than 0\.2 s"):
        source.open("train")


def test_a_folder_whose_names_never_come_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.os, "scandir", lambda folder: time.sleep(30))
    with pytest.raises(DataError, match=r"longer than 0\.3 s"):
        folders.FolderFiles(tmp_path, (".png",))
