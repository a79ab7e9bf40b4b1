"""The `text_table` source: a table, or a folder of tables, with a column of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from maskedmodel import DataSource, Fact
from maskedmodel.errors import EmptySplitError
from maskedmodel.sources import SampleDataset, Split, in_order, label_facts
from maskedmodel_text.chosen import TextTableSettings, split_rows
from maskedmodel_text.columns import Rows
from maskedmodel_text.rows import has_texts
from maskedmodel_text.texts import Samples, facts_of


class _Parts(NamedTuple):
    samples: dict[Split, Samples]
    how: str
    notices: Sequence[str]
    empty: int  # rows without a text


class TextTable(DataSource[TextTableSettings]):
    """Texts as UTF-8 bytes (1, bytes) uint8, one or more samples a row. All texts are kept in memory."""

    @classmethod
    def example_settings(cls, folder: Path) -> TextTableSettings:
        """Two classes of texts in a CSV, written into `folder`: what the conformance kit reads."""
        lines = [f'{number % 2},"row {number}, {"and so on " * 12}"' for number in range(30)]
        (folder / "texts.csv").write_text("\n".join(["label,text", *lines]), "utf-8")
        return TextTableSettings(path=str(folder / "texts.csv"), length=64)

    @cached_property
    def _rows(self) -> Rows:
        return Rows.at(self.settings.path, self.settings)

    @cached_property
    def _labels(self) -> list[str | None] | None:
        column = self._rows.labels(self.settings.label)
        none = None if self.settings.unlabelled is None else str(self.settings.unlabelled)
        return None if column is None else [None if cell == none else cell for cell in self._rows.cells[column]]

    def class_names(self) -> list[str] | None:
        return in_order(name for name in self._labels if name is not None) or None if self._labels else None

    @cached_property
    def _parts(self) -> _Parts:
        rows, s = self._rows, self.settings
        chosen, how, notices = split_rows(rows, s)
        names, texts = self.class_names(), rows.cells[rows.texts(s.text)[0]]
        number = {name: label for label, name in enumerate(names or ())}
        group = rows.column("group", s.group)
        samples: dict[Split, Samples] = {"train": Samples(), "val": Samples()}
        for split, of_split in chosen.items():
            for row in of_split:
                text, label = texts[row] or "", None if self._labels is None else self._labels[row]
                own = "" if group is None else rows.cells[group][row] or ""
                numbered = None if label is None else number[label]
                samples[split].add(text.encode("utf-8", "replace"), rows.ids[row], s, numbered, own)
        return _Parts(samples, how, notices, sum(not (text or "").strip() for text in texts))

    def open(self, split: Split) -> SampleDataset:
        samples = self._parts.samples[split]
        if not len(samples):
            where, got = self.settings.path, f"{len(samples.texts)} rows, none with a text of two bytes or more"
            raise EmptySplitError(f"No sample is left for the split {split!r}.", where=where, got=got)
        return samples.dataset(self.class_names() is not None)

    def facts(self) -> list[Fact]:
        rows, parts = self._rows, self._parts
        column, guessed = rows.texts(self.settings.text)
        both = list(parts.samples.values())
        facts = [Fact("texts", f"column {column!r} is taken for the texts", guessed)]
        facts += facts_of(rows.counts, sum(s.shortened for s in both), sum(map(len, both)), self.settings)
        if parts.empty:
            facts.append(Fact("texts", f"rows without a text, left out: {parts.empty}", True))
        names = self.class_names()
        said_by = f"column {rows.labels(self.settings.label)!r}"
        others = f"none; data.label takes one of {', '.join(rows.cells)}"
        labels = [label for samples in both for label in samples.labels]
        facts += [Fact("labels", others)] if names is None else label_facts(names, labels, said_by)
        counts = ", ".join(f"{split} {len(samples.texts)}" for split, samples in parts.samples.items())
        facts.append(Fact("split", f"rows of {counts}: {parts.how}"))
        return [*facts, *(Fact("split", notice, True) for notice in parts.notices)]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a table has a column called text, as JSON lines are taken to have: other sources read tables, too."""
        return path.is_file() and has_texts(path)
