"""Whatever bytes come, a waveform or a DataError that names the file comes out, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_audio.sounds import KINDS, heard, made, wave

WHOLE = {kind: made(kind, samples=wave(3000)) for kind in KINDS}
QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound file with bytes changed, left out, put in, cut off or doubled; mostly near its head."""
    content = bytearray(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(draw(st.integers(1, 4))):
        most = draw(st.sampled_from([48, 200, len(content)]))
        place = draw(st.integers(0, max(min(most, len(content)) - 1, 0)))
        way = draw(st.sampled_from(["change", "ones", "zeros", "drop", "insert", "cut", "double"]))
        if way == "change":
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif way in ("ones", "zeros"):
            count = draw(st.sampled_from([1, 2, 4, 8]))
            content[place : place + count] = (b"\xff" if way == "ones" else b"\0") * count
        elif way == "drop":
            del content[place : place + draw(st.integers(1, 40))]
        elif way == "insert":
            content[place:place] = draw(st.binary(max_size=12))
        elif way == "cut":
            del content[place:]
        else:
            content += content[: place + 1]
    return bytes(content)


def a_wave_or_a_data_error(content: bytes, **values: object) -> None:
    where = None
    try:
        sound = heard(content, longest=20.0, largest=64, **values)
    except DataError as error:
        where = error.where
    if where is not None:
        assert where == "it"
        return
    assert sound.wave.dim() == 2
    assert sound.wave.numel() > 0
    assert torch.isfinite(sound.wave).all()


@settings(QUIET, max_examples=150)
@given(damaged())
def test_damaged_files(content: bytes) -> None:
    a_wave_or_a_data_error(content)


@settings(QUIET, max_examples=60)
@given(damaged())
def test_parts_of_damaged_files_and_what_is_there_of_them(content: bytes) -> None:
    a_wave_or_a_data_error(content, offset=0.05, seconds=0.1)
    a_wave_or_a_data_error(content, incomplete="read", mono=False)


@settings(QUIET, max_examples=60)
@given(st.sampled_from(sorted({content[:4] for content in WHOLE.values()})), st.binary(max_size=300))
def test_any_bytes_behind_a_known_beginning(head: bytes, content: bytes) -> None:
    a_wave_or_a_data_error(head + content)


@pytest.mark.slow
@settings(QUIET, max_examples=6000)
@given(damaged())
def test_many_damaged_files(content: bytes) -> None:
    a_wave_or_a_data_error(content)
    a_wave_or_a_data_error(content, incomplete="read", offset=0.01)
