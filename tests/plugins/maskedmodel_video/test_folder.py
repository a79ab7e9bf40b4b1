from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_video.folder import VideoFolder
from maskedmodel_video.tokenizer import TubesTokenizer
from PIL import Image
from pydantic import ValidationError

from maskedmodel import DataSource, Noise
from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, SampleDataset
from tests.plugins.maskedmodel_video.conftest import LEVEL, grey, levels, write_video


def source(path: Path, **values: Any) -> VideoFolder:
    return VideoFolder(**{"path": str(path), "frames": 4, "stride": 1, "size": 16, "val_share": 0.3, **values})


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five videos of each of two classes, of 6 to 15 frames."""
    for number in range(10):
        write_video(tmp_path / "videos" / "ab"[number % 2] / f"v{number}.mkv", 6 + number)
    return tmp_path / "videos"


def write_frames(folder: Path, count: int, name: str = "{}.png") -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(grey(number)).save(folder / name.format(number))
    return folder


def everything(own: DataSource[Any]) -> dict[str | int, Any]:
    found: dict[str | int, Any] = {}
    for dataset in (own.open("train"), own.open("val")):
        found |= {sample["id"]: sample for sample in (dataset[index] for index in range(len(dataset)))}
    return found


def test_videos_of_classes(videos: Path) -> None:
    own = source(videos)
    assert own.class_names() == ["a", "b"]
    found = everything(own)
    assert len(found) == 10
    assert found["b/v3.mkv"]["label"] == 1
    assert levels(found["b/v3.mkv"]["signal"]) == [2, 3, 4, 5]
    assert "group" not in found["b/v3.mkv"]


def test_one_file_per_class_is_labelled_by_its_name(tmp_path: Path) -> None:
    for word in ("yes", "no", "eat"):
        write_video(tmp_path / f"{word}.mkv", 5)
    own = source(tmp_path, label_by="stem")
    assert own.class_names() == ["eat", "no", "yes"]
    assert {name: sample["label"] for name, sample in everything(own).items()} == {
        "eat.mkv": 0,
        "no.mkv": 1,
        "yes.mkv": 2,
    }
    assert source(tmp_path).class_names() is None


def test_a_table_says_labels(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mkv", 5)
    rows = "file_name,label,split,person\n0.mkv,walk,train,x\n1.mkv,run,train,y\n2.mkv,walk,val,z\n"
    (tmp_path / "metadata.csv").write_text(rows)
    own = source(tmp_path, group="person")
    assert own.class_names() == ["run", "walk"]
    sample = own.open("val")[0]
    assert (sample["label"], sample["group"]) == (1, "z")


def test_several_clips_of_a_video_are_samples_that_stay_together(videos: Path) -> None:
    own = source(videos, clips=3)
    train, val = own.open("train"), own.open("val")
    assert len(train) == 3 * len(source(videos).open("train"))
    assert len(val) == len(source(videos).open("val"))
    samples = [train[index] for index in range(3)]
    name = samples[0]["group"]
    assert [sample["id"] for sample in samples] == [f"{name}#{clip}" for clip in range(3)]
    assert {sample["group"] for sample in samples} == {name}
    assert len({sample["label"] for sample in samples}) == 1
    count = 6 + int(Path(name).stem[1:])
    firsts = [levels(sample["signal"])[0] for sample in samples]
    assert firsts[0] == 0
    assert firsts[2] == count - 4
    assert firsts[0] < firsts[1] < firsts[2]


def test_what_is_stored_and_what_a_tokenizer_takes_go_together(tmp_path: Path) -> None:
    """The source stores a stretch, and training starts anywhere in it, by the sample's own noise."""
    for number in range(2):
        write_video(tmp_path / f"{number}.mkv", 20)
    stored = source(tmp_path, frames=12).open("train")[0]["signal"][None]
    own = TubesTokenizer(frames=4, size=16, patch=(2, 8, 8), crop=None)
    starts = {levels(255 * own.augment(stored, Noise.of([7], epoch=epoch))[0])[0] for epoch in range(60)}
    assert starts == set(range(4, 13))
    assert levels(255 * own.prepare(stored)[0]) == [8, 9, 10, 11]


class TestFrameFolders:
    def test_each_folder_is_a_video(self, tmp_path: Path) -> None:
        for number in range(6):
            write_frames(tmp_path / "xy"[number % 2] / f"clip{number}", 12, "f{}.png")
        own = source(tmp_path)
        assert own.class_names() == ["x", "y"]
        found = everything(own)
        assert len(found) == 6
        assert levels(found["y/clip3"]["signal"]) == [4, 5, 6, 7]  # 10 comes after 9
        assert found["y/clip3"]["label"] == 1
        assert levels(everything(source(tmp_path, frames=14, rate=30))["x/clip0"]["signal"]) == [*range(12), 11, 11]

    def test_stems_and_archives(self, tmp_path: Path) -> None:
        for word in ("jump", "sit"):
            write_frames(tmp_path / "all" / word, 5)
        with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
            for file in sorted((tmp_path / "all").rglob("*.png")):
                archive.write(file, file.relative_to(tmp_path / "all"))
        for path in (tmp_path / "all", tmp_path / "frames.zip"):
            own = source(path, label_by="stem")
            assert own.class_names() == ["jump", "sit"]
            assert levels(everything(own)["sit"]["signal"]) == [0, 1, 2, 3]

    def test_videos_come_first_unless_frames_are_asked_for(self, tmp_path: Path) -> None:
        for number in range(2):
            write_video(tmp_path / "videos" / f"{number}.mkv", 5)
            write_frames(tmp_path / "frames" / f"{number}", 5)
        assert all(name.endswith(".mkv") for name in everything(source(tmp_path)))
        assert set(everything(source(tmp_path, files="frames"))) == {"frames/0", "frames/1"}

    def test_pictures_are_upright_grey_and_cut_to_size(self, tmp_path: Path) -> None:
        pixels = np.zeros((10, 30, 3), dtype=np.uint8)
        pixels[:, 10:20] = 255
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            turned = Image.fromarray(pixels)
            exif = turned.getexif()
            exif[0x0112] = 6  # turned a quarter
            turned.save(tmp_path / folder / "0.jpg", quality=95, exif=exif)
        clip = next(iter(everything(source(tmp_path, size=(30, 10), mode="grey")).values()))["signal"]
        assert clip.shape == (1, 4, 30, 10)
        assert clip[0, 0, 12:18].float().mean() > 240
        assert clip[0, 0, :8].float().mean() < 15

    @pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "16 bits"])
    def test_a_bad_frame_is_named(self, tmp_path: Path, content: bytes | None) -> None:
        for folder in ("a", "b"):
            write_frames(tmp_path / folder, 3)
            if content is None:
                Image.fromarray(np.full((8, 8), 9, dtype=np.uint16)).save(tmp_path / folder / "1.png")
            else:
                (tmp_path / folder / "1.png").write_bytes(content)
        with pytest.raises(DataError, match=r"frame 1"):
            everything(source(tmp_path))


class TestMemory:
    def test_clips_are_decoded_once_and_the_same(self, videos: Path) -> None:
        plain = source(videos, clips=2).open("train")
        before = [plain[index] for index in range(len(plain))]
        kept: SampleDataset = source(videos, clips=2, memory=True).open("train")
        for file in videos.rglob("*.mkv"):
            os.truncate(file, 0)
        copy = pickle.loads(pickle.dumps(kept))  # noqa: S301 - bytes made in the same line
        for dataset in (kept, copy):
            for index, sample in enumerate(before):
                assert torch.equal(dataset[index]["signal"], sample["signal"])
                assert (dataset[index]["id"], dataset[index]["label"]) == (sample["id"], sample["label"])
        with pytest.raises(DataError):
            plain[0]

    def test_what_cannot_be_decoded_raises_when_it_is_read(self, videos: Path) -> None:
        plain = source(videos).open("train")
        (videos / str(plain[0]["id"])).write_bytes(b"broken")
        kept = source(videos, memory=True).open("train")
        for _ in range(2):
            with pytest.raises(DataError, match="isn't a video"):
                kept[0]
        assert torch.equal(kept[1]["signal"], plain[1]["signal"])
        copy = pickle.loads(pickle.dumps(kept))  # noqa: S301 - bytes made in the same line
        with pytest.raises(DataError, match="isn't a video"):
            copy[0]

    def test_more_than_the_machine_has_is_refused(self, videos: Path) -> None:
        with pytest.raises(DataError, match=r"(?s)doesn't fit into memory.*GiB"):
            source(videos, memory=True, size=1 << 16, frames=100).open("train")


class TestRead:
    def test_a_file_that_a_user_names(self, videos: Path) -> None:
        sample = source(videos).read(videos / "a" / "v0.mkv")
        assert (sample["id"], levels(sample["signal"])) == ("v0.mkv", [1, 2, 3, 4])

    def test_a_folder_of_frames(self, tmp_path: Path) -> None:
        sample = source(tmp_path).read(write_frames(tmp_path / "clip", 12, "f{}.png"))
        assert (sample["id"], levels(sample["signal"])) == ("clip", [4, 5, 6, 7])

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no frames"):
            source(tmp_path).read(tmp_path)
        with pytest.raises(DataError, match="No such file"):
            source(tmp_path).read(tmp_path / "lost.mp4")


def test_what_is_recognised(videos: Path, tmp_path: Path) -> None:
    assert VideoFolder.recognises(videos)
    assert VideoFolder.recognises(videos / "a" / "v0.mkv")
    assert not VideoFolder.recognises(write_frames(tmp_path / "clip", 2))


def test_nothing_to_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)There are no videos.*\.mp4 \.m4v"):
        source(tmp_path).open("train")
    with pytest.raises(DataError, match="can't be read"):
        source(tmp_path / "lost").open("train")


@pytest.mark.parametrize(
    ("values", "words"),
    [({"frames": 0}, "greater than 0"), ({"rate": 0}, "greater than 0"), ({"label_by": "date"}, "'folder' or 'stem'")],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VideoFolder(path="x", **values)
    assert issubclass(VideoFolder.settings_class, FileSettings)
    assert LEVEL == 10


def test_the_sign_language_clips() -> None:
    root = os.environ.get("MASKEDMODEL_DATA")
    if root is None:
        pytest.skip("the real clips are where MASKEDMODEL_DATA says, and it says nothing")
    path = Path(root) / "video" / "asl_gestures"
    if not path.is_dir():
        pytest.skip(f"{path} isn't there")
    own = source(path, label_by="stem", frames=24, stride=2, size=48)
    names = own.class_names()
    assert names is not None
    assert len(names) == 20
    assert "thanks" in names
    sample = own.open("train")[0]
    assert sample["signal"].shape == (3, 24, 48, 48)
    assert (sample["signal"][:, 1:] != sample["signal"][:, :-1]).any()
