"""The `digits` source: 1,797 handwritten digits that come with scikit-learn, so nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from maskedmodel import DataSource, Sample, Settings
from maskedmodel.sources import SampleDataset, SignalDataset, Split, stratified
from maskedmodel_image.cache import Stored
from maskedmodel_image.dataset import read_file
from maskedmodel_image.decode import ImageFileSettings

_VAL_SHARE = 0.2


class DigitsSettings(Settings):
    """Settings of the `digits` source."""

    name: Literal["digits"] = "digits"
    size: int = Field(16, ge=8, le=256, description="Height and width in pixels, enlarged from 8 by interpolation.")


class Digits(DataSource[DigitsSettings]):
    """Handwritten digits (Alpaydin and Kaynak 1998), grey, as scikit-learn ships them: 8x8 pixels of 17 levels.

    Samples are (1, size, size) float32 in [0, 1], enlarged bilinearly. 20 % of each class, always the same ones, are
    for validation.
    """

    def open(self, split: Split) -> SampleDataset:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        data = load_digits()
        pictures = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
        labels = [int(label) for label in data.target]
        ids = [f"digits-{index:04d}" for index in range(len(labels))]
        chosen = stratified(labels, ids, _VAL_SHARE, split)
        signals = pictures[chosen]
        if self.settings.size != 8:
            signals = F.interpolate(signals, (self.settings.size,) * 2, mode="bilinear", align_corners=False)
        return SignalDataset(Stored(signals, {}), [ids[i] for i in chosen], [labels[i] for i in chosen])

    def read(self, path: Path) -> Sample:
        size = self.settings.size
        return read_file(path, ImageFileSettings(name="file", size=size, mode="grey", dtype="float32"))

    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]
