"""From finished runs to figures, statistics of every arm, and verdicts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from maskedmodel.comparison.budget import UNITS
from maskedmodel.comparison.plan import Plan, PlannedArm, Run
from maskedmodel.comparison.result import FORMAT, Comparison
from maskedmodel.comparison.scores import FINETUNE, RATIOS, Metric, judged_by, metrics_of
from maskedmodel.comparison.yardstick import Measured
from maskedmodel.config.load import NOT_SET, difference
from maskedmodel.evaluation.statistics import FEWEST, Difference, Spread
from maskedmodel.files import spreadsheet_cell
from maskedmodel.training.checkpoint import write_text
from maskedmodel.training.tracking import read_lines


def values_of(measured: Measured, run: Run | None) -> dict[str, float]:
    """The figures of one run; `run` None for weights that weren't trained."""
    values = {f"loss@{ratio}": loss for ratio, loss in measured.losses.items()}
    if measured.probe is not None:
        for row in measured.probe.rows[:1]:
            found = {"knn": row.knn, "linear": None if row.linear is None else row.linear.accuracy}
            values |= {name: accuracy.value for name, accuracy in found.items() if accuracy is not None}
        values |= {other.probe: next(iter(other.scores.values())).accuracy.value for other in measured.probe.others}
    values |= {f"{FINETUNE}:{labels}": tuned.value for labels, tuned in measured.tuned.items()}
    if run is None:
        return values
    values |= measured.masks | measured.speed
    if values.get("samples_per_second"):
        train = run.config.train
        values["train_seconds"] = train.steps * train.batch / values["samples_per_second"]
    return values


def curve_of(run: Run, arm: PlannedArm) -> list[list[float]]:
    """Validation loss along the run, against the share of its budget that was spent."""
    points = len(arm.spent) - 1
    curve = []
    for line in read_lines(run.folder / "metrics.jsonl"):
        if "val_loss" in line:
            place = line["step"] / arm.steps * points
            low = min(int(place), points - 1)
            share = arm.spent[low] + (arm.spent[low + 1] - arm.spent[low]) * (place - low)
            curve.append([round(share, 5), line["val_loss"]])
    return curve


def left_out(plan: Plan, measured: Mapping[tuple[str, int], Measured]) -> dict[str, str]:
    """Judged figures that can't be compared, and why."""
    reasons: dict[str, str] = {}
    first = plan.arms[0].config
    for section in ("tokenizer", "objective"):
        if any(arm.config[section] != first[section] for arm in plan.arms):
            reason = f"the arms differ in {section}, so that their losses aren't the same quantity"
            reasons |= {f"loss@{ratio:g}": reason for ratio in RATIOS}
    unprobed = {one.unprobed for one in measured.values() if one.unprobed}
    if unprobed:
        probed = [metric.key for metric in judged_by(plan.scores) if metric.better == "higher"]
        why = "; ".join(sorted(unprobed))
        reasons |= dict.fromkeys((key for key in probed if not key.startswith(f"{FINETUNE}:")), why)
    return reasons


def collect(
    plan: Plan,
    measured: Mapping[tuple[str, int], Measured],
    failed: Mapping[tuple[str, int], str],
    untrained: Measured | None,
    notes: Sequence[str],
    environment: Mapping[str, str],
    config_text: str,
    primary: Mapping[str, Any] | None = None,
) -> Comparison:
    """Statistics over what is finished, as results.json and results.csv in the comparison's folder."""
    reasons = left_out(plan, measured)
    by_key = {(run.arm, run.seed): run for run in plan.runs}
    values = {
        key: {name: value for name, value in values_of(one, by_key[key]).items() if name not in reasons}
        for key, one in measured.items()
    }
    metrics = metrics_of(plan.scores)
    arms = [_arm(plan, metrics, arm, by_key, values, measured, failed) for arm in plan.arms]
    data = {
        "format": FORMAT,
        "name": plan.folder.resolve().name,
        "budget": {"kind": plan.budget, "amount": plan.amount, "unit": UNITS[plan.budget], "first": plan.arms[0].label},
        "seeds": list(plan.seeds),
        "ratios": list(RATIOS),
        "done": len(measured),
        "total": len(plan.runs),
        "metrics": [asdict(metric) for metric in metrics],
        "primary": None if primary is None else dict(primary),
        "arms": arms,
        "untrained": None
        if untrained is None
        else {name: value for name, value in values_of(untrained, None).items() if name not in reasons},
        "left_out": reasons,
        "protocol": "; ".join(protocols_of(measured)),
        "notes": [*notes, *limits(plan, arms, primary)],
        "environment": dict(environment),
        "config": config_text,
    }
    content = json.dumps(data, indent=1) + "\n"
    write_text(plan.folder / "results.json", content)
    comparison = Comparison(plan.folder, json.loads(content))  # the same values as whoever reads the file has
    write_text(plan.folder / "results.csv", _csv(comparison.runs))
    return comparison


def protocols_of(measured: Mapping[tuple[str, int], Measured]) -> list[str]:
    """How the scores came about, each way once: the probes' common one, those of single probes, fine-tuning."""
    probes = [one.probe for one in measured.values() if one.probe is not None]
    others = [f"{other.title}: {other.protocol.rstrip('.')}" for probe in probes for other in probe.others]
    tuned = [one.protocol for run in measured.values() for one in run.tuned.values()]
    return [*sorted({probe.protocol for probe in probes}), *dict.fromkeys([*others, *tuned])]


def _arm(
    plan: Plan,
    metrics: Sequence[Metric],
    arm: PlannedArm,
    by_key: Mapping[tuple[str, int], Run],
    values: Mapping[tuple[str, int], Mapping[str, float]],
    measured: Mapping[tuple[str, int], Measured],
    failed: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
    """One arm's entry in results.json."""
    first = plan.arms[0].slug
    summary, against = {}, {}
    for metric in metrics:
        own = {
            seed: values[arm.slug, seed][metric.key]
            for seed in plan.seeds
            if metric.key in values.get((arm.slug, seed), {})
        }
        theirs = {seed: values[first, seed][metric.key] for seed in own if metric.key in values.get((first, seed), {})}
        if own:
            summary[metric.key] = asdict(Spread.of(list(own.values())))
        if theirs and metric.better is not None and arm.slug != first:
            difference = Difference.of([own[seed] for seed in theirs], list(theirs.values()), metric.better)
            against[metric.key] = asdict(_doubted(difference, plan, arm.slug, failed))
    drawn = measured.get((arm.slug, plan.seeds[0]))
    return {
        "label": arm.label,
        "slug": arm.slug,
        "steps": arm.steps,
        "cost": arm.cost,
        "flops": arm.flops,
        "scheduling": arm.scheduling,
        "differences": [[path, _plain(old), _plain(new)] for path, old, new in _settings(plan, arm)],
        "runs": [
            {
                "seed": seed,
                "folder": by_key[arm.slug, seed].folder.relative_to(plan.folder).as_posix(),
                "finished": (arm.slug, seed) in measured,
                "failed": failed.get((arm.slug, seed)),
                "values": dict(values.get((arm.slug, seed), {})),
                "curve": curve_of(by_key[arm.slug, seed], arm),
            }
            for seed in plan.seeds
        ],
        "summary": summary,
        "against": against,
        "mask_pictures": [] if drawn is None else drawn.mask_pictures,
        "reconstructions": [] if drawn is None else drawn.reconstructions,
    }


_ASIDE = ("train.checkpoint_every", "train.keep", "train.log_every", "train.validate_every")


def _settings(plan: Plan, arm: PlannedArm) -> list[tuple[str, Any, Any]]:
    """Where an arm's settings differ from the first's: path, theirs, ours."""
    configs = [next(run.config for run in plan.runs if run.arm == slug) for slug in (plan.arms[0].slug, arm.slug)]
    return [row for row in difference(*configs) if not row[0].startswith(_ASIDE)]


def _plain(value: Any) -> Any:
    """A value as JSON has it; None where there is no such setting."""
    return None if value is NOT_SET else value


def _doubted(difference: Difference, plan: Plan, slug: str, failed: Mapping[tuple[str, int], str]) -> Difference:
    """No verdict where runs of either arm failed: the ones that came through aren't a fair choice."""
    lost = sorted({seed for arm, seed in failed if arm in (slug, plan.arms[0].slug)})
    if not lost:
        return difference
    why = f"{len(lost)} of {len(plan.seeds)} seeds failed, and the others aren't a fair choice"
    return Difference(**{**vars(difference), "verdict": "no verdict", "why": why})


def limits(plan: Plan, arms: Sequence[Mapping[str, Any]], primary: Mapping[str, Any] | None = None) -> list[str]:
    """What these numbers can't say."""
    seeds = len(plan.seeds)
    verdicts = sum(len(arm["against"]) for arm in arms)
    notes = [
        f"Budget: {plan.amount:.4g} {UNITS[plan.budget]}, which {plan.arms[0].label!r} spends in "
        f"{plan.arms[0].steps:,} steps. Every other arm trains the number of steps that comes nearest to it, decided "
        "before it starts, so that its learning rate runs its whole course.",
        f"{seeds} {'seed' if seeds == 1 else 'seeds'} for each arm. Intervals are over seeds, which stand for weights "
        "at the start, order of the data, augmentation and masks; they say nothing about other data.",
        "A scheduler that trains near one of the yardstick's ratios has practised that ratio, which is why there are "
        "four; k-NN and linear probe know no ratio.",
        *(_by_what(plan, primary) if verdicts else ()),
    ]
    if seeds >= FEWEST and verdicts:
        notes.append(
            f"{verdicts} verdicts at 95 %: if nothing differed, about {max(round(verdicts / 20), 1)} of them would "
            "still say better or worse, since no correction is made for their number."
        )
    elif seeds < FEWEST:
        notes.append(f"Fewer than {FEWEST} seeds: no verdict is given, whatever the difference.")
    return notes


def _by_what(plan: Plan, primary: Mapping[str, Any] | None) -> list[str]:
    """Which figure the verdict is made by."""
    if primary is None:
        return [
            "No primary measure was declared, so there is a verdict for each figure on its own and none on an arm as a "
            "whole: --primary NAME, given before the runs, settles it."
        ]
    title = next(metric.title for metric in judged_by(plan.scores) if metric.key == primary["key"])
    late = primary["after"]
    when = (
        "before any run was measured" if not late else f"after {late} of the runs had been measured, so it is no plan"
    )
    return [f"Primary measure, by which the verdict on an arm is made: {title}, declared {when}."]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: spreadsheet_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
