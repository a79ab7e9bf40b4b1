"""Which of a source's files are for training and which for validation, and what decided it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maskedmodel.components import Split
from maskedmodel.errors import DataError, EmptySplitError
from maskedmodel.sources.bundles import Bundles
from maskedmodel.sources.file_settings import FileSettings, listed
from maskedmodel.sources.files import Files
from maskedmodel.sources.layout import Layout
from maskedmodel.sources.splits import NamedSplit, named_split, split_by_share, split_word
from maskedmodel.sources.tables import Sayings, missing

_OF_FOLDERS = "Set data.folders=classes if they are classes, or name the splits in data.train_split and data.val_split."
_OF_TABLE = "Name the splits in data.train_split and data.val_split."


@dataclass(frozen=True)
class Root:
    """A folder or archive, what its folders mean, and what its table or JSON files say of each file."""

    files: Files | Bundles
    says: Sayings
    layout: Layout
    prefix: str = ""  # of ids, to tell the files of val_path from others of the same name

    def raw(self, index: int, key: str) -> str | None:
        """What stands under `key` for a file, be it a value or the sign for none."""
        return self.says.facts.get(self.files.paths[index], {}).get(key)

    def fact(self, index: int, key: str | None) -> str | None:
        """What is said of a file under `key`; None where nothing is."""
        value = None if key is None else self.raw(index, key)
        return None if missing(value) else value

    def group(self, index: int, key: str | None) -> str:
        return self.fact(index, key) or self.files.paths[index]


@dataclass(frozen=True)
class Chosen:
    """Of each split where its files are and their numbers there, and how that was decided.

    classes_of_both  whether the folders of validation files name classes, too, beside those of training.
    empty            what to raise where a split that no file is left for is used.
    """

    parts: dict[Split, tuple[Root, list[int]]]
    how: str
    notices: tuple[str, ...] = ()
    classes_of_both: bool = True
    empty: Mapping[Split, EmptySplitError] = field(default_factory=dict)


def choose(
    root: Root, val_root: Root | None, settings: FileSettings, split: str | None, group: str | None, noun: str
) -> Chosen:
    """By val_path, by the groups named, by folders, by the column `split`, or by a hash. Raises DataError."""
    everything = list(range(len(root.files)))
    if val_root is not None:
        own = _named(root, settings, split, only_train=True)
        theirs = _named(val_root, settings, val_root.says.column(split) if split else None)
        val = theirs.val if theirs is not None and theirs.val is not None else list(range(len(val_root.files)))
        train = own.train if own is not None else everything
        notices = [*(own.notices if own else ()), *(theirs.notices if theirs else ())]
        how = "by data.val_path" + (f"; {own.text}" if own is not None else "")
        return Chosen({"train": (root, train), "val": (val_root, val)}, how, tuple(notices), False)
    if settings.val_groups is not None:
        named = set(settings.val_groups)
        of_val = [root.group(index, group) in named for index in everything]
        parts = {"train": [i for i in everything if not of_val[i]], "val": [i for i in everything if of_val[i]]}
        for name, chosen in parts.items():
            if not chosen:
                raise DataError(
                    f"No {noun} are left for the split {name!r}.",
                    where=settings.path,
                    expected="val_groups names groups of the files, and not all of them",
                )
        return Chosen({"train": (root, parts["train"]), "val": (root, parts["val"])}, "by data.val_groups")
    found = _named(root, settings, split)
    if found is not None and found.val is not None:
        of_both = root.layout.splits is None
        parts_found: dict[Split, tuple[Root, list[int]]] = {"train": (root, found.train), "val": (root, found.val)}
        return Chosen(parts_found, found.text, found.notices, of_both)
    among = found.train if found is not None else everything
    keys = [root.group(index, group) for index in among]

    empty: dict[Split, EmptySplitError] = {}

    def share(of: Split) -> list[int]:
        try:
            return [among[place] for place in split_by_share(keys, settings.val_share, of, settings.path)]
        except EmptySplitError as error:  # a single file has a part for validation, which may be all that is asked for
            empty[of] = error
            return []

    how = f"a share of {settings.val_share:g}, by a hash of {'names' if group is None else f'column {group!r}'}"
    if found is not None:
        how = f"{found.text}; {how}"
    notices = [*(found.notices if found is not None else ()), *_overlooked(root, split)]
    return Chosen({"train": (root, share("train")), "val": (root, share("val"))}, how, tuple(notices), empty=empty)


def _named(root: Root, settings: FileSettings, split: str | None, only_train: bool = False) -> NamedSplit | None:
    """The splits that folders or a column name; None where neither does."""
    train = listed(settings.train_split) if settings.train_split is not None else None
    where = root.files.name(0).removesuffix(root.files.paths[0]).rstrip("/")
    by_column: list[str | None] = [root.fact(index, split) for index in range(len(root.files))]
    wanted = train is not None or settings.val_split is not None
    if root.layout.splits is not None:
        names, said_by, fix = root.layout.splits, "folders", _OF_FOLDERS
    elif split is not None and (wanted or any(by_column)):
        names, said_by, fix = by_column, f"column {split!r}", _OF_TABLE
    elif wanted and not (root.prefix or only_train):
        raise DataError(
            "Nothing names splits.",
            where=where,
            expected="folders called as splits, or a column 'split' of a table",
            got="data.train_split or data.val_split is set",
            fix="Leave these settings out, or name the column in data.split.",
        )
    else:
        return None
    # Validation files by themselves need no name: what names there are say which of them.
    if root.prefix and not any(split_word(name) for name in set(names) if name):
        return None
    if root.prefix and not any(split_word(name) == "train" for name in set(names) if name):
        return None
    return named_split(names, train, settings.val_split, said_by, where, fix, only_train)


def _overlooked(root: Root, split: str | None) -> Sequence[str]:
    """Columns that look like a split and aren't taken for one."""
    notices = []
    for column in root.says.columns:
        names = {root.fact(index, column) for index in range(len(root.files))} - {None}
        words = {split_word(name or "") for name in names}
        if column == split and len(names) > 1 and words == {None}:
            shown = ", ".join(sorted(name or "" for name in names)[:5])
            notices.append(f"column {column!r} names no split ({shown}): data.train_split and data.val_split may say")
        elif column != split and "train" in words and len(words) > 1 and None not in words:
            notices.append(f"column {column!r} reads like a split and isn't used (data.split={column} takes it)")
    return notices
