"""Safe reading of foreign weights: no code in a file runs, whatever its name says it is.

What a file is, is told by its first bytes. A pickle is read by torch's restricted unpickler alone; what that refuses is
refused, there is no second way.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maskedmodel.errors import CheckpointError, DataError
from maskedmodel.files import path_of
from maskedmodel.sources import open_regular, parsing

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_USUAL = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WRAPPERS = ("model", "state_dict", "module")
_WRAPPED_DEEP = 4  # a pickle may contain itself
_HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors format

Kind = Literal["safetensors", "zip", "pickle"]


@dataclass(frozen=True)
class Foreign:
    """The tensors of a foreign file or folder by cleaned name, and what lay beside them.

    config     the content of config.json, where there is one.
    processor  the content of preprocessor_config.json, where there is one.
    arguments  of the training run, where the file recorded them.
    others     names of entries among the tensors that are none.
    left_out   names of tensors that an importer knows and has no use for, such as a classifier's head.
    """

    tensors: dict[str, Tensor]
    source: str
    container: str
    config: dict[str, Any] | None = None
    processor: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read(path: str | Path) -> Foreign:
    """Read a weights file, or a folder of weights with its config.json.

    Raises CheckpointError where there is nothing, nothing readable, or a pickle that holds more than tensors and
    plain values.
    """
    path = existing(path)
    file = _weights_in(path) if path.is_dir() else path
    folder = path if path.is_dir() else path.parent
    found = _sharded(file) if file.name.endswith(".index.json") else _read_file(file)
    config = folder / "config.json"
    processor = folder / "preprocessor_config.json"
    return replace(
        found,
        source=str(path),
        config=read_json(config) if config.is_file() else None,
        processor=read_json(processor) if processor.is_file() else {},
    )


def existing(path: str | Path) -> Path:
    """The path, if something is there. Raises CheckpointError that says nothing is downloaded."""
    found = path_of(path)
    if found.exists():
        return found
    text = str(path)
    fix = "Check the path."
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and Path(text).suffix not in SUFFIXES:
        name = text.partition("/")[2]
        fix = f"Check the path, or download it first with `hf download {text} --local-dir {name}` and give that folder."
    raise CheckpointError("There is no such file or folder, and nothing is ever downloaded.", where=text, fix=fix)


def _weights_in(folder: Path) -> Path:
    for name in _USUAL:
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(candidates) == 1:
        return candidates[0]
    raise CheckpointError(
        "Which file of this folder holds the weights?" if candidates else "This folder holds no weights.",
        where=folder,
        expected=f"one of {', '.join(_USUAL)}, or a single file of {', '.join(SUFFIXES)}",
        got=", ".join(path.name for path in candidates) or "none",
        fix="Give the path of the file itself." if candidates else None,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "This file isn't readable JSON.", where=path, got=f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError("This file holds no JSON object.", where=path, got=type(value).__name__)
    return value


def _sharded(index: Path) -> Foreign:
    """The tensors that an index spreads over several files of its folder."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError("The index names no files.", where=index, expected='"weight_map": {tensor: file, ...}')
    shards: dict[str, Foreign] = {}
    for name in sorted(set(places.values())):
        if re.fullmatch(r"[\w][\w.-]*", name) is None:
            raise CheckpointError(
                "The index names a file outside its folder.", where=index, expected="bare file names", got=repr(name)
            )
        if not (index.parent / name).is_file():
            raise CheckpointError("A file that the index names is missing.", where=index, got=name)
        shards[name] = _read_file(index.parent / name, clean=False)
    lost = sorted(key for key, name in places.items() if key not in shards[name].tensors)
    if lost:
        raise CheckpointError(
            "The index names tensors that its files don't hold.", where=index, got=f"{len(lost)}, such as {lost[0]}"
        )
    tensors = {key: shards[name].tensors[key] for key, name in places.items()}
    first = next(iter(shards.values()))
    return replace(
        first,
        tensors=_cleaned(tensors, index),
        container=f"{len(shards)} shards, {first.container}",
        notes=tuple(dict.fromkeys(note for shard in shards.values() for note in shard.notes)),
    )


def _read_file(path: Path, clean: bool = True) -> Foreign:
    kind = _kind(path)
    notes: tuple[str, ...] = ()
    if kind == "safetensors":
        try:
            loaded: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                "The safetensors file is damaged, perhaps cut off.",
                where=path,
                got=str(error),
                fix="Download or copy it again.",
            ) from error
        container = "safetensors"
    else:
        loaded = _unpickled(path, mapped=kind == "zip")
        container = "pickle, read as weights only"
        if path.suffix == ".safetensors":
            notes = (f"{path.name} is a pickle in spite of its name; it was read as weights only.",)
    state, arguments = _unwrapped(loaded, path)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor) and not value.is_meta}
    others = tuple(str(key) for key in state if str(key) not in tensors)
    if not tensors:
        raise CheckpointError("There are no tensors in this file.", where=path, got=", ".join(others[:5]) or "nothing")
    if clean:
        tensors = _cleaned(tensors, path)
    return Foreign(tensors, str(path), container, arguments=arguments, others=others, notes=notes)


def _kind(path: Path) -> Kind:
    """What the first bytes say the file is. Raises CheckpointError where they say nothing known."""
    try:
        with open_regular(path) as file, parsing("The file can't be read.", path):
            head = file.read(64)
    except DataError as error:
        raise CheckpointError(error.what, where=path, expected=error.expected, got=error.got) from error
    # safetensors: the length of the header in 8 bytes, then the header, a JSON object.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER_LIMIT:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:
        return "pickle"
    got = f"a file that begins with {head[:16]!r}"
    fix = "Download or copy it again."
    if not head:
        got = "an empty file"
    elif head.startswith(b"version https://git-lfs"):
        got, fix = "a Git LFS pointer instead of the file itself", "Fetch the file with `git lfs pull`."
    raise CheckpointError(
        "This is no weights file.", where=path, expected="safetensors, or what torch.save writes", got=got, fix=fix
    )


def _unpickled(path: Path, mapped: bool) -> Any:
    """What torch.save wrote, tensors and plain values only. Raises CheckpointError on everything else."""
    try:
        # Training checkpoints of MAE hold their arguments as a Namespace: a class that only keeps what it is given.
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
            # By its path torch can map a zip into memory, but it reads whatever is named .safetensors as such.
            mapped = mapped and path.suffix != ".safetensors"
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle may fail in any way
        reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        lines = reason.strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            "This pickle can't be read as weights only, and it isn't read in any other way.",
            where=path,
            expected="tensors and plain values: a pickle may hold code that runs when it is opened",
            got=lines[0][:300],
            fix="If it isn't damaged and you trust it, save its state dict as safetensors where you made it.",
        ) from error


def _unwrapped(loaded: Any, path: Path) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """The innermost state dict, and the training arguments beside it."""
    arguments: dict[str, Any] = {}
    for _ in range(_WRAPPED_DEEP):
        if not isinstance(loaded, Mapping):
            break
        given = loaded.get("args")
        if isinstance(given, argparse.Namespace | Mapping):
            arguments = dict(given) if isinstance(given, Mapping) else vars(given)
        inner = next((loaded[name] for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            return loaded, arguments
        loaded = inner
    raise CheckpointError(
        "There is no state dict in this file.",
        where=path,
        expected=f"tensors by name, perhaps under {', '.join(_WRAPPERS)}",
        got=type(loaded).__name__,
    )


def _cleaned(tensors: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """Names without what DataParallel and torch.compile put before them."""
    cleaned = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    while cleaned and all(key.startswith("module.") for key in cleaned):
        cleaned = {key.removeprefix("module."): value for key, value in cleaned.items()}
    if len(cleaned) < len(tensors):
        raise CheckpointError("Two tensors of this file have the same name but for wrappers' prefixes.", where=where)
    return cleaned


def cleaned_state(state: Mapping[str, Tensor], source: str) -> Foreign:
    """The tensors of a model in memory, wrappers' prefixes taken off."""
    return Foreign(_cleaned(state, source), source, "in memory")
