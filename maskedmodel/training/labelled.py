"""The labelled samples of a data set, and parts of them that hold every class in its share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskedmodel.components import DataSource, Sample, SampleDataset, Split
from maskedmodel.errors import DataError
from maskedmodel.noise import sample_key, stable_hash
from maskedmodel.tasks import Labels
from maskedmodel.training.data import UNLABELLED, Broken, Guarded, Reading, broken_error, tell_broken

log = logging.getLogger("maskedmodel")


@dataclass(frozen=True)
class Subset:
    """Some samples of a data set, in its order. `learnt` are their labels, where these are what is learnt."""

    dataset: SampleDataset
    chosen: Sequence[int]
    learnt: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.chosen[index]]


def labels_of(dataset: SampleDataset, reading: Reading) -> tuple[list[int], list[str]]:
    """The label and the id of every sample, UNLABELLED where it has none.

    Read off the data set where that tells without reading signals, else every sample is read, and one that can't be
    is treated as `reading` says, and told.
    """
    labels, ids = getattr(dataset, "labels", None), getattr(dataset, "ids", None)
    if isinstance(ids, Sequence) and len(ids) == len(dataset) and (labels is None or len(labels) == len(dataset)):
        known = [UNLABELLED if labels is None or label is None else int(label) for label in labels or [None] * len(ids)]
        return known, [str(i) for i in ids]
    found, names = [], []
    broken: list[Broken] = []
    guarded = Guarded(dataset, accepts_nan=True, timeout=reading.timeout)
    for index in range(len(dataset)):
        sample, _ = guarded[index, 0]
        if isinstance(sample, Broken):
            if reading.on_bad_sample == "fail":
                raise broken_error(sample)
            broken.append(sample)
            if reading.record is not None:
                reading.record(sample)
            found.append(UNLABELLED)
            names.append(sample.id)
            continue
        found.append(sample.get("label", UNLABELLED))
        names.append(str(sample["id"]))
    tell_broken(broken, len(dataset))
    return found, names


def nested(strata: Sequence[int], ids: Sequence[str], seed: int) -> list[int]:
    """All places in an order of which every beginning holds classes in their shares: each has one before any has two.

    A function of seed and ids. So the first 10 samples of a data set lie within its first 100.
    """
    keys = [stable_hash(f"labels/{seed}/{sample_key(i)}") for i in ids]
    ranked: dict[int, list[int]] = {}
    for place in sorted(range(len(ids)), key=keys.__getitem__):
        ranked.setdefault(strata[place], []).append(place)
    position = {
        place: (rank / len(members), keys[place]) for members in ranked.values() for rank, place in enumerate(members)
    }
    return sorted(position, key=position.__getitem__)


def wanted_count(labels: int | str | None, total: int) -> int:
    """How many samples `adapt.labels` means of `total` labelled ones, 1 at least.

    Raises DataError where there are fewer, and for a share of nothing.
    """
    if labels is None:
        return total
    exact = labels if isinstance(labels, int) else float(labels.removesuffix("%")) / 100 * total
    if not 0 < exact <= total:
        raise DataError(
            "There are fewer labelled training samples than that." if exact else "That is no sample at all.",
            where="adapt.labels",
            expected=f"at most {total}, or a share above 0% and up to 100%",
            got=str(labels)[:40],
        )
    return max(round(exact), 1)


def part_of(
    known: Sequence[int], strata: Sequence[int], ids: Sequence[str], labels: int | str | None, seed: int
) -> list[int]:
    """As many of the labelled samples `known` as `labels` says, in their order; `strata` are theirs, `ids` of all."""
    count = wanted_count(labels, len(known))
    if count == len(known):
        return list(known)
    order = nested(strata, [ids[place] for place in known], seed)
    return sorted(known[place] for place in order[:count])


def tell_left_out(what: str, left_out: Mapping[Split, int]) -> None:
    """Say how many samples have none, where some have none."""
    if sum(left_out.values()):
        log.warning("Without %s, left out: %s.", what, ", ".join(f"{n} of {s}" for s, n in left_out.items()))


@dataclass(frozen=True)
class LabelledData:
    """The labelled samples that a run trains on, and those it is judged by.

    train, val  the two parts.
    labels      what the labels mean, and how many training samples have each; of targets, how many of their places.
    left_out    samples without a label or target, by split.
    broken      those that couldn't be read when labels or targets were looked for, by split.
    """

    train: Subset
    val: Subset
    labels: Labels
    left_out: dict[Split, int]
    broken: dict[Split, list[Broken]]

    def open(self, split: Split) -> Subset:
        """The samples of a split."""
        return self.train if split == "train" else self.val


def labelled(
    source: DataSource[object],  # type: ignore[type-var]
    reading: Reading,
    labels: int | str | None,
    seed: int,
    strata: Callable[[Tensor], Tensor],
) -> LabelledData:
    """The labelled samples of a source; in training as many as `labels` says.

    Raises DataError where the data have no labels, or a split holds no labelled sample.
    """
    names = source.class_names()
    if names is None:
        raise DataError(
            "These data have no labels, so there is nothing to learn from.",
            where="data",
            fix="Put files into one folder per class, or name a column with data.label; `maskedmodel doctor` shows "
            "what the data were taken for.",
        )
    parts: dict[Split, Subset] = {}
    left_out: dict[Split, int] = {}
    broken: dict[Split, list[Broken]] = {"train": [], "val": []}
    counts = [0] * len(names)
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        dataset = source.open(split)
        found, ids = labels_of(dataset, replace(reading, record=broken[split].append))
        known = [place for place, label in enumerate(found) if label != UNLABELLED]
        left_out[split] = len(found) - len(known) - len(broken[split])
        if not known:
            raise DataError(f"No sample of the split {split!r} has a label.", where="data", got=f"{len(found)} samples")
        if split == "train":
            classes = strata(torch.tensor([found[place] for place in known])).tolist()
            known = part_of(known, classes, ids, labels, seed)
            for place in known:
                counts[found[place]] += 1
        else:
            unseen = sorted({names[found[place]] for place in known if not counts[found[place]]})
            if unseen:
                log.warning(
                    "%d labels of the validation part occur in no training sample: %s.",
                    len(unseen),
                    ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else ""),
                )
        parts[split] = Subset(dataset, known, [found[place] for place in known])
    tell_left_out("a label", left_out)
    return LabelledData(parts["train"], parts["val"], Labels(tuple(names), tuple(counts)), left_out, broken)
