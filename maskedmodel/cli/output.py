"""What the command line prints: tables for a terminal, plain columns for a pipe, JSON for a program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from maskedmodel.aligned import aligned


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=str))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal a table that wraps; elsewhere one line a row, columns aligned, nothing cut."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headings, box=SIMPLE_HEAD)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(table)
        return
    print("\n".join(aligned([headings, *rows])))


def discard(stream: IO[str]) -> None:
    """Point a stream whose other end has gone at nothing, for good: else Python fails once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush_or_discard(stream: IO[str]) -> None:
    """Flush, and `discard` a stream that can't be."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def print_error(title: str, text: str) -> None:
    """To standard error, coloured only on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble((f"{title}: ", "bold red"), text))


def plain_lines(value: object, indent: str = "") -> list[str]:
    """Nested dicts and lists as indented `key: value` lines."""
    if isinstance(value, Mapping):
        pairs: list[tuple[str, Any]] = [(f"{key}:", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [("-", item) for item in value]
    else:
        return [f"{indent}{value}"]
    lines = []
    for key, item in pairs:
        if isinstance(item, Mapping | list | tuple) and item:
            lines += [f"{indent}{key}", *plain_lines(item, f"{indent}  ")]
        else:
            lines.append(f"{indent}{key} {'none' if item in (None, [], (), {}) else item}")
    return lines


def print_result(result: object) -> None:
    """Results print as their own summary; all but the first rank of several get None.

    The work is done and lies in files by then, so a terminal or pipe that has gone away is no failure.
    """
    if result is not None:
        try:
            print(result, flush=True)
        except OSError:
            discard(sys.stdout)
