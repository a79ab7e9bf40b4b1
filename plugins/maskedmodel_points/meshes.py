"""Surfaces as clouds: points drawn over triangles by area, with trimesh."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel.sources import parsing

Array = np.ndarray[Any, np.dtype[Any]]


def load_trimesh() -> Any:
    """The library. Raises DependencyError without it."""
    try:
        import trimesh
    except ImportError as error:
        raise DependencyError(
            "Surfaces (.obj, .off, .stl, .ply with faces) need trimesh.",
            fix=f"{install_hint(extra='points')} Or take their corners with data.surface=vertices.",
        ) from error
    return trimesh


def read_surface(stream: BinaryIO, name: str, count: int | None, seed: int) -> Array:
    """`count` points (N, 3) even over the surface by area, drawn from `seed`; None: its corners, each once.

    Raises DataError where there is no surface, or none with an area; DependencyError without trimesh.
    """
    trimesh, kind = load_trimesh(), PurePosixPath(name.lower()).suffix[1:]
    # No resolver: materials and textures, which lie in other files, aren't looked for. ImportError: for text in an
    # unknown encoding trimesh asks a library for help; in .obj and .off only names and remarks can be such.
    with parsing("The surface can't be read.", name, also=(ImportError,)):
        content = stream.read()
        if kind in ("obj", "off"):
            content = content.decode("utf-8", "replace").encode()
        mesh = trimesh.load(io.BytesIO(content), file_type=kind, force="mesh", process=False, skip_materials=True)
        corners, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
        area = float(mesh.area) if len(faces) and np.isfinite(corners).all() else 0.0
    if not len(faces) or not np.isfinite(area) or area <= 0:
        got = f"{len(corners)} corners, {len(faces)} faces, {int((~np.isfinite(corners)).sum())} numbers not finite"
        raise DataError("The file holds no surface.", where=name, expected="faces with an area", got=got)
    if count is None:
        return np.unique(corners[np.unique(faces)], axis=0)
    with parsing("The surface can't be sampled.", name):
        points: Array = trimesh.sample.sample_surface(mesh, count, seed=seed)[0]
    return np.asarray(points)
