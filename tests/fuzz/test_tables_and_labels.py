"""Tables, sidecars, folders and numeric files bent out of shape: each is read right, or refused by an error of ours."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_image.array import Array
from maskedmodel_image.parquet import Parquet
from PIL import Image

from maskedmodel.errors import MaskedModelError
from maskedmodel.sources import FileSettings, LabelledFiles, split_word
from tests.drawn import BOUNDED, LONG, folder


class Texts(FileSettings):
    name: Literal["texts"] = "texts"


def read(path: Path, **values: Any) -> dict[str, tuple[str, str | None]] | None:
    """Split and class of each file; None where the folder is refused by an error of ours. Any other goes on."""
    try:
        files = LabelledFiles(Texts(path=str(path), **values), (".txt",), "texts")
        found: dict[str, tuple[str, str | None]] = {}
        for split in ("train", "val"):
            part = files.part(split)  # type: ignore[arg-type]
            names = files.class_names or []
            for index, sample_id in enumerate(part.ids):
                label = None if part.labels is None else part.labels[index]
                assert sample_id not in found, "a file is in both splits"
                found[sample_id] = (split, None if label is None else names[label])
        for fact in files.facts():
            fact.text.encode()
        return found
    except MaskedModelError as error:
        str(error).encode()
        return None


CELLS = st.one_of(
    st.sampled_from(
        ["a", "b", " a", "A", "nan", "NaN", "", "-1", "0", "1", "None", "train", "Test", "\u00b2", "9" * 5000]
    ),
    st.text(max_size=6),
)
NAMES = st.sampled_from(
    ["0.txt", "./1.txt", ".\\2.txt", "3", "0.TXT", "/x/1.txt", "9.txt", "", "..", "sub/4.txt", "4.txt"]
)
HEADERS = st.lists(
    st.sampled_from(["file_name", "File", "path", "label", " Label", "split", "Split ", "group", "", "x", "id"]),
    min_size=1,
    max_size=4,
)


def check_table(header: list[str], rows: list[list[str]], separator: str, columns: dict[str, str]) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows([header, *rows])
    with folder() as root:
        for name in ("0.txt", "1.txt", "2.txt", "3.txt", "sub/4.txt"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(name)
        (root / "metadata.csv").write_bytes(stream.getvalue().encode("utf-8", "surrogatepass"))
        found = read(root, **columns)
    if found is None:
        return
    # A row that names a file by its whole path says its label, and no file has a label that no row gives it.
    plain = [name.strip().casefold() for name in header]
    if "label" not in plain or plain.count("label") > 1 or not {"file_name", "file", "path"} & set(plain):
        return
    given_labels = {row[plain.index("label")].strip() for row in rows if len(row) > plain.index("label")}
    assert {label for _, label in found.values() if label is not None} <= given_labels
    files = next(plain.index(name) for name in ("file_name", "file", "path") if name in plain)
    for row in rows:
        if len(row) == len(header) and row[files] in found and found[row[files]][1] is not None:
            assert found[row[files]][1] == row[plain.index("label")].strip()


tables = given(
    HEADERS,
    st.lists(st.lists(CELLS | NAMES, min_size=0, max_size=5), max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.dictionaries(
        st.sampled_from(["label", "group", "split", "val_split", "train_split", "unlabelled"]),
        st.sampled_from(["label", "Label", "x", "a", "Test", ""]),
        max_size=2,
    ),
)


@tables
@BOUNDED
def test_tables_of_labels(header: Any, rows: Any, separator: Any, columns: Any) -> None:
    check_table(header, rows, separator, columns)


@pytest.mark.slow
@tables
@LONG
def test_tables_of_labels_at_length(header: Any, rows: Any, separator: Any, columns: Any) -> None:
    check_table(header, rows, separator, columns)


def check_bytes(content: bytes, name: str) -> None:
    with folder() as root:
        for number in range(3):
            (root / f"{number}.txt").write_text("x")
        (root / name).write_bytes(content)
        read(root)


BYTES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: f"file_name,label\n0.txt,{text}\n1.txt,b\n".encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 50_000, b'{"label": ' + b"1" * 5000 + b"}", b"\xef\xbb\xbf", b"\0" * 9]
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["label", "x"]), inner, max_size=2),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
)
sidecars = given(BYTES, st.sampled_from(["metadata.csv", "index.csv", "0.json", "1.json"]))


@sidecars
@BOUNDED
def test_bytes_in_place_of_tables_and_sidecars(content: bytes, name: str) -> None:
    check_bytes(content, name)


@pytest.mark.slow
@sidecars
@LONG
def test_bytes_in_place_of_tables_and_sidecars_at_length(content: bytes, name: str) -> None:
    check_bytes(content, name)


PARTS = st.one_of(
    st.sampled_from(
        [b"train", b"Training", b"TEST", b"val", b"dev", b"cat", b"dog", b"caf\xe9", b"\xff", b"images", b"x"]
    ),
    st.binary(min_size=1, max_size=4).filter(lambda part: not set(part) & set(b"/\0") and part not in (b".", b"..")),
)
TREES = st.lists(st.lists(PARTS, min_size=0, max_size=3), min_size=1, max_size=10)


def check_tree(paths: list[list[bytes]], links: list[tuple[int, int]]) -> None:
    with folder() as root:
        made, folders = set(), [os.fsencode(root)]
        for number, parts in enumerate(paths):
            place = os.path.join(os.fsencode(root), *parts)
            try:
                os.makedirs(place, exist_ok=True)
                with open(os.path.join(place, b"%d.txt" % number), "wb") as file:
                    file.write(b"x")
            except OSError:
                continue  # what this file system doesn't take
            folders.append(place)
            if not any(part.startswith(b".") for part in parts):
                made.add(number)
        for number, (where, to) in enumerate(links):
            link = os.path.join(folders[where % len(folders)], b"link%d" % number)
            os.symlink(folders[to % len(folders)], link, target_is_directory=True)
        found = read(root)
        if found is None or links:
            return
        words = {split_word(os.fsdecode(part)) for parts in paths for part in parts[:2]}
        if words == {None}:  # no splits: each file that isn't hidden is read, once
            assert sorted(int(Path(path).stem) for path in found) == sorted(made)


trees = given(TREES, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3))


@trees
@BOUNDED
def test_folders_of_any_names_and_links(paths: Any, links: Any) -> None:
    check_tree(paths, links)


@pytest.mark.slow
@trees
@LONG
def test_folders_of_any_names_and_links_at_length(paths: Any, links: Any) -> None:
    check_tree(paths, links)


def numeric_files() -> dict[str, bytes]:
    """Small good files of each kind, to be mutated."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    npy, npz, packed, parquet, image = (io.BytesIO() for _ in range(5))
    np.save(npy, pictures)
    np.savez(npz, x_train=pictures, x_test=pictures[:2], y_train=np.arange(6) % 2, y_test=np.arange(2))
    np.savez_compressed(packed, pictures=pictures)
    files = {"a.npy": npy.getvalue(), "a.npz": npz.getvalue(), "b.npz": packed.getvalue()}
    Image.fromarray(pictures[0, 0]).save(image, "PNG")
    features = {"img": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    table = pa.table(
        {
            "img": [{"bytes": image.getvalue(), "path": None}] * 6,
            "label": [0, 1] * 3,
            "split": ["train"] * 4 + ["test"] * 2,
        }
    )
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, parquet, row_group_size=4)
    return {**files, "a.parquet": parquet.getvalue()}


GOOD = numeric_files()


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good file with bytes changed, cut off or doubled, mostly where its headers are."""
    name = draw(st.sampled_from(sorted(GOOD)))
    content = bytearray(GOOD[name])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content) - 1) | st.integers(0, min(127, len(content) - 1)))
        place = len(content) - 1 - place if draw(st.booleans()) else place  # zip and parquet have theirs at the end
        kind = draw(st.sampled_from(["set", "set", "set", "cut", "double", "zero"]))
        if kind == "set":
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + draw(st.integers(1, 40))]
        elif kind == "double":
            content[place:place] = content[place : place + draw(st.integers(1, 40))]
        else:
            content[place : place + 8] = bytes(len(content[place : place + 8]))
        if not content:
            content = bytearray(1)
    return name, bytes(content)


def check_file(name: str, content: bytes) -> None:
    with folder() as root:
        path = root / name
        path.write_bytes(content)
        try:
            if name.endswith(".parquet"):
                source: Any = Parquet(path=str(path), max_group_mib=64)
            else:
                source = Array(path=str(path), labels="y" if name == "a.npz" else None)
            for split in ("train", "val"):
                samples = source.open(split)
                for index in range(min(len(samples), 10)):
                    try:
                        samples[index]
                    except MaskedModelError as error:
                        str(error).encode()
            names = source.class_names()
            for fact in source.facts():
                fact.text.encode()
            assert names is None or len(set(names)) == len(names)
        except MaskedModelError as error:
            str(error).encode()


@given(mutated())
@settings(BOUNDED, max_examples=150)
def test_numpy_and_parquet_files_with_changed_bytes(file: tuple[str, bytes]) -> None:
    check_file(*file)


@pytest.mark.slow
@given(mutated())
@settings(LONG, max_examples=20_000)
def test_numpy_and_parquet_files_with_changed_bytes_at_length(file: tuple[str, bytes]) -> None:
    check_file(*file)


def test_the_files_that_are_mutated_are_good() -> None:
    with folder() as root:
        for name, content in GOOD.items():
            (root / name).write_bytes(content)
            source: Any = Parquet(path=str(root / name)) if name.endswith("parquet") else Array(path=str(root / name))
            assert len(source.open("train")) + len(source.open("val")) >= 6
            assert source.open("train")[0]["signal"].shape[-2:] == (4, 4)


def check_archive(content: bytes, kind: str) -> None:
    with folder() as root:
        (root / f"all{kind}").write_bytes(content)
        read(root / f"all{kind}")


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, str]:
    stream, kind = io.BytesIO(), draw(st.sampled_from([".zip", ".tar"]))
    names = [f"{draw(st.sampled_from(['train', 'test', 'a']))}/{n}.txt" for n in range(4)]
    if kind == ".zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(fileobj=stream, mode="w", format=draw(st.sampled_from([0, 1, 2]))) as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 4
                tar.addfile(info, io.BytesIO(b"word"))
    content = bytearray(stream.getvalue())
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, min(len(content) - 1, 2600)))] = draw(st.integers(0, 255))
    return bytes(content), kind


@given(archives())
@BOUNDED
def test_archives_with_changed_bytes(archive: tuple[bytes, str]) -> None:
    check_archive(*archive)


@pytest.mark.slow
@given(archives())
@settings(LONG, max_examples=10_000)
def test_archives_with_changed_bytes_at_length(archive: tuple[bytes, str]) -> None:
    check_archive(*archive)
