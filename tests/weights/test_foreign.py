from __future__ import annotations

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from maskedmodel.errors import CheckpointError
from maskedmodel.weights.foreign import read


class Payload:
    """What a malicious pickle holds: opening it would write a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.canary, "touched")


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("form", ["plain", "torch", "legacy torch", "beside good tensors"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, name: str, form: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    held: Any = Payload(canary)
    if form == "beside good tensors":
        held = {"model": {"a": torch.ones(2)}, "args": held}
    if form == "plain":
        path.write_bytes(pickle.dumps(held, protocol=2))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=form != "legacy torch")
    with pytest.raises(CheckpointError, match="isn't read in any other way"):
        read(path)
    assert not canary.exists()
    with path.open("rb") as file, suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert canary.exists()  # the payload works where it is let


def test_a_refusal_says_what_was_refused(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "canary"), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"got: Unsupported global"):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_pickle_is_read_whatever_its_name(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"state_dict": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=new)
    found = read(path)
    assert torch.equal(found.tensors["a"], torch.ones(2))
    assert "pickle in spite of its name" in found.notes[0]


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth").container == "safetensors"


@pytest.mark.parametrize("keep", [0, 4, 8, 9, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(50), "b": torch.ones(50)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged|no weights file"):
        read(path)


@pytest.mark.parametrize("keep", [10, 200, -30])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_truncated_pickle_is_refused(tmp_path: Path, keep: int, new: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(50)}, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError):
        read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html><title>Not found", "no weights file"),
        (b"\xff" * 8 + b"{}", "no weights file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read(tmp_path / "w.safetensors")


@pytest.mark.parametrize("held", [[torch.ones(2)], torch.ones(2), {}, {"epoch": 3}, {"model": {"epoch": 3}}])
def test_a_pickle_without_a_state_dict_is_refused(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"no state dict|no tensors"):
        read(tmp_path / "w.pth")


def test_a_pickle_that_contains_itself_ends(tmp_path: Path) -> None:
    held: dict[str, Any] = {}
    held["model"] = held
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read(tmp_path / "w.pth")


def test_entries_that_are_no_tensors_are_listed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "epoch": 3}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth").others == ("epoch",)


def test_names_that_differ_by_wrappers_alone_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "_orig_mod.a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="same name"):
        read(tmp_path / "w.safetensors")


def test_a_folder_with_one_file_is_enough(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "anything.safetensors")
    assert list(read(tmp_path).tensors) == ["a"]
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"got: anything\.safetensors, other\.safetensors"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"a": "../outside.safetensors"}, "outside its folder"),
        ({"a": "/outside.safetensors"}, "outside its folder"),
        ({"a": "sub/one.safetensors"}, "outside its folder"),
        ({"a": ".."}, "outside its folder"),
        ({"a": "two.safetensors"}, "missing"),
        ({"b": "one.safetensors"}, "tensors that its files don't hold"),
        ({}, "names no files"),
        ({"a": 3}, "names no files"),
        ([], "names no files"),
    ],
)
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, places: object, said: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=said):
        read(folder)


def test_a_missing_path_names_itself(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing is ever downloaded") as caught:
        read(tmp_path / "weights.pth")
    assert str(tmp_path / "weights.pth") in str(caught.value)
    assert "hf download" not in str(caught.value)
