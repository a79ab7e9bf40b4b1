"""A table and a model in, a forecast out: as a file, as a picture, and scored against forecasts without a model."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedmodel import Display, FineTuned, MaskedAutoencoder, load, read_weights
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.sources import path_of
from maskedmodel_timeseries.baselines import last_value, seasonal_naive
from maskedmodel_timeseries.chart import check_suffix, draw_chart, written
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.forecasters import Forecaster, forecaster_of
from maskedmodel_timeseries.period import find_period, periods_of_frequency
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.rolling import Forecast, Score, roll, window_count
from maskedmodel_timeseries.tables import Table, read_table
from maskedmodel_timeseries.windows import Parts, standardisation


@dataclass(frozen=True)
class ForecastResult:
    """What a forecast came to. It prints as its own summary.

    scores    errors over the windows of the test part, in units of each variate's spread over the training part.
    values    (V, H) forecasts of what comes after the table, in the table's units; `times` are theirs.
    """

    data: Path
    how: str
    horizon: int
    context: int
    period: int
    period_from: str
    windows: int
    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    times: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float64]
    to: Path | None
    picture: Path | None

    def to_dict(self) -> dict[str, Any]:
        """All but the forecast itself, for JSON."""
        return {
            "data": str(self.data),
            "model": self.how,
            "horizon": self.horizon,
            "context": self.context,
            "period": self.period,
            "period_from": self.period_from,
            "windows": self.windows,
            "scores": [asdict(score) for score in self.scores],
            "notes": list(self.notes),
            "forecast": None if self.to is None else str(self.to),
            "picture": None if self.picture is None else str(self.picture),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.data.name}: {self.how}",
            f"horizon {self.horizon} steps from {self.context} steps of history; period {self.period} "
            f"({self.period_from})",
        ]
        if self.scores:
            wide = max(len(score.name) for score in self.scores)
            lines += ["", f"{'':{wide}}     MSE      MAE   over {self.windows:,} windows of the test part"]
            lines += [f"{score.name:{wide}}  {score.mse:7.4f}  {score.mae:7.4f}" for score in self.scores]
            lines += ["in units of each variate's standard deviation over the training part"]
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else [""]
        lines += [] if self.to is None else [f"forecast  {self.to}"]
        lines += [] if self.picture is None else [f"picture   {self.picture}"]
        return "\n".join(lines)


def forecast_table(
    run: str | Path,
    data: str | Path,
    *,
    horizon: int,
    context: int | None = None,
    period: int | str | None = None,
    split: Parts | None = None,
    test_rows: int | None = None,
    stride: int = 1,
    how: TableReading | None = None,
    to: str | Path | None = None,
    picture: str | Path | None = None,
    norm_constant: float | None = None,
    align_constant: float | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> ForecastResult:
    """Forecast `horizon` steps after the last row of a table, and score the model over the windows of its test part.

    run      the folder of a run of a series or raster model, of one fine-tuned to forecast, or of imported weights; or
             a file or folder of weights of an image model, which then forecasts as VisionTS does.
    data     a .csv, .tsv (also .gz) or .parquet file: a row per time step.
    context  steps of history of each forecast. None: what the model is used to.
    period   in steps; "frequency": by the time stamps; "data": found in the values. None: a raster model's own, else by
             the time stamps, else found.
    split    the parts of the table; the training part is what values are standardised by. test=0: no scores.
    test_rows  in place of a split: the last rows are the test part, and all before it the training part.
    stride   steps from one window of the test part to the next.
    how      which columns are time and variates, and how times and numbers are written. None: all of it is found.
    to, picture   where to write the forecast (.csv) and its picture (.png, .svg). None: nowhere.

    Raises MaskedModelError for all that the user can mend: data that can't be read or is too short, no such run.
    """
    if horizon < 1 or stride < 1 or (context is not None and context < 1):
        given = f"horizon {horizon}, context {context}, stride {stride}"
        raise ConfigError("Horizon, context and stride count steps.", expected="1 or more", got=given)
    # Suffixes first: a forecast may take minutes.
    target, chart = Path(to) if to is not None else None, Path(picture) if picture is not None else None
    if target is not None:
        check_suffix(target, (".csv",), "The forecast")
    if chart is not None:
        check_suffix(chart, (".png", ".svg"), "The picture")
    table = read_table(data, how)
    if table.rows <= horizon:
        raise DataError(
            "The horizon is longer than the data.", where=table.path, expected=f"less than {table.rows}", got=horizon
        )
    ends = _ends(table, split, test_rows)
    mean, std = standardisation(table.values, ends[0])
    rows = torch.from_numpy((table.values - mean) / std).float()
    model = _model(run).to(_device(device))
    steps, origin = _period(period, model, table, ends[0])
    forecaster = forecaster_of(model, period=steps, norm_constant=norm_constant, align_constant=align_constant)
    tested = ends[2] > ends[1]
    length = context or forecaster.usual_context(horizon, ends[1] if tested else table.rows)
    notes = _notes(table)
    scores: tuple[Score, ...] = ()
    windows = 0
    if tested:
        ways: dict[str, Forecast] = {
            "model": forecaster,
            f"seasonal naive, period {steps}": lambda history, ahead: seasonal_naive(history, ahead, steps),
            "last value": last_value,
        }
        total = window_count(ends[1], ends[2], horizon, stride)
        with Display("forecasting", max(total, 1), quiet=quiet) as display:
            result = roll(
                ways,
                rows,
                first=ends[1],
                last=ends[2],
                context=length,
                horizon=horizon,
                stride=stride,
                progress=display.update,
            )
        scores, windows = result.scores, result.windows
        if result.left_out:
            notes.append(f"{result.left_out:,} values of the test part had no truth or no history and aren't scored")
    future = _ahead(forecaster, rows, length, horizon, mean, std)
    stamps = tuple(table.after(horizon))
    if target is not None:
        written(target, lambda file: _write(file, table, stamps, future), "forecast")
    if chart is not None:
        past = _ahead(forecaster, rows[:, :-horizon], length, horizon, mean, std)
        _chart(chart, table, past, future, forecaster, length)
    return ForecastResult(
        data=table.path,
        how=forecaster.name,
        horizon=horizon,
        context=length,
        period=steps,
        period_from=origin,
        windows=windows,
        scores=scores,
        notes=tuple(notes),
        times=stamps,
        names=table.names,
        values=future,
        to=target,
        picture=chart,
    )


def _ends(table: Table, split: Parts | None, test_rows: int | None) -> tuple[int, int, int]:
    """Where the training, validation and test parts end, in rows."""
    if test_rows is None:
        return (split or Parts()).bounds(table.rows, table.path)
    if split is not None:
        raise ConfigError("The test part is given twice.", got=f"a split and {test_rows} test rows", fix="Give one.")
    if not 0 <= test_rows < table.rows:
        raise DataError(
            "The test part is as long as the table.",
            where=table.path,
            expected=f"0 to {table.rows - 1} test rows",
            got=test_rows,
        )
    return table.rows - test_rows, table.rows - test_rows, table.rows


def _model(run: str | Path) -> MaskedAutoencoder | FineTuned:
    """The model of a run, or of foreign weights where there is a file, or a folder without a config of ours."""
    path = path_of(run)
    checkpoint = path.parent.name == "checkpoints"
    if path.exists() and not (path / "config.yaml").exists() and not checkpoint:
        return read_weights(path)[0]
    return load(path)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError("Unknown device.", expected="auto, cpu or cuda", got=name)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device.", got=name, fix="Leave the device out.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _period(given: int | str | None, model: MaskedAutoencoder | FineTuned, table: Table, train: int) -> tuple[int, str]:
    """The period in steps, and where it comes from."""
    if isinstance(given, int) or (given is not None and given.isascii() and given.isdigit()):
        if int(given) < 1:
            raise ConfigError("A period is 1 step or more.", expected="1 or more", got=given)
        return int(given), "given"
    if given not in (None, "frequency", "data"):
        raise ConfigError("This is no period.", expected="a number of steps, frequency, or data", got=given)
    if given is None and isinstance(model.tokenizer, RasterTokenizer):
        return model.tokenizer.settings.period, "the model's own"
    if given != "data" and table.frequency is not None:
        return periods_of_frequency(table.frequency)[0], f"steps of {table.frequency}"
    if given == "frequency":
        raise DataError(
            "The time stamps tell no frequency.",
            where=table.path,
            expected="a column of evenly spaced dates or times",
            got="none" if table.times is None else "other times",
            fix="Leave --period out, or give a number of steps.",
        )
    found = find_period(table.values[:, :train])
    return found, "found in the training part" if found > 1 else "none found in the training part"


def _notes(table: Table) -> list[str]:
    """What was left out, converted or guessed when the table was read."""
    return [fact.text for fact in table.told if fact.notice]


def _ahead(
    forecaster: Forecaster,
    rows: Tensor,
    context: int,
    horizon: int,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(V, H) forecast of what comes after rows (V, T), in the table's units."""
    standardised = forecaster(rows[None, :, -context:], horizon)[0].double().numpy()
    return np.asarray(standardised * std + mean)


def _write(file: Any, table: Table, stamps: Sequence[str], values: NDArray[np.float64]) -> None:
    """CSV: time, then the variates; empty where there is no forecast; nine digits, which a float32 needs."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([table.time_name, *table.names])
    for stamp, row in zip(stamps, values.T, strict=True):
        writer.writerow([stamp, *("" if np.isnan(value) else f"{value:.9g}" for value in row)])
    text.detach()


def _chart(
    path: Path,
    table: Table,
    past: NDArray[np.float64],
    future: NDArray[np.float64],
    forecaster: Forecaster,
    context: int,
) -> None:
    """History enough to see where a forecast comes from, without squeezing the forecast."""
    horizon = future.shape[1]
    shown = min(table.rows, horizon + min(context, 3 * horizon))
    times: Any = np.arange(table.rows - shown, table.rows)
    ahead: Any = np.arange(table.rows, table.rows + horizon)
    if table.frequency is not None:
        from maskedmodel_timeseries.cells import load_pandas

        times = table.times[-shown:].to_numpy()
        ahead = load_pandas().DatetimeIndex(table.after(horizon)).to_numpy()
    draw_chart(
        path,
        title=f"{table.path.name}: {horizon} steps ahead, {forecaster.name}",
        names=table.names,
        times=times,
        values=table.values[:, -shown:],
        past=past,
        future=future,
        future_times=ahead,
    )
