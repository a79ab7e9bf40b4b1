"""Every format, subtype and number of channels that libsndfile writes: the samples that were written, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from maskedmodel import MaskedModelError
from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_audio.sounds import RATE, heard, made

SAMPLES = 15998
# SD2 keeps its head in a second file, and RAW has none.
FORMATS = [kind for kind in soundfile.available_formats() if kind not in ("SD2", "RAW")]
VARIANTS = [
    (kind, subtype, channels)
    for kind in FORMATS
    for subtype in soundfile.available_subtypes(kind)
    for channels in (1, 2, 6)
]
READ = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"}
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 24, "FLOAT": 24, "DOUBLE": 24}
BITS |= {"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 24, "DWVW_12": 12, "DWVW_16": 16, "DWVW_24": 24}
COMPANDED = {"ULAW", "ALAW"}
# In 5.1, Vorbis and Opus have the centre second and ALAC has it first; the reader gives WAV's order.
ORDER = {"VORBIS": (0, 2, 1, 5, 3, 4), "OPUS": (0, 2, 1, 5, 3, 4), "ALAC": (1, 2, 0, 5, 3, 4)}
LONGEST_BLOCK = 4096


def written(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(samples, channels): tones so low that every codec keeps them, also where it takes a channel for a subwoofer."""
    time = np.arange(SAMPLES)[:, None] / RATE
    return 0.4 * np.sin(2 * np.pi * (100 + 4 * np.arange(channels)) * time)


def check(kind: str, subtype: str, channels: int) -> None:
    expected = written(channels)
    try:
        content = made(kind, subtype, expected)
    except soundfile.SoundFileError:
        return  # libsndfile doesn't write this
    if kind not in READ:
        with pytest.raises(DataError):
            heard(content, mono=False)
        return
    got = heard(content, mono=False).wave.numpy().T
    order = ORDER.get(subtype.split("_")[0])
    if channels == 6 and order is not None:
        expected = expected[:, order]
    assert got.shape[1] == channels
    if subtype in BITS or subtype in COMPANDED:
        assert len(got) == SAMPLES
        allowed = 0.016 if subtype in COMPANDED else 2.0 ** (1 - BITS[subtype]) * 1.01
        assert np.abs(got - expected).max() <= allowed
    else:
        assert 0 <= len(got) - SAMPLES <= (0 if kind in ("OGG", "MP3") else LONGEST_BLOCK)
        likeness = [np.corrcoef(got[:SAMPLES, channel], expected[:, channel])[0, 1] for channel in range(channels)]
        assert min(likeness) > 0.8, likeness
    with pytest.raises(MaskedModelError):
        heard(content[: len(content) // 2])


@pytest.mark.parametrize(("kind", "subtype", "channels"), VARIANTS[::7])
def test_some_variants(kind: str, subtype: str, channels: int) -> None:
    check(kind, subtype, channels)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "subtype", "channels"), VARIANTS)
def test_every_variant(kind: str, subtype: str, channels: int) -> None:
    check(kind, subtype, channels)


def test_there_are_variants() -> None:
    assert len(VARIANTS) > 300
    assert {kind for kind, _, _ in VARIANTS} > READ
