"""What the source says of its videos, and of what was converted in each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from maskedmodel_video.folder import VideoFolder
from PIL import Image

from tests.plugins.maskedmodel_video.conftest import grey, write_video


def own(folder: Path, **values: Any) -> VideoFolder:
    return VideoFolder(**{"path": str(folder), "frames": 4, "stride": 2, "size": 16, **values})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos of 10 frames and two of 3, with pixels of 2 to 1, and one that is none."""
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", 10, codec="mpeg4")
    for number in range(2):
        write_video(tmp_path / f"short{number}.mp4", 3, codec="mpeg4", rate=5, sample_aspect_ratio=2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def test_facts_of_the_headers(folder: Path) -> None:
    found = {(fact.about, fact.text): fact.notice for fact in own(folder).facts()}
    assert found == {
        ("files", "6 files: 6 .mp4 read"): False,
        ("labels", "none"): False,
        ("split", "train 5, val 1: a share of 0.1, by a hash of names"): False,
        ("videos", "of 6 videos: 5 mov with mpeg4"): False,
        ("size", "of 6 videos: 5 of 32 x 24 pixels"): False,
        ("frame rate", "of 6 videos: 3 at 10 a second, 2 at 5 a second"): False,
        ("duration", "of 6 videos: 0.6 to 1 s, median 1 s, by their headers"): False,
        ("videos", "of 6 videos, 1 can't be opened"): True,
        ("frames", "of 6 videos, 2 have fewer than 4 frames: their last one is repeated"): True,
        (
            "frames",
            "each clip is 4 frames, one in 2, from the middle; the short side is resized to fit 16 x 16 pixels, the "
            "centre kept",
        ): False,
    }


def test_facts_of_frame_folders(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"clip{number}").mkdir()
        for time in range(3 + number):
            Image.fromarray(grey(time)).save(tmp_path / f"clip{number}" / f"{time}.png")
    facts = own(tmp_path, clips=2).facts()
    assert [fact.text for fact in facts if fact.about == "files"] == ["12 files: 12 .png read"]
    texts = [fact.text for fact in facts if fact.about not in ("files", "labels", "split")]
    assert texts[0] == "3 folders of images: 3 to 5 each, median 4"
    assert texts[1] == "of 3 folders, 1 have fewer than 4 frames: their last one is repeated"
    assert texts[2].startswith("each clip is 4 images, one in 2, from 2 places in training, the middle in validation")


@pytest.mark.parametrize("memory", [False, True])
def test_samples_carry_notes_of_what_was_converted(folder: Path, memory: bool) -> None:
    (folder / "broken.mp4").unlink()
    source = own(folder, memory=memory, stride=1, val_share=0.2)
    samples = {}
    for split in ("train", "val"):
        dataset = pickle.loads(pickle.dumps(source.open(split)))  # noqa: S301 - bytes made in the same line
        samples |= {sample["id"]: sample for sample in (dataset[index] for index in range(len(dataset)))}
    assert "notes" not in samples["0.mp4"]
    assert samples["short0.mp4"]["notes"] == (
        "pixels that aren't square made square",
        "shorter than a clip: the last frame repeated",
    )
    assert source.read(folder / "short1.mp4")["notes"] == samples["short1.mp4"]["notes"]
