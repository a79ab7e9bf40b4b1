"""Pretrains on a folder of images of your own: here, 80 PNG files of stripes that the script draws itself.

    python examples/own_images.py [FOLDER]        default: ./own-images

Put your own files in place of `draw`: folders below `images` are classes, and without folders there are no labels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import maskedmodel


def draw(folder: Path) -> None:
    """Two classes of 40 images, 32x32 pixels: horizontal and vertical stripes."""
    noise = np.random.default_rng(0)
    for name in ("horizontal", "vertical"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(40):
            wave = np.sin(np.arange(32) * noise.uniform(0.4, 1.2) + noise.uniform(0, 6))
            pixels = np.broadcast_to(127 + 100 * wave, (32, 32))
            pixels = pixels.T if name == "horizontal" else pixels
            Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(folder / name / f"{number:03d}.png")


def main(folder: Path) -> None:
    """Draw, pretrain for 30 steps, and probe what was learned."""
    draw(folder / "images")
    config = {
        "data": {"name": "image_folder", "path": str(folder / "images"), "val_share": 0.25},
        "tokenizer": {"name": "image", "size": 32, "patch": 4},
        "model": {"encoder": {"dim": 32, "depth": 2, "heads": 2}, "decoder": {"dim": 32, "depth": 1, "heads": 2}},
        "train": {"steps": 30, "batch": 16},
    }
    print(maskedmodel.pretrain(config, run=folder / "run", quiet=True))
    print(maskedmodel.probe(folder / "run"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-images"))
