"""Each verb of the command line as a function: paths and names in, a value out that prints as its own summary."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedmodel.commands_data import read_file, source_at
from maskedmodel.comparison.compare import compare as compare
from maskedmodel.components import DataSource
from maskedmodel.config import Components, RunConfig, build_components, difference, load_config
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import ConfigError
from maskedmodel.evaluation import features as feature_files
from maskedmodel.evaluation import probes
from maskedmodel.evaluation import reconstruct as pictures
from maskedmodel.evaluation.canvas import save_file, save_png
from maskedmodel.evaluation.probes import ProbeResult
from maskedmodel.folder import FREE, claimed, run_folder, settle, write_json, write_summary
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training.checkpoint import newest, read_state
from maskedmodel.training.data import eval_batches
from maskedmodel.training.distributed import join, pick_device
from maskedmodel.training.interrupt import Signals
from maskedmodel.training.loop import TrainResult, train
from maskedmodel.training.state import fit_all
from maskedmodel.training.tracking import Display, environment
from maskedmodel.weights.anything import read_weights
from maskedmodel.weights.report import LoadReport
from maskedmodel.weights.runs import load, save

log = logging.getLogger("maskedmodel")
Config = str | Path | Mapping[Any, Any] | None


@dataclass(frozen=True)
class PretrainResult:
    """What a run came to. `probe` is None where the data has no labels or `evaluate.probe` is off."""

    folder: Path
    training: TrainResult
    baseline: float | None  # the loss of always predicting zero, where it is known
    probe: ProbeResult | None
    picture: Path | None
    report: Path

    def __str__(self) -> str:
        training = self.training
        against = "" if self.baseline is None else f"   (predicting zero scores {self.baseline:.4f})"
        lines = [f"masked validation loss  {training.val_loss_start:.4f} -> {training.val_loss_end:.4f}{against}"]
        if training.broken:
            lines.append(f"samples left out        {len(training.broken)}, listed in the report")
        if self.probe is not None:
            lines += ["", str(self.probe)]
        lines += [""] if self.picture is None else ["", f"pictures  {self.picture}"]
        lines += [
            f"report    {self.report}",
            "",
            "next:",
            f"  maskedmodel reconstruct {self.folder}",
            f"  maskedmodel embed {self.folder} val --to features.parquet",
            f'  python -c "import maskedmodel; print(maskedmodel.load({str(self.folder)!r}).encoder)"',
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Imported:
    """Foreign weights as a run: its folder, and what was found in them."""

    folder: Path
    report: LoadReport

    def __str__(self) -> str:
        return f"{self.report.summary()}\n{self.folder}"


def pretrain(
    config: Config = None,
    *,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    strict_plugins: bool = False,
    quiet: bool = False,
) -> PretrainResult | None:
    """Pretrain from a config (default: the embedded quickstart) and look at the result.

    The same call again resumes. Under torchrun every rank calls it; all but the first get None.
    """
    registry = load_registry(strict=strict_plugins)
    resolved = load_config(config, overrides, registry=registry)
    folder = run_folder(config, run)
    for failure in registry.failures:
        log.warning("Plugin left out: %s", failure)
    parts = build_components(resolved, registry)
    resolved = resolved.model_copy(update={"data": parts.source.resolved()})
    with seeded(resolved.train.seed):
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model)
    with join(resolved.train.device) as world:
        if not world.leads:
            world.wait()
            train(resolved, folder, model, parts.source, world, quiet=True)
            return None
        with claimed(folder):
            settle(folder, resolved, registry)
            write_json(folder / "environment.json", environment(world.device))
            world.wait()
            training = train(resolved, folder, model, parts.source, world, quiet=quiet)
            with Signals() as signals, signals.may_cut():
                return _look(resolved, folder, model, parts, training, world.device, quiet)


def _look(
    config: RunConfig,
    folder: Path,
    model: MaskedAutoencoder,
    parts: Components,
    training: TrainResult,
    device: torch.device,
    quiet: bool,
) -> PretrainResult:
    """Pictures, probes and the report of a trained model."""
    picture = None
    if config.evaluate.pictures:
        signals, ids = _some(parts, config, config.evaluate.pictures, device)
        picture = _draw(model, signals, ids, _pictures(folder) / "reconstruction.png", config, training.steps)
    probed = None
    if config.evaluate.probe and parts.source.class_names() is not None:
        probed = _probe(config, model, parts.source, device, quiet)
        write_json(folder / "probe.json", probed.to_dict())
    baseline = parts.objective.baseline(parts.tokenizer)
    write_summary(folder, model, training, baseline)
    return PretrainResult(folder, training, baseline, probed, picture, write_report(folder))


def _draw(
    model: MaskedAutoencoder,
    signals: Tensor,
    ids: Sequence[str | int],
    path: Path,
    config: RunConfig,
    step: int,
    mode: str | None = None,
    captions: Sequence[str] | None = None,
) -> Path:
    """The picture, and what shows its samples in time in a folder beside it."""
    done = pictures.complete(model, signals, ids, mode=mode, seed=config.train.seed)
    for name, content in pictures.media(model, done).items():
        beside = path.with_suffix("")
        beside.mkdir(exist_ok=True)
        save_file(content, beside / name)
    return save_png(pictures.draw(model, done, step=step, captions=captions), path)


def _pictures(folder: Path) -> Path:
    path = folder / "pictures"
    path.mkdir(exist_ok=True)
    return path


def _some(parts: Components, config: RunConfig, count: int, device: torch.device) -> tuple[Tensor, list[str | int]]:
    """A few prepared validation samples."""
    batches = eval_batches(
        parts.source.open("val"),
        parts.tokenizer,
        batch=count,
        device=device,
        limit=count,
        on_bad_sample=config.train.on_bad_sample,
    )
    batch = next(iter(batches))
    return batch.signal, batch.ids


def _probe(
    config: RunConfig,
    model: MaskedAutoencoder,
    source: DataSource[Any],
    device: torch.device,
    quiet: bool,
) -> ProbeResult:
    with Display("looking", 1, quiet=quiet) as display:
        result = probes.probe(
            model,
            source,
            config.evaluate,
            device=device,
            seed=config.train.seed,
            batch=config.train.batch,
            workers=config.train.workers,
            on_bad_sample=config.train.on_bad_sample,
            progress=display.phase,
        )
    return result


def _opened(run: str | Path) -> tuple[Path, RunConfig, Registry, MaskedAutoencoder, torch.device]:
    """A run folder, its config, and its model on the device of its config."""
    registry = load_registry()
    folder = Path(run).expanduser()
    model = load(folder, registry=registry)
    config = load_config(folder / "config.yaml", registry=registry, needs_data=False)
    device = pick_device(config.train.device)
    return folder, config, registry, model.to(device), device


def probe(run: str | Path, *, overrides: Sequence[str] = (), quiet: bool = False) -> ProbeResult:
    """k-NN and a linear probe on a run's encoder, next to random weights and plain features. Writes probe.json.

    `overrides` such as "data.label=speaker" and "evaluate.protocol=folds" probe the encoder on other data or in another
    way; the result then goes to a file named after them.
    """
    folder, config, registry, model, device = _opened(run)
    changed = load_config(folder / "config.yaml", overrides, registry=registry, needs_data=not config.data)
    fixed = [where for where, _, _ in difference(config, changed) if not where.startswith(("data", *FREE))]
    if fixed:
        raise ConfigError(
            "A probe can't change what the encoder was trained with.",
            where=fixed[0],
            expected="settings of data and evaluate",
            fix="Leave that out, or pretrain with it.",
        )
    about = " ".join(overrides)
    result = replace(_probe(changed, model, build_components(changed, registry).source, device, quiet), about=about)
    name = re.sub(r"[^\w.-]+", "-", about)[:80].strip("-.")
    write_json(folder / (f"probe-{name}.json" if name else "probe.json"), result.to_dict())
    write_report(folder)
    return result


def reconstruct(
    run: str | Path,
    files: Sequence[str | Path] = (),
    *,
    mode: str | None = None,
    out: str | Path | None = None,
    count: int = 8,
) -> Path:
    """A picture: original, masked, reconstruction, and the same with visible patches pasted in.

    Of `files`, read by the run's data source, or of `count` validation samples.
    """
    folder, config, registry, model, device = _opened(run)
    captions = [Path(file).name for file in files] or None
    if files:
        samples = [read_file(Path(file).expanduser(), config, registry) for file in files]
        prepared = [model.tokenizer.prepare(sample["signal"][None].to(device))[0] for sample in samples]
        signals, ids = model.tokenizer.collate(prepared), [sample["id"] for sample in samples]
    else:
        signals, ids = _some(build_components(config, registry), config, count, device)
    chosen = pictures.pick_mode(model, mode)
    path = Path(out) if out is not None else _pictures(folder) / f"reconstruction-{chosen}.png"
    step = read_state(newest(folder))["step"]
    _draw(model, signals, ids, path, config, step, chosen, captions)
    write_report(folder)
    return path


def embed(
    run: str | Path, data: str | Path, *, to: str | Path, overrides: Sequence[str] = (), quiet: bool = False
) -> Path:
    """One feature vector per sample, to a .parquet, .npz or .csv file.

    `data` is "train" or "val", a split of the run's own data, or the path of other data: that is read by the run's kind
    of data source, or by the one installed source that knows such files. `overrides` such as "data.name=image_folder"
    say which, and set its settings.
    """
    _, config, registry, model, device = _opened(run)
    if str(data) in ("train", "val"):
        datasets = [build_components(config, registry).source.open(data)]  # type: ignore[arg-type]
    else:
        source = source_at(Path(data).expanduser(), config, registry, overrides)
        datasets = [source.open("train"), source.open("val")]  # both: the user means all of it
    found = []
    with Display("looking", 1, quiet=quiet) as display:
        for dataset in datasets:
            found.append(
                feature_files.extract(
                    model,
                    dataset,
                    pool=config.evaluate.pool,
                    batch=config.train.batch,
                    device=device,
                    workers=config.train.workers,
                    on_bad_sample=config.train.on_bad_sample,
                    progress=lambda done, total: display.phase("embedding", done, total),
                )
            )
    return feature_files.save(feature_files.joined(found), to)


def preview(config: Config = None, *, overrides: Sequence[str] = (), out: str | Path | None = None) -> Path:
    """A picture of a config's tokens and masks on its own data, before anything is trained."""
    registry = load_registry()
    resolved = load_config(config, overrides, registry=registry)
    parts = build_components(resolved, registry)
    batches = eval_batches(
        parts.source.open("train"), parts.tokenizer, batch=4, limit=4, on_bad_sample=resolved.train.on_bad_sample
    )
    batch = next(iter(batches))
    fit_all(parts.tokenizer, parts.scheduler, lambda: [batch.signal])
    image = pictures.preview(parts.tokenizer, parts.scheduler, batch.signal, batch.ids, seed=resolved.train.seed)
    return save_png(image, Path(out) if out is not None else Path("preview.png"))


def import_weights(
    source: str | Path,
    *,
    to: str | Path | None = None,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
) -> Imported:
    """Read a transformers ViTMAE or VideoMAE folder, or a checkpoint in their authors' layouts, into a run folder.

    The last four settle what a bare file of weights doesn't say; see `from_facebook`.
    """
    model, report = read_weights(
        source, heads=heads, decoder_heads=decoder_heads, image_size=image_size, normalise=normalise
    )
    folder = Path(to).expanduser() if to is not None else Path("runs") / Path(source).stem
    return Imported(save(model, folder, report=report), report)


def doctor(config: Config = None, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a run would stand on: versions, device, plugins; given a config, also one step of it, untrained.

    Raises MaskedModelError for the first thing that a run of this config would stumble over.
    """
    registry = load_registry()
    device = pick_device("auto")
    found: dict[str, Any] = {
        "environment": environment(device),
        "plugins": [plugin.name for plugin in registry.plugins],
        "failures": [f"{failure.plugin}: {failure.reason}" for failure in registry.failures],
    }
    if config is None and not overrides:
        return found
    resolved = load_config(config, overrides, registry=registry)
    parts = build_components(resolved, registry)
    signals, _ = _some(parts, resolved, min(resolved.train.batch, 8), device)
    fit_all(parts.tokenizer, parts.scheduler, lambda: [signals])
    with seeded(resolved.train.seed), torch.inference_mode():
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model).to(device)
        output = model(signals)
    return found | {
        "samples": {split: len(parts.source.open(split)) for split in ("train", "val")},
        "tokens": output.mask.hidden.shape[1],
        "visible": output.mask.ids_keep.shape[1],
        "values per token": parts.tokenizer.token_width,
        "parameters": {
            "encoder": sum(p.numel() for p in model.encoder.parameters()),
            "decoder": sum(p.numel() for p in model.decoder.parameters()),
        },
        "loss": float(output.loss),
        "epochs": round(resolved.train.steps * resolved.train.batch / len(parts.source.open("train")), 2),
        "learning rate": resolved.optim.peak_lr(resolved.train.batch),
    }
