"""What labels are: the values that occur, in order, and whether values look like labels at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from maskedmodel.components import Fact

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_FEW = 20  # samples below which nothing is concluded from how their labels are spread
_UNIX_SECONDS = (300_000_000, 10_000_000_000)  # 1979 to 2286; milliseconds are beyond, and are distinct anyway
_SHOWN = 20


def in_order(names: Iterable[str]) -> list[str]:
    """Labels sorted: whole numbers by their value, before all others."""

    def key(name: str) -> tuple[bool, int, str]:
        number = _WHOLE.fullmatch(name)
        return number is None, int(name) if number else 0, name

    return sorted(set(names), key=key)


def doubt_labels(values: Sequence[str] | Sequence[int]) -> str | None:
    """Why the values of a column look like no classes: what a number of something else has. None where they may be."""
    distinct = set(values)
    if len(values) >= _FEW and len(distinct) > len(values) // 2:
        return f"{len(distinct)} different values in {len(values)} samples"
    numbers = [int(str(value)) for value in distinct if _WHOLE.fullmatch(str(value))]
    low, high = _UNIX_SECONDS
    if len(numbers) == len(distinct) > 1 and all(low <= number < high for number in numbers):
        return f"values from {min(numbers)} to {max(numbers)}, as seconds since 1970 have"
    return None


def label_facts(names: Sequence[str], labels: Iterable[int | None], said_by: str, noun: str = "samples") -> list[Fact]:
    """The classes with their counts; which of them look alike, and how many samples have none."""
    counts = Counter(labels)
    without = counts.pop(None, 0)
    shown = ", ".join(f"{name} {counts.get(number, 0)}" for number, name in enumerate(names[:_SHOWN]))
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    facts = [Fact("labels", f"{len(names)} {'class' if len(names) == 1 else 'classes'} by {said_by}: {shown}{more}")]
    if without:
        facts.append(Fact("labels", f"{noun} without a label: {without} of {without + counts.total()}", True))
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            facts.append(Fact("labels", f"{' and '.join(map(repr, group))} are classes of their own", True))
    for name in names:
        if name.casefold() in ("none", "null", "na", "n/a", "unknown", "unlabelled", "unlabeled", "-1"):
            text = f"{name!r} is taken for a class; data.unlabelled={name} makes it no label"
            facts.append(Fact("labels", text, True))
    return facts


def class_numbers(
    values: Sequence[int], names: Sequence[str] | None, unlabelled: Iterable[int]
) -> tuple[list[str], dict[int, int | None]]:
    """The classes that integers stand for, and the class of each value that occurs; None for one that means no label.

    Without `names` the classes are the values that occur, in order, however large they are. With `names` a value is
    the place of its name. Raises KeyError with the first value that has none.
    """
    known = set(values) - set(unlabelled)
    if names is None:
        own = sorted(known)
        numbers: dict[int, int | None] = {value: number for number, value in enumerate(own)}
        names = [str(value) for value in own]
    else:
        strange = sorted(value for value in known if not 0 <= value < len(names))
        if strange:
            raise KeyError(strange[0])
        numbers = {value: value for value in known}
    return list(names), {**dict.fromkeys(set(values) - known), **numbers}
