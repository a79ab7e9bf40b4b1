"""Which samples are for validation: by the names of splits, in any spelling, or by a hash of the samples' ids."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from maskedmodel.components import Split
from maskedmodel.errors import DataError, EmptySplitError

# Splits for validation, the first one present is taken. `split_word` brings other spellings to these.
VALIDATION_NAMES = ("val", "dev", "eval", "holdout", "test")

_SPELLINGS = {
    "train": ("train", "training", "trn", "trainset"),
    "val": ("val", "valid", "validate", "validation", "valset", "validset", "validationset"),
    "dev": ("dev", "devel", "development", "devset"),
    "eval": ("eval", "evaluate", "evaluation", "evalset"),
    "holdout": ("holdout", "heldout"),
    "test": ("test", "testing", "tst", "testset"),
}
_WORD_OF = {spelling: word for word, spellings in _SPELLINGS.items() for spelling in spellings}
_FILLERS = ("set", "data", "split", "images", "imgs", "files")  # "train_images", "test set"


def split_word(name: str) -> str | None:
    """The split that a name of a folder, a file or a cell means: "train" or one of VALIDATION_NAMES; None if none.

    Case, spaces, dashes and underscores don't matter, nor does a year or number at the end: Training, "test set",
    hold-out, val2017.
    """
    parts = [part for part in re.split(r"[\W_]+", name.strip().casefold()) if part]
    if parts and parts[-1] in _FILLERS and len(parts) > 1:
        parts.pop()
    return _WORD_OF.get("".join(parts).rstrip("0123456789"))


def split_in_name(path: str) -> str | None:
    """The split in whose words a file is named, such as data/train-00000-of-00002: the innermost part that has one.

    None where there is none, or where one part of the path has several.
    """
    for part in reversed(path.split("/")):
        found = {word for word in map(split_word, re.split(r"[._\-\s]+", part)) if word}
        whole = split_word(part)
        if whole or found:
            return whole or (found.pop() if len(found) == 1 else None)
    return None


@dataclass(frozen=True)
class NamedSplit:
    """Samples by the names of their splits.

    train    numbers of the samples to train on.
    val      of those for validation; None where no name says which: a share of `train` is then.
    text     what was found, with counts.
    notices  what was left out, or chosen among several.
    """

    train: list[int]
    val: list[int] | None
    text: str
    notices: tuple[str, ...] = ()


def named_split(
    names: Sequence[str | None],
    train_split: Sequence[str] | None,
    val_split: str | None,
    said_by: str,
    where: object,
    fix: str,
    only_val_elsewhere: bool = False,
) -> NamedSplit | None:
    """Splits by each sample's name of its split, None or "" where it has none; None where no name is a split's.

    said_by              what the names are, for people: "folders", "column 'split'".
    fix                  what else settles a mixture of splits and other names.
    only_val_elsewhere   whether the validation samples come from another place: names need then only say the training.

    `train_split` and `val_split` name the splits to take. Without them all names must be words for splits: raises
    DataError where some are and others aren't, or where none is for training, with the setting that settles it.
    """
    counts = Counter(name.strip() for name in names if name and name.strip())
    words = {name: split_word(name) for name in counts}
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:20])

    def refuse(what: str, expected: str) -> NoReturn:
        raise DataError(what, where=where, expected=expected, got=f"{said_by}: {listed}", fix=fix)

    if train_split is None and val_split is None:
        if not any(words.values()) or (len(counts) == 1 and sum(counts.values()) == len(names)):
            return None
        strange = sorted(name for name, word in words.items() if word is None)
        if strange:
            refuse("Some names are those of splits and others aren't.", "splits alone, or none")
        if "train" not in words.values():
            refuse("There are several splits, and none to train on.", "one called train, or such a word")
    train = _named(counts, train_split) if train_split is not None else {n for n, w in words.items() if w == "train"}
    if train_split is None and not train:
        refuse("Which split is to train on?", "data.train_split, as none is called train")
    val, others = _evaluation(counts, words, train, val_split)
    if only_val_elsewhere:
        val, others = set(), sorted(set(counts) - train)
    if (train_split is not None and not train) or (val_split is not None and not val and not only_val_elsewhere):
        wanted = [*(train_split or ()), *([val_split] if val_split else ())]
        refuse(f"There is no split called {' or '.join(wanted)}.", "a name that occurs")
    notices = []
    if val and others and val_split is None:
        rest = ", ".join(f"{name} ({counts[name]})" for name in others)
        notices.append(f"validation is {_listed(val, counts)}; left out: {rest} (data.val_split takes another)")
    elif others:
        rest = ", ".join(f"{name} ({counts[name]})" for name in others)
        notices.append(f"left out: {rest}")
    nowhere = len(names) - sum(counts.values())
    if nowhere:
        notices.append(f"without a split, left out: {nowhere}")
    of_val = _listed(val, counts) if val else "in val_path" if only_val_elsewhere else "a share of it"
    text = f"by {said_by}: train is {_listed(train, counts)}, validation is {of_val}"
    own = [(name or "").strip() for name in names]
    return NamedSplit(
        [index for index, name in enumerate(own) if name in train],
        [index for index, name in enumerate(own) if name in val] if val else None,
        text,
        tuple(notices),
    )


def names_among(names: Sequence[str | None], wanted: Sequence[str]) -> bool:
    """Whether some of `names` are meant by the names of splits that a user gave."""
    return bool(_named(Counter(name.strip() for name in names if name), wanted))


def _named(counts: Counter[str], wanted: Sequence[str]) -> set[str]:
    """The names that are meant by those a user gave: as spelled, else whatever the case, else by the word."""
    chosen = set()
    for name in wanted:
        same = {own for own in counts if own == name.strip()}
        same = same or {own for own in counts if own.casefold() == name.strip().casefold()}
        chosen |= same or {own for own in counts if split_word(own) == (split_word(name) or "")}
    return chosen


def _evaluation(
    counts: Counter[str], words: dict[str, str | None], train: set[str], val_split: str | None
) -> tuple[set[str], list[str]]:
    """The names of the split for validation, and those that no split takes."""
    if val_split is not None:
        val = _named(counts, (val_split,)) - train
    else:
        word = next((word for word in VALIDATION_NAMES if word in {words[n] for n in counts if n not in train}), None)
        val = {name for name in counts if word is not None and words[name] == word and name not in train}
    return val, sorted(set(counts) - train - val)


def _listed(names: set[str], counts: Counter[str]) -> str:
    return " and ".join(f"{name} ({counts[name]})" for name in sorted(names))


def rank(sample_id: str | int) -> float:
    """A number from 0 to 1 that depends on the id alone, the same in every process."""
    digest = hashlib.blake2b(str(sample_id).encode(errors="backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def split_by_share(ids: Sequence[str | int], share: float, split: Split, where: str) -> list[int]:
    """Indices of one split: an id is for validation where its rank lies below `share`.

    Adding a sample moves no other. The one exception makes tiny sets work: where no rank lies below, the lowest one
    is for validation. Raises DataError when nothing is left to train on.
    """
    ranks = [rank(sample_id) for sample_id in ids]
    bound = max(share, math.nextafter(min(ranks, default=0.0), 2.0))
    chosen = [index for index, value in enumerate(ranks) if (value < bound) == (split == "val")]
    if not chosen:
        raise EmptySplitError(
            f"Nothing is left for the split {split!r}.",
            where=where,
            expected="2 samples or more",
            got=f"{len(ids)} samples, of which a share of {share:g} is for validation",
            fix="Add data, lower val_share, or give val_path.",
        )
    return chosen


def stratified(labels: Sequence[int], ids: Sequence[str | int], share: float, split: Split) -> list[int]:
    """Indices of one split with the same share of each class: its ids of lowest rank are for validation."""
    chosen: list[int] = []
    for label in sorted(set(labels)):
        members = sorted((i for i, own in enumerate(labels) if own == label), key=lambda i: rank(ids[i]))
        count = round(share * len(members))
        chosen += members[:count] if split == "val" else members[count:]
    return sorted(chosen)
