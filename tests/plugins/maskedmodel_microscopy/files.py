"""TIFF files for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile


def pixels(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    """Random values that use half of the type's range, or floats from 0 to 1."""
    draw = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return draw.random(shape).astype(dtype)
    return draw.integers(1, np.iinfo(dtype).max // 2, shape).astype(dtype)


def write_ome(
    path: Path, array: np.ndarray, names: Sequence[str] | None = None, axes: str = "CYX", **more: Any
) -> np.ndarray:
    """An OME-TIFF with these axes and channel names; gives the array back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"axes": axes}
    if names is not None:
        metadata["Channel"] = {"Name": list(names)}
    tifffile.imwrite(path, array, ome=True, metadata=metadata, **{"photometric": "minisblack", **more})
    return array
