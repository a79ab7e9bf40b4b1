"""What recordings were taken for, by their headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import tally
from maskedmodel_signals.recorded import MILLIVOLTS, Header, RecordSettings, leads_of

_SHOWN = 12  # names in a list


def facts_of(heads: Sequence[Header | DataError], settings: RecordSettings) -> list[Fact]:
    """Leads, what is left out, rates, units, lengths, windows and annotations of all records that can be read."""
    headers = [header for header in heads if isinstance(header, Header)]
    found = []
    if len(headers) < len(heads):
        found.append(Fact("recordings", f"{len(heads) - len(headers)} of {len(heads)} can't be used", notice=True))
    if not headers:
        return found
    taken = [leads_of(header, settings, "") for header in headers]
    present = Counter(settings.names[slot] for own in taken for slot in own.values())
    found.append(Fact("leads", f"of {len(headers)} recordings: {_listed(present, settings.names)}"))
    absent = [name for name in settings.names if name not in present]
    if absent:
        found.append(Fact("leads", f"in no recording: {', '.join(absent)}", notice=True))
    left = Counter(label for header, own in zip(headers, taken, strict=True) for label in _left(header, own))
    if left:
        found.append(Fact("leads", f"no leads, left out: {_listed(left, sorted(left))}", notice=True))
    used = [(header, place) for header, own in zip(headers, taken, strict=True) for place in own]
    rates = [header.rates[place] for header, place in used]
    found.append(
        Fact(
            "rate",
            f"{tally(rates, 'at {:g} Hz')}, read at {settings.rate:g} Hz",
            any(r != settings.rate for r in rates),
        )
    )
    strange = Counter(header.units[place] for header, place in used if header.units[place].casefold() not in MILLIVOLTS)
    if strange:
        found.append(Fact("units", f"no volts, values as they are: {_listed(strange, sorted(strange))}", notice=True))
    return [*found, *_lengths(headers, settings), *_annotated(headers, settings)]


def _lengths(headers: Sequence[Header], settings: RecordSettings) -> list[Fact]:
    seconds, window = sorted(header.seconds for header in headers), settings.length / settings.rate
    short = sum(header.seconds + 1e-6 < window for header in headers)
    text = f"{seconds[0]:.4g} to {seconds[-1]:.4g} s, median {median(seconds):.4g} s; windows of {window:g} s"
    found = [Fact("duration", text)]
    if short:
        found.append(Fact("duration", f"{short} of {len(headers)} are shorter than a window: left out", notice=True))
    over = sum(header.seconds % window for header in headers if settings.stride in (None, settings.length))
    if over > 0.01 * sum(seconds):
        found.append(Fact("duration", f"{over:.4g} s after the last whole windows are left out", notice=True))
    return found


def _annotated(headers: Sequence[Header], settings: RecordSettings) -> list[Fact]:
    texts = Counter(text for header in headers for *_, text in header.stretches)
    if not texts:
        return []
    if settings.annotated is None:
        some = _listed(texts, sorted(texts))
        return [Fact("annotations", f"{some}; not read (data.annotated=[...] makes them labels)")]
    unknown = [text for text in settings.annotated if text not in texts]
    said = f"; in no recording: {', '.join(unknown)}" if unknown else ""
    return [Fact("annotations", _listed(texts, sorted(texts)) + said, notice=bool(unknown))]


def _left(header: Header, taken: dict[int, int]) -> list[str]:
    return [label for place, label in enumerate(header.labels) if place not in taken]


def _listed(counts: Counter[str], order: Sequence[str]) -> str:
    """Names with their counts, in an order; the first of many."""
    names = [name for name in order if name in counts]
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name or 'without a name'} {counts[name]}" for name in names[:_SHOWN]) + rest
