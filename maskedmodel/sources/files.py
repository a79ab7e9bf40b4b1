"""Encoded files where they lie: in a folder, in a zip, or in a tar. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from maskedmodel.errors import DataError
from maskedmodel.sources.bounds import MOST_SHRUNK
from maskedmodel.sources.census import Census, reader_of
from maskedmodel.sources.folders import MOST_BYTES, FolderFiles, legible, open_regular, walk
from maskedmodel.sources.foreign import parsing

# Images and sound hardly compress further: a member that unpacks to more than this, or to many times its size, is
# neither.
_ALWAYS_FINE_BYTES = 1 << 24


class EncodedFiles(Protocol):
    """Encoded files by number. Safe to pickle, to fork, and to read from several threads."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What errors call the file."""

    def open(self, index: int) -> BinaryIO:
        """Its bytes, seekable. Raises DataError where they can't be read."""

    def stamp(self, index: int) -> str:
        """Something that changes when the bytes do, found without reading them."""


def existing_path(setting: str, what: str) -> Path:
    """`setting` as a path, ~ expanded. Raises DataError where nothing is there or it can't be looked at."""
    try:
        path = Path(setting).expanduser()
        path.stat()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, or ~ of somebody who isn't there
        raise DataError(
            f"The {what} can't be read.",
            where=legible(setting),
            got=(error.strerror if isinstance(error, OSError) else None) or str(error),
            fix=f"Check the path; relative ones start at {os.getcwd()}.",
        ) from error
    return path


def files_at(setting: str, what: str, extensions: tuple[str, ...], noun: str = "files") -> Files:
    """The files with one of the `extensions` (".png", in lower case) in a folder, zip, tar, or folder of tars.

    `what` names the setting and `noun` the files ("images") in errors. Raises DataError where there is none.
    """
    path = existing_path(setting, what)
    if path.is_dir():
        files: Files = FolderFiles(path, extensions)
        shards = FolderFiles(path, (".tar",)) if not files.paths and ".tar" in files.census.ignored else None
        if shards is not None:
            files = TarFiles([shards.location(index) for index in range(len(shards))], extensions)
    elif path.suffix.lower() == ".zip":
        files = ZipFiles(path, extensions)
    elif path.suffix.lower() == ".tar":
        files = TarFiles([path], extensions)
    else:
        raise DataError(
            f"The {what} is a file.", where=path, expected="a folder, a .zip or a .tar", got=path.suffix or path.name
        )
    if not files.paths:
        census, package = files.census, reader_of(files.census.ignored)
        raise DataError(
            f"There are no {noun}.",
            where=legible(str(path)),
            expected=f"files that end in {' '.join(extensions)}",
            got=census.summary() if census.ignored or census.special else "none, in no sub-folder either",
            fix=f"{package}: convert them with it." if package else "Check the path.",
        )
    return files


def holds(path: Path, extensions: tuple[str, ...]) -> bool:
    """Whether a folder, an archive or a single file looks like holding files with one of the extensions."""
    if path.is_dir():
        try:
            return any(file.path.lower().endswith(extensions) for file in walk(path, Census()))
        except DataError:
            return False
    if path.suffix.lower() in (".zip", ".tar"):
        try:
            files = ZipFiles(path, extensions) if path.suffix.lower() == ".zip" else TarFiles([path], extensions)
            return len(files) > 0
        except DataError:
            return True  # whoever opens it says what is wrong with it
    return path.suffix.lower() in extensions


class ZipFiles:
    """The files in a zip that have one of the extensions. Raises DataError on a member that no honest archive has."""

    def __init__(self, path: Path, extensions: tuple[str, ...]) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self.paths: list[str] = []
        self.census = Census()
        self._stamps: dict[str, str] = {}
        seen: set[str] = set()
        for member in self._zip.infolist():
            with parsing("The zip can't be read.", path):  # is_dir looks for the last letter of a name without any
                self._check(member, member.filename in seen)
                folder = member.is_dir()
            seen.add(member.filename)
            if not folder and _wanted(member.filename, extensions, self.census):
                self.paths.append(member.filename)
                self._stamps[member.filename] = f"{member.file_size} {member.CRC}"
        self.paths.sort()

    def _check(self, member: zipfile.ZipInfo, double: bool) -> None:
        mode = member.external_attr >> 16
        ratio = member.file_size / max(member.compress_size, 1)
        problem = (
            "a path that leads out of the archive"
            if _leads_out(member.orig_filename)
            else "a name that occurs twice"
            if double
            else "a link or device"
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            else "a password"
            if member.flag_bits & 1
            else f"a declared size of {member.file_size} bytes"
            if member.file_size > MOST_BYTES
            else f"a declared size of {ratio:.0f} times what is stored"
            if ratio > MOST_SHRUNK and member.file_size > _ALWAYS_FINE_BYTES
            else None
        )
        if problem is not None:
            raise _unsafe("zip", self.path, problem, member.orig_filename)

    @property
    def _zip(self) -> zipfile.ZipFile:
        """Open in this process: two processes that share a file position would read each other's bytes."""
        if self._handle is None or self._handle[0] != os.getpid():
            with parsing("The zip can't be read.", self.path):
                self._handle = (os.getpid(), zipfile.ZipFile(open_regular(self.path)))
            assert self._handle is not None
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return f"{self.path}/{self.paths[index]}"

    def open(self, index: int) -> BinaryIO:
        return io.BytesIO(self._read(self.paths[index]))

    def _read(self, path: str) -> bytes:
        archive = self._zip
        with parsing("The file can't be read out of the zip.", f"{self.path}/{path}"):
            return archive.read(path)  # never more than the declared size

    def beside(self, path: str) -> bytes | None:
        """Another member by its path; None where there is none."""
        return self._read(path) if path in self._zip.NameToInfo else None

    def stamp(self, index: int) -> str:
        return self._stamps[self.paths[index]]


class TarFiles:
    """The files in uncompressed tars that have one of the extensions, such as shards of clips and their labels.

    Members are read at their offset. Of several tars, the paths start with the tar's name. Raises DataError on a member
    that no honest archive has.
    """

    def __init__(self, tars: Sequence[Path], extensions: tuple[str, ...]) -> None:
        self._places: dict[str, tuple[Path, int, int]] = {}  # tar, offset and size of every plain member
        self.census = Census()
        for path in tars:
            prefix = f"{path.stem}/" if len(tars) > 1 else ""
            with (
                open_regular(path) as file,
                parsing("The tar can't be read.", path, expected="an uncompressed tar"),
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                for member in archive:
                    self._note(path, prefix, member)
        self.paths = sorted(name for name in self._places if _wanted(name, extensions, self.census))

    def _note(self, tar: Path, prefix: str, member: tarfile.TarInfo) -> None:
        name = prefix + legible(member.name)
        problem = (
            "a path that leads out of the archive"
            if _leads_out(member.name)
            else "a name that occurs twice"
            if name in self._places
            else None
            if member.isfile() or member.isdir()
            else "a link or device"
        )
        if problem is not None:
            raise _unsafe("tar", tar, problem, legible(member.name))
        if member.isfile():
            self._places[name] = (tar, member.offset_data, member.size)
            if name != prefix + member.name:
                self.census.renamed.append(name)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        path = self.paths[index]
        tar, inside = self._places[path][0], path.removeprefix(f"{self._places[path][0].stem}/")
        return f"{tar}/{inside}"

    def open(self, index: int) -> BinaryIO:
        return io.BytesIO(self._read(self.paths[index]))

    def _read(self, path: str) -> bytes:
        tar, offset, size = self._places[path]
        with open_regular(tar) as file, parsing("The tar can't be read.", tar):
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise DataError("The tar ends too early.", where=f"{tar}/{path}", expected=size, got=len(content))
        return content

    def beside(self, path: str) -> bytes | None:
        """Another member by its path; None where there is none."""
        return self._read(path) if path in self._places else None

    def stamp(self, index: int) -> str:
        tar, offset, size = self._places[self.paths[index]]
        return f"{offset} {size} {tar.stat().st_mtime_ns}"


Files = FolderFiles | ZipFiles | TarFiles


def _wanted(name: str, extensions: tuple[str, ...], census: Census) -> bool:
    if any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts):
        census.hidden += 1
        return False
    wanted = name.lower().endswith(extensions)
    census.count(name, wanted)
    return wanted


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/")


def _unsafe(kind: str, path: Path, problem: str, name: str) -> DataError:
    return DataError(
        f"The {kind} isn't safe to read.",
        where=path,
        expected="plain members with relative paths, each once, of a sensible size",
        got=f"{problem}: {name!r}",
        fix="Unpack and inspect it with a tool you trust, then give the folder.",
    )
