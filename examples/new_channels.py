"""Writes fields with as many channels as asked for, under names that no model has met, out of OME-TIFFs that exist.

    python examples/new_channels.py FOLDER OUT --channels 6
    maskedmodel embed RUN OUT --to features.npz

A channel-agnostic encoder takes them as they are: each channel is cut into tokens of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile


def main() -> None:
    """Each field takes its channels from files of one size, in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of OME-TIFFs with axes CYX")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--channels", type=int, default=6)
    parser.add_argument("--fields", type=int, default=8)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    waiting: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = {}
    written = 0
    for path in sorted(arguments.folder.rglob("*.ome.tif")):
        pixels = tifffile.imread(path)
        pile = waiting.setdefault((pixels.shape[1:], str(pixels.dtype)), [])
        pile += list(pixels)
        if len(pile) >= arguments.channels and written < arguments.fields:
            field = np.stack([pile.pop(0) for _ in range(arguments.channels)])
            names = [f"new channel {number}" for number in range(arguments.channels)]
            metadata = {"axes": "CYX", "Channel": {"Name": names}}
            target = arguments.out / f"{written:02d}.ome.tif"
            tifffile.imwrite(target, field, ome=True, photometric="minisblack", metadata=metadata, compression="zlib")
            written += 1
    print(f"{written} fields of {arguments.channels} channels in {arguments.out}")


if __name__ == "__main__":
    main()
