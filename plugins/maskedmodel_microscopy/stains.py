"""The `stains` source: crops of a stained tissue section that comes with scikit-image, so nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from maskedmodel import DataSource, Noise, Settings
from maskedmodel.errors import DependencyError, install_hint
from maskedmodel.sources import SampleDataset, SignalDataset, Split

# The picture's 512x512 pixels are 4x4 fields, and no crop leaves its field. Those for validation, by row and column:
# one in every row and column, with and without glands.
_FIELD, _FIELDS, _VALIDATION = 128, 4, ((0, 3), (1, 1), (2, 2), (3, 0))

# Optical density of red, green and blue that a stain takes away (Ruifrok and Johnston 2001).
_HAEMATOXYLIN, _DAB = (0.65, 0.70, 0.29), (0.27, 0.57, 0.78)


class StainsSettings(Settings):
    """Settings of the `stains` source."""

    name: Literal["stains"] = "stains"
    size: int = Field(64, ge=8, le=_FIELD, description="Height and width of a crop, in pixels.")
    train_samples: PositiveInt = Field(2000, description="Number of crops for training, at fixed random places.")
    val_samples: PositiveInt = Field(400, description="Number of crops for validation, at fixed random places.")


class _Crops:
    """Crop number `index` of the stains (3, height, width), at `corners` (N, 2)."""

    def __init__(self, stains: Tensor, corners: Tensor, size: int) -> None:
        self.stains, self.corners, self.size = stains, corners, size

    def __call__(self, index: int) -> Tensor:
        top, left = self.corners[index].tolist()
        return self.stains[:, top : top + self.size, left : left + self.size].clone()

    def brown(self) -> Tensor:
        """(N,): the mean amount of DAB in each crop."""
        return torch.stack([self(index)[1].mean() for index in range(len(self.corners))])


class Stains(DataSource[StainsSettings]):
    """Immunohistochemistry of colonic glands, as three channels: haematoxylin, diaminobenzidine (DAB), the rest.

    A photograph of 512x512 pixels in scikit-image, nuclei blue from haematoxylin and the protein FHL2 brown from DAB,
    separated by colour deconvolution (Ruifrok and Johnston 2001). The third channel is the colour that neither stain
    explains: no eosin was used on this section. Samples are (3, size, size) float32 in optical density.

    Crops lie at random places, always the same ones, each within one of 16 fields, which is its group. Four fields are
    for validation. The label says whether a crop holds more DAB, in the mean, than the median of the training crops
    does. A mean intensity tells it exactly, by construction: an encoder whose input is standardised per crop has to
    find it by the texture.
    """

    def open(self, split: Split) -> SampleDataset:
        train, own = (_Crops(_separated(), self._corners(which), self.settings.size) for which in ("train", split))
        median = train.brown().median()
        labels = [int(brown > median) for brown in own.brown()]
        row, column = (own.corners // _FIELD).unbind(1)
        groups = [f"field {place}" for place in (row * _FIELDS + column).tolist()]
        return SignalDataset(own, self._ids(split), labels, groups)

    def class_names(self) -> list[str]:
        return ["less DAB", "more DAB"]

    def channel_names(self) -> list[str]:
        return ["haematoxylin", "DAB", "rest"]

    def _ids(self, split: Split) -> list[str]:
        count = self.settings.train_samples if split == "train" else self.settings.val_samples
        return [f"stains-{split}-{index:05d}" for index in range(count)]

    def _corners(self, split: Split) -> Tensor:
        """(N, 2): top and left of each crop, keyed by its id."""
        cells = [divmod(place, _FIELDS) for place in range(_FIELDS**2)]
        fields = torch.tensor([cell for cell in cells if (cell in _VALIDATION) == (split == "val")])
        room = _FIELD - self.settings.size
        draw = Noise.of(self._ids(split)).uniform(3, purpose="stains")
        # float32 may round u * n up to n, hence the bounds.
        field = fields[(draw[:, 0] * len(fields)).long().clamp(max=len(fields) - 1)]
        return field * _FIELD + (draw[:, 1:] * (room + 1)).long().clamp(max=room)


@lru_cache(maxsize=1)
def _separated() -> Tensor:
    """(3, 512, 512) float32 in optical density. Raises DependencyError without scikit-image."""
    try:
        from skimage.data import immunohistochemistry
    except ImportError as error:
        raise DependencyError(
            "Data source 'stains' needs scikit-image.", got=error, fix=install_hint(extra="microscopy")
        ) from error
    colours: Tensor = torch.from_numpy(immunohistochemistry()).double()  # type: ignore[no-untyped-call]
    density = -((colours + 1) / 256).log10()  # + 1, as nothing lets through no light at all
    stains = torch.tensor([_HAEMATOXYLIN, _DAB], dtype=torch.float64)
    stains = torch.cat([stains, torch.linalg.cross(stains[:1], stains[1:])])
    amounts: Tensor = density @ torch.linalg.inv(stains / stains.norm(dim=1, keepdim=True))
    return amounts.permute(2, 0, 1).float().contiguous()
