"""Multi-scale crop: its law, and its pixels against torch's own resizing of the same boxes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from maskedmodel_video.augment import centre, crop_choice, crop_matrices, moving_frames, multi_scale_crop
from maskedmodel_video.tokenizer import TubesTokenizer

from maskedmodel import Noise
from maskedmodel.testing.fixtures import generator

SCALES = (1.0, 0.875, 0.75, 0.66)


def noise(batch: int) -> Noise:
    return Noise.of(list(range(batch)))


def test_boxes_follow_the_law() -> None:
    tall, down, wide, across = crop_choice(noise(4000), SCALES)
    assert (tall - wide).abs().max() == 1
    pairs = torch.stack([tall, wide], 1).unique(dim=0, return_counts=True)
    assert len(pairs[0]) == 10  # 4 of one scale, 6 of neighbouring ones
    assert pairs[1].min() > 300
    places, counts = torch.stack([down, across], 1).unique(dim=0, return_counts=True)
    assert len(places) == 13
    assert counts.min() > 220
    assert {(0, 0), (4, 4), (2, 2), (1, 3)} <= {tuple(place) for place in places.tolist()}
    assert (1, 2) not in {tuple(place) for place in places.tolist()}


@pytest.mark.parametrize("size", [(12, 12), (16, 24), (40, 30)])
def test_each_box_is_resized_as_torch_does(size: tuple[int, int]) -> None:
    clips = torch.rand(6, 2, 3, 32, 44, generator=generator())
    out = multi_scale_crop(clips, noise(6), size, SCALES)
    tall, down, wide, across = (part.tolist() for part in crop_choice(noise(6), SCALES))
    for row in range(6):
        height, width = int(32 * SCALES[tall[row]]), int(32 * SCALES[wide[row]])
        top, left = down[row] * ((32 - height) // 4), across[row] * ((44 - width) // 4)
        box = clips[row, :, :, top : top + height, left : left + width]
        expected = F.interpolate(box, size, mode="bilinear", antialias=True)
        torch.testing.assert_close(out[row], expected, rtol=0, atol=1e-5)


def test_all_frames_of_a_clip_get_one_box() -> None:
    still = torch.rand(4, 3, 1, 20, 20, generator=generator()).expand(-1, -1, 5, -1, -1)
    out = multi_scale_crop(still, noise(4), (8, 8), SCALES)
    assert torch.equal(out, out[:, :, :1].expand_as(out))


def test_a_flip_mirrors_what_the_crop_gives() -> None:
    clips = torch.rand(4, 1, 2, 20, 20, generator=generator())
    flipped = torch.tensor([True, False, True, False])
    plain = multi_scale_crop(clips, noise(4), (8, 8), SCALES)
    mirrored = multi_scale_crop(clips, noise(4), (8, 8), SCALES, flipped)
    expected = torch.where(flipped[:, None, None, None, None], plain.flip(4), plain)
    torch.testing.assert_close(mirrored, expected)


def test_weights_of_every_output_pixel_add_up_to_one() -> None:
    table = crop_matrices([20, 9, 1], 20, 7, torch.device("cpu"))
    assert table.shape == (3, 5, 7, 20)
    torch.testing.assert_close(table.sum(3), torch.ones(3, 5, 7))
    assert not table[1, 4, :, :8].any()  # 11 pixels of room, four steps of 2


def test_the_crop_of_a_single_scale_of_one_square_is_the_whole() -> None:
    own = TubesTokenizer(frames=2, size=16, patch=(2, 8, 8), crop=[1.0])
    stored = torch.randint(0, 256, (2, 3, 2, 16, 16), dtype=torch.uint8, generator=generator())
    torch.testing.assert_close(own.augment(stored, noise(2)), stored.float() / 255, rtol=0, atol=1e-6)


def test_flip_alone_mirrors_about_half_of_the_samples() -> None:
    own = TubesTokenizer(frames=2, size=8, patch=(2, 4, 4), crop=None, flip=True)
    stored = torch.rand(400, 3, 2, 8, 8, generator=generator())
    augmented = own.augment(stored, noise(400))
    mirrored = (augmented == stored.flip(4)).flatten(1).all(1)
    assert (mirrored | (augmented == stored).flatten(1).all(1)).all()
    assert 150 < mirrored.sum() < 250


def test_eight_bits_stay_within_zero_and_one() -> None:
    own = TubesTokenizer(frames=2, size=8, patch=(2, 4, 4))
    stored = torch.randint(0, 2, (8, 3, 2, 12, 12), dtype=torch.uint8, generator=generator()) * 255
    augmented = own.augment(stored, noise(8))
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6


@pytest.mark.parametrize(("stored", "size"), [((20, 31), (16, 16)), ((9, 8), (16, 16)), ((50, 50), (16, 32))])
def test_the_short_side_is_resized_and_the_centre_kept(stored: tuple[int, int], size: tuple[int, int]) -> None:
    ramp = torch.linspace(0, 1, stored[1]).expand(1, 3, 2, *stored)
    out = centre(ramp, size)
    assert out.shape == (1, 3, 2, *size)
    # A ramp is symmetric about the centre, and stays so up to half a pixel.
    torch.testing.assert_close(out, 1 - out.flip(4), atol=0.05, rtol=0)


def test_frames_that_move_are_counted() -> None:
    clips = torch.rand(3, 1, 6, 2, 2, generator=generator())
    clips[1, :, 4:] = clips[1, :, 3:4]
    clips[2] = 1
    assert moving_frames(clips).tolist() == [6, 4, 1]
