"""Labels of pixels by a threshold: Otsu's against its definition, and windows that fit their signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from maskedmodel_microscopy.threshold import otsu, thresholded
from maskedmodel_microscopy.tiff_folder import TiffFolder
from maskedmodel_microscopy.tokenizer import ChannelsTokenizer

from maskedmodel import Noise
from maskedmodel.errors import DataError


@pytest.mark.parametrize("seed", range(5))
def test_otsus_threshold_leaves_least_variance_within_groups(seed: int) -> None:
    """Against scikit-image's, and by trying every step."""
    from skimage.filters import threshold_otsu

    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.normal(1, 0.3, 400), draw.normal(3, 0.5, 60 + 40 * seed)]).astype(np.float32)
    found = otsu(values)

    def within(limit: float) -> float:
        parts = (values[values <= limit], values[values > limit])
        return float(sum(len(part) * part.var() for part in parts if len(part)))

    steps = np.linspace(values.min(), values.max(), 257)[1:-1]
    assert within(found) <= 1.01 * min(within(step) for step in steps)
    width = float(values.max() - values.min()) / 256
    assert found == pytest.approx(float(threshold_otsu(values)), abs=1.01 * width)


def test_pixels_that_are_not_there_have_no_class() -> None:
    channel = torch.tensor([[0.0, 0.0, 1.0, torch.nan]])
    found = thresholded(channel, "otsu")
    assert found is not None
    assert found.tolist() == [[0, 0, 1, -1]]
    assert thresholded(torch.full((2, 2), torch.nan), "otsu") is None
    flat = thresholded(torch.full((2, 2), 3.0), "otsu")
    assert flat is not None
    assert not flat.any()


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    import tifffile

    draw = np.random.default_rng(0)
    for number in range(12):
        dna = draw.integers(0, 40, (30, 28)).astype(np.uint8)
        dna[5 : 12 + number, 6:18] += 150
        actin = 255 - dna
        names = ["DNA", "actin"][: 2 if number else 1]
        pixels = np.stack([dna, actin])[: len(names)]
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        tifffile.imwrite(
            tmp_path / f"{number:02d}.ome.tif", pixels, ome=True, photometric="minisblack", metadata=metadata
        )
    return tmp_path


def test_a_channel_labels_its_field(fields: Path) -> None:
    source = TiffFolder(path=str(fields), mask_channel="DNA", mask_hidden=True)
    assert list(source.target_names() or ()) == ["no DNA", "DNA"]
    dataset = source.open("train")
    plain = TiffFolder(path=str(fields)).open("train")
    for index in range(len(dataset)):
        sample = dataset[index]
        assert bool(sample["signal"][0].isnan().all())
        assert torch.equal(sample["target"] == 1, plain[index]["signal"][0] > 0.4)
    told = [fact.text for fact in source.facts() if fact.about == "masks"]
    assert told == [
        "pixels of DNA above a threshold (Otsu's of each), drawn by nobody; the model doesn't see that channel"
    ]
    absent = TiffFolder(path=str(fields), mask_channel="actin").open("train")
    missing = [absent[i]["id"] for i in range(len(absent)) if "target" not in absent[i]]
    assert missing in ([], ["00.ome.tif"])
    with pytest.raises(DataError, match="No channel is called 'dna'"):
        TiffFolder(path=str(fields), mask_channel="dna").open("train")


def test_a_window_of_classes_is_that_of_the_signal() -> None:
    """Cropped and turned; and beyond a smaller picture there is no class."""
    tokenizer = ChannelsTokenizer(size=16, patch=4, channels=1, standardise="none")
    target = torch.randint(0, 7, (8, 30, 26))
    signal = target[:, None].float()
    signal[0, :, 12:] = torch.nan
    for noise in (None, Noise.of(range(8))):
        seen = tokenizer.prepare(signal) if noise is None else tokenizer.augment(signal, noise)
        moved = tokenizer.move_target(target, signal, noise)
        there = ~seen[:, 0].isnan()
        assert torch.equal(moved[1:], seen[1:, 0].long())
        assert torch.equal(moved[0][there[0]], seen[0, 0][there[0]].long())
