"""Samples with a target, such as the class of each pixel: which have one, and what targets hold as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import DataSource, SampleDataset, Split, Tokenizer
from maskedmodel.errors import DataError, MaskedModelError
from maskedmodel.limits import read_within
from maskedmodel.noise import Noise
from maskedmodel.tasks import Labels, Task
from maskedmodel.training.collating import UNLABELLED
from maskedmodel.training.data import Batch, Broken, Guarded, Reading, broken_error, tell_broken
from maskedmodel.training.labelled import LabelledData, Subset, labels_of, part_of, tell_left_out


def target_of(task: Task[Any], tokenizer: Tokenizer[Any], batch: Batch, noise: Noise | None = None) -> Tensor:
    """What a batch should give: by its labels, or by its targets, moved as its signal is.

    noise  that of training, by which the signal is augmented. None: it is prepared, and the stored one kept beside.
    """
    if not task.takes_target:
        return task.target(batch.labels.to(batch.signal.device))
    assert batch.target is not None, "a run is given samples that have one"
    stored = batch.signal if batch.stored is None else batch.stored
    return task.target(tokenizer.move_target(batch.target.to(stored.device), stored, noise))


def targeted(
    source: DataSource[Any],
    reading: Reading,
    labels: int | str | None,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> LabelledData:
    """The samples of a source that have a target; in training as many as `labels` says.

    Targets of class numbers, and of points, are all looked at once: a sample of whose places none has a class, or of
    whose points none is known, is left out, and so is, where `reading` says to skip such, one whose target can't be
    read. `progress` is told the split, how many were looked at, and of how many. Raises DataError where there are no
    targets, or one holds a number that is no class.
    """
    names = source.target_names()
    parts: dict[Split, Subset] = {}
    left_out: dict[Split, int] = {}
    broken: dict[Split, list[Broken]] = {"train": [], "val": []}
    counts, shape = [0] * len(names or ()), tuple[int, ...]()
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        dataset = source.open(split)
        if names is None:
            known, shape = list(range(len(dataset))), _shape(dataset, reading)
        else:
            told = None if progress is None else partial(progress, split)
            held, shape = _held(dataset, names, replace(reading, record=broken[split].append), told)
            known = sorted(held)
        tell_broken(broken[split], len(dataset))
        left_out[split] = len(dataset) - len(known) - len(broken[split])
        if not known:
            raise DataError(
                f"No sample of the split {split!r} has a target.", where="data", got=f"{len(dataset)} samples"
            )
        if split == "train":
            ids = labels_of(dataset, reading)[1] if labels is not None else []
            known = part_of(known, [0] * len(known), ids, labels, seed)
            if names is not None:
                counts = torch.stack([held[place] for place in known]).sum(0).tolist()
        parts[split] = Subset(dataset, known)
    tell_left_out("a target", left_out)
    meaning = Labels(tuple(names or ()), tuple(counts), shape)
    return LabelledData(parts["train"], parts["val"], meaning, left_out, broken)


def _shape(dataset: SampleDataset, reading: Reading) -> tuple[int, ...]:
    """That of the first sample's target. Raises DataError where it has none."""
    sample, _ = Guarded(dataset, accepts_nan=True, timeout=reading.timeout)[0, 0]
    if isinstance(sample, Broken):
        raise broken_error(sample)
    if "target" not in sample:
        raise DataError(
            "These data have no targets, so there is nothing to learn from.",
            where="data",
            expected="a label per pixel, or values to forecast",
            fix="Give data.masks or data.points for images, data.mask_channel for microscopy, data.horizon for tables "
            "of time series; or choose a task with one label per sample, such as task.name=classify.",
        )
    return tuple(sample["target"].shape)


def _held(
    dataset: SampleDataset,
    names: Sequence[str],
    reading: Reading,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[int, Tensor], tuple[int, ...]]:
    """What the targets of samples that have any hold of each name, (names,); of points also the shape of one.

    Of class numbers how many places have each; of points whether they are known.
    """
    read: Callable[[int], Tensor | None] | None = getattr(dataset, "targets", None)
    guarded = Guarded(dataset, accepts_nan=True, timeout=reading.timeout)
    found, shape = {}, tuple[int, ...]()
    for index in range(len(dataset)):
        if progress is not None:
            progress(index, len(dataset))
        try:
            if read is not None:
                with read_within(reading.timeout, f"the target of sample {index}"):
                    target = read(index)
            else:
                sample, _ = guarded[index, 0]
                if isinstance(sample, Broken):
                    raise DataError(sample.reason, where=sample.id)
                target = sample.get("target")
        except MaskedModelError as error:
            if reading.on_bad_sample == "fail":
                raise
            if reading.record is not None:
                ids = getattr(dataset, "ids", None)
                reading.record(Broken(str(index if ids is None else ids[index]), str(error)))
            continue
        if target is None:
            continue
        if target.is_floating_point():
            there = _points(target, names, index)
            shape = tuple(target.shape)
            if bool(there.any()):
                found[index] = there
            continue
        values = target[target != UNLABELLED].flatten()
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < len(names):
            wrong = int(values.max() if values.max() >= len(names) else values.min())
            raise DataError(
                "A target holds a number that is no class.",
                where=f"sample {index}",
                expected=f"0 to {len(names) - 1}, or {UNLABELLED} for none",
                got=wrong,
            )
        if values.numel():
            found[index] = torch.bincount(values, minlength=len(names))
    return found, shape


def _points(target: Tensor, names: Sequence[str], index: int) -> Tensor:
    """Which points are known, (K,) int64. Raises DataError where they aren't those of the names."""
    if tuple(target.shape) != (len(names), 3):
        raise DataError(
            "A target holds other points than the source names.",
            where=f"sample {index}",
            expected=(len(names), 3),
            got=tuple(target.shape),
        )
    return (~target[:, :2].isnan().any(1)).long()
