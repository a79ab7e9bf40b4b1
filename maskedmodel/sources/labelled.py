"""Files of some kinds with their splits, labels and groups: by sub-folder, by a table, or by JSON files beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from maskedmodel.components import Fact, Split
from maskedmodel.errors import DataError, suggestion
from maskedmodel.sources.bundles import Bundles
from maskedmodel.sources.choosing import Chosen, Root, choose
from maskedmodel.sources.file_settings import FileSettings, listed
from maskedmodel.sources.files import Files, files_at
from maskedmodel.sources.labels import doubt_labels, in_order, label_facts
from maskedmodel.sources.layout import common_folder, layout_of
from maskedmodel.sources.tables import TABLES, missing, read_sayings

_SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Part:
    """One split: which files, their ids (relative paths), and labels and groups where known."""

    files: Files | Bundles
    chosen: list[int]
    ids: list[str]
    labels: list[int | None] | None
    groups: list[str] | None

    def count(self, index: int) -> int:
        """How many files are sample number `index`: one, unless files are bundled."""
        return self.files.count(self.chosen[index]) if isinstance(self.files, Bundles) else 1

    def open(self, index: int, member: int = 0) -> BinaryIO:
        """The bytes of this part's file number `index`, seekable. Raises DataError where they can't be read.

        Where files are bundled, `member` counts those of the sample.
        """
        if isinstance(self.files, Bundles):
            return self.files.open(self.chosen[index], member)
        return self.files.open(self.chosen[index])

    def name(self, index: int, member: int = 0) -> str:
        """What errors call that file."""
        if isinstance(self.files, Bundles):
            return self.files.name(self.chosen[index], member)
        return self.files.name(self.chosen[index])

    def path(self, index: int, member: int = 0) -> str:
        """Its path below the folder, as it lies there."""
        if isinstance(self.files, Bundles):
            return self.files.path(self.chosen[index], member)
        return self.files.paths[self.chosen[index]]


class LabelledFiles:
    """The files that a source's `FileSettings` speak of.

    extensions  in lower case with the dot, such as (".wav", ".flac").
    noun        what errors call the files, in the plural.
    bundled     True: each folder of files is one sample, such as a video's frames, and stands where a file would. A
                function of a path: files for which it gives the same path are one sample, which goes by that path.

    Hidden files are passed over. A file's id is its path relative to the folder, after "val:" under val_path. A single
    sub-folder that holds everything, as zips often have, stands for the folder itself. Everything raises DataError
    with the path where the files or the table don't give what the settings ask for.
    """

    def __init__(
        self,
        settings: FileSettings,
        extensions: tuple[str, ...],
        noun: str = "files",
        bundled: bool | Callable[[str], str] = False,
    ) -> None:
        self.settings, self.extensions, self.noun, self.bundled = settings, extensions, noun, bundled

    @cached_property
    def class_names(self) -> list[str] | None:
        """What the labels 0, 1, ... mean; None where files carry no label."""
        if self.settings.classes is not None:
            return list(self.settings.classes)
        return self._by_table if self._key is not None else self._by_folder

    @property
    def files(self) -> Files | Bundles:
        """All the files at `path`, whatever split they are in."""
        return self._root.files

    def part(self, split: Split) -> Part:
        """The files of a split."""
        if split in self._chosen.empty:
            raise self._chosen.empty[split]
        root, chosen, names = self._taken(split)
        groups = None if self._group_key is None else [root.group(index, self._group_key) for index in chosen]
        ids = [root.prefix + root.files.paths[index] for index in chosen]
        return Part(root.files, chosen, ids, self._numbers(names, ids), groups)

    def cells(self, split: Split, columns: Sequence[str], what: str) -> list[tuple[str | None, ...]]:
        """What the table or the JSON files say of each file of a split, column by column; None where nothing.

        `what` errors call a column. Raises DataError where there is none of that name, or two rows of a file differ.
        """
        keys = [self._column(what, column, None) for column in columns]
        root, chosen, _ = self._taken(split)
        return [tuple(root.fact(index, key) for key in keys) for index in chosen]

    def _taken(self, split: Split) -> tuple[Root, list[int], list[str | None]]:
        """Where the files of a split are, their numbers there and their labels, of the classes that settings name."""
        root, chosen = self._chosen.parts[split]
        names = [self._label(root, index) for index in chosen]
        if self.settings.classes is not None:
            kept = [place for place, name in enumerate(names) if name in self.settings.classes]
            chosen, names = [chosen[place] for place in kept], [names[place] for place in kept]
            if not kept:
                raise DataError(
                    f"No {self.noun} of the split {split!r} have one of the classes.",
                    where=self.settings.path,
                    expected=", ".join(self.settings.classes),
                )
        return root, chosen, names

    def parts(self) -> dict[Split, Part]:
        """The files of each split that has some."""
        return {split: self.part(split) for split in _SPLITS if split not in self._chosen.empty}

    def facts(self, labels: bool = True) -> list[Fact]:
        """Files by kind, labels and splits with their counts and how they were decided, and all that was left out.

        `labels`  whether these labels are the source's own; otherwise nothing is said of them.
        """
        roots = self._roots
        facts = [fact for root in roots for fact in root.files.census.facts(root.says.used)]
        parts = self.parts()
        if labels:
            facts += self._label_facts(roots, [label for part in parts.values() for label in part.labels or ()])
        counts = ", ".join(f"{split} {len(parts[split].ids) if split in parts else 0}" for split in _SPLITS)
        facts.append(Fact("split", f"{counts}: {self._chosen.how}"))
        facts += [Fact("split", notice, True) for notice in self._chosen.notices]
        taken = sum(len(chosen) for _, chosen in self._chosen.parts.values())
        left = taken - sum(len(part.ids) for part in parts.values())
        if left:
            facts.append(Fact("labels", f"{self.noun} of other classes than data.classes, left out: {left}", True))
        return facts

    def _label_facts(self, roots: Sequence[Root], labels: Sequence[int | None]) -> list[Fact]:
        facts = [fact for root in roots for fact in root.says.told]
        used = {path for root in roots for path in root.says.used}
        tables = sorted({path for root in roots for path in root.files.census.tables} - used)
        if tables and self._root.says.said_by is None:
            text = f"{', '.join(tables[:3])}: not read, as a table of labels is called {' or '.join(TABLES)}"
            facts.append(Fact("labels", text, True))
        if self.class_names is None:
            return [*facts, Fact("labels", "none"), *self._no_classes()]
        said_by = f"column {self._key!r} of {self._root.says.said_by}" if self._key is not None else "sub-folder"
        facts += label_facts(self.class_names, labels, said_by, self.noun)
        known = [label for label in labels if label is not None]
        strange = doubt_labels(known) if self._key is None else None
        if strange is not None:
            facts.append(Fact("labels", f"{strange}: if sub-folders are no classes, set data.folders=none", True))
        return facts

    def _no_classes(self) -> list[Fact]:
        """That sub-folders would be classes, did no files lie beside them."""
        layout = self._root.layout
        names, beside = layout.class_folders(), sum(name is None for name in layout.classes)
        if self.settings.folders != "auto" or self.settings.label == "" or len(names) < 2 or not beside:
            return []
        text = f"{self.noun} beside the sub-folders {', '.join(names[:5])}: {beside}, so these are no classes"
        return [Fact("labels", f"{text} (data.folders=classes makes them so)", True)]

    def _numbers(self, names: list[str | None], ids: list[str]) -> list[int | None] | None:
        classes = self.class_names
        if classes is None:
            return None
        number = {name: label for label, name in enumerate(classes)}
        for name, sample_id in zip(names, ids, strict=True):
            if name is not None and name not in number:
                raise DataError(
                    f"A validation file belongs to no class of the training {self.noun}.",
                    where=sample_id,
                    expected=f"one of {', '.join(classes[:20])}",
                    got=name,
                    fix="Give both splits the same classes.",
                )
        return [None if name is None else number[name] for name in names]

    @cached_property
    def _root(self) -> Root:
        return self._look(self.settings.path, "path", "")

    @cached_property
    def _val_root(self) -> Root | None:
        path = self.settings.val_path
        return None if path is None else self._look(path, "val_path", "val:")

    def _look(self, setting: str, what: str, prefix: str) -> Root:
        found = files_at(setting, what, self.extensions, self.noun)
        key = None if isinstance(self.bundled, bool) else self.bundled
        files = Bundles(found, setting, key) if self.bundled else found
        says = read_sayings(files, common_folder(files.paths), setting, files.census.sidecars)
        # Validation may hold one class only, whose folder is then common to all but isn't to be skipped.
        stop = frozenset(self._root.layout.class_folders()) if prefix else frozenset()
        named = [*listed(self.settings.train_split), *listed(self.settings.val_split)]
        layout = layout_of(files.paths, self.settings.folders == "auto", named, stop)
        return Root(files, says, layout, prefix)

    def _column(self, setting: str, wanted: str | None, usual: str | None) -> str | None:
        """The column a setting names, else the usual one. Raises DataError where the one named isn't there."""
        says = self._root.says
        column = says.column(wanted) if wanted else says.column(usual) if usual and wanted is None else None
        if wanted and column is None:
            columns = ", ".join(says.columns)
            raise DataError(
                f"Nothing says the {setting} {wanted!r} of the {self.noun}.",
                where=self.settings.path,
                expected=f"one of {columns}" if columns else f"{' or '.join(TABLES)} at the top",
                got=wanted,
                fix=suggestion(wanted, says.columns) or None,
            )
        for root in (self._root, self._val_root):
            if root is not None:
                root.says.check(column, root.files.name(0).removesuffix(root.files.paths[0]) + (says.said_by or ""))
        return column

    @cached_property
    def _key(self) -> str | None:
        """The column of labels, if any. Raises DataError where one is asked for that isn't there, or holds none."""
        key = self._column("label", self.settings.label, "label")
        if key is not None and self.settings.label is None:
            values = [root.fact(i, key) for root in self._roots for i in range(len(root.files))]
            reason = doubt_labels([value for value in values if value is not None])
            if reason is not None:
                raise DataError(
                    f"Column {key!r} looks like no classes.",
                    where=self.settings.path,
                    expected="a few values that repeat",
                    got=reason,
                    fix=f'Set data.label={key} to take it all the same, or data.label="" for no labels.',
                )
        return key

    @cached_property
    def _group_key(self) -> str | None:
        return self._column("group", self.settings.group, None)

    @property
    def _roots(self) -> list[Root]:
        return [root for root in (self._root, self._val_root) if root is not None]

    def _label(self, root: Root, index: int) -> str | None:
        if self._key is not None:
            name = root.raw(index, self._key)
        else:
            name = root.layout.classes[index] if self._by_folder is not None else None
        if self.settings.unlabelled is None:
            return None if missing(name) else name
        return None if not name or name in listed(self.settings.unlabelled) else name

    @cached_property
    def _by_table(self) -> list[str] | None:
        names = {self._label(root, index) for root in self._roots for index in range(len(root.files))}
        return in_order(name for name in names if name) or None

    @cached_property
    def _by_folder(self) -> list[str] | None:
        if self.settings.folders == "none" or self.settings.label == "":
            return None
        parts = self._chosen.parts
        train, chosen = parts["train"]
        if self._chosen.classes_of_both and parts["val"][0] is train:
            chosen = [*chosen, *parts["val"][1]]
        names = [train.layout.classes[index] for index in chosen]
        unlabelled = listed(self.settings.unlabelled)
        found = sorted({name for name in names if name is not None and name not in unlabelled})
        whole = self.settings.folders == "classes" or None not in names
        return found if len(found) > 1 and whole else None

    @cached_property
    def _chosen(self) -> Chosen:
        split = self._column("split", self.settings.split, "split")
        return choose(self._root, self._val_root, self.settings, split, self._group_key, self.noun)
