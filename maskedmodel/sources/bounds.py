"""Bounds on what files become in memory: a kilobyte on disk can hold a million rows of one value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from maskedmodel.errors import DataError

MOST_SHRUNK = 200  # times what is stored: more is no data, but copies of next to nothing
_ROWS_AT_ONCE = 65536


def memory_of_machine() -> int | None:
    """Bytes of memory that this machine has; None where the system doesn't say."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(size: int, where: object, fix: str, share: float = 1.0) -> None:
    """Raises DataError where `size` bytes are more than this `share` of the machine's: better than to be killed."""
    have = memory_of_machine()
    if have is not None and size > share * have:
        raise DataError(
            "The data doesn't fit into memory.",
            where=where,
            expected=f"at most {share * have / 2**30:.1f} GiB of the {have / 2**30:.1f} GiB that this machine has",
            got=f"{size / 2**30:.1f} GiB or more",
            fix=fix,
        )


def check_size(size: int, most: int, what: str, where: object, fix: str) -> None:
    """Raises DataError where part of a file is larger than `most` bytes; `what` says how that is known."""
    if size > most:
        raise DataError(
            "A part of the file is too large.",
            where=where,
            expected=f"at most {most / 2**20:.0f} MiB",
            got=f"it {what} {size / 2**20:.0f} MiB" + (" or more" if what == "decodes to" else ""),
            fix=fix,
        )


def row_batches(
    file: Any,
    most: int,
    where: object,
    fix: str,
    *,
    columns: Sequence[str] | None = None,
    group: int | None = None,
    at_once: int = _ROWS_AT_ONCE,
) -> Iterator[Any]:
    """The rows of a pyarrow ParquetFile, or of one row group, as record batches that take `most` bytes at most in all.

    What a group declares bounds each of its values, so no more rows are decoded at a time than fit by this bound, but
    where values have a fixed width. Raises DataError once there are more, and whatever pyarrow raises.
    """
    groups = range(file.metadata.num_row_groups) if group is None else [group]
    schema, size = file.schema_arrow, 0
    fixed = all(_fixed(schema.field(name).type) for name in columns or schema.names)
    for number in groups:
        # Of all columns: to ask for one of them ends the process where its statistics are damaged (pyarrow 26).
        declared = max(file.metadata.row_group(number).total_byte_size, 1)
        rows = at_once if fixed else max(1, min(at_once, most // declared))
        for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=columns, use_threads=False):
            size += batch.nbytes
            check_size(size, most, "decodes to", where, fix)
            yield batch


def _fixed(kind: Any) -> bool:
    """Whether values of an arrow type all take as many bits."""
    try:
        return bool(kind.bit_width > 0)
    except ValueError:  # it has none
        return False
