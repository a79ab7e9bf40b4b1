"""Microscopy: the `channels` tokenizer, and the sources `stains` and `tiff_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    return []
