import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_image.augment import crop_boxes, resized_crop
from PIL import Image

from maskedmodel import Noise

AREA, ASPECT = (0.2, 1.0), (3 / 4, 4 / 3)


def noise(batch, epoch=0):
    return Noise.of(list(range(batch)), seed=3, epoch=epoch)


def pictures(batch, channels, height, width):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("stored", "size"), [((32, 32), (32, 32)), ((40, 56), (24, 32)), ((16, 20), (32, 48))])
def test_each_box_equals_a_crop_resized_alone(interpolation, stored, size):
    image = pictures(6, 3, *stored)
    boxes = crop_boxes(noise(6), *stored, AREA, ASPECT)  # type: ignore[call-arg]
    batch = resized_crop(image, boxes, size, interpolation)
    for index, (top, left, height, width) in enumerate(boxes.long().tolist()):
        crop = image[index : index + 1, :, top : top + height, left : left + width]
        alone = F.interpolate(crop, size, mode=interpolation, antialias=True, align_corners=False)
        torch.testing.assert_close(batch[index : index + 1], alone, atol=1e-5, rtol=0)


def test_enlarging_bilinearly_equals_plain_interpolation_at_pixel_centres():
    image = pictures(5, 2, 16, 16)
    boxes = crop_boxes(noise(5), 16, 16, AREA, ASPECT)
    batch = resized_crop(image, boxes, (32, 32), "bilinear")
    for index, (top, left, height, width) in enumerate(boxes.long().tolist()):
        crop = image[index : index + 1, :, top : top + height, left : left + width]
        alone = F.interpolate(crop, (32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(batch[index : index + 1], alone, atol=1e-5, rtol=0)


def test_equals_pillow_up_to_its_rounding():
    stored = (pictures(1, 1, 48, 48) * 255).round().to(torch.uint8)
    boxes = torch.tensor([[5.0, 8.0, 30.0, 40.0]])
    ours = resized_crop(stored.float(), boxes, (16, 16), "bicubic").clamp(0, 255)
    crop = Image.fromarray(stored[0, 0, 5:35, 8:48].numpy())
    theirs = torch.from_numpy(np.array(crop.resize((16, 16), Image.Resampling.BICUBIC)))
    assert (ours[0, 0] - theirs).abs().max() <= 1.01  # Pillow rounds twice, once per axis


def test_a_box_over_everything_at_the_same_size_changes_nothing():
    image = pictures(2, 3, 17, 23)
    boxes = torch.tensor([[0.0, 0.0, 17.0, 23.0]]).expand(2, 4)
    for interpolation in ("bicubic", "bilinear"):
        assert torch.equal(resized_crop(image, boxes, (17, 23), interpolation), image)


def test_a_flip_mirrors_the_crop_of_the_chosen_samples_only():
    image, flipped = pictures(4, 3, 20, 20), torch.tensor([True, False, True, False])
    boxes = crop_boxes(noise(4), 20, 20, AREA, ASPECT)
    plain, mirrored = (resized_crop(image, boxes, (16, 16), "bicubic", which) for which in (None, flipped))
    expected = torch.where(flipped[:, None, None, None], plain.flip(3), plain)
    torch.testing.assert_close(mirrored, expected, atol=1e-6, rtol=0)


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    low=st.floats(0.01, 1),
    spread=st.floats(1, 4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_boxes_lie_inside_the_image(height, width, low, spread, seed):
    draws = Noise.of(list(range(32)), seed=seed)
    boxes = crop_boxes(draws, height, width, (low, 1.0), (1 / spread, spread))
    top, left, box_h, box_w = boxes.unbind(1)
    assert torch.equal(boxes, boxes.round())
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (box_h >= 1).all()
    assert (box_w >= 1).all()
    assert (top + box_h <= height).all()
    assert (left + box_w <= width).all()


def test_the_law_of_the_boxes():
    # Where every draw fits, area is uniform in its range, log aspect uniform in its own, places uniform.
    boxes = crop_boxes(noise(20_000), 1000, 1000, (0.1, 0.3), (0.5, 2.0))
    top, left, height, width = boxes.unbind(1)
    area = (height * width / 1e6 - 0.1) / 0.2
    aspect = ((width / height).log2() + 1) / 2
    for value in (area, aspect, top / (1000 - height), left / (1000 - width)):
        quantiles = torch.quantile(value, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
        torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]), atol=0.02, rtol=0)
    assert abs(torch.corrcoef(torch.stack([area, aspect]))[0, 1]) < 0.03


def test_the_law_agrees_with_the_retry_loop_of_the_recipe():
    # Few large boxes fit: the boxes must be distributed like those of a loop that draws until one does.
    generator = torch.Generator().manual_seed(0)
    shares = []
    while len(shares) < 4000:
        share, ratio = 0.2 + 0.8 * torch.rand((), generator=generator), torch.rand((), generator=generator)
        ratio = torch.exp((2 * ratio - 1) * torch.log(torch.tensor(4 / 3)))
        if (200 * (share / ratio).sqrt()).round() <= 200 and (200 * (share * ratio).sqrt()).round() <= 200:
            shares.append(float(share))
    boxes = crop_boxes(noise(4000), 200, 200, AREA, ASPECT)
    ours = boxes[:, 2] * boxes[:, 3] / 200**2
    points = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    torch.testing.assert_close(
        torch.quantile(ours, points), torch.quantile(torch.tensor(shares), points), atol=0.03, rtol=0
    )


def test_boxes_that_never_fit_are_clamped():
    boxes = crop_boxes(noise(8), 10, 200, (1.0, 1.0), (0.5, 0.5))
    assert (boxes[:, 2] == 10).all()
    assert (boxes[:, 3] == 32).all()  # sqrt(10 * 200 * 0.5)


def test_under_autocast_pixels_keep_float32():
    image, boxes = pictures(2, 3, 20, 20), torch.tensor([[1.0, 2.0, 15.0, 17.0]]).expand(2, 4)
    plain = resized_crop(image, boxes, (16, 16), "bicubic")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = resized_crop(image, boxes, (16, 16), "bicubic")
    assert torch.equal(plain, cast)
