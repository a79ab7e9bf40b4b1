"""What the sub-folders of a folder of files mean: splits where they are named so, classes below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskedmodel.sources.splits import names_among, split_word


@dataclass(frozen=True)
class Layout:
    """Of each file the folder that names its split and the one that names its class; None where it lies in none.

    `splits` is None where no folders are named as splits.
    """

    splits: list[str | None] | None
    classes: list[str | None]

    def class_folders(self) -> list[str]:
        return sorted({name for name in self.classes if name is not None})


def layout_of(
    paths: Sequence[str], with_splits: bool, named: Sequence[str] = (), stop: frozenset[str] = frozenset()
) -> Layout:
    """The layout of sorted `paths`. `named` has splits that a user named; folders in `stop` are classes, and not
    passed over where they hold everything.

    Splits are the uppermost folders, or those below them where they are all of splits (class/train/file). A mixture
    counts as splits, too: who takes them apart asks.
    """
    base = common_folder(paths, stop)
    folders = [path[len(base) :].split("/")[:-1] for path in paths]
    level = _split_level(folders, named) if with_splits else None
    splits = None
    if level is not None:
        splits = [parts[level] if len(parts) > level else None for parts in folders]
        folders = [parts[:level] + parts[level + 1 :] for parts in folders]
    below = sorted("/".join([*parts, "file"]) for parts in folders)
    passed = common_folder(below, stop).count("/")
    return Layout(splits, [parts[passed] if len(parts) > passed else None for parts in folders])


def _split_level(folders: Sequence[Sequence[str]], named: Sequence[str]) -> int | None:
    for level in (0, 1):
        names = {parts[level] for parts in folders if len(parts) > level}
        words = {word for word in map(split_word, names) if word is not None}
        if named and names_among(sorted(names), named):
            return level
        if (level == 0 and words) or ("train" in words and len(words) > 1):
            return level
    return None


def common_folder(paths: Sequence[str], stop: frozenset[str] = frozenset()) -> str:
    """The innermost folder that holds all of the sorted `paths`: "" or "a/b/". Doesn't enter a folder in `stop`."""
    base = ""
    for first, last in zip(paths[0].split("/")[:-1], paths[-1].split("/")[:-1], strict=False):
        if first != last or first in stop:
            break
        base += f"{first}/"
    return base
