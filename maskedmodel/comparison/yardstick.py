"""How all arms are measured: in one way, which is no arm's own way of masking.

Validation loss under uniform masks at four ratios, keyed by sample alone, so that the same weights always score the
same, whatever scheduler trained them; k-NN and a linear probe on the frozen encoder, or the probes asked for, and what
fine-tuning came to. Beside it what an arm's masks are like, and what its training cost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from maskedmodel.comparison.finetuning import Tuned
from maskedmodel.comparison.masks import SHOWN, Pictures, along_the_run, column, look
from maskedmodel.comparison.plan import Run
from maskedmodel.comparison.scores import DEFAULT, RATIOS, by_label, labels_of, probes_of
from maskedmodel.components import SampleDataset
from maskedmodel.config.build import Components
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import DataError, PluginError
from maskedmodel.evaluation.probes import ProbeResult, probe
from maskedmodel.evaluation.reconstruct import FIXED, complete, masked_picture
from maskedmodel.plugins import Registry
from maskedmodel.tokens import Mask
from maskedmodel.training.checkpoint import find, read_state
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.folder import write_json
from maskedmodel.training.masked import validation_loss
from maskedmodel.training.tracking import read_lines

FORMAT = 1
SEED = 0  # of the yardstick's masks and of the probe's held-out part, whatever the run's own
# Settings of evaluate that change nothing of what is measured here.
_APART = ("pictures", "probes", "probe_epochs", "finetune_steps", "token_memory", "every", "every_samples", "map")
_FILE, _PICTURES = "yardstick.json", "yardstick"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """What a run scored. `probe` is None where `unprobed` says why; `tuned` is by the number of labels."""

    key: str
    losses: dict[str, float]
    probe: ProbeResult | None
    unprobed: str
    masks: dict[str, float]
    mask_pictures: Pictures
    reconstructions: Pictures
    speed: dict[str, float]
    tuned: dict[str, Tuned] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        tuned = {labels: one.to_dict() for labels, one in self.tuned.items()}
        return {**vars(self), "probe": None if self.probe is None else self.probe.to_dict(), "tuned": tuned}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measured:
        found = values["probe"]
        tuned = {labels: Tuned.from_dict(one) for labels, one in values.get("tuned", {}).items()}
        return cls(**{**values, "probe": None if found is None else ProbeResult.from_dict(found), "tuned": tuned})


def key_of(config: RunConfig, data: Mapping[str, str], scores: Sequence[str] | None = None) -> str:
    """What a measurement depends on beside the weights: where it differs, a run is measured again.

    scores  those asked for; None: what the config says of k-NN and linear probe.
    """
    evaluate = config.evaluate
    evaluated = evaluate.model_dump(mode="json", exclude=set(_APART))
    parts = [FORMAT, RATIOS, SEED, evaluated, config.train.validation_samples, dict(data)]
    if scores is not None and not (set(scores) == set(DEFAULT) and evaluate.probe):
        parts.append(sorted(scores))
        parts += [evaluate.probe_epochs] if set(probes_of(scores)) - set(DEFAULT) else []
        parts += [evaluate.finetune_steps] if labels_of(scores) else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read(folder: Path) -> Measured | None:
    """The measurement in a folder, whatever its yardstick; None where there is none, or one of another version."""
    try:
        return Measured.from_dict(json.loads((folder / _FILE).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished(run: Run, key: str) -> Measured | None:
    """The measurement of a run that trained to its end and was measured with this yardstick, else None."""
    measured = read(run.folder)
    if measured is None or measured.key != key:
        return None
    last = find(run.folder)
    return measured if last is not None and read_state(last)["step"] == run.config.train.steps else None


def measure(
    config: RunConfig,
    folder: Path,
    model: MaskedAutoencoder,
    parts: Components,
    registry: Registry,
    world: World,
    *,
    key: str,
    learns: bool,
    drawn: bool,
    progress: Progress,
    scores: Sequence[str] | None = None,
    tuned: Mapping[str, Tuned] | None = None,
) -> Measured:
    """Score a trained model and write yardstick.json.

    drawn   with pictures, for which one seed is enough.
    scores  those asked for; None: k-NN and linear probe where the config and the data allow them.
    tuned   what fine-tuning came to.
    """
    data = parts.source.open("val")
    losses = {}
    for number, ratio in enumerate(RATIOS):
        progress("validation", number, len(RATIOS))
        losses[f"{ratio:g}"] = loss_at(model, data, config, ratio, world)
    progress("validation", len(RATIOS), len(RATIOS))
    probed, unprobed = _probed(config, model, parts, world, progress, scores)
    pictures = folder / _PICTURES if drawn else None
    progress("masks", 0, 1)
    before = read(folder)  # checkpoints on the way are gone by then, and no other yardstick changes the masks
    if before is None:
        states = along_the_run(config, folder, model, learns, registry, parts.source)
        report, drawings = look(states, data, config, pictures)
        drawn_masks = report.to_dict()
    else:
        drawn_masks, drawings = before.masks, before.mask_pictures
    progress("masks", 1, 1)
    reconstructions = _reconstructions(config, model, data, pictures) if pictures is not None else []
    measured = Measured(
        key, losses, probed, unprobed, drawn_masks, drawings, reconstructions, speed_of(folder), dict(tuned or {})
    )
    write_json(folder / _FILE, measured.to_dict())
    return measured


def loss_at(model: MaskedAutoencoder, data: SampleDataset, config: RunConfig, ratio: float, world: World) -> float:
    """Loss per hidden token under the yardstick's masks of one ratio: a function of the weights and the data alone."""
    fixed = config.train.model_copy(update={"validation_ratio": ratio, "seed": SEED})
    return validation_loss(model, data, fixed, world)


def _probed(
    config: RunConfig,
    model: MaskedAutoencoder,
    parts: Components,
    world: World,
    progress: Progress,
    scores: Sequence[str] | None,
) -> tuple[ProbeResult | None, str]:
    probes = probes_of(DEFAULT if scores is None else scores)
    if scores is None and not config.evaluate.probe:
        return None, "evaluate.probe is off"
    if not probes:
        return None, ""
    if by_label(probes) and parts.source.class_names() is None:
        return None, "the data have no labels"
    try:
        result = probe(
            model,
            parts.source,
            config.evaluate.model_copy(update={"probes": probes}),
            Reading.of(config.train, world.device),
            seed=SEED,
            baselines=False,
            progress=progress,
        )
    except DataError as error:
        return None, error.what.rstrip(".")
    return result, ""


@torch.no_grad()
def _reconstructions(config: RunConfig, model: MaskedAutoencoder, data: SampleDataset, folder: Path) -> Pictures:
    """Original, masked, and completed with the visible parts pasted in: the same few samples and masks for all."""
    batches = eval_batches(data, model.tokenizer, Reading.of(config.train, model.device, batch=SHOWN, limit=SHOWN))
    batch = next(iter(batches))
    tokens = model.tokens(batch.signal)
    scores = batch.noise(SEED, FIXED).uniform(tokens.length, "yardstick")
    assert config.train.validation_ratio is not None, "a comparison sets one ratio for all"
    mask = Mask.from_scores(scores, config.train.validation_ratio, tokens.valid)
    draw = model.tokenizer.picture
    try:
        done = complete(model, batch.signal, batch.ids, mask=mask)
    except PluginError:
        return []  # an objective whose predictions are no signal
    original = done.signals["original"]
    shown = {
        "original": draw(original),
        "masked": masked_picture(model.tokenizer, tokens, mask),
        "reconstruction": draw(done.signals["pasted"], original),
    }
    return [column(title, pictures, folder, title) for title, pictures in shown.items()]


def speed_of(folder: Path) -> dict[str, float]:
    """Samples a second in training, median over the lines of timings.jsonl, and the peak of memory in MiB."""
    lines = read_lines(folder / "timings.jsonl")
    if not lines:
        return {}
    return {
        "samples_per_second": median(line["samples_per_second"] for line in lines),
        "memory_mb": max(line["memory_mb"] for line in lines),
    }
