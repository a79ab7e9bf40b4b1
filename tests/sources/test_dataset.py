from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskedmodel.sources import SignalDataset


class Counted:
    """Signals of 40 bytes, and how often each was read."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __call__(self, index: int) -> Tensor:
        self.reads.append(index)
        return torch.full((10,), float(index))


@pytest.mark.parametrize(("room", "reads"), [(0, [0, 1, 2] * 2), (80, [0, 1, 2, 2]), (120, [0, 1, 2])])
def test_signals_are_kept_while_there_is_room(room: int, reads: list[int]) -> None:
    read = Counted()
    data = SignalDataset(read, ["a", "b", "c"], [0, 1, None], remember=room)
    for _ in range(2):
        for index, name in enumerate("abc"):
            sample = data[index]
            assert sample["id"] == name
            assert ("label" in sample) is (index < 2)
            assert torch.equal(sample["signal"], torch.full((10,), float(index)))
            sample["signal"].zero_()  # the one who got it may do so
    assert read.reads == reads


def test_there_is_no_sample_beyond_the_last() -> None:
    data = SignalDataset(Counted(), ["a"], remember=100)
    with pytest.raises(IndexError):
        data[1]
