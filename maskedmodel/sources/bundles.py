"""Files that are one sample together: those of a folder, such as a video's frames, or those whose names say so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO

from maskedmodel.errors import DataError
from maskedmodel.sources.files import Files


class Bundles:
    """Several of `files` in place of one: those of a folder, by its path, or those of one `key`, by that.

    Members come in the order of the numbers in their names: frame 2 before frame 10. Without a key, raises DataError
    where files lie in no folder of their own.
    """

    def __init__(self, files: Files, where: object, key: Callable[[str], str] | None = None) -> None:
        self.files = files
        members: dict[str, list[int]] = {}
        for index, path in enumerate(files.paths):
            members.setdefault(key(path) if key else str(PurePosixPath(path).parent), []).append(index)
        if key is None and "." in members:
            raise DataError(
                "Files lie at the top, in no folder of their own.",
                where=where,
                expected="a folder for each sample",
                got=files.paths[members["."][0]],
                fix="Give the folder above, if these files are one sample.",
            )
        self.paths = sorted(members)
        self.census = files.census
        self._members = [
            sorted(members[path], key=lambda index: natural_order(files.paths[index])) for path in self.paths
        ]

    def __len__(self) -> int:
        return len(self.paths)

    def count(self, index: int) -> int:
        """How many files the sample has."""
        return len(self._members[index])

    def path(self, index: int, member: int) -> str:
        """The relative path of a file of the sample."""
        return self.files.paths[self._members[index][member]]

    def name(self, index: int, member: int = 0) -> str:
        """What errors call a file of the sample."""
        return self.files.name(self._members[index][member])

    def open(self, index: int, member: int = 0) -> BinaryIO:
        """The bytes of a file of the sample, seekable. Raises DataError where they can't be read."""
        return self.files.open(self._members[index][member])

    def beside(self, path: str) -> bytes | None:
        """Another file by its relative path; None where there is none."""
        return self.files.beside(path)

    def stamp(self, index: int) -> str:
        """Something that changes when the bytes of any of its files do."""
        return "/".join(self.files.stamp(member) for member in self._members[index])


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts names by the numbers in them: frame 2 before frame 10."""
    # Digits of the usual kind alone, and no more than Python makes a number of: a superscript two is no number.
    parts = re.split(r"([0-9]{1,1000})", name)
    return [(place % 2 == 0, int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]
