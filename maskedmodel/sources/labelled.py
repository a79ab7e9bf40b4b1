"""Files of some kinds with their splits, labels and groups: by sub-folder, by a table, or by JSON files beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from pydantic import Field

from maskedmodel.components import Settings, Split
from maskedmodel.errors import DataError, suggestion
from maskedmodel.sources.bundles import Bundles
from maskedmodel.sources.files import Files, files_at
from maskedmodel.sources.splits import VALIDATION_NAMES, split_by_share

TABLES = ("metadata.csv", "index.csv")  # looked for at the top of a folder or archive
_FILE_COLUMNS = ("file_name", "file", "path")


class FileSettings(Settings):
    """Settings of a source that reads files from a folder or archive: where they are, their splits, their labels."""

    path: str = Field(
        description="Folder of files, or a zip or uncompressed tar of one. Sub-folders are classes unless files also "
        "lie beside them. Sub-folders train and val (or valid, validation, dev, test) are the splits. A metadata.csv "
        "or index.csv at the top, or a JSON file beside each file, may say labels, groups and splits instead."
    )
    val_path: str | None = Field(None, description="Folder or archive of the validation files.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the files for validation, chosen by a hash of their names or groups, where nothing else "
        "says.",
    )
    label: str | None = Field(
        None, description="Column of the table, or key of the JSON files, that holds the label. null: label, if there."
    )
    group: str | None = Field(
        None,
        description="Column or key of what must stay on one side of a split and of a fold: a recording, a field of "
        "view, a well. null: none.",
    )
    classes: tuple[str, ...] | None = Field(
        None, description="Labels to take, in this order; files of others are left out. null: all, sorted."
    )
    val_groups: tuple[str, ...] | None = Field(
        None, description="Groups that are for validation. null: a share of them."
    )


@dataclass(frozen=True)
class Part:
    """One split: which files, their ids (relative paths), and labels and groups where known."""

    files: Files | Bundles
    chosen: list[int]
    ids: list[str]
    labels: list[int | None] | None
    groups: list[str] | None

    def count(self, index: int) -> int:
        """How many files are sample number `index`: one, unless each folder is a sample."""
        return self.files.count(self.chosen[index]) if isinstance(self.files, Bundles) else 1

    def open(self, index: int, member: int = 0) -> BinaryIO:
        """The bytes of this part's file number `index`, seekable. Raises DataError where they can't be read.

        Where each folder is a sample, `member` counts its files.
        """
        if isinstance(self.files, Bundles):
            return self.files.open(self.chosen[index], member)
        return self.files.open(self.chosen[index])

    def name(self, index: int) -> str:
        """What errors call that file."""
        return self.files.name(self.chosen[index])


@dataclass(frozen=True)
class _Root:
    """A folder or archive, and what its table or JSON files say of each file, by path."""

    files: Files | Bundles
    facts: dict[str, dict[str, str]]
    prefix: str = ""  # of ids, to tell the files of val_path from others of the same name

    def fact(self, index: int, key: str | None) -> str | None:
        return None if key is None else self.facts.get(self.files.paths[index], {}).get(key)


class LabelledFiles:
    """The files that a source's `FileSettings` speak of.

    extensions  in lower case with the dot, such as (".wav", ".flac").
    noun        what errors call the files, in the plural.
    bundled     whether each folder of files is one sample, such as a video's frames, and stands where a file would.

    Hidden files are passed over. A file's id is its path relative to the folder, after "val:" under val_path. A single
    sub-folder that holds everything, as zips often have, stands for the folder itself. Everything raises DataError
    with the path where the files or the table don't give what the settings ask for.
    """

    def __init__(
        self, settings: FileSettings, extensions: tuple[str, ...], noun: str = "files", bundled: bool = False
    ) -> None:
        self.settings, self.extensions, self.noun, self.bundled = settings, extensions, noun, bundled

    @cached_property
    def class_names(self) -> list[str] | None:
        """What the labels 0, 1, ... mean; None where files carry no label."""
        if self.settings.classes is not None:
            return list(self.settings.classes)
        return self._by_table if self._key is not None else self._by_folder

    def part(self, split: Split) -> Part:
        """The files of a split."""
        labelled = self._key is not None or self._by_folder is not None
        root, chosen, base = self._chosen[split]
        names = [self._label(root, index, base) if labelled else None for index in chosen]
        if self.settings.classes is not None:
            kept = [place for place, name in enumerate(names) if name in self.settings.classes]
            chosen, names = [chosen[place] for place in kept], [names[place] for place in kept]
            if not kept:
                raise DataError(
                    f"No {self.noun} of the split {split!r} have one of the classes.",
                    where=self.settings.path,
                    expected=", ".join(self.settings.classes),
                )
        group = self.settings.group
        groups = None if group is None else [self._group(root, index) for index in chosen]
        ids = [root.prefix + root.files.paths[index] for index in chosen]
        return Part(root.files, chosen, ids, self._numbers(names, ids), groups)

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
    def _root(self) -> _Root:
        return self._look(self.settings.path, "path", "")

    @cached_property
    def _val_root(self) -> _Root | None:
        path = self.settings.val_path
        return None if path is None else self._look(path, "val_path", "val:")

    def _look(self, setting: str, what: str, prefix: str) -> _Root:
        found = files_at(setting, what, self.extensions, self.noun)
        files = Bundles(found, setting) if self.bundled else found
        base = common_folder(files.paths)
        facts = _table(files, base, setting) or _sidecars(files)
        return _Root(files, facts, prefix)

    @cached_property
    def _key(self) -> str | None:
        """The column of labels, if any. Raises DataError where one is asked for that isn't there."""
        columns = sorted({key for facts in self._root.facts.values() for key in facts})
        for setting, wanted in (("label", self.settings.label), ("group", self.settings.group)):
            if wanted is not None and wanted not in columns:
                raise DataError(
                    f"Nothing says the {setting} {wanted!r} of the {self.noun}.",
                    where=self.settings.path,
                    expected=f"one of {', '.join(columns)}" if columns else f"{' or '.join(TABLES)} at the top",
                    got=wanted,
                    fix=suggestion(wanted, columns) or None,
                )
        return self.settings.label or ("label" if "label" in columns else None)

    def _label(self, root: _Root, index: int, base: str) -> str | None:
        if self._key is not None:
            return root.fact(index, self._key) or None
        return root.files.paths[index][len(base) :].split("/")[0]

    def _group(self, root: _Root, index: int) -> str:
        return root.fact(index, self.settings.group) or root.files.paths[index]

    @cached_property
    def _by_table(self) -> list[str] | None:
        names = {
            root.fact(i, self._key) for root in (self._root, self._val_root) if root for i in range(len(root.files))
        }
        found = {name for name in names if name}
        return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)) or None

    @cached_property
    def _by_folder(self) -> list[str] | None:
        train, val = self._chosen["train"], self._chosen["val"]
        paths = _inside(train)
        if train[0] is val[0] and train[2] == val[2]:
            paths = paths + _inside(val)
        names = _folders(paths, "")
        return sorted(names) if len(names) > 1 and all("/" in path for path in paths) else None

    @cached_property
    def _chosen(self) -> dict[Split, tuple[_Root, list[int], str]]:
        """Of each split: where its files are, their numbers there, and the folder inside that the classes lie in."""
        root = self._root
        paths = root.files.paths
        everything, base = list(range(len(paths))), common_folder(paths)
        tops = _folders(paths, base)
        val_name = next((name for name in VALIDATION_NAMES if name in tops), None)
        named = "train" in tops and val_name is not None

        def below(folder: str) -> tuple[_Root, list[int], str]:
            return root, [i for i in everything if paths[i].startswith(folder)], folder

        train = below(f"{base}train/") if named else (root, everything, base)
        if self._val_root is not None:
            # Validation may hold one class only, whose folder is then common to all but isn't to be skipped.
            val_base = common_folder(self._val_root.files.paths, _folders(_inside(train), ""))
            return {"train": train, "val": (self._val_root, list(range(len(self._val_root.files))), val_base)}
        if named:
            return {"train": train, "val": below(f"{base}{val_name}/")}
        return {split: (root, self._share(root, split), base) for split in ("train", "val")}

    def _share(self, root: _Root, split: Split) -> list[int]:
        """By the groups named, by the table's column `split`, or by a hash."""
        everything = range(len(root.files))
        if self.settings.val_groups is not None:
            named = set(self.settings.val_groups)
            chosen = [i for i in everything if (self._group(root, i) in named) == (split == "val")]
            return self._some(chosen, split, "val_groups names groups of the files, and not all of them")
        said = [root.fact(index, "split") for index in everything]
        if any(name in VALIDATION_NAMES for name in said) and "train" in said:
            # Where a table has several validation splits, the first of the usual names is taken.
            val_name = next(name for name in VALIDATION_NAMES if name in said)
            return [i for i in everything if said[i] == ("train" if split == "train" else val_name)]
        keys = [self._group(root, index) for index in everything]
        return split_by_share(keys, self.settings.val_share, split, self.settings.path)

    def _some(self, chosen: list[int], split: Split, expected: str) -> list[int]:
        if not chosen:
            raise DataError(
                f"No {self.noun} are left for the split {split!r}.", where=self.settings.path, expected=expected
            )
        return chosen


def _table(files: Files | Bundles, base: str, setting: str) -> dict[str, dict[str, str]]:
    """What a table at the top says of each file, by path. Raises DataError on a table that can't be understood."""
    for name in TABLES:
        for folder in dict.fromkeys(("", base, f"{base.rpartition('/')[0].rpartition('/')[0]}/".lstrip("/"))):
            content = files.beside(folder + name)
            if content is not None:
                return _rows(content, folder, f"{setting}/{folder}{name}")
    return {}


def _rows(content: bytes, folder: str, where: str) -> dict[str, dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("The table of labels can't be read.", where=where, got=error) from error
    column = next((name for name in _FILE_COLUMNS if name in (reader.fieldnames or ())), None)
    if column is None:
        raise DataError(
            "The table of labels doesn't say which file a row is about.",
            where=where,
            expected=f"a column called {', '.join(_FILE_COLUMNS)}",
            got=", ".join(reader.fieldnames or ["nothing"]),
        )
    return {
        folder + row[column]: {key: value for key, value in row.items() if isinstance(key, str) and value is not None}
        for row in rows
    }


def _sidecars(files: Files | Bundles) -> dict[str, dict[str, str]]:
    """What JSON files of the same stem say. Either the first file has one, or none are looked for."""
    facts: dict[str, dict[str, str]] = {}
    for index, path in enumerate(files.paths):
        beside = str(PurePosixPath(path).with_suffix(".json"))
        content = files.beside(beside)
        if content is None:
            if index == 0:
                return {}
            continue
        try:
            said: Any = json.loads(content)
        except ValueError as error:
            raise DataError("The JSON beside a file can't be read.", where=files.name(index), got=error) from error
        if isinstance(said, dict):
            facts[path] = {key: str(value) for key, value in said.items()}
    return facts


def _inside(part: tuple[_Root, list[int], str]) -> list[str]:
    """The paths of a part from its base on."""
    root, chosen, base = part
    return [root.files.paths[index][len(base) :] for index in chosen]


def _folders(paths: Sequence[str], base: str) -> set[str]:
    """Names of the folders directly below `base`."""
    return {path[len(base) :].split("/")[0] for path in paths if "/" in path[len(base) :]}


def common_folder(paths: Sequence[str], stop: set[str] | frozenset[str] = frozenset()) -> str:
    """The innermost folder that holds all of the sorted `paths`: "" or "a/b/". Doesn't enter a folder in `stop`."""
    base = ""
    for first, last in zip(paths[0].split("/")[:-1], paths[-1].split("/")[:-1], strict=False):
        if first != last or first in stop:
            break
        base += f"{first}/"
    return base
