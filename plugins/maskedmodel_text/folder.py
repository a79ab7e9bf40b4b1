"""The `text_folder` source: a folder of texts, an archive of one, or a single text."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.errors import DataError, EmptySplitError
from maskedmodel.sources import FileSettings, LabelledFiles, SampleDataset, Split, files_at, legible, open_regular
from maskedmodel_text.decode import Decoder, TextSettings
from maskedmodel_text.texts import Samples, facts_of, read_document

EXTENSIONS = (".txt", ".text", ".md", ".rst")


class TextFolderSettings(TextSettings, FileSettings):
    """Settings of the `text_folder` source."""

    name: Literal["text_folder"] = "text_folder"
    path: str = Field(
        description="Folder of .txt, .text, .md or .rst files, or a zip or uncompressed tar of one; sub-folders are "
        "classes or splits as of any files. Or a single text, whose last part is then for validation."
    )


class TextFolder(DataSource[TextFolderSettings]):
    """Texts as UTF-8 bytes (1, bytes) uint8, labelled by sub-folder, by a table, or by JSON files beside them.

    All texts are kept in memory. Pieces of one text are one group, unless `group` says otherwise.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> TextFolderSettings:
        """Two classes of texts, written into `folder`: what the conformance kit reads."""
        for number in range(20):
            path = folder / f"class{number % 2}" / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"Text {number} counts: " + " ".join(map(str, range(number, 90))) + "\n", "utf-8")
        return TextFolderSettings(path=str(folder), length=64)

    @cached_property
    def _files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, EXTENSIONS, "texts")

    @property
    def _single(self) -> bool:
        return self.settings.path.lower().endswith(EXTENSIONS) and Path(self.settings.path).expanduser().is_file()

    @cached_property
    def _read(self) -> tuple[dict[Split, tuple[Samples, range | None]], Counter[str]]:
        """Samples of each split, of which some rows or all, and what decoding changed."""
        decode = Decoder(self.settings)
        if self._single:
            samples, path = Samples(), Path(self.settings.path).expanduser()
            with open_regular(path) as file:
                text = decode(file.read(), str(path))
            samples.add(text or b"", legible(path.name), self.settings)
            first = len(samples) - max(round(self.settings.val_share * len(samples)), 1)
            return {"train": (samples, range(first)), "val": (samples, range(first, len(samples)))}, decode.counts
        found: dict[Split, tuple[Samples, range | None]] = {}
        for split, part in self._files.parts().items():
            samples = Samples()
            for index, name in enumerate(part.ids):
                with part.open(index) as file:
                    text = decode(file.read(), part.name(index))
                if text is not None:
                    label = None if part.labels is None else part.labels[index]
                    samples.add(text, name, self.settings, label, "" if part.groups is None else part.groups[index])
            found[split] = (samples, None)
        return found, decode.counts

    def open(self, split: Split) -> SampleDataset:
        parts, _ = self._read
        if split not in parts:
            self._files.part(split)  # raises, and says why
        samples, rows = parts[split]
        if not len(samples if rows is None else rows):
            raise EmptySplitError(
                f"No sample is left for the split {split!r}.",
                where=self.settings.path,
                expected="texts of two bytes or more that aren't blank",
                got=f"{len(samples.texts)} texts, {len(samples)} samples in all",
                fix="Add texts, or lower data.length.",
            )
        return samples.dataset(not self._single and self.class_names() is not None, rows)

    def class_names(self) -> list[str] | None:
        return None if self._single else self._files.class_names

    def facts(self) -> list[Fact]:
        parts, counts = self._read
        distinct = list({id(samples): samples for samples, _ in parts.values()}.values())
        told = facts_of(counts, sum(s.shortened for s in distinct), sum(map(len, distinct)), self.settings)
        if self._single:
            share = f"the last {self.settings.val_share:.0%} of the text"
            return [*told, Fact("split", f"validation is {share}, as there is one text alone")]
        return [*self._files.facts(), *told]

    def read(self, path: Path) -> Sample:
        return read_document(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether most files are texts: many a folder of pictures has a readme."""
        try:
            files = files_at(str(path), "path", EXTENSIONS)
        except DataError:
            return path.suffix.lower() in EXTENSIONS
        return len(files) > sum(files.census.ignored.values())
