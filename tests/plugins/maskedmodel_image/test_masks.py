"""Masks of images: read, moved with their pictures, and refused where they make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from maskedmodel_image.folder import ImageFolder
from maskedmodel_image.tokenizer import ImageTokenizer
from PIL import Image

from maskedmodel import Noise, Tokenizer
from maskedmodel.errors import ConfigError, DataError

Made = Callable[..., ImageFolder]
SIDE = 24


def blocks(number: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A bright rectangle on dark, another one in each picture."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[2 + number % 5 : 14 + number % 5, 4 + number % 7 : 15 + number % 7] = 1
    return pixels


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Twenty pictures with their masks, but two, and the source: made(mask_values=[0, 1], ...)."""
    for number in range(20):
        mask = blocks(number)
        name = f"part{number % 2}/{number:02d}"
        for kind, pixels in (("images", 40 + 180 * mask), ("masks", mask)):
            if kind == "masks" and number in (3, 4):
                continue
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    def make(**settings: object) -> ImageFolder:
        given = {"path": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "size": None, "mode": "grey"}
        return ImageFolder(**{"mask_classes": ("dark", "bright"), **given, **settings})

    return make


def test_a_mask_is_the_target_of_its_image(made: Made) -> None:
    source = made()
    dataset = source.open("train")
    assert source.target_names() == ["dark", "bright"]
    have = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        if "target" not in sample:
            assert Path(str(sample["id"])).stem in ("03", "04")
            continue
        have += 1
        assert sample["target"].dtype == torch.int64
        assert torch.equal(sample["target"] == 1, sample["signal"][0] > 128)
    assert have >= 14
    told = [fact.text for fact in source.facts() if fact.about == "masks"]
    assert told == ["18 of 20 images have one"]


@pytest.mark.parametrize("crop", [None, (0.2, 1.0)])
def test_a_target_moves_as_its_picture_does(crop: tuple[float, float] | None) -> None:
    """Stored wider than the model sees it: cut to the centre, cropped, mirrored."""
    masks = torch.stack([torch.from_numpy(blocks(number, 40, 60)).long() for number in range(16)])
    pictures = masks[:, None].float()
    tokenizer = ImageTokenizer(size=32, patch=8, channels=1, crop=crop, interpolation="bilinear")
    for noise in (None, Noise.of(range(16))):
        seen = tokenizer.prepare(pictures) if noise is None else tokenizer.augment(pictures, noise)
        moved = tokenizer.move_target(masks, pictures, noise)
        assert moved.shape == (16, 32, 32)
        agree = ((seen[:, 0] > 0.5) == (moved == 1)).float().mean()
        assert agree > 0.985  # the edges, which are smooth in the picture
        sure = (seen[:, 0] < 0.02) | (seen[:, 0] > 0.98)
        assert bool(((seen[:, 0] > 0.5) == (moved == 1))[sure].all())


def test_prepared_at_its_own_size_a_target_stays_as_it_is() -> None:
    masks = torch.randint(-1, 5, (3, 16, 16))
    tokenizer = ImageTokenizer(size=16, patch=8, channels=1)
    assert torch.equal(tokenizer.move_target(masks, torch.zeros(3, 1, 16, 16)), masks)


def test_values_of_a_mask_are_named_or_refused(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "masks" / "part0" / "00.png"
    pixels = blocks(0)
    pixels[:3] = 255
    Image.fromarray(pixels).save(path)
    target = made(mask_ignore=255, val_share=0.01).open("train")
    index = [str(i) for i in target.ids].index("part0/00.png")
    assert set(target[index]["target"][:3].unique().tolist()) == {-1}
    with pytest.raises(DataError, match=r"(?s)no class.*0 for dark, 1 for bright.*255.*mask_values.*mask_ignore"):
        made(val_share=0.01).open("train")[index]
    Image.fromarray(blocks(0) * 255).save(path)
    assert set(made(mask_values=(0, 255), val_share=0.01).open("train")[index]["target"].unique().tolist()) == {0, 1}
    Image.fromarray(blocks(0).astype(bool)).save(path)
    assert set(made(val_share=0.01).open("train")[index]["target"].unique().tolist()) == {0, 1}
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="one whole number per pixel"):
        made(val_share=0.01).open("train")[index]
    Image.fromarray(blocks(0, SIDE, SIDE + 2)).save(path)
    with pytest.raises(DataError, match=r"(?s)another size.*24 x 24 pixels, as part0/00.png.*24 x 26"):
        made(val_share=0.01).open("train")[index]


def test_a_mask_is_resized_as_its_image_is(made: Made) -> None:
    sample = next(s for s in (made(size=(12, 16)).open("train")[i] for i in range(3)) if "target" in s)
    assert sample["target"].shape == (12, 16)
    agree = (sample["target"] == 1) == (sample["signal"][0] > 128)
    assert agree.float().mean() > 0.95


def test_masks_have_one_home(made: Made, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="among the images"):
        made(path=str(tmp_path)).open("train")
    with pytest.raises(DataError, match="val_path"):
        made(val_path=str(tmp_path / "images")).open("train")
    (tmp_path / "masks" / "part0" / "00.bmp").write_bytes((tmp_path / "masks" / "part0" / "00.png").read_bytes())
    with pytest.raises(DataError, match="Two masks have one name"):
        made().open("train")
    with pytest.raises(ValueError, match="needs mask_classes"):
        made(mask_classes=())
    with pytest.raises(ValueError, match="is the value of a class"):
        made(mask_ignore=1)


def test_a_tokenizer_that_moves_pixels_refuses_what_it_cannot_move() -> None:
    class Turned(ImageTokenizer):
        move_target = Tokenizer.move_target

    with pytest.raises(ConfigError, match="can't do the same to a target"):
        Turned(size=16, patch=8).move_target(torch.zeros(1, 16, 16), torch.zeros(1, 3, 16, 16))
