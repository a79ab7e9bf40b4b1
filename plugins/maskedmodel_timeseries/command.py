"""The verb `maskedmodel forecast`: arguments only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from maskedmodel.errors import ConfigError
from maskedmodel_timeseries.cells import Mark
from maskedmodel_timeseries.columns import TableReading
from maskedmodel_timeseries.forecasting import forecast_table
from maskedmodel_timeseries.windows import Parts


def forecast(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN|WEIGHTS", help="The folder of a run, or weights of an image model."),
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .csv, .tsv (also .gz) or .parquet file.")],
    horizon: Annotated[int, typer.Option("--horizon", min=1, metavar="N", help="Steps to forecast.")],
    context: Annotated[
        int | None, typer.Option("--context", min=1, metavar="N", help="Steps of history. Default: the model's.")
    ] = None,
    period: Annotated[
        str | None,
        typer.Option(
            "--period", metavar="N|frequency|data", help="Steps of a period. Default: by the time stamps, else found."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN,VAL,TEST",
            help="The table's parts, as rows such as 8640,2880,2880 or as shares. Default: 0.7,0.1,0.2.",
        ),
    ] = None,
    test_rows: Annotated[
        int | None,
        typer.Option("--test-rows", min=0, metavar="N", help="Rows at the end to score on; all before is training."),
    ] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, metavar="N", help="Steps between scored windows.")] = 1,
    time: Annotated[str | None, typer.Option("--time", metavar="COLUMN", help="Column of time.")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,...", help="Variates to take. Default: all.")
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            "--time-format",
            metavar="FORMAT",
            help="How times are written, such as %d.%m.%Y, unix or excel. Default: found from the column.",
        ),
    ] = None,
    dayfirst: Annotated[
        bool | None,
        typer.Option("--dayfirst/--monthfirst", help="What stands first in 01/02/2020. Default: found, else asked."),
    ] = None,
    decimal: Annotated[
        str | None, typer.Option("--decimal", metavar="MARK", help="Decimal mark of a CSV file. Default: found.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", metavar="MARK", help="What separates cells. Default: found.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write the forecast.")] = Path(
        "forecast.csv"
    ),
    picture: Annotated[Path, typer.Option("--picture", metavar="FILE", help="Where to draw it, .png or .svg.")] = Path(
        "forecast.png"
    ),
    norm_constant: Annotated[
        float | None, typer.Option("--norm", help="Spread of a series in an image model's picture. Default: 0.4.")
    ] = None,
    align_constant: Annotated[
        float | None,
        typer.Option("--align", help="Share of its columns that history gets in such a picture. Default: 0.4."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast time series, and score the model against the last period and the last value."""
    result = forecast_table(
        run,
        data,
        horizon=horizon,
        context=context,
        period=period,
        split=_parts(split),
        test_rows=test_rows,
        stride=stride,
        how=TableReading(
            time=time,
            columns=_names(columns),
            time_format=time_format,
            dayfirst=dayfirst,
            decimal=_mark(decimal),
            separator=separator,
        ),
        to=to,
        picture=picture,
        norm_constant=norm_constant,
        align_constant=align_constant,
        device=device,
        quiet=as_json,
    )
    print(json.dumps(result.to_dict(), indent=2) if as_json else result)


def _names(columns: str | None) -> list[str] | None:
    return None if columns is None else [name.strip() for name in columns.split(",")]


def _mark(decimal: str | None) -> Mark | None:
    if decimal is None or decimal in get_args(Mark):
        return cast("Mark | None", decimal)
    raise ConfigError("This is no decimal mark.", where="--decimal", expected="a point or a comma", got=decimal)


def _parts(split: str | None) -> Parts | None:
    if split is None:
        return None
    try:
        train, val, test = (float(part) if "." in part else int(part) for part in split.split(","))
        return Parts(train=train, val=val, test=test)
    except ValueError as error:  # pydantic's are of this kind
        raise ConfigError(
            "This is no split of a table.",
            where="--split",
            expected="three numbers of rows such as 8640,2880,2880, or three shares such as 0.7,0.1,0.2",
            got=split,
        ) from error
