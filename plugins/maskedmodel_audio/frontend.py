"""Waveforms to log-mel spectrograms: Kaldi's filter banks with the parameters of AudioMAE (Huang et al. 2022).

A frame of `window` samples every `shift`: its mean is taken off, the difference to 0.97 of the sample before is taken,
a symmetric Hann window laid over it, and its power spectrum summed in triangles that are even on the mel scale from
20 Hz to half the rate. The natural logarithm has its floor at float32's epsilon, so that silence is finite.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.errors import DependencyError, install_hint

FrontEnd = Literal["fast", "kaldi"]

LOWEST = 20.0  # Hz, where the first triangle begins
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps  # of the power in a triangle, as in Kaldi
_CACHED = 1 << 16  # samples


def load_torchaudio() -> Any:
    """The torchaudio module. Raises DependencyError where it is missing or can't be loaded."""
    try:
        import torchaudio  # type: ignore[import-untyped]
        import torchaudio.compliance.kaldi  # type: ignore[import-untyped]
    except (ImportError, OSError, RuntimeError) as error:  # the last two: its binary is of another torch or CUDA
        raise DependencyError(
            "Spectrograms and other sample rates need torchaudio, which can't be loaded.",
            expected="torchaudio 2.11, and a torch with CUDA as the package index has it; it runs without a GPU, too",
            got=f"{type(error).__name__}: {error}; torch {torch.__version__}",
            fix=f"{install_hint(extra='audio')} A torch built for the CPU only can't load torchaudio: "
            "reinstall torch from the package index.",
        ) from error
    return torchaudio


def mel(hertz: float) -> float:
    """Kaldi's mel scale."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


class LogMel(nn.Module):
    """Waveforms (B, N) float32 to the logarithm of the power in each triangle (B, frames, mels), natural units.

    A frame with NaN in it comes out as NaN; no other does.

    rate   samples per second.
    frame  length of a frame and
    hop    from one to the next, in seconds.
    kind   kaldi: torchaudio.compliance.kaldi.fbank, clip by clip. fast: the same arithmetic for the whole batch.
           torchaudio's batched MelSpectrogram is something else: it leaves each frame's mean in, and its triangles
           are even in Hz.

    Raises DependencyError where torchaudio can't be loaded.
    """

    hann: Tensor
    bank: Tensor

    def __init__(self, rate: int, mels: int, frame: float, hop: float, kind: FrontEnd) -> None:
        super().__init__()
        kaldi = load_torchaudio().compliance.kaldi
        self.rate, self.mels, self.frame, self.hop, self.kind = rate, mels, frame, hop, kind
        self.window, self.shift = samples_of(frame, rate), samples_of(hop, rate)
        self.bins = 1 << (self.window - 1).bit_length()  # length of the Fourier transform
        hann = torch.hann_window(self.window, periodic=False)
        bank, _ = kaldi.get_mel_banks(mels, self.bins, float(rate), LOWEST, 0.0, 100.0, -500.0, 1.0)
        # Neither is stored with a run: they follow from the settings.
        self.register_buffer("hann", hann, persistent=False)
        self.register_buffer("bank", F.pad(bank, (0, 1)), persistent=False)  # (mels, bins / 2 + 1)

    def frames(self, samples: int) -> int:
        """How many whole frames fit into so many samples."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.shift

    def place(self, hertz: float) -> float:
        """Where a frequency lies among the triangles: 0 the lower edge of the first, `mels` the upper of the last."""
        low, high = mel(LOWEST), mel(self.rate / 2)
        return (mel(hertz) - low) / (high - low) * (self.mels + 1) - 0.5

    def forward(self, wave: Tensor) -> Tensor:
        # Under autocast the product with the bank would be in bfloat16.
        with torch.autocast(wave.device.type, enabled=False):
            return self._kaldi(wave) if self.kind == "kaldi" else self._fast(wave)

    def _kaldi(self, wave: Tensor) -> Tensor:
        fbank = load_torchaudio().compliance.kaldi.fbank
        clips = [
            fbank(
                clip[None],
                htk_compat=True,
                sample_frequency=float(self.rate),
                use_energy=False,
                window_type="hanning",
                num_mel_bins=self.mels,
                dither=0.0,
                frame_length=self.frame * 1000,
                frame_shift=self.hop * 1000,
            )
            for clip in wave
        ]
        return torch.stack(clips)

    def _fast(self, wave: Tensor) -> Tensor:
        # Frames of a few clips at a time fit into a processor's cache, which halves the time; a GPU takes all at once.
        clips = max(_CACHED // wave.shape[1], 1) if wave.device.type == "cpu" else wave.shape[0]
        return torch.cat([self._batched(part) for part in torch.split(wave, clips)])

    def _batched(self, wave: Tensor) -> Tensor:
        frames = wave.unfold(1, self.window, self.shift)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self.hann, self.bins)
        power = spectrum.real.square() + spectrum.imag.square()
        triangles: Tensor = power @ self.bank.T
        return triangles.clamp(min=FLOOR).log()


def samples_of(seconds: float, rate: int) -> int:
    """A length in samples, rounded down as Kaldi does, from milliseconds."""
    return int(float(rate) * (seconds * 1000) * 0.001)
