"""The files below a folder: what is walked into, what is left out, and what is ever opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from maskedmodel.errors import DataError
from maskedmodel.limits import LimitedFile, single_read
from maskedmodel.sources.census import Census

# Bytes of a file that is read whole beside the data, such as a table of labels.
MOST_BYTES = 1 << 29
# One folder that links lead to is entered this often: more is a knot of links, in which paths grow without end.
_MOST_VISITS = 1000

_KINDS = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


def legible(name: str) -> str:
    """A name as text that can be written anywhere: bytes that aren't UTF-8 are spelled out, as in caf\\xe9.png."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_regular(path: Path, where: object = None) -> BinaryIO:
    """A regular file, open to read. Raises DataError on anything else, which is never waited for, and where it can't.

    A named pipe would wait for a writer for ever, a device may do anything.
    """
    name = where if where is not None else legible(str(path))
    try:
        _refuse_special(os.stat(path).st_mode, name)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with single_read(name):
            number = os.open(path, flags)  # not to be inherited, as all that Python opens
        try:
            _refuse_special(os.fstat(number).st_mode, name)  # it may have changed since
            return BufferedReader(LimitedFile(number, name))
        except BaseException:
            os.close(number)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError("The file can't be read.", where=name, got=got) from error


def _refuse_special(mode: int, where: object) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "special file")
        raise DataError("The file can't be read.", where=where, expected="a regular file", got=f"a {kind}")


def read_whole(path: Path) -> bytes | None:
    """All bytes of a small file; None where there is none. Raises DataError where it can't be read, or is too large."""
    if not os.path.lexists(path):
        return None
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise DataError(
                "The file is too large to be read whole.",
                where=legible(str(path)),
                expected=f"at most {MOST_BYTES} bytes",
                got=size,
            )
        try:
            return file.read()
        except OSError as error:
            raise DataError("The file can't be read.", where=legible(str(path)), got=error.strerror) from error


@dataclass(frozen=True)
class Found:
    """A plain file below a folder: `path` relative to it as text, `raw` as the system spells it."""

    path: str
    raw: str


def walk(root: Path, census: Census) -> Iterator[Found]:
    """The plain files below `root`, hidden ones and what is no file left out and noted. Raises DataError."""
    yield from _Walk(root, census).into("", ())


class _Walk:
    def __init__(self, root: Path, census: Census) -> None:
        self.root, self.census = root, census
        self.visits: dict[tuple[int, int], int] = {}

    def into(self, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Found]:
        folder = self.root / prefix
        try:
            with single_read(legible(str(folder))):
                info = folder.stat()
                with os.scandir(folder) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                self.census.loops.append(legible(prefix))
                return
            raise DataError("The folder can't be read.", where=legible(str(folder)), got=error.strerror) from error
        own = (info.st_dev, info.st_ino)
        if own in above:
            self.census.loops.append(legible(prefix.rstrip("/")))
            return
        self._visit(own, prefix)
        for entry in inside:
            if entry.name.startswith("."):
                self.census.hidden += 1
                continue
            kind = _kind(entry)
            if kind == "folder":
                yield from self.into(f"{prefix}{entry.name}/", (*above, own))
            elif kind == "file":
                yield Found(legible(prefix + entry.name), prefix + entry.name)
            else:
                self.census.special.setdefault(kind, []).append(legible(prefix + entry.name))

    def _visit(self, own: tuple[int, int], prefix: str) -> None:
        count = self.visits[own] = self.visits.get(own, 0) + 1
        if count > 1:
            self.census.again.append(legible(prefix.rstrip("/")))
        if count > _MOST_VISITS:
            raise DataError(
                "Links among the folders lead to one folder again and again.",
                where=legible(str(self.root)),
                expected=f"at most {_MOST_VISITS} paths to a folder",
                got=legible(prefix),
                fix="Take links out, or give the folder they lead to.",
            )


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is, links followed. A link that leads nowhere counts as a file: reading it is what fails."""
    try:
        if entry.is_file():  # asks the disk of links alone
            return "file"
        mode = entry.stat().st_mode
    except OSError:
        return "file"
    return _KINDS.get(stat.S_IFMT(mode), "special file")


class FolderFiles:
    """The files below a folder that have one of the extensions, by their relative paths.

    Links are followed, but never back to a folder above; two links to one folder are two folders. What isn't read is
    counted in `census`.
    """

    def __init__(self, root: Path, extensions: tuple[str, ...]) -> None:
        self.root, self.extensions, self.census = root, extensions, Census()
        self._raw: dict[str, str] = {}  # of names that aren't UTF-8
        self.paths: list[str] = []
        for found in walk(root, self.census):
            wanted = found.path.lower().endswith(extensions)
            self.census.count(found.path, wanted)
            if found.raw != found.path:
                self._rename(found, wanted)
            if wanted:
                self.paths.append(found.path)
        self.paths.sort()
        double = next((name for name in self._raw if os.path.lexists(root / name)), None)
        if double is not None:
            raise DataError(
                "A file's name that isn't UTF-8 reads like the name of another.",
                where=legible(str(root)),
                got=double,
                fix="Rename one.",
            )

    def _rename(self, found: Found, wanted: bool) -> None:
        self._raw[found.path] = found.raw
        if wanted:
            self.census.renamed.append(found.path)

    def __len__(self) -> int:
        return len(self.paths)

    def _path(self, path: str) -> Path:
        return self.root / self._raw.get(path, path)

    def location(self, index: int) -> Path:
        """Where file number `index` lies."""
        return self._path(self.paths[index])

    def name(self, index: int) -> str:
        return legible(str(self.root)) + "/" + self.paths[index]

    def open(self, index: int) -> BinaryIO:
        return open_regular(self._path(self.paths[index]), self.name(index))

    def beside(self, path: str) -> bytes | None:
        """Another file by its relative path, such as a table of labels; None where there is none."""
        return read_whole(self._path(path))

    def stamp(self, index: int) -> str:
        try:
            info = self._path(self.paths[index]).stat()
        except OSError as error:  # a link to nowhere: reading it is what fails, if anybody does
            return f"unreadable: {error.strerror}"
        return f"{info.st_size} {info.st_mtime_ns}"
