"""Time a training step of maskedmodel, transformers' ViTMAE and lightly's MAE on the same work.

    python benchmarks/step.py                        both works, every implementation that can be imported
    python benchmarks/step.py vit-ti --compile       eager and compiled
    python benchmarks/step.py vit-b --profile        where the time of maskedmodel's step goes

A step is forward, backward and AdamW. Each implementation lives in a process of its own; they take turns, so that one
runs at a time and all meet the same load. A ratio is the median over rounds of the ratio within a round. The share of
the peak is the work of the plain method (flops.py) over time, over the rate of a matrix product timed in every round.
An implementation that leaves work out can so come above what it multiplies.
The peers run with AdamW as it comes and, to compare the engines alone, with the same fused AdamW. Where the engine
picks oneDNN for its matrix products (maskedmodel/engine/fastest.py), it is timed with MKL as well.
Results go to benchmarks/results as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from flops import WORKS, Work, step_flops
from implementations import BUILDERS, Stepper, serve

from maskedmodel.engine.fastest import settle
from maskedmodel.engine.kernels import linear

RESULTS = Path(__file__).parent / "results"
COMPARED = ["maskedmodel", "maskedmodel, MKL", "transformers", "lightly"]
PRODUCT = 2048  # side of the matrices whose product gives the peak


@dataclass
class Runner:
    """An implementation in a process of its own."""

    name: str
    work: Work
    compiled: bool
    threads: int
    parameters: int = 0
    peak_mib: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def start(self) -> str | None:
        """Build it and take one step; an error where it can't be imported."""
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        arguments = (child, self.name, self.work, self.compiled, self.threads)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        child.close()
        answer: dict[str, Any] = self._connection.recv()
        if "error" in answer:
            return str(answer["error"])
        self.parameters = answer["parameters"]
        for _ in range(2):
            self._step(True)
        return None

    def _step(self, fused: bool) -> float:
        self._connection.send(fused)
        seconds, self.peak_mib = self._connection.recv()
        return float(seconds)

    def turn(self, fused: bool) -> None:
        """One timed step, kept under the optimizer's name."""
        self.seconds.setdefault("fused" if fused else "default", []).append(self._step(fused))

    def stop(self) -> None:
        self._connection.send(None)
        self._process.join()

    @property
    def label(self) -> str:
        return f"{self.name}, compiled" if self.compiled else self.name


@contextmanager
def running(runners: Sequence[Runner]) -> Iterator[list[Runner]]:
    """Those of `runners` that start; what stops the others is printed."""
    started = []
    try:
        for runner in runners:
            error = runner.start()
            if error is None:
                started.append(runner)
            else:
                print(f"left out: {error}", file=sys.stderr)
        yield started
    finally:
        for runner in started:
            runner.stop()


def product_rate() -> float:
    """FLOPs per second of a square float32 product: the best of three, by torch's own kernel and by the engine's."""
    a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    best = float("inf")
    settle([PRODUCT])
    for multiply in (torch.mm, linear) * 3:
        start = perf_counter()
        multiply(a, b)
        best = min(best, perf_counter() - start)
    return 2 * PRODUCT**3 / best


def in_turns(runners: Sequence[Runner], rounds: int) -> list[float]:
    """Let every runner take its steps once a round, from another one on each round; the product's rates."""
    turns = [(runner, fused) for runner in runners for fused in _optimizers(runner)]
    rates = []
    for index in range(rounds):
        rates.append(product_rate())
        first = index % len(turns)
        for runner, fused in turns[first:] + turns[:first]:
            runner.turn(fused)
        print(f"  round {index + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return rates


def _optimizers(runner: Runner) -> tuple[bool, ...]:
    return (False, True) if runner.name in ("transformers", "lightly") else (True,)


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratio within a round."""
    ratios = [n / d for n, d in zip(numerator, denominator, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {"median": median(ratios), "low": low, "high": high}


def compare(work: Work, names: Sequence[str], rounds: int, threads: int, compiled: bool) -> dict[str, Any]:
    """The implementations against each other on one work."""
    kinds = (False, True) if compiled else (False,)
    with running([Runner(name, work, kind, threads) for name in names for kind in kinds]) as runners:
        rates = in_turns(runners, rounds)
    own = next(runner for runner in runners if runner.name == "maskedmodel" and not runner.compiled)
    rows = []
    for runner in runners:
        for optimizer, seconds in runner.seconds.items():
            time = median(seconds)
            rows.append(
                {
                    "implementation": runner.label,
                    "optimizer": optimizer,
                    "milliseconds": 1e3 * time,
                    "samples_per_second": work.batch / time,
                    "time_of_maskedmodel": paired(seconds, own.seconds["fused"]),
                    "share_of_peak": median(
                        step_flops(work) / s / rate for s, rate in zip(seconds, rates, strict=True)
                    ),
                    "peak_mib": runner.peak_mib,
                    "peak_of_maskedmodel": runner.peak_mib / own.peak_mib,
                    "parameters": runner.parameters,
                    "all_milliseconds": [round(1e3 * s, 2) for s in seconds],
                }
            )
    return {"product_gflops": median(rates) / 1e9, "step_gflop": step_flops(work) / 1e9, "rows": rows}


def hiding(work: Work, rounds: int, threads: int) -> dict[str, Any]:
    """What hiding saves: the engine with nothing hidden against itself, beside the ratio of the FLOPs."""
    with running([Runner(name, work, False, threads) for name in ("maskedmodel", "nothing hidden")]) as (some, none):
        in_turns([some, none], rounds)
    flops = step_flops(work, 0) / step_flops(work)
    times = paired(none.seconds["fused"], some.seconds["fused"])
    return {"time_ratio": times, "flops_ratio": flops, "share_of_flops_ratio": times["median"] / flops}


def profile(work: Work, steps: int = 5) -> str:
    """A table of maskedmodel's operations by their own time."""
    stepper = Stepper("maskedmodel", work, compiled=False)
    stepper.step(fused=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            stepper.step(fused=True)
    averages = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)
    lines = ["| operation | ms a step | share | calls a step |", "|---|---|---|---|"]
    for event in sorted(averages, key=lambda event: -event.self_cpu_time_total)[:16]:
        own = event.self_cpu_time_total
        lines.append(f"| {event.key} | {own / steps / 1e3:.1f} | {own / total:.1%} | {event.count / steps:.0f} |")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """A comparison as a Markdown table."""
    lines = [
        "| implementation | AdamW | ms | samples/s | time / ours (quartiles) | share of peak | peak MiB (/ ours) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ratio = row["time_of_maskedmodel"]
        lines.append(
            f"| {row['implementation']} | {row['optimizer']} | {row['milliseconds']:.0f} "
            f"| {row['samples_per_second']:.1f} | {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) "
            f"| {row['share_of_peak']:.0%} | {row['peak_mib']:.0f} ({row['peak_of_maskedmodel']:.2f}) |"
        )
    return "\n".join(lines)


def machine(threads: int, script: str = "benchmarks/step.py") -> dict[str, Any]:
    """Where this was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    versions = {}
    for name in ("maskedmodel", "torch", "transformers", "lightly", "timm"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model or platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "versions": {"python": platform.python_version(), **versions},
        "command": " ".join(["python", script, *sys.argv[1:]]),
    }


def page(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    where = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [
        "# A training step: forward, backward, AdamW",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, threads: {where['threads']}, float32. {versions}.",
        f"`{where['command']}`. Load average {record['load'][0]:.1f} at the start, {record['load'][1]:.1f} at the end.",
    ]
    for name, result in record["works"].items():
        work = Work(**result["work"])
        lines += [
            "",
            f"## {name}: {work.size}x{work.size}, patch {work.patch}, {work.ratio:.0%} of {work.tokens} tokens hidden, "
            f"batch {work.batch}; encoder {work.dim}x{work.depth}, decoder {work.decoder_dim}x{work.decoder_depth}",
            "",
        ]
        if "compare" in result:
            lines += [
                table(result["compare"]),
                "",
                f"{result['compare']['step_gflop']:.0f} GFLOP a step; matrix product "
                f"{result['compare']['product_gflops']:.0f} GFLOP/s. Above 1.00 in the ratio: maskedmodel is faster.",
            ]
        if "hiding" in result:
            h = result["hiding"]
            lines += [
                "",
                f"Nothing hidden takes {h['time_ratio']['median']:.2f} times as long; its FLOPs are "
                f"{h['flops_ratio']:.2f} times as many: {h['share_of_flops_ratio']:.0%} of that is reached.",
            ]
        if "profile" in result:
            lines += ["", "Where the time of maskedmodel's step goes:", "", result["profile"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", choices=[[], *WORKS], help="which works; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of turns (default 15)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--only", nargs="+", choices=BUILDERS, default=COMPARED, help="which implementations")
    parser.add_argument("--compile", action="store_true", help="also compile every implementation")
    parser.add_argument("--hiding", action=argparse.BooleanOptionalAction, default=True, help="time nothing hidden too")
    parser.add_argument("--profile", action="store_true", help="add a table of maskedmodel's operations")
    parser.add_argument("--out", type=Path, help="where the results go, without ending (default: results/step-DATE)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    record: dict[str, Any] = {"machine": machine(arguments.threads), "works": {}}
    load = os.getloadavg()[0]
    for name in arguments.works or WORKS:
        work = WORKS[name]
        print(f"{name}", file=sys.stderr)
        result: dict[str, Any] = {"work": asdict(work)}
        result["compare"] = compare(work, arguments.only, arguments.rounds, arguments.threads, arguments.compile)
        print(table(result["compare"]))
        if arguments.hiding:
            result["hiding"] = hiding(work, arguments.rounds, arguments.threads)
        if arguments.profile:
            result["profile"] = profile(work)
        record["works"][name] = result
    record["load"] = [load, os.getloadavg()[0]]

    out = arguments.out or RESULTS / f"step-{datetime.now(UTC):%Y-%m-%d}"
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{out}.json").write_text(json.dumps(record, indent=1) + "\n")
    Path(f"{out}.md").write_text(page(record))
    print("\n" + page(record) + f"\nwritten: {out}.json, {out}.md")


if __name__ == "__main__":
    main()
