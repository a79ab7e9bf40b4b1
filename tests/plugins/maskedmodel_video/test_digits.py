from __future__ import annotations

from typing import Any

import pytest
import torch
from maskedmodel_video.digits import DIRECTIONS, MovingDigits, MovingDigitsSettings, bounce
from pydantic import ValidationError
from torch import Tensor


def source(**values: Any) -> MovingDigits:
    return MovingDigits(**{"train_samples": 60, "val_samples": 30, **values})


def middle(clip: Tensor) -> Tensor:
    """The centre of what is bright in each frame, (T, 2): down, across."""
    frames = clip[0].double()
    weight = frames.sum((1, 2))
    place = torch.arange(frames.shape[1], dtype=torch.float64)
    down = (frames.sum(2) * place).sum(1) / weight
    across = (frames.sum(1) * place).sum(1) / weight
    return torch.stack([down, across], 1)


def test_clips_have_the_size_asked_for() -> None:
    sample = source(frames=6, size=40, glyph=20).open("train")[0]
    assert sample["signal"].shape == (1, 6, 40, 40)
    assert sample["signal"].dtype == torch.uint8
    assert 0 < sample["signal"].float().mean() < 100
    assert len(source().open("train")) == 60
    assert len(source().open("val")) == 30


def test_the_label_is_the_direction_of_the_motion() -> None:
    dataset = source(label="direction").open("train")
    ways = {
        name: torch.tensor([("down" in name) - ("up" in name), ("right" in name) - ("left" in name)]).double()
        for name in DIRECTIONS
    }
    met = set()
    for index in range(60):
        place = middle(dataset[index]["signal"])
        moved = place[3] - place[0]  # half of 8 frames
        name = DIRECTIONS[dataset[index]["label"]]
        met.add(name)
        assert float(torch.cosine_similarity(moved, ways[name], dim=0)) > 0.999, (index, name)
        assert 1.45 * 3 < float(moved.norm()) < 2.55 * 3
    assert met == set(DIRECTIONS)


def test_the_label_is_the_digit() -> None:
    digits, directions = source().open("train"), source(label="direction").open("train")
    assert source().class_names() == [str(digit) for digit in range(10)]
    assert {digits[index]["label"] for index in range(60)} == set(range(10))
    # Another label of the same clips.
    assert torch.equal(digits[7]["signal"], directions[7]["signal"])

    # Frames of one class look more alike than those of others, once they are cut out.
    def glyph(index: int) -> Tensor:
        down, across = (
            (part > 0).nonzero()[[0, -1], 0].tolist()
            for part in (digits[index]["signal"][0, 0].amax(1), digits[index]["signal"][0, 0].amax(0))
        )
        cut = digits[index]["signal"][0, 0, down[0] : down[1] + 1, across[0] : across[1] + 1].float()
        return torch.nn.functional.interpolate(cut[None, None], (12, 12), mode="bilinear").flatten()

    glyphs = torch.nn.functional.normalize(torch.stack([glyph(index) for index in range(60)]))
    labels = torch.tensor([digits[index]["label"] for index in range(60)])
    alike, same = glyphs @ glyphs.T, labels[:, None] == labels
    assert alike[same].mean() > alike[~same].mean() + 0.1


def test_digits_stay_inside_and_bounce() -> None:
    dataset = source(frames=24, speed=[0.5, 1.2], train_samples=40).open("train")
    whole = {index: dataset[index]["signal"].float().sum((0, 2, 3)) for index in range(40)}
    for brightness in whole.values():  # nothing of a digit leaves the frame, so its light stays the same
        assert float((brightness - brightness[0]).abs().max() / brightness[0]) < 0.02
    turned = 0
    for index in range(40):
        step = middle(dataset[index]["signal"]).diff(dim=0).sign()
        turned += int((step[0] * step[-1] < 0).any())
    assert turned > 5


def test_bouncing_by_hand() -> None:
    assert bounce(torch.tensor([-1.0, 0.0, 3.0, 4.0, 5.0, 8.0, 9.0]), 4.0).tolist() == [1, 0, 3, 4, 3, 0, 1]


def test_a_clip_depends_on_its_seed_and_number_alone() -> None:
    few, many = source(train_samples=20).open("train"), source(train_samples=50).open("train")
    assert torch.equal(few[13]["signal"], many[13]["signal"])
    assert few[13]["id"] == many[13]["id"]
    other = source(seed=1).open("train")
    assert not all(torch.equal(few[index]["signal"], other[index]["signal"]) for index in range(20))
    assert not torch.equal(source().open("val")[0]["signal"], few[0]["signal"])


def test_splits_show_different_writings() -> None:
    train, val = source(train_samples=300).open("train").read, source(val_samples=300).open("val").read
    writings = [{glyph.numpy().tobytes() for glyph in clips.glyphs} for clips in (train, val)]  # type: ignore[attr-defined]
    assert len(writings[0]) > 1000
    assert len(writings[1]) > 200
    assert not writings[0] & writings[1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"glyph": 32}, "smaller than size"),
        ({"speed": [2, 1]}, "low <= high"),
        ({"speed": [0, 1]}, "0 < low"),
        ({"speed": [1, 9]}, "no clear direction"),
        ({"frames": 1}, "greater than or equal to 2"),
        ({"label": "colour"}, "'digit' or 'direction'"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MovingDigitsSettings(**values)
