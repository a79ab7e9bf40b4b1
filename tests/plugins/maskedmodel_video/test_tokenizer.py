from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_video.tokenizer import TubesSettings, TubesTokenizer
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import MaskedModelError, Noise
from maskedmodel.errors import ShapeError
from maskedmodel.pictures import ABSENT
from maskedmodel.testing.fixtures import generator


def tubes(**values: Any) -> TubesTokenizer:
    return TubesTokenizer(**{"frames": 4, "size": 16, "patch": (2, 8, 8), **values})


def numbered(frames: int, batch: int = 1, channels: int = 3, size: int = 16) -> Tensor:
    """Stored clips (B, C, T, H, W) uint8 whose frame t is t everywhere."""
    return torch.arange(frames, dtype=torch.uint8)[:, None, None].expand(batch, channels, frames, size, size)


def shown(clips: Tensor) -> list[list[int]]:
    """The numbers of the frames of `numbered` clips."""
    return (255 * clips[:, 0, :, 0, 0]).round().int().tolist()


@given(
    patch=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 5),
)
@settings(deadline=None, max_examples=25)
def test_clips_come_back(patch: tuple[int, int, int], grid: tuple[int, int, int], channels: int) -> None:
    frames, height, width = (cell * count for cell, count in zip(patch, grid, strict=True))
    own = TubesTokenizer(frames=frames, size=(height, width), patch=patch, channels=channels)
    signal = own.example(2, generator())
    tokens = own.tokenize(signal)
    assert tokens.values.shape == (2, int(np.prod(grid)), int(np.prod(patch)) * channels)
    assert tokens.grid == grid
    torch.testing.assert_close(own.detokenize(tokens.values, tokens), signal, atol=1e-6, rtol=0)


def test_values_run_over_frames_rows_columns_channels() -> None:
    plain = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    own = TubesTokenizer(frames=4, size=(4, 6), patch=(2, 2, 3), normalise=plain)
    signal = torch.arange(288.0).reshape(1, 3, 4, 4, 6)
    tokens = own.tokenize(signal)
    # Token 5 of the grid (2, 2, 2) lies at time 1, row 0, column 1.
    assert tokens.coords[5].tolist() == [1, 0, 1]
    expected = [
        float(signal[0, c, 2 + t, row, 3 + column])
        for t in range(2)
        for row in range(2)
        for column in range(3)
        for c in range(3)
    ]
    assert tokens.values[0, 5].tolist() == expected
    assert tokens.axes == ("time", "height", "width")


def test_uint8_is_its_255th_and_channels_are_standardised() -> None:
    own = tubes(normalise="imagenet")
    stored = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=generator())
    assert torch.equal(own.tokenize(stored).values, own.tokenize(stored.float() / 255).values)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(own.tokenize(stored).values[0, 0, :3], (stored[0, :, 0, 0, 0] / 255 - mean) / std)


def test_a_clip_of_other_extents_is_cut_as_well() -> None:
    tokens = tubes().tokenize(torch.zeros(1, 3, 6, 8, 24))
    assert tokens.grid == (3, 1, 3)


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        (torch.zeros(2, 1, 4, 16, 16), r"\(2, 1, 4, 16, 16\)"),
        (torch.zeros(3, 4, 16, 16), r"\(3, 4, 16, 16\)"),
        (torch.zeros(1, 3, 0, 16, 16), r"\(1, 3, 0, 16, 16\)"),
        (torch.zeros(1, 3, 4, 16, 16, dtype=torch.int64), "int64"),
    ],
)
def test_other_signals_are_refused_with_the_numbers(signal: Tensor, said: str) -> None:
    own = tubes()
    for use in (own.tokenize, own.prepare, lambda x: own.augment(x, Noise.of([0, 1])), own.picture):
        with pytest.raises(ShapeError, match=said):
            use(signal)
    with pytest.raises(ShapeError, match=r"(?s)time.*multiple of 2; nearest: 4 or 6.*got: 5"):
        tubes(frames=5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"normalise": "imagenet", "channels": 1}, "3 channels"),
        ({"normalise": {"mean": [0.5], "std": [0.5]}}, "needs 3 numbers each.*got 1 for mean and 1 for std"),
        ({"crop": [1.2]}, "at most 1"),
        ({"crop": [0.0]}, "greater than 0"),
        ({"crop": []}, "at least 1 item"),
        ({"frames": 0}, "greater than 0"),
        ({"stride": 0}, "greater than 0"),
        ({"patch": [2, 8]}, "patch"),
        ({"speed": 2}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TubesSettings(**values)


class TestFrames:
    def test_the_right_number_is_left_alone(self) -> None:
        own, stored = tubes(), torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=generator())
        assert torch.equal(own.prepare(stored), stored.float() / 255)

    def test_the_middle_is_taken(self) -> None:
        assert shown(tubes().prepare(numbered(10))) == [[3, 4, 5, 6]]
        assert shown(tubes(stride=3).prepare(numbered(14))) == [[2, 5, 8, 11]]

    def test_a_short_clip_goes_on_with_its_last_frame(self) -> None:
        assert shown(tubes().prepare(numbered(3))) == [[0, 1, 2, 2]]
        assert shown(tubes(stride=2).prepare(numbered(4))) == [[0, 2, 3, 3]]
        assert shown(tubes(crop=None).augment(numbered(1), Noise.of([0]))) == [[0, 0, 0, 0]]

    def test_every_start_is_as_likely_in_training_and_none_runs_over(self) -> None:
        own = tubes(crop=None)
        clips = shown(own.augment(numbered(8, 500, 3, 16), Noise.of(list(range(500)))))
        assert all(clip == list(range(clip[0], clip[0] + 4)) for clip in clips)
        counts = np.bincount([clip[0] for clip in clips], minlength=5)
        assert len(counts) == 5
        assert counts.min() > 60

    def test_what_a_source_filled_up_is_no_place_to_start(self) -> None:
        own, stored = tubes(crop=None), numbered(12, 200).clone()
        stored[:, :, 6:] = 5  # six frames are there, the rest is the last one again
        starts = {clip[0] for clip in shown(own.augment(stored, Noise.of(list(range(200)))))}
        assert starts == {0, 1, 2}
        assert shown(own.prepare(stored))[0] == [1, 2, 3, 4]

    def test_a_still_clip_is_a_clip(self) -> None:
        still = torch.full((1, 3, 9, 16, 16), 7, dtype=torch.uint8)
        assert shown(tubes(crop=None).augment(still, Noise.of([0]))) == [[7, 7, 7, 7]]

    def test_another_epoch_starts_elsewhere(self) -> None:
        own, stored = tubes(crop=None), numbered(40, 20)
        epochs = [shown(own.augment(stored, Noise.of(list(range(20)), epoch=epoch))) for epoch in (0, 0, 1)]
        assert epochs[0] == epochs[1] != epochs[2]


def test_pictures_are_strips_of_frames_with_their_numbers() -> None:
    own = tubes(frames=16, size=(8, 64), patch=(2, 8, 8))
    signal = own.example(2, generator())
    strip, scales = own.picture(signal), own.scales(signal)
    assert strip.shape == (2, 3, 8, 8 * 64 + 7 * 2)
    assert torch.equal(strip[..., :64], signal[:, :, 0])
    assert torch.equal(strip[..., 64:66], torch.ones(2, 3, 8, 2))
    assert torch.equal(strip[..., -64:], signal[:, :, 14])
    assert scales.horizontal is not None
    assert [text for _, text in scales.horizontal.ticks] == ["0", "2", "4", "6", "8", "10", "12", "14"]
    place = [place for place, _ in scales.horizontal.ticks]
    assert place[0] * strip.shape[3] == pytest.approx(32)
    assert place[-1] * strip.shape[3] == pytest.approx(strip.shape[3] - 32)
    assert own.scales(signal[:, :, :3]).horizontal.ticks[2][1] == "2"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_channels_and_of_what_is_absent(channels: int) -> None:
    own = tubes(channels=channels)
    signal = torch.full((1, channels, 4, 16, 16), 0.25)
    signal[:, :, 0] = torch.nan
    strip = own.picture(signal, signal)
    assert strip[0, 0, 0, 0] == pytest.approx(ABSENT)
    expected = [0.25] * 3 if channels != 2 else [0.25, 0.25, 0.0]
    assert strip[0, :, 0, -1].tolist() == expected


class TestMedia:
    def played(self, signals: dict[str, Tensor], own: TubesTokenizer) -> list[Image.Image]:
        files = own.media(signals)
        assert list(files) == ["clip.gif"]
        with Image.open(io.BytesIO(files["clip.gif"])) as gif:
            assert gif.format == "GIF"
            assert gif.info["loop"] == 0
            frames = []
            for number in range(gif.n_frames):
                gif.seek(number)
                assert gif.info["duration"] == 120
                frames.append(gif.convert("RGB"))
            return frames

    def signals(self, frames: int, channels: int = 3) -> dict[str, Tensor]:
        own = tubes(frames=frames, channels=channels)
        names = ("original", "masked", "reconstruction", "pasted")
        return {name: own.example(1, generator(seed)) for seed, name in enumerate(names)}

    @pytest.mark.parametrize("channels", [1, 3])
    def test_an_animation_has_every_frame_and_they_differ(self, channels: int) -> None:
        signals = self.signals(6, channels)
        frames = self.played(signals, tubes(frames=6, channels=channels))
        assert len(frames) == 6
        pixels = [np.asarray(frame).astype(int) for frame in frames]
        assert all(np.abs(one - other).max() > 20 for one, other in pairwise(pixels))
        # Four panels of 16 pixels, six times as large, with a bar of names above and gaps between.
        assert frames[0].size == (4 * 96 + 3 * 6, 96 + 16)
        for column, signal in enumerate(signals.values()):
            left = column * (96 + 6)
            panel = pixels[3][16::6, left : left + 96 : 6]
            expected = (255 * signal[0, :, 3].expand(3, -1, -1).permute(1, 2, 0)).numpy()
            assert np.abs(panel - expected).mean() < 12  # 256 colours

    def test_large_frames_are_left_as_they_are(self) -> None:
        own = TubesTokenizer(frames=2, size=(100, 120), patch=(2, 10, 10))
        signal = own.example(1, generator())
        assert self.played({"original": signal, "masked": signal}, own)[0].size == (246, 116)


def test_plain_features_are_small_and_tell_directions_apart() -> None:
    own = tubes(channels=1, size=32)
    right = torch.zeros(1, 1, 4, 32, 32)
    for time in range(4):
        right[:, :, time, :, 8 * time : 8 * time + 8] = 1
    features = own.plain_features(torch.cat([right, right.flip(2)]))
    assert {name: tuple(rows.shape) for name, rows in features.items()} == {
        "mean frame": (2, 64),
        "late minus early frames": (2, 64),
    }
    torch.testing.assert_close(*features["mean frame"])
    late = features["late minus early frames"]
    torch.testing.assert_close(late[0], -late[1])
    assert late[0].reshape(8, 8)[:, 4:].min() > 0.4
    assert own.plain_features(numbered(9, 2, 1, 20))["mean frame"].shape == (2, 64)


def test_one_frame_has_no_later_half() -> None:
    own = TubesTokenizer(frames=1, size=4, patch=(1, 2, 2), channels=1)
    assert {name: rows.shape for name, rows in own.plain_features(torch.rand(2, 1, 1, 4, 4)).items()} == {
        "mean frame": (2, 16)
    }


def test_statistics_travel_with_a_checkpoint() -> None:
    own = tubes(normalise={"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]})
    assert set(own.state_dict()) == {"mean", "std", "fitted"}
    assert not own.needs_statistics
    assert issubclass(ShapeError, MaskedModelError)
