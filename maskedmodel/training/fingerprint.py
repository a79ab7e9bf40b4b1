"""What tells one data set from another, so that a run isn't taken up on other data than it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from maskedmodel.components import Sample, SampleDataset
from maskedmodel.training.data import Broken, Guarded, spread


def fingerprint(dataset: SampleDataset, timeout: float = 300) -> str:
    """What tells one data set from another without reading it all: its size, and ids and content of 16 samples.

    The samples are spread over the data, the first and the last among them; a target is content, too, and where labels
    are what is learnt, all of them count. The same on every machine. A sample that takes longer to read than `timeout`
    seconds counts as a broken one.
    """
    digest = hashlib.sha256()
    if learnt := getattr(dataset, "learnt", ()):
        digest.update(torch.tensor(learnt, dtype=torch.int64).numpy().astype("<i8").tobytes())
    for sample in _spread_samples(dataset, timeout):
        if isinstance(sample, Broken):
            digest.update(b"/broken")
            continue
        for values in (sample["signal"], *([sample["target"]] if "target" in sample else ())):
            digest.update(f"/{sample['id']}/{values.dtype}/{tuple(values.shape)}/".encode())
            digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{len(dataset)}:{digest.hexdigest()[:24]}"


def fingerprint_of_ids(dataset: SampleDataset, timeout: float = 300) -> str:
    """The fingerprint of 0.1.0, which knew a data set by its size and 16 ids."""
    digest = hashlib.sha256(str(len(dataset)).encode())
    for sample in _spread_samples(dataset, timeout, last=False):
        digest.update(f"/{'broken' if isinstance(sample, Broken) else sample['id']}".encode())
    return digest.hexdigest()[:16]


def _spread_samples(dataset: SampleDataset, timeout: float, last: bool = True) -> Iterator[Sample | Broken]:
    guarded = Guarded(dataset, accepts_nan=True, timeout=timeout)
    indices = spread(len(dataset), 16)
    for index in sorted({*indices, len(dataset) - 1} if last else {*indices}):
        yield guarded[index, 0][0]
