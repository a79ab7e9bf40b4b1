"""Labels, groups and splits by sub-folder, by a table, and by JSON files, in folders, zips and tars."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import pytest

from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, LabelledFiles

TEXT = (".txt",)


class TextSettings(FileSettings):
    name: Literal["text"] = "text"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def zipped(root: Path, files: dict[str, str]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return root / "all.zip"


def tarred(root: Path, files: dict[str, str], name: str = "all.tar") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / name, "w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return root / name


def labelled(path: Path, **settings: Any) -> LabelledFiles:
    return LabelledFiles(TextSettings(path=str(path), **settings), TEXT, "texts")


def found(files: LabelledFiles, split: Literal["train", "val"]) -> dict[str, Any]:
    part = files.part(split)
    labels = part.labels or [None] * len(part.ids)
    return dict(zip(part.ids, labels, strict=True))


TABLE = "file_name,label,speaker,split\n" + "".join(
    f"clips/{n}.txt,{10 * (n % 2)},s{n // 4},{'test' if n < 4 else 'train'}\n" for n in range(12)
)
CLIPS = {f"clips/{n}.txt": str(n) for n in range(12)}


@pytest.mark.parametrize("form", [write, zipped, tarred])
def test_a_table_says_labels_and_the_official_split(tmp_path: Path, form: Any) -> None:
    files = labelled(form(tmp_path / "x", {**CLIPS, "metadata.csv": TABLE}))
    assert files.class_names == ["0", "10"]  # numbers in the order of numbers
    assert found(files, "val") == {f"clips/{n}.txt": n % 2 for n in range(4)}
    assert sorted(found(files, "train")) == sorted(f"clips/{n}.txt" for n in range(4, 12))
    part = files.part("train")
    with part.open(0) as stream:
        assert stream.read().decode() == Path(part.ids[0]).stem
    again = pickle.loads(pickle.dumps(part))  # noqa: S301 - what a data worker does
    with again.open(1) as stream:
        assert stream.read().decode() == Path(part.ids[1]).stem


def test_another_column_and_groups_that_stay_together(tmp_path: Path) -> None:
    table = TABLE.replace(",split", ",part")
    files = labelled(write(tmp_path, {**CLIPS, "metadata.csv": table}), label="speaker", group="speaker", val_share=0.4)
    assert files.class_names == ["s0", "s1", "s2"]
    train, val = files.part("train"), files.part("val")
    assert train.groups is not None
    assert val.groups is not None
    assert not set(train.groups) & set(val.groups)
    assert len(train.ids) + len(val.ids) == 12


def test_named_groups_are_for_validation(tmp_path: Path) -> None:
    files = labelled(write(tmp_path, {**CLIPS, "index.csv": TABLE}), group="speaker", val_groups=("s1",))
    assert sorted(found(files, "val")) == [f"clips/{n}.txt" for n in range(4, 8)]
    with pytest.raises(DataError, match="No texts are left for the split 'val'"):
        labelled(tmp_path, group="speaker", val_groups=("s9",)).part("val")


def test_only_some_classes_in_the_order_given(tmp_path: Path) -> None:
    files = labelled(write(tmp_path, {**CLIPS, "metadata.csv": TABLE}), label="speaker", classes=("s2", "s1"))
    assert files.class_names == ["s2", "s1"]
    assert found(files, "train") == {f"clips/{n}.txt": int(n < 8) for n in range(4, 12)}
    with pytest.raises(DataError, match="split 'val' have one of the classes"):
        files.part("val")


@pytest.mark.parametrize("label", ["spaeker", "nothing like it"])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, label: str) -> None:
    files = labelled(write(tmp_path, {**CLIPS, "metadata.csv": TABLE}), label=label)
    with pytest.raises(DataError, match=r"(?s)Nothing says the label.*file_name, label, speaker, split"):
        files.part("train")


def test_a_table_that_names_no_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {**CLIPS, "metadata.csv": "clip,label\n1,2\n"})
    with pytest.raises(DataError, match=r"(?s)doesn't say which file.*clip, label"):
        labelled(tmp_path).part("train")


def test_rows_that_name_files_elsewhere_lead_nowhere(tmp_path: Path) -> None:
    """A name in a table is looked up among the files that were found, and never opened."""
    (tmp_path / "secret.txt").write_text("secret")
    rows = ["../secret.txt,x", f"{tmp_path}/secret.txt,x", "../../etc/passwd,x", "one.txt,a", "two.txt,b"]
    write(tmp_path / "data", {"one.txt": "1", "two.txt": "2", "metadata.csv": "\n".join(["file,label", *rows])})
    files = labelled(tmp_path / "data", label="label")
    assert sorted({**found(files, "train"), **found(files, "val")}) == ["one.txt", "two.txt"]
    assert files.class_names == ["a", "b"]


def test_rows_without_a_label_leave_their_samples_unlabelled(tmp_path: Path) -> None:
    table = "file,label\nclips/5.txt,a\nclips/6.txt,b\n"
    files = labelled(write(tmp_path, {**CLIPS, "index.csv": table}))
    every = {**found(files, "train"), **found(files, "val")}
    assert every["clips/5.txt"] == 0
    assert every["clips/6.txt"] == 1
    assert every["clips/7.txt"] is None


def test_shards_with_json_beside_each_file(tmp_path: Path) -> None:
    for fold in (1, 2, 3):
        clips = {}
        for n in range(4):
            clips[f"{fold}-{n}.txt"] = f"{fold}{n}"
            clips[f"{fold}-{n}.json"] = json.dumps({"category": f"kind {n % 2}", "fold": fold})
        tarred(tmp_path, clips, f"fold{fold}.tar")
    files = labelled(tmp_path, label="category", group="fold", val_groups=("3",))
    assert files.class_names == ["kind 0", "kind 1"]
    val = files.part("val")
    assert val.ids == [f"fold3/3-{n}.txt" for n in range(4)]
    assert val.groups == ["3"] * 4
    assert val.name(0).endswith("fold3.tar/3-0.txt")
    with val.open(2) as stream:
        assert stream.read() == b"32"


def test_a_damaged_sidecar_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "", "a.json": "{", "b.txt": ""})
    with pytest.raises(DataError, match="JSON beside a file"):
        labelled(tmp_path).part("train")


class TestUnsafeTars:
    @pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt"])
    def test_paths_that_lead_out(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match="leads out of the archive"):
            labelled(tarred(tmp_path, {name: "x", "b.txt": "y"})).part("train")

    def test_links(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "all.tar", "w") as archive:
            link = tarfile.TarInfo("a.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
            archive.addfile(link)
        with pytest.raises(DataError, match="a link or device"):
            labelled(tmp_path / "all.tar").part("train")

    def test_two_members_of_one_name(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "all.tar", "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
        with pytest.raises(DataError, match="occurs twice"):
            labelled(tmp_path / "all.tar").part("train")

    def test_compressed_or_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "all.tar").write_bytes(b"\x1f\x8b" + bytes(600))
        with pytest.raises(DataError, match="uncompressed tar"):
            labelled(tmp_path / "all.tar").part("train")

    def test_truncated(self, tmp_path: Path) -> None:
        path = tarred(tmp_path, {f"{n}.txt": "x" * 3000 for n in range(4)})
        files = labelled(path).part("train")
        path.write_bytes(path.read_bytes()[:1024])
        with pytest.raises(DataError, match="ends too early"):
            files.open(len(files.ids) - 1)
