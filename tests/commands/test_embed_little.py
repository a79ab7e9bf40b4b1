"""A single new file, and a folder that holds one: as little as somebody may want features of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import maskedmodel
from maskedmodel.errors import DataError
from maskedmodel.plugins import load_registry

TINY: dict[str, Any] = {
    "model": {"encoder": {"dim": 8, "depth": 1, "heads": 1}, "decoder": {"dim": 8, "depth": 1, "heads": 1}},
    "train": {"steps": 1, "batch": 2, "precision": "fp32", "device": "cpu"},
    "evaluate": {"probe": False, "pictures": 0},
}


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    return path


def field(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, np.random.default_rng(seed).integers(0, 255, (2, 16, 16), np.uint16), photometric="minisblack"
    )
    return path


KINDS: dict[str, Any] = {
    "image": (
        picture,
        ".png",
        {"name": "image_folder", "size": None},
        {"name": "image", "size": 16, "patch": 8, "channels": 3, "crop": None},
    ),
    "microscopy": (field, ".tif", {"name": "tiff_folder"}, {"name": "channels", "size": 16, "patch": 8, "channels": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_and_a_folder_of_one_are_embedded(kind: str, tmp_path: Path) -> None:
    make, suffix, data, tokenizer = KINDS[kind]
    for number in range(8):
        make(tmp_path / f"data/{number}{suffix}", number)
    config = {**TINY, "data": {**data, "path": str(tmp_path / "data")}, "tokenizer": tokenizer}
    maskedmodel.pretrain(config, run=tmp_path / "run", quiet=True)
    alone = make(tmp_path / f"new/alone{suffix}", 0)
    of_file = np.load(maskedmodel.embed(tmp_path / "run", alone, to=tmp_path / "file.npz", quiet=True))
    of_folder = np.load(maskedmodel.embed(tmp_path / "run", alone.parent, to=tmp_path / "folder.npz", quiet=True))
    every = np.load(maskedmodel.embed(tmp_path / "run", tmp_path / "data", to=tmp_path / "all.npz", quiet=True))
    assert of_file["feature"].shape == of_folder["feature"].shape == (1, 8)
    assert len(every["id"]) == 8
    same = every["feature"][[str(name) for name in every["id"]].index(f"0{suffix}")]
    for found in (of_file, of_folder):
        np.testing.assert_allclose(found["feature"][0], same, rtol=1e-5, atol=1e-6)


def test_pool_and_layer_of_a_single_file(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / f"data/{number}.png", number)
    kinds: Any = KINDS["image"]
    config = {**TINY, "data": {**kinds[2], "path": str(tmp_path / "data")}, "tokenizer": kinds[3]}
    config["model"] = {**TINY["model"], "encoder": {"dim": 8, "depth": 2, "heads": 1}}
    maskedmodel.pretrain(config, run=tmp_path / "run", quiet=True)
    file, found = tmp_path / "data/3.png", {}
    for pool, layer in (("mean", 1), ("class", -2), ("concat", 1), ("tokens", 1), ("mean", "last")):
        to = tmp_path / f"{pool}{layer}.npz"
        kept = np.load(maskedmodel.embed(tmp_path / "run", file, to=to, pool=pool, layer=layer, quiet=True))  # type: ignore[arg-type]
        about = json.loads(str(kept["about"]))
        assert (about["pool"], about["layer"], about["depth"]) == (pool, layer, 2)
        assert about["width"] == kept["feature"].shape[1]
        found[pool, layer] = kept["feature"]
    assert found["tokens", 1].shape == (4, 8)
    np.testing.assert_allclose(found["tokens", 1].mean(0), found["mean", 1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["concat", 1], np.concatenate([found["class", -2], found["mean", 1]], 1), rtol=1e-5)
    assert not np.allclose(found["mean", 1], found["mean", "last"])
    for wrong in ({"layer": 3}, {"pool": "max"}):
        with pytest.raises(maskedmodel.MaskedModelError):
            maskedmodel.embed(tmp_path / "run", file, to=tmp_path / "no.npz", quiet=True, **wrong)
        assert not (tmp_path / "no.npz").exists()


def test_a_run_of_made_up_data_takes_files_of_the_kind_that_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own source reads no files; a single one, with names of its own for channels, and a folder of it, are read."""
    tokenizer = {"name": "channels", "size": 16, "patch": 8, "channels": 3}
    data = {"name": "stains", "size": 16, "train_samples": 4, "val_samples": 2}
    maskedmodel.pretrain({**TINY, "data": data, "tokenizer": tokenizer}, run=tmp_path / "run", quiet=True)
    alone = tmp_path / "new/alone.ome.tif"
    alone.parent.mkdir()
    values = np.random.default_rng(0).integers(0, 255, (2, 16, 16), np.uint8)
    tifffile.imwrite(alone, values, metadata={"axes": "CYX", "Channel": {"Name": ["DNA", "Actin"]}})
    with pytest.raises(maskedmodel.MaskedModelError, match="unclear how to read") as caught:
        maskedmodel.embed(tmp_path / "run", alone, to=tmp_path / "file.npz", quiet=True)
    assert caught.value.fix == "Say which data source reads it: data.name=NAME."
    to, said = tmp_path / "new.npz", ["data.name=tiff_folder"]
    of_file, of_folder = (
        np.load(maskedmodel.embed(tmp_path / "run", path, to=to, overrides=said, quiet=True))["feature"]
        for path in (alone, alone.parent)
    )
    assert of_file.shape == (1, 8)
    np.testing.assert_array_equal(of_file, of_folder)
    assert caplog.messages == [
        "1 of 1 samples: not among data.channel_names, so a model doesn't know them: Actin, DNA",
        "channels: of 1 files: not among data.channel_names, so a model doesn't know them: Actin, DNA",
    ]
    caplog.clear()
    assert maskedmodel.reconstruct(tmp_path / "run", [alone], overrides=said, out=tmp_path / "a.png").exists()
    assert "doesn't know them: Actin, DNA" in caplog.text


def test_a_channel_goes_by_its_name_into_a_run_of_another_kind_of_source(tmp_path: Path) -> None:
    """DAB is the second channel of the run's own data, wherever it lies in a file."""
    tokenizer = {"name": "channels", "size": 16, "patch": 8, "channels": 3}
    data = {"name": "stains", "size": 16, "train_samples": 4, "val_samples": 2}
    maskedmodel.pretrain({**TINY, "data": data, "tokenizer": tokenizer}, run=tmp_path / "run", quiet=True)
    values = np.random.default_rng(0).integers(0, 255, (2, 16, 16), np.uint8)
    found = []
    for names, planes in ((["DAB", "haematoxylin"], values), (["haematoxylin", "DAB"], values[::-1])):
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        tifffile.imwrite(tmp_path / "field.ome.tif", planes, metadata=metadata)
        to, said = tmp_path / "new.npz", ["data.name=tiff_folder"]
        features = maskedmodel.embed(tmp_path / "run", tmp_path / "field.ome.tif", to=to, overrides=said, quiet=True)
        found.append(np.load(features)["feature"])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_named_file_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, suffix, data, tokenizer = KINDS["image"]
    for number in range(8):
        make(tmp_path / f"data/{number}{suffix}", number)
    config = {**TINY, "data": {**data, "path": str(tmp_path / "data")}, "tokenizer": tokenizer}
    maskedmodel.pretrain(config, run=tmp_path / "run", quiet=True)
    source = load_registry().get("data_source", "image_folder")
    real = source.read
    monkeypatch.setattr(source, "read", lambda self, path: (time.sleep(60), real(self, path))[1])
    file, limit = make(tmp_path / f"new{suffix}", 0), ("train.data_timeout=0.2",)
    calls: tuple[Callable[[], object], ...] = (
        lambda: maskedmodel.embed(tmp_path / "run", file, to=tmp_path / "out.npz", overrides=limit, quiet=True),
        lambda: maskedmodel.reconstruct(tmp_path / "run", [file], overrides=limit),
    )
    for call in calls:
        with pytest.raises(DataError, match=r"longer than 0\.2 s(.|\n)*new\.png(.|\n)*train\.data_timeout"):
            call()
