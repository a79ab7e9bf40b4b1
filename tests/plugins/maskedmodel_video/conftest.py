"""Small videos, written with PyAV: frame t is grey at level 10 t, so that a frame tells which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from maskedmodel_video.settings import VideoFolderSettings
from torch import Tensor

LEVEL = 10


def settings(**values: Any) -> VideoFolderSettings:
    return VideoFolderSettings(**{"path": "unused", "frames": 4, "stride": 1, "size": 16, **values})


def grey(number: int, height: int = 24, width: int = 32) -> np.ndarray[Any, Any]:
    return np.full((height, width, 3), LEVEL * number, dtype=np.uint8)


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray[Any, Any]] | int,
    *,
    codec: str = "ffv1",
    times: Sequence[int] | None = None,
    rate: int = 10,
    more: Sequence[Sequence[np.ndarray[Any, Any]]] = (),
    **options: Any,
) -> Path:
    """A video of these pictures, or of so many grey ones, at `rate` or shown from `times` on, in milliseconds.

    `more` are further video streams.
    """
    streams = [[grey(n) for n in range(pictures)] if isinstance(pictures, int) else pictures, *more]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        opened: list[Any] = []
        for shown in streams:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = shown[0].shape[:2]
            stream.pix_fmt = {"ffv1": "bgr0", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
            stream.codec_context.time_base = Fraction(1, 1000) if times is not None else Fraction(1, rate)
            for name, value in options.items():
                setattr(stream.codec_context, name, value)
            opened.append(stream)
        for stream, shown in zip(opened, streams, strict=True):
            for number, picture in enumerate(shown):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number if times is None else times[number]
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def levels(clip: Tensor) -> list[int]:
    """Which frame each frame of a clip (C, T, H, W) is."""
    assert clip.float().std((0, 2, 3)).max() < 3, "a frame isn't grey throughout"
    return [round(float(level) / LEVEL) for level in clip.float().mean((0, 2, 3))]
