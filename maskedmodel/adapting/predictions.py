"""Predictions of many samples, to a file: in pieces that a killed process leaves for the next one to go on from."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.components import SampleDataset
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.errors import DataError, DependencyError, PluginError, install_hint
from maskedmodel.files import replacing, spreadsheet_cell
from maskedmodel.tasks import Task
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.fingerprint import fingerprint
from maskedmodel.training.labelled import Subset
from maskedmodel.training.memory import Fitting
from maskedmodel.training.supervised import predictions_of

PIECE = 2048  # samples
SUFFIXES = (".parquet", ".csv")
Columns = Mapping[str, Tensor | Sequence[str]]


def check_target(path: Path) -> Path:
    """The path as given. Raises DataError where predictions can't be written to it, before anything is predicted."""
    if path.suffix not in SUFFIXES:
        raise DataError(
            "Predictions can't be written to a file of this kind.",
            where=path,
            expected=" or ".join(SUFFIXES),
            got=path.suffix or "no suffix",
        )
    if not path.parent.is_dir():
        raise DataError("There is no such folder.", where=path.parent, fix="Make it first, or name another with --to.")
    if path.suffix == ".parquet":
        _pyarrow()
    return path


def write_predictions(
    model: FineTuned,
    datasets: Sequence[SampleDataset],
    path: Path,
    key: str,
    reading: Reading,
    precision: str = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Predict every sample and write the columns that the task gives; returns the number of rows.

    key  what tells this model from another: pieces of an earlier, killed call of the same model and data are used.

    A sample that can't be read is treated as `reading` says. Memory holds one piece at a time. Raises DataError where
    the file can't be written.
    """
    total = sum(len(dataset) for dataset in datasets)
    known = [key, reading.on_bad_sample, *(fingerprint(dataset, reading.timeout) for dataset in datasets)]
    told = hashlib.sha256("/".join(known).encode()).hexdigest()[:16]
    folder = path.with_name(f".{path.name}.{told}.pieces")
    done = rows = 0
    pieces: list[Path] = []
    try:
        folder.mkdir(exist_ok=True)
        for number, dataset in enumerate(datasets):
            for start in range(0, len(dataset), PIECE):
                chosen = range(start, min(start + PIECE, len(dataset)))
                piece = folder / f"{number}-{start:012d}.npz"
                if not piece.exists():
                    _predict(model, Subset(dataset, chosen), piece, reading, precision, maps_of(path))
                pieces.append(piece)
                done += len(chosen)
                if progress is not None:
                    progress(done, total)
        with replacing(path) as file:
            writer = _Parquet(file) if path.suffix == ".parquet" else _Csv(file)
            for columns in map(_read, pieces):
                if columns:
                    writer.write(columns)
                    rows += len(columns["id"])
            writer.close()
    except OSError as error:
        raise DataError(
            "The predictions can't be written.",
            where=path,
            got=error.strerror or error,
            fix="Name a folder that may be written to and has room, then run the same command again: it goes on.",
        ) from error
    for leftover in path.parent.glob(f".{path.name}.*.pieces"):
        with suppress(OSError):
            shutil.rmtree(leftover)
    return rows


def maps_of(path: Path) -> Path:
    """The folder beside predictions where a task's maps of places go."""
    return path.with_name(f"{path.stem}-maps")


def _predict(model: FineTuned, dataset: Subset, piece: Path, reading: Reading, precision: str, maps: Path) -> None:
    """Columns of some samples to a piece, and a map of each to `maps` where the task has maps."""
    found: dict[str, list[Any]] = {}
    fitting = Fitting("the predictions")
    with torch.inference_mode():
        for batch in eval_batches(dataset, model.tokenizer, reading):
            assert batch.stored is not None
            prediction = predictions_of(model, batch.signal, fitting, precision)
            prediction = model.task.restore(model.tokenizer, prediction, batch.stored)
            # Finding a box may mean to open a file, so only who has a use for it asks.
            box = _boxes(dataset, batch.ids) if type(model.task).to_file is not Task.to_file else None
            if box is not None:
                prediction = model.task.to_file(prediction, batch.stored, box.to(prediction.device))
            prediction = prediction.cpu()
            for name, values in {"id": list(map(str, batch.ids)), **_columns(model.task, prediction)}.items():
                found.setdefault(name, []).append(values)
            places = model.task.maps(prediction)
            if places is not None:
                maps.mkdir(exist_ok=True)
                for sample, place in zip(batch.ids, places, strict=True):
                    _write_map(maps, str(sample), place)
    kept = {str(number): _joined(parts) for number, parts in enumerate(found.values())}
    with replacing(piece) as file:
        np.savez(file, names=np.array(list(found), dtype=np.str_), **kept)


def _columns(task: Task[Any], prediction: Tensor) -> Columns:
    """What a task makes of predictions. Raises PluginError where a column hasn't one row for each sample."""
    columns = task.columns(prediction)
    for name, values in columns.items():
        if len(values) != len(prediction) or name == "id":
            raise PluginError(
                "A task breaks its contract.",
                where=f"{type(task).__name__}.columns, column {name!r}",
                expected="names other than id, which are the samples' own"
                if name == "id"
                else f"one row for each of {len(prediction)} samples",
                got=name if name == "id" else f"{len(values)} rows",
            )
    return columns


def _boxes(subset: Subset, ids: Sequence[str | int]) -> Tensor | None:
    """Which part of its file each sample shows, (B, A, 2); None where the data don't say."""
    inner: Any = subset.dataset
    if isinstance(inner, list):  # files that a user named
        boxes = {inner[place]["id"]: inner[place].get("box") for place in subset.chosen}
        found = [boxes[sample] for sample in ids]
        return None if any(box is None for box in found) else torch.stack(found)
    read: Callable[[int], Tensor] | None = getattr(inner, "boxes", None)
    if read is None:
        return None
    place = {inner.ids[number]: number for number in subset.chosen}
    return torch.stack([read(place[sample]) for sample in ids])


def _joined(parts: Sequence[Any]) -> Any:
    """A column in one piece: numbers as they are, all else as text."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts)).numpy()
    return np.array([str(value) for part in parts for value in part], dtype=np.str_)


def _write_map(folder: Path, sample: str, places: Tensor) -> None:
    """Class numbers as they are: a grey PNG of two axes, a .npy of others. A path in an id is made one name."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample).strip(".") or "_"
    name = name if name == sample else f"{name}-{hashlib.sha256(sample.encode()).hexdigest()[:8]}"
    if places.dim() != 2:
        with replacing(folder / f"{name}.npy") as file:
            np.save(file, places.numpy())
        return
    from PIL import Image

    with replacing(folder / f"{name}.png") as file:
        Image.fromarray(places.numpy()).save(file, "PNG")


def _read(piece: Path) -> dict[str, Any]:
    with np.load(piece, allow_pickle=False) as kept:
        columns = {str(name): kept[str(number)] for number, name in enumerate(kept["names"])}
    return {
        name: values.tolist() if values.dtype.kind == "U" else torch.from_numpy(values)
        for name, values in columns.items()
    }


def _pyarrow() -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "Writing parquet needs pyarrow.", fix=f"{install_hint(extra='parquet')} Or write .csv."
        ) from error
    return pyarrow


class _Parquet:
    """Columns of float32 and text, one row group per piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.pa = file, _pyarrow()
        self.writer: Any = None

    def write(self, columns: Columns) -> None:
        from pyarrow import parquet

        arrays = {
            name: self.pa.array(values.double().numpy() if isinstance(values, Tensor) else list(values))
            for name, values in columns.items()
        }
        table = self.pa.table(arrays)
        if self.writer is None:
            self.writer = parquet.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _Csv:
    """The same as text; a cell that a spreadsheet would take for a formula has a quote before it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self.writer = csv.writer(self.text, lineterminator="\n")
        self.begun = False

    def write(self, columns: Columns) -> None:
        if not self.begun:
            self.writer.writerow([spreadsheet_cell(name) for name in columns])
            self.begun = True
        self.writer.writerows(zip(*(_cells(values) for values in columns.values()), strict=True))

    def close(self) -> None:
        self.text.flush()
        self.text.detach()


def _cells(values: Tensor | Sequence[str]) -> Iterator[str]:
    if isinstance(values, Tensor):
        return (f"{value:.9g}" for value in values.tolist())
    return (str(spreadsheet_cell(value)) for value in values)
