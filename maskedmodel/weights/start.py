"""Weights that a run starts from: whole, or not at all, with every tensor accounted for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskedmodel.config.sections import StartSettings, Trained
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import CheckpointError
from maskedmodel.files import path_of
from maskedmodel.plugins import Registry
from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.training.folder import write_json
from maskedmodel.weights.fitting import Plan, fit_channels_of_tokens, fit_patches, fit_positions, fit_prefix, fit_rest
from maskedmodel.weights.origin import START, origin
from maskedmodel.weights.place import CONFIG, EXPORT
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.report import LoadReport
from maskedmodel.weights.runs import load

log = logging.getLogger("maskedmodel")
_SIZES = (
    "dim",
    "depth",
    "heads",
    "mlp",
    "mlp_ratio",
    "repeat_positions",
)  # by which weights of a stack are of another model
_TOLD = ("norm_eps", "final_norm_eps")


@dataclass(frozen=True)
class StartReport:
    """What became of each tensor of the weights that a run starts from, and of each of the run's model.

    loaded, converted, fresh are names of the run's encoder and decoder, together all of them; `converted` with what was
    done. left_out are the start's tensors that have no place. `imported` is the report of foreign weights, `origin` the
    name and licence of the first ones, where that start had a start of its own.
    """

    source: str
    parts: str
    loaded: tuple[str, ...]
    converted: dict[str, str]
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    imported: LoadReport | None = field(default=None, compare=False)
    origin: dict[str, Any] | None = None

    def summary(self) -> str:
        """A few lines for people."""
        counts = f"{len(self.loaded)} loaded, {len(self.converted)} converted, {len(self.fresh)} fresh"
        lines = [f"It starts from {self.source}: {counts}, {len(self.left_out)} left out."]
        done: dict[str, list[str]] = {}
        for name, how in self.converted.items():
            done.setdefault(how, []).append(name)
        lines += [f"  converted: {_few(names)}: {how}" for how, names in done.items()]
        for what, names in (("fresh", self.fresh), ("left out", self.left_out)):
            if names:
                lines.append(f"  {what}: {_few(names)}")
        lines += [f"  note: {note}" for note in self.notes]
        if self.origin is not None and self.origin["licence"]:
            lines.append(f"  licence: {self.origin['licence']}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "source": self.source,
            "parts": self.parts,
            "loaded": list(self.loaded),
            "converted": self.converted,
            "fresh": list(self.fresh),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "origin": self.origin,
            "imported": None if self.imported is None else self.imported.as_dict(),
        }


def _few(names: Sequence[str]) -> str:
    """Names in short: blocks and whole halves as one."""
    groups: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        group = ".".join(parts[:2]) if len(parts) > 2 else name
        groups[group] = groups.get(group, 0) + 1
    sides = {name.split(".")[0] for name in names}
    if len(groups) > 6 and len(sides) == 1:
        return f"{sides.pop()} ({len(names)} tensors)"
    shown = [name if count == 1 else f"{name} ({count} tensors)" for name, count in groups.items()]
    return ", ".join(shown[:6]) + (f", and {len(shown) - 6} more" if len(shown) > 6 else "")


def begin(
    config: Trained, folder: Path, model: MaskedAutoencoder | FineTuned, registry: Registry, *, leads: bool = True
) -> None:
    """Put the start of a run into its model, tell what became of each tensor and keep it in start.json.

    Does nothing where the config names no start, or the run has checkpoints to go on from. Raises as `start`.
    """
    if config.start.weights is None or any((folder / "checkpoints").glob("step-*")):
        return
    report = start(model, config.start, registry)
    if leads:
        log.warning("%s", report.summary())
        write_json(folder / START, report.as_dict())


def start(
    model: MaskedAutoencoder | FineTuned, settings: StartSettings, registry: Registry | None = None
) -> StartReport:
    """Copy weights into a fresh model, converted where they have to be; all that belong or none.

    Of a model to be fine-tuned that is the encoder, and what the tokenizer measured where both cut signals alike.

    Raises CheckpointError where there are none or they can't be read, and where they don't fit: with the settings that
    differ, the tensors by name, and what would settle it.
    """
    assert settings.weights is not None
    source = path_of(settings.weights)
    theirs, imported = read_start(source, registry)
    has_decoder = isinstance(theirs, MaskedAutoencoder) and theirs.decoder_loaded
    plan = Plan(theirs, model, settings)
    _tokenizers(plan)
    decoder = settings.parts == "all" and has_decoder and isinstance(model, MaskedAutoencoder)
    for side in ("encoder", "decoder"):
        if side == "encoder" or decoder:
            _settings(plan, side)
            _tensors(plan, side)
        elif isinstance(model, FineTuned):
            _head(plan)
            _measured(plan)
        else:
            plan.fresh += [f"decoder.{name}" for name in model.decoder.state_dict()]
            why = "as start.parts says" if has_decoder else "the weights hold an encoder only"
            plan.notes.append(f"the decoder is fresh: {why}")
    if decoder:
        _objectives(plan)
    elsewhere = (name for name in theirs.state_dict() if _elsewhere(name, theirs, decoder))
    plan.left_out += sorted(name for name in elsewhere if name not in plan.tensors)
    plan.refuse(source)
    own = model.state_dict()
    for name, tensor in plan.tensors.items():
        own[name].copy_(tensor)
    return StartReport(
        source=str(source),
        parts=settings.parts,
        loaded=tuple(sorted(plan.tensors.keys() - plan.converted.keys())),
        converted=dict(sorted(plan.converted.items())),
        fresh=tuple(sorted(plan.fresh)),
        left_out=tuple(plan.left_out),
        notes=tuple(plan.notes),
        imported=imported,
        origin=_origin(source, imported),
    )


def _origin(source: Path, imported: LoadReport | None) -> dict[str, Any]:
    """What the run goes back to. Weights of a run that began fresh have no licence but that run's own."""
    if imported is not None:
        return {"source": source.name, "licence": imported.licence}
    return origin(source) or {"source": source.name, "licence": None}


def _elsewhere(name: str, theirs: MaskedAutoencoder | FineTuned, decoder: bool) -> bool:
    """Whether a tensor of the start belongs to nothing that is taken: its tokenizer, its mask, its decoder or head."""
    if name.startswith("encoder."):
        return False
    if name.startswith("decoder."):
        return not decoder and isinstance(theirs, MaskedAutoencoder) and theirs.decoder_loaded
    return True


def _head(plan: Plan) -> None:
    """The head of the start where it is of the same task and classes, else a fresh one, which is told."""
    theirs, model = plan.theirs, plan.model
    assert isinstance(model, FineTuned)
    new = model.task.state_dict()
    if isinstance(theirs, FineTuned):
        old = theirs.task.state_dict()
        same = type(theirs.task) is type(model.task) and theirs.labels.names == model.labels.names
        if same and {name: t.shape for name, t in old.items()} == {name: t.shape for name, t in new.items()}:
            learned = {name for name, _ in model.task.named_parameters()}
            for name in learned:
                plan.take(f"task.{name}", old[name])
            plan.fresh += [f"task.{name}" for name in new if name not in learned]
            plan.notes.append("its head is taken, too: it is of the same task and classes")
            return
        plan.notes.append("its head is left out, and a fresh one trained: it is of another task, or of other classes")
    plan.fresh += [f"task.{name}" for name in new]


def read_start(source: Path, registry: Registry | None) -> tuple[MaskedAutoencoder | FineTuned, LoadReport | None]:
    """A run, fine-tuned or not, a checkpoint or export of ours, or foreign weights with their report.

    Raises CheckpointError.
    """
    if (source / CONFIG).is_file() or (source / EXPORT).is_file() or source.parent.name == "checkpoints":
        return load(source, registry=registry), None
    try:
        return read_weights(source, registry=registry)
    except CheckpointError as error:
        if error.fix is not None and error.fix.startswith("Give "):  # an argument of `import`
            fix = f"{error.fix} `maskedmodel import {source}` takes it as an option; start from the run that it makes."
            raise CheckpointError(
                error.what, where=error.where, expected=error.expected, got=error.got, fix=fix
            ) from error
        raise


def _tokenizers(plan: Plan) -> None:
    """Whether both cut the same kind of signal."""
    theirs, ours = plan.theirs.tokenizer, plan.model.tokenizer
    names = theirs.component_name(), ours.component_name()
    if theirs.axes != ours.axes:
        axes = [", ".join(tokenizer.axes) for tokenizer in (theirs, ours)]
        plan.problem(
            f"tokenizer: they are of another modality, {names[0]} along {axes[0]}; this run has {names[1]} "
            f"along {axes[1]}"
        )
        return
    if names[0] != names[1]:
        plan.notes.append(f"its tokenizer was {names[0]!r}, this run's is {names[1]!r}")
    if isinstance(theirs, GridTokenizer) and isinstance(ours, GridTokenizer) and theirs.extents != ours.extents:
        sizes = [" x ".join(map(str, tokenizer.extents)) for tokenizer in (theirs, ours)]
        plan.notes.append(f"tokens fill a grid of {sizes[1]} cells, {sizes[0]} there")
    scales = [_statistics(tokenizer) for tokenizer in (theirs, ours)]
    if scales[0] != scales[1]:
        plan.notes.append(f"values are normalised with other numbers than there: {scales[1]} here, {scales[0]} there")


def _statistics(tokenizer: nn.Module) -> str:
    """What a tokenizer normalises with, in words."""
    mean, std, fitted = (getattr(tokenizer, name, None) for name in ("mean", "std", "fitted"))
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        return "none"
    if isinstance(fitted, Tensor) and not bool(fitted):
        return "measured on the data"
    numbers = [", ".join(f"{value:.4g}" for value in tensor.flatten().tolist()[:4]) for tensor in (mean, std)]
    return f"mean {numbers[0]} and spread {numbers[1]}"


def _measured(plan: Plan) -> None:
    """What the tokenizer of the start measured, where the run's has the same settings: the encoder knows no other."""
    theirs, ours = plan.theirs.tokenizer, plan.model.tokenizer
    if theirs.settings == ours.settings:
        for name, tensor in theirs.state_dict().items():
            assert tensor.shape == plan.new[f"tokenizer.{name}"].shape, "equal settings make equal buffers"
            plan.take(f"tokenizer.{name}", tensor)


def _settings(plan: Plan, side: str) -> None:
    """Settings by which equal tensors make another model."""
    there, here = (getattr(settings, side) for settings in (plan.theirs.settings, plan.model.settings))
    for name in (*_SIZES, *(("attention",) if side == "decoder" else ())):
        old, new = getattr(there, name), getattr(here, name)
        if name == "mlp_ratio" and int(there.dim * old) == int(here.dim * new):
            continue
        if old != new:
            fix = f"model.{side}.{name}={old if not isinstance(old, float) else f'{old:.8g}'}"
            plan.problem(f"model.{side}.{name}: {old} there, {new} here", fix, side)
    for name in _TOLD:
        old, new = getattr(there, name), getattr(here, name)
        if (old or there.norm_eps) != (new or here.norm_eps):
            plan.notes.append(f"model.{side}.{name} was {old}, is {new} here")


def _objectives(plan: Plan) -> None:
    """Whether the head was trained to predict something else."""
    assert isinstance(plan.model, MaskedAutoencoder)
    assert isinstance(plan.theirs, MaskedAutoencoder)
    there, here = (m.objective.settings.model_dump(mode="json") for m in (plan.theirs, plan.model))
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        changes = ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in names)
        plan.notes.append(f"the decoder's head was trained for another objective: {changes}")


def _tensors(plan: Plan, side: str) -> None:
    """Every tensor of one half."""
    if side == "encoder":
        fit_prefix(plan)
    if plan.same_kind:
        fit_patches(plan, side)
    fit_positions(plan, side)
    fit_channels_of_tokens(plan, side)
    fit_rest(plan, side)
