"""Which samples are for validation, decided by their ids alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from maskedmodel.components import Split
from maskedmodel.errors import EmptySplitError

# Sub-folders and files of these names hold the validation split, the first one present.
VALIDATION_NAMES = ("val", "valid", "validation", "dev", "test")


def rank(sample_id: str | int) -> float:
    """A number from 0 to 1 that depends on the id alone, the same in every process."""
    digest = hashlib.blake2b(str(sample_id).encode(), digest_size=8).digest()
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
