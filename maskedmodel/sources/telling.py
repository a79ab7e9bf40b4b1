"""How facts about many files are counted and put."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def tally(values: Iterable[Hashable], form: str = "{}", most: int = 5) -> str:
    """Values with their counts, the most frequent first: "12 FLAC, 3 MP3 and 2 more".

    form  how a value is put, as str.format takes it. most  kinds of values that are named.
    """
    counts = Counter(values)
    said = ", ".join(f"{count} {form.format(value)}" for value, count in counts.most_common(most))
    return said + (f" and {len(counts) - most} more" if len(counts) > most else "")


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the items, evenly spread over all of them."""
    return items[:: max(-(-len(items) // most), 1)]


def looked_at(some: int, all_of_them: int, noun: str) -> str:
    """ "of 12 files", or "of 64 files looked at" where not all were."""
    return f"of {some} {noun}" + (" looked at" if some < all_of_them else "")
