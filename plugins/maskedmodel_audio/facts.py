"""What a folder of sound files was taken for, by the headers of some of them."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part, looked_at, spread, tally
from maskedmodel_audio.reading import Header, SoundFileSettings, read_header

_LOOKED_AT = 64  # files: headers of all would take long on a slow disk


def facts_of(parts: Iterable[Part], settings: SoundFileSettings) -> list[Fact]:
    """Formats, rates, channels and lengths of up to 64 files, evenly spread, and what becomes of them."""
    files = [(part, index) for part in parts for index in range(len(part.ids))]
    chosen = spread(files, _LOOKED_AT)
    headers, broken = list[Header](), 0
    for part, index in chosen:
        try:
            with part.open(index) as stream:
                headers.append(read_header(stream, part.name(index)))
        except DataError:
            broken += 1
    of = looked_at(len(chosen), len(files), "files")
    found = [_part(settings)] if settings.offset or settings.seconds is not None else []
    if broken:
        found.append(Fact("sound", f"{of}, {broken} can't be opened", notice=True))
    return found if not headers else [*_headers(headers, of, settings), *found]


def _headers(headers: list[Header], of: str, settings: SoundFileSettings) -> list[Fact]:
    others = sum(header.rate != settings.sample_rate for header in headers)
    many = sum(header.channels > 1 for header in headers)
    rates = tally((header.rate for header in headers), "at {:,} Hz")
    channels = tally((header.channels for header in headers), "of {} channels")
    found = [
        Fact("sound", f"{of}: {tally(header.kind for header in headers)}"),
        Fact("sample rate", f"{of}: {rates}"),
        Fact("channels", f"{of}: {channels}"),
    ]
    if others:
        text = f"{of}, {others} are resampled to {settings.sample_rate:,} Hz ({rates})"
        found[1] = Fact("sample rate", text, notice=True)
    if many and settings.mono:
        text = f"{of}, {many} have their channels averaged ({channels})"
        found[2] = Fact("channels", text, notice=True)
    seconds = sorted(header.seconds for header in headers if header.seconds is not None)
    if seconds:
        said = f"{seconds[0]:.3g} to {seconds[-1]:.3g} s, median {median(seconds):.3g} s, by their headers"
        found.append(Fact("duration", f"{of}: {said}"))
    return found


def _part(settings: SoundFileSettings) -> Fact:
    until = "the end" if settings.seconds is None else f"{settings.offset + settings.seconds:g} s"
    return Fact("duration", f"of each file, what lies from {settings.offset:g} s to {until} is read", notice=True)
