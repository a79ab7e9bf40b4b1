"""Files and folders that are written whole or not at all, and text that is safe in them.

Whoever writes has a name of its own beside the target and holds the operating system's lock on it, which ends with the
process however that ends. So what a kill left behind can be told from what somebody is still writing, in other
containers and by other users too. Where a file system has no locks nothing is removed, and where its locks don't reach
other machines two of them should not write one target at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from maskedmodel.errors import CheckpointError, MaskedModelError

WRITING = ".writing"  # how names of files end that are being written
_LONGEST = 200  # bytes of a target's name in the name beside it: a name may have 255


def path_of(given: object, kind: type[MaskedModelError] = CheckpointError) -> Path:
    """What a user gives as a path, ~ expanded. Raises an error of `kind` on what is none, such as a list or None."""
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise kind("This is no path.", expected="a str or pathlib.Path", got=type(given).__name__)
    try:
        path = Path(given).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~ of somebody who isn't there, a NUL
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise kind("This path can't be followed.", where=str(given)[:200], got=got) from error
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove the files and folders in `folder` whose writers were killed. What can't be removed stays."""
    _remove(folder, lambda name: name.startswith(".") and name.endswith(WRITING))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once the block has ended well: written beside, synced, renamed.

    Otherwise `path` stays as it was and nothing is left behind, but for a kill, whose leftovers the next writer of the
    same target takes away. Each writer has a file of its own, so of several the last one to end wins. Raises OSError
    as the disk gives it.
    """
    _remove_of(path)
    beside, descriptor = _fresh(path, _new_file)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)  # while the lock is held: afterwards another writer might take it for a leftover
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, to be filled and renamed to it by the caller.

    What is there of it at the end is removed, and before that what killed writers of the same target left. Raises
    OSError as the disk gives it.
    """
    _remove_of(path)
    beside, descriptor = _fresh(path, _new_folder)
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(descriptor)


def _stem(path: Path) -> str:
    """What names beside `path` begin with: its own name, shortened where nothing could be put behind it."""
    name = os.fsencode(path.name)
    if len(name) > _LONGEST:
        mark = hashlib.blake2b(name, digest_size=8).hexdigest().encode()
        name = name[: _LONGEST - len(mark) - 1] + b"~" + mark
    return f".{os.fsdecode(name)}."


def _fresh(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A path of its own beside `path`, what was made there, and an open descriptor of it, locked where that goes."""
    while True:
        beside = path.with_name(f"{_stem(path)}{os.getpid()}-{secrets.token_hex(4)}{WRITING}")
        descriptor = make(beside)
        # Another writer may have met it before it was locked and taken it for a leftover: then it is gone, or goes.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = beside.exists()
        except BlockingIOError:
            kept = False
        except OSError:  # no locks here: then nobody removes anything either
            kept = True
        if kept:
            return beside, descriptor
        os.close(descriptor)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _remove_of(path: Path) -> None:
    """Remove what killed writers of `path` left."""
    _remove(path.parent, re.compile(re.escape(_stem(path)) + r"\d+-[0-9a-f]{8}" + re.escape(WRITING)).fullmatch)


def _remove(folder: Path, wanted: Callable[[str], object]) -> None:
    with suppress(OSError):
        for name in filter(wanted, os.listdir(folder)):
            _remove_if_left(folder / name)


def _remove_if_left(path: Path) -> None:
    """Remove a file or folder that nobody holds the lock of."""
    with suppress(OSError):  # gone meanwhile, somebody else's, or without locks
        mode = path.lstat().st_mode
        whole = stat.S_ISDIR(mode)
        if not whole and not stat.S_ISREG(mode):
            return
        descriptor = os.open(path, (os.O_RDONLY | os.O_DIRECTORY if whole else os.O_RDWR) | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if whole else path.unlink()
        finally:
            os.close(descriptor)


def spreadsheet_cell(value: Any) -> Any:
    """A value for a CSV file. Text that a spreadsheet would take for a formula gets a quote before it (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
