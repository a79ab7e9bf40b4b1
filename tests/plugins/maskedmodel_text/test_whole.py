"""Text from the command line: a run on a folder, features and pictures of files, exports, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskedmodel
from maskedmodel.errors import CheckpointError, ConfigError

TINY = {"encoder": {"dim": 24, "depth": 1, "heads": 2}, "decoder": {"dim": 16, "depth": 1, "heads": 2}}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for kind, words in (("counting", "one two three four five "), ("weather", "rain and sun and snow ")):
        (folder / kind).mkdir()
        for number in range(8):
            (folder / kind / f"{number}.txt").write_text(words * (2 + number % 3), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {
        "data": {"name": "text_folder", "path": str(texts), "length": 48, "val_share": 0.3},
        "tokenizer": {"name": "bytes", "length": 48},
        "mask": {"name": "spans", "ratio": 0.3},
        "objective": {"name": "codes"},
        "model": TINY,
        "train": {"steps": 3, "batch": 6},
        "evaluate": {"probe": False},
    }
    folder = tmp_path_factory.mktemp("run") / "run"
    maskedmodel.pretrain(config, run=folder, quiet=True)
    return folder


def test_files_have_features_and_pictures(run: Path, texts: Path, tmp_path: Path) -> None:
    files = [texts / "counting" / "0.txt", texts / "weather" / "5.txt"]
    features = np.load(maskedmodel.embed(run, files[0], to=tmp_path / "features.npz", quiet=True))
    assert features["feature"].shape == (1, 24)
    assert Image.open(maskedmodel.reconstruct(run, files)).width > 500
    assert maskedmodel.preview(run / "config.yaml", out=tmp_path / "preview.png").is_file()


def test_a_folder_is_embedded_with_its_labels(run: Path, texts: Path, tmp_path: Path) -> None:
    features = np.load(maskedmodel.embed(run, texts, to=tmp_path / "features.npz", quiet=True))
    assert set(features["label"].tolist()) == {0, 1}


@pytest.mark.parametrize("target", ["torch", pytest.param("onnx", marks=pytest.mark.slow), "safetensors"])
def test_the_encoder_with_its_table_is_exported(run: Path, target: str, tmp_path: Path) -> None:
    maskedmodel.export(run, target, out=tmp_path / target)
    assert list((tmp_path / target).iterdir())


@pytest.mark.parametrize("target", ["huggingface", "timm"])
def test_what_has_no_table_refuses_it(run: Path, target: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)bytes"):
        maskedmodel.export(run, target, out=tmp_path / target)


def test_mixing_two_ids_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)nothing between two ids.*adapt\.mixup=0"):
        maskedmodel.finetune(run, run=tmp_path / "fine", overrides=["adapt.mixup=0.4", "train.steps=2"], quiet=True)


def test_amounts_are_not_learned_from_ids(texts: Path, tmp_path: Path) -> None:
    config = {
        "data": {"name": "text_folder", "path": str(texts)},
        "tokenizer": {"name": "bytes"},
        "model": TINY,
        "train": {"steps": 1, "batch": 4},
    }
    with pytest.raises(ConfigError, match=r"(?s)values are ids.*objective\.name=codes"):
        maskedmodel.pretrain(config, run=tmp_path / "run", quiet=True)
