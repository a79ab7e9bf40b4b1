"""Counter-based noise: a pure function of (seed, epoch, sample id, purpose, index).

Nothing draws from a generator whose state depends on what was drawn before. That is why masks and augmentation come
out the same for any number of workers, ranks and micro-batches, and after a resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

# splitmix64 (Steele, Lea, Flood 2014), written as signed 64-bit integers because torch has no uint64 arithmetic.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts a signed integer arithmetically, so the copied sign bits are cleared."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def stable_hash(text: str) -> int:
    """A signed 64-bit integer that is the same in every process (Python's own hash of a string isn't)."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little", signed=True
    )


def sample_key(sample_id: str | int) -> int:
    """The integer of 64 bits by which a sample's noise is keyed: an id that is one, else the hash of its text."""
    if isinstance(sample_id, int) and -(2**63) <= sample_id < 2**63:
        return sample_id
    return stable_hash(str(sample_id))


@dataclass(frozen=True, eq=False)
class Noise:
    """The noise of one batch.

    `keys` (B,) int64 from `sample_key`; `epoch` (B,) int64, since a batch may span two epochs.
    Every call with the same arguments returns the same numbers.
    """

    seed: int
    epoch: Tensor
    keys: Tensor

    @classmethod
    def of(
        cls, ids: Sequence[str | int], *, seed: int = 0, epoch: int = 0, device: torch.device | str = "cpu"
    ) -> Noise:
        """The noise of the samples with these ids."""
        keys = torch.tensor([sample_key(i) for i in ids], dtype=torch.int64, device=device)
        return cls(seed, torch.full_like(keys, epoch), keys)

    @classmethod
    def random(cls, batch: int, device: torch.device | str = "cpu") -> Noise:
        """Noise for one-off use, keyed from torch's global generator, so `torch.manual_seed` governs it."""
        keys = torch.randint(-(1 << 62), 1 << 62, (batch,)).to(device)
        return cls(0, torch.zeros_like(keys), keys)

    @property
    def batch(self) -> int:
        return self.keys.shape[0]

    def uniform(self, count: int, purpose: str = "mask") -> Tensor:
        """(B, count) float32, uniform in [0, 1) on a grid of 2^-24, independent across samples, epochs and purposes."""
        start = _mix(_mix(self.keys ^ stable_hash(f"{self.seed}/{purpose}")) + self.epoch)
        counter = torch.arange(count, device=self.keys.device)
        bits = _mix(_mix(start)[:, None] + counter)
        return _shift_right(bits, 40).to(torch.float32) * 2.0**-24

    def rows(self, rows: slice | Tensor) -> Noise:
        """The noise of some of the samples."""
        return Noise(self.seed, self.epoch[rows], self.keys[rows])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts from `seed`; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
