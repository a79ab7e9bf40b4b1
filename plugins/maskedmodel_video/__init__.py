"""Video: the `tubes` tokenizer, and the sources `moving_digits` and `video_folder`."""

from __future__ import annotations

from typing import Any

from maskedmodel import DataSource, Tokenizer, hookimpl


@hookimpl
def maskedmodel_tokenizers() -> list[type[Tokenizer[Any]]]:
    from maskedmodel_video.tokenizer import TubesTokenizer

    return [TubesTokenizer]


@hookimpl
def maskedmodel_data_sources() -> list[type[DataSource[Any]]]:
    from maskedmodel_video.digits import MovingDigits
    from maskedmodel_video.folder import VideoFolder

    return [MovingDigits, VideoFolder]
