"""What the source says of its files, and of what was converted in each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskedmodel_audio.folder import AudioFolder

from tests.plugins.maskedmodel_audio.sounds import flac_counting, made, wave


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight FLAC of 1 s at 16 kHz, two MP3 of half a second in stereo at 32 kHz, and one that is no sound."""
    for number in range(8):
        (tmp_path / f"{number}.flac").write_bytes(made("flac"))
    for number in range(2):
        (tmp_path / f"{number}.mp3").write_bytes(made("mp3", samples=wave(16000, 2), rate=32000))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    return tmp_path


def own(folder: Path, **values: Any) -> AudioFolder:
    return AudioFolder(path=str(folder), sample_rate=16000, **values)


def test_facts_of_the_headers(folder: Path) -> None:
    found = {(fact.about, fact.text): fact.notice for fact in own(folder).facts()}
    assert found == {
        ("files", "11 files: 8 .flac, 2 .mp3, 1 .wav read"): False,
        ("labels", "none"): False,
        ("split", "train 10, val 1: a share of 0.1, by a hash of names"): False,
        ("sound", "of 11 files: 8 FLAC, 2 MP3"): False,
        ("sample rate", "of 11 files, 2 are resampled to 16,000 Hz (8 at 16,000 Hz, 2 at 32,000 Hz)"): True,
        ("channels", "of 11 files, 2 have their channels averaged (8 of 1 channels, 2 of 2 channels)"): True,
        ("duration", "of 11 files: 0.5 to 1 s, median 1 s, by their headers"): False,
        ("sound", "of 11 files, 1 can't be opened"): True,
    }


def test_nothing_converted_is_no_notice(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.flac").write_bytes(flac_counting(made("flac"), 0))
    facts = own(tmp_path).facts()
    assert [fact.text for fact in facts if fact.about not in ("files", "labels", "split")] == [
        "of 4 files: 4 FLAC",
        "of 4 files: 4 at 16,000 Hz",
        "of 4 files: 4 of 1 channels",
    ]
    assert not any(fact.notice for fact in facts)


def test_a_part_of_each_file_is_told(folder: Path) -> None:
    texts = [fact.text for fact in own(folder, offset=0.25, seconds=0.5).facts() if fact.notice]
    assert "of each file, what lies from 0.25 s to 0.75 s is read" in texts
    texts = [fact.text for fact in own(folder, offset=0.25).facts() if fact.notice]
    assert "of each file, what lies from 0.25 s to the end is read" in texts


def test_of_many_files_some_are_looked_at(tmp_path: Path) -> None:
    content = made("wav", samples=np.zeros((100, 1)))
    for number in range(200):
        (tmp_path / f"{number}.wav").write_bytes(content)
    texts = {fact.about: fact.text for fact in own(tmp_path).facts()}
    assert texts["files"] == "200 files: 200 .wav read"
    assert texts["sound"] == "of 50 files looked at: 50 WAV"


@pytest.mark.parametrize("memory", [None, "float32"])
def test_samples_carry_notes_of_what_was_converted(folder: Path, memory: str | None) -> None:
    (folder / "broken.wav").unlink()
    source = own(folder, memory=memory, val_share=0.2)
    samples = {}
    for split in ("train", "val"):
        dataset = pickle.loads(pickle.dumps(source.open(split)))  # noqa: S301 - bytes made in the same line
        samples |= {sample["id"]: sample for sample in (dataset[index] for index in range(len(dataset)))}
    assert "notes" not in samples["0.flac"]
    assert samples["0.mp3"]["notes"] == ("2 channels averaged", "resampled from 32000 to 16000 Hz")
    assert source.read(folder / "1.mp3")["notes"] == samples["1.mp3"]["notes"]
