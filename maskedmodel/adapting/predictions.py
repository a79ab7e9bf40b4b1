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
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.files import replacing, spreadsheet_cell
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
    known = [key, reading.on_bad_sample, *(fingerprint(dataset) for dataset in datasets)]
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
                    _predict(model, Subset(dataset, chosen), piece, reading, precision)
                pieces.append(piece)
                done += len(chosen)
                if progress is not None:
                    progress(done, total)
        with replacing(path) as file:
            writer = _Parquet(file) if path.suffix == ".parquet" else _Csv(file)
            for ids, prediction in map(_read, pieces):
                if len(ids):
                    writer.write({"id": ids, **model.task.columns(prediction)})
                    rows += len(ids)
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


def _predict(model: FineTuned, dataset: Subset, piece: Path, reading: Reading, precision: str) -> None:
    ids: list[str] = []
    predictions: list[Tensor] = []
    fitting = Fitting("the predictions")
    with torch.inference_mode():
        for batch in eval_batches(dataset, model.tokenizer, reading):
            predictions.append(predictions_of(model, batch.signal, fitting, precision).cpu())
            ids += map(str, batch.ids)
    values = torch.cat(predictions).numpy() if predictions else np.zeros((0, 0), np.float32)
    with replacing(piece) as file:
        np.savez(file, id=np.array(ids, dtype=np.str_), prediction=values)


def _read(piece: Path) -> tuple[list[str], Tensor]:
    with np.load(piece, allow_pickle=False) as kept:
        return [str(i) for i in kept["id"]], torch.from_numpy(kept["prediction"])


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
