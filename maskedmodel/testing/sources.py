"""Checks of data sources. Of a large one the first 100 samples of each split are read."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, get_args

import torch

from maskedmodel.components import DataSource, Sample, SampleDataset, Split
from maskedmodel.testing.rules import CheckFailed, NotApplicable, require, same, untouched_generators

MOST = 100

AnySource = DataSource[Any]
SPLITS: tuple[Split, ...] = get_args(Split)


def _samples(dataset: SampleDataset) -> list[Sample]:
    return [dataset[index] for index in range(min(len(dataset), MOST))]


def _differ(left: Sample, right: Sample) -> str | None:
    for key in ("id", "label"):
        if left.get(key) != right.get(key):
            return f"{key} {left.get(key)!r} and {right.get(key)!r}"
    return None if same(left["signal"], right["signal"]) else "signals with other values"


def _require_same(source: AnySource, rule: str, pairs: list[tuple[Sample, Sample]], fix: str) -> None:
    for index, (left, right) in enumerate(pairs):
        found = _differ(left, right)
        require(found is None, source, rule, expected="the same sample", got=f"at index {index}: {found}", fix=fix)


def check_opens(source: AnySource) -> None:
    """Both splits open, and have samples: dicts with a signal and an id."""
    for split in SPLITS:
        dataset = source.open(split)
        require(len(dataset) > 0, source, f"the split {split!r} is empty", expected="1 sample or more", got=0)
        for index, sample in enumerate(_samples(dataset)):
            where = f"sample {index} of {split!r}"
            require(isinstance(sample, Mapping), source, f"{where} is no dict", got=type(sample).__name__)
            missing = [key for key in ("signal", "id") if key not in sample]
            require(
                not missing, source, f"{where} lacks {missing}", expected="a dict with signal and id", got=list(sample)
            )


def check_samples(source: AnySource) -> None:
    """Ids are texts or numbers, and signals are finite, or NaN where `gives_nan`."""
    for split in SPLITS:
        for index, sample in enumerate(_samples(source.open(split))):
            where = f"sample {index} of {split!r}"
            require(
                isinstance(sample["id"], str | int), source, f"the id of {where} is no text or number", got=sample["id"]
            )
            signal = sample["signal"]
            numeric = isinstance(signal, torch.Tensor) and signal.dtype not in (torch.bool, torch.complex64)
            require(numeric, source, f"the signal of {where} is no tensor of real numbers", got=type(signal).__name__)
            wild = int((signal.isinf() if source.gives_nan else ~torch.isfinite(signal)).sum())
            require(
                wild == 0,
                source,
                f"the signal of {where} isn't finite",
                expected="finite numbers, or a DataError for the run's policy to treat",
                got=f"{wild} of {signal.numel()} values are NaN or infinite",
                fix="Where NaN says that a value is absent, set gives_nan = True in the class.",
            )


def check_ids(source: AnySource) -> None:
    """Ids are unique within a split, and no sample is in two splits."""
    seen: dict[str | int, str] = {}
    for split in SPLITS:
        for index, sample in enumerate(_samples(source.open(split))):
            where, key = f"{split}[{index}]", sample["id"]
            require(
                key not in seen,
                source,
                f"two samples have the id {key!r}",
                expected="an id of its own for every sample of every split",
                got=f"{seen.get(key)} and {where}",
                fix="Masks and augmentation are keyed by the id: make it from what the sample is, such as its path.",
            )
            seen[key] = where


def check_reopened(source: AnySource) -> None:
    """Opening again, or reading in another order, gives the same ids and signals."""
    for split in SPLITS:
        first, dataset = _samples(source.open(split)), source.open(split)
        backwards = [dataset[index] for index in reversed(range(len(first)))][::-1]
        fix = "Sort what a folder lists, key randomness by the index, and augment in the tokenizer."
        again = _samples(source.open(split))
        _require_same(
            source, f"opening {split!r} again gives other samples", list(zip(first, again, strict=False)), fix
        )
        rule = f"reading {split!r} backwards gives other samples"
        _require_same(source, rule, list(zip(first, backwards, strict=True)), fix)
        require(
            len(dataset) >= len(first), source, f"{split!r} changes its length", expected=len(first), got=len(dataset)
        )


def check_labels(source: AnySource) -> None:
    """Labels are integers that `class_names` names; samples without labels have no class names."""
    names = source.class_names()
    labelled = 0
    for split in SPLITS:
        for index, sample in enumerate(_samples(source.open(split))):
            if "label" not in sample:
                continue
            labelled += 1
            label, most = sample["label"], len(names or ()) - 1
            require(
                isinstance(label, int) and 0 <= label <= most,
                source,
                f"{split}[{index}] has a label without a name",
                expected=f"an int from 0 to {most}" if names else "no label, as class_names() is None",
                got=repr(label),
            )
    if names is None:
        raise NotApplicable("samples carry no labels")
    require(labelled > 0, source, "class_names() names classes, but no sample has a label", got=names)


def check_workers(source: AnySource) -> None:
    """A dataset can be sent to data workers, by pickle, and reads the same there."""
    for split in SPLITS:
        dataset = source.open(split)
        try:
            copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - bytes made in the same line
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise CheckFailed(
                source,
                f"the dataset of {split!r} can't be sent to data workers",
                expected="an object that pickles",
                got=f"{type(error).__name__}: {error}",
                fix="Open files when they are first read, and define no function or class inside another.",
            ) from error
        _require_same(source, f"a copy of {split!r} in a worker gives other samples", [(dataset[0], copy[0])], "")


def check_global_generators(source: AnySource) -> None:
    """Opening and reading draw from no global generator of torch, numpy or Python."""
    with untouched_generators(source):
        for split in SPLITS:
            _samples(source.open(split))
