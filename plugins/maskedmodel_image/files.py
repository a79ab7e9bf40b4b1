"""Encoded images where they lie: in a folder, or in a zip."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from maskedmodel import DataError
from maskedmodel_image.decode import EXTENSIONS

# Images hardly compress further: a member that unpacks to more than this, or to many times its size, is no image.
_MOST_BYTES = 1 << 29
_MOST_RATIO, _ALWAYS_FINE_BYTES = 200, 1 << 24


class EncodedImages(Protocol):
    """Encoded images by number. Safe to pickle, to fork, and to read from several threads."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What errors call the image."""

    def open(self, index: int) -> BinaryIO:
        """Its bytes, seekable. Raises DataError where they can't be read."""

    def stamp(self, index: int) -> str:
        """Something that changes when the bytes do, found without reading them."""


def existing_path(setting: str, what: str) -> Path:
    """`setting` as a path, ~ expanded. Raises DataError where nothing is there or it can't be looked at."""
    path = Path(setting).expanduser()
    try:
        path.stat()
    except OSError as error:
        raise DataError(
            f"The {what} can't be read.",
            where=path,
            got=error.strerror,
            fix=f"Check the path; relative ones start at {os.getcwd()}.",
        ) from error
    return path


def image_files(setting: str, what: str) -> FolderFiles | ZipFiles:
    """The image files in a folder or a zip. Raises DataError where there is none."""
    path = existing_path(setting, what)
    if path.is_dir():
        files: FolderFiles | ZipFiles = FolderFiles(path)
    elif path.suffix.lower() == ".zip":
        files = ZipFiles(path)
    else:
        raise DataError(
            f"The {what} is a file.", where=path, expected="a folder or a .zip", got=path.suffix or path.name
        )
    if not files.paths:
        raise DataError(
            "There are no images.",
            where=path,
            expected=f"files that end in {' '.join(EXTENSIONS)}",
            got="none, in no sub-folder either",
            fix="Check the path.",
        )
    return files


class FolderFiles:
    """The image files below a folder, by their relative paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = sorted(self._walk(root, "", set()))

    def _walk(self, folder: Path, prefix: str, seen: set[tuple[int, int]]) -> list[str]:
        try:
            own = folder.stat()
            if (own.st_dev, own.st_ino) in seen:  # a link back up
                return []
            seen.add((own.st_dev, own.st_ino))
            found = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        found += self._walk(Path(entry.path), f"{prefix}{entry.name}/", seen)
                    elif entry.name.lower().endswith(EXTENSIONS):
                        found.append(prefix + entry.name)
            return found
        except OSError as error:
            raise DataError("The folder can't be read.", where=folder, got=error.strerror) from error

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def open(self, index: int) -> BinaryIO:
        try:
            return (self.root / self.paths[index]).open("rb")
        except OSError as error:
            raise DataError("The image can't be read.", where=self.name(index), got=error.strerror) from error

    def stamp(self, index: int) -> str:
        try:
            info = (self.root / self.paths[index]).stat()
        except OSError as error:  # a link to nowhere: reading it is what fails, if anybody does
            return f"unreadable: {error.strerror}"
        return f"{info.st_size} {info.st_mtime_ns}"


class ZipFiles:
    """The image files in a zip, read where they lie: nothing is unpacked to disk.

    Raises DataError on a member that no honest archive of images has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self.paths: list[str] = []
        self._stamps: dict[str, str] = {}
        seen: set[str] = set()
        for member in self._zip.infolist():
            self._check(member, member.filename in seen)
            seen.add(member.filename)
            hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(member.filename).parts)
            if not member.is_dir() and not hidden and member.filename.lower().endswith(EXTENSIONS):
                self.paths.append(member.filename)
                self._stamps[member.filename] = f"{member.file_size} {member.CRC}"
        self.paths.sort()

    def _check(self, member: zipfile.ZipInfo, double: bool) -> None:
        name, mode = member.orig_filename, member.external_attr >> 16
        ratio = member.file_size / max(member.compress_size, 1)
        problem = (
            "a path that leads out of the archive"
            if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/")
            else "a name that occurs twice"
            if double
            else "a link or device"
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            else "a password"
            if member.flag_bits & 1
            else f"a declared size of {member.file_size} bytes"
            if member.file_size > _MOST_BYTES
            else f"a declared size of {ratio:.0f} times what is stored"
            if ratio > _MOST_RATIO and member.file_size > _ALWAYS_FINE_BYTES
            else None
        )
        if problem is not None:
            raise DataError(
                "The zip isn't safe to read.",
                where=self.path,
                expected="plain members with relative paths, each once, of a sensible size",
                got=f"{problem}: {name!r}",
                fix="Unpack and inspect it with a tool you trust, then give the folder.",
            )

    @property
    def _zip(self) -> zipfile.ZipFile:
        """Open in this process: two processes that share a file position would read each other's bytes."""
        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = (os.getpid(), zipfile.ZipFile(self.path))
            except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise DataError(
                    "The zip can't be read.", where=self.path, got=f"{type(error).__name__}: {error}"
                ) from error
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return f"{self.path}/{self.paths[index]}"

    def open(self, index: int) -> BinaryIO:
        damaged = (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error)
        try:
            return io.BytesIO(self._zip.read(self.paths[index]))  # never more than the declared size
        except damaged as error:
            got = f"{type(error).__name__}: {error}"
            raise DataError("The image can't be read out of the zip.", where=self.name(index), got=got) from error

    def stamp(self, index: int) -> str:
        return self._stamps[self.paths[index]]
