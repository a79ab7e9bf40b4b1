"""Windows into fields of many channels, and standardisation of each channel by itself, on the batch's own device.

Most slots of a batch of many stains are absent, so channels that are there are taken out first: N of them in a batch,
each with the number of its sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskedmodel import Noise

TURNS = 8  # the symmetries of a square: four quarter turns, each mirrored or not


@dataclass(frozen=True, eq=False)
class Present:
    """The channels of a batch that are there.

    values   (N, height, width) floating point, NaN where a pixel is absent.
    sample   (N,) int64, whose they are; slot (N,) int64, where they belong.
    extents  (B, 2) int64, height and width of each sample: up to its last row and column with any value.
    """

    values: Tensor
    sample: Tensor
    slot: Tensor
    extents: Tensor

    @classmethod
    def of(cls, signal: Tensor, keep: Tensor | None = None) -> Present:
        """Of a batch (B, V, H, W), the channels with any value; of those where `keep` (B, V) says so."""
        pixels = ~signal.isnan()
        rows, columns = pixels.any(3), pixels.any(2)
        there = rows.any(2)
        last = [_last(seen.any(1)) for seen in (rows, columns)]
        sample, slot = (there if keep is None else there & keep).nonzero(as_tuple=True)
        return cls(signal[sample, slot], sample, slot, torch.stack(last, 1))

    def windows(self, top: Tensor, left: Tensor, size: tuple[int, int], turn: Tensor | None = None) -> Tensor:
        """(N, *size): one window per sample, starting at `top` and `left` (B,), NaN beyond the picture.

        turn  (B,) from 0 to 7: bit 0 mirrors up and down, bit 1 left and right, bit 2 swaps rows and columns, which
              only a square window allows. None = as it is.
        """
        height, width = self.values.shape[1:]
        device = self.values.device
        row = torch.arange(size[0], device=device)[:, None].expand(size)
        column = torch.arange(size[1], device=device).expand(size)
        row, column = row.expand(len(top), *size), column.expand(len(top), *size)
        if turn is not None:
            mirrored, flipped, swapped = ((turn >> bit & 1).bool()[:, None, None] for bit in range(3))
            row, column = torch.where(swapped, column, row), torch.where(swapped, row, column)
            row = torch.where(mirrored, size[0] - 1 - row, row)
            column = torch.where(flipped, size[1] - 1 - column, column)
        row, column = row + top[:, None, None], column + left[:, None, None]
        inside = (row < height) & (column < width)
        index = (row.clamp(max=height - 1) * width + column.clamp(max=width - 1)).flatten(1)
        taken = self.values.flatten(1).gather(1, index[self.sample]).unflatten(1, size)  # type: ignore[no-untyped-call]
        return torch.where(inside[self.sample], taken, torch.nan)

    def put_back(self, values: Tensor, batch: int, slots: int) -> Tensor:
        """The channels `values` (N, h, w) as a batch (B, V, h, w), NaN in every other slot."""
        out = values.new_full((batch, slots, *values.shape[1:]), torch.nan)
        out[self.sample, self.slot] = values
        return out


def _last(seen: Tensor) -> Tensor:
    """(B, n) bool to (B,): one more than the last True, 0 where there is none."""
    return (seen * torch.arange(1, seen.shape[1] + 1, device=seen.device)).amax(1)


def standardise(values: Tensor, epsilon: float) -> Tensor:
    """(N, h, w) to mean 0 and variance 1 each, over the pixels that are there; NaN stays NaN.

    (x - mean) / sqrt(variance + epsilon) with the biased variance, as CA-MAE's instance normalisation. A constant
    channel becomes zeros exactly, since its smallest value is taken away first.
    """
    there = ~values.isnan()
    count = there.sum((1, 2), keepdim=True).clamp(min=1)
    smallest = torch.where(there, values, torch.inf).amin((1, 2), keepdim=True)
    above = torch.where(there, values - smallest, 0)
    centred = torch.where(there, above - above.sum((1, 2), keepdim=True) / count, 0)
    variance = centred.square().sum((1, 2), keepdim=True) / count
    return torch.where(there, centred / (variance + epsilon).sqrt(), torch.nan)


def fewer_channels(signal: Tensor, noise: Noise) -> Tensor:
    """(B, V) bool: a random part of each sample's channels, by hierarchical channel sampling (Bao et al. 2024).

    How many is uniform from one to all that the sample has, then every part of that many is as likely. ChannelViT
    draws one part for the whole batch; here each sample draws its own.
    """
    there = ~signal.isnan().flatten(2).all(2)
    count = there.sum(1)
    few = (noise.uniform(1, purpose="channel count")[:, 0] * count).long() + 1
    few = torch.minimum(few, count)  # float32 may round u * count up to count
    order = noise.uniform(signal.shape[1], purpose="channels").masked_fill(~there, torch.inf)
    rank = order.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < few[:, None]
