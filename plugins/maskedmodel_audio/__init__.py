"""Sound: the `spectrogram` tokenizer, and the sources `tones` and `audio_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    return []
