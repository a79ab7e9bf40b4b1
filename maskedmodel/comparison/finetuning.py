"""Fine-tuning as a yardstick: each run's encoder adapted to a few labels, by one recipe and the same for all arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskedmodel.adapting.run import adapt, told_once
from maskedmodel.adapting.source import from_scratch, of_pretraining
from maskedmodel.comparison.scores import labels_of
from maskedmodel.config.build import build_finetune
from maskedmodel.config.files import read_config
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.plugins import Registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.data import Reading
from maskedmodel.training.distributed import World
from maskedmodel.training.labelled import labelled

_FOLDER = "finetune"


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning with so many labels came to, in [0, 1] where the task's score is an accuracy."""

    labels: str
    score: str
    value: float
    low: float
    high: float
    count: int
    samples: int
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tuned:
        return cls(**values)


def config_of(
    config: RunConfig, folder: Path, labels: str, registry: Registry, *, untrained: bool = False
) -> FinetuneConfig:
    """How the encoder of the run in `folder` is fine-tuned: by the recipe of `maskedmodel finetune`.

    untrained  the weights that the run started from: those that its config names, else fresh ones, for which nothing
               protects what was learnt.
    """
    start = config.start.model_dump(mode="json") if untrained else {"weights": str(_weights(folder, labels, config))}
    steps = config.evaluate.finetune_steps
    given = of_pretraining(config.model_dump(mode="json"), start)
    # A comparison may be killed at any moment, and what is done within a quarter isn't done again.
    changes = [f"train.steps={steps}", f"train.checkpoint_every={max(steps // 4, 1)}", "train.keep=1"]
    found = load_config(given, [f"adapt.labels={labels}", *changes], registry=registry, kind=FinetuneConfig)
    return from_scratch(found) if untrained and config.start.weights is None else found


def place_of(folder: Path, labels: str, config: RunConfig) -> Path:
    """Where a run is fine-tuned: a run folder within its own."""
    name = f"labels-{labels.replace('%', '-percent')}-steps-{config.evaluate.finetune_steps}"
    return folder / _FOLDER / name


def _weights(folder: Path, labels: str, config: RunConfig) -> str | Path:
    """The run's folder; what was begun keeps the name it began with, so that a comparison may be moved."""
    place = place_of(folder, labels, config)
    if checkpoints.find(place) is None:
        return folder.resolve()
    kept: str | None = read_config(place / "config.yaml").get("start", {}).get("weights")
    return kept or folder.resolve()


def finetuned(
    config: RunConfig,
    folder: Path,
    scores: Sequence[str],
    registry: Registry,
    world: World,
    *,
    untrained: bool = False,
    progress: Any = lambda title, done, total: None,
) -> dict[str, Tuned]:
    """Fine-tune with each number of labels among the scores; what is finished is read, what was begun goes on.

    The labels are drawn by the run's seed: the same for every arm of a seed, classes in their shares, the fewer among
    the more. Raises as `maskedmodel finetune`.
    """
    found = {}
    with told_once():
        for labels in labels_of(scores):
            settled = config_of(config, folder, labels, registry, untrained=untrained)
            place = place_of(folder, labels, config)
            progress(f"fine-tuning, {labels} labels", 0, 1)
            place.mkdir(parents=True, exist_ok=True)
            adapted = adapt(settled, place, registry, world, quiet=True)
            assert adapted is not None, "this process leads"
            checkpoints.keep_last(place, 1)
            judged = adapted.judged
            found[labels] = Tuned(
                labels,
                judged.score,
                judged.best.value,
                judged.best.low,
                judged.best.high,
                adapted.labels,
                judged.samples,
                protocol(settled, labels, adapted.labels, judged.samples, judged.score),
            )
            progress(f"fine-tuning, {labels} labels", 1, 1)
    return found


def protocol(config: FinetuneConfig, labels: str, count: int, samples: int, score: str) -> str:
    """How the number came about, in words that are the same for every run."""
    return (
        f"Fine-tuned with {labels} of the labels: {count} training samples, drawn by the seed and the same for every "
        f"arm of it, classes in their shares, {config.train.steps} steps of {config.train.batch} samples by the recipe "
        f"of `maskedmodel finetune`; {score} on {samples} validation samples after the last step. Weights at the start "
        "are fine-tuned alike; fresh ones without layer-wise decay and freezing"
    )


def check_labels(config: RunConfig, scores: Sequence[str], folder: Path, registry: Registry, world: World) -> None:
    """Refuse, before anything is trained, numbers of labels that the data don't have. Raises DataError."""
    for labels in labels_of(scores):
        settled = config_of(config, folder, labels, registry, untrained=True)
        parts = build_finetune(settled, registry)
        assert parts.source is not None
        reading = Reading.of(settled.train, world.device)
        labelled(parts.source, reading, settled.adapt.labels, settled.train.seed, parts.task.strata)
