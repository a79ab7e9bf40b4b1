"""Clips that are decoded once, when the data is opened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from maskedmodel.errors import DataError
from maskedmodel.sources import check_memory, decoded
from maskedmodel_video.clip import Clip


class Remembered:
    """Reads clips of one shape out of memory, uint8. What couldn't be decoded raises its DataError when it is read.

    One that takes longer than `timeout` seconds is bad, too. Data workers share the memory. Raises DataError where the
    clips need more than the machine has: better than being killed half-way.
    """

    def __init__(self, read: Callable[[int], Clip], count: int, shape: tuple[int, ...], timeout: float) -> None:
        size = count * int(np.prod(shape))
        check_memory(size, "memory: true", "Set memory: false, or store fewer frames or smaller ones.")
        self.clips = torch.zeros(count, *shape, dtype=torch.uint8)
        self.bad: dict[int, DataError] = {}
        self.notes: dict[int, tuple[str, ...]] = {}

        for index, clip in decoded(read, count, timeout):
            if isinstance(clip, DataError):  # raised whenever the sample is read, for the run's policy to treat
                self.bad[index] = clip
                continue
            self.clips[index] = clip.signal
            if clip.notes:
                self.notes[index] = clip.notes

    def __call__(self, index: int) -> Clip:
        if index in self.bad:
            raise self.bad[index]
        return Clip(self.clips[index], self.notes.get(index, ()))
