"""What pictures and plain features of signals share: which leads are drawn, their scales, and a power spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from maskedmodel import Tokens
from maskedmodel.pictures import Scale, Scales, SignalDisplay, bands_of, columns_of, draw_lines, token_pixels
from maskedmodel_signals.montage import LeadSettings

_ROUND = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)  # seconds between two ticks
_HIGHEST, _BANDS = 40.0, 32  # Hz, and how many numbers a spectrum has


class LeadPictures(SignalDisplay):
    """The display half of the tokenizer."""

    settings: LeadSettings

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """Curves, a band per lead that is there, time to the right, each on its own scale; gaps stay empty."""
        like = signal if like is None else like
        chosen = shown(leads_there(like))
        return draw_lines(signal[:, chosen].detach(), like[:, chosen].detach())

    def scales(self, signal: Tensor) -> Scales:
        names = [self.settings.names[lead] for lead in shown(leads_there(signal))]
        return band_scales(names, signal.shape[2], self.settings.rate)

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor:
        assert tokens.grid is not None
        cells = tokens.grid[0]
        bands = rearrange(chosen, "b (v n) -> b v n", n=cells)
        bands = bands[:, shown(torch.arange(bands.shape[1], device=chosen.device))]
        patch = tokens.values.shape[2]
        return token_pixels(bands, patch, columns_of(cells * patch))

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """(B, leads) the spread of each lead, and (B, 32) the power at each frequency, the mean over leads."""
        away = (stored.float() - stored.float().nanmean(-1, keepdim=True)).nan_to_num(0)
        return {"spreads": away.square().mean(-1).sqrt(), "power spectrum": power(away, self.settings.rate)}


def leads_there(signal: Tensor) -> Tensor:
    """(V,) int64: the leads that some sample of a batch (B, leads, samples) has; one where there is none at all.

    In a graph that torch.export makes they are all, since no graph can choose by its input which there are.
    """
    every = torch.arange(signal.shape[1], device=signal.device)
    if torch.compiler.is_exporting() or signal.is_meta:
        return every
    found = every[(~signal.isnan()).any(2).any(0)]
    return found if len(found) else every[:1]


def shown(leads: Tensor) -> Tensor:
    """Those of the leads (V,) that a picture has room for, evenly spread."""
    bands, _ = bands_of(len(leads))
    return leads[torch.linspace(0, len(leads) - 1, bands, device=leads.device).round().long()]


def band_scales(names: Sequence[str], steps: int, rate: float) -> Scales:
    """Seconds along the bottom, and each lead's name beside its band."""
    seconds = steps / rate
    size = next((size for size in _ROUND if seconds / size <= 6), _ROUND[-1])
    count = int(seconds / size) + 1
    across = tuple((tick * size / seconds, f"{tick * size:g}") for tick in range(count))
    down = tuple(((band + 0.5) / len(names), name) for band, name in enumerate(names))
    return Scales(Scale("time, s", across), Scale("lead", down))


def power(signal: Tensor, rate: float) -> Tensor:
    """(B, 32): the logarithm of the power in bands of 0 to 40 Hz of (B, leads, samples), the mean over leads."""
    spectrum = torch.fft.rfft(signal).abs().square().mean(1)
    frequency = torch.fft.rfftfreq(signal.shape[2], 1 / rate, device=signal.device)
    band = (frequency / _HIGHEST * _BANDS).long()
    inside = band < _BANDS
    summed = spectrum.new_zeros(len(signal), _BANDS).index_add(1, band[inside], spectrum[:, inside])
    shares: Tensor = (summed + 1e-6 * summed.mean(1, keepdim=True) + 1e-12).log()
    return shares
