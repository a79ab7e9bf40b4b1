"""Hyperspectral pictures: tokenizer `spectral`, whose bands are known by their wavelengths, and source `cubes`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_spectra.tokenizer import SpectralTokenizer

    return [SpectralTokenizer]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_spectra.cubes import Cubes

    return [Cubes]
