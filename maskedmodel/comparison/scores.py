"""What a comparison scores its runs by: losses, probes of the frozen encoder, and fine-tuning with a few labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from maskedmodel.config.sections import Probe
from maskedmodel.errors import ConfigError, suggestion
from maskedmodel.evaluation.statistics import Direction

RATIOS = (0.25, 0.5, 0.75, 0.9)
DEFAULT = ("knn", "linear")
FINETUNE = "finetune"
# What a probe is called in a table, by the figures it gives.
_PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "knn": (("knn", "k-NN"),),
    "linear": (("linear", "linear probe"),),
    "attentive": (("attentive", "attentive probe"),),
    "efficient": (("efficient", "efficient probing"),),
    "class_queries": (("class_queries", "a query per class"),),
    "layers": (("layer", "best layer"), ("mixture", "mixture of layers")),
    "batchnorm": (("batchnorm", "BatchNorm and linear"),),
    "cls_mean": (("cls_mean", "class token and mean"),),
    "dense": (("dense", "dense probe, mIoU"),),
}
assert set(_PROBES) == set(get_args(Probe))


@dataclass(frozen=True)
class Metric:
    """A figure of a run. `better` says which way a verdict goes, None that there is none. `main`: in the main table."""

    key: str
    title: str
    better: Direction | None
    digits: int
    main: bool = True


def scores_of(asked: Sequence[str]) -> tuple[str, ...]:
    """The scores asked for, each once: names of probes, and finetune:LABELS with a number of labels or a share.

    Each of `asked` may hold several, with commas between. Raises ConfigError on what is none, with the list.
    """
    found: list[str] = []
    for name in (part.strip() for text in asked for part in text.split(",")):
        kind, _, labels = name.partition(":")
        if kind == FINETUNE:
            name = f"{FINETUNE}:{_labels(labels, name)}"
        elif name not in _PROBES:
            known = [*_PROBES, f"{FINETUNE}:LABELS"]
            raise ConfigError(
                "There is no such score.", where="--score", expected=", ".join(known), got=name or "nothing",
                fix=suggestion(name, [*_PROBES, FINETUNE]),
            )  # fmt: skip
        if name not in found:
            found.append(name)
    return tuple(found)


def _labels(text: str, name: str) -> str:
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share is not None and 0 < float(share[1]) <= 100:
        return f"{float(share[1]):g}%"
    if re.fullmatch(r"\d+", text) and int(text):
        return str(int(text))
    raise ConfigError(
        "Fine-tuning as a score needs a number of labels.",
        where="--score",
        expected="finetune:LABELS, with a number above 0 or a share up to 100%",
        got=name,
        fix="Write it like finetune:1%, finetune:100, or finetune:100% for all labels.",
    )


def probes_of(scores: Sequence[str]) -> tuple[Probe, ...]:
    """Those that judge the frozen encoder."""
    return tuple(name for name in get_args(Probe) if name in scores)


def by_label(scores: Sequence[str]) -> tuple[str, ...]:
    """Those that need a label per sample: all but the dense probe, which needs a class for each place."""
    return tuple(name for name in scores if name != "dense")


def labels_of(scores: Sequence[str]) -> tuple[str, ...]:
    """The numbers of labels that the encoder is fine-tuned with."""
    return tuple(name.partition(":")[2] for name in scores if name.startswith(f"{FINETUNE}:"))


def judged_by(scores: Sequence[str]) -> tuple[Metric, ...]:
    """The figures that verdicts are about: the losses, then the scores in their order."""
    losses = [Metric(f"loss@{ratio:g}", f"masked loss at {ratio:g}", "lower", 4) for ratio in RATIOS]
    rows: list[tuple[str, str]] = []
    for name in scores:
        labels = name.partition(":")[2]
        rows += _PROBES.get(name) or ((name, f"fine-tuned, {labels}{'' if '%' in labels else ' labels'}"),)
    return (*losses, *(Metric(key, title, "higher", 4) for key, title in rows))


def metrics_of(scores: Sequence[str]) -> tuple[Metric, ...]:
    """Every figure of a run."""
    return (
        *judged_by(scores),
        Metric("samples_per_second", "samples per second", None, 1),
        Metric("train_seconds", "seconds of training", None, 1),
        Metric("memory_mb", "peak memory, MiB", None, 0),
        Metric("ratio", "share hidden", None, 4),
        Metric("entropy", "mask entropy, bits", None, 3),
        Metric("entropy_most", "largest possible mask entropy", None, 3, main=False),
        Metric("hidden_least", "position least often hidden", None, 3, main=False),
        Metric("hidden_most", "position most often hidden", None, 3, main=False),
    )


def primary_of(asked: str | None, scores: Sequence[str]) -> str | None:
    """The figure that the verdict is made by, None where none was declared. Raises ConfigError on what is none."""
    known = [metric.key for metric in judged_by(scores)]
    if asked is None or asked in known:
        return asked
    raise ConfigError(
        "The primary measure is none of the scores of this comparison.",
        where="--primary",
        expected=", ".join(known),
        got=asked,
        fix=f"{suggestion(asked, known)} Others come with --score.",
    )
