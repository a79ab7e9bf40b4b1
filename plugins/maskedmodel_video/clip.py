"""A clip as it was read, and frames as they are stored made upright pixels of the size asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel_video.frame_choice import fill
from maskedmodel_video.settings import VideoFolderSettings

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_FORMAT = {"grey": "gray", "rgb": "rgb24"}
_ONE = 1 << 16  # in a display matrix
_SIDE_DATA_KINDS = 64  # more than FFmpeg has
_HDR = (16, 18)  # transfer functions: PQ and HLG
MIRRORED_NOTE = "turned or mirrored as the file says"
ALPHA_NOTE = "transparency left out"
SHORT_NOTE = "shorter than a clip: the last frame repeated"
CUT_NOTE = "cut off: read as far as it goes"


@dataclass(frozen=True)
class Clip:
    """Frames (C, T, H, W) uint8, and what was converted or left out when they were read."""

    signal: Tensor
    notes: tuple[str, ...] = ()


@dataclass
class Notes:
    """What is to be told of one video, each once."""

    found: list[str] = field(default_factory=list)

    def add(self, note: str) -> None:
        if note not in self.found:
            self.found.append(note)


def stacked(frames: Sequence[Pixels], settings: VideoFolderSettings, notes: Notes) -> Clip:
    """The clip of these frames (C, H, W), the last one again where there are fewer than asked for."""
    if len(frames) < settings.frames:
        notes.add(SHORT_NOTE)
    return Clip(torch.from_numpy(np.stack(fill(frames, settings.frames), 1)), tuple(notes.found))


def check_pixels(width: int, height: int, name: str, settings: VideoFolderSettings) -> None:
    """Raises DataError on a frame larger than settings allow."""
    if width * height > settings.most_pixels:
        raise DataError(
            "A frame of the video has more pixels than any camera's.",
            where=name,
            expected=f"at most {settings.most_pixels:,} pixels",
            got=f"{width} x {height}",
            fix="Raise data.most_pixels if that is meant, or remove the file.",
        )


@dataclass(frozen=True)
class _Orientation:
    """How a stored frame becomes upright: rows and columns exchanged first, then mirrored."""

    transposed: bool = False
    mirrored: bool = False  # left to right
    upended: bool = False  # top to bottom

    def apply(self, pixels: Pixels) -> Pixels:
        """(H, W) or (H, W, C)."""
        upright = pixels.swapaxes(0, 1) if self.transposed else pixels
        return upright[:: -1 if self.upended else 1, :: -1 if self.mirrored else 1]


_UPRIGHT = _Orientation()


def _display_matrix(frame: VideoFrame) -> bytes | None:
    try:
        found: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for a kind of side data, such as that of EXIF: those are taken off
        found = _with_known_side_data(frame).side_data.get("DISPLAYMATRIX")
    return None if found is None else bytes(found)


def _with_known_side_data(frame: VideoFrame) -> VideoFrame:
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    known: set[Any] = {kind.value for kind in Type}
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1))
    links = [("sidedata", f"mode=delete:type={kind}") for kind in range(_SIDE_DATA_KINDS) if kind not in known]
    for name, options in (*links, ("buffersink", None)):
        following = graph.add(name, options)
        last.link_to(following)
        last = following
    graph.configure()
    graph.push(frame)
    cleaned: Any = graph.pull()
    return cleaned  # type: ignore[no-any-return]


def _orientation(frame: VideoFrame, name: str) -> _Orientation:
    """By the frame's display matrix: (x, y) of a stored pixel is shown at (a x + c y, b x + d y).

    Raises DataError where it turns by anything but quarters.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    if not any((a, b, c, d)):  # left empty by its writer
        return _UPRIGHT
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(straight, crossed) == 0 or min(max(abs(a), abs(d)), max(abs(b), abs(c))) > _ONE // 50:
        raise DataError(
            "The video is turned by an angle that is no quarter.",
            where=name,
            expected="0, 90, 180 or 270 degrees, mirrored or not",
            got=f"a display matrix of {a / _ONE:.3g}, {b / _ONE:.3g}, {c / _ONE:.3g}, {d / _ONE:.3g}",
            fix="Write the file anew, upright.",
        )
    if crossed > straight:
        return _Orientation(True, c < 0, b < 0)
    return _Orientation(False, a < 0, d < 0)


def pixels_of(frame: VideoFrame, aspect: float, name: str, settings: VideoFolderSettings, notes: Notes) -> Pixels:
    """(C, H, W): upright, 8 bits, the short side resized, the centre kept. `aspect` is a pixel's width by its height.

    Raises DataError on a frame that is too large, and on one turned by no quarter.
    """
    orientation = _orientation(frame, name)
    height, width = settings.frame_size
    if orientation.transposed:  # sizes of the frame as it is stored
        height, width = width, height
    check_pixels(frame.width, frame.height, name, settings)
    scale = max(height / frame.height, width / (frame.width * aspect))
    tall, wide = max(round(frame.height * scale), height), max(round(frame.width * aspect * scale), width)
    check_pixels(wide, tall, name, settings)
    resized = frame.reformat(width=wide, height=tall, format=_FORMAT[settings.mode], interpolation="AREA", threads=1)
    _note(frame, aspect, orientation, notes)
    pixels: Any = resized.to_ndarray()
    top, left = (tall - height) // 2, (wide - width) // 2
    pixels = orientation.apply(pixels[top : top + height, left : left + width])
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _note(frame: VideoFrame, aspect: float, orientation: _Orientation, notes: Notes) -> None:
    """Notes of what `pixels_of` converts in this frame."""
    if orientation != _UPRIGHT:
        notes.add(MIRRORED_NOTE)
    if aspect != 1:
        notes.add("pixels that aren't square made square")
    if frame.interlaced_frame:
        notes.add("interlaced: both fields of a picture in one frame")
    if frame.color_trc in _HDR:
        notes.add("high dynamic range read as it is stored")
    parts = frame.format.components
    if any(part.bits > 8 for part in parts):
        notes.add("more than 8 bits per value reduced to 8")
    if ALPHA_NOTE not in notes.found and any(part.is_alpha for part in parts):
        alpha = frame.reformat(format="rgba", threads=1).to_ndarray()[..., 3]
        if alpha.min() < 255:
            notes.add(ALPHA_NOTE)
