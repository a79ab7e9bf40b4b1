"""The `topics` source: what Python's own help says, so nothing is downloaded."""

from __future__ import annotations

import platform
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from maskedmodel import DataSource, Fact, Sample, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import SampleDataset, Split, split_by_share
from maskedmodel_text.decode import TextSettings
from maskedmodel_text.texts import Samples, read_document

# The longest chapters of the language and library references that `help` knows and that aren't part of one another.
TOPICS = ("assignment", "comparisons", "compound", "debugger", "formatstrings", "specialnames", "string-methods",
          "types", "typesmapping", "typesseq")  # fmt: skip
_TOGETHER = 4  # pieces in a row that go to one split: the next one often ends a sentence of the last


class TopicsSettings(Settings):
    """Settings of the `topics` source."""

    name: Literal["topics"] = "topics"
    length: int = Field(128, ge=8, description="Most bytes of a sample.")
    val_share: float = Field(0.2, gt=0, lt=1, description="Share of the samples for validation.")
    train_samples: int | None = Field(None, ge=1, description="Most training samples, evenly spread; null: all.")
    val_samples: int | None = Field(None, ge=1, description="Most validation samples, evenly spread; null: all.")


class Topics(DataSource[TopicsSettings]):
    """Pieces of ten topics of Python's help, labelled by topic: some 280 kB of English, grammar and code.

    They come with every CPython as the module pydoc_data.topics, under the licence of Python itself (PSF-2.0), and
    are read from there. So the text is that of the Python at hand: another version has somewhat other samples.
    """

    @cached_property
    def _samples(self) -> Samples:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(
                "This Python comes without the topics of its help.",
                where="pydoc_data.topics",
                got=str(error),
                fix="Install the whole standard library, or name texts: data.name=text_folder data.path=FOLDER.",
            ) from error
        samples, how = Samples(), TextSettings(name="topics", length=self.settings.length)
        for label, topic in enumerate(TOPICS):
            first = len(samples)
            samples.add(topics.get(topic, "").encode(), topic, how, label)
            for number in range(first, len(samples)):
                samples.groups[number] = f"{topic}/{(number - first) // _TOGETHER}"
        return samples

    def open(self, split: Split) -> SampleDataset:
        """Neighbours go to one split, four by four, chosen by a hash."""
        s = self.settings
        rows = split_by_share(self._samples.groups, s.val_share, split, "pydoc_data.topics")
        most = s.train_samples if split == "train" else s.val_samples
        count = min(len(rows), most or len(rows))
        return self._samples.dataset(True, [rows[place * len(rows) // count] for place in range(count)])

    def class_names(self) -> list[str]:
        return list(TOPICS)

    def facts(self) -> list[Fact]:
        version = f"the help of Python {platform.python_version()}"
        return [Fact("texts", f"{len(self._samples)} pieces of at most {self.settings.length} bytes, of {version}")]

    def read(self, path: Path) -> Sample:
        return read_document(path, TextSettings(name="file", length=self.settings.length))
