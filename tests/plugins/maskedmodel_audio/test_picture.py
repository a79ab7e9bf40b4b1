import io
import math
import wave

import numpy as np
import pytest
import torch
from maskedmodel_audio import listen
from maskedmodel_audio.tokenizer import Spectrogram

from maskedmodel.pictures import ABSENT
from maskedmodel.tokens import Tokens


def own(**values):
    settings = {
        "sample_rate": 8000,
        "duration": 1.0,
        "mels": 40,
        "patch": 8,
        "statistics": {"mean": [-6.0], "std": [4.0]},
    }
    return Spectrogram(**{**settings, **values})


def tone(hertz, seconds=1.0, rate=8000):
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate)[None]


def test_low_is_at_the_bottom_and_time_runs_to_the_right():
    it = own()
    low_then_high = torch.cat([tone(200, 0.5), tone(3000, 0.5)], -1)
    picture = it.picture(it.prepare(low_then_high[None]))[0].sum(0)
    assert picture.shape == (40, 104)
    assert picture[:, 20].argmax() > 30  # low, at the left
    assert picture[:, 80].argmax() < 10  # high, at the right


def test_what_isnt_there_is_grey():
    it = own()
    picture = it.picture(it.prepare(tone(500, 0.4)[None]))[0]
    frames = it.front_end.frames(3200)
    assert (picture[:, :, frames:] == ABSENT).all()
    assert not (picture[:, :, :frames] == ABSENT).all(0).any()


def test_pictures_share_the_scale_of_the_original():
    it = own()
    original = it.prepare(tone(500)[None])
    softer = original - 2.0
    assert torch.allclose(it.picture(original), it.picture(softer), atol=1e-5)  # each on its own
    shared = it.picture(softer, original)
    assert shared[0, :, 20, :90].sum() < it.picture(original)[0, :, 20, :90].sum() - 1
    assert (shared[..., :90] <= it.picture(original)[..., :90]).all()


def test_the_footprint_is_where_pixels_change():
    it = own()
    prepared = it.prepare(it.collate([tone(500), tone(900, 0.5)]))
    tokens = it.tokenize(prepared)
    chosen = torch.rand(2, tokens.length, generator=torch.Generator().manual_seed(0)) < 0.3
    moved = it.detokenize(torch.where(chosen[..., None], tokens.values + 1.0, tokens.values), tokens)
    changed = (it.picture(moved, prepared) - it.picture(prepared, prepared)).abs().amax(1) > 1e-4
    footprint = it.footprint(tokens, chosen)
    assert footprint.shape == changed.shape
    assert not (changed & ~footprint).any()
    there = ~it.picture(prepared)[:, 0].eq(ABSENT)
    assert (changed | ~footprint | ~there).float().mean() > 0.97  # the loudest pixels were at the end of the scale


@pytest.mark.parametrize(
    ("seconds", "shape"),
    [(1.0, (40, 104)), (3.5, (40, 352)), (10.0, (128, 336)), (30.0, (172, 376)), (60.0, (172, 376))],
)
def test_long_clips_are_drawn_in_rows_of_a_sane_size(seconds, shape):
    it = own(longest=60.0, duration=seconds if seconds < 20 else 10.0)
    picture = it.picture(it.prepare(tone(500, seconds)[None]))
    assert picture.shape[2:] == shape
    assert picture.shape[2] * picture.shape[3] < 70_000
    for line in range(40, shape[0], 44):
        assert (picture[0, :, line : line + 4] == 1).all()


def test_rows_go_on_where_the_one_above_ended():
    it = own(duration=10.0)
    sound = torch.cat([tone(300, 3.36), tone(3000, 3.36), tone(300, 3.28)], -1)
    rows = it.picture(it.prepare(sound[None]))[0].sum(0)
    assert rows.shape == (128, 336)
    loudest = [int(rows[top : top + 40, 160].argmax()) for top in (0, 44, 88)]
    assert loudest[0] == loudest[2] > 28
    assert loudest[1] < 10
    scales = it.scales(torch.zeros(1, 1, 1008, 40))
    assert scales.horizontal.title == "time (s), each row 3.36 s after the one above"
    assert [text for _, text in scales.vertical.ticks] == ["1000", "200"] * 3
    places = [place * 128 for place, _ in scales.vertical.ticks]
    assert places[0] + 44 == pytest.approx(places[2])


@pytest.mark.parametrize("frames", [8, 104, 392, 1008, 1600, 3200, 6048])
def test_the_footprint_of_rows_is_where_pixels_change(frames):
    it = own(longest=61.0)
    generator = torch.Generator().manual_seed(frames)
    signal = -6 + torch.rand(1, 1, frames, 40, generator=generator)
    tokens = it.tokenize(signal)
    chosen = torch.rand(1, tokens.length, generator=generator) < 0.3
    moved = it.detokenize(torch.where(chosen[..., None], tokens.values - 1.0, tokens.values), tokens)
    changed = (it.picture(moved, signal) - it.picture(signal, signal)).abs().amax(1) > 1e-4
    footprint = it.footprint(tokens, chosen)
    assert not (changed & ~footprint).any()
    assert (changed | ~footprint).float().mean() > 0.99  # but for what lay at the end of the scale


def test_the_scales_say_seconds_and_hertz():
    it = own()
    prepared = it.prepare(tone(1000)[None])
    scales = it.scales(prepared)
    assert scales.horizontal.title == "time (s)"
    assert [text for _, text in scales.horizontal.ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    for place, text in scales.horizontal.ticks:
        assert place == pytest.approx(float(text) / 1.04)  # 104 frames of 10 ms
    places = {text: place for place, text in scales.vertical.ticks}
    assert set(places) == {"100", "200", "500", "1000", "2000"}
    brightest = int(it.picture(prepared)[0].sum(0)[:, 50].argmax())
    assert abs(places["1000"] * 40 - (brightest + 0.5)) <= 1


def test_ticks_of_any_length_are_few():
    it = own()
    for frames in (8, 104, 1040, 60 * 104):
        ticks = it.scales(torch.zeros(1, 1, frames, 40)).horizontal.ticks
        assert 2 <= len(ticks) <= 7
        assert all(0 <= place <= 1 for place, _ in ticks)


def read(content):
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def test_media_sound_like_the_original():
    it = own()
    signal = it.prepare(tone(440, 0.8)[None])
    files = it.media({"original": signal, "masked": signal, "reconstruction": signal - 2, "pasted": signal})
    assert list(files) == ["original.wav", "reconstruction.wav", "pasted.wav"]
    heard = read(files["original.wav"])
    assert len(heard) == pytest.approx(0.8 * 8000, abs=80)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.fft.rfftfreq(len(heard), 1 / 8000)[spectrum.argmax()] == pytest.approx(440, abs=15)
    assert np.abs(heard).max() == pytest.approx(0.9 * 32767, rel=0.01)
    softer = read(files["reconstruction.wav"])  # on the same scale
    assert np.abs(softer).max() == pytest.approx(np.abs(heard).max() * math.exp(-1), rel=0.05)


def test_what_is_heard_has_the_spectrogram_it_came_from():
    it = own()
    sound = it.example(1, torch.Generator().manual_seed(0))
    there = it.prepare(sound)[0, 0, :98]
    again = it.prepare(listen.waveform(there, it.front_end)[None, None])[0, 0, :98]
    loud = there > there.max() - 6
    assert float((again - there).abs()[loud].mean()) < 0.3


def test_hearing_draws_no_random_numbers():
    it = own()
    signal = it.prepare(tone(440)[None])
    before = torch.get_rng_state()
    first = it.media({"original": signal})
    assert torch.equal(before, torch.get_rng_state())
    assert first == it.media({"original": signal})


def test_nothing_to_hear_gives_no_file():
    it = own()
    assert it.media({"original": torch.full((1, 1, 104, 40), math.nan)}) == {}


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_few_frames_can_be_heard(frames):
    it = own()
    signal = it.prepare(tone(440)[None])[:, :, :frames]
    assert len(read(it.media({"original": signal})["original.wav"])) == 200 + 80 * (frames - 1)


def test_wild_values_make_no_wild_file():
    it = own()
    signal = torch.full((1, 1, 104, 40), 1e9)
    heard = read(it.media({"original": signal, "reconstruction": torch.zeros_like(signal)})["original.wav"])
    assert np.isfinite(heard).all()


def test_plain_features_are_means_over_time():
    it = own()
    stored = it.collate([tone(440), tone(900, 0.3)])
    features = it.plain_features(stored)
    assert list(features) == ["mean log-mel"]
    assert features["mean log-mel"].shape == (2, 40)
    alone = it.prepare(tone(900, 0.3)[None])[0, 0]
    torch.testing.assert_close(features["mean log-mel"][1], alone[: it.front_end.frames(2400)].mean(0))


def test_tokens_of_other_layouts_can_be_drawn():
    it = own()
    tokens = it.tokenize(it.prepare(tone(440, 2.5)[None]))
    assert isinstance(tokens, Tokens)
    assert it.footprint(tokens, torch.ones(1, tokens.length, dtype=torch.bool)).shape == (1, 40, 3 * 104)
