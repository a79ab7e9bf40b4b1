"""Which sample comes when, and batches out of samples.

The order is a function: sample number n of a run belongs to epoch n // N, at place n % N of the permutation of (seed,
epoch). Step s of global batch size B holds the samples s * B to (s + 1) * B - 1. So the step number is all there is to
save, and a batch may span two epochs.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from maskedmodel.components import Sample, SampleDataset, Tokenizer
from maskedmodel.config.sections import TrainSettings
from maskedmodel.errors import DataError, DependencyError, MaskedModelError
from maskedmodel.limits import TooLong, time_limit
from maskedmodel.noise import Noise, sample_key, stable_hash
from maskedmodel.training.collating import UNLABELLED as UNLABELLED
from maskedmodel.training.collating import collated
from maskedmodel.training.hanging import Stacks

Policy = Literal["fail", "skip"]
log = logging.getLogger("maskedmodel")


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read, and why."""

    id: str
    reason: str

    @property
    def said(self) -> str:
        """The reason in one line, with the place where it tells one: an id is a number where no name could be read."""
        what, *details = self.reason.splitlines()
        where = next((line.removeprefix("  where: ") for line in details if line.startswith("  where: ")), self.id)
        return what if where == self.id else f"{what.removesuffix('.')}: {where}"


@dataclass(frozen=True)
class Reading:
    """How samples are read for anything but a training step: validation, statistics, features, probes, pictures.

    batch          samples at a time.
    device         where they are prepared.
    limit          at most so many, evenly spread over the data; None: all.
    workers        processes that read; 0: this one.
    on_bad_sample  what to do with a sample that can't be read. skip: it is left out, which is told once with a count.
    timeout        seconds that a sample may take to be read, 0: for ever.
    record         given each sample that is left out, beside what is told.
    """

    batch: int = 256
    device: torch.device | str = "cpu"
    limit: int | None = None
    workers: int = 0
    on_bad_sample: Policy = "fail"
    timeout: float = 300
    record: Callable[[Broken], object] | None = None

    @classmethod
    def of(
        cls,
        train: TrainSettings,
        device: torch.device | str = "cpu",
        *,
        batch: int | None = None,
        limit: int | None = None,
    ) -> Reading:
        """As a run's settings say; `batch` is that of a step where it isn't given."""
        size = train.batch if batch is None else batch
        return cls(size, device, limit, train.workers, train.on_bad_sample, train.data_timeout)


@dataclass
class Batch:
    """Samples put together. `signal` as the data source stores it, or prepared where it says so."""

    signal: Tensor
    ids: list[str | int]
    keys: Tensor  # (B,) int64
    epochs: Tensor  # (B,) int64
    labels: Tensor  # (B,) int64, UNLABELLED where a sample has none
    groups: list[str]  # a sample without a group is one of its own
    target: Tensor | None = None  # (B, ...), of places of the signal as it is stored; None unless every sample has one
    stored: Tensor | None = None  # what `signal` was prepared from, where it is prepared
    broken: list[Broken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was converted or left out of samples, one phrase each time

    def noise(self, seed: int, epoch: int | None = None) -> Noise:
        """The noise of these samples, on the device of their signal; in their own epochs unless one is given."""
        device = self.signal.device
        epochs = self.epochs if epoch is None else torch.full_like(self.epochs, epoch)
        return Noise(seed, epochs.to(device), self.keys.to(device))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its signal and targets on a device."""
        target = None if self.target is None else self.target.to(device, non_blocking=True)
        return replace(self, signal=self.signal.to(device, non_blocking=True), target=target)


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
    """A dataset that hands a broken sample on as a value, so that the run's policy decides, not the worker.

    Broken is what can't be read, takes longer than `timeout` seconds, holds infinity, or NaN where the tokenizer
    doesn't accept it, or holds nothing at all. A missing package is no fault of a sample: DependencyError goes on.
    """

    def __init__(
        self, dataset: SampleDataset, accepts_nan: bool = False, timeout: float = 0, stacks: Stacks | None = None
    ) -> None:
        self.dataset, self.accepts_nan, self.timeout, self.stacks = dataset, accepts_nan, timeout, stacks or Stacks()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Sample | Broken, int]:
        index, epoch = key
        try:
            # The watch bites where the limit can't: in a library that doesn't come back.
            with self.stacks.watch(1.05 * self.timeout), time_limit(self.timeout, self.stacks.keep):
                sample = self.dataset[index]
            self._check(sample, index)
        except DependencyError:
            raise
        except TooLong as error:
            return Broken(str(index), f"reading it took longer than {self.timeout:g} s, at {error}"), epoch
        except Exception as error:  # noqa: BLE001 - a damaged file can raise anything; the policy reports it
            reason = str(error) if isinstance(error, MaskedModelError) else f"{type(error).__name__}: {error}"
            return Broken(str(index), reason), epoch
        return sample, epoch

    def _check(self, sample: Sample, index: int) -> None:
        signal = sample["signal"]
        if not isinstance(signal, Tensor):
            raise DataError("A sample's signal is no tensor.", where=f"sample {index}", got=type(signal).__name__)
        if signal.is_floating_point() and not bool(torch.isfinite(signal).all()):
            where = f"sample {sample['id']}"
            if not self.accepts_nan or bool(signal.isinf().any()):
                raise DataError("A sample holds NaN or infinity.", where=where)
            if bool(signal.isnan().all()):
                raise DataError("Nothing of a sample is there: all its values are missing.", where=where)
        if not signal.numel():
            raise DataError("A sample is empty.", where=f"sample {sample['id']}", got=tuple(signal.shape))


class Collate:
    """Samples to a Batch. Errors are returned, not raised: raised in a worker they would lose their type and text."""

    def __init__(self, tokenizer: Tokenizer[Any]) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: Sequence[tuple[Sample | Broken, int]]) -> Batch | MaskedModelError:
        broken = [sample for sample, _ in items if isinstance(sample, Broken)]
        whole = [(sample, epoch) for sample, epoch in items if not isinstance(sample, Broken)]
        if not whole:
            nothing = torch.zeros(0, dtype=torch.int64)
            return Batch(torch.zeros(0), [], nothing, nothing, nothing, [], broken=broken)
        samples = [sample for sample, _ in whole]
        try:
            signal = self.tokenizer.collate([sample["signal"] for sample in samples])
            target = collated([sample.get("target") for sample in samples])
        except MaskedModelError as error:
            return error
        return Batch(
            signal,
            ids=[sample["id"] for sample in samples],
            keys=torch.tensor([sample_key(sample["id"]) for sample in samples], dtype=torch.int64),
            epochs=torch.tensor([epoch for _, epoch in whole], dtype=torch.int64),
            labels=torch.tensor([sample.get("label", UNLABELLED) for sample in samples], dtype=torch.int64),
            groups=[sample.get("group", str(sample["id"])) for sample in samples],
            target=target,
            broken=broken,
            notes=[note for sample in samples for note in sample.get("notes", ())],
        )


def _quiet_about_connections(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of a worker: that the main process has gone away is no news, and its end isn't a fault."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _worker_init(_: int) -> None:
    sys.excepthook = _quiet_about_connections  # multiprocessing's thread that shares tensors reports through it
    # A signal to the process group reaches workers too. They outlive it, since the main process still needs them to
    # finish its step, and the death of a worker would raise there. A second SIGTERM, which is how the main process
    # ends a worker that hangs, is obeyed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)


def _loader(
    dataset: SampleDataset,
    tokenizer: Tokenizer[Any],
    batches: Any,
    workers: int,
    timeout: float,
    pin: bool,
    stacks: Stacks,
) -> DataLoader[Any]:
    # A sample's own limit comes first: then the message can name it.
    return DataLoader(
        Guarded(dataset, tokenizer.accepts_nan, 0.9 * timeout, stacks),  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=Collate(tokenizer),
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin,
        worker_init_fn=_worker_init,
        generator=torch.Generator(),  # else the loader draws from the global one
    )


def _batches(
    dataset: SampleDataset,
    tokenizer: Tokenizer[Any],
    batches: Any,
    *,
    workers: int = 0,
    timeout: float = 300,
    pin: bool = False,
) -> Iterator[Batch]:
    """What the loader gives, whose workers start now."""
    stacks = Stacks()
    return _checked(iter(_loader(dataset, tokenizer, batches, workers, timeout, pin, stacks)), timeout, stacks)


def _checked(items: Iterator[Batch | MaskedModelError], timeout: float, stacks: Stacks) -> Iterator[Batch]:
    """Raises errors that a worker returned, and DataError where one died or hung."""
    try:
        for item in items:
            if isinstance(item, MaskedModelError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        kept = stacks.kept()
        raise DataError(
            "A data worker died or hung.",
            where=None if kept is None else f"its stack stands in {kept}",
            got=str(error).splitlines()[0],
            fix=f"Look for a sample that needs more than {timeout:g} s or all memory; train.workers=0 shows where.",
        ) from error
    finally:
        stacks.kept()


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
    return _batches(dataset, tokenizer, batches, workers=workers, timeout=timeout, pin=pin)


def spread(size: int, limit: int | None) -> list[int]:
    """At most `limit` indices, evenly spread over `size`."""
    if limit is None or limit >= size:
        return list(range(size))
    return [index * size // limit for index in range(limit)]


class EvalBatches:
    """Prepared batches in the order of the data set, for validation, features and pictures: to be gone through once.

    `broken` and `notes` hold, as it goes, the samples that were left out and how often what was converted; both are
    told at the end, once. A chunk of nothing but broken samples gives no batch. Raises DataError on a broken sample
    unless the policy is to skip it, and where every sample is broken.
    """

    def __init__(self, dataset: SampleDataset, tokenizer: Tokenizer[Any], reading: Reading) -> None:
        self.dataset, self.tokenizer, self.reading = dataset, tokenizer, reading
        self.broken: list[Broken] = []
        self.notes: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Batch]:
        how, count = self.reading, 0
        indices = spread(len(self.dataset), how.limit)
        chunks = [[(index, 0) for index in indices[i : i + how.batch]] for i in range(0, len(indices), how.batch)]
        for item in _batches(self.dataset, self.tokenizer, chunks, workers=how.workers, timeout=how.timeout):
            if item.broken and how.on_bad_sample == "fail":
                raise broken_error(item.broken[0])
            self.broken += item.broken
            if how.record is not None:
                for sample in item.broken:
                    how.record(sample)
            self.notes.update(item.notes)
            if not item.ids:
                continue
            count += len(item.ids)
            item = item.to(how.device)
            item.stored, item.signal = item.signal, self.tokenizer.prepare(item.signal)
            yield item
        if self.broken and not count:
            raise broken_error(self.broken[0])
        self.tell(count)

    def tell(self, count: int) -> None:
        """Say what was left out and converted, of `count` samples that were read."""
        tell_broken(self.broken, count + len(self.broken))
        tell_notes(self.notes, count)


def tell_notes(notes: Mapping[str, int], count: int) -> None:
    """Say how many of `count` samples each note is of."""
    for note, times in notes.items():
        log.warning("%d of %d samples: %s", times, count, note)


def tell_broken(broken: Sequence[Broken], total: int) -> None:
    """Say which of so many samples were left out; nothing where none was."""
    if broken:
        named = "; ".join(f"{b.id} ({b.said})" for b in broken[:3])
        log.warning("%d of %d samples left out: %s%s", len(broken), total, named, ", ..." if len(broken) > 3 else "")


def eval_batches(dataset: SampleDataset, tokenizer: Tokenizer[Any], reading: Reading) -> EvalBatches:
    """See `EvalBatches`."""
    return EvalBatches(dataset, tokenizer, reading)


def broken_error(sample: Broken) -> DataError:
    """What a run says when its policy is to fail."""
    return DataError(
        "A sample can't be read.",
        where=f"sample {sample.id}",
        got=sample.reason,
        fix="Mend or remove it, or set train.on_bad_sample=skip.",
    )
