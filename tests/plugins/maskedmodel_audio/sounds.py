"""Sound files as bytes, whole and damaged, for the tests of the reader."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import soundfile
from maskedmodel_audio.decode import Sound, read_sound
from maskedmodel_audio.reading import SoundFileSettings

RATE = 16000
# One subtype of every container that is read.
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "wavex": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "gsm": ("WAV", "GSM610"),
    "adpcm": ("WAV", "MS_ADPCM"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "alac": ("CAF", "ALAC_16"),
    "sphere": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def wave(samples: int = 16000, channels: int = 1) -> np.ndarray[Any, Any]:
    """(samples, channels): a tone in each channel, and a little noise, so that codecs have something to write."""
    time, noise = np.arange(samples) / RATE, np.random.default_rng(0)
    tones = [0.4 * np.sin(2 * np.pi * (300 + 100 * channel) * time) for channel in range(channels)]
    return np.stack(tones, 1) + 0.02 * noise.standard_normal((samples, channels))


def made(
    kind: str, subtype: str | None = None, samples: np.ndarray[Any, Any] | None = None, rate: int = RATE, **more: Any
) -> bytes:
    """The bytes of a sound file."""
    kind, subtype = KINDS.get(kind, (kind, subtype))
    file = io.BytesIO()
    soundfile.write(file, wave() if samples is None else samples, rate, format=kind, subtype=subtype, **more)
    return file.getvalue()


def heard(content: bytes, **settings: Any) -> Sound:
    """What the reader makes of it."""
    return read_sound(io.BytesIO(content), "it", SoundFileSettings(name="file", **{"sample_rate": RATE, **settings}))


def plain(content: bytes) -> np.ndarray[Any, Any]:
    """(channels, samples): what libsndfile alone makes of it."""
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].T


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def riff(*chunks: tuple[bytes, bytes], order: str = "<", pad: bool = True) -> bytes:
    """A WAV of these chunks."""
    body = b"WAVE"
    for name, content in chunks:
        body += name + struct.pack(order + "I", len(content)) + content + b"\0" * (len(content) % 2 if pad else 0)
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(order + "I", len(body)) + body


def pcm_format(channels: int = 1, bits: int = 16, align: int | None = None, order: str = "<") -> bytes:
    block = channels * bits // 8
    return struct.pack(order + "HHIIHH", 1, channels, RATE, RATE * block, block if align is None else align, bits)


def flac_counting(content: bytes, samples: int) -> bytes:
    """A FLAC file whose header counts so many samples, 0 for unknown."""
    word = struct.unpack(">Q", content[18:26])[0]
    return with_bytes(content, 18, struct.pack(">Q", word >> 36 << 36 | samples))
