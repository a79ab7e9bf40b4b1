"""Models of runs, and folders of imported weights that load the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maskedmodel.config.files import read_config, to_yaml
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.settings import EncoderOnly, ModelSettings
from maskedmodel.errors import CheckpointError, ConfigError, MaskedModelError, suggestion
from maskedmodel.files import path_of
from maskedmodel.noise import seeded
from maskedmodel.plugins import Kind, Registry, load_registry, using
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.weights.finetuned import is_finetuned, labels_from, load_finetuned
from maskedmodel.weights.foreign import read_json
from maskedmodel.weights.place import CONFIG, EXPORT, OWN, WEIGHTS, require_run
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.report import LoadReport

_PARTS: dict[str, Kind] = {"tokenizer": "tokenizer", "mask": "mask_scheduler", "objective": "objective"}


def load(
    run: str | Path,
    *,
    checkpoint: str | Path | int | None = None,
    device: str | torch.device = "cpu",
    registry: Registry | None = None,
) -> MaskedAutoencoder | FineTuned:
    """The model of a run, of one of its checkpoints, of imported weights or of an export, in evaluation mode.

    A pretrained one is a MaskedAutoencoder, a fine-tuned one a FineTuned; both have `encoder`, `encode` and `embed`.

    run          a run's folder, the folder of one checkpoint in it, or a folder that `maskedmodel export` wrote to
                 safetensors, huggingface or timm.
    checkpoint   the step, the name such as "step-00001000", "best": the one of the lowest validation loss, which
                 train.keep_best keeps, or None: the newest whole one.

    The run's data needn't be there. Raises CheckpointError where run or checkpoint is missing, damaged, or of another
    shape than its config says; ConfigError and PluginError where the config can't be used here.
    """
    folder = path_of(run)
    if (folder / EXPORT).is_file():
        if checkpoint is not None:
            raise CheckpointError("An export has no checkpoints.", where=folder, got=f"checkpoint={checkpoint}")
        return _exported(folder, registry).to(device).eval()
    folder, chosen = chosen_checkpoint(folder, checkpoint)
    registry = registry if registry is not None else load_registry()
    path = folder / CONFIG
    config = read_config(path)
    if is_finetuned(config):
        return load_finetuned(folder, chosen, registry)[0].to(device).eval()
    model = _build(config, path, registry)
    state = checkpoints.read_state(chosen)
    _fill(model, checkpoints.read_model(chosen), state.get("encoder_only") is True, chosen)
    return model.to(device).eval()


def load_pretrained(
    run: str | Path, *, checkpoint: str | Path | int | None = None, registry: Registry | None = None
) -> MaskedAutoencoder:
    """As `load`, for what needs a decoder. Raises CheckpointError on a fine-tuned run."""
    model = load(run, checkpoint=checkpoint, registry=registry)
    if isinstance(model, FineTuned):
        raise CheckpointError(
            "This is a fine-tuned run: it has a head and no decoder.",
            where=run,
            expected="a pretrained run",
            fix="Name the run it started from, which its start.json tells; `maskedmodel predict` and `maskedmodel "
            "embed` use the fine-tuned one.",
        )
    return model


def chosen_checkpoint(folder: Path, checkpoint: str | Path | int | None = None) -> tuple[Path, Path]:
    """A run's folder and the folder of one of its checkpoints, as `load` takes them. Raises as `load`."""
    if folder.parent.name == "checkpoints" and (folder.parent.parent / CONFIG).is_file():
        if checkpoint is not None:
            raise CheckpointError("This folder is a checkpoint already.", where=folder, got=f"checkpoint={checkpoint}")
        folder, checkpoint = folder.parent.parent, folder.name
    require_run(folder)
    return folder, checkpoints.newest(folder) if checkpoint is None else _checkpoint(folder, checkpoint)


def _fill(model: MaskedAutoencoder, tensors: dict[str, Tensor], encoder_only: bool, where: Path) -> None:
    """Load a state dict; that of an encoder leaves the decoder as it is, and says so."""
    if encoder_only:
        model.decoder_loaded = False
        tensors |= {name: t for name, t in model.state_dict().items() if name.startswith("decoder.")}
    checkpoints.load_weights(model, tensors, where)


def _exported(folder: Path, registry: Registry | None) -> MaskedAutoencoder | FineTuned:
    """The model of an export. Raises CheckpointError on a graph, which is no model of ours any more."""
    about = read_json(folder / EXPORT)
    target = about.get("target")
    if target == "safetensors":
        return load_own(folder, registry)
    if target in ("huggingface", "timm"):
        return read_weights(folder, registry=registry)[0]
    raise CheckpointError(
        "This export is a graph, which runs without maskedmodel.",
        where=folder,
        expected="an export to safetensors, huggingface or timm",
        got=f"one to {target}",
        fix=f"Load it with {about.get('load', 'the library that it is for')}.",
    )


def as_config(model: MaskedAutoencoder) -> dict[str, Any]:
    """What config.json of our own layout says: the components and sizes, as in a run's config."""
    parts = {section: settings.model_dump(mode="json") for section, settings in _parts_of(model).items()}
    return {"format": OWN, "version": 1, "encoder_only": not model.decoder_loaded, **parts}


def _parts_of(model: MaskedAutoencoder) -> dict[str, Any]:
    return {
        "tokenizer": model.tokenizer.settings,
        "mask": model.scheduler.settings,
        "objective": model.objective.settings,
        "model": model.settings,
    }


def load_own(folder: Path, registry: Registry | None = None) -> MaskedAutoencoder | FineTuned:
    """The model of a folder in our own layout. Raises CheckpointError where it is damaged or of another format."""
    path = folder / "config.json"
    config = read_json(path)
    if config.get("format") != OWN or config.get("version") != 1:
        raise CheckpointError(
            "This folder isn't in maskedmodel's own layout of a version that is known here.",
            where=path,
            expected=f"format {OWN}, version 1",
            got=f"format {config.get('format')}, version {config.get('version')}",
        )
    registry = registry if registry is not None else load_registry()
    model = _build_head(config, path, registry) if is_finetuned(config) else _build(config, path, registry)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("The weights can't be read.", where=folder / WEIGHTS, got=str(error)) from error
    if isinstance(model, FineTuned):
        checkpoints.load_weights(model, tensors, folder)
    else:
        _fill(model, tensors, config.get("encoder_only") is True, folder)
    return model.eval()


def save(model: MaskedAutoencoder, folder: str | Path, *, report: LoadReport | None = None) -> Path:
    """Write a model as a folder that `load` reads back exactly: config.yaml and one checkpoint, step 0.

    The config holds no `data`: there is nothing to train on. Of an encoder-only model no decoder is written. Raises
    CheckpointError where the folder is in use, TrainingError where the disk refuses.
    """
    folder = path_of(folder)
    if (folder / CONFIG).exists() or (folder.exists() and not folder.is_dir()):
        raise CheckpointError("There is something in this place already.", where=folder, fix="Name another folder.")
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if model.decoder_loaded or not name.startswith("decoder.")
    }
    state: dict[str, Any] = {"encoder_only": not model.decoder_loaded}
    if report is not None:
        state["imported"] = report.as_dict()
    parts = _parts_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save(folder, 0, tensors, {}, state)
    # Last, since it makes the folder a run.
    config = to_yaml({name: settings.model_dump(mode="json") for name, settings in parts.items()})
    checkpoints.write_text(folder / CONFIG, config)
    return folder


def _checkpoint(folder: Path, wanted: str | Path | int) -> Path:
    """One checkpoint of a run by step, name or path. Raises CheckpointError where it is missing or damaged."""
    if wanted == "best":
        kept = checkpoints.best(folder)
        if kept is None:
            raise CheckpointError(
                "The run keeps no best checkpoint.", where=folder, fix="Pretrain with train.keep_best=true."
            )
        return kept
    if isinstance(wanted, int) and not 0 <= wanted < 10**9:  # a bool is 0 or 1
        raise CheckpointError("There is no such step.", where=folder, expected="a step of the run")
    name = path_of(wanted).name if not isinstance(wanted, int) else checkpoints.folder_of(folder, wanted).name
    chosen = folder / "checkpoints" / name
    if not os.path.isdir(chosen):  # false of what is too long for a name, too
        there = [path.name for path in (folder / "checkpoints").glob("step-*")]
        raise CheckpointError(f"The run has no checkpoint {name!r}.", where=folder, fix=suggestion(name, there))
    reason = checkpoints.damage(chosen)
    if reason is not None:
        raise CheckpointError(
            "The checkpoint is damaged.",
            where=chosen,
            got=reason,
            fix="Leave `checkpoint` out: the newest whole one is taken.",
        )
    return chosen


def _build(data: Mapping[Any, Any], path: Path, registry: Registry) -> MaskedAutoencoder:
    """The model that a config describes. Its data, and whatever else it says about the training, isn't looked at."""
    parts = _components(data, _PARTS, path, registry)
    settings = _validated(ModelSettings, data.get("model", {}), "model", path)
    with seeded(0):  # every value is loaded, but drawing them must not touch the global generator
        return MaskedAutoencoder(parts["tokenizer"], parts["mask"], parts["objective"], settings)


def _build_head(data: Mapping[Any, Any], path: Path, registry: Registry) -> FineTuned:
    """The fine-tuned model that the config of an export describes."""
    parts = _components(data, {"tokenizer": "tokenizer", "task": "task"}, path, registry)
    settings = _validated(EncoderOnly, data.get("model", {}), "model", path)
    with seeded(0):
        return FineTuned(parts["tokenizer"], parts["task"], settings, labels_from(data.get("labels"), path))


def _components(
    data: Mapping[Any, Any], sections: Mapping[str, Kind], path: Path, registry: Registry
) -> dict[str, Any]:
    """The components that sections of a config name, built."""
    parts = {}
    for section, kind in sections.items():
        given = data.get(section)
        name = given.get("name") if isinstance(given, Mapping) else None
        if not isinstance(name, str):
            raise ConfigError(f"The config of the run names no {section}.", where=path, got=given)
        with using(registry):
            settings = _validated(registry.get(kind, name).settings_class, given, section, path)
        try:
            parts[section] = registry.build(kind, settings)
        except MaskedModelError as error:
            where = f"{section} in {path}" if error.where is None else f"{error.where}, {section} in {path}"
            details: dict[str, Any] = {"expected": error.expected, "got": error.got, "fix": error.fix}
            raise type(error)(error.what, where=where, **details) from error
    return parts


def _validated(model: type[BaseModel], given: Any, section: str, path: Path) -> Any:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, (section, *e['loc'])))}: {e['msg']}" for e in error.errors())
        raise ConfigError("The config of the run can't be used.", where=path, got=problems) from error
