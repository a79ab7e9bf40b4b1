"""Video: the `tubes` tokenizer, and the sources `moving_digits` and `video_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    return []
