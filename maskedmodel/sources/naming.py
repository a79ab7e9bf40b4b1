"""Which file a row of a table is about: names are matched by path, and the looser way only where it matches more."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Matching:
    """For each row the number of its file, or None; how names were compared; rows whose name fits several files."""

    files: list[int | None]
    how: str
    ambiguous: int


def normalised(name: str) -> str:
    """A path with forward slashes, without "./", "//" and spaces around; "a/../b" is b. Leading slashes go."""
    parts: list[str] = []
    for part in name.strip().replace("\\", "/").split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)


def match_names(rows: Sequence[str], paths: Sequence[str], folder: str) -> Matching:
    """Each row's file among `paths`. `folder` ("" or "a/") is where the table lies, which rows may leave out.

    Names are compared as they are; else by the end of the path, whatever the case, and without the ending. Of these
    the whole table takes the strictest way that finds the most files: a file that a stricter way would miss row by
    row is never found in a looser one by chance. A name that fits several files fits none.
    """
    wanted = [normalised(row) for row in rows]
    own = [normalised(path) for path in paths]
    most = min(len(set(wanted)), len(set(own)))
    best: tuple[tuple[int, int], Matching] | None = None
    for how, key in _KEYS:
        for ends in (False, True):
            found = _find(wanted, own, folder, key, ends)
            files = len({index for index in found if index is not None and index >= 0})
            ambiguous = sum(index == _SEVERAL for index in found)
            score = files, 0 if files else ambiguous  # where nothing is found, the reason may be that too much fits
            if best is None or score > best[0]:
                said = " and ".join(part for part in ("by the end of the path" if ends else "", how) if part)
                matched = [index if index is not None and index >= 0 else None for index in found]
                best = score, Matching(matched, said, ambiguous)
            if files == most:
                return best[1]
    assert best is not None
    return best[1]


_SEVERAL = -1
Key = Callable[[str], Iterator[str]]


def _same(path: str) -> Iterator[str]:
    yield path


def _folded(path: str) -> Iterator[str]:
    yield unicodedata.normalize("NFC", path).casefold()


def _without_ending(path: str) -> Iterator[str]:
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if dot and stem and ending.isalnum() and len(ending) <= 5:
        yield folder + slash + stem
    yield path


def _folded_without_ending(path: str) -> Iterator[str]:
    return (folded for stem in _without_ending(path) for folded in _folded(stem))


_KEYS: tuple[tuple[str, Key], ...] = (
    ("", _same),
    ("whatever the case", _folded),
    ("without the ending", _without_ending),
    ("whatever the case, without the ending", _folded_without_ending),
)


def _find(rows: Sequence[str], paths: Sequence[str], folder: str, key: Key, ends: bool) -> list[int | None]:
    """The file of each row; _SEVERAL where more than one fits."""
    whole: dict[str, int] = {}
    tails: dict[str, int] = {}
    for index, path in enumerate(paths):
        name = next(key(path))
        _put(whole, name, index)
        if ends:
            for tail in _tails(name):
                _put(tails, tail, index)
    base = normalised(folder)

    def of(row: str) -> int | None:
        for full in dict.fromkeys((f"{base}/{row}" if base else row, row)):
            for name in reversed(list(key(full))):  # "v1.2" is itself before it is "v1" with an ending
                if name in whole:
                    return whole[name]
        for name in reversed(list(key(row))) if ends else ():
            if name in tails:  # the row leaves folders out
                return tails[name]
            for tail in _tails(name):  # the row has folders above this one, as an absolute path has
                if tail in whole:
                    return whole[tail]
        return None

    return [of(row) if row else None for row in rows]


def _put(table: dict[str, int], name: str, index: int) -> None:
    table[name] = index if table.setdefault(name, index) == index else _SEVERAL


def _tails(name: str) -> Iterator[str]:
    """ "b/c" and "c" of "a/b/c"."""
    parts = name.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
