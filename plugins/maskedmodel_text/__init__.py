"""Text: the tokenizers `bytes` and `ids`, and the sources `topics`, `text_folder` and `text_table`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_text.bytewise import Bytes
    from maskedmodel_text.ids import Ids

    return [Bytes, Ids]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_text.folder import TextFolder
    from maskedmodel_text.table import TextTable
    from maskedmodel_text.topics import Topics

    return [Topics, TextFolder, TextTable]
