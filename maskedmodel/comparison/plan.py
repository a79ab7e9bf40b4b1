"""Which runs a comparison consists of, settled and checked before the first of them starts.

DIR/plan.json             the budget, the data's fingerprints, every arm's config, steps and cost
DIR/runs/<arm>/seed-<n>/  an ordinary run folder
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskedmodel.comparison.arms import Arm, Source
from maskedmodel.comparison.budget import UNITS, Budget, Stand, costs_of, scheduling, spent, steps_within, total
from maskedmodel.comparison.judging import check, said_of
from maskedmodel.comparison.scores import DEFAULT
from maskedmodel.config.load import difference, load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError, DataError, MaskedModelError
from maskedmodel.plugins import Registry
from maskedmodel.training.fingerprint import fingerprint
from maskedmodel.training.folder import FREE, settle, write_json

FORMAT = 1
QUARTERS = 4  # at which the state of a scheduler that learns is kept
_VALIDATIONS = 8  # on the way, where the config doesn't say
_LINES = 50  # of metrics, at least


@dataclass(frozen=True)
class PlannedArm:
    """An arm, its steps under the budget, and its cost: in all, and the share spent along the run.

    flops       training work of the whole run, the scheduler's with it, and
    scheduling  the scheduler's share of that.
    """

    label: str
    slug: str
    overrides: tuple[str, ...]
    config: dict[str, Any]
    steps: int
    cost: float
    spent: tuple[float, ...]
    flops: float
    scheduling: float
    learns: bool

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PlannedArm:
        return cls(**{**values, "overrides": tuple(values["overrides"]), "spent": tuple(values["spent"])})


@dataclass(frozen=True)
class Run:
    """One arm under one seed, and where it lives."""

    arm: str
    seed: int
    folder: Path
    config: RunConfig


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    amount   the budget, in the unit of its kind, as the first arm's steps set it.
    scores   what runs are judged by beside their losses.
    judging  what that costs, where it was asked for.
    """

    folder: Path
    budget: Budget
    amount: float
    arms: tuple[PlannedArm, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    data: dict[str, str]
    notes: tuple[str, ...]
    scores: tuple[str, ...] = DEFAULT
    judging: str = ""


def make_plan(
    folder: Path,
    source: Source,
    overrides: Sequence[str],
    arms: Sequence[Arm],
    *,
    seeds: int,
    budget: Budget,
    registry: Registry,
    scores: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> Plan:
    """Settle every run and hold it against what lies in the folder.

    Raises ConfigError or DataError, naming the setting, where an arm can't be trained, or where runs in the folder
    were made with other settings, another budget or other data: then they could not be compared.
    """
    if seeds < 1:
        raise ConfigError("A comparison needs 1 seed or more.", where="--seeds", expected="1 or more", got=seeds)
    if len(arms) < 2:
        raise ConfigError(
            "There is nothing to compare.",
            where="--mask, --vary",
            expected="2 or more",
            got=", ".join(arm.label for arm in arms) or "none",
            fix="Name several: --mask uniform --mask ramped.",
        )
    stands = []
    for index, arm in enumerate(arms):
        progress("trying", index, len(arms))
        stands.append(_stand(arm, registry))
    progress("trying", len(arms), len(arms))
    if scores is not None:
        check(scores, stands, folder, registry)
    timeout = stands[0].config.train.data_timeout
    data = {split: fingerprint(stands[0].source.open(split), timeout) for split in ("train", "val")}
    first = arms[0].config
    before = _read(folder)
    known = {} if before is None else {arm["slug"]: PlannedArm.from_dict(arm) for arm in before["arms"]}
    if before is not None:
        _same_data(before["data"], data, folder)
        for arm in arms:
            if arm.slug in known:
                _same_config(known[arm.slug], arm.config, folder, registry)
    amount, planned = _budgeted(arms, stands, budget, before, known, progress)
    if before is not None:
        _same_budget(before["budget"], budget, amount, arms[0].label, folder)
    numbers = tuple(first.train.seed + index for index in range(seeds))
    runs = [
        Run(
            arm.slug,
            seed,
            folder / "runs" / arm.slug / f"seed-{seed}",
            _settled(source, overrides, arm, seed, registry),
        )
        for seed in numbers
        for arm in planned
    ]
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        settle(run.folder, run.config, registry)
    every = {**known, **{arm.slug: arm for arm in planned}}
    write_json(
        folder / "plan.json",
        {
            "format": FORMAT,
            "budget": {"kind": budget, "amount": amount, "first": arms[0].label},
            "data": data,
            "arms": [asdict(arm) for arm in every.values()],
        },
    )
    judging = "" if scores is None else said_of(scores, stands[0], folder, registry, planned[0].flops)
    return Plan(
        folder,
        budget,
        amount,
        tuple(planned),
        numbers,
        tuple(runs),
        data,
        tuple(notes),
        DEFAULT if scores is None else tuple(scores),
        judging,
    )


def _stand(arm: Arm, registry: Registry) -> Stand:
    try:
        return Stand.of(arm.config, registry)
    except MaskedModelError as error:
        where = arm.origin if error.where is None else f"{error.where}, in {arm.origin}"
        raise type(error)(error.what, where=where, expected=error.expected, got=error.got, fix=error.fix) from error


def _budgeted(
    arms: Sequence[Arm],
    stands: Sequence[Stand],
    budget: Budget,
    before: dict[str, Any] | None,
    known: dict[str, PlannedArm],
    progress: Callable[[str, int, int], None],
) -> tuple[float, list[PlannedArm]]:
    """The budget, and the arms with their steps. What is planned already stays: a time is measured once."""
    steps = arms[0].config.train.steps
    stays = before is not None and before["budget"]["kind"] == budget and before["budget"]["first"] == arms[0].label
    if stays and before is not None and all(arm.slug in known for arm in arms):
        return before["budget"]["amount"], [known[arm.slug] for arm in arms]
    progress(f"counting {UNITS[budget]}", 0, 1)
    costs = costs_of(stands, budget)
    work = costs if budget == "flops" else costs_of(stands, "flops")
    progress(f"counting {UNITS[budget]}", 1, 1)
    amount = before["budget"]["amount"] if stays and before is not None else total(costs[0], steps)
    planned = []
    for index, (arm, stand, cost) in enumerate(zip(arms, stands, costs, strict=True)):
        if stays and arm.slug in known:
            planned.append(known[arm.slug])
            continue
        own = steps if index == 0 else steps_within(cost, amount)
        flops = total(work[index], own)
        planned.append(
            PlannedArm(
                arm.label,
                arm.slug,
                arm.overrides,
                arm.config.model_dump(mode="json"),
                own,
                total(cost, own),
                tuple(spent(cost, own)),
                flops,
                own * scheduling(stand) / flops,
                bool(stand.model.scheduler.state_dict()),
            )
        )
    return amount, planned


def _settled(source: Source, overrides: Sequence[str], arm: PlannedArm, seed: int, registry: Registry) -> RunConfig:
    """The config of one run: the arm's, its steps, and how often it looks at itself."""
    train = arm.config["train"]
    quarter = max(arm.steps // QUARTERS, 1)
    forced = {
        "steps": arm.steps,
        "seed": seed,
        "validate_every": train["validate_every"] or max(arm.steps // _VALIDATIONS, 1),
        "log_every": min(train["log_every"], max(arm.steps // _LINES, 1)),
    }
    if arm.learns:  # its masks along the run are those of its state along the run
        forced |= {"checkpoint_every": quarter, "keep": QUARTERS + 2}
    changes = [f"train.{key}={value}" for key, value in forced.items()]
    return load_config(source, [*overrides, *arm.overrides, *changes], registry=registry)


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / "plan.json"
    if not path.exists():
        if (folder / "config.yaml").exists():
            raise ConfigError(
                "This folder holds a run, not a comparison.", where=folder, fix="Choose another with --run."
            )
        return None
    try:
        plan: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("The comparison's plan can't be read.", where=path, got=str(error)) from error
    if plan.get("format") != FORMAT:
        raise DataError(
            "The comparison was made by another version.", where=path, expected=FORMAT, got=plan.get("format")
        )
    return plan


_ANOTHER = "Give it as it was to go on, or start another comparison with --run ANOTHER_FOLDER."


def _same_data(before: dict[str, str], now: dict[str, str], folder: Path) -> None:
    names = {"train": "training", "val": "validation"}
    for split in ("val", "train"):
        if before[split] != now[split]:
            raise DataError(
                f"The {names[split]} data aren't those that the runs in this folder were made with, so that they can't "
                "be compared.",
                where=f"data, in {folder}",
                expected=f"data set {before[split]}",
                got=f"data set {now[split]}",
                fix=_ANOTHER,
            )


def _same_config(before: PlannedArm, now: RunConfig, folder: Path, registry: Registry) -> None:
    changed = difference(load_config(before.config, registry=registry), now)
    bound = [(where, old, new) for where, old, new in changed if not where.startswith(FREE)]
    if bound:
        raise ConfigError(
            "The runs in this folder were made with another config.",
            where=folder,
            got="; ".join(f"{where} was {old!r}, now {new!r}" for where, old, new in bound),
            fix=_ANOTHER,
        )


def _same_budget(before: dict[str, Any], kind: Budget, amount: float, first: str, folder: Path) -> None:
    same = before["kind"] == kind and abs(before["amount"] - amount) <= 1e-9 * abs(amount)
    if not same:
        raise ConfigError(
            "The runs in this folder were made under another budget.",
            where=f"--budget, train.steps and the first arm, in {folder}",
            expected=f"{before['amount']:.6g} {UNITS[before['kind']]}, {before['first']!r} first",
            got=f"{amount:.6g} {UNITS[kind]}, {first!r} first",
            fix=_ANOTHER,
        )
