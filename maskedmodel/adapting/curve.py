"""What an encoder is worth by the number of labels: runs over label counts and seeds, each beside one from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from maskedmodel.adapting.run import adapt
from maskedmodel.adapting.source import from_scratch
from maskedmodel.aligned import aligned
from maskedmodel.config.finetune import AdaptSettings, FinetuneConfig
from maskedmodel.errors import ConfigError
from maskedmodel.evaluation.judged import Judged
from maskedmodel.evaluation.statistics import Difference, Spread
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.distributed import World
from maskedmodel.training.folder import claimed, write_json
from maskedmodel.training.tracking import Display, environment

RESULTS = "results.json"
WHOLE = "A run of a label curve goes on: all of them train the same number of steps."
STARTED, SCRATCH = "started", "from-scratch"  # folders of the two arms


@dataclass(frozen=True)
class CurvePoint:
    """One number of labels.

    labels       as asked for, such as "1%".
    count        how many labelled training samples that are.
    started      the score with the given weights, over seeds.
    scratch      the same from fresh weights, or None.
    difference   started - scratch, seed by seed, or None.
    """

    labels: str
    count: int
    started: Spread
    scratch: Spread | None
    difference: Difference | None


@dataclass(frozen=True)
class LabelCurve:
    """The points by number of labels, and what the score is."""

    folder: Path
    score: str
    higher: bool
    samples: int
    seeds: int
    steps: int
    points: tuple[CurvePoint, ...]

    def __str__(self) -> str:
        rows = [["labels", f"{self.score}, fine-tuned", "from scratch", "difference", "95 % interval", ""]]
        for point in self.points:
            rows.append(
                [str(point.count), _spread(point.started), _spread(point.scratch), *_difference(point.difference)]
            )
        return "\n".join([*aligned(rows), "", protocol(self)])


def protocol(curve: LabelCurve) -> str:
    """How the numbers came about, in words."""
    score = curve.score.capitalize() if curve.score.islower() else curve.score  # PCK and mIoU are spelled as they are
    return (
        f"{score} on {curve.samples} validation samples after {curve.steps} steps, mean over "
        f"{curve.seeds} seeds (standard deviation). A seed draws its own labelled samples, the fewer among the more, "
        "classes in their shares. From scratch: same data, recipe and steps, fresh weights, without layer-wise decay "
        "and freezing. Difference: seed by seed; interval: Student's; a verdict needs 3 seeds and both intervals, "
        "Student's and the bootstrap's, to leave out zero."
    )


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.3f}" + ("" if spread.deviation is None else f" ({spread.deviation:.3f})")


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["-", "-", ""]
    interval = "-" if found.student is None else f"[{found.student[0]:+.3f}, {found.student[1]:+.3f}]"
    return [f"{found.mean:+.3f}", interval, found.verdict]


def label_curve(
    config: FinetuneConfig,
    folder: Path,
    registry: Registry,
    world: World,
    *,
    labels: Sequence[int | str],
    seeds: int,
    scratch: bool,
    quiet: bool = False,
) -> LabelCurve | None:
    """Fine-tune with each number of labels and each seed, and where asked for from fresh weights, too.

    Every run has a folder of its own within `folder` and is finished, resumed or left as it is, so the same call goes
    on after a kill. Raises ConfigError on the same number twice. All ranks but the first get None.
    """
    if len({str(count) for count in labels}) < len(labels):
        raise ConfigError("A number of labels is given twice.", where="--labels", got=", ".join(map(str, labels)))
    arms = [STARTED, SCRATCH] if scratch else [STARTED]
    plan = [(count, arm, seed) for count in labels for arm in arms for seed in range(seeds)]
    scores: dict[tuple[str, str], list[Judged]] = {}
    counts: dict[str, int] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with Display("label curve", len(plan), quiet=quiet or not world.leads) as display:
        for done, (count, arm, seed) in enumerate(plan):
            display.update(done, f"{count} labels, {arm}, seed {seed}")
            own = _settled(config, count, seed)
            place = folder / f"labels-{str(count).replace('%', '-percent')}" / arm / f"seed-{seed}"
            start = from_scratch(own) if arm == SCRATCH else own
            found = adapt(start, place, registry, world, quiet=True, whole=WHOLE)
            if found is None:
                continue
            checkpoints.keep_last(place, 1)
            scores.setdefault((str(count), arm), []).append(found.judged)
            counts[str(count)] = found.labels
        display.update(len(plan))
    if not world.leads:
        return None
    first = next(iter(scores.values()))[0]
    points = tuple(
        _point(name, counts[name], scores, first.higher) for name in sorted(map(str, labels), key=counts.__getitem__)
    )
    curve = LabelCurve(folder, first.score, first.higher, first.samples, seeds, config.train.steps, points)
    with claimed(folder):
        _write(curve, world)
    return curve


def labelled_by(config: FinetuneConfig, labels: int | str) -> FinetuneConfig:
    """The config with another number of labels. Raises ConfigError where that is none."""
    try:
        settings = AdaptSettings.model_validate({**config.adapt.model_dump(), "labels": labels})
    except ValidationError as error:
        raise ConfigError(
            "This is no number of labels.",
            where="--labels",
            expected="a number above 0, or a share such as 10%",
            got=labels,
        ) from error
    return config.model_copy(update={"adapt": settings})


def _settled(config: FinetuneConfig, labels: int | str, seed: int) -> FinetuneConfig:
    train = config.train.model_copy(update={"seed": config.train.seed + seed})
    return labelled_by(config, labels).model_copy(update={"train": train})


def _point(labels: str, count: int, scores: dict[tuple[str, str], list[Judged]], higher: bool) -> CurvePoint:
    started = [judged.best.value for judged in scores[labels, STARTED]]
    if (labels, SCRATCH) not in scores:
        return CurvePoint(labels, count, Spread.of(started), None, None)
    scratch = [judged.best.value for judged in scores[labels, SCRATCH]]
    difference = Difference.of(started, scratch, "higher" if higher else "lower")
    return CurvePoint(labels, count, Spread.of(started), Spread.of(scratch), difference)


def _write(curve: LabelCurve, world: World) -> None:
    about = {
        "score": curve.score,
        "higher_is_better": curve.higher,
        "validation_samples": curve.samples,
        "seeds": curve.seeds,
        "steps": curve.steps,
        "protocol": protocol(curve),
        "environment": environment(world.device),
        "points": [asdict(point) for point in curve.points],
    }
    write_json(curve.folder / RESULTS, about)
