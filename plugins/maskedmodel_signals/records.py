"""What sources of recordings share: files of records, their windows, labels and facts."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from maskedmodel import DataSource, Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import LabelledFiles, Part, SampleDataset, SignalDataset, Split
from maskedmodel_signals.cutting import Reader, cut
from maskedmodel_signals.facts import facts_of
from maskedmodel_signals.recorded import Header, RecordSettings, leads_of, stretch_label

R = TypeVar("R", bound=RecordSettings)


class Windows:
    """Window `index` of a split: the number of its record, and its first sample."""

    def __init__(self, source: Records[Any], part: Part, places: list[tuple[int, int]]) -> None:
        self.source, self.part, self.places = source, part, places

    def __call__(self, index: int) -> Tensor:
        number, first = self.places[index]
        return self.source.window(self.part, number, first)


class Records(DataSource[R]):
    """Windows (leads, length) float32 in millivolts; a lead that a record lacks is NaN. The split is by record.

    A sample's id is its record's path and its first sample. Windows of a record are one group. What is left of a record
    after its last whole window is left out, and so are signals that are no leads; both are told.
    """

    gives_nan = True
    extensions: tuple[str, ...]
    noun = "recordings"

    @abstractmethod
    def head(self, part: Part, number: int) -> Header:
        """What a record says of itself. Raises DataError where it can't be read."""

    @abstractmethod
    def reader(self, part: Part, number: int) -> Reader:
        """What reads a record's signals. Raises DataError where it can't be read."""

    @cached_property
    def files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, self.extensions, self.noun)

    @cached_property
    def _heads(self) -> dict[Split, list[Header | DataError]]:
        return {}

    def heads(self, split: Split) -> list[Header | DataError]:
        """Of every record of a split; what is wrong with one where it can't be read."""
        if split not in self._heads:
            part = self.files.part(split)
            self._heads[split] = [self._head(part, number) for number in range(len(part.ids))]
        return self._heads[split]

    def _head(self, part: Part, number: int) -> Header | DataError:
        try:
            header = self.head(part, number)
            if not leads_of(header, self.settings, part.name(number)):
                raise DataError(
                    "The recording has none of the leads.",
                    where=part.name(number),
                    expected=f"one of {', '.join(self.settings.names)}",
                    got=", ".join(header.labels),
                    fix="Set data.leads and tokenizer.leads, or data.aliases={NAME: LEAD}.",
                )
        except DataError as error:
            return error
        return header

    def open(self, split: Split) -> SampleDataset:
        part, s = self.files.part(split), self.settings
        stride, places, labels = s.stride or s.length, list[tuple[int, int]](), list[int | None]()
        for number, header in enumerate(self.heads(split)):
            if isinstance(header, DataError):  # one sample: reading it says why, and the run's policy decides
                firsts = [0]
            else:
                firsts = list(range(0, int(header.seconds * s.rate + 1e-6) - s.length + 1, stride))
            places += [(number, first) for first in firsts]
            for first in firsts:
                if s.annotated is None or isinstance(header, DataError):
                    labels.append(None if part.labels is None else part.labels[number])
                else:
                    labels.append(stretch_label(header, s.annotated, first / s.rate, (first + s.length) / s.rate))
        if not places:
            raise DataError(f"No recording of {split!r} is as long as a window.", where=s.path, expected=f"{s.length}")
        ids = [f"{part.ids[number]}@{first}" for number, first in places]
        groups = [(part.groups or part.ids)[number] for number, _ in places]
        known = None if s.annotated is None and part.labels is None else labels
        return SignalDataset(Windows(self, part, places), ids, known, groups)

    def window(self, part: Part, number: int, first: int) -> Tensor:
        """One window. Raises DataError where the record can't be read."""
        header = self._head(part, number)
        if isinstance(header, DataError):
            raise header
        leads = leads_of(header, self.settings, part.name(number))
        return cut(self.reader(part, number), header, leads, self.settings, first, self.settings.length)

    def class_names(self) -> list[str] | None:
        return self.files.class_names if self.settings.annotated is None else list(self.settings.annotated)

    def channel_names(self) -> tuple[str, ...]:
        return self.settings.names

    def facts(self) -> list[Fact]:
        heads = [header for split in self.files.parts() for header in self.heads(split)]
        return [*self.files.facts(labels=self.settings.annotated is None), *facts_of(heads, self.settings)]
