"""Pictures: the `image` tokenizer, and the sources `digits`, `image_folder`, `parquet` and `array`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_image.tokenizer import ImageTokenizer

    return [ImageTokenizer]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_image.array import Array
    from maskedmodel_image.digits import Digits
    from maskedmodel_image.folder import ImageFolder
    from maskedmodel_image.parquet import Parquet

    return [Digits, ImageFolder, Parquet, Array]
