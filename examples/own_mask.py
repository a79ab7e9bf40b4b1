"""Compares a mask scheduler of your own with uniform masks, on digits, after holding it to the contract.

    python examples/own_mask.py [FOLDER]        default: ./own-mask

The script installs nothing: it writes `maskedmodel_bands.py`, a whole plugin, and the line by which an installed
distribution announces one. In a project of your own both lie in its package and its pyproject.toml.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLUGIN = '''\
"""Hides whole rows of an image: what a scanner loses."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import MaskScheduler, Noise, Settings, Tokens, hookimpl


class BandsSettings(Settings):
    name: Literal["bands"] = "bands"
    ratio: float = Field(0.5, gt=0, lt=1, description="Share of tokens hidden.")


class Bands(MaskScheduler[BandsSettings]):
    """Tokens at the same place of the first axis are hidden together, as far as the ratio goes."""

    def ratio(self, progress: float) -> float:
        return self.settings.ratio

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        row = tokens.coords[..., 0].round().long().expand(tokens.batch, -1)
        by_row = noise.uniform(int(row.max()) + 1, "rows")
        return by_row.gather(1, row) + 1e-3 * noise.uniform(tokens.length, "within a row")


@hookimpl
def maskedmodel_mask_schedulers():
    return [Bands]
'''


def install(folder: Path) -> None:
    """What `pip install` leaves of a plugin: its module, and metadata with its entry point."""
    (folder / "maskedmodel_bands.py").write_text(PLUGIN)
    about = folder / "maskedmodel_bands-0.1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: maskedmodel-bands\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[maskedmodel]\nbands = maskedmodel_bands\n")


def main(folder: Path) -> None:
    """Check the scheduler, then train it and uniform masks with the same amount of work, three seeds each."""
    folder.mkdir(parents=True, exist_ok=True)
    install(folder)
    path = os.pathsep.join(filter(None, (str(folder.absolute()), os.environ.get("PYTHONPATH"))))
    small = ["train.steps=40", "train.batch=32", "model.encoder.depth=2", "model.decoder.depth=1"]
    for arguments in (
        ["plugins", "check", "bands"],
        ["compare", "image-quickstart", "--mask", "uniform:ratio=0.5", "--mask", "bands:ratio=0.5", *small],
    ):
        run = [] if arguments[0] == "plugins" else ["--run", str(folder / "comparison")]
        command = [sys.executable, "-m", "maskedmodel", *arguments, *run]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-mask"))
