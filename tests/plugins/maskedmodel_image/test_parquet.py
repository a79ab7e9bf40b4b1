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
    with pytest.raises(DependencyError, match="uv sync --extra parquet"):
        Parquet(path=str(path)).open("train")


DATA = os.environ.get("MASKEDMODEL_DATA")


@pytest.mark.skipif(DATA is None, reason="MASKEDMODEL_DATA names no folder of real data")
def test_cifar_as_the_hub_has_it():
    source = Parquet(path=str(Path(DATA) / "cifar10"))
    train, val = both(source)
    assert (len(train), len(val)) == (50_000, 10_000)
    assert source.class_names()[:2] == ["airplane", "automobile"]
    assert train[49_999]["signal"].shape == (3, 32, 32)


def facts(source, about):
    return "\n".join(fact.text for fact in source.facts() if fact.about == about)


def notices(source, about):
    return "\n".join(fact.text for fact in source.facts() if fact.about == about and fact.notice)


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "val"),
        [("Training", "Testing"), ("TRAIN-0", "VAL-0"), ("x_train", "x_eval"), ("train/part", "Validation/part")],
    )
    def test_files_named_by_split_in_any_spelling(self, tmp_path, train, val):
        write(tmp_path / f"{train}.parquet", rows=5)
        write(tmp_path / f"{val}.parquet", rows=3, start=100)
        source = Parquet(path=str(tmp_path))
        assert [len(part) for part in both(source)] == [5, 3]
        assert "by file names" in facts(source, "split")

    def test_of_validation_and_test_one_is_taken_and_told(self, tmp_path):
        for start, name in enumerate(("train", "validation", "test")):
            write(tmp_path / f"{name}.parquet", rows=2 + start, start=10 * start)
        source = Parquet(path=str(tmp_path))
        assert [len(part) for part in both(source)] == [2, 3]
        assert "left out: test (1) (data.val_split takes another)" in notices(source, "split")
        assert [len(part) for part in both(Parquet(path=str(tmp_path), val_split="test"))] == [2, 4]

    def test_other_files_beside_are_asked_about(self, tmp_path):
        for name in ("train", "test", "extra"):
            write(tmp_path / f"{name}.parquet", rows=2)
        with pytest.raises(DataError, match=r"(?s)others aren't.*extra \(1\).*data.train_split"):
            Parquet(path=str(tmp_path)).open("train")
        source = Parquet(path=str(tmp_path), train_split=("train", "extra"))
        assert [len(part) for part in both(source)] == [4, 2]

    @pytest.mark.parametrize("name", ["split", "Split", " SPLIT"])
    def test_a_column_says_the_split_of_each_row(self, tmp_path, name):
        said = ["Train"] * 7 + ["Test"] * 3
        source = Parquet(path=str(write(tmp_path / "t.parquet", **{name: said})))
        assert [part.ids for part in both(source)] == [
            [f"t.parquet:{row}" for row in range(7)],
            [f"t.parquet:{row}" for row in range(7, 10)],
        ]
        assert f"by column {name!r}: train is Train (7), validation is Test (3)" in facts(source, "split")

    def test_a_split_that_nothing_names_is_refused(self, tmp_path):
        path = str(write(tmp_path / "t.parquet"))
        with pytest.raises(DataError, match="Nothing names the splits"):
            Parquet(path=path, val_split="test").open("train")

    def test_one_file_named_test_is_shared_out(self, tmp_path):
        path = str(write(tmp_path / "test.parquet"))
        assert sum(len(part) for part in both(Parquet(path=path))) == 10


class TestLabels:
    def test_they_are_the_values_that_occur(self, tmp_path):
        values = [3, 3, 700_000, 700_000, -5, -5, 3, 3, 3, 3]
        source = Parquet(path=str(write(tmp_path / "t.parquet", names=None, label=values)))
        assert source.class_names() == ["-5", "3", "700000"]
        for part in both(source):
            assert [source.class_names()[label] for label in part.labels] == [
                str(values[int(i.split(":")[1])]) for i in part.ids
            ]
        assert "3 classes by column 'label': -5 2, 3 6, 700000 2" in facts(source, "labels")

    @pytest.mark.parametrize("values", [range(1_600_000_000, 1_600_000_040), [1_600_000_000, 1_600_086_400] * 20])
    def test_a_guessed_column_that_looks_like_none_is_asked_about(self, tmp_path, values):
        path = str(write(tmp_path / "t.parquet", rows=40, names=None, label=None, taken_at=list(values)))
        with pytest.raises(DataError, match=r"(?s)'taken_at' looks like no classes.*data\.label=taken_at"):
            Parquet(path=path).open("train")
        assert Parquet(path=path, label="").class_names() is None
        assert len(Parquet(path=path, label="taken_at").class_names()) == len(set(values))

    def test_a_guessed_column_is_told(self, tmp_path):
        path = str(write(tmp_path / "t.parquet", names=None, label=None, kind=[0, 1] * 5))
        assert "column 'kind' is taken for the label" in notices(Parquet(path=path), "labels")

    def test_minus_one_is_a_class_but_where_the_format_says_otherwise(self, tmp_path):
        values = [-1, 0, 1, -1, 0, 1, -1, 0, 1, 1]
        plain = str(write(tmp_path / "plain.parquet", names=None, label=values))
        hub = str(write(tmp_path / "hub.parquet", names=("cat", "dog"), label=values))
        assert Parquet(path=plain).class_names() == ["-1", "0", "1"]
        assert Parquet(path=plain, unlabelled=-1).class_names() == ["0", "1"]
        source = Parquet(path=hub)
        assert source.class_names() == ["cat", "dog"]
        labels = {i: label for part in both(source) for i, label in zip(part.ids, part.labels, strict=True)}
        assert [labels[f"hub.parquet:{row}"] for row in range(3)] == [None, 0, 1]
        assert "rows without a label: 3 of 10" in notices(source, "labels")

    def test_a_number_beyond_the_names_is_refused(self, tmp_path):
        path = str(write(tmp_path / "t.parquet", names=("cat", "dog"), label=[0, 1, 2] * 3 + [0]))
        with pytest.raises(DataError, match=r"(?s)has no name.*0 to 1.*got: 2"):
            Parquet(path=path).open("train")

    def test_those_of_validation_alone_count_too(self, tmp_path):
        write(tmp_path / "train.parquet", names=None, label=[7, 9] * 5)
        write(tmp_path / "test.parquet", names=None, label=[7, 8] * 5)
        source = Parquet(path=str(tmp_path))
        assert source.class_names() == ["7", "8", "9"]
        assert source.open("val").labels[:2] == [0, 1]


class TestBombs:
    """A dictionary holds a value once that a million rows repeat: a kilobyte on disk decodes to any size."""

    def test_what_decodes_to_too_much_is_refused(self, tmp_path):
        path = tmp_path / "t.parquet"
        table = pa.table({"img": [bytes(1 << 20)] * 40, "label": [0, 1] * 20})
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 4096
        train = Parquet(path=str(path), max_group_mib=8).open
        with pytest.raises(DataError, match=r"(?s)too large.*row group.*at most 8 MiB.*decodes to"):
            train("train")
        # Within the bound it is read, and found to be no image.
        with pytest.raises(DataError, match="isn't an image"):
            Parquet(path=str(path), max_group_mib=64).open("train")

    def test_what_is_very_many_times_the_file_needs_leave(self, tmp_path):
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"img": [bytes(1 << 20)] * 100, "label": [0, 1] * 50}), path, compression="zstd")
        with pytest.raises(DataError, match=r"(?s)at most 64 MiB.*decodes to 64 MiB or more.*max_group_mib"):
            Parquet(path=str(path)).open("train")
        with pytest.raises(DataError, match="isn't an image"):
            Parquet(path=str(path), max_group_mib=128).open("train")

    @pytest.mark.parametrize("column", ["split", "label"])
    def test_text_of_other_columns_has_the_bound_too(self, tmp_path, column):
        table = {"img": [png(1)] * 100, "label": [0, 1] * 50} | {column: ["train" + "n" * (1 << 20)] * 100}
        pq.write_table(pa.table(table), tmp_path / "t.parquet", compression="zstd")
        with pytest.raises(DataError, match=rf"(?s)too large.*column '{column}'.*at most 64 MiB|integer"):
            Parquet(path=str(tmp_path / "t.parquet"), label="label").open("train")

    def test_what_declares_too_much_is_refused_unread(self, tmp_path):
        images = [np.random.default_rng(row).bytes(1 << 20) for row in range(4)]
        pq.write_table(pa.table({"img": images, "label": [0, 1] * 2}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=r"(?s)at most 2 MiB.*declares 4 MiB.*max_group_mib"):
            Parquet(path=str(tmp_path / "t.parquet"), max_group_mib=2).open("train")

    def test_more_rows_than_memory_holds_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("maskedmodel_image.table._MOST_ROWS", 9)
        with pytest.raises(DataError, match="too many rows"):
            Parquet(path=str(write(tmp_path / "t.parquet"))).open("train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("path", [".", "pipe.parquet", "*.parquet"])
def test_a_named_pipe_is_never_waited_for(tmp_path, path):
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(DataError, match=r"named pipe|no parquet files"):
        Parquet(path=str(tmp_path / path)).open("train")


def test_a_folder_called_like_a_file_is_a_folder(tmp_path):
    write(tmp_path / "set.parquet" / "part-0.parquet")
    for path in (tmp_path, tmp_path / "set.parquet"):
        assert sum(len(part) for part in both(Parquet(path=str(path)))) == 10


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path):
    path = write(tmp_path / "t.parquet")
    try:
        os.rename(path, os.path.join(os.fsencode(tmp_path), b"caf\xe9.parquet"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    train, val = both(Parquet(path=str(tmp_path)))
    assert {i.rpartition(":")[0] for i in train.ids + val.ids} == {"caf\\xe9.parquet"}
    assert train[0]["signal"].shape == (3, 8, 8)


@pytest.mark.parametrize("info", [b"[" * 100_000, b"\xff", b'{"info": {"features": {"label": 3}}}', b"[]"])
def test_metadata_of_any_form_spoils_nothing(tmp_path, info):
    path = write(tmp_path / "t.parquet", names=None)
    table = pq.read_table(path).replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)
    assert Parquet(path=str(path)).class_names() == ["0", "1", "2"]


def test_what_else_lies_there_is_told(tmp_path):
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    (tmp_path / "old.arrow").write_text("")
    assert notices(Parquet(path=str(tmp_path)), "files") == "3 files: 2 .parquet read, 1 .arrow ignored"


@pytest.mark.parametrize("column", ["img", "label", "split"])
def test_a_column_that_ends_early_is_refused(tmp_path, monkeypatch, column):
    path = write(tmp_path / "t.parquet", split=["train"] * 7 + ["test"] * 3)

    class Short(pq.ParquetFile):  # type: ignore[name-defined]
        """As a damaged page leaves a column: without its last row, and without an error."""

        def read(self, columns=None, **options):
            table = super().read(columns=columns, **options)
            return table[:-1] if columns == [column] else table

        def iter_batches(self, columns=None, **options):
            batches = super().iter_batches(columns=columns, **options)
            return (batch[:-1] for batch in batches) if columns == [column] else batches

    monkeypatch.setattr(pq, "ParquetFile", Short)
    with pytest.raises(DataError, match=r"(?s)can't be read.*values of \d+ rows"):
        Parquet(path=str(path)).open("train")
