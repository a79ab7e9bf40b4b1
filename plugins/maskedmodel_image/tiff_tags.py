"""What the tags of a TIFF say of its values, which Pillow's name for them doesn't tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskedmodel.errors import DataError

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _INKS, _EXTRA, _FORMAT = 258, 259, 262, 277, 284, 332, 338, 339
_ORIENTATION = 274
_SUPPORTED = "8-bit grey, palette, RGB, CMYK or JPEG's YCbCr; unsigned 12- or 16-bit grey; 32-bit float grey"
_CONVERT = "Convert it to 8 bits, or its channels to 16-bit grey files or an npy array (data source 'array')."
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # samples of a pixel, without extra ones
_KINDS = {4: "a mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a colour filter array", 34892: "raw"}
_JPEG = (6, 7)
_SIGNS = {2: "signed integers", 5: "complex integers", 6: "complex numbers"}


@dataclass(frozen=True)
class TiffValues:
    """How the values of a TIFF are to be taken.

    white          integer that is 1; None where Pillow gives 8 bits, or values are floating point.
    inverted       whether 0 is white and Pillow doesn't turn it.
    turned         whether height and width change places when it is put upright.
    left_out       samples of a pixel that the file says nothing of.
    """

    white: int | None = None
    inverted: bool = False
    turned: bool = False
    left_out: int = 0


def read_tags(image: TiffImageFile, name: str) -> TiffValues:
    """Raises DataError where the values would be clipped, wrapped or taken for something else."""

    def tag(number: int, default: Any) -> Any:
        value = image.tag_v2.get(number, default)
        return (value,) if isinstance(default, tuple) and not isinstance(value, tuple) else value

    bits, photometric, samples = tag(_BITS, (1,)), tag(_PHOTOMETRIC, 1), tag(_SAMPLES, 1)
    formats, extra, planar = tag(_FORMAT, (1,)), tag(_EXTRA, ()), tag(_PLANAR, 1)

    def refused(got: str, fix: str = _CONVERT) -> DataError:
        what = "The TIFF's values can't be read as an image's."
        return DataError(what, where=name, expected=_SUPPORTED, got=got, fix=fix)

    if photometric not in _COLOURS:
        raise refused(_KINDS.get(photometric, f"photometric interpretation {photometric}"))
    if len(set(bits)) > 1 or len(set(formats)) > 1:
        raise refused(f"samples of {', '.join(str(bit) for bit in bits)} bits")
    if formats[0] in _SIGNS:
        raise refused(_SIGNS[formats[0]], "Save it with unsigned integers or as floating point.")
    if bits[0] > 8 and samples > 1:
        raise refused(f"{samples} samples of {bits[0]} bits a pixel")
    if photometric == 6 and tag(_COMPRESSION, 1) not in _JPEG:
        raise refused("YCbCr that isn't compressed as JPEG", "Save it as RGB.")
    if photometric == 5 and tag(_INKS, 1) != 1:
        raise refused("inks that aren't CMYK", "Save it as RGB.")
    floating = formats[0] == 3
    if bits[0] > 16 and not floating:
        raise refused(f"{bits[0]}-bit integers")
    if floating and photometric == 0:
        raise refused("floating point in which 0 is white, without a black", "Save it with 0 as black.")
    if planar == 2 and photometric <= 1 and samples > 1:  # Pillow mixes the planes up
        raise refused("grey with another sample, plane by plane", "Save it interleaved, or the grey alone.")
    if planar == 2 and 1 in extra and image.tile[0].codec_name == "raw":  # Pillow has no such order
        raise refused("colours multiplied by their alpha, plane by plane", "Save it interleaved.")
    known = sum(kind in (1, 2) for kind in extra)
    return TiffValues(
        white=None if bits[0] <= 8 or floating else 2 ** bits[0] - 1,
        inverted=photometric == 0 and bits[0] > 8,
        turned=tag(_ORIENTATION, 1) >= 5,
        left_out=max(samples - _COLOURS[photometric] - known, 0),
    )


def mend_order(image: Any) -> None:
    """Bytes of decompressed floats in the machine's order, as libtiff gives them: Pillow takes them in the file's."""
    image.tile = [
        tile._replace(args=("F;32NF", *tile.args[1:])) if tile.codec_name == "libtiff" and image.mode == "F" else tile
        for tile in image.tile
    ]


def in_share(values: np.ndarray[Any, Any], white: int, inverted: bool) -> np.ndarray[Any, Any]:
    """Integers as float32 shares of white."""
    share = values.astype(np.float32) / np.float32(white)
    return 1 - share if inverted else share
