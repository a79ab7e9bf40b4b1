"""One image of a TIFF as channels: which of its axes are what, which planes are taken, what white is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from maskedmodel import Settings
from maskedmodel.errors import DataError
from maskedmodel_microscopy.ome import OmeImage

Plane = NonNegativeInt | Literal["max", "middle"]
Array = np.ndarray[Any, Any]

_MEANINGS = "T time, Z depth, C channel, Y height, X width, S samples of a colour"


class TiffSettings(Settings):
    """How a TIFF is read as channels of one plane."""

    z: Plane = Field(
        "max", description="Which plane of a z stack: its number from 0, the middle one, or max, their maximum."
    )
    time: Plane = Field(0, description="Which point in time: its number from 0, the middle one, or max, their maximum.")
    series: NonNegativeInt = Field(0, description="Which image of a file that holds several, from 0.")
    axes: str | None = Field(
        None,
        description=f"What the axes of every file are, such as ZCYX, over what it says itself: {_MEANINGS}. null: as "
        "the file says; pages without a meaning are channels.",
    )
    full_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Stored integer that becomes 1, such as 4095 for a 12-bit camera. null: 255 for 8 bits; for 16 "
        "bits what OME-XML says of significant bits, else 65535. Floating point stays as it is.",
    )
    nan: Literal["refuse", "absent"] = Field(
        "refuse", description="A file with NaN in it. refuse: a broken sample. absent: those pixels aren't there."
    )
    max_bytes: PositiveInt = Field(
        1 << 30, description="Most bytes that the planes taken from one file may have, as its header declares them."
    )

    @model_validator(mode="after")
    def _axes_make_sense(self) -> TiffSettings:
        axes = self.axes
        if axes is not None and (len(set(axes)) < len(axes) or set(axes) - set("TZCYXS") or not set("YX") <= set(axes)):
            raise ValueError(f"axes names each axis once, Y and X among them ({_MEANINGS}), got {axes!r}")
        return self


@dataclass(frozen=True)
class Header:
    """What a file is, found without reading its pixels: names of its channels, height and width."""

    names: tuple[str, ...]
    height: int
    width: int


class TiffImage:
    """One image of a file: `series` as tifffile gives it, and what metadata says of it."""

    def __init__(
        self, series: Any, told: OmeImage | None, labels: list[str], where: str, settings: TiffSettings
    ) -> None:
        self.series, self.told, self.labels, self.where, self.settings = series, told, labels, where, settings
        self.shape: tuple[int, ...] = tuple(series.shape)
        page = series.keyframe
        photometric, compression = page.photometric.name, page.compression.name
        # YCbCr is decoded to RGB where it is compressed as JPEG, and nowhere else.
        jpeg = photometric == "YCBCR" and "JPEG" in compression
        if photometric not in ("MINISBLACK", "RGB") and not jpeg:
            raise self._refused(
                "Its values aren't intensities that grow with light.", "grey or RGB", f"photometric {photometric}"
            )
        turned = page.tags.get("Orientation")
        if turned is not None and turned.value != 1:
            raise self._refused(
                "It is to be shown turned, and whoever reads its planes doesn't turn them.",
                "orientation 1",
                f"orientation {turned.value}",
                "Save it upright.",
            )
        if int(page.bitspersample) < 8 and page.samplesperpixel > 1:  # tifffile unpacks them in another order
            raise self._refused(
                "Its samples are bits side by side.", "8 bits or more", f"{page.samplesperpixel} samples of a bit"
            )
        self.colour = photometric in ("RGB", "YCBCR")
        self.bits = int(page.bitspersample)
        self._alpha = 1 if any(extra.name.endswith("ALPHA") for extra in page.extrasamples) else 0
        self.axes = self._axes()

    def _refused(self, what: str, expected: str, got: object, fix: str | None = None) -> DataError:
        return DataError(
            f"The file can't be read as channels. {what}", where=self.where, expected=expected, got=got, fix=fix
        )

    def _axes(self) -> str:
        """One letter per axis. Those that don't matter, of extent 1, are called by letters of no meaning."""
        said = str(self.series.axes)
        got, fix = f"{said} {self.shape}", "Say what the axes are, such as data.axes=ZCYX."
        if self.settings.axes is not None:
            if len(self.settings.axes) != len(self.shape):
                raise self._refused("It has another number of axes.", self.settings.axes, got, "Set data.axes.")
            return self.settings.axes
        unknown = [letter for letter, extent in zip(said, self.shape, strict=True) if letter in "QI" and extent > 1]
        if len(unknown) == 1 and "C" not in said and "S" not in said:
            said = said.replace(unknown[0], "C")
        long = [letter for letter, extent in zip(said, self.shape, strict=True) if extent > 1 or letter in "YX"]
        if set(long) - set("TZCYXS") or len(set(long)) < len(long) or not set("YX") <= set(said):
            raise self._refused("Its axes are none this knows.", _MEANINGS, got, fix)
        if "C" in long and "S" in long:
            raise self._refused(
                "It has both channels and colours.", "C or S, not both", got, "Split the colours first."
            )
        return said

    def _extent(self, letter: str) -> int:
        return self.shape[self.axes.index(letter)] if letter in self.axes else 1

    def header(self) -> Header:
        height, width = self._extent("Y"), self._extent("X")
        return Header(_distinct(self._names()), height, width)

    def _names(self) -> list[str]:
        count = self._extent("C") * self._extent("S")
        kept = count - self._transparency
        if self.told is not None and len(self.told.names) == count and any(self.told.names):
            return [name or f"channel {place}" for place, name in enumerate(self.told.names)][:kept]
        if self.colour and self._extent("S") >= 3:
            return ["red", "green", "blue", *(f"sample {place}" for place in range(3, kept))]
        if len(self.labels) == count > 1:
            return self.labels
        return [f"channel {place}" for place in range(kept)]

    @property
    def _transparency(self) -> int:
        """Samples at the end of a pixel that are its transparency by the file's tags, which is no stain."""
        return self._alpha if self._extent("S") > 1 else 0

    def pixels(self) -> Array:
        """(C, H, W) float32."""
        chosen_planes = {letter: self._taken(letter) for letter in "TZ"}
        taken = {letter: chosen for letter, chosen in chosen_planes.items() if letter in self.axes}
        planes = math.prod(
            len(taken.get(letter, range(n)))
            for letter, n in zip(self.axes, self.shape, strict=True)
            if letter not in "YX"
        )
        size = planes * self._extent("Y") * self._extent("X") * np.dtype(self.series.dtype).itemsize
        if size > self.settings.max_bytes:
            raise self._refused(
                "It declares too many pixels and was not decoded.",
                f"at most data.max_bytes = {self.settings.max_bytes}",
                f"{planes} planes of {self._extent('Y')} x {self._extent('X')}, {size} bytes",
                "Take fewer planes by data.z and data.time, or raise data.max_bytes.",
            )
        array, axes = self._read(taken), list(self.axes)
        for letter, chosen in taken.items():
            place = axes.index(letter)
            array = array.max(place) if len(chosen) > 1 else array.squeeze(place)
            axes.remove(letter)
        for letter in [letter for letter in axes if letter not in "CSYX"]:
            array = array.squeeze(axes.index(letter))
            axes.remove(letter)
        array = array.transpose(sorted(range(len(axes)), key=lambda place: "CSYX".index(axes[place])))
        array = array.reshape(-1, *array.shape[-2:])
        return self._in_units(array[: len(array) - self._transparency])

    def _taken(self, letter: str) -> Sequence[int]:
        choice, count = self.settings.z if letter == "Z" else self.settings.time, self._extent(letter)
        if choice == "max":
            return range(count)
        number = count // 2 if choice == "middle" else choice
        if number >= count:
            setting = "z" if letter == "Z" else "time"
            raise self._refused(f"It has no such plane in {letter}.", f"data.{setting} below {count}", number)
        return [number]

    def _read(self, taken: dict[str, Sequence[int]]) -> Array:
        """All axes, of time and depth the chosen planes alone: others aren't decoded where pages hold single planes."""
        pages, page_shape = self.series.pages, tuple(self.series.keyframe.shape)
        lead = len(self.shape) - len(page_shape)
        choices = [taken.get(letter, range(n)) for letter, n in zip(self.axes, self.shape, strict=True)]
        if lead < 1 or self.shape[lead:] != page_shape or math.prod(self.shape[:lead]) != len(pages):
            array: Array = self.series.asarray()
            for place, chosen in enumerate(choices):
                array = array.take(list(chosen), place)
            return array
        planes = []
        for numbers in itertools.product(*choices[:lead]):
            page = pages[int(np.ravel_multi_index(numbers, self.shape[:lead]))]
            if page is None:
                raise self._refused("A plane is missing.", "every plane that the metadata names", numbers)
            planes.append(page.asarray())
        array = np.stack(planes).reshape(*(len(chosen) for chosen in choices[:lead]), *page_shape)
        for place in range(lead, len(self.shape)):
            array = array.take(list(choices[place]), place)
        return array

    def _in_units(self, array: Array) -> Array:
        """float32: integers divided by their white, floating point as it is."""
        kind = array.dtype
        if kind.kind == "f":
            # What float32 can't hold becomes infinite, which is refused.
            with np.errstate(over="ignore"):
                return array.astype(np.float32)
        if kind.kind == "b":
            return array.astype(np.float32)
        white = self.settings.full_scale
        if white is None and kind.kind == "u" and kind.itemsize <= 2:
            bits = self.told.bits if self.told is not None and kind.itemsize == 2 else None
            most = min(8 * kind.itemsize, self.bits)  # packed integers have fewer bits than what they are unpacked to
            white = float(2 ** (bits if bits and bits <= most else most) - 1)
        if white is None or kind.kind not in "iu":
            raise self._refused(
                "Nothing says which value is white.",
                "uint8, uint16 or floating point",
                kind,
                "Set data.full_scale to the value that is to become 1." if kind.kind in "iu" else None,
            )
        return array.astype(np.float32) / np.float32(white)


def _distinct(names: list[str]) -> tuple[str, ...]:
    """The names, a repeated one with its count: DNA, DNA (2)."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
