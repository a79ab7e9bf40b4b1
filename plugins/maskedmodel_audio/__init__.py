"""Sound: the `spectrogram` tokenizer, and the sources `tones` and `audio_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_audio.tokenizer import Spectrogram

    return [Spectrogram]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_audio.folder import AudioFolder
    from maskedmodel_audio.tones import Tones

    return [Tones, AudioFolder]
