"""Tokens of a whole data set at half precision, in memory, up to a limit that is said.

Shapes: N samples, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from maskedmodel.errors import DataError

GIB = 2**30
_ROWS = 512  # samples at a time
_LARGEST = torch.finfo(torch.float16).max


def check_memory(samples: int, tokens: int, width: int, limit: float) -> None:
    """Raise DataError where so many tokens fill more than `limit` GiB as float16."""
    needed = 2 * samples * tokens * width / GIB
    if needed > limit:
        raise DataError(
            "The tokens of all samples, which this probe needs at hand, don't fit into the memory it may use.",
            where="evaluate.token_memory",
            expected=f"at most {limit:g} GiB",
            got=f"{needed:.3g} GiB: {samples} samples of {tokens} tokens of {width} values, as float16",
            fix=f"Set evaluate.token_memory={needed * 1.05:.3g}, or take fewer samples with evaluate.train_samples and "
            "evaluate.val_samples.",
        )


@dataclass
class Bank:
    """Tokens (N, L, D) float16 and which of them are real (N, L), None where all are. Filled batch by batch.

    limit   GiB that they may fill; None: any.
    beyond  how many values lay outside of float16's range and were set to its end.
    """

    size: int
    limit: float | None = None
    values: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0, dtype=torch.float16))
    valid: Tensor | None = None
    filled: int = 0
    beyond: int = 0

    def add(self, x_BLD: Tensor, valid_BL: Tensor | None = None) -> None:
        """The next samples. Raises DataError where the limit is passed, as a ragged batch may."""
        batch, length, width = x_BLD.shape
        if length > self.values.shape[1]:
            self._widen(length, width)
        rows = slice(self.filled, self.filled + batch)
        self.beyond += int((x_BLD.abs() > _LARGEST).sum())
        self.values[rows, :length] = x_BLD.clamp(-_LARGEST, _LARGEST).to("cpu", torch.float16)
        if self.valid is None and (valid_BL is not None or length < self.values.shape[1]):
            self.valid = torch.zeros(self.size, self.values.shape[1], dtype=torch.bool)
            self.valid[: self.filled] = True
        if self.valid is not None:
            self.valid[rows, :length] = True if valid_BL is None else valid_BL.cpu()
        self.filled += batch

    def _widen(self, length: int, width: int) -> None:
        before, old = self.values, self.values.shape[1]
        if self.limit is not None:
            check_memory(self.size, length, width, self.limit)
        self.values = torch.zeros(self.size, length, width, dtype=torch.float16)
        if self.filled:
            self.values[: self.filled, :old] = before[: self.filled]
            valid = torch.zeros(self.size, length, dtype=torch.bool)
            valid[: self.filled, :old] = True if self.valid is None else self.valid[: self.filled]
            self.valid = valid

    @property
    def width(self) -> int:
        """D."""
        return self.values.shape[2]

    def statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread (D,) over the real tokens of some samples. Where the spread is none it is infinite."""
        count, total, square = 0, torch.zeros(self.width).double(), torch.zeros(self.width).double()
        for part in torch.split(rows, _ROWS):
            x = self.values[part].double()
            real = x.flatten(0, 1) if self.valid is None else x[self.valid[part]]
            count += len(real)
            total += real.sum(0)
            square += real.square().sum(0)
        mean = total / max(count, 1)
        spread = (square / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        constant = spread <= 1e-4 * mean.abs() + 1e-8
        return mean.float(), spread.masked_fill(constant, torch.inf).float()


@dataclass(frozen=True)
class Standardised:
    """A bank whose tokens have mean 0 and spread 1 over the samples that a probe is fitted to."""

    bank: Bank
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, bank: Bank, rows: Tensor) -> Standardised:
        return cls(bank, *bank.statistics(rows))

    def batch(self, rows: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, L, D) float32 of some samples, and which are real."""
        x = self.bank.values[rows].to(device).float()
        x = (x - self.mean.to(device)) / self.spread.to(device)
        valid = None if self.bank.valid is None else self.bank.valid[rows].to(device)
        return x, valid
