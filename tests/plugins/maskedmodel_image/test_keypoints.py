"""Keypoints beside images: from tables and JSON files, missing ones, what is refused, and where a stored image lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_image.folder import ImageFolder
from PIL import Image
from pydantic import ValidationError

from maskedmodel.errors import DataError

NAMES = ["nose", "left_eye", "right_eye"]


def images(folder: Path, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir(exist_ok=True)
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(np.full((height, width, 3), number * 9, np.uint8)).save(folder / f"{number}.png")


def table(folder: Path, rows: list[str], header: str = "file_name,nose_x,nose_y,left_eye_x,left_eye_y") -> None:
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")


def source(folder: Path, points: Any = ("nose", "left_eye"), **settings: Any) -> ImageFolder:
    given = {"path": str(folder), "size": None, "val_share": 0.5, "points": points, **settings}
    return ImageFolder(**given)


def targets(data: ImageFolder) -> dict[str, Any]:
    found = {}
    for split in ("train", "val"):
        for sample in data.open(split):  # type: ignore[attr-defined]
            found[str(sample["id"])] = sample.get("target")
    return found


def test_a_table_gives_x_and_y_and_an_empty_cell_no_point(tmp_path: Path) -> None:
    images(tmp_path, [(20, 30)] * 6)
    table(tmp_path, ["0.png,3.5,4,10,11.25", "1.png,,,1,2", "2.png,30,20,0,0", "3.png,,,,", "4.png,nan,NaN,5,5"])
    data = source(tmp_path)
    assert data.target_names() == ["nose", "left_eye"]
    found = targets(data)
    assert found["0.png"].tolist() == [[3.5, 4, 0], [10, 11.25, -1]]  # there is no right eye to change with
    assert found["1.png"][0, :2].isnan().all()
    assert found["1.png"][1].tolist() == [1, 2, -1]
    assert found["2.png"][:, :2].tolist() == [[30, 20], [0, 0]]
    assert found["4.png"][0, :2].isnan().all()
    assert found["3.png"] is None
    assert found["5.png"] is None
    told = [(fact.text, fact.notice) for fact in data.facts() if fact.about == "points"]
    assert told == [
        ("4 of 6 images have some of 2, 2 all", True),
        ("of a mirrored image not known, since the other side isn't among the points: left_eye", True),
    ]


def test_json_beside_each_image(tmp_path: Path) -> None:
    images(tmp_path, [(20, 30)] * 4)
    for number in range(3):
        said: dict[str, Any] = {f"{name}_{axis}": number + 1.5 for name in NAMES for axis in "xy"}
        if number == 1:
            said |= {"nose_x": None, "nose_y": None}
        (tmp_path / f"{number}.json").write_text(json.dumps(said))
    data = source(tmp_path, NAMES)
    found = targets(data)
    assert found["0.png"].tolist() == [[1.5, 1.5, 0], [1.5, 1.5, 2], [1.5, 1.5, 1]]
    assert found["1.png"][0, :2].isnan().all()
    assert found["3.png"] is None
    told = [fact.text for fact in data.facts() if fact.about == "points"]
    assert told == [
        "3 of 4 images have some of 3, 2 all",
        "a mirrored image exchanges left_eye and right_eye, by their names",
    ]


@pytest.mark.parametrize(
    ("points", "pairs", "expected"),
    [
        (["a", "b", "c"], None, [0, 1, 2]),
        (["Left Ear", "Right Ear", "LEFT", "RIGHT"], None, [1, 0, 3, 2]),
        (["wing1", "wing2", "tail"], [["wing1", "wing2"]], [1, 0, 2]),
        (["left", "right"], [], [0, 1]),
    ],
)
def test_which_points_a_mirrored_image_exchanges(points: Any, pairs: Any, expected: list[int]) -> None:
    assert source(Path(), points, point_pairs=pairs).settings.mirrored() == expected


def test_points_are_those_of_the_image_as_it_is_stored(tmp_path: Path) -> None:
    """Resized by its short side, its middle kept, and its box in the file's pixels says where that lies."""
    images(tmp_path, [(20, 30), (40, 20), (10, 10), (60, 90)])
    table(tmp_path, ["0.png,15,10,5,0", "1.png,10,20,20,30", "2.png,5,5,0,10", "3.png,45,30,15,60"])
    data = source(tmp_path, size=10)
    found = targets(data)
    # 20 x 30: half its size, of which the middle 10 of 15 columns; and so on.
    assert found["0.png"][:, :2].tolist() == [[5, 5], [0, 0]]
    assert found["1.png"][:, :2].tolist() == [[5, 5], [10, 10]]
    assert found["2.png"][:, :2].tolist() == [[5, 5], [0, 10]]
    assert found["3.png"][:, :2].tolist() == [[5, 5], [0, 10]]
    for split in ("train", "val"):
        opened: Any = data.open(split)
        for number, name in enumerate(opened.ids):
            (top, bottom), (left, right) = opened.boxes(number).tolist()
            stored = found[name][:, :2]
            back = torch.stack([left + stored[:, 0] * (right - left) / 10, top + stored[:, 1] * (bottom - top) / 10], 1)
            row = next(line for line in (tmp_path / "metadata.csv").read_text().splitlines() if line.startswith(name))
            torch.testing.assert_close(back.flatten(), torch.tensor(list(map(float, row.split(",")[1:]))))
    alone = data.read(tmp_path / "1.png")
    assert alone["box"].tolist() == [[10, 30], [0, 20]]
    assert "target" not in alone


def test_an_image_that_exif_turns_has_its_points_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned: 20 wide and 30 high
    for number in range(2):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{number}.jpg", exif=exif)
    table(tmp_path, ["0.jpg,20,30,1,1", "1.jpg,20,30,1,1"])
    assert targets(source(tmp_path))["0.jpg"][0].tolist() == [20, 30, 0]
    table(tmp_path, ["0.jpg,30,20,1,1", "1.jpg,30,20,1,1"])
    with pytest.raises(DataError, match="x from 0 to 20, y from 0 to 30"):
        targets(source(tmp_path))


@pytest.mark.parametrize("cells", ["3,", ",3", "left,3", "31,4", "3,-1", "3,inf"])
def test_a_point_without_a_place_in_its_image_is_refused(tmp_path: Path, cells: str) -> None:
    images(tmp_path, [(20, 30)] * 2)
    table(tmp_path, [f"0.png,{cells},1,1", f"1.png,{cells},1,1"])
    with pytest.raises(DataError, match=r"'nose' isn't within its image(.|\n)*Leave both cells empty"):
        targets(source(tmp_path))


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    images(tmp_path, [(20, 30)] * 2)
    table(tmp_path, ["0.png,1,1,1,1", "1.png,1,1,1,1"])
    with pytest.raises(DataError, match=r"the keypoint 'nos_x'(.|\n)*Did you mean 'nose_x'"):
        source(tmp_path, ["nos"]).open("train")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"points": ["a", "a"]}, "names one twice"),
        ({"points": ["a", "b"], "point_pairs": [["a", "c"]]}, "once at most, got c"),
        ({"points": ["a", "b", "c"], "point_pairs": [["a", "b"], ["b", "c"]]}, "once at most, got a, b, b, c"),
        ({"points": ["a"], "masks": "m", "mask_classes": ["x", "y"]}, "leave one of them out"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        source(Path(), **settings)


def test_a_repeated_row_that_differs_in_a_point_is_refused(tmp_path: Path) -> None:
    images(tmp_path, [(20, 30)] * 2)
    table(tmp_path, ["0.png,1,1,1,1", "0.png,1,2,1,1", "1.png,1,1,1,1"])
    with pytest.raises(DataError, match="Two rows of one file differ in 'nose_y'"):
        targets(source(tmp_path))


def test_without_points_there_are_no_targets(tmp_path: Path) -> None:
    images(tmp_path, [(20, 30)] * 2)
    data = source(tmp_path, ())
    assert data.target_names() is None
    assert targets(data) == {"0.png": None, "1.png": None}
