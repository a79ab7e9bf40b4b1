"""What a folder of sound files was taken for, by the headers of some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import median

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import Part
from maskedmodel_audio.reading import Header, SoundFileSettings, read_header

_LOOKED_AT = 64  # files: headers of all would take long on a slow disk


def facts_of(parts: Iterable[Part], settings: SoundFileSettings) -> list[Fact]:
    """Formats, rates, channels and lengths of up to 64 files, evenly spread, and what becomes of them."""
    files = [(part, index) for part in parts for index in range(len(part.ids))]
    chosen = files[:: -(-len(files) // _LOOKED_AT) or 1]
    headers, broken = list[Header](), 0
    for part, index in chosen:
        try:
            with part.open(index) as stream:
                headers.append(read_header(stream, part.name(index)))
        except DataError:
            broken += 1
    of = f"of {len(chosen)} files looked at" if len(chosen) < len(files) else f"of {len(files)} files"
    found = [_part(settings)] if settings.offset or settings.seconds is not None else []
    if broken:
        found.append(Fact("sound", f"{of}, {broken} can't be opened", notice=True))
    return found if not headers else [*_headers(headers, of, settings), *found]


def _headers(headers: list[Header], of: str, settings: SoundFileSettings) -> list[Fact]:
    rates, channels = Counter(header.rate for header in headers), Counter(header.channels for header in headers)
    others = sum(count for rate, count in rates.items() if rate != settings.sample_rate)
    many = sum(count for number, count in channels.items() if number > 1)
    found = [
        Fact("sound", f"{of}: {_counts(Counter(header.kind for header in headers))}"),
        Fact("sample rate", f"{of}: {_counts(rates, ' at {:,} Hz')}"),
        Fact("channels", f"{of}: {_counts(channels, ' of {} channels')}"),
    ]
    if others:
        text = f"{of}, {others} are resampled to {settings.sample_rate:,} Hz ({_counts(rates, ' at {:,} Hz')})"
        found[1] = Fact("sample rate", text, notice=True)
    if many and settings.mono:
        text = f"{of}, {many} have their channels averaged ({_counts(channels, ' of {} channels')})"
        found[2] = Fact("channels", text, notice=True)
    seconds = sorted(header.seconds for header in headers if header.seconds is not None)
    if seconds:
        said = f"{seconds[0]:.3g} to {seconds[-1]:.3g} s, median {median(seconds):.3g} s, by their headers"
        found.append(Fact("duration", f"{of}: {said}"))
    return found


def _part(settings: SoundFileSettings) -> Fact:
    until = "the end" if settings.seconds is None else f"{settings.offset + settings.seconds:g} s"
    return Fact("duration", f"of each file, what lies from {settings.offset:g} s to {until} is read", notice=True)


def _counts(counts: Counter[int] | Counter[str], form: str = " {}") -> str:
    """ "12 FLAC, 3 MP3", the most frequent first."""
    return ", ".join(f"{count}{form.format(key)}" for key, count in counts.most_common())
