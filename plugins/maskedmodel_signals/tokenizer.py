"""The `signals` tokenizer: leads cut into patches of time, each lead known by where it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from maskedmodel import GridTokenizer, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel_signals.montage import LeadSettings
from maskedmodel_signals.shown import LeadPictures, leads_there

_EPSILON = 1e-12  # added to a variance, where a floor of zero sets no limit


class SignalsSettings(LeadSettings):
    """Settings of the `signals` tokenizer."""

    name: Literal["signals"] = "signals"
    length: PositiveInt = Field(500, description="Usual length of a signal, in samples. Divides by the patch.")
    patch: PositiveInt = Field(25, description="Length of a token, in samples of one lead.")
    normalise: Literal["record", "lead", "none"] = Field(
        "record",
        description="record: each lead less its mean, all leads of a sample over one spread, so that what is large in "
        "one lead and small in another stays so. lead: each lead over its own spread. none: as the data gives it.",
    )
    floor: float = Field(
        0.1,
        ge=0,
        description="Least spread that a sample is divided by, as a share of the spread of all leads over the training "
        "data, which is measured once and stored with the run: a flat lead isn't blown up. 0: none.",
    )


class SignalsTokenizer(LeadPictures, GridTokenizer[SignalsSettings]):
    """Tokens (lead, time patch) of signals (B, leads, samples), lead by lead; `Tokens.channel` is its place in `leads`.

    Who a lead is, `Tokens.channel_features` says: where it is, three numbers. No table of leads is learned, so weights
    fit any list of them. A lead that a sample lacks is all NaN, as is what lies beyond a shorter one; what all of a
    batch lack gives no tokens. Buffers: `spread`, a number, that of the training data, and `fitted`.
    """

    axes = ("time",)
    separate_channels = True
    accepts_nan = True
    channel_features = 3
    shared_with_data = ("leads", "rate", "places")
    settings: SignalsSettings
    spread: Tensor
    fitted: Tensor
    places: Tensor

    def __init__(self, settings: SignalsSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channel_count = 0  # described, not numbered
        self.described_names = self.settings.names
        self.register_buffer("places", self.settings.described(), persistent=False)  # no weights: a setting says them
        self.register_buffer("spread", torch.zeros(()))
        self._ready = self.settings.normalise == "none" or self.settings.floor == 0
        self.register_buffer("fitted", torch.tensor(self._ready))

    @property
    def channels(self) -> int:
        return len(self.settings.names)

    @property
    def needs_statistics(self) -> bool:
        if not self._ready:  # the buffer is read only until it says yes: a GPU would wait for it in every step
            self._ready = bool(self.fitted)
        return not self._ready

    def fit_statistics(self, signals: Iterable[Tensor]) -> None:
        """The spread of all leads over the training data, each lead of each sample less its mean."""
        squares, count = 0.0, 0
        for signal in signals:
            away = signal.double() - signal.double().nanmean(-1, keepdim=True)
            squares, count = squares + float(away.square().nansum()), count + int((~away.isnan()).sum())
        self.spread.fill_((squares / max(count, 1)) ** 0.5)
        self._ready = bool(self.fitted.fill_(True))

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or signal.shape[1] != self.channels or not signal.is_floating_point():
            raise self._refusal(signal)
        there = leads_there(signal)
        tokens = super().tokenize(signal[:, there])
        assert tokens.channel is not None
        lead = there[tokens.channel]
        return replace(tokens, channel=lead, channel_features=self.places.to(signal)[lead])

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        assert like.grid is not None
        assert like.channel is not None
        found = super().detokenize(values, like)
        whole = found.new_full((len(found), self.channels, found.shape[2]), torch.nan)
        return whole.index_copy(1, like.channel[:: like.grid[0]], found)

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, leads, samples) normalised, and filled up at the end with NaN to a multiple of the patch."""
        if signal.dim() != 3:
            raise self._refusal(signal)
        signal = signal if signal.is_floating_point() else signal.float()
        if self.settings.normalise != "none" and not self.needs_statistics:
            signal = signal - signal.nanmean(-1, keepdim=True)
            over = (1, 2) if self.settings.normalise == "record" else (2,)
            spread = (signal.square().nanmean(over, keepdim=True) + _EPSILON).sqrt()
            signal = signal / torch.maximum(spread, self.settings.floor * self.spread.to(signal))
        return pad(signal, (0, -signal.shape[2] % self.settings.patch), value=torch.nan)

    def _refusal(self, signal: Tensor) -> ShapeError:
        return ShapeError(
            "Tokenizer 'signals' can't take this signal.",
            expected=f"(batch, {self.channels} leads, samples) in floating point",
            got=f"{tuple(signal.shape)} {signal.dtype}",
        )
