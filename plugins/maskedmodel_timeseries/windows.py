"""The sources `csv` and `table`: windows of the time series in a CSV or parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import SampleDataset, Split
from maskedmodel_timeseries.tables import CSV_SUFFIXES, PARQUET_SUFFIXES, Table, load_pandas, read_table


class Parts(BaseModel):
    """Three parts of a table in the order of time, as shares of its rows or as numbers of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: int | float = Field(0.7, gt=0, description="First part: a share below 1, or a number of rows.")
    val: int | float = Field(0.1, gt=0, description="Second part: a share below 1, or a number of rows.")
    test: int | float = Field(0.2, ge=0, description="Third part, which no training sees: a share, or rows.")

    @model_validator(mode="after")
    def _alike(self) -> Parts:
        given = (self.train, self.val, self.test)
        shares = [value for value in given if isinstance(value, float)]
        if shares and (any(value >= 1 for value in shares) or any(isinstance(v, int) and v for v in given)):
            raise ValueError(f"expected three shares below 1, or three whole numbers of rows, got {list(given)}")
        if shares and sum(given) > 1 + 1e-9:
            raise ValueError(f"the shares {list(given)} add up to more than 1")
        return self

    def bounds(self, rows: int, where: object) -> tuple[int, int, int]:
        """Where each part ends, in rows. Raises DataError where the table is too short, or a part empty."""
        if isinstance(self.train, int):
            ends = (self.train, int(self.train + self.val), int(self.train + self.val + self.test))
        else:
            # The validation part takes the rounding, as is usual (Zhou et al. 2021).
            train, test, used = (
                int(rows * share + 1e-6) for share in (self.train, self.test, self.train + self.val + self.test)
            )
            ends = (train, used - test, used)
        if ends[2] > rows or ends[0] < 1:
            raise DataError(
                "The table is too short for its split.",
                where=where,
                expected=f"{max(ends[2], 3)} rows or more, for split {self.train:g}, {self.val:g}, {self.test:g}",
                got=f"{rows} rows",
            )
        return ends


class WindowSettings(Settings):
    """Settings of the sources that cut windows out of a table of time series."""

    time: str | None = Field(
        None, description="Column of time. null: the first that holds dates, else a counting one called time or so."
    )
    columns: tuple[str, ...] | None = Field(None, description="Variates to take. null: all other columns.")
    window: int = Field(512, ge=2, description="Length of a sample, history and horizon together, in time steps.")
    stride: PositiveInt = Field(1, description="Steps from one window to the next.")
    variates: Literal["together", "separate"] = Field(
        "together", description="together: a sample holds all variates. separate: each variate is a sample of its own."
    )
    split: Parts = Field(
        default_factory=lambda: Parts(),
        description="How the rows are shared out in time. Shares of the rows, or numbers of rows, such as "
        "{train: 8640, val: 2880, test: 2880} for the hourly ETT tables.",
    )
    reach: int = Field(
        0,
        ge=0,
        description="How many rows before its part a validation window may begin: the length of the history, as in the "
        "usual protocol of forecasting, where what is scored lies in the part and what it is told by may lie before. "
        "0: windows lie within their part.",
    )
    standardise: bool = Field(
        True, description="Whether each variate is standardised by its mean and spread over the training part."
    )
    observed: float = Field(
        0.5, ge=0, le=1, description="Least share of values that are there; windows with fewer are left out."
    )


class CsvSettings(WindowSettings):
    """Settings of the `csv` source."""

    name: Literal["csv"] = "csv"
    path: str = Field(description="A .csv or .tsv file, also gzipped: a row per time step, a column per variate.")


class TableSettings(WindowSettings):
    """Settings of the `table` source."""

    name: Literal["table"] = "table"
    path: str = Field(description="A .parquet file: a row per time step, a column per variate.")


class Windows:
    """Samples (V, window), or (1, window) where variates are separate, out of rows (V, T).

    places  (N, 2) int64: the first step of each sample, and its variate, or -1 for all.
    """

    def __init__(self, rows: Tensor, places: NDArray[np.int64], window: int, names: Sequence[str], title: str) -> None:
        self.rows, self.places, self.window, self.names, self.title = rows, places, window, names, title

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Sample:
        start, variate = (int(number) for number in self.places[index])
        chosen = slice(None) if variate < 0 else slice(variate, variate + 1)
        name = "" if variate < 0 else f"/{self.names[variate]}"
        signal = self.rows[chosen, start : start + self.window].clone()
        return Sample(signal=signal, id=f"{self.title}{name}@{start}")


def standardisation(values: NDArray[np.float64], train: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (V, 1) of rows (V, T) over the first `train` steps; 1 where nothing varies."""
    part = values[:, :train]
    there = ~np.isnan(part)
    count = np.maximum(there.sum(1, keepdims=True), 1)
    mean = np.where(there, part, 0).sum(1, keepdims=True) / count
    std = np.sqrt(np.square(np.where(there, part - mean, 0)).sum(1, keepdims=True) / count)
    return mean, np.where(std > 0, std, 1.0)


W = TypeVar("W", bound=WindowSettings)


class _Windowed(DataSource[W]):
    """Windows of a table. A sample's id names the file, the variate where it is alone, and the first row."""

    gives_nan = True
    suffixes: tuple[str, ...]
    gives_nan = True

    @cached_property
    def table(self) -> Table:
        """The whole table."""
        return self._table(self._path)

    @property
    def _path(self) -> str:
        return str(self.settings.path)  # type: ignore[attr-defined]

    def _table(self, path: str | Path) -> Table:
        if not str(path).lower().endswith(self.suffixes):
            raise DataError(
                f"Data source {self.component_name()!r} doesn't read such a file.",
                where=path,
                expected=" ".join(self.suffixes),
                got=Path(path).suffix or "no suffix",
            )
        return read_table(path, time=self.settings.time, columns=self.settings.columns)

    def _rows(self, table: Table) -> tuple[Tensor, tuple[int, int, int]]:
        """(V, T) float32, standardised where asked for, and where the parts end."""
        ends = self.settings.split.bounds(table.rows, table.path)
        values = table.values
        if self.settings.standardise:
            mean, std = standardisation(values, ends[0])
            values = (values - mean) / std
        return torch.from_numpy(values).float(), ends

    @cached_property
    def _prepared(self) -> tuple[Tensor, tuple[int, int, int]]:
        return self._rows(self.table)

    def open(self, split: Split) -> SampleDataset:
        rows, ends = self._prepared
        reach = min(self.settings.reach, ends[0])
        first, last = (0, ends[0]) if split == "train" else (ends[0] - reach, ends[1])
        places = self._places(rows, first, last)
        if not len(places):
            raise DataError(
                f"No window of {self.settings.window} steps lies in the part {split!r}.",
                where=self.table.path,
                expected=f"{self.settings.window} rows, of whose values {self.settings.observed:.0%} are there",
                got=f"{last - first} rows",
                fix="Lower data.window, give this part more rows (data.split), or let validation windows begin before "
                "it: data.reach=HISTORY, in rows.",
            )
        return Windows(rows, places, self.settings.window, self.table.names, self.table.path.name)

    def _places(self, rows: Tensor, first: int, last: int) -> NDArray[np.int64]:
        """First step and variate of every window between two rows that has enough values."""
        window, separate = self.settings.window, self.settings.variates == "separate"
        there = (~rows.isnan()).double().numpy()
        there = there if separate else there.mean(0, keepdims=True)
        total = np.pad(np.cumsum(there, 1), ((0, 0), (1, 0)))
        starts = np.arange(first, max(last - window, first - 1) + 1, self.settings.stride)
        enough = total[:, starts + window] - total[:, starts] >= self.settings.observed * window - 1e-6
        place, variate = enough.T.nonzero()
        return np.stack([starts[place], variate if separate else np.full(len(place), -1)], 1)

    def read(self, path: Path) -> Sample:
        """The last window of another table, standardised by that table's own training part."""
        table = self._table(path)
        rows, _ = self._rows(table)
        start = table.rows - self.settings.window
        if start < 0:
            raise DataError(
                "The table is shorter than a window.", where=path, expected=self.settings.window, got=table.rows
            )
        place = np.array([[start, 0 if self.settings.variates == "separate" else -1]])
        return Windows(rows, place, self.settings.window, table.names, table.path.name)[0]


class Csv(_Windowed[CsvSettings]):
    """Windows of a wide CSV: a row per time step, a column of time found by its type, a column per variate."""

    suffixes = CSV_SUFFIXES

    @classmethod
    def example_settings(cls, folder: Path) -> CsvSettings:
        """Two variates over 200 hours, written into `folder`: what the conformance kit reads."""
        _example().to_csv(folder / "example.csv", index=False)
        return CsvSettings(path=str(folder / "example.csv"), window=16, split=Parts(train=120, val=40, test=40))

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_file() and path.name.lower().endswith(CSV_SUFFIXES)


class ParquetTable(_Windowed[TableSettings]):
    """Windows of a wide parquet table, as `csv` has them of a CSV."""

    suffixes = PARQUET_SUFFIXES

    @classmethod
    def example_settings(cls, folder: Path) -> TableSettings:
        """Two variates over 200 hours, written into `folder`: what the conformance kit reads."""
        _example().to_parquet(folder / "example.parquet")
        return TableSettings(path=str(folder / "example.parquet"), window=16, variates="separate")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a parquet file with numbers in it and nothing encoded, as a table of images has."""
        if not path.is_file() or not path.name.lower().endswith(PARQUET_SUFFIXES):
            return False
        try:
            from pyarrow import ArrowException, parquet, types  # type: ignore[import-untyped]
        except ImportError:
            return False
        try:
            kinds = [field.type for field in parquet.read_schema(path)]
        except (OSError, ArrowException):
            return False
        numbers = any(types.is_floating(kind) or types.is_integer(kind) for kind in kinds)
        return numbers and not any(types.is_nested(kind) or types.is_binary(kind) for kind in kinds)


def _example() -> Any:
    pandas = load_pandas()
    time = np.arange(200)
    noise = np.random.default_rng(0).normal(size=(2, 200))
    frame = {"date": pandas.date_range("2020-01-01", periods=200, freq="h")}
    frame |= {name: np.sin(time / 24 * 2 * np.pi) + 0.1 * noise[row] for row, name in enumerate(("load", "heat"))}
    return pandas.DataFrame(frame)
