"""Time series: two tokenizers, masks `horizon`, task `forecast`, and three sources."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, MaskScheduler, Task, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_timeseries.raster import RasterTokenizer
    from maskedmodel_timeseries.series import SeriesTokenizer

    return [SeriesTokenizer, RasterTokenizer]


@hookimpl
def maskedmodel_mask_schedulers() -> list[type[MaskScheduler[Any]]]:
    from maskedmodel_timeseries.horizon import Horizon

    return [Horizon]


@hookimpl
def maskedmodel_tasks() -> list[type[Task[Any]]]:
    from maskedmodel_timeseries.head import Forecast

    return [Forecast]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_timeseries.seasonal import Seasonal
    from maskedmodel_timeseries.windows import Csv, ParquetTable

    return [Seasonal, Csv, ParquetTable]
