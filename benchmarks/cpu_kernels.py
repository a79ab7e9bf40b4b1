"""Time the exact kernels that maskedmodel/engine/fastest.py chooses from, at the shapes of the two works of flops.py.

    python benchmarks/cpu_kernels.py

Forward and backward, float32, the best of many, alternating. Results go to benchmarks/results/kernels-DATE.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import torch
from step import RESULTS, machine
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.engine import kernels
from maskedmodel.engine.fastest import described
from maskedmodel.engine.layers import heads_first

LINEAR = [  # rows, inputs, outputs
    (32 * 257, 192, 576),
    (32 * 257, 192, 768),
    (32 * 257, 768, 192),
    (32 * 65, 192, 768),
    (8 * 197, 512, 2048),
    (8 * 197, 2048, 512),
    (8 * 50, 768, 3072),
    (8 * 50, 3072, 768),
]
ATTENTION = [  # samples, tokens, heads, head width
    (32, 17, 3, 64),
    (8, 50, 12, 64),
    (32, 65, 3, 64),
    (32, 130, 3, 64),
    (8, 197, 16, 32),
    (32, 257, 3, 64),
    (4, 513, 16, 32),
    (2, 1025, 16, 32),
]


def fastest(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each function, the best of `repeats`, in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats + 1):
        for index, function in enumerate(functions):
            start = perf_counter()
            function()
            best[index] = min(best[index], perf_counter() - start)
    return best


def forth_and_back(function: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """Forward and backward of `function`."""

    def run() -> object:
        result = function()
        return torch.autograd.grad(result, inputs, torch.ones_like(result))

    return run


def linear_rows(repeats: int) -> list[str]:
    lines = ["| rows, inputs, outputs | MKL GFLOP/s | oneDNN GFLOP/s | gain |", "|---|---|---|---|"]
    for rows, inputs, outputs in LINEAR:
        x, weight, bias = (
            torch.randn(shape).requires_grad_() for shape in ((rows, inputs), (outputs, inputs), outputs)
        )
        runs = [
            forth_and_back(lambda product=product: product(x, weight, bias), [x, weight, bias])  # noqa: B023
            for product in (F.linear, kernels.onednn_linear)
        ]
        mkl, onednn = fastest(runs, repeats)
        work = 3 * 2 * rows * inputs * outputs / 1e9
        lines.append(f"| {rows}, {inputs}, {outputs} | {work / mkl:.0f} | {work / onednn:.0f} | {mkl / onednn:.2f} |")
    return lines


def attention_rows(repeats: int) -> list[str]:
    lines = ["| samples, tokens, heads, width | plain ms | fused ms | gain of fused |", "|---|---|---|---|"]
    for samples, tokens, heads, width in ATTENTION:
        qkv = torch.randn(samples, tokens, 3 * heads * width).requires_grad_()

        def mixed(attention: Callable[..., Tensor]) -> Tensor:
            return attention(*(heads_first(part, heads) for part in qkv.chunk(3, -1)))  # noqa: B023

        kinds = (kernels.plain_attention, kernels.fused_attention)
        plain, fused = fastest([forth_and_back(partial(mixed, kind), [qkv]) for kind in kinds], repeats)
        lines.append(
            f"| {samples}, {tokens}, {heads}, {width} | {1e3 * plain:.1f} | {1e3 * fused:.1f} | {plain / fused:.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--repeats", type=int, default=20, help="how many times each is run (default 20)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    where = machine(arguments.threads, "benchmarks/cpu_kernels.py")
    lines = [
        "# Exact kernels on this CPU, forward and backward",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, threads: {where['threads']}, float32, "
        f"torch {where['versions']['torch']}. `{where['command']}`. The engine here: "
        + "; ".join(f"{name}: {choice}" for name, choice in described().items())
        + ".",
        "",
        *linear_rows(arguments.repeats),
        "",
        *attention_rows(arguments.repeats),
    ]
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"kernels-{datetime.now(UTC):%Y-%m-%d}.md"
    out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines), f"\n\nwritten: {out}")


if __name__ == "__main__":
    main()
