"""Samples out of a function that reads one signal by its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from maskedmodel.components import Sample


class SignalDataset:
    """Samples out of `read(index)`, with their ids and, where there are any, labels and groups.

    targets   the target of a sample by its number, None where it has none, such as the class of each pixel.
    boxes     which part of its file a sample shows, by its number, as `Sample` says. Read only by who asks.
    remember  bytes of signals that are kept once they were read, for signals that are small and slow to make. Those
              beyond are read anew each time. Every data worker keeps its own.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        ids: Sequence[str | int],
        labels: Sequence[int | None] | None = None,
        groups: Sequence[str] | None = None,
        remember: int = 0,
        targets: Callable[[int], Tensor | None] | None = None,
        boxes: Callable[[int], Tensor] | None = None,
    ) -> None:
        assert labels is None or len(labels) == len(ids)
        assert groups is None or len(groups) == len(ids)
        self.read, self.ids, self.labels, self.groups = read, ids, labels, groups
        self.targets, self.boxes = targets, boxes
        self._kept: dict[int, Tensor] = {}
        self._room = remember

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        sample = Sample(signal=self._signal(index), id=self.ids[index])
        label = None if self.labels is None else self.labels[index]
        if label is not None:
            sample["label"] = label
        if self.groups is not None:
            sample["group"] = self.groups[index]
        target = None if self.targets is None else self.targets(index)
        if target is not None:
            sample["target"] = target
        return sample

    def _signal(self, index: int) -> Tensor:
        kept = self._kept.get(index)
        if kept is not None:
            return kept.clone()  # whoever gets it may write into it
        signal = self.read(index)
        if signal.nbytes <= self._room:
            self._room -= signal.nbytes
            self._kept[index] = signal.clone()
        return signal
