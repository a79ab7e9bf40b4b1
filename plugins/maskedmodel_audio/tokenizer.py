"""The `spectrogram` tokenizer: waveforms to log-mel spectrograms, cut into patches over time and frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Noise, NormalisedTokenizer, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel.pictures import Scales, heat
from maskedmodel_audio import augment, listen
from maskedmodel_audio.frontend import LogMel
from maskedmodel_audio.picture import Rows
from maskedmodel_audio.settings import SpectrogramSettings

_RANGE = 80 / 10 * math.log(10)  # a picture shows 80 decibels below its loudest point


class Spectrogram(NormalisedTokenizer[SpectrogramSettings]):
    """Patches of a log-mel spectrogram, time slowest; the values of one run over frames, then mel bins (AudioMAE).

    Stored signals are waveforms (B, channels, samples) floating point, usually in [-1, 1], filled up with NaN where
    clips are shorter or have fewer channels. Channels are averaged. A clip's mean is taken off, as AudioMAE does.
    `prepare` and `augment` give log-mel values (B, 1, frames, mels), natural units, NaN where a clip has ended;
    tokens are normalised: (x - mean) / (2 std). A silent clip lies at the floor, log(1.2e-7), and is finite. A clip
    shorter than one frame is followed by silence up to a frame.

    Batches always have a whole number of windows of `duration`, so that shapes repeat. A clip longer than that is
    kept whole by `prepare`, as tiles: its tokens are one sequence, and time starts anew in every window. So no token
    stands at a place that training never showed, and a clip that repeats itself has the features of one period (of an
    encoder without class and register tokens, exactly so).

    Raises DependencyError where torchaudio can't be loaded.
    """

    axes = ("time", "frequency")
    accepts_nan = True
    shared_with_data = ("sample_rate",)
    spreads = 2.0

    def __init__(self, settings: SpectrogramSettings | None = None, **values: Any) -> None:
        s = settings if settings is not None else SpectrogramSettings(**values)
        # A module can only be kept once nn.Module is set up, and the grid that is checked there needs its numbers.
        front_end = LogMel(s.sample_rate, s.mels, s.frame, s.hop, s.front_end)
        self._samples = max(round(s.duration * s.sample_rate), front_end.window)
        self._window = _up(max(front_end.frames(self._samples), s.fill_to or 0), s.patch_size[0])
        super().__init__(s)
        self.front_end = front_end
        self.set_statistics(s.given_statistics)

    @property
    def channels(self) -> int:
        return 1

    @property
    def size(self) -> tuple[int, int]:
        """Frames of a window, up to a whole patch, and mel bins."""
        return self._window, self.settings.mels

    @property
    def patch(self) -> tuple[int, int]:
        return self.settings.patch_size

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """Waveforms (channels, samples) of any lengths and numbers of channels as one batch, filled up with NaN.

        Only the first `longest` seconds are taken.
        """
        most = round(self.settings.longest * self.settings.sample_rate)
        for signal in signals:
            if signal.dim() != 2 or not signal.is_floating_point() or 0 in signal.shape:
                raise ShapeError(
                    "A sample is no waveform.",
                    expected="(channels, samples) floating point, 1 or more of each",
                    got=f"{tuple(signal.shape)} {signal.dtype}",
                )
        channels = max(signal.shape[0] for signal in signals)
        samples = min(max(signal.shape[1] for signal in signals), most)
        batch = torch.full((len(signals), channels, samples), math.nan)
        for row, signal in zip(batch, signals, strict=True):
            row[: signal.shape[0], : signal.shape[1]] = signal[:, :most]
        return batch

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, channels, samples) to the log-mel of the whole clip up to `longest`, (B, 1, windows * frames, mels)."""
        return self._log_mel(self._mono(signal))

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """(B, channels, samples) to the log-mel of a random crop, made louder or softer and rolled by its own noise."""
        wave = augment.crop(self._mono(signal), self._samples, noise)
        if self.settings.gain is not None:
            wave = augment.gain(wave, self.settings.gain, noise)
        values = self._log_mel(wave)
        return augment.roll(values[:, 0], noise)[:, None] if self.settings.roll else values

    def _mono(self, signal: Tensor) -> Tensor:
        """(B, N) float32: the mean of the channels that are there, of the first `longest` seconds."""
        if signal.dim() != 3 or not signal.is_floating_point() or 0 in signal.shape:
            raise ShapeError(
                "Tokenizer 'spectrogram' can't take this signal.",
                expected="(batch, channels, samples) floating point, 1 or more of each",
                got=f"{tuple(signal.shape)} {signal.dtype}",
                fix="Let the data source give waveforms.",
            )
        signal = signal[..., : round(self.settings.longest * self.settings.sample_rate)].float()
        return signal[:, 0] if signal.shape[1] == 1 else signal.nanmean(1)

    def _log_mel(self, wave: Tensor) -> Tensor:
        """(B, N) with NaN where there is nothing to (B, 1, windows * frames, mels), NaN likewise."""
        window = self.front_end.window
        wave = F.pad(wave, (0, max(window - wave.shape[1], 0)), value=math.nan)
        wave = wave - wave.nanmean(1, keepdim=True)
        head = wave[:, :window]
        # A clip shorter than a frame has one; any other frame with NaN in it comes out as NaN, and no other does.
        wave[:, :window] = torch.where(head.isnan().all(1, keepdim=True), head, head.nan_to_num(0.0))
        values = self.front_end(wave)
        frames = max(values.shape[1], self.settings.fill_to or 0)
        values = F.pad(values, (0, 0, 0, _up(frames, self._window) - values.shape[1]), value=math.nan)
        if self.settings.fill_to is not None:
            values[:, : self.settings.fill_to] = values[:, : self.settings.fill_to].nan_to_num(0.0)
        return values[:, None]

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() == 4 and signal.shape[3] != self.settings.mels:
            raise ShapeError(
                "The spectrogram has another number of mel bins.", expected=self.settings.mels, got=signal.shape[3]
            )
        tokens = super().tokenize(signal)
        if tokens.grid == self.extents:
            return tokens
        # Longer: tiles. Shorter: the first part of a window, of which learned positions take the first part, too.
        coords = torch.stack([tokens.coords[:, 0] % self.extents[0], tokens.coords[:, 1]], 1)
        return replace(tokens, coords=coords, grid=None)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        bands = self.extents[1]
        return super().detokenize(values, replace(like, grid=(like.length // bands, bands)))

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, height, width): time from left to right, low frequencies at the bottom, 80 dB below the loudest.

        Of more than 384 frames in several rows, one under the other with a white line between them; of more than 1,536,
        a pixel shows the mean of several frames of a token.
        """
        values, scale = signal.detach().float()[:, 0], (signal if like is None else like).detach().float()
        high = scale.nan_to_num(-torch.inf).amax((1, 2, 3))
        low = torch.maximum(scale.nan_to_num(torch.inf).amin((1, 2, 3)), high - _RANGE)
        level = (values - low[:, None, None]) / (high - low)[:, None, None].clamp(min=1e-6)
        rows = self._rows(signal.shape[2])
        picture = heat(rows.wrap(level, math.nan))
        for line in rows.lines:
            picture[:, :, line] = 1.0
        return picture

    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor:
        bands = self.extents[1]
        cells = chosen.reshape(chosen.shape[0], -1, bands)
        frames = cells.repeat_interleave(self.patch[0], 1).repeat_interleave(self.patch[1], 2)
        return self._rows(frames.shape[1]).wrap(frames.float(), 0.0) > 0

    def scales(self, signal: Tensor) -> Scales:
        """Seconds from the start of each row of the picture, and the frequencies of the mel bins."""
        return self._rows(signal.shape[2]).scales(signal.shape[2], self.front_end)

    def _rows(self, frames: int) -> Rows:
        return Rows.of(frames, self.settings.mels, self.patch[0])

    def media(self, signals: Mapping[str, Tensor]) -> dict[str, bytes]:
        """WAV files of the original, as its spectrogram alone lets it sound, and of what was reconstructed."""
        ended = signals["original"][0, 0].isnan().all(1)
        frames = int((~ended).nonzero().max()) + 1 if not ended.all() else 0
        if frames == 0:
            return {}
        names = [name for name in ("original", "reconstruction", "pasted") if name in signals]
        sounds = [listen.waveform(signals[name][0, 0, :frames], self.front_end) for name in names]
        scale = listen.loudness(sounds)
        return {
            f"{name}.wav": listen.wav_bytes(sound, self.settings.sample_rate, scale)
            for name, sound in zip(names, sounds, strict=True)
        }

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """The mean of each mel bin over the whole clip (B, mels), in natural units."""
        return {"mean log-mel": self.prepare(stored)[:, 0].nanmean(1)}

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Harmonic tones (B, 1, samples) of `duration`, each with its own pitch, swell and a little noise."""
        rate, samples = self.settings.sample_rate, self._samples
        time = torch.arange(samples) / rate

        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(batch, 1, generator=generator)

        pitch, partials = draw(80.0, 400.0).clamp(max=rate / 5), torch.arange(1, 5)
        tone = torch.sin(2 * math.pi * pitch[..., None] * partials[:, None] * time) / partials[:, None]
        audible = (pitch[..., None] * partials[:, None] < rate / 2).float()
        swell = 0.55 + 0.45 * torch.sin(2 * math.pi * (draw(0.5, 4.0) * time + draw(0.0, 1.0)))
        noise = 0.01 * torch.randn(batch, samples, generator=generator)
        return ((tone * audible).sum(1) * swell * 0.2 + noise)[:, None]


def _up(count: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-count // unit) * unit
