"""Random crops and gains of a batch of waveforms, and rolls of its frames, each clip by its own noise."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Noise

Gain = Literal["beta"] | tuple[float, float]


def lengths(wave: Tensor) -> Tensor:
    """(B,) int64: samples up to the last that is there, of (B, N) filled up with NaN."""
    there = ~wave.isnan()
    tail = there.flip(1).to(torch.uint8).argmax(1)  # the first maximum
    return torch.where(there.any(1), wave.shape[1] - tail, 0)


def crop(wave: Tensor, samples: int, noise: Noise) -> Tensor:
    """(B, N) to (B, samples): of each longer clip a part that starts anywhere; shorter ones are filled up with NaN."""
    if wave.shape[1] <= samples:
        return F.pad(wave, (0, samples - wave.shape[1]), value=math.nan)
    room = (lengths(wave) - samples).clamp(min=0)
    start = _whole(noise.uniform(1, purpose="crop")[:, 0], room + 1)
    return wave.unfold(1, samples, 1)[torch.arange(wave.shape[0], device=wave.device), start]


def roll(frames: Tensor, noise: Noise) -> Tensor:
    """Each clip (B, frames, W) turned round in time by a random part of its own length: its end comes before its start.

    Frames of NaN after a clip's end stay there. On frames rather than samples, of which there are a hundred times more.
    """
    length = lengths(frames[..., 0])[:, None]
    shift = _whole(noise.uniform(1, purpose="roll")[:, 0], length[:, 0].clamp(min=1))[:, None]
    place = torch.arange(frames.shape[1], device=frames.device)[None]
    moved = torch.where(place + shift < length, place + shift, place + shift - length)
    source = torch.where(place < length, moved, place)
    return frames.gather(1, source[..., None].expand_as(frames))


def gain(wave: Tensor, kind: Gain, noise: Noise) -> Tensor:
    """Each clip (B, N) times a random factor.

    beta         0.5 plus a draw of Beta(10, 10), mean 1 and spread 0.11, as AudioMAE takes it. Such a draw is the 10th
                 smallest of 19 uniform ones.
    (low, high)  uniform in decibels.
    """
    if kind == "beta":
        factor = 0.5 + noise.uniform(19, purpose="gain").sort(1).values[:, 9:10]
    else:
        low, high = kind
        factor = 10 ** ((low + (high - low) * noise.uniform(1, purpose="gain")) / 20)
    return wave * factor.to(wave)


def _whole(share: Tensor, count: Tensor) -> Tensor:
    """A whole number from 0 to count - 1 for a share in [0, 1). In float64: float32 can't count long clips' samples."""
    return torch.minimum((share.double() * count).long(), count - 1)
