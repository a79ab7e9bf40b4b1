"""The sources `csv` and `table`: windows of the time series in a CSV or parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import DataSource, Fact, Sample, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import SampleDataset, Split, open_regular
from maskedmodel_timeseries.cells import load_pandas
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.tables import CSV_SUFFIXES, PARQUET_SUFFIXES, Table, read_tables, the_only


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
    time_format: str | None = Field(
        None,
        description="How times are written: strptime codes such as '%d.%m.%Y %H:%M', or unix, unix_ms, unix_us, "
        "unix_ns, excel (a spreadsheet's days) or count. null: found from the whole column.",
    )
    dayfirst: bool | None = Field(
        None, description="Whether 01/02/2020 is in February. null: refused where no row of the column tells."
    )
    series: str | None = Field(
        None,
        description="Column that tells the series of a long table apart. Each is then split, standardised and cut into "
        "windows by itself. null: the table is one series.",
    )
    window: int = Field(512, ge=2, description="Length of a sample, history and horizon together, in time steps.")
    horizon: int = Field(
        0,
        ge=0,
        description="Steps at the end of a window that are no part of the signal, but what task forecast is to give. "
        "0: none, as in pretraining.",
    )
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

    @model_validator(mode="after")
    def _history_is_left(self) -> WindowSettings:
        if self.horizon >= self.window:
            raise ValueError(f"horizon {self.horizon} leaves no history of a window of {self.window} steps")
        return self

    def reading(self) -> TableReading:
        """How the table is to be read."""
        return TableReading(
            time=self.time,
            columns=self.columns,
            time_format=self.time_format,
            dayfirst=self.dayfirst,
            series=self.series,
        )


class CsvSettings(WindowSettings):
    """Settings of the `csv` source."""

    name: Literal["csv"] = "csv"
    path: str = Field(description="A .csv or .tsv file, also gzipped: a row per time step, a column per variate.")
    separator: str | None = Field(
        None, min_length=1, max_length=1, description="What separates cells. null: found from the first lines."
    )
    decimal: Literal[".", ","] | None = Field(
        None, description="Decimal mark. null: found from all cells, refused where they may be read either way."
    )

    def reading(self) -> TableReading:
        return replace(super().reading(), separator=self.separator, decimal=self.decimal)


class TableSettings(WindowSettings):
    """Settings of the `table` source."""

    name: Literal["table"] = "table"
    path: str = Field(description="A .parquet file: a row per time step, a column per variate.")


@dataclass(frozen=True, eq=False)
class Standing:
    """One series ready to be cut: rows (V, T) float32, and where its training, validation and test parts end."""

    table: Table
    rows: Tensor
    ends: tuple[int, int, int]


class Windows:
    """Samples (V, window), or (1, window) where variates are separate, out of the rows of one series or several.

    The last `horizon` steps of a window are the sample's target where there is a horizon, and not in its signal.

    places  (N, 3) int64: the series of each sample, its first step, and its variate, or -1 for all.
    """

    def __init__(self, series: Sequence[Standing], places: NDArray[np.int64], window: int, horizon: int = 0) -> None:
        self.series, self.places, self.window, self.horizon = series, places, window, horizon

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Sample:
        number, start, variate = (int(number) for number in self.places[index])
        series = self.series[number]
        chosen = slice(None) if variate < 0 else slice(variate, variate + 1)
        name = "" if variate < 0 else f"/{series.table.names[variate]}"
        signal = series.rows[chosen, start : start + self.window].clone()
        sample = Sample(signal=signal, id=f"{series.table.title}{name}@{start}")
        if self.horizon:
            sample["signal"], sample["target"] = signal[:, : -self.horizon], signal[:, -self.horizon :]
        return sample


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
    """Windows of a table. A sample's id names file, series, variate where it is alone, and first row."""

    gives_nan = True
    suffixes: tuple[str, ...]

    @cached_property
    def tables(self) -> list[Table]:
        """The series of the table: one, or as many as column `series` tells apart."""
        return self._tables(self._path)

    @property
    def _path(self) -> str:
        return str(self.settings.path)  # type: ignore[attr-defined]

    def _tables(self, path: str | Path) -> list[Table]:
        if not str(path).lower().endswith(self.suffixes):
            raise DataError(
                f"Data source {self.component_name()!r} doesn't read such a file.",
                where=path,
                expected=" ".join(self.suffixes),
                got=Path(path).suffix or "no suffix",
            )
        return read_tables(path, self.settings.reading())

    def _standing(self, table: Table) -> Standing:
        """A series standardised where asked for, with its parts. Raises DataError where it is too short for them."""
        ends = self.settings.split.bounds(table.rows, table.title)
        values = table.values
        if self.settings.standardise:
            mean, std = standardisation(values, ends[0])
            values = (values - mean) / std
        return Standing(table, torch.from_numpy(values).float(), ends)

    @cached_property
    def _prepared(self) -> list[Standing]:
        """The series that are long enough to be split; of a single one, that one or its error."""
        if len(self.tables) == 1:
            return [self._standing(self.tables[0])]
        found, short = [], None
        for table in self.tables:
            try:
                found.append(self._standing(table))
            except DataError as error:
                short = error
        if short is not None and not found:
            raise short
        return found

    def open(self, split: Split) -> SampleDataset:
        places = [self._places(series, split) for series in self._prepared]
        numbered = [np.insert(own, 0, number, axis=1) for number, own in enumerate(places)]
        found = np.concatenate(numbered)
        if not len(found):
            first, last = self._part(self._prepared[0], split)
            raise DataError(
                f"No window of {self.settings.window} steps lies in the part {split!r}.",
                where=self._path,
                expected=f"{self.settings.window} rows, of whose values {self.settings.observed:.0%} are there",
                got=f"{last - first} rows" + (" in the first series" if len(self.tables) > 1 else ""),
                fix="Lower data.window, give this part more rows (data.split), or let validation windows begin before "
                "it: data.reach=HISTORY, in rows.",
            )
        return Windows(self._prepared, found, self.settings.window, self.settings.horizon)

    def _part(self, series: Standing, split: Split) -> tuple[int, int]:
        """The first row of a part, and the one after its last, with what validation reaches back for."""
        train, val, _ = series.ends
        return (0, train) if split == "train" else (train - min(self.settings.reach, train), val)

    def _places(self, series: Standing, split: Split) -> NDArray[np.int64]:
        """First step and variate of every window of a part that has enough values."""
        window, separate = self.settings.window, self.settings.variates == "separate"
        first, last = self._part(series, split)
        if last - first < window:
            return np.zeros((0, 2), dtype=np.int64)
        there = (~series.rows.isnan()).double().numpy()
        there = there if separate else there.mean(0, keepdims=True)
        total = np.pad(np.cumsum(there, 1), ((0, 0), (1, 0)))
        starts = np.arange(first, last - window + 1, self.settings.stride)
        enough = total[:, starts + window] - total[:, starts] >= self.settings.observed * window - 1e-6
        place, variate = enough.T.nonzero()
        return np.stack([starts[place], variate if separate else np.full(len(place), -1)], 1)

    def facts(self) -> list[Fact]:
        """What the table was taken for, its parts in time, and what of it gives no windows."""
        found = list(self.tables[0].told)
        used = sum(any(len(self._places(series, split)) for split in ("train", "val")) for series in self._prepared)
        if used < len(self.tables):
            text = f"{len(self.tables) - used:,} of {len(self.tables):,} series are too short for a window: left out"
            found.append(Fact("series", text, notice=True))
        first = self._prepared[0]
        train, val, end = first.ends
        parts = [f"train {train:,} rows to {first.table.time(train - 1)}"]
        parts += [f"val {val - train:,} to {first.table.time(val - 1)}"] if val > train else []
        parts += [f"test {end - val:,} to {first.table.time(end - 1)}"] if end > val else []
        parts += [f"{first.table.rows - end:,} in none"] if end < first.table.rows else []
        of = "" if len(self._prepared) == 1 else f" (of the first of {len(self._prepared):,} series)"
        found.append(Fact("split", f"{', '.join(parts)}{of}, in the order of time"))
        found += self._window_facts()
        return found

    def _window_facts(self) -> list[Fact]:
        separate = self.settings.variates == "separate"
        counts, sparse = [], 0
        for split in ("train", "val"):
            count = 0
            for series in self._prepared:
                first, last = self._part(series, split)
                room = max(0, (last - first - self.settings.window) // self.settings.stride + 1)
                own = len(self._places(series, split))
                count += own
                sparse += room * (len(series.table.names) if separate else 1) - own
            counts.append(f"{split} {count:,}")
        found = [Fact("windows", f"{', '.join(counts)}, of {self.settings.window:,} steps each")]
        if sparse:
            text = f"{sparse:,} windows of which less than {self.settings.observed:.0%} is there are left out"
            found.append(Fact("windows", text, notice=True))
        return found

    def read(self, path: Path) -> Sample:
        """The last window of another table, standardised by that table's own training part.

        Where there is a horizon it is the last history, which what is forecast comes after.
        """
        table = the_only(self._tables(path))
        series = self._standing(table)
        length = self.settings.window - self.settings.horizon
        start = table.rows - length
        if start < 0:
            raise DataError("The table is shorter than a window.", where=path, expected=length, got=table.rows)
        place = np.array([[0, start, 0 if self.settings.variates == "separate" else -1]])
        return Windows([series], place, length)[0]


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
            with open_regular(path) as file:
                kinds = [field.type for field in parquet.read_schema(file)]
        except (DataError, OSError, ArrowException):
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
