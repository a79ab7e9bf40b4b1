"""Where leads are: electrodes of the 10-10 system on a sphere, and the vectors of the 12 ECG leads.

All are three numbers in one frame: x to the right, y to the front, z up.
"""

from __future__ import annotations

from functools import cache
from math import cos, pi, sin

import numpy as np

Place = tuple[float, float, float]
# What a potential difference is of a dipole in the heart: its components to the left, to the feet and to the back
# (Dower, Machado, Osborne 1980, On deriving the electrocardiogram from vectorcardiographic leads). The limb leads that
# aren't here follow from I and II by Einthoven's and Goldberger's equations.
_DOWER = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}
_LIMBS = {"III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}  # shares of I and II
# Rows of the 10-10 system from front to back: each a tenth of the way round the head, 18 degrees, behind the last.
_ROWS = ("Fp", "AF", "F", "FC", "C", "CP", "P", "PO", "O")
_AT_THE_SIDE = {"FC": "FT", "C": "T", "CP": "TP"}  # what a row is called from its seventh electrode on
OLD = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}  # names of the first 10-20 system
_TENTH = pi / 10


@cache
def lead_places() -> dict[str, Place]:
    """Where every lead that has a name is."""
    found: dict[str, Place] = {}
    vectors = {name: np.array(vector) for name, vector in _DOWER.items()}
    vectors |= {name: a * vectors["I"] + b * vectors["II"] for name, (a, b) in _LIMBS.items()}
    for name, (left, feet, back) in vectors.items():
        found[name] = (-float(left), -float(back), -float(feet))
    for number, row in enumerate(_ROWS):
        found[f"{row}z"] = _on_midline(4 - number)
        outer = _AT_THE_SIDE.get(row, row)
        for side, odd in ((-1, 1), (1, 0)):
            if row in ("Fp", "O"):
                found[f"{row}{2 - odd}"] = _on_ring(number + 1, side)
                continue
            for step in range(1, 5):  # quarters of the arc from the midline to the ring
                found[f"{outer if step == 4 else row}{2 * step - odd}"] = _along_row(number, side, step / 4)
            found[f"{outer}{10 - odd}"] = _on_ring(number + 1, side, 5)
    return found | {"Nz": _on_midline(5), "Iz": _on_midline(-5)}


def _on_midline(tenths: float) -> Place:
    """A point of the arc from the nasion over the vertex to the inion, in tenths of it to the front of the vertex."""
    return 0.0, sin(tenths * _TENTH), cos(tenths * _TENTH)


def _on_ring(tenths: float, side: int, down: int = 4) -> Place:
    """A point of a level ring, in tenths of half of it from the front; `down` from the vertex: 4 is the 10-20 ring."""
    around = sin(down * _TENTH)
    return side * around * sin(tenths * _TENTH), around * cos(tenths * _TENTH), cos(down * _TENTH)


def _along_row(number: int, side: int, share: float) -> Place:
    """A share of the way from the midline to the ring, along the circle through both ends of a row and its middle."""
    middle, left, right = (np.array(p) for p in (_on_midline(4 - number), *(_on_ring(number + 1, s) for s in (-1, 1))))
    normal = np.cross(left - middle, right - middle)
    normal /= np.linalg.norm(normal)
    centre = normal * (normal @ middle)  # of the circle that the plane cuts out of the sphere
    one, end = middle - centre, (left if side < 0 else right) - centre
    whole = np.arccos(np.clip(one @ end / (one @ one), -1, 1))
    other = end - one * (one @ end) / (one @ one)
    other *= np.linalg.norm(one) / np.linalg.norm(other)
    x, y, z = (float(v) for v in centre + one * cos(share * whole) + other * sin(share * whole))
    return x, y, z
