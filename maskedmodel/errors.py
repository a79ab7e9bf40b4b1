"""Errors a user can meet: each says what, where, expected and got, and what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "EmptySplitError",
    "MaskedModelError",
    "PluginError",
    "ShapeError",
    "TrainingError",
    "install_hint",
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


class EmptySplitError(DataError):
    """A split of the data holds no sample, though there is data."""


class CheckpointError(MaskedModelError):
    """A checkpoint or a weights file is missing, damaged, or of another model."""


class DependencyError(MaskedModelError):
    """An optional package is missing or can't be loaded."""


class TrainingError(MaskedModelError):
    """Training can't go on: a loss that isn't finite, a full disk, another run in the same folder."""


def shown(value: object, length: int = 60) -> str:
    """A value as a config writes it, cut to a readable length."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory: CUDA's, Python's, or what torch's allocator says on a CPU."""
    said = str(error)
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)  # torch's, without importing it
    return isinstance(error, MemoryError) or named or any(word in said for word in words)


def nearest(name: object, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was probably meant for, or None when nothing is close.

    Close are the same letters but for a slip or two, and names of which one holds all words of the other.
    """
    text, known = str(name), list(candidates)
    by_case = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(text.casefold(), list(by_case), n=1, cutoff=0.7 if len(text) > 4 else 0.6)
    if matches:
        return by_case[matches[0]]
    words = _words(text)
    within = [candidate for candidate in known if words and (_words(candidate) <= words or words <= _words(candidate))]
    return min(within, key=lambda candidate: abs(len(candidate) - len(text))) if within else None


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^0-9a-z]+", name.casefold()) if word}


def suggestion(name: object, candidates: Iterable[str]) -> str:
    """`Did you mean 'x'?` with the nearest candidate, else the list of all of them."""
    known = sorted(candidates)
    match = nearest(name, known)
    if match is not None:
        return f"Did you mean {match!r}?"
    return f"Known: {', '.join(known)}." if known else "None is known."


def install_hint(*packages: str, extra: str | None = None) -> str:
    """What to run where an optional package is missing: one of the commands works, whatever is at hand.

    `extra` is one of maskedmodel's own, such as "audio"; `packages` are names as an index has them. maskedmodel itself
    is on no index, so away from a checkout the packages of the extra are named.
    """
    root = Path(__file__).parents[1]
    if extra is not None and (root / "pyproject.toml").is_file():
        return f'In {root} run: uv sync --extra {extra}, or: pip install -e ".[{extra}]".'
    wanted = " ".join(f'"{package}"' if re.search(r"[^\w.-]", package) else package for package in packages)
    if extra is not None:
        wanted = " ".join(filter(None, [wanted, *(f'"{package}"' for package in _packages_of(extra))]))
    return f"Run: uv pip install {wanted}, or: pip install {wanted}."


def _packages_of(extra: str) -> list[str]:
    """What an extra needs, such as ["soundfile<0.15,>=0.14"], as the installed distribution says."""
    try:
        required = metadata.requires("maskedmodel") or []
    except metadata.PackageNotFoundError:  # imported from a folder that nobody installed
        required = []
    parts = [line.partition(";") for line in required]
    marked = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    return [package.strip() for package, _, marker in parts if marked.search(marker)]
