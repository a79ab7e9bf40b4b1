"""One clip out of one video file, or a clear error, through PyAV.

PyAV rather than torchcodec: its wheels bring their own FFmpeg and know nothing of torch, where torchcodec needs
FFmpeg's libraries on the machine and breaks at almost each release of torch.

What becomes of what real files hold is listed in docs/readers/video.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel_video.clip import CUT_NOTE, Clip, Notes, Pixels, check_pixels, pixels_of, stacked
from maskedmodel_video.frame_choice import choose
from maskedmodel_video.settings import VideoFolderSettings
from maskedmodel_video.structure import missing_end

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".ogv", ".3gp", ".gif"),
)


def read_clip(stream: BinaryIO, name: str, settings: VideoFolderSettings, clip: int = 0, clips: int = 1) -> Clip:
    """Clip number `clip` of `clips` evenly spread over the video in `stream`, with notes of what was converted.

    `name` stands in errors: DataError on whatever is wrong, DependencyError without PyAV.
    """
    return _Reading(stream, name, settings).clip(clip, clips)


@dataclass(frozen=True)
class Header:
    """What a video's header says; nothing where it leaves it open."""

    kind: str  # "mp4 with h264"
    width: int
    height: int
    rate: float | None  # frames a second
    frames: int
    seconds: float | None
    sound: bool


def read_header(stream: BinaryIO, name: str, settings: VideoFolderSettings) -> Header:
    """A file's header, nothing decoded or compared. Raises DataError."""
    with _Reading(stream, name, settings).opened() as (container, video):
        seconds = None
        if video.duration is not None and video.time_base is not None:
            seconds = float(video.duration * video.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        rate = None if not video.average_rate else float(video.average_rate)
        kind = f"{container.format.name.split(',')[0]} with {video.codec_context.name}"
        size = video.codec_context.width, video.codec_context.height
        return Header(kind, *size, rate, video.frames, seconds, bool(container.streams.audio))


@dataclass
class _Faults:
    """What went wrong on the way: the first error in words, empty where all was well."""

    first: str = ""

    def add(self, error: object) -> None:
        self.first = self.first or str(error) or type(error).__name__


class _Reading:
    """Reads one clip of one file, and collects what is to be told of it."""

    def __init__(self, stream: BinaryIO, name: str, settings: VideoFolderSettings) -> None:
        self.stream, self.name, self.settings = stream, name, settings
        self.notes = Notes()

    def clip(self, clip: int, clips: int) -> Clip:
        missing = missing_end(self.stream)
        if missing:
            self._found_damage("The video is cut off.", missing)
        with self.opened() as (container, video):
            faults = _Faults()
            stamps = _packet_stamps(container, video, faults, self._most)
            if stamps:
                wanted = [stamps[number] for number in choose(_seconds(stamps, video), self.settings, clip, clips)]
                found = self._decode(container, video, wanted, faults)
                if len(found) == len(set(wanted)) and not faults.first:
                    return stacked([found[stamp] for stamp in wanted], self.settings, self.notes)
        # Without times in the packets, or where frames can't be decoded, all that can be is looked at from the start.
        return self._from_the_start(clip, clips)

    def _from_the_start(self, clip: int, clips: int) -> Clip:
        faults = _Faults()
        with self.opened() as (container, video):
            times = self._shown(container, video, faults)
        if not times:
            raise DataError(
                "Not one frame of the video can be decoded.",
                where=self.name,
                expected="1 frame or more",
                got=faults.first or 0,
                fix="Remove the file or replace it, or let the run skip broken samples.",
            )
        if faults.first:
            self._found_damage("Frames of the video can't be decoded.", faults.first)
        numbers = choose(times, self.settings, clip, clips)
        with self.opened() as (container, video):
            pictures = {
                number: self._pixels(frame, video)
                for number, frame in enumerate(self._frames(container, video, faults))
                if number in set(numbers)
            }
        return stacked([pictures[number] for number in numbers], self.settings, self.notes)

    def _found_damage(self, what: str, got: str) -> None:
        """Raises DataError, or notes it where damaged files are read as far as they go."""
        if self.settings.incomplete == "refuse":
            raise DataError(
                what,
                where=self.name,
                expected="a whole file",
                got=got,
                fix="Replace or remove it, let the run skip broken samples, or set data.incomplete=read.",
            )
        self.notes.add(CUT_NOTE if "cut off" in what else "frames that can't be decoded passed over")

    @contextmanager
    def opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The container and the stream to read, from the start. Turns what FFmpeg raises into a DataError."""
        av = _av()
        self.stream.seek(0)
        try:
            # FFmpeg itself refuses larger frames, before it takes memory for them.
            options = {"max_pixels": str(self.settings.most_pixels)}
            with av.open(self.stream, metadata_errors="replace", options=options) as container:
                yield container, self._video(container)
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                "The file isn't a video that can be read.",
                where=self.name,
                got=f"{type(error).__name__}: {error}",
                fix="Remove the file or replace it, or let the run skip broken samples.",
            ) from error

    def _video(self, container: InputContainer) -> VideoStream:
        """The first stream of pictures that is no cover."""
        cover = _av().stream.Disposition.attached_pic
        videos = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not videos:
            raise DataError(
                "The file holds no video.",
                where=self.name,
                expected="a video stream",
                got=", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all",
            )
        if len(videos) > 1:
            self.notes.add("further video streams left out")
        context = videos[0].codec_context
        if context is None:
            raise DataError("The video is in a format that this PyAV can't decode.", where=self.name)
        check_pixels(context.width, context.height, self.name, self.settings)
        context.thread_count = 1  # data workers decode side by side, one video each
        return videos[0]

    def _most(self, count: int) -> None:
        if count > self.settings.most_frames:
            raise DataError(
                "The video has too many frames.",
                where=self.name,
                expected=f"at most {self.settings.most_frames:,}",
                got="more",
                fix="Raise data.most_frames, or cut the video into parts.",
            )

    def _frames(self, container: InputContainer, video: VideoStream, faults: _Faults) -> Iterator[VideoFrame]:
        """Frames in the order they are shown, as far as they can be decoded."""
        av = _av()
        packets = container.demux(video)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                faults.add(error)
                return
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                faults.add(error)  # one packet is damaged; the next may be whole

    def _shown(self, container: InputContainer, video: VideoStream, faults: _Faults) -> list[float]:
        """When each frame that can be decoded is shown, in seconds; their numbers at one a second if nothing says."""
        stamps = []
        for frame in self._frames(container, video, faults):
            stamps.append(frame.pts)
            self._most(len(stamps))
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) == len(stamps) and known == sorted(known):
            return _seconds(known, video)
        self.notes.add("no times in the file: frames counted")
        return [float(number) for number in range(len(stamps))]

    def _decode(
        self, container: InputContainer, video: VideoStream, stamps: list[int], faults: _Faults
    ) -> dict[int, Pixels]:
        """The frames shown from these stamps on, as far as they can be decoded. Starts at the keyframe before them."""
        av = _av()
        left, found = set(stamps), dict[int, Pixels]()
        try:
            container.seek(min(left), stream=video)  # to a keyframe at or before it
        except av.error.FFmpegError:
            container.seek(0)
        for frame in self._frames(container, video, faults):
            if frame.pts in left and not frame.is_corrupt:
                found[frame.pts] = self._pixels(frame, video)
                left.discard(frame.pts)
            if not left:
                break
        return found

    def _pixels(self, frame: VideoFrame, video: VideoStream) -> Pixels:
        if frame.is_corrupt:
            self._found_damage("Frames of the video can't be decoded.", "a damaged frame")
        aspect = float(video.sample_aspect_ratio or 1) or 1.0
        return pixels_of(frame, aspect, self.name, self.settings, self.notes)


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


def _packet_stamps(
    container: InputContainer, video: VideoStream, faults: _Faults, check: Callable[[int], None]
) -> list[int]:
    """When each frame is shown, in units of the stream, in order, from the packets alone; none where they don't say.

    None either where packets carry a palette or the like: it comes once, and decoders need it after a jump, too.
    `check` is told how many there are.
    """
    av = _av()
    stamps = []
    try:
        for packet in container.demux(video):
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None or _comes_once(packet):
                return []
            stamps.append(packet.pts)
            check(len(stamps))
    except av.error.FFmpegError as error:
        faults.add(error)
    return sorted(stamps)


def _comes_once(packet: Packet[VideoStream]) -> bool:
    """Whether a packet carries what all that follow need, too: asking for each kind is slow, and most carry nothing."""
    if next(packet.iter_sidedata(), None) is None:
        return False
    return packet.has_sidedata("palette") or packet.has_sidedata("new_extradata")


def _seconds(stamps: list[int], video: VideoStream) -> list[float]:
    assert video.time_base is not None
    up, down = video.time_base.numerator, video.time_base.denominator
    return [stamp * up / down for stamp in stamps]
