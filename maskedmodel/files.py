"""Files that are written whole or not at all, and text that is safe in them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

WRITING = ".writing"  # how names of files end that are being written


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder that no living process writes to."""
    for path in folder.glob(f".*{WRITING}"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once the block has ended well: written beside, synced, renamed.

    Otherwise `path` stays as it was and nothing is left behind, but for a kill, whose leftovers `remove_leftovers`
    takes away. Each writer has a file of its own, so of several the last one to end wins. Raises OSError as the disk
    gives it.
    """
    beside = path.with_name(f".{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}{WRITING}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def spreadsheet_cell(value: Any) -> Any:
    """A value for a CSV file. Text that a spreadsheet would take for a formula gets a quote before it (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
