import io
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
