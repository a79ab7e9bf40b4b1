import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from maskedmodel_image.array import Array
from torch.utils.data import DataLoader

from maskedmodel.errors import DataError


def images(dtype="uint8", shape=(20, 3, 4, 6)):
    values = np.random.default_rng(0).random(shape)
    return (values * {"uint8": 255, "uint16": 65535}.get(dtype, 1)).astype(dtype)


def save(path, array):
    np.save(path, array)
    return str(path)


def signals(dataset):
    return {dataset[index]["id"]: dataset[index]["signal"] for index in range(len(dataset))}


def everything(source):
    return {**signals(source.open("train")), **signals(source.open("val"))}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_layouts(tmp_path, layout):
    array = images(shape=(20, 4, 6) if layout == "NHW" else (20, 3, 4, 6))
    stored = array.transpose(0, 2, 3, 1) if layout == "NHWC" else array
    found = everything(Array(path=save(tmp_path / "x.npy", stored), layout=layout))
    assert sorted(found) == list(range(20))
    for index, signal in found.items():
        assert torch.equal(signal, torch.from_numpy(array[index].reshape(-1, 4, 6)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">f4"])
def test_types_keep_their_values(tmp_path, dtype):
    array = images(dtype)
    sample = Array(path=save(tmp_path / "x.npy", array)).open("train")[0]
    expected = array[sample["id"]]
    if dtype == "uint16":
        expected = expected / np.float32(65535)
    assert sample["signal"].dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    np.testing.assert_array_equal(sample["signal"].numpy(), expected.astype("uint8" if dtype == "uint8" else "float32"))


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_other_types_are_refused(tmp_path, dtype):
    with pytest.raises(DataError, match=rf"(?s)type isn't supported.*uint8, uint16.*{dtype}"):
        Array(path=save(tmp_path / "x.npy", images(dtype))).open("train")


def test_an_npz_with_labels(tmp_path):
    array, labels = images(), np.arange(20) % 4
    np.savez_compressed(tmp_path / "x.npz", pictures=array, digits=labels)
    source = Array(path=str(tmp_path / "x.npz"), labels="digits")
    assert source.class_names() == ["0", "1", "2", "3"]
    for split in ("train", "val"):
        own = source.open(split)
        assert all(own[i]["label"] == own[i]["id"] % 4 for i in range(len(own)))
        assert all(torch.equal(own[i]["signal"], torch.from_numpy(array[own[i]["id"]])) for i in range(len(own)))


def test_val_path_with_labels_of_its_own(tmp_path):
    source = Array(
        path=save(tmp_path / "x.npy", images()),
        labels=save(tmp_path / "y.npy", np.arange(20)),
        val_path=save(tmp_path / "vx.npy", images(shape=(5, 3, 4, 6))),
        val_labels=save(tmp_path / "vy.npy", np.arange(5)[::-1]),
    )
    assert len(source.open("train")) == 20
    assert source.open("val")[1]["label"] == 3
    assert source.open("val")[1]["id"] == "val:1"
    with pytest.raises(DataError, match=r"(?s)validation labels are missing.*val_labels"):
        Array(**source.settings.model_dump(exclude={"val_labels"})).open("val")


def test_workers_and_pickles_map_the_file_anew(tmp_path):
    array = images(shape=(200, 3, 16, 16))
    train = Array(path=save(tmp_path / "x.npy", array)).open("train")
    expected = torch.stack([train[i]["signal"] for i in range(len(train))])
    packed = pickle.dumps(train)
    assert len(packed) < 5000 < array.nbytes
    assert torch.equal(pickle.loads(packed)[3]["signal"], expected[3])  # noqa: S301
    batches = list(DataLoader(train, batch_size=32, num_workers=2))
    assert torch.equal(torch.cat([batch["signal"] for batch in batches]), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_name_the_index_when_read(tmp_path, bad):
    array = images("float64")
    array[7, 1, 2, 3] = bad
    source = Array(path=save(tmp_path / "x.npy", array), val_path=save(tmp_path / "v.npy", array[:2]))
    train = source.open("train")
    assert train[6]["id"] == 6
    with pytest.raises(DataError, match=r"(?s)aren't finite.*x\.npy, index 7.*1 of 72 values"):
        train[7]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (images(shape=(20, 4, 6)), r"another shape.*4 axes, NCHW.*\(20, 4, 6\)"),
        (np.zeros((0, 3, 4, 6), dtype=np.uint8), r"x\.npy"),
        (np.array([{"a": 1}], dtype=object), r"pickled objects"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, words):
    with pytest.raises(DataError, match=f"(?s){words}"):
        Array(path=save(tmp_path / "x.npy", array)).open("train")


def claim(shape, data=b"x" * 100):
    """An .npy whose header claims more than follows."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


@pytest.mark.parametrize("shape", [(10**6, 10**3, 10**3, 1), (10**18, 10**18, 3, 3), (101, 1, 1, 1)])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_header_that_claims_too_much_is_refused_before_allocating(tmp_path, shape, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        path.write_bytes(claim(shape))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("pictures.npy", claim(shape))
    with pytest.raises(DataError, match=r"(?s)can't be read"):
        Array(path=str(path)).open("train")


def test_an_array_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", images())
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    with pytest.raises(DataError, match=r"(?s)doesn't fit into memory.*to fix"):
        Array(path=str(tmp_path / "x.npz")).open("train")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, r"Which array.*one of a, b"), ({"key": "c"}, r"Which array.*one of a, b.*'c'")],
)
def test_the_array_of_an_npz_is_named(tmp_path, settings, words):
    np.savez(tmp_path / "x.npz", a=images(), b=images())
    with pytest.raises(DataError, match=f"(?s){words}"):
        Array(path=str(tmp_path / "x.npz"), **settings).open("train")


@pytest.mark.parametrize("labels", [np.arange(19), np.zeros((20, 2), dtype=int), np.zeros(20)])
def test_labels_that_do_not_fit(tmp_path, labels):
    path = save(tmp_path / "y.npy", labels)
    with pytest.raises(DataError, match=r"(?s)labels don't fit.*\(20,\) integers"):
        Array(path=save(tmp_path / "x.npy", images()), labels=path).open("train")


@pytest.mark.parametrize("name", ["missing.npy", "words.npy", "words.npz", "words.pkl"])
def test_files_that_cannot_be_read(tmp_path, name):
    if name != "missing.npy":
        (tmp_path / name).write_text("words")
    with pytest.raises(DataError, match=name.split(".")[0]):
        Array(path=str(tmp_path / name)).open("train")


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "y.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in "xy":
        with pytest.raises(DataError, match="never loaded"):
            Array(path=str(tmp_path / f"{name}.npy")).open("train")
    assert not (tmp_path / "sprung").exists()


def facts(source, about, notice=False):
    return "\n".join(fact.text for fact in source.facts() if fact.about == about and fact.notice >= notice)


def class_of(source):
    """The name of each sample's class, by id."""
    found = {}
    for split in ("train", "val"):
        part = source.open(split)
        for sample_id, label in zip(part.ids, part.labels, strict=True):
            found[sample_id] = None if label is None else source.class_names()[label]
    return found


class TestLabels:
    def test_they_are_the_values_that_occur(self, tmp_path):
        values = np.array([-1, 0, 1, 2**62] * 5)
        np.savez(tmp_path / "x.npz", pictures=images(), y=values)
        source = Array(path=str(tmp_path / "x.npz"), labels="y")
        assert source.class_names() == ["-1", "0", "1", str(2**62)]
        assert class_of(source) == {index: str(value) for index, value in enumerate(values)}
        assert f"4 classes by data.labels: -1 5, 0 5, 1 5, {2**62} 5" in facts(source, "labels")

    @pytest.mark.parametrize("unlabelled", [-1, (-1,)])
    def test_one_may_be_said_to_mean_none(self, tmp_path, unlabelled):
        values = np.array([-1, 0, 1, 0] * 5)
        np.savez(tmp_path / "x.npz", pictures=images(), y=values)
        source = Array(path=str(tmp_path / "x.npz"), labels="y", unlabelled=unlabelled)
        assert source.class_names() == ["0", "1"]
        assert class_of(source) == {n: None if value < 0 else str(value) for n, value in enumerate(values)}
        assert "samples without a label: 5 of 20" in facts(source, "labels", True)


class TestArraysNamedBySplit:
    def put(self, tmp_path, **counts):
        """x_<split> and y_<split> of so many images; the value of a pixel and the label say which it is."""
        arrays = {}
        for number, (split, count) in enumerate(counts.items()):
            arrays[f"x_{split}"] = np.full((count, 1, 4, 4), 10 * number, dtype=np.uint8) + np.arange(
                count, dtype=np.uint8
            ).reshape(-1, 1, 1, 1)
            arrays[f"y_{split}"] = np.arange(count) % 2
        np.savez(tmp_path / "x.npz", **arrays)
        return str(tmp_path / "x.npz")

    @pytest.mark.parametrize(("train", "val"), [("train", "test"), ("Training", "Validation"), ("TRAIN", "dev")])
    def test_they_are_the_splits(self, tmp_path, train, val):
        source = Array(path=self.put(tmp_path, **{train: 5, val: 3}), labels="y")
        assert [signals(source.open("train"))[n][0, 0, 0].item() for n in range(5)] == [0, 1, 2, 3, 4]
        assert [signals(source.open("val"))[f"val:{n}"][0, 0, 0].item() for n in range(3)] == [10, 11, 12]
        assert source.open("val").labels == [0, 1, 0]
        assert f"train 5, val 3: by arrays: train is {train} (5), validation is {val} (3)" in facts(source, "split")

    def test_of_several_one_is_taken_and_told(self, tmp_path):
        path = self.put(tmp_path, train=5, val=3, test=4)
        source = Array(path=path, labels="y")
        assert len(source.open("val")) == 3
        assert "left out: test (4) (data.val_split takes another)" in facts(source, "split", True)
        assert len(Array(path=path, val_split="test").open("val")) == 4

    def test_labels_that_are_not_read_are_told(self, tmp_path):
        source = Array(path=self.put(tmp_path, train=5, test=3))
        assert source.class_names() is None
        assert "arrays y_test, y_train aren't read" in facts(source, "split", True)

    def test_one_array_by_its_whole_name_is_shared_out(self, tmp_path):
        source = Array(path=self.put(tmp_path, train=5, test=3), key="x_train")
        assert len(everything(source)) == 5

    @pytest.mark.parametrize("settings", [{"labels": "z"}, {"val_split": "dev"}, {"train_split": "fit"}])
    def test_what_is_not_there_is_refused(self, tmp_path, settings):
        with pytest.raises(DataError, match=r"no labels of both|no split called|Which array"):
            Array(path=self.put(tmp_path, train=5, test=3), **settings).open("train")


@pytest.mark.parametrize(
    "header",
    [
        b"(" * 5000,
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -3, 4, 1), }\n",
        b"{'descr': 'nothing', 'fortran_order': False, 'shape': (1, 1, 4, 4), }\n",
        b"{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (24, 1, 1, 1), }\n",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 1, 1, 1), }\n",
        b"{'descr': '|u1', 'fortran_order': 1, 'shape': [24], }\n",
        b"{'shape': (" + b"9" * 5000 + b",)}\n",
        b"\xff\xfe'",
        b"[*",
    ],
)
def test_damaged_headers_are_refused(tmp_path, header):
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    with pytest.raises(DataError, match=r"can't be read|isn't supported"):
        Array(path=str(path)).open("train")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(path, "x.npy")
    with pytest.raises(DataError, match=r"can't be read|isn't supported"):
        Array(path=str(tmp_path / "x.npz")).open("train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_named_pipe_is_never_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="named pipe"):
        Array(path=str(tmp_path / name)).open("train")
