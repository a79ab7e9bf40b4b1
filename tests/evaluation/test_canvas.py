from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskedmodel.errors import DataError
from maskedmodel.evaluation import canvas
from maskedmodel.evaluation.canvas import Panel, Sheet, save_png, token_edges
from maskedmodel.pictures import Scale, Scales


def sheet(height: int, width: int, **values: Any) -> Sheet:
    panels = [Panel(torch.full((3, height, width), level)) for level in (0.0, 0.5)]
    return Sheet("A title", ["A line."], ["one", "two"], [panels, panels], **values)


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image)


def test_small_pictures_are_enlarged_by_whole_pixels() -> None:
    checker = torch.zeros(3, 5, 5)
    checker[:, ::2, ::2] = 1
    tile = pixels(canvas._tile(Panel(checker), 144))
    assert tile.shape == (145, 145, 3)
    assert set(np.unique(tile)) == {0, 255}  # nothing is blurred
    assert (tile[::29, ::29, 0] == (checker[0].numpy() * 255)).all()


def test_large_pictures_are_shrunk() -> None:
    assert canvas._tile(Panel(torch.zeros(3, 1300, 700)), 144).size == (345, 640)


def test_values_outside_the_range_and_nan_are_drawn() -> None:
    tile = pixels(canvas._tile(Panel(torch.tensor([-1.0, 2.0, torch.nan]).expand(3, 1, 3)), 3))
    assert tile[0, :, 0].tolist() == [0, 255, 128]


def test_token_borders_lie_between_tokens() -> None:
    parity = (torch.arange(4)[:, None] // 2 + torch.arange(6)[None] // 3) % 2 == 1
    below, right = token_edges(parity)
    assert below[:, 0].tolist() == [False, True, False]
    assert right[0].tolist() == [False, False, True, False, False]
    tile = pixels(canvas._tile(Panel(torch.ones(3, 4, 6), (below, right)), 12))
    blue = tile[..., 0] == 20
    assert np.flatnonzero(blue.all(1)).tolist() == [3]
    assert np.flatnonzero(blue.all(0)).tolist() == [5]


def test_wide_pictures_are_laid_under_each_other() -> None:
    beside, below = sheet(32, 32).draw(), sheet(8, 64).draw()
    columns = [np.flatnonzero((pixels(image) == 0).all(2).any(0)) for image in (beside, below)]
    levels = [np.flatnonzero((pixels(image) == 128).all(2).any(0)) for image in (beside, below)]
    assert levels[0].min() > columns[0].min()
    assert levels[1].min() == columns[1].min()


@pytest.mark.parametrize("shape", [(8, 64), (400, 32), (32, 32)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("count", [1, 2, 8, 30])
def test_no_sheet_is_much_taller_than_wide(shape: tuple[int, int], count: int) -> None:
    """Each sample is there once, under its own caption, whatever lies beside it."""
    levels = [40 + 5 * number for number in range(count)]
    rows = [[Panel(torch.full((3, *shape), level / 255)) for _ in range(4)] for level in levels]
    image = Sheet("title", ["a line"], ["one", "two", "three", "four"], rows, [str(n) for n in range(count)]).draw()
    assert image.height <= 3.5 * image.width
    drawn = pixels(image)
    height, width = canvas._tile(rows[0][0], canvas.WIDE if shape == (8, 64) else canvas.SMALLEST).size[::-1]
    for level in levels:
        assert (drawn == level).all(2).sum() >= 4 * height * width


def test_long_and_foreign_text_fits_on_the_sheet() -> None:
    plain = sheet(16, 16, captions=["a", "b"]).draw()
    wild = sheet(16, 16, captions=["x/" * 5000 + "end.png", "\u8d85\u957f \u00e9\n\t\u0416 \U0001f600"])
    wild.title = "t" * 3000
    assert wild.draw().size == plain.size
    cut = canvas._cut("start/" + "x" * 3000 + "/end.png", 12, 200)
    assert cut.startswith("start/")
    assert cut.endswith("end.png")
    assert canvas._font(12).getlength(cut) <= 200


def test_facts_are_kept_in_the_file(tmp_path: Path) -> None:
    image = sheet(8, 8, facts={"mode": "oracle - \u00fc", "step": "12"}).draw()
    with Image.open(save_png(image, tmp_path / "a.png")) as read:
        read.load()
        assert (read.info["mode"], read.info["step"]) == ("oracle - \u00fc", "12")
        assert np.array_equal(pixels(read), pixels(image))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        save_png(sheet(8, 8).draw(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_scales_stand_beside_and_below_the_panels() -> None:
    plain = sheet(8, 8)
    scales = Scales(Scale("time (s)", ((0.0, "0"), (1.0, "1.5"))), Scale("frequency (Hz)", ((0.0, "8000"), (1.0, "0"))))
    labelled = replace(plain, scales=scales)
    left, below = canvas._room(scales)
    assert left > 30
    assert below > 20
    before, after = plain.draw(), labelled.draw()
    assert after.height == before.height + below * len(plain.rows)
    # The panels are the same, further right and lower; in the room that was made there is ink.
    margin = pixels(after)[:, canvas._MARGIN : canvas._MARGIN + left]
    assert (margin[-below - 100 :] < 200).any()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be written"):
        save_png(sheet(8, 8).draw(), tmp_path / "none" / "a.png")
