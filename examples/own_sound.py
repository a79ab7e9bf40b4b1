"""Pretrains on a folder of sound files of your own: here, 60 WAV files of tones that the script makes itself.

python examples/own_sound.py [FOLDER]        default: ./own-sound
"""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np

import maskedmodel

RATE = 8000  # Hz


def record(folder: Path) -> None:
    """Sixty files of half a second to one second, 16-bit mono."""
    noise = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(60):
        time = np.arange(int(RATE * noise.uniform(0.5, 1.0))) / RATE
        signal = 0.3 * np.sin(2 * np.pi * noise.uniform(200, 2000) * time)
        with wave.open(str(folder / f"{number:03d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((signal * 32767).astype("<i2").tobytes())


def main(folder: Path) -> None:
    """Make the files, pretrain for 30 steps, and write a vector for each file."""
    record(folder / "sounds")
    config = {
        "data": {"name": "audio_folder", "path": str(folder / "sounds"), "sample_rate": RATE, "val_share": 0.25},
        "tokenizer": {"name": "spectrogram", "sample_rate": RATE, "duration": 1.0, "mels": 40, "frame": 0.032,
                      "hop": 0.016, "patch": 8},
        "mask": {"name": "uniform", "ratio": 0.6},
        "model": {"encoder": {"dim": 32, "depth": 2, "heads": 2}, "decoder": {"dim": 32, "depth": 1, "heads": 2}},
        "train": {"steps": 30, "batch": 16},
    }  # fmt: skip
    print(maskedmodel.pretrain(config, run=folder / "run", quiet=True))
    print(maskedmodel.embed(folder / "run", folder / "sounds", to=folder / "vectors.npz"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-sound"))
