"""Ranks: one process alone, or several under torchrun with gloo (CPU) or nccl (CUDA)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from maskedmodel.errors import ConfigError, TrainingError

T = TypeVar("T")
# What gloo and NCCL say in plain RuntimeErrors where the other end of a connection has gone.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport", "NCCL")


@dataclass(frozen=True)
class World:
    """Who this process is among those that train together."""

    rank: int
    size: int
    device: torch.device
    patient: Any = None  # a group of all ranks in which waiting has no limit

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        tensor: Tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def joined(self, items: Sequence[T]) -> list[T]:
        """The items of all ranks, in the order of ranks. Cheap where no rank has any."""
        if self.size == 1 or not self.total(len(items))[0]:
            return list(items)
        every: list[Sequence[T]] = [()] * self.size
        dist.all_gather_object(every, list(items), group=self.patient)
        return [item for own in every for item in own]

    def wait_patiently(self) -> None:
        """Until every rank is here, however long one works alone, as the first does in a validation or a save.

        That another one has gone is noticed all the same.
        """
        if self.size > 1:
            dist.barrier(group=self.patient)


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """auto, cpu or cuda as a device. Raises ConfigError where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device.", where="train.device", got=name, fix="Use auto or cpu.")
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


@contextmanager
def join(device: str, limit: timedelta = timedelta(minutes=10)) -> Iterator[World]:
    """The world as torchrun's environment describes it; without torchrun this process is alone in it.

    A rank that waits longer than `limit` for the others in a step fails: one of them has died or hangs, and
    TrainingError says so.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, pick_device(device))
        return
    chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=limit)
    try:
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=30))
        yield World(dist.get_rank(), size, chosen, patient)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in _LOST):
            raise
        raise TrainingError(
            "Another rank of the run has gone or hangs.",
            where=f"rank {dist.get_rank()} of {size}",
            got=str(error).splitlines()[0],
            fix="What the other rank said last tells why; the same command resumes from the newest checkpoint.",
        ) from error
    finally:
        dist.destroy_process_group()
