"""What lies in a folder: read, counted, told, and never waited for."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, LabelledFiles, holds, open_regular
from maskedmodel.sources.census import kind_of, reader_of
from maskedmodel.sources.files import files_at

TEXT = (".txt",)


class Texts(FileSettings):
    name: Literal["texts"] = "texts"


def write(root: Path, *names: str | bytes) -> Path:
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.fsencode(name))
    return root


def labelled(path: Path) -> LabelledFiles:
    return LabelledFiles(Texts(path=str(path)), TEXT, "texts")


def ids(files: LabelledFiles) -> list[str]:
    return sorted(files.part("train").ids + files.part("val").ids)


def notices(files: LabelledFiles) -> list[str]:
    return [fact.text for fact in files.facts() if fact.notice and fact.about == "files"]


class TestKinds:
    def test_those_that_are_not_read_are_counted_and_told(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{n}.txt" for n in range(6)), *(f"{n}.HEIC" for n in range(40)), "a.jxl", "README.md")
        assert notices(labelled(tmp_path)) == [
            "48 files: 6 .txt read, 40 .heic, 1 .jxl, 1 .md ignored "
            "(pillow-heif reads .heic; pillow-jxl-plugin reads .jxl: convert them with it)"
        ]

    def test_what_only_describes_is_no_notice(self, tmp_path: Path) -> None:
        files = labelled(write(tmp_path, "a.txt", "b.txt", "README.md", "LICENSE", ".hidden.txt"))
        assert notices(files) == []
        told = [fact.text for fact in files.facts()]
        assert "4 files: 2 .txt read, 1 without an ending, 1 .md ignored" in told
        assert "hidden, with names that start with a dot, passed over: 1" in told

    def test_the_table_of_labels_counts_as_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.txt", "b.txt")
        (tmp_path / "metadata.csv").write_text("file_name,label\na.txt,x\nb.txt,y\n")
        assert "read for labels: 1" in [fact.text for fact in labelled(tmp_path).facts()]

    def test_in_archives_too(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for name in ("a.txt", "b.txt", "c.cr2"):
                archive.writestr(name, name)
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for name in ("a.txt", "b.txt", "c.cr2"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        for name in ("all.zip", "all.tar"):
            said = "3 files: 2 .txt read, 1 .cr2 ignored (rawpy reads .cr2: convert them with it)"
            assert notices(labelled(tmp_path / name)) == [said]

    def test_nothing_but_others_says_what_there_is(self, tmp_path: Path) -> None:
        write(tmp_path, "a.heic", "b.heic")
        with pytest.raises(DataError, match=r"(?s)no texts.*none read, 2 \.heic ignored.*pillow-heif reads \.heic"):
            labelled(tmp_path).part("train")

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("a/B.HEIC", ".heic"), ("x.nii.gz", ".nii.gz"), ("LICENSE", ""), (".hidden", ""), ("a.b/c", "")],
    )
    def test_a_kind_is_the_ending(self, name: str, kind: str) -> None:
        assert kind_of(name) == kind

    def test_packages_are_named_where_there_are_some(self) -> None:
        assert reader_of([".nef", ".arw", ".xyz", ".dcm"]) == "rawpy reads .arw .nef; pydicom reads .dcm"


def test_a_member_of_a_zip_without_a_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    content = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(content.replace(b"a.txt", b"\0.txt"))  # zipfile ends a name there
    with pytest.raises(DataError, match=r"zip can't be read"):
        labelled(tmp_path / "all.zip").part("train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
class TestSpecialFiles:
    def test_they_are_left_out_and_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "a.txt", "b.txt")
        os.mkfifo(tmp_path / "pipe.txt")
        (tmp_path / "null.txt").symlink_to("/dev/null")
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("socket.txt")
            files = labelled(tmp_path)
            assert ids(files) == ["a.txt", "b.txt"]
            assert notices(files) == [
                "device, left out: 1 (null.txt)",
                "named pipe, left out: 1 (pipe.txt)",
                "socket, left out: 1 (socket.txt)",
            ]

    def test_one_that_comes_later_is_not_waited_for(self, tmp_path: Path) -> None:
        part = labelled(write(tmp_path, "a.txt", "b.txt", "c.txt")).part("train")
        (tmp_path / part.ids[0]).unlink()
        os.mkfifo(tmp_path / part.ids[0])
        with pytest.raises(DataError, match=r"(?s)can't be read.*a regular file.*a named pipe"):
            part.open(0)

    @pytest.mark.parametrize("name", ["metadata.csv", "a.json", "all.zip", "all.tar"])
    def test_nor_is_one_in_place_of_a_table_or_an_archive(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, "a.txt", "b.txt")
        os.mkfifo(tmp_path / name)
        if name.startswith("all"):
            with pytest.raises(DataError, match="named pipe"):
                labelled(tmp_path / name).part("train")
        elif name == "metadata.csv":
            with pytest.raises(DataError, match="named pipe"):
                labelled(tmp_path).part("train")
        else:
            assert ids(labelled(tmp_path)) == ["a.txt", "b.txt"]

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a folder"):
            open_regular(tmp_path)


class TestLinks:
    def test_two_class_folders_linked_to_one_stay_two(self, tmp_path: Path) -> None:
        write(tmp_path / "store", "1.txt", "2.txt")
        (tmp_path / "set").mkdir()
        for name in ("cat", "dog"):
            (tmp_path / "set" / name).symlink_to(tmp_path / "store", target_is_directory=True)
        files = labelled(tmp_path / "set")
        assert files.class_names == ["cat", "dog"]
        assert ids(files) == ["cat/1.txt", "cat/2.txt", "dog/1.txt", "dog/2.txt"]
        assert notices(files) == ["folders read by another path too, whose files count each time: 1 (dog)"]
        assert holds(tmp_path / "set", TEXT)

    def test_a_link_back_up_is_told(self, tmp_path: Path) -> None:
        write(tmp_path, "a/1.txt", "b/2.txt")
        (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
        files = labelled(tmp_path)
        assert ids(files) == ["a/1.txt", "b/2.txt"]
        assert notices(files) == ["links back to a folder above, not followed: 1 (a/up)"]

    def test_a_link_to_itself_fails_where_it_is_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.txt", "b.txt")
        (tmp_path / "loop.txt").symlink_to("loop.txt")
        (tmp_path / "nowhere.txt").symlink_to("nothing")
        files = files_at(str(tmp_path), "path", TEXT)
        for name in ("loop.txt", "nowhere.txt"):
            with pytest.raises(DataError, match=name):
                files.open(files.paths.index(name))

    def test_a_knot_of_links_is_refused(self, tmp_path: Path) -> None:
        for level in range(12):
            (tmp_path / f"level{level}").mkdir()
            for number in range(3):
                target = tmp_path / f"level{level + 1}"
                (tmp_path / f"level{level}" / str(number)).symlink_to(target, target_is_directory=True)
        write(tmp_path / "level12", "a.txt")
        with pytest.raises(DataError, match="lead to one folder again and again"):
            labelled(tmp_path / "level0").part("train")


class TestNames:
    def test_one_that_is_not_utf8_spoils_nothing(self, tmp_path: Path) -> None:
        try:
            write(tmp_path, "cat/a.txt", b"cat/caf\xe9.txt", b"d\xf4g/b.txt", "cat/c.txt")
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
        files = labelled(tmp_path)
        assert ids(files) == ["cat/a.txt", "cat/c.txt", "cat/caf\\xe9.txt", "d\\xf4g/b.txt"]
        assert files.class_names == ["cat", "d\\xf4g"]
        assert notices(files) == ["names that aren't UTF-8, spelled out: 2 (cat/caf\\xe9.txt, d\\xf4g/b.txt)"]
        for split in ("train", "val"):
            part = files.part(split)  # type: ignore[arg-type]
            for index, sample_id in enumerate(part.ids):
                raw = sample_id.replace("\\xe9", "\udce9").replace("\\xf4", "\udcf4")
                assert part.open(index).read() == os.fsencode(raw)
                part.name(index).encode()
                sample_id.encode()

    def test_two_that_would_read_alike_are_refused(self, tmp_path: Path) -> None:
        try:
            write(tmp_path, b"caf\xe9.txt", "caf\\xe9.txt")
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
        with pytest.raises(DataError, match="reads like the name of another"):
            labelled(tmp_path).part("train")

    def test_in_a_tar_too(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "all.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
            for name in ("caf\xe9.txt", "b.txt"):
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
        files = labelled(tmp_path / "all.tar")
        assert ids(files) == ["b.txt", "caf\\xe9.txt"]
        assert notices(files) == ["names that aren't UTF-8, spelled out: 1 (caf\\xe9.txt)"]

    def test_an_error_about_one_can_be_printed(self) -> None:
        str(DataError("The file can't be read.", where="caf\udce9.txt")).encode()

    @pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name/x", "caf\udce9"])
    def test_paths_that_mean_nothing_are_refused(self, path: str) -> None:
        with pytest.raises(DataError, match="can't be read"):
            files_at(path, "path", TEXT)
