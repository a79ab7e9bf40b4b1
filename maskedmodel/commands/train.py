"""`maskedmodel pretrain`: train, look at the result, write the report."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskedmodel.commands.run import Config, draw, pictures_folder, run_probe, some_samples
from maskedmodel.config.build import Components, build_callbacks, build_components
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import TrainingError
from maskedmodel.evaluation.canvas import save_png
from maskedmodel.evaluation.inside import SHOWN, inside
from maskedmodel.evaluation.online import Watch
from maskedmodel.evaluation.probes import ProbeResult
from maskedmodel.files import path_of
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training.distributed import join
from maskedmodel.training.folder import claimed, run_folder, settle, tell, write_json, write_summary
from maskedmodel.training.hanging import stacks_in
from maskedmodel.training.interrupt import Signals
from maskedmodel.training.loop import TrainResult, train
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.tracking import environment
from maskedmodel.weights.start import begin

log = logging.getLogger("maskedmodel")


@dataclass(frozen=True)
class PretrainResult:
    """What a run came to. `probe` is None where the data has no labels or `evaluate.probe` is off."""

    folder: Path
    training: TrainResult
    baseline: float | None  # the loss of always predicting zero, where it is known
    probe: ProbeResult | None
    picture: Path | None
    report: Path
    gives_signals: bool = True  # whether what it predicts can be drawn

    def __str__(self) -> str:
        training = self.training
        against = "" if self.baseline is None else f"   (predicting zero scores {self.baseline:.4f})"
        change = f"{training.val_loss_start:.4f} -> {training.val_loss_end:.4f}"
        lines = [f"masked validation loss  {change}, {training.val_ratio:.0%} hidden{against}"]
        if training.stopped is not None:
            lines += [
                f"stopped early           {training.stopped}",
                f"to go on                {training.stopped.advice}",
            ]
        if training.broken or training.broken_val:
            lines.append(
                f"samples left out        {len(training.broken)} of train, {len(training.broken_val)} of val, "
                "listed in the report"
            )
        if self.probe is not None:
            lines += ["", str(self.probe)]
        lines += [""] if self.picture is None else ["", f"pictures  {self.picture}"]
        lines += [f"report    {self.report}", "", "next:"]
        run = shlex.quote(str(self.folder))
        if self.gives_signals:
            lines.append(f"  maskedmodel reconstruct {run}")
        if self.probe is not None:
            lines.append(f"  maskedmodel finetune {run} --labels 20,50,100,500 --from-scratch --seeds 3")
        code = f"import maskedmodel; print(maskedmodel.load({str(self.folder)!r}).encoder)"
        lines += [f"  maskedmodel embed {run} val --to features.parquet", f"  python -c {shlex.quote(code)}"]
        return "\n".join(lines)


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
    folder = run_folder(config, None if run is None else path_of(run, TrainingError))
    for failure in registry.failures:
        log.warning("%s", failure.notice)
    parts = build_components(resolved, registry)
    resolved = resolved.model_copy(update={"data": parts.source.resolved()})
    with seeded(resolved.train.seed):
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model)
    callbacks = build_callbacks(resolved, registry)
    watch = Watch(resolved, parts.source) if resolved.evaluate.every else None
    with join(resolved.train.device) as world:
        if not world.leads:
            world.wait_patiently()
            begin(resolved, folder, model, registry, leads=False)
            with stacks_in(folder):
                train(
                    resolved,
                    folder,
                    MaskedModelling(model, resolved.train),
                    parts.source,
                    world,
                    quiet=True,
                    watch=watch,
                    callbacks=callbacks,
                )
            return None
        with claimed(folder):
            settle(folder, resolved, registry)
            tell(parts.source, folder)
            begin(resolved, folder, model, registry)
            write_json(folder / "environment.json", environment(world.device))
            world.wait_patiently()
            learning = MaskedModelling(model, resolved.train)
            training = train(
                resolved, folder, learning, parts.source, world, quiet=quiet, watch=watch, callbacks=callbacks
            )
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
    picture, drawable = None, model.gives_signals()
    if config.evaluate.pictures:
        signals, ids = some_samples(parts.source, model.tokenizer, config, config.evaluate.pictures, device)
        model.tokenizer.channel_names = parts.source.channel_names() or ()
        drawn = inside(model, signals[:SHOWN], ids[:SHOWN], seed=config.train.seed, step=training.steps)
        save_png(drawn, pictures_folder(folder) / "inside.png")
    if config.evaluate.pictures and not drawable:
        name = model.objective.component_name()
        log.warning("No pictures of what it completes: objective %r predicts no signal.", name)
    elif config.evaluate.pictures:
        picture = draw(model, signals, ids, pictures_folder(folder) / "reconstruction.png", config, training.steps)
    probed = None
    labelled = parts.source.class_names() is not None
    placed = set(config.evaluate.probes) == {"dense"} and parts.source.target_names() is not None
    if config.evaluate.probe and (labelled or placed):
        probed = run_probe(config, model, parts.source, device, quiet)
        write_json(folder / "probe.json", probed.to_dict())
    baseline = parts.objective.baseline(parts.tokenizer)
    write_summary(folder, model, training, baseline)
    return PretrainResult(folder, training, baseline, probed, picture, write_report(folder), drawable)
