"""Heartbeats as a dipole over time, made by formula: six kinds, each with its rhythm and its shape of a beat."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A wave of a beat: seconds after the R peak, width in seconds, and the dipole at its peak, to the right, to the front
# and up, in millivolts on a lead of unit length. Of the usual sizes and directions: P and T along the heart's axis, to
# the left and down; the septum first, then the ventricles, then their base.
_P = (-0.17, 0.022, (-0.08, 0.03, -0.13))
_QRS = ((-0.035, 0.010, (0.12, 0.16, 0.03)), (0.0, 0.012, (-0.85, 0.1, -0.9)), (0.032, 0.012, (0.2, -0.45, 0.2)))
_T = (0.27, 0.055, (-0.22, 0.14, -0.2))
_ST = (0.12, 0.045, (-0.08, 0.22, -0.16))  # what lifts the line between them where the wall in front is hurt
_TURN = 0.6  # radians by which hearts lie differently, at most

KINDS = ("regular", "irregular without P", "wide QRS", "raised ST", "inverted T", "early beats")
_IRREGULAR, _WIDE, _RAISED, _INVERTED, _EARLY = range(1, 6)


def heart(draw: Generator, kind: int, time: Array) -> Array:
    """(3, T) in millivolts, at `time` (T,) in seconds, of kind number `kind`: a heart that lies as none does before."""
    from scipy.spatial.transform import Rotation  # type: ignore[import-untyped]

    axis = draw.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * draw.uniform(0, _TURN)).as_matrix()
    return np.asarray(turn @ _dipole(draw, kind, time) * draw.lognormal(0, 0.25))


def _beats(draw: Generator, kind: int, seconds: float) -> list[tuple[float, bool]]:
    """When each beat is, in seconds, and whether it comes early, out of a ventricle; after that one it pauses."""
    mean, now, found = draw.uniform(0.6, 1.1), draw.uniform(-1, 0), list[float]()
    spread = 0.2 if kind == _IRREGULAR else 0.025
    while now < seconds + 1:
        found.append(now)
        now += mean * max(0.45, 1 + spread * draw.normal())
    early = draw.uniform(size=len(found)) < (0.25 if kind == _EARLY else 0)
    early[1:] &= ~early[:-1]
    if kind == _EARLY:  # one at least that is seen, and never two in a row
        one = min(int(draw.integers(2, max(int(seconds), 3))), len(found) - 1)
        early[one - 1 : one + 2], early[one] = False, True
    return [(at - 0.35 * mean if first else at, bool(first)) for at, first in zip(found, early, strict=True)]


def _dipole(draw: Generator, kind: int, time: Array) -> Array:
    """(3, T) in millivolts: the sum of the waves of all beats, each a bell in time along its own direction."""
    total = np.zeros((3, len(time)))
    for peak, early in _beats(draw, kind, float(time[-1])):
        wide = 2.4 if early or kind == _WIDE else 1.0
        flipped = -1.0 if early or kind in (_INVERTED, _WIDE) else 1.0
        waves = [(at * wide, width * wide, np.array(way)) for at, width, way in _QRS]
        if early:
            waves = [(at, width, 1.3 * way[[1, 0, 2]]) for at, width, way in waves]
        waves.append((_T[0] + 0.04 * (wide - 1), _T[1], flipped * np.array(_T[2])))
        if kind != _IRREGULAR and not early:
            waves.append((_P[0] - 0.02 * (wide - 1), _P[1], np.array(_P[2])))
        if kind == _RAISED:
            waves.append((_ST[0], _ST[1], np.array(_ST[2])))
        for at, width, way in waves:
            size = 1 + 0.05 * draw.normal()
            total += size * way[:, None] * np.exp(-(((time - peak - at) / width) ** 2) / 2)
    return total
