"""Signals of many leads, such as ECG and EEG: tokenizer `signals`, sources `leads`, `edf` and `wfdb`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_signals.tokenizer import SignalsTokenizer

    return [SignalsTokenizer]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_signals.edf import Edf
    from maskedmodel_signals.hearts import Hearts
    from maskedmodel_signals.wfdb import Wfdb

    return [Hearts, Edf, Wfdb]
