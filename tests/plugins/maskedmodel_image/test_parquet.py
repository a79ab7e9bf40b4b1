import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from maskedmodel_image.parquet import Parquet
from PIL import Image
from torch.utils.data import DataLoader

from maskedmodel.errors import DataError, DependencyError

pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' isn't installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' isn't installed")


def png(number, size=(8, 8)):
    stream = io.BytesIO()
    Image.new("RGB", size, (number, 5, 7)).save(stream, "PNG")
    return stream.getvalue()


def write(path, rows=10, start=0, names=("cat", "dog", "cow"), **columns):
    """A table as the hub has them; `columns` replace its own, None removes one."""
    table = {
        "img": [{"bytes": png(start + row), "path": None} for row in range(rows)],
        "label": [(start + row) % 3 for row in range(rows)],
        **columns,
    }
    table = pa.table({name: column for name, column in table.items() if column is not None})
    if names:
        features = {"img": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def both(source):
    return source.open("train"), source.open("val")


def test_a_folder_of_named_splits(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00002.parquet")
    write(tmp_path / "data" / "train-00001-of-00002.parquet", start=10)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", rows=3, start=100)
    source = Parquet(path=str(tmp_path))
    train, val = both(source)
    assert (len(train), len(val)) == (20, 3)
    assert source.class_names() == ["cat", "dog", "cow"]
    sample = train[13]
    assert sample["id"] == "data/train-00001-of-00002.parquet:3"
    assert sample["label"] == 13 % 3
    assert sample["signal"].shape == (3, 8, 8)
    assert sample["signal"].dtype == torch.uint8
    assert [train[i]["signal"][0, 0, 0].item() for i in range(20)] == list(range(20))
    assert val[1]["signal"][0, 0, 0] == 101


@pytest.mark.parametrize("kind", ["file", "folder", "glob"])
def test_one_unsplit_table_is_split_by_share(tmp_path, kind):
    write(tmp_path / "pictures.parquet", rows=40)
    path = {"file": "pictures.parquet", "folder": ".", "glob": "pic*.parquet"}[kind]
    train, val = both(Parquet(path=str(tmp_path / path), val_share=0.25))
    assert len(train) + len(val) == 40
    assert not set(train.ids) & set(val.ids)
    assert 4 <= len(val) <= 18


def test_val_path(tmp_path):
    write(tmp_path / "one.parquet")
    write(tmp_path / "two.parquet", rows=2)
    train, val = both(Parquet(path=str(tmp_path / "one.parquet"), val_path=str(tmp_path / "two.parquet")))
    assert (len(train), len(val)) == (10, 2)
    assert (train.ids[0], val.ids[0]) == ("one.parquet:0", "val:two.parquet:0")


def test_plain_bytes_without_labels_or_metadata(tmp_path):
    path = write(tmp_path / "t.parquet", img=None, label=None, names=None, picture=[png(1), png(2), png(3)])
    source = Parquet(path=str(path))
    train, val = both(source)
    assert source.class_names() is None
    assert len(train) + len(val) == 3
    assert "label" not in train[0]


def test_labels_without_names_are_numbered(tmp_path):
    source = Parquet(path=str(write(tmp_path / "t.parquet", names=None)))
    assert source.class_names() == ["0", "1", "2"]


def test_columns_are_chosen_by_name(tmp_path):
    path = write(tmp_path / "t.parquet", names=None, coarse=[9] * 10, thumb=[png(200)] * 10)
    source = Parquet(path=str(path), image="thumb", label="coarse")
    train = source.open("train")
    assert train[0]["signal"][0, 0, 0] == 200
    assert train[0]["label"] == 0
    assert source.class_names() == ["9"]  # the values that occur, not all up to the largest
    assert Parquet(path=str(path)).class_names() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("settings", "columns", "words"),
    [
        ({"image": "nope"}, {}, r"no column 'nope'.*img, label"),
        ({"label": "nope"}, {}, r"no column 'nope'"),
        ({"image": "label"}, {}, r"'label' holds no encoded images.*label: int64"),
        ({"label": "img"}, {}, r"'img' holds no labels"),
        ({}, {"img": None}, r"no column of encoded images.*label: int64"),
        ({}, {"label": None, "a": [1] * 10, "b": [2] * 10}, r"Several columns.*a, b.*data.label"),
        ({}, {"label": [None, *range(9)]}, r"without a label.*1 nulls"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, settings, columns, words):
    path = write(tmp_path / "t.parquet", names=None, **columns)
    with pytest.raises(DataError, match=f"(?s){words}"):
        Parquet(path=str(path), **settings).open("train")


def test_images_of_several_sizes_need_a_size(tmp_path):
    images = [{"bytes": png(row, (8, 8 + row % 2)), "path": None} for row in range(10)]
    path = write(tmp_path / "t.parquet", img=images)
    train = Parquet(path=str(path)).open("train")
    with pytest.raises(DataError, match=r"(?s)differ in size.*t\.parquet, row \d.*data\.size"):
        [train[index] for index in range(len(train))]
    assert Parquet(path=str(path), size=6).open("train")[1]["signal"].shape == (3, 6, 6)


def test_a_row_that_only_points_to_a_file_is_an_error(tmp_path):
    images = [{"bytes": png(1), "path": None}, {"bytes": None, "path": "a.png"}, None]
    train, val = tmp_path / "train.parquet", tmp_path / "val.parquet"
    write(train, img=images, label=[0, 1, 2])
    write(val, rows=1)
    source = Parquet(path=str(train), val_path=str(val)).open("train")
    for index in (1, 2):
        with pytest.raises(DataError, match=rf"(?s)holds no image.*row {index}"):
            source[index]


@pytest.mark.parametrize("words", ["missing", "empty folder", "not parquet", "empty glob", "no rows"])
def test_nothing_to_read_is_an_error_at_once(tmp_path, words):
    path = tmp_path / "t.parquet"
    if words == "empty folder":
        path.mkdir()
    elif words == "not parquet":
        path.write_text("words, and enough of them to hold a footer")
    elif words == "empty glob":
        path = tmp_path / "*.parquet"
    elif words == "no rows":
        write(path, rows=0, img=pa.array([], pa.struct({"bytes": pa.binary()})), label=pa.array([], pa.int64()))
    with pytest.raises(DataError, match=r"parquet"):
        Parquet(path=str(path)).open("train")


def test_memory_cache_workers_and_pickle_give_the_same(tmp_path):
    path = str(write(tmp_path / "t.parquet", rows=20))
    lazy = Parquet(path=path).open("train")
    expected = [lazy[index]["signal"] for index in range(len(lazy))]
    others = {
        "memory": Parquet(path=path, memory=True).open("train"),
        "cache": Parquet(path=path, cache=str(tmp_path / "cache")).open("train"),
        "pickle": pickle.loads(pickle.dumps(lazy)),  # noqa: S301
    }
    for own in others.values():
        assert own.ids == lazy.ids
        assert all(torch.equal(own[i]["signal"], expected[i]) for i in range(len(lazy)))
    batches = list(DataLoader(lazy, batch_size=4, num_workers=2))
    assert torch.equal(torch.cat([batch["signal"] for batch in batches]), torch.stack(expected))


def test_row_groups_beyond_the_limit_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("maskedmodel_image.table._KEPT_BYTES", 1)
    train = Parquet(path=str(write(tmp_path / "t.parquet", rows=20)), val_share=0.01).open("train")
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    for index in order:
        assert train[index]["signal"][0, 0, 0] == int(train.ids[index].split(":")[1])
    assert len(train.read.images._local.groups) == 1


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match=r'pip install "maskedmodel\[parquet\]"'):
        Parquet(path=str(path)).open("train")


DATA = os.environ.get("MASKEDMODEL_DATA")


@pytest.mark.skipif(DATA is None, reason="MASKEDMODEL_DATA names no folder of real data")
def test_cifar_as_the_hub_has_it():
    source = Parquet(path=str(Path(DATA) / "cifar10"))
    train, val = both(source)
    assert (len(train), len(val)) == (50_000, 10_000)
    assert source.class_names()[:2] == ["airplane", "automobile"]
    assert train[49_999]["signal"].shape == (3, 32, 32)
