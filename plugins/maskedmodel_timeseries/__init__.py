"""Time series: the `raster` and `series` tokenizers, and the sources `seasonal`, `csv` and `table`."""

from __future__ import annotations

from typing import Any

from maskedmodel import Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    return []
