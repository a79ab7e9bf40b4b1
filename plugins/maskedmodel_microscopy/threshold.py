"""Labels of pixels out of one channel: what is brighter than a threshold, such as nuclei in a stain of DNA.

They are no annotation by people. A model that learns them and sees the channel learns to threshold it; one that doesn't
see it (`mask_hidden`) must find the same things in the other channels, as in-silico labelling does (Christiansen et al.
2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Fact, Sample, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import SignalDataset

NONE = -1  # the class number of a pixel without a label
_BINS = 256


class ThresholdSettings(Settings):
    """How one channel labels pixels."""

    mask_channel: str | None = Field(
        None,
        description="Channel whose bright pixels are labelled, for task segment: 1 above the threshold, 0 below. No "
        "annotation by people. Needs slots: name. null: none.",
    )
    mask_threshold: Literal["otsu"] | Annotated[float, Field(allow_inf_nan=False)] = Field(
        "otsu",
        description="otsu: of each field, or tile, its own, which splits its pixels into two groups of least variance "
        "(Otsu 1979). A number: the same for all, on the scale of the signal, on which stored white is 1.",
    )
    mask_hidden: bool = Field(
        False, description="Whether the model is kept from seeing that channel, and must tell its pixels by the others."
    )

    @property
    def target_names(self) -> tuple[str, str] | None:
        """What 0 and 1 mean."""
        return None if self.mask_channel is None else (f"no {self.mask_channel}", self.mask_channel)


def slot_of(settings: ThresholdSettings, names: Sequence[str] | None) -> int | None:
    """The slot of the channel; None where none is named. Raises DataError where it is none of `names`."""
    if settings.mask_channel is None:
        return None
    if settings.mask_channel not in (names or ()):
        raise DataError(
            f"No channel is called {settings.mask_channel!r}.",
            where="data.mask_channel",
            expected=", ".join(names) if names else "slots: name, where channels have names",
            got=settings.mask_channel,
        )
    assert names is not None
    return list(names).index(settings.mask_channel)


def otsu(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    """The threshold of Otsu (1979): of 256 even steps the one that leaves least variance within the two groups.

    Where nothing varies that value, above which nothing lies.
    """
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    if edges[0] == edges[-1] or values.min() == values.max():
        return float(values.max())
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    between = (
        below * above * np.square(sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1))
    )
    return float(edges[1:-1][np.argmax(between)])


def thresholded(channel: Tensor, threshold: Literal["otsu"] | float) -> Tensor | None:
    """A channel (H, W) as classes, int64: 1 above the threshold, 0 at or below, -1 where NaN; None where all is."""
    there = ~channel.isnan()
    if not bool(there.any()):
        return None
    limit = otsu(channel[there].numpy()) if threshold == "otsu" else threshold
    return torch.where(there, (channel > limit).long(), NONE)


def hidden(signal: Tensor, slot: int | None, settings: ThresholdSettings) -> Tensor:
    """The signal (V, H, W) without the channel that labels it, where the settings say so."""
    if slot is not None and settings.mask_hidden:
        signal[slot] = torch.nan
    return signal


class Thresholded(SignalDataset):
    """Fields with the classes of their pixels, by one of their channels. A field that lacks it has no labels."""

    def __init__(
        self,
        read: Callable[[int], Tensor],
        ids: Sequence[str | int],
        labels: Sequence[int | None] | None,
        groups: Sequence[str] | None,
        slot: int,
        settings: ThresholdSettings,
    ) -> None:
        super().__init__(self._once, ids, labels, groups, targets=self._target)
        self.slot, self.settings, self._source = slot, settings, read
        self._last: tuple[int, Tensor] | None = None

    def _once(self, index: int) -> Tensor:
        """A field, decoded once for its signal and its target."""
        if self._last is None or self._last[0] != index:
            self._last = (index, self._source(index))
        return self._last[1].clone()

    def _target(self, index: int) -> Tensor | None:
        return thresholded(self._once(index)[self.slot], self.settings.mask_threshold)

    def __getitem__(self, index: int, /) -> Sample:
        sample = super().__getitem__(index)
        sample["signal"] = hidden(sample["signal"], self.slot, self.settings)
        return sample


def threshold_facts(settings: ThresholdSettings) -> list[Fact]:
    """What labels of pixels are, where there are some: nobody drew them."""
    if settings.mask_channel is None:
        return []
    how = "Otsu's of each" if settings.mask_threshold == "otsu" else f"{settings.mask_threshold:g}"
    seen = "the model doesn't see that channel" if settings.mask_hidden else "the model sees that channel, too"
    text = f"pixels of {settings.mask_channel} above a threshold ({how}), drawn by nobody; {seen}"
    return [Fact("masks", text, notice=True)]
