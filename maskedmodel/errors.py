"""Errors a user can meet: each says what, where, expected and got, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "MaskedModelError",
    "PluginError",
    "ShapeError",
    "TrainingError",
]


class MaskedModelError(Exception):
    """Base of every error that is the user's to solve. The command line prints it and exits with code 2.

    `what` is one sentence. The rest is optional and printed on lines of its own: `where` (file, setting or
    sample), `expected` and `got`, and `fix` (what to do next).
    """

    def __init__(
        self, what: str, *, where: object = None, expected: object = None, got: object = None, fix: str | None = None
    ) -> None:
        self.what, self.where, self.expected, self.got, self.fix = what, where, expected, got, fix
        details = {"where": where, "expected": expected, "got": got, "to fix": fix}
        lines = [what, *(f"  {key}: {value}" for key, value in details.items() if value is not None)]
        # A name of a file that isn't UTF-8 must not turn the message itself into an error when it is printed.
        super().__init__("\n".join(lines).encode("utf-8", "backslashreplace").decode())


class PluginError(MaskedModelError):
    """A plugin is missing, broken, or breaks a contract."""


class ConfigError(MaskedModelError):
    """The config can't be used: unknown key, bad value, wrong name."""


class DataError(MaskedModelError):
    """Data is missing, unreadable or unusable."""


class ShapeError(MaskedModelError):
    """A tensor has another shape than the contract says."""


class CheckpointError(MaskedModelError):
    """A checkpoint or a weights file is missing, damaged, or of another model."""


class DependencyError(MaskedModelError):
    """An optional package is missing or can't be loaded."""


class TrainingError(MaskedModelError):
    """Training can't go on: a loss that isn't finite, a full disk, another run in the same folder."""


def nearest(name: object, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.5)
    return matches[0] if matches else None


def suggestion(name: object, candidates: Iterable[str]) -> str:
    """`Did you mean 'x'?` with the nearest candidate, else the list of all of them."""
    known = sorted(candidates)
    match = nearest(name, known)
    if match is not None:
        return f"Did you mean {match!r}?"
    return f"Known: {', '.join(known)}." if known else "None is known."
