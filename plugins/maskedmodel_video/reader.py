"""One clip out of one video file, or a clear error, through PyAV.

PyAV rather than torchcodec: its wheels bring their own FFmpeg and know nothing of torch, where torchcodec needs
FFmpeg's libraries on the machine and breaks at almost each release of torch.

What becomes of what real files hold:

    variable frame rate        frames are chosen by when they are shown, not by their number
    a rotation flag            upright; a mirror flag isn't obeyed
    pixels that aren't square  stretched to square ones
    several streams            the first video stream that isn't a cover picture
    fewer frames than asked    the last one again
    a damaged end              what can be decoded, if that is one frame or more
    no times in the file       frames are counted
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel_video.places import choose, fill
from maskedmodel_video.settings import VideoFolderSettings

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".ogv", ".3gp", ".gif"),
)
_FORMAT = {"grey": "gray", "rgb": "rgb24"}
_MOST_PIXELS = 1 << 26  # 8192 x 8192: a larger declared frame is a damaged or hostile file


def read_clip(stream: BinaryIO, name: str, settings: VideoFolderSettings, clip: int = 0, clips: int = 1) -> Tensor:
    """Clip number `clip` of `clips` evenly spread over the video in `stream`: (C, T, H, W) uint8.

    `name` stands in errors: DataError on whatever is wrong, DependencyError without PyAV.
    """
    with _opened(stream, name) as (container, video):
        stamps = _packet_stamps(container, video)
        if stamps:
            wanted = [stamps[number] for number in choose(_seconds(stamps, video), settings, clip, clips)]
            found = _decode(container, video, wanted, settings)
            if len(found) == len(set(wanted)):
                return _stack([found[stamp] for stamp in wanted], settings)
    # Without times in the packets, or where frames can't be decoded, all that can be is looked at from the start.
    with _opened(stream, name) as (container, video):
        times = _shown(container, video)
    if not times:
        raise DataError(
            "Not one frame of the video can be decoded.",
            where=name,
            expected="1 frame or more",
            got=0,
            fix="Remove the file or replace it, or let the run skip broken samples.",
        )
    numbers = choose(times, settings, clip, clips)
    with _opened(stream, name) as (container, video):
        pictures = {
            number: _picture(frame, video, settings)
            for number, frame in enumerate(_frames(container, video))
            if number in set(numbers)
        }
    return _stack([pictures[number] for number in numbers], settings)


@contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream to read, from the start. Turns what FFmpeg raises into a DataError."""
    av = _av()
    stream.seek(0)
    try:
        with av.open(stream, metadata_errors="replace") as container:
            videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not videos:
                raise DataError(
                    "The file holds no video.",
                    where=name,
                    expected="a video stream",
                    got=", ".join(sorted({s.type for s in container.streams})) or "no stream at all",
                )
            video = videos[0]
            context = video.codec_context
            if context is None:
                raise DataError("The video is in a format that this PyAV can't decode.", where=name)
            if context.width * context.height > _MOST_PIXELS:
                raise DataError(
                    "The video declares frames of more pixels than any camera's.",
                    where=name,
                    expected=f"at most {_MOST_PIXELS} pixels",
                    got=f"{context.width} x {context.height}",
                )
            context.thread_count = 1  # data workers decode side by side, one video each
            yield container, video
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            "The file isn't a video that can be read.",
            where=name,
            got=f"{type(error).__name__}: {error}",
            fix="Remove the file or replace it, or let the run skip broken samples.",
        ) from error


def _av() -> Any:
    try:
        import av
        import av.error
        import av.stream
    except ImportError as error:
        raise DependencyError(
            "Videos are read through PyAV, which isn't there or can't be loaded.",
            got=error,
            fix=install_hint(extra="video"),
        ) from error
    return av


def _packet_stamps(container: InputContainer, video: VideoStream) -> list[int]:
    """When each frame is shown, in units of the stream, in order, from the packets alone; none where they don't say."""
    av = _av()
    stamps = []
    try:
        for packet in container.demux(video):
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None:
                return []
            stamps.append(packet.pts)
    except av.error.FFmpegError:
        pass  # a damaged end: what came before counts
    return sorted(stamps)


def _seconds(stamps: list[int], video: VideoStream) -> list[float]:
    assert video.time_base is not None
    return [float(stamp * video.time_base) for stamp in stamps]


def _frames(container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Frames in the order they are shown, as far as they can be decoded."""
    av = _av()
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue  # one packet is damaged; the next may be whole


def _shown(container: InputContainer, video: VideoStream) -> list[float]:
    """When each frame that can be decoded is shown, in seconds; their numbers at one a second where nothing says."""
    stamps = [frame.pts for frame in _frames(container, video)]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(stamps) and known == sorted(known):
        return _seconds(known, video)
    return [float(number) for number in range(len(stamps))]


def _decode(
    container: InputContainer, video: VideoStream, stamps: list[int], settings: VideoFolderSettings
) -> dict[int, np.ndarray[Any, Any]]:
    """The frames shown from these stamps on, as far as they can be decoded. Starts at the keyframe before them."""
    av = _av()
    left, found = set(stamps), {}
    try:
        container.seek(min(left), stream=video)  # to a keyframe at or before it
    except av.error.FFmpegError:
        container.seek(0)
    for frame in _frames(container, video):
        if frame.pts in left:
            found[frame.pts] = _picture(frame, video, settings)
            left.discard(frame.pts)
        if not left:
            break
    return found


def _picture(frame: VideoFrame, video: VideoStream, settings: VideoFolderSettings) -> np.ndarray[Any, Any]:
    """(C, H, W) uint8: upright, the short side resized, the centre kept."""
    height, width = settings.frame_size
    turns = round(frame.rotation / 90) % 4
    if turns % 2:  # sizes of the frame as it is stored
        height, width = width, height
    aspect = float(video.sample_aspect_ratio or 1) or 1.0
    scale = max(height / frame.height, width / (frame.width * aspect))
    tall, wide = max(round(frame.height * scale), height), max(round(frame.width * aspect * scale), width)
    resized = frame.reformat(width=wide, height=tall, format=_FORMAT[settings.mode], interpolation="AREA", threads=1)
    pixels = resized.to_ndarray()
    top, left = (tall - height) // 2, (wide - width) // 2
    pixels = np.rot90(pixels[top : top + height, left : left + width], turns)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _stack(frames: list[np.ndarray[Any, Any]], settings: VideoFolderSettings) -> Tensor:
    return torch.from_numpy(np.stack(fill(frames, settings.frames), 1))
