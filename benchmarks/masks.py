"""Time what each mask scheduler adds to a training step of a ViT-Ti (32 x 32 pixels, patch 2, batch 32).

    python benchmarks/masks.py                 every scheduler
    python benchmarks/masks.py blocks noise    some of them
    python benchmarks/masks.py --rounds 5      a quick look

All run in one process on one model, in turns: in each round every scheduler takes one step, from another one on each
time, so that all meet the same load. Two things are timed. Drawing the masks of a batch is timed alone, many times:
that is all that a scheduler without weights adds. The whole step, with what a scheduler learns from it and with its
teacher, is set against the step under `uniform` of the same round. Results go to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from flops import WORKS
from implementations import BETAS, DECAY, LR
from maskedmodel_image.tokenizer import ImageTokenizer
from maskedmodel_masks.adaptive import Adaptive
from maskedmodel_masks.attention import Attention
from maskedmodel_masks.blocks import Blocks
from maskedmodel_masks.gated import Curriculum, Gated
from maskedmodel_masks.hard_patches import HardPatches
from maskedmodel_masks.lattice import FilteredNoise, Grid
from maskedmodel_masks.sampled import Sampled
from maskedmodel_masks.structured import Aligned, Channels, Strips, Tube
from maskedmodel_masks.uniform import Ramped, Uniform
from maskedmodel_objectives.patch import Patch
from step import RESULTS, machine, paired

from maskedmodel import MaskedAutoencoder, MaskScheduler, Noise, Tokens
from maskedmodel.config.sections import TrainSettings
from maskedmodel.engine.flops import TRAIN, forward_flops
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import seeded
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.parts import Part, backward

WORK = WORKS["vit-ti"]
GOAL = 0.02  # of a step, for what has no weights
PROGRESS = 0.5
DRAWS = 5  # masks drawn per turn to time the drawing
SETTINGS, WORLD = TrainSettings(precision="fp32"), World(0, 1, torch.device("cpu"))
LEARNED = ("hard_patches", "sampled", "gated", "curriculum", "attention")
SCHEDULERS: dict[str, MaskScheduler[Any]] = {
    "uniform": Uniform(),
    "ramped": Ramped(),
    "uniform, random ratio": Uniform(ratio={"shape": "random"}),
    "blocks": Blocks(),
    "grid": Grid(),
    "noise": FilteredNoise(),
    "tube": Tube(axis="height", ratio=0.75),
    "strips": Strips(shares={"height": 0.5, "width": 0.5}),
    "channels": Channels(ratio=0.75),
    "aligned": Aligned(),
    "adaptive, variance": Adaptive(),
    "adaptive, gradient": Adaptive(signal="gradient"),
    "adaptive, entropy": Adaptive(signal="entropy"),
    "adaptive, spread": Adaptive(spread=0.15),
    "hard_patches": HardPatches(),
    "sampled": Sampled(),
    "gated": Gated(),
    "curriculum": Curriculum(),
    "attention": Attention(),
}


@dataclass
class Turns:
    """One scheduler and its times, in seconds."""

    name: str
    scheduler: MaskScheduler[Any]
    optimizer: torch.optim.Optimizer | None = None
    draws: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


class Bench:
    """A model, its optimizer and a batch; schedulers take turns on it."""

    def __init__(self) -> None:
        w = WORK
        self.tokenizer = ImageTokenizer(size=w.size, patch=w.patch)
        with seeded(0):
            self.model = MaskedAutoencoder(
                self.tokenizer,
                Uniform(),
                Patch(normalise=False),
                ModelSettings(
                    encoder=EncoderSettings(dim=w.dim, depth=w.depth, heads=w.heads),
                    decoder=DecoderSettings(dim=w.decoder_dim, depth=w.decoder_depth, heads=w.decoder_heads),
                ),
            ).train()
        self.optimizer = self._adamw(self.model)
        images = torch.rand(w.batch, 3, w.size, w.size, generator=torch.Generator().manual_seed(0))
        self.tokens = self.model.tokens(images)
        # As many tokens, in four channels, for masks that hide channels.
        cells = torch.cartesian_prod(torch.arange(8), torch.arange(8)).repeat(4, 1)
        channel = torch.arange(4).repeat_interleave(64)
        self.channels = Tokens(self.tokens.values, cells, self.tokens.axes, (8, 8), channel)

    @staticmethod
    def _adamw(module: torch.nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)

    def ready(self, name: str) -> Turns:
        """A scheduler attached to the model, with an optimizer of its own where it learns."""
        scheduler = SCHEDULERS[name]
        with seeded(0):
            if name not in ("channels", "aligned"):
                scheduler.attach(self.tokenizer, self.model.encoder)
        if scheduler.needs_statistics:
            scheduler.fit_statistics([self.tokens])
        learns = any(p.requires_grad for p in scheduler.parameters())
        return Turns(name, scheduler, self._adamw(scheduler) if learns else None)

    def turn(self, turns: Turns, round_: int) -> None:
        """Time the drawing, then a whole step."""
        scheduler = turns.scheduler
        tokens = self.channels if turns.name in ("channels", "aligned") else self.tokens
        for draw in range(DRAWS):
            noise = Noise.of(range(WORK.batch), epoch=1000 * round_ + draw)
            start = perf_counter()
            with torch.no_grad():
                scheduler.sample(tokens, PROGRESS, noise)
            turns.draws.append(perf_counter() - start)
        start = perf_counter()
        mask = scheduler.sample(tokens, PROGRESS, noise)
        self.model.scheduler = scheduler  # whose own loss is asked for
        learning = MaskedModelling(self.model, SETTINGS)
        backward(learning, self.model, [Part(tokens, mask, mask.scored)], mask.scored, WORLD, PROGRESS)
        for optimizer in (self.optimizer, turns.optimizer):
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            scheduler.after_step(self.model.encoder, PROGRESS)
        turns.steps.append(perf_counter() - start)

    def work(self, turns: Turns) -> float:
        """What a scheduler multiplies, as a share of encoder and decoder at three quarters hidden."""
        hidden = WORK.hidden
        model = TRAIN * forward_flops(self.model, WORK.tokens - hidden, hidden, WORK.batch).total
        return turns.scheduler.flops(WORK.tokens) * WORK.batch / model


def measure(names: list[str], rounds: int) -> tuple[list[dict[str, Any]], float]:
    """One row for each scheduler, and the median step under uniform in seconds."""
    bench = Bench()
    everyone = [bench.ready(name) for name in dict.fromkeys(["uniform", *names])]
    for turns in everyone:
        bench.turn(turns, 0)
        turns.draws.clear()
        turns.steps.clear()
    for index in range(rounds):
        first = index % len(everyone)
        for turns in everyone[first:] + everyone[:first]:
            bench.turn(turns, index + 1)
        print(f"  round {index + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    base = everyone[0]
    step = median(base.steps)
    rows = [
        {
            "scheduler": turns.name,
            "draw_milliseconds": 1e3 * median(turns.draws),
            "draw_share": median(turns.draws) / step,
            "step_of_uniform": paired(turns.steps, base.steps),
            "work": bench.work(turns),
            "weights": sum(p.numel() for p in turns.scheduler.parameters() if p.requires_grad),
        }
        for turns in everyone
        if turns.name in names
    ]
    return rows, step


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| scheduler | drawing, ms | share of a step | step / uniform's (quartiles) | products | weights |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["step_of_uniform"]
        lines.append(
            f"| {row['scheduler']} | {row['draw_milliseconds']:.2f} | {row['draw_share']:.2%} "
            f"| {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) "
            f"| {row['work']:.1%} | {row['weights']:,} |"
        )
    return "\n".join(lines)


def page(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    where = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    over = [r["scheduler"] for r in record["rows"] if r["scheduler"] not in LEARNED and r["draw_share"] > GOAL]
    verdict = f"Above it: {', '.join(over)}." if over else "None is above it."
    w = WORK
    return f"""# What mask schedulers add to a training step

{where["date"]}, {where["cpu"]}, {where["cores"]} cores, threads: {where["threads"]}, float32. {versions}.
`{where["command"]}`. Load average {record["load"][0]:.1f} at the start, {record["load"][1]:.1f} at the end.

ViT-Ti: {w.size}x{w.size} pixels, patch {w.patch}, {w.tokens} tokens, batch {w.batch}; encoder {w.dim}x{w.depth},
decoder {w.decoder_dim}x{w.decoder_depth}. A step under uniform takes {1e3 * record["step_seconds"]:.0f} ms.

{table(record["rows"])}

drawing: the masks of a batch. products: the scheduler's matrix products, as a share of those of encoder and decoder.
The goal for schedulers without weights is a share below {GOAL:.0%}. {verdict}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedulers", nargs="*", choices=[[], *SCHEDULERS], help="which schedulers; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of turns (default 15)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--out", type=Path, help="where the results go, without ending (default: results/masks-DATE)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    load = os.getloadavg()[0]
    rows, step = measure(arguments.schedulers or list(SCHEDULERS), arguments.rounds)
    record = {"machine": machine(arguments.threads, "benchmarks/masks.py"), "step_seconds": step, "rows": rows}
    record["load"] = [load, os.getloadavg()[0]]

    out = arguments.out or RESULTS / f"masks-{datetime.now(UTC):%Y-%m-%d}"
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{out}.json").write_text(json.dumps(record, indent=1) + "\n")
    Path(f"{out}.md").write_text(page(record))
    print("\n" + page(record) + f"\nwritten: {out}.json, {out}.md")


if __name__ == "__main__":
    main()
