"""Pretrains on a table of time series of your own: here, a CSV of two hourly variates that the script writes itself.

python examples/own_series.py [FOLDER]        default: ./own-series
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import maskedmodel


def write_table(path: Path) -> None:
    """Fifty days, a row an hour: a daily cycle in two variates, with noise."""
    noise = np.random.default_rng(0)
    hours = np.arange(1200)
    day = np.sin(2 * np.pi * hours / 24)
    columns = {"load": day + noise.normal(0, 0.1, 1200), "heat": 2 - day + noise.normal(0, 0.1, 1200)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=1200, freq="h"), **columns}).to_csv(path, index=False)


def main(folder: Path) -> None:
    """Write the table and pretrain for 30 steps on windows of 96 hours."""
    write_table(folder / "table.csv")
    config = {
        "data": {"name": "csv", "path": str(folder / "table.csv"), "window": 96,
                 "split": {"train": 0.7, "val": 0.2, "test": 0.1}},
        "tokenizer": {"name": "series", "length": 96, "patch": 8, "variates": 2, "horizon": 24},
        "mask": {"name": "horizon", "ratio": 0.6, "longest": 0.25},
        "objective": {"name": "patch", "normalise": False, "loss": "smooth_l1"},
        "model": {"encoder": {"dim": 32, "depth": 2, "heads": 2}, "decoder": {"dim": 32, "depth": 1, "heads": 2}},
        "train": {"steps": 30, "batch": 16},
    }  # fmt: skip
    print(maskedmodel.pretrain(config, run=folder / "run", quiet=True))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-series"))
