import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from maskedmodel_image.folder import ImageFolder, ImageFolderSettings
from PIL import Image
from pydantic import ValidationError
from torch.utils.data import DataLoader

from maskedmodel.errors import DataError


def put(root, *paths, size=(8, 8)):
    """Write pictures whose colour is their place in `paths`."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * number, 5, 7)).save(root / path)
    return root


def zipped(root, target):
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent).as_posix())
    return target


def source(path, **settings):
    return ImageFolder(path=str(path), **{"size": 8, **settings})


def ids(path, **settings):
    own = source(path, **settings)
    return {split: list(own.open(split).ids) for split in ("train", "val")}


def everything(path):
    return sorted(name for split in ids(path).values() for name in split)


@pytest.fixture(params=["folder", "zip"])
def form(request, tmp_path):
    """The same pictures as a folder, or as a zip with the folder inside."""
    return lambda root: root if request.param == "folder" else zipped(root, tmp_path / "pictures.zip")


def test_a_flat_folder_is_unlabelled(tmp_path, form):
    path = form(put(tmp_path / "flat", *(f"{index}.png" for index in range(20))))
    own = source(path)
    train, val = own.open("train"), own.open("val")
    assert own.class_names() is None
    assert len(train) + len(val) == 20
    assert len(val) >= 1
    sample = train[0]
    assert sample["signal"].dtype == torch.uint8
    assert sample["signal"].shape == (3, 8, 8)
    assert "label" not in sample
    number = int(sample["id"].split("/")[-1].removesuffix(".png"))
    assert sample["signal"][:, 0, 0].tolist() == [10 * number, 5, 7]


def test_sub_folders_are_classes(tmp_path, form):
    root = put(tmp_path / "pets", "dog/a.png", "cat/x/b.png", "cat/c.PNG", "dog/d.jpg", "cat/e.webp", "dog/f.bmp")
    own = source(form(root), val_share=0.4)
    assert own.class_names() == ["cat", "dog"]
    samples = [split[index] for split in (own.open("train"), own.open("val")) for index in range(len(split))]
    assert len(samples) == 6
    assert all(own.class_names()[sample["label"]] in sample["id"] for sample in samples)


def test_train_and_val_folders_are_the_splits(tmp_path, form):
    root = put(tmp_path / "set", "train/cat/a.png", "train/dog/b.png", "val/dog/c.png", "test/cat/d.png")
    own = source(form(root))
    train, val = own.open("train"), own.open("val")
    assert [sample.split("/")[-1] for sample in train.ids + val.ids] == ["a.png", "b.png", "c.png"]
    assert train.labels == [0, 1]
    assert val.labels == [1]


def test_test_stands_in_for_val(tmp_path):
    own = source(put(tmp_path, "train/a.png", "train/b.png", "test/c.png"))
    assert own.open("val").ids == ["test/c.png"]
    assert own.class_names() is None


def test_val_path_may_hold_one_class(tmp_path):
    put(tmp_path / "one", "cat/a.png", "dog/b.png")
    put(tmp_path / "two", "dog/c.png")
    own = source(tmp_path / "one", val_path=str(tmp_path / "two"))
    assert own.open("train").labels == [0, 1]
    assert own.open("val").labels == [1]


def test_ids_of_val_path_differ_from_those_of_path(tmp_path):
    put(tmp_path / "one", "a.png", "b.png")
    put(tmp_path / "two", "a.png")
    own = source(tmp_path / "one", val_path=str(tmp_path / "two"))
    assert own.open("train").ids == ["a.png", "b.png"]
    assert own.open("val").ids == ["val:a.png"]


def test_a_file_that_is_named_is_read_as_the_source_would(tmp_path):
    root = put(tmp_path, "a.png", "b.png", "c.png", size=(30, 20))
    train = source(root).open("train")
    sample = source(root).read(root / train.ids[0])
    assert torch.equal(sample["signal"], train[0]["signal"])
    (root / "words.png").write_text("words")
    for path in (root / "words.png", root / "missing.png", root):
        with pytest.raises(DataError, match=path.name):
            source(root).read(path)


def test_it_recognises_folders_and_zips_of_images(tmp_path):
    put(tmp_path / "set", "deep/a.png")
    (tmp_path / "none").mkdir()
    assert ImageFolder.recognises(tmp_path / "set")
    assert ImageFolder.recognises(tmp_path / "set.zip")
    assert not ImageFolder.recognises(tmp_path / "none")
    assert not ImageFolder.recognises(tmp_path / "x.npy")


def test_a_validation_class_without_training_images_is_an_error(tmp_path):
    root = put(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cow/c.png")
    with pytest.raises(DataError, match=r"(?s)belongs to no class.*val/cow/c.png.*cat, dog"):
        source(root).open("val")


def test_adding_a_file_moves_no_other(tmp_path):
    before = ids(put(tmp_path, *(f"{index}.png" for index in range(40))))
    after = ids(put(tmp_path, *(f"new{index}.png" for index in range(10))))
    assert set(before["train"]) <= set(after["train"])
    assert set(before["val"]) <= set(after["val"])


def test_ragged_files_batch_through_workers(tmp_path, form):
    root = tmp_path / "ragged"
    for number, size in enumerate([(8, 8), (30, 9), (5, 40), (17, 17), (100, 3), (8, 16)]):
        put(root, f"{number}.png", size=size)
    own = source(form(root), val_share=0.01).open("train")
    batches = list(DataLoader(own, batch_size=2, num_workers=2))
    assert sum(len(batch["id"]) for batch in batches) == 5
    assert all(batch["signal"].shape[1:] == (3, 8, 8) for batch in batches)


def test_it_survives_a_pickle_while_open(tmp_path, form):
    train = source(form(put(tmp_path / "set", "abc.png", "bcd.png", "cde.png"))).open("train")
    first = train[0]["signal"]
    assert torch.equal(pickle.loads(pickle.dumps(train))[0]["signal"], first)  # noqa: S301


def test_hidden_files_and_other_kinds_are_passed_over(tmp_path):
    root = put(tmp_path, "a.png", "b.png", "._a.png", ".cache/c.png")
    (root / "notes.txt").write_text("words")
    assert everything(root) == ["a.png", "b.png"]


def test_a_link_back_up_ends(tmp_path):
    root = put(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    assert everything(root) == ["a/1.png", "b/2.png"]


def test_paths_may_start_at_home_or_here(tmp_path, monkeypatch):
    put(tmp_path / "set", "a.png", "b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert ids("~/set") == ids("set") == ids(tmp_path / "set")


def test_an_empty_folder_names_path_and_extensions(tmp_path):
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match=rf"(?s)no images.*{tmp_path}.*\.png \.jpg"):
        source(tmp_path).open("train")


def test_a_missing_path_says_where_relative_ones_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"(?s)can't be read.*nowhere.*No such file.*{tmp_path}"):
        source("nowhere").open("train")


def test_one_image_is_no_folder(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"(?s)is a file.*a folder, a \.zip or a \.tar"):
        source(tmp_path / "a.png").open("train")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_an_error(tmp_path):
    put(tmp_path / "shut", "a.png")
    (tmp_path / "shut").chmod(0)
    with pytest.raises(DataError, match="can't be read"):
        source(tmp_path / "shut").open("train")


def test_a_broken_file_is_an_error_when_it_is_read(tmp_path, form):
    root = put(tmp_path / "set", "a.png", "b.png", "c.png")
    (root / "b.png").write_text("words")
    own = source(form(root), val_path=str(put(tmp_path / "val", "v.png"))).open("train")
    assert len(own) == 3
    with pytest.raises(DataError, match=r"(?s)isn't an image.*b\.png"):
        own[1]
    assert own[2]["id"].endswith("c.png")


def test_where_nothing_is_an_image_opening_says_so(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text("words")
    with pytest.raises(DataError, match=r"(?s)isn't an image.*a\.png"):
        source(tmp_path).open("train")


def test_a_vanished_file_is_an_error(tmp_path):
    train = source(put(tmp_path, "a.png", "b.png", "c.png")).open("train")
    (tmp_path / train.ids[0]).unlink()
    with pytest.raises(DataError, match=r"(?s)can't be read.*No such file"):
        train[0]


def test_memory_and_cache_exclude_each_other():
    with pytest.raises(ValidationError, match="choose one"):
        ImageFolderSettings(path="x", memory=True, cache="y")


def test_memory_gives_the_same_samples(tmp_path):
    root = put(tmp_path, "a.png", "b.png", "c.png", "d.png")
    lazy, stored = source(root).open("train"), source(root, memory=True).open("train")
    assert all(torch.equal(lazy[i]["signal"], stored[i]["signal"]) for i in range(len(lazy)))
    assert lazy.ids == stored.ids


class TestUnsafeZips:
    def make(self, tmp_path, *members, **options):
        """A zip with two good images and the given (ZipInfo or name, bytes)."""
        path = tmp_path / "set.zip"
        image = put(tmp_path, "good.png") / "good.png"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(image, "good1.png")
            archive.write(image, "good2.png")
            for name, data in members:
                archive.writestr(name, data)
        return path

    @pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "..\\evil.png", "C:\\evil.png"])
    def test_paths_that_lead_out(self, tmp_path, name):
        with pytest.raises(DataError, match=r"(?s)isn't safe.*leads out.*evil\.png"):
            source(self.make(tmp_path, (name, b"x"))).open("train")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_names_that_occur_twice(self, tmp_path):
        with pytest.raises(DataError, match=r"(?s)occurs twice.*good1\.png"):
            source(self.make(tmp_path, ("good1.png", b"x"))).open("train")

    def test_links(self, tmp_path):
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        with pytest.raises(DataError, match=r"(?s)a link.*link\.png"):
            source(self.make(tmp_path, (link, "/etc/hosts"))).open("train")

    def test_absurd_ratios(self, tmp_path):
        with pytest.raises(DataError, match=r"(?s)times what is stored.*zeros\.png"):
            source(self.make(tmp_path, ("zeros.png", bytes(1 << 25)))).open("train")

    def test_absurd_sizes(self, tmp_path):
        path = self.make(tmp_path, ("large.png", b"x" * 64))
        data = bytearray(path.read_bytes())
        place = data.rindex(b"PK\x01\x02")
        data[place + 24 : place + 28] = (1 << 30).to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"(?s)declared size of 1073741824.*large\.png"):
            source(path).open("train")

    def test_a_file_that_is_no_zip(self, tmp_path):
        (tmp_path / "set.zip").write_text("words")
        with pytest.raises(DataError, match=r"(?s)zip can't be read.*set\.zip"):
            source(tmp_path / "set.zip").open("train")

    def test_a_member_of_damaged_bytes(self, tmp_path):
        path = self.make(tmp_path)
        data = bytearray(path.read_bytes())
        place = data.index(b"good1.png") + 30
        data[place : place + 20] = bytes(20)
        path.write_bytes(data)
        own = source(path, dtype="uint8", val_path=str(tmp_path / "good.png").removesuffix("/good.png")).open("train")
        with pytest.raises(DataError, match=r"(?s)can't be read out of the zip.*good1\.png"):
            own[0]
        assert own[1]["id"] == "good2.png"


class TestCache:
    def test_it_gives_the_same_samples_from_a_memory_map(self, tmp_path):
        root, cache = put(tmp_path / "set", *(f"{i}.png" for i in range(12))), str(tmp_path / "cache")
        lazy, stored = source(root), source(root, cache=cache)
        for split in ("train", "val"):
            a, b = lazy.open(split), stored.open(split)
            assert a.ids == b.ids
            assert all(torch.equal(a[i]["signal"], b[i]["signal"]) for i in range(len(a)))
        arrays = sorted((tmp_path / "cache").glob("*.npy"))
        assert len(arrays) == 2
        assert np.load(arrays[0], mmap_mode="r").dtype == np.uint8
        assert len(pickle.dumps(stored.open("train"))) < 3000

    def test_it_is_written_once_and_again_when_something_changed(self, tmp_path):
        root, cache = put(tmp_path / "set", "a.png", "b.png", "c.png"), tmp_path / "cache"
        source(root, cache=str(cache)).open("train")
        first = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
        source(root, cache=str(cache)).open("train")
        assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == first
        assert source(root, cache=str(cache), size=6).open("train")[0]["signal"].shape == (3, 6, 6)
        assert not set(first) & {path.name for path in cache.glob("*.npy")}
        changed = source(root).open("train").ids[0]
        Image.new("RGB", (8, 8), (99, 99, 99)).save(root / changed)
        os.utime(root / changed, ns=(1, 1))
        assert (source(root, cache=str(cache)).open("train")[0]["signal"] == 99).all()
        assert len(list(cache.iterdir())) == 2

    def test_a_broken_image_is_an_error_each_time_it_is_read(self, tmp_path):
        root = put(tmp_path / "set", "a.png", "b.png", "c.png")
        (root / "b.png").write_text("words")
        val = str(put(tmp_path / "val", "v.png"))
        for _ in range(2):  # building and reopening
            own = source(root, val_path=val, cache=str(tmp_path / "cache")).open("train")
            for _ in range(2):
                with pytest.raises(DataError, match=r"(?s)isn't an image.*b\.png.*to fix"):
                    own[1]
            assert own[2]["signal"][0, 0, 0] == 20

    @pytest.mark.parametrize("damage", ["array", "index", "index words"])
    def test_a_damaged_cache_is_built_again(self, tmp_path, damage):
        root, cache = put(tmp_path / "set", "a.png", "b.png", "c.png"), tmp_path / "cache"
        expected = source(root, cache=str(cache)).open("train")[0]["signal"]
        if damage == "array":
            array = next(cache.glob("*.npy"))
            array.write_bytes(array.read_bytes()[:-50])
        else:
            (cache / "train.json").write_text("{" if damage == "index" else "[]")
        assert torch.equal(source(root, cache=str(cache)).open("train")[0]["signal"], expected)

    def test_a_failed_write_is_one_error_and_leaves_nothing(self, tmp_path, monkeypatch):
        root, cache = put(tmp_path / "set", "a.png", "b.png"), tmp_path / "cache"

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"(?s)can't be written.*No space left.*data.cache"):
            source(root, cache=str(cache)).open("train")
        assert list(cache.iterdir()) == []

    def test_a_file_in_its_place_is_an_error(self, tmp_path):
        root = put(tmp_path / "set", "a.png", "b.png")
        (tmp_path / "cache").write_text("words")
        with pytest.raises(DataError, match="can't be written"):
            source(root, cache=str(tmp_path / "cache")).open("train")
