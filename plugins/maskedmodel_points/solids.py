"""Points on the surfaces of solids, even by area."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray[tuple[int, int], np.dtype[np.float64]]
KINDS = ("ball", "box", "cylinder", "cone", "torus", "capsule", "pyramid", "prism")


def surface(kind: str, count: int, draw: np.random.Generator) -> Array:
    """(count, 3): a solid of this kind about the third axis, its proportions drawn."""
    tall = math.exp(draw.uniform(math.log(0.6), math.log(2.5)))  # height over radius or half a side
    if kind == "ball":
        return _ball(count, draw)
    if kind == "cylinder":
        return _joined(count, draw, [(2 * math.pi * tall, _side), (math.pi, _disc), (math.pi, _lid)], tall)
    if kind == "cone":
        return _joined(count, draw, [(math.pi * math.hypot(1, tall), _slope), (math.pi, _disc)], tall)
    if kind == "capsule":
        return _joined(count, draw, [(2 * math.pi * tall, _side), (4 * math.pi, _ends)], tall)
    if kind == "torus":
        return _torus(count, draw.uniform(0.2, 0.45), draw)
    wide = draw.uniform(0.6, 1.0)
    if kind == "box":
        corners = np.array([(x, y * wide, z * tall) for x in (-1, 1) for y in (-1, 1) for z in (-0.5, 0.5)])
        return _on_faces(corners, ("0132", "4576", "0154", "2376", "0264", "1375"), count, draw)
    if kind == "pyramid":
        corners = np.array([(-1, -wide, 0), (1, -wide, 0), (1, wide, 0), (-1, wide, 0), (0, 0, tall)])
        return _on_faces(corners, ("0123", "014", "124", "234", "304"), count, draw)
    turns = 2 * math.pi * np.arange(3) / 3  # a prism over a triangle
    rim = np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], 1)
    return _on_faces(
        np.concatenate([rim, rim + np.array([0, 0, tall])]), ("012", "345", "0143", "1254", "2035"), count, draw
    )


def _on_faces(corners: Array, faces: Sequence[str], count: int, draw: np.random.Generator) -> Array:
    """Points on convex faces, each given by the numbers of its corners in turn, cut into triangles at the first."""
    fans = [(int(f[0]), int(f[i]), int(f[i + 1])) for f in faces for i in range(1, len(f) - 1)]
    start, one, other = corners[np.array(fans)].astype(np.float64).transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(one - start, other - start), axis=1)
    face = draw.choice(len(fans), count, p=area / area.sum())
    share, rest = draw.uniform(size=(2, count, 1))
    share, rest = np.where(share + rest > 1, 1 - share, share), np.where(share + rest > 1, 1 - rest, rest)
    points: Array = start[face] + share * (one - start)[face] + rest * (other - start)[face]
    return points


def _ball(count: int, draw: np.random.Generator) -> Array:
    points = draw.standard_normal((count, 3))
    unit: Array = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def _joined(count: int, draw: np.random.Generator, parts: Sequence[tuple[float, object]], tall: float) -> Array:
    """Points on parts of a surface, each with its area."""
    areas = np.array([area for area, _ in parts])
    which = draw.choice(len(parts), count, p=areas / areas.sum())
    points = np.empty((count, 3))
    for number, (_, part) in enumerate(parts):
        assert callable(part)
        points[which == number] = part(int((which == number).sum()), tall, draw)
    return points


def _round(radius: np.ndarray[tuple[int], np.dtype[np.float64]], height: object, draw: np.random.Generator) -> Array:
    turn = draw.uniform(0, 2 * math.pi, len(radius))
    up = np.broadcast_to(np.asarray(height, float), radius.shape)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), up], 1)


def _side(count: int, tall: float, draw: np.random.Generator) -> Array:
    return _round(np.ones(count), draw.uniform(0, tall, count), draw)


def _disc(count: int, tall: float, draw: np.random.Generator) -> Array:
    return _round(np.sqrt(draw.uniform(size=count)), 0.0, draw)


def _lid(count: int, tall: float, draw: np.random.Generator) -> Array:
    return _round(np.sqrt(draw.uniform(size=count)), tall, draw)


def _slope(count: int, tall: float, draw: np.random.Generator) -> Array:
    radius = np.sqrt(draw.uniform(size=count))
    return _round(radius, tall * (1 - radius), draw)


def _ends(count: int, tall: float, draw: np.random.Generator) -> Array:
    points = _ball(count, draw)
    points[:, 2] += np.where(points[:, 2] > 0, tall, 0)
    return points


def _torus(count: int, tube: float, draw: np.random.Generator) -> Array:
    """A tube about a circle of radius 1: an angle of the tube counts as much as its circle is long."""
    angle = np.empty(0)
    while len(angle) < count:
        tried = draw.uniform(0, 2 * math.pi, 2 * count)
        angle = np.append(angle, tried[draw.uniform(0, 1 + tube, 2 * count) < 1 + tube * np.cos(tried)])
    angle = angle[:count]
    return _round(1 + tube * np.cos(angle), tube * np.sin(angle), draw)
