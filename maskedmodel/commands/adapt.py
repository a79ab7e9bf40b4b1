"""`maskedmodel finetune`: adapt an encoder to labels, and see what it is worth beside the same one from scratch."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskedmodel.adapting.run import Adapted, adapt
from maskedmodel.adapting.source import finetune_config, from_scratch, name_of
from maskedmodel.plugins import load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training.distributed import join

TWIN = "from-scratch"  # the folder of a run's twin, within that of the run
log = logging.getLogger("maskedmodel")


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run came to, and its twin from fresh weights where there is one."""

    adapted: Adapted
    twin: Adapted | None
    started: bool  # whether it began with given weights
    report: Path

    def __str__(self) -> str:
        judged = self.adapted.judged
        rows = [("fine-tuned" if self.started else "from fresh weights", judged)]
        if self.twin is not None:
            rows.append(("same, from scratch", self.twin.judged))
        names = list(judged.metrics)
        cells = [["", *names], *([name, *(str(found.metrics[m]) for m in names)] for name, found in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(names) + 1)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        run = shlex.quote(str(self.adapted.folder))
        scratch = "" if self.twin is None else " From scratch: fresh weights, without layer-wise decay and freezing."
        return "\n".join(
            [
                *table,
                "",
                f"{self.adapted.labels} labelled training and {judged.samples} validation samples, after the last step."
                f"{scratch} Intervals: 95 %, bootstrap over the validation samples.",
                "",
                f"report    {self.report}",
                "",
                "next:",
                f"  maskedmodel predict {run} FILES --to predictions.parquet",
            ]
        )


def finetune(
    source: str | Path | Mapping[Any, Any],
    *,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    twin: bool = True,
    strict_plugins: bool = False,
    quiet: bool = False,
) -> FinetuneResult | None:
    """Fine-tune a run's encoder, other weights, or what a config says, on labelled data.

    source  a run's folder, weights that `import` reads, a config's path or name, or a mapping.
    run     the folder; default runs/<name>-finetune. The same call again resumes.
    twin    whether the same is trained from fresh weights, too, so that what the start was worth can be seen.

    Under torchrun every rank calls it; all but the first get None. Raises MaskedModelError for what a user can mend.
    """
    registry = load_registry(strict=strict_plugins)
    config = finetune_config(source, overrides, registry)
    folder = Path(run).expanduser() if run is not None else Path("runs") / name_of(source)
    for failure in registry.failures:
        log.warning("%s", failure.notice)
    started = config.start.weights is not None
    with join(config.train.device) as world:
        adapted = adapt(config, folder, registry, world, quiet=quiet)
        other: Adapted | None = None
        if twin and started:
            other = adapt(from_scratch(config), folder / TWIN, registry, world, quiet=quiet)
        if adapted is None:
            return None
        if other is not None:
            write_report(folder / TWIN)
        return FinetuneResult(adapted, other, started, write_report(folder))
