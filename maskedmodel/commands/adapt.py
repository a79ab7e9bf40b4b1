"""`maskedmodel finetune`: adapt an encoder to labels, and see what it is worth beside the same one from scratch."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskedmodel.adapting.curve import LabelCurve, label_curve, labelled_by
from maskedmodel.adapting.run import Adapted, adapt, told_once
from maskedmodel.adapting.source import finetune_config, from_scratch, name_of
from maskedmodel.aligned import aligned
from maskedmodel.errors import TrainingError
from maskedmodel.evaluation.judged import TWIN
from maskedmodel.files import path_of
from maskedmodel.plugins import load_registry
from maskedmodel.report.label_curve import PICTURE
from maskedmodel.report.label_curve import write as write_curve
from maskedmodel.report.page import write as write_report
from maskedmodel.training.distributed import join

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
        run = shlex.quote(str(self.adapted.folder))
        scratch = "" if self.twin is None else " From scratch: fresh weights, without layer-wise decay and freezing."
        return "\n".join(
            [
                *aligned(cells),
                "",
                f"{self.adapted.labels} labelled training and {judged.samples} validation samples, after the last step."
                f"{scratch} Intervals: 95 %, bootstrap over the validation samples.",
                *self._stopped(),
                *self._left_out(),
                "",
                f"report    {self.report}",
                "",
                "next:",
                f"  maskedmodel predict {run} FILES --to predictions.parquet",
            ]
        )

    def _stopped(self) -> list[str]:
        """Which of them a callback stopped before the last step of the whole run, and how to go on."""
        runs = [("fine-tuned", self.adapted), ("from scratch", self.twin)]
        found = [(name, run.stopped) for name, run in runs if run is not None and run.stopped is not None]
        if not found:
            return []
        return [
            "",
            *(f"stopped early  {name}, {stopped}" for name, stopped in found),
            f"to go on       {found[0][1].advice}",
        ]

    def _left_out(self) -> list[str]:
        train, val = self.adapted.left_out
        return [f"Samples that can't be read, left out: {train} of train, {val} of val."] if train or val else []


@dataclass(frozen=True)
class CurveResult:
    """A label curve, and its page."""

    curve: LabelCurve
    report: Path

    def __str__(self) -> str:
        return f"{self.curve}\n\npicture  {self.curve.folder / PICTURE}\nreport   {self.report}"


def finetune(
    source: str | Path | Mapping[Any, Any],
    *,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    labels: Sequence[int | str] = (),
    seeds: int = 1,
    scratch: bool = False,
    twin: bool = True,
    strict_plugins: bool = False,
    quiet: bool = False,
) -> FinetuneResult | CurveResult | None:
    """Fine-tune a run's encoder, other weights, or what a config says, on labelled data.

    source  a run's folder, weights that `import` reads, a config's path or name, or a mapping.
    run     the folder; default runs/<name>-finetune. The same call again resumes.
    labels  numbers of labelled training samples, or shares such as "10%". Several of them, or several seeds, give a
            label curve: the score by number of labels, in runs/<name>-finetune-labels.
    seeds   how often each is done, with seeds from train.seed on.
    scratch for a label curve: each beside the same from fresh weights. Else: from fresh weights alone.
    twin    whether the same is trained from fresh weights, too, so that what the start was worth can be seen.

    Under torchrun every rank calls it; all but the first get None. Raises MaskedModelError for what a user can mend.
    """
    registry = load_registry(strict=strict_plugins)
    config = finetune_config(source, overrides, registry)
    curve = len(labels) > 1 or seeds > 1
    if not curve and labels:
        config = labelled_by(config, labels[0])
    if not curve and scratch:
        config = from_scratch(config)
    suffix = "-labels" if curve else "-scratch" if scratch else ""
    folder = path_of(run, TrainingError) if run is not None else Path("runs") / f"{name_of(source)}{suffix}"
    for failure in registry.failures:
        log.warning("%s", failure.notice)
    started = config.start.weights is not None
    with join(config.train.device) as world, told_once():
        if curve:
            counts: Sequence[int | str] = labels or ["100%"]
            found = label_curve(
                config, folder, registry, world, labels=counts, seeds=seeds, scratch=scratch, quiet=quiet
            )
            return None if found is None else CurveResult(found, write_curve(folder))
        adapted = adapt(config, folder, registry, world, quiet=quiet)
        other: Adapted | None = None
        if twin and started:
            other = adapt(from_scratch(config), folder / TWIN, registry, world, quiet=quiet)
        if adapted is None:
            return None
        if other is not None:
            write_report(folder / TWIN)
        return FinetuneResult(adapted, other, started, write_report(folder))
