"""`compare`: train every arm under every seed, measure them all in one way, and say what may be concluded."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from maskedmodel.comparison.arms import Mask, Source, arms_of, distinct
from maskedmodel.comparison.budget import budget_named
from maskedmodel.comparison.collect import collect
from maskedmodel.comparison.controls import with_controls
from maskedmodel.comparison.plan import Plan, Run, make_plan
from maskedmodel.comparison.pool import Task, places, threads, work
from maskedmodel.comparison.result import Comparison
from maskedmodel.comparison.scores import DEFAULT, primary_of, scores_of
from maskedmodel.comparison.worker import Job
from maskedmodel.comparison.yardstick import finished, key_of, read
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.errors import ConfigError, DataError, MaskedModelError
from maskedmodel.plugins import load_registry
from maskedmodel.report.comparison import write as write_report
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.folder import claimed, run_folder
from maskedmodel.training.tracking import Display, environment

log = logging.getLogger("maskedmodel")
RATIO = 0.75  # of the tokens that validation hides in every arm, unless the config says another
_UNTRAINED = "untrained"  # a folder beside the runs: the first arm's weights at the start, measured


def compare(
    config: Source = None,
    masks: Sequence[Mask] = (),
    *,
    vary: Sequence[str] = (),
    controls: bool = False,
    seeds: int = 3,
    budget: str = "flops",
    scores: Sequence[str] | None = None,
    primary: str | None = None,
    run: str | Path | None = None,
    jobs: int | None = None,
    overrides: Sequence[str] = (),
    strict_plugins: bool = False,
    quiet: bool = False,
) -> Comparison:
    """Compare mask schedulers, or any other settings, under one budget, measured in one way.

    masks     names, "name:key=value,key=value", or mappings with a name; the first is what others are held against.
    vary      settings to vary beside or instead of the mask, such as "model.decoder.depth=2"; crossed with `masks`.
    controls  each scheduler whose ratio moves is joined by a constant ratio of equal mean and the same way backwards.
    seeds     runs of each arm; fewer than 3 give no verdict.
    budget    what every arm may spend: flops, tokens, seconds or steps. The first arm's train.steps set it.
    scores    what runs are judged by beside their losses: probes by the names of evaluate.probes, and "finetune:LABELS"
              such as "finetune:1%". Default: k-NN and the linear probe, where there are labels.
    primary   the one figure that the verdict on an arm is made by, such as "attentive" or "loss@0.75". Default: none,
              and each figure has a verdict of its own.
    run       the comparison's folder; the same call again goes on with what is missing there.
    jobs      runs at a time. Default: one per CUDA device, else one.

    Raises MaskedModelError for what the user can mend, before anything is trained where that can be known; Interrupted
    after a signal, every run saved.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("compare starts its own processes.", where="torchrun", fix="Start it without torchrun.")
    kind = budget_named(budget)
    asked = None if scores is None else scores_of([scores] if isinstance(scores, str) else scores)
    primary = primary_of(primary, DEFAULT if asked is None else asked)
    registry = load_registry(strict=strict_plugins)
    for failure in registry.failures:
        log.warning("%s", failure.notice)
    folder = _folder(config, run)
    arms = arms_of(config, overrides, masks, vary, registry)
    notes: list[str] = []
    if controls:
        arms, notes = with_controls(arms, config, tuple(overrides), registry)
        arms = distinct(arms)
    base = load_config(config, overrides, registry=registry)
    if base.train.validation_ratio is None:  # one for all arms, whatever each of them hides
        overrides = [*overrides, f"train.validation_ratio={RATIO}"]
        base = load_config(config, overrides, registry=registry)
    if base.callbacks:
        names = ", ".join(settings.name for settings in base.callbacks)
        notes.append(f"Callbacks look on in every run ({names}) and can't stop one: each arm spends its whole budget.")
        log.warning("%s", notes[-1])
    devices = places(jobs, base.train.device)
    with claimed(folder):
        with Display("looking", 1, quiet=quiet) as display:
            plan = make_plan(
                folder,
                config,
                overrides,
                arms,
                seeds=seeds,
                budget=kind,
                scores=asked,
                registry=registry,
                notes=notes,
                progress=display.phase,
            )
        if plan.judging:
            Console(stderr=True, quiet=quiet).print(plan.judging, soft_wrap=True, highlight=False, markup=False)
        return _carry_out(plan, asked, primary, dump_config(base), devices, quiet)


def _folder(config: Source, run: str | Path | None) -> Path:
    folder = run_folder(config, run)
    if run is not None or folder.name.startswith("compare"):
        return folder
    return folder.with_name(f"compare-{folder.name}")


def _declared(folder: Path, key: str | None) -> dict[str, Any] | None:
    """The primary measure, and how many runs had been measured when it was declared."""
    if key is None:
        return None
    try:
        before = Comparison.read(folder).data
    except DataError:
        return {"key": key, "after": 0}
    kept: Mapping[str, Any] | None = before.get("primary")
    return dict(kept) if kept is not None and kept["key"] == key else {"key": key, "after": before["done"]}


def _carry_out(
    plan: Plan,
    scores: Sequence[str] | None,
    primary: str | None,
    config_text: str,
    devices: Sequence[str | None],
    quiet: bool,
) -> Comparison:
    """Do what is missing, and write results and report after every run."""
    keys = {(run.arm, run.seed): key_of(run.config, plan.data, scores) for run in plan.runs}
    declared = _declared(plan.folder, primary)
    runs = {(run.arm, run.seed): run for run in plan.runs}
    measured = {name: found for name, run in runs.items() if (found := finished(run, keys[name])) is not None}
    failed: dict[tuple[str, int], str] = {}
    first, untrained = plan.runs[0], plan.folder / _UNTRAINED
    notes = [*plan.notes, *([plan.judging] if plan.judging else ())]
    if len(devices) > 1:
        notes.append(f"{len(devices)} runs at a time shared this machine, and their times are those under that load.")
    about = environment(pick_device(first.config.train.device))

    def write() -> Comparison:
        result = collect(plan, measured, failed, read(untrained), notes, about, config_text, declared)
        write_report(plan.folder)
        return result

    def ended(task: Task, error: MaskedModelError | None) -> None:
        if task.run is not None and error is None:
            found = finished(runs[task.run], keys[task.run])
            assert found is not None, "a run that ended well was measured"
            measured[task.run] = found
        elif task.run is not None:
            failed[task.run] = str(error)
        write()

    learns = {arm.slug: arm.learns for arm in plan.arms}
    labels = {arm.slug: arm.label for arm in plan.arms}
    share = threads(len(devices))
    tasks = []
    for name, run in runs.items():
        if name not in measured:
            drawn = run.seed == plan.seeds[0]
            job = _job(run, run.folder, keys[name], share, scores, kind="run", learns=learns[run.arm], drawn=drawn)
            tasks.append(Task(f"{labels[run.arm]}, seed {run.seed}", job, name))
    standing, key = read(untrained), keys[first.arm, first.seed]
    if standing is None or standing.key != key:
        job = _job(first, untrained, key, share, scores, kind="untrained", learns=False, drawn=False)
        tasks.append(Task("weights at the start", job))
    if tasks:
        work(tasks, devices, done_before=len(measured), quiet=quiet, finished=ended)
    return write()


def _job(
    run: Run,
    folder: Path,
    key: str,
    share: int,
    scores: Sequence[str] | None,
    *,
    kind: str,
    learns: bool,
    drawn: bool,
) -> Job:
    values = run.config.model_dump(mode="json")
    return Job(kind, str(folder), values, key, learns, drawn, share, None if scores is None else list(scores))
