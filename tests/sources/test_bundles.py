from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, LabelledFiles


class Frames(FileSettings):
    name: Literal["frames"] = "frames"


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def files(path: Path, **settings: object) -> LabelledFiles:
    return LabelledFiles(Frames(path=str(path), **settings), (".jpg",), "frames", bundled=True)


def every(labelled: LabelledFiles) -> dict[str, tuple[list[str], int | None]]:
    """The bytes and the label of each sample, by id."""
    found = {}
    for split in ("train", "val"):
        part = labelled.part(split)  # type: ignore[arg-type]
        for index, sample_id in enumerate(part.ids):
            members = [part.open(index, member).read().decode() for member in range(part.count(index))]
            found[sample_id] = (members, None if part.labels is None else part.labels[index])
    return found


def test_each_folder_is_a_sample_and_the_one_above_its_class(tmp_path: Path) -> None:
    names = [f"{kind}/clip{number}/{frame}.jpg" for kind in "ab" for number in range(5) for frame in range(3)]
    labelled = files(write(tmp_path, *names))
    assert labelled.class_names == ["a", "b"]
    found = every(labelled)
    assert sorted(found) == sorted({name.rpartition("/")[0] for name in names})
    assert found["b/clip3"] == (["b/clip3/0.jpg", "b/clip3/1.jpg", "b/clip3/2.jpg"], 1)


def test_no_folder_is_in_two_splits(tmp_path: Path) -> None:
    labelled = files(write(tmp_path, *(f"clip{n}/{frame}.jpg" for n in range(20) for frame in range(9))), val_share=0.4)
    train, val = labelled.part("train"), labelled.part("val")
    assert len(train.ids) + len(val.ids) == 20
    assert not {*train.ids} & {*val.ids}
    assert len(val.ids) > 2
    assert labelled.class_names is None  # each of its own class would be none


def test_members_follow_the_numbers_in_their_names(tmp_path: Path) -> None:
    write(tmp_path, "a/f2.jpg", "a/f10.jpg", "a/f1.jpg", "b/f01.jpg", "b/f1_b.jpg", "b/x.jpg")
    found = every(files(tmp_path))
    assert found["a"][0] == ["a/f1.jpg", "a/f2.jpg", "a/f10.jpg"]
    assert found["b"][0] == ["b/f01.jpg", "b/f1_b.jpg", "b/x.jpg"]


def test_folders_named_as_splits_and_tables_of_labels_hold(tmp_path: Path) -> None:
    write(tmp_path / "one", "train/x/c1/0.jpg", "train/y/c2/0.jpg", "val/x/c3/0.jpg")
    part = files(tmp_path / "one").part("val")
    assert (part.ids, part.labels) == (["val/x/c3"], [0])
    write(tmp_path / "two", "c1/0.jpg", "c2/0.jpg")
    (tmp_path / "two" / "metadata.csv").write_text("file_name,label,split\nc1,cat,train\nc2,dog,val\n")
    labelled = files(tmp_path / "two")
    assert labelled.class_names == ["cat", "dog"]
    assert labelled.part("val").labels == [1]


def test_archives_too_and_workers(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"clip{number // 3}/{number}.jpg", str(number))
    part = pickle.loads(pickle.dumps(files(tmp_path / "frames.zip").part("train")))  # noqa: S301
    assert part.count(0) == 3
    assert part.open(0, 2).read() == str(3 * int(part.ids[0][4:]) + 2).encode()
    assert "frames.zip" in part.name(0)
    assert part.files.stamp(0) != part.files.stamp(1)


def test_files_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)in no folder of their own.*lost\.jpg"):
        files(write(tmp_path, "clip/0.jpg", "lost.jpg")).part("train")


def test_a_file_alone_counts_as_one(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg")
    part = LabelledFiles(Frames(path=str(tmp_path)), (".jpg",), "frames").part("train")
    assert part.count(0) == 1
    assert part.open(0).read().decode() == part.ids[0]
