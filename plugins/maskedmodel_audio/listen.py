"""Log-mel spectrograms made audible: back to a waveform, and that to the bytes of a WAV file."""

from __future__ import annotations

import io
import wave

import numpy as np
import torch
from torch import Tensor

from maskedmodel_audio.frontend import PREEMPHASIS, LogMel, load_torchaudio

_ROUNDS = 64  # of Griffin and Lim's iteration, and of the one that spreads triangles over frequencies
_LOUDEST = 0.9  # of full scale
_HIGHEST = 40.0  # log-mel that is believed; the square of a phase must still fit into float32


def waveform(log_mel: Tensor, front_end: LogMel) -> Tensor:
    """(N,) float32 on the CPU of which the log-mel spectrogram (frames, mels) could come. Frames of NaN are silent.

    The power at each frequency is the non-negative one whose triangles fit best, found by the multiplicative updates
    of Lee and Seung (2001). The phases are those of Griffin and Lim (1984), started from zero: nothing is random.
    """
    functional = load_torchaudio().functional
    frames, window, shift = log_mel.shape[0], front_end.window, front_end.shift
    power = log_mel.detach().float().cpu().clamp(max=_HIGHEST).exp().nan_to_num(0.0).T  # (mels, frames)
    # torchaudio's frames are centred, ours begin at the first sample: with silence around they can be told apart.
    around = -(-window // shift)
    power = torch.nn.functional.pad(power, (around, around))
    bank = front_end.bank.float().cpu()
    guess = bank.T @ power
    wanted, overlap = guess.clone(), bank.T @ bank
    for _ in range(_ROUNDS):
        guess = guess * wanted / (overlap @ guess).clamp(min=1e-20)
    emphasised = functional.griffinlim(
        guess,
        front_end.hann.float().cpu(),
        front_end.bins,
        shift,
        window,
        power=2.0,
        n_iter=_ROUNDS,
        momentum=0.9,
        length=None,
        rand_init=False,
    )
    start = around * shift - window // 2
    emphasised = emphasised[start : start + (frames - 1) * shift + window]
    # torchaudio's own deemphasis would clip to [-1, 1].
    feedback, forward = torch.tensor([1.0, -PREEMPHASIS]), torch.tensor([1.0, 0.0])
    sound: Tensor = functional.lfilter(emphasised, feedback, forward, clamp=False)
    return sound


def wav_bytes(sound: Tensor, rate: int, scale: float) -> bytes:
    """A mono WAV file of 16-bit PCM; samples (N,) times `scale`, clipped to full scale."""
    pcm = (sound * scale).clamp(-1, 1).mul(32767).round().numpy().astype(np.dtype("<i2"))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm.tobytes())
    return file.getvalue()


def loudness(sounds: list[Tensor]) -> float:
    """One factor for several waveforms that brings the loudest sample of all to 0.9, so that they can be compared."""
    loudest = max((float(sound.abs().max()) for sound in sounds if sound.numel()), default=0.0)
    return _LOUDEST / max(loudest, 1e-5)
