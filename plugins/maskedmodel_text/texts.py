"""Samples of texts that are kept in memory: cut so that none ends within a character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from maskedmodel import Fact, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import SignalDataset, legible, open_regular
from maskedmodel_text.decode import Decoder, TextSettings


def cut(text: bytes, settings: TextSettings) -> Iterator[tuple[int, int]]:
    """Where the samples of a text begin and end, in bytes. Blank ones and single bytes are none: nothing to hide."""
    start, end = 0, len(text)
    while start < end:
        stop = end
        if settings.cut == "lines":
            stop = text.find(b"\n", start) + 1 or end
        stop = min(stop, _stop(text, start, settings.length))
        if len(text[start:stop].strip()) > 1:
            yield start, stop
        if settings.cut == "documents":
            return
        start = stop


def _stop(text: bytes, start: int, length: int) -> int:
    """The last place, `length` bytes on at most, behind white space or at least between two characters."""
    end = start + length
    if end >= len(text):
        return len(text)
    space = max(text.rfind(mark, start + length // 2, end) for mark in (b" ", b"\n", b"\t"))
    if space >= 0:
        return space + 1
    while text[end] & 0xC0 == 0x80:  # a byte within a character
        end -= 1
    return end


@dataclass
class Samples:
    """Samples of texts that are kept in memory: where they begin and end, and what is known of each."""

    texts: list[bytes] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # text, first byte, byte behind the last
    ids: list[str] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    shortened: int = 0

    def add(self, text: bytes, name: str, settings: TextSettings, label: int | None = None, group: str = "") -> None:
        """The samples of a text, called by its name and their number; one group unless it has one."""
        for number, (start, stop) in enumerate(cut(text, settings)):
            self.places.append((len(self.texts), start, stop))
            self.ids.append(name if settings.cut == "documents" else f"{name}:{number}")
            self.labels.append(label)
            self.groups.append(group or name)
            self.shortened += settings.cut == "documents" and stop < len(text)
        self.texts.append(text)

    def __len__(self) -> int:
        return len(self.places)

    def signal(self, rows: Sequence[int], index: int) -> Tensor:
        """Of some rows number `index`, (1, bytes) uint8."""
        text, start, stop = self.places[rows[index]]
        return torch.frombuffer(bytearray(self.texts[text][start:stop]), dtype=torch.uint8)[None]

    def dataset(self, labelled: bool, rows: Sequence[int] | None = None) -> SignalDataset:
        """Some of the samples, or all, in the order of `rows`."""
        rows = range(len(self)) if rows is None else rows
        labels = [self.labels[row] for row in rows] if labelled else None
        ids, groups = [self.ids[row] for row in rows], [self.groups[row] for row in rows]
        return SignalDataset(partial(self.signal, rows), ids, labels, groups)


def facts_of(counts: Counter[str], shortened: int, samples: int, settings: TextSettings) -> list[Fact]:
    """What a source did to its texts, and how many samples they gave."""
    facts = [Fact("texts", f"{samples} samples of at most {settings.length} bytes, cut as {settings.cut}")]
    facts += [Fact("texts", f"{what}: {count}", True) for what, count in counts.items() if count]
    if shortened:
        facts.append(Fact("texts", f"texts longer than data.length, whose rest is left out: {shortened}", True))
    return facts


def read_document(path: Path, settings: TextSettings) -> Sample:
    """A file as one sample: its beginning, where it is longer than `length`. Raises DataError on what is no text."""
    with open_regular(path) as file:
        text = Decoder(settings)(file.read(), str(path))
    samples = Samples()
    samples.add(text or b"", legible(path.name), settings.model_copy(update={"cut": "documents"}))
    if not len(samples):
        raise DataError("The file holds no text.", where=path, expected="two bytes or more that aren't blank")
    sample = samples.dataset(False)[0]
    if samples.shortened:
        sample["notes"] = (f"the first {settings.length} bytes at most taken (data.length)",)
    return sample
