"""Microscopy: the `channels` tokenizer, and the sources `stains` and `tiff_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_microscopy.tokenizer import ChannelsTokenizer

    return [ChannelsTokenizer]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_microscopy.stains import Stains
    from maskedmodel_microscopy.tiff_folder import TiffFolder

    return [Stains, TiffFolder]
