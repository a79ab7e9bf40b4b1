"""What a folder of videos was taken for, by the headers of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part, looked_at, spread, tally
from maskedmodel_video.reader import Header, read_header
from maskedmodel_video.settings import VideoFolderSettings

_LOOKED_AT = 32  # files: opening one takes some milliseconds


def facts_of(parts: Sequence[Part], settings: VideoFolderSettings, bundled: bool) -> list[Fact]:
    """Containers, codecs, sizes, rates and lengths of up to 32 videos, evenly spread, and what is taken of each."""
    videos = [(part, index) for part in parts for index in range(len(part.ids))]
    chosen = spread(videos, _LOOKED_AT)
    of = looked_at(len(chosen), len(videos), "videos")
    if bundled:
        counts = [part.count(index) for part, index in videos]
        said = f"{len(videos)} folders of images: {min(counts)} to {max(counts)} each, median {median(counts):g}"
        found = [Fact("videos", said)]
        lengths = counts
    else:
        headers, broken = list[Header](), 0
        for part, index in chosen:
            try:
                with part.open(index) as stream:
                    headers.append(read_header(stream, part.name(index), settings))
            except DataError:
                broken += 1
        found = _headers(headers, of) if headers else []
        if broken:
            found.append(Fact("videos", f"{of}, {broken} can't be opened", notice=True))
        lengths = [header.frames for header in headers if header.frames]
    short = sum(length < settings.frames for length in lengths)
    if short:
        of = f"of {len(videos)} folders" if bundled else of
        text = f"{of}, {short} have fewer than {settings.frames} frames: their last one is repeated"
        found.append(Fact("frames", text, notice=True))
    return [*found, _taken(settings, bundled)]


def _headers(headers: list[Header], of: str) -> list[Fact]:
    sizes = [f"{header.width} x {header.height}" for header in headers]
    found = [
        Fact("videos", f"{of}: {tally([header.kind for header in headers])}"),
        Fact("size", f"{of}: {tally(sizes, 'of {} pixels')}"),
    ]
    rates = [f"{header.rate:.4g}" for header in headers if header.rate]
    if rates:
        found.append(Fact("frame rate", f"{of}: {tally(rates, 'at {} a second')}"))
    seconds = sorted(header.seconds for header in headers if header.seconds is not None)
    if seconds:
        said = f"{seconds[0]:.3g} to {seconds[-1]:.3g} s, median {median(seconds):.3g} s, by their headers"
        found.append(Fact("duration", f"{of}: {said}"))
    sound = sum(header.sound for header in headers)
    if sound:
        found.append(Fact("sound", f"{of}, {sound} hold sound, which is left out", notice=True))
    return found


def _taken(settings: VideoFolderSettings, bundled: bool) -> Fact:
    height, width = settings.frame_size
    when = "the middle" if settings.clips == 1 else f"{settings.clips} places in training, the middle in validation"
    unit = "images" if bundled else "frames" if settings.rate is None else f"frames at {settings.rate:g} a second"
    text = (
        f"each clip is {settings.frames} {unit}, one in {settings.stride}, from {when}; the short side is resized to "
        f"fit {width} x {height} pixels, the centre kept"
    )
    return Fact("frames", text)
