"""How fast each modality trains, and how much of that is spent waiting for data: one row per embedded quickstart.

    python benchmarks/modalities.py [--steps 60] [--out benchmarks/results/modalities-DATE]

Every quickstart trains `--steps` steps as its config says, in this process; the first ten warm up. A token counts
whether hidden or visible: it is what a config's batch holds. The share of waiting is what timings.jsonl says. Writes
a table (.md) and the figures (.json).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

import maskedmodel
from maskedmodel.commands import doctor
from maskedmodel.config.load import load_config
from maskedmodel.plugins import load_registry

QUICKSTARTS = ("image", "audio", "video", "timeseries", "microscopy")
WARM_UP = 10  # steps


def measure(modality: str, steps: int) -> dict[str, Any]:
    """One row: tokens of a sample, samples and tokens per second (median over tens of steps), share of waiting."""
    name = f"{modality}-quickstart"
    config = load_config(name, registry=load_registry())
    overrides = [f"train.steps={steps}", "train.log_every=10", "train.checkpoint_every=100000", "optim.warmup=0"]
    quiet = ["evaluate.probe=false", "evaluate.pictures=0"]
    with tempfile.TemporaryDirectory() as folder:
        maskedmodel.pretrain(name, run=folder, overrides=overrides + quiet, quiet=True)
        lines = [json.loads(line) for line in (Path(folder) / "timings.jsonl").read_text().splitlines()]
    timed = [line for line in lines if line["step"] > WARM_UP]
    tokens = doctor(name)["tokens"]
    rate = median(line["samples_per_second"] for line in timed)
    return {
        "modality": modality,
        "batch": config.train.batch,
        "tokens": tokens,
        "samples_per_second": round(rate, 1),
        "tokens_per_second": round(rate * tokens),
        "waiting": round(sum(line["data_wait"] for line in timed) / len(timed), 4),
    }


def table(rows: list[dict[str, Any]], surroundings: str) -> str:
    columns = ("modality", "batch", "tokens a sample", "samples a second", "tokens a second", "waiting for data")
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    body = "".join(
        f"| {row['modality']} | {row['batch']} | {row['tokens']} | {row['samples_per_second']:,} | "
        f"{row['tokens_per_second']:,} | {row['waiting']:.1%} |\n"
        for row in rows
    )
    return f"# Training speed by modality\n\n{surroundings}\n\n{head}{body}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of each quickstart, above 10")
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/modalities-{date.today()}"))
    arguments = parser.parse_args()
    rows = []
    for modality in QUICKSTARTS:
        rows.append(measure(modality, arguments.steps))
        print(rows[-1], flush=True)
    surroundings = (
        f"`python benchmarks/modalities.py --steps {arguments.steps}`, {date.today()}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}. Each is "
        "the embedded quickstart of that modality, with its own small model: rows tell what data costs, not which "
        "modality is faster."
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(table(rows, surroundings))


if __name__ == "__main__":
    main()
