"""Which sample comes when, and batches out of samples.

The order is a function: sample number n of a run belongs to epoch n // N, at place n % N of the permutation of (seed,
epoch). Step s of global batch size B holds the samples s * B to (s + 1) * B - 1. So the step number is all there is to
save, and a batch may span two epochs.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from maskedmodel.components import Sample, SampleDataset, Tokenizer
from maskedmodel.errors import DataError, MaskedModelError
from maskedmodel.noise import Noise, sample_key, stable_hash

Policy = Literal["fail", "skip"]
UNLABELLED = -1


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read, and why."""

    id: str
    reason: str


@dataclass
class Batch:
    """Samples put together. `signal` as the data source stores it, or prepared where it says so."""

    signal: Tensor
    ids: list[str | int]
    keys: Tensor  # (B,) int64
    epochs: Tensor  # (B,) int64
    labels: Tensor  # (B,) int64, UNLABELLED where a sample has none
    groups: list[str]  # a sample without a group is one of its own
    stored: Tensor | None = None  # what `signal` was prepared from, where it is prepared
    broken: list[Broken] = field(default_factory=list)

    def noise(self, seed: int, epoch: int | None = None) -> Noise:
        """The noise of these samples, on the device of their signal; in their own epochs unless one is given."""
        device = self.signal.device
        epochs = self.epochs if epoch is None else torch.full_like(self.epochs, epoch)
        return Noise(seed, epochs.to(device), self.keys.to(device))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its signal on a device."""
        return replace(self, signal=self.signal.to(device, non_blocking=True))


def permutation(seed: int, epoch: int, size: int) -> Tensor:
    """The order of an epoch."""
    generator = torch.Generator().manual_seed(stable_hash(f"order/{seed}/{epoch}") & (2**63 - 1))
    return torch.randperm(size, generator=generator)


class StepBatches:
    """A batch sampler: for each step from `start` on, this rank's share of the global batch as (index, epoch)."""

    def __init__(self, size: int, batch: int, seed: int, start: int, steps: int, rank: int = 0, ranks: int = 1) -> None:
        self.size, self.batch, self.seed, self.start, self.steps = size, batch, seed, start, steps
        share = batch // ranks
        self.share = range(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders: dict[int, list[int]] = {}
        for step in range(self.start, self.steps):
            places = [divmod(step * self.batch + offset, self.size) for offset in self.share]
            for epoch in {epoch for epoch, _ in places} - orders.keys():
                orders[epoch] = permutation(self.seed, epoch, self.size).tolist()
            for epoch in [epoch for epoch in orders if epoch < places[0][0]]:
                del orders[epoch]
            yield [(orders[epoch][place], epoch) for epoch, place in places]


class Guarded:
    """A dataset that hands a broken sample on as a value, so that the run's policy decides, not the worker."""

    def __init__(self, dataset: SampleDataset, accepts_nan: bool = False) -> None:
        self.dataset, self.accepts_nan = dataset, accepts_nan

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Sample | Broken, int]:
        index, epoch = key
        try:
            sample = self.dataset[index]
            self._check(sample, index)
        except Exception as error:  # noqa: BLE001 - a damaged file can raise anything; the policy reports it
            reason = str(error) if isinstance(error, MaskedModelError) else f"{type(error).__name__}: {error}"
            return Broken(str(index), reason), epoch
        return sample, epoch

    def _check(self, sample: Sample, index: int) -> None:
        signal = sample["signal"]
        if not isinstance(signal, Tensor):
            raise DataError("A sample's signal is no tensor.", where=f"sample {index}", got=type(signal).__name__)
        if signal.is_floating_point() and not self.accepts_nan and not bool(torch.isfinite(signal).all()):
            raise DataError("A sample holds NaN or infinity.", where=f"sample {sample['id']}")


class Collate:
    """Samples to a Batch. Errors are returned, not raised: raised in a worker they would lose their type and text."""

    def __init__(self, tokenizer: Tokenizer[Any]) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: Sequence[tuple[Sample | Broken, int]]) -> Batch | MaskedModelError:
        broken = [sample for sample, _ in items if isinstance(sample, Broken)]
        whole = [(sample, epoch) for sample, epoch in items if not isinstance(sample, Broken)]
        if not whole:
            return DataError("Every sample of a batch is broken.", where=f"sample {broken[0].id}", got=broken[0].reason)
        samples = [sample for sample, _ in whole]
        try:
            signal = self.tokenizer.collate([sample["signal"] for sample in samples])
        except MaskedModelError as error:
            return error
        return Batch(
            signal,
            ids=[sample["id"] for sample in samples],
            keys=torch.tensor([sample_key(sample["id"]) for sample in samples], dtype=torch.int64),
            epochs=torch.tensor([epoch for _, epoch in whole], dtype=torch.int64),
            labels=torch.tensor([sample.get("label", UNLABELLED) for sample in samples], dtype=torch.int64),
            groups=[sample.get("group", str(sample["id"])) for sample in samples],
            broken=broken,
        )


def _worker_init(_: int) -> None:
    # A signal to the process group reaches workers too. They outlive it, since the main process still needs them to
    # finish its step, and the death of a worker would raise there. A second SIGTERM, which is how the main process
    # ends a worker that hangs, is obeyed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)


def _loader(
    dataset: SampleDataset, tokenizer: Tokenizer[Any], batches: Any, workers: int, timeout: float, pin: bool
) -> DataLoader[Any]:
    return DataLoader(
        Guarded(dataset, tokenizer.accepts_nan),  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=Collate(tokenizer),
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin,
        worker_init_fn=_worker_init,
        generator=torch.Generator(),  # else the loader draws from the global one
    )


def _checked(items: Iterator[Batch | MaskedModelError], timeout: float) -> Iterator[Batch]:
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            raise DataError(
                "A data worker died or hung.",
                got=str(error).splitlines()[0],
                fix=f"Look for a sample that needs more than {timeout:g} s or all memory; train.workers=0 shows where.",
            ) from error
        if isinstance(item, MaskedModelError):
            raise item
        yield item


def train_batches(
    dataset: SampleDataset,
    tokenizer: Tokenizer[Any],
    batches: StepBatches,
    *,
    workers: int = 0,
    timeout: float = 300,
    pin: bool = False,
) -> Iterator[Batch]:
    """One batch a step, on the CPU, as stored. Raises DataError when a worker dies or takes longer than `timeout` s."""
    return _checked(iter(_loader(dataset, tokenizer, batches, workers, timeout, pin)), timeout)


def spread(size: int, limit: int | None) -> list[int]:
    """At most `limit` indices, evenly spread over `size`."""
    if limit is None or limit >= size:
        return list(range(size))
    return [index * size // limit for index in range(limit)]


def eval_batches(
    dataset: SampleDataset,
    tokenizer: Tokenizer[Any],
    *,
    batch: int,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    workers: int = 0,
    on_bad_sample: Policy = "fail",
) -> Iterator[Batch]:
    """Prepared batches in the order of the data set, for validation, features and pictures.

    `limit` takes an evenly spread subset. Raises DataError on a broken sample unless the policy is to skip it.
    """
    indices = spread(len(dataset), limit)
    chunks = [[(index, 0) for index in indices[i : i + batch]] for i in range(0, len(indices), batch)]
    for item in _checked(iter(_loader(dataset, tokenizer, chunks, workers, 300, False)), 300):
        if item.broken and on_bad_sample == "fail":
            raise broken_error(item.broken[0])
        item = item.to(device)
        item.stored, item.signal = item.signal, tokenizer.prepare(item.signal)
        yield item


def broken_error(sample: Broken) -> DataError:
    """What a run says when its policy is to fail."""
    return DataError(
        "A sample can't be read.",
        where=f"sample {sample.id}",
        got=sample.reason,
        fix="Mend or remove it, or set train.on_bad_sample=skip.",
    )


def fingerprint(dataset: SampleDataset) -> str:
    """What tells one data set from another without reading it all: its size and 16 ids spread over it."""
    digest = hashlib.sha256(str(len(dataset)).encode())
    guarded = Guarded(dataset, accepts_nan=True)
    for index in spread(len(dataset), 16):
        sample, _ = guarded[index, 0]
        digest.update(f"/{'broken' if isinstance(sample, Broken) else sample['id']}".encode())
    return digest.hexdigest()[:16]
