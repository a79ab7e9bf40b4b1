"""The training loop: read `train`, then `steps`, from top to bottom.

Every step: a global batch in the order of (seed, epoch); its parts, made by whatever the run learns by and keyed by
sample; their counts summed over micro-batches and ranks, by which each loss is weighted; one AdamW update. So gradient
accumulation and several ranks give what one process with the same global batch gives.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedmodel.config.build import Listed
from maskedmodel.config.sections import OptimSettings, RunConfig, Trained, TrainSettings
from maskedmodel.errors import TrainingError, out_of_memory
from maskedmodel.training.audience import Audience, Stopped
from maskedmodel.training.data import Batch, Broken, StepBatches, train_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.interrupt import Interrupted, Signals
from maskedmodel.training.parts import Learning, backward
from maskedmodel.training.state import Opens, Run
from maskedmodel.training.tracking import Clock, Display, Records, peak_memory

log = logging.getLogger("maskedmodel")
Watch = Callable[[Any, World], Mapping[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run amounts to."""

    steps: int
    first: dict[str, float]  # what the first validation measured, `val_loss` among it
    last: dict[str, float]
    seconds: float  # in this process: a resumed run counts from its resume
    broken: list[Broken]  # of the training part
    broken_val: list[Broken] = field(default_factory=list)  # of the validation part, as far as it is read
    stopped: Stopped | None = None  # where a callback asked for the end

    @property
    def val_loss_start(self) -> float:
        return self.first.get("val_loss", math.nan)

    @property
    def val_loss_end(self) -> float:
        return self.last.get("val_loss", math.nan)

    @property
    def val_ratio(self) -> float:
        """The share of tokens that validation hid."""
        return self.last.get("val_ratio", math.nan)


def learning_rate(step: int, settings: TrainSettings, optim: OptimSettings) -> float:
    """The rate of a step: linear warm-up, then half a cosine down to `min_lr`, which the last step has."""
    warmup, peak = optim.warmup_steps(settings.steps), optim.peak_lr(settings.batch)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / max(settings.steps - 1 - warmup, 1), 1.0)
    return optim.min_lr + (peak - optim.min_lr) * (0.5 + 0.5 * math.cos(math.pi * done))


def train(
    config: Trained,
    folder: Path,
    learning: Learning[Any, Any],
    source: Opens,
    world: World,
    *,
    quiet: bool = False,
    watch: Watch | None = None,
    callbacks: Sequence[Listed] = (),
    whole: str | None = None,
) -> TrainResult:
    """Train to the end, from the newest checkpoint of `folder` if there is one.

    `watch` looks at the model every `evaluate.every` steps and gives figures to record; every rank is given one, and
    the same `callbacks`. `whole` says why the run has to go its whole length, whatever they ask for; None: they may
    stop it. Raises Interrupted after SIGTERM or SIGINT, the state saved; MaskedModelError for what the user can mend.
    """
    settings, began = config.train, time.monotonic()
    model: nn.Module = learning.model.to(world.device)
    run = Run(config, folder, learning, source, world)
    run.resume()
    audience = Audience(callbacks, world, settings.steps, whole)
    run.stopped = audience.standing(run)
    run.rehearse()
    world.wait_patiently()
    if settings.compile:
        learning.compile()
    wrapped = model
    if world.size > 1:
        wrapped = DistributedDataParallel(model, device_ids=[world.device] if world.device.type == "cuda" else None)
    order = StepBatches(
        len(run.train_data), settings.batch, settings.seed, run.step, settings.steps, world.rank, world.size
    )
    batches = train_batches(
        run.train_data,
        learning.tokenizer,
        order,
        workers=settings.workers,
        timeout=settings.data_timeout,
        pin=world.device.type == "cuda",
    )
    display = Display(learning.title, settings.steps, run.step, quiet=quiet or not world.leads)
    records = Records(folder, run.step if run.saved else None, audience, active=world.leads)
    model.train()
    for step in world.joined(sorted(records.validated)):  # the first rank alone has read which ones are done
        records.validated.setdefault(step, {})
    records.watched.update(world.joined(sorted(records.watched)))
    with audience.attending(run, records.kept), Signals() as signals, records, display:
        try:
            steps(run, wrapped, batches, records, signals, display, watch)
        except Interrupted:
            records.sync()
            run.save()
            raise
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise TrainingError(
                "There isn't enough memory beside the steps, as for a validation.",
                where=f"step {run.step}, on {world.device}",
                got=" ".join(str(error).split())[:160] or type(error).__name__,
                fix=f"Set train.accumulate={settings.accumulate * 2} (validation takes as many samples at once as a "
                "part of a step, the result is the same), a smaller train.batch, or larger tokens.",
            ) from error
    found = records.validated
    first, last = (found[min(found)], found[max(found)]) if found else ({}, {})
    return TrainResult(run.step, first, last, time.monotonic() - began, *run.left_out, run.stopped)


def steps(
    run: Run,
    model: nn.Module,
    batches: Iterator[Batch],
    records: Records,
    signals: Signals,
    display: Display,
    watch: Watch | None = None,
) -> None:
    """From the run's step to the last, or to that at which a callback stops it."""
    settings, world, optim, learning = run.settings, run.world, run.config.optim, run.learning
    alone = world.size == 1  # a rank that leaves on its own would leave the others waiting
    clock = Clock()
    run.hear(records.audience)
    while True:
        every = settings.validate_every
        due = run.step == 0 or run.ended or (every > 0 and run.step % every == 0)
        if due and run.step not in records.validated:
            with clock.stopped():
                if world.leads:
                    with signals.may_cut(alone):
                        measured = learning.validate(run.val_data, world)
                    records.validation(run.step, measured)
                    run.keep_best(records)
                world.wait_patiently()
                records.validated.setdefault(run.step, {})  # the other ranks know that it was done
                run.hear(records.audience)
        every = run.config.evaluate.every if isinstance(run.config, RunConfig) else 0
        due = every > 0 and (run.step % every == 0 or run.ended)
        if watch is not None and due and run.step not in records.watched:
            with clock.stopped():
                if world.leads:
                    with signals.may_cut(alone):
                        figures = watch(run.model, world)
                    records.watch(run.step, figures)
                world.wait_patiently()
                records.watched.add(run.step)
                run.hear(records.audience)
        if run.ended:
            if run.stopped is not None:
                records.sync()
                run.save()
                world.wait_patiently()
            return

        asked = time.monotonic()
        with signals.may_cut(alone):
            batch = next(batches).to(world.device)
        clock.read(time.monotonic() - asked, len(batch.ids) * world.size)
        run.note_broken(batch)

        progress = run.step / max(settings.steps - 1, 1)
        rate = learning_rate(run.step, settings, optim)
        learning.weigh(run.optimizer.param_groups, rate, run.step)
        loss, scored, stop = gradient(run, model, batch, signals, progress)
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients, foreach=True))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise not_finite(run, batch, loss, norm)
        if optim.clip is not None and scored:
            torch.nn.utils.clip_grads_with_norm_(run.model.parameters(), optim.clip, torch.tensor(norm), foreach=True)
        if scored:  # else every sample of the batch was broken, on every rank
            run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            learning.after_step(progress)
        run.step += 1

        display.update(run.step, f"loss {loss:.4f}  {clock.rate:,.0f} samples/s")
        if run.step % settings.log_every == 0 or run.step in (1, settings.steps):
            figures = {
                "epoch": (run.step * settings.batch) // len(run.train_data),
                **({"loss": loss} if scored else {}),
                "lr": rate,
                **run.named,
                **learning.figures(progress),
                "grad_norm": norm,
                "scored": int(scored),
            }
            timings = {
                "samples_per_second": round(clock.rate, 1),
                "data_wait": round(clock.share_waited, 4),
                "memory_mb": round(peak_memory(world.device)),
            }
            records.step(run.step, figures, timings)
            run.hear(records.audience)
            clock = Clock()
        if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
            with clock.stopped():
                records.sync()
                run.save()
                world.wait_patiently()
        if stop or (alone and signals.received is not None):
            raise Interrupted(signals.received or signal.SIGTERM)


def gradient(
    run: Run, model: nn.Module, batch: Batch, signals: Signals, progress: float
) -> tuple[float, float, bool | float]:
    """Forward and backward of a step: its loss, the count it is a mean over, and whether any rank was told to stop.

    Where memory runs out and the settings say so, the step is done again in micro-batches of half the size: the same
    samples, masks and weights, so the same gradient. Raises TrainingError where that isn't asked for or doesn't help.
    """
    settings, world = run.settings, run.world
    halves = settings.on_out_of_memory == "halve" and world.size == 1
    before = run.learning.state() if halves else {}
    while True:
        try:
            parts = run.learning.parts(batch, progress, run.accumulate)
            scored, samples, stop = world.total(
                sum(part.count for part in parts),
                sum(part.tokens.batch for part in parts),
                signals.received is not None,
            )
            here = backward(run.learning, model, parts, scored or 1, world, progress, samples)
            sums = run.learning.sums()
            loss, *totals = world.total(here, *(number for pair in sums.values() for number in pair))
            run.named = {
                name: total / count for name, total, count in zip(sums, totals[::2], totals[1::2], strict=True) if count
            }
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            size = math.ceil(len(batch.ids) / run.accumulate)
            if not halves or size == 1:
                raise memory_error(run, batch, size, error) from error
        else:
            return loss, scored, stop
        # Outside the handler, whose traceback would hold on to what is to be freed.
        run.optimizer.zero_grad(set_to_none=True)
        run.learning.restore(before)
        run.accumulate *= 2
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "Out of memory at step %d: going on with micro-batches of %d samples, %d a step.",
            run.step + 1,
            math.ceil(len(batch.ids) / run.accumulate),
            run.accumulate,
        )


def memory_error(run: Run, batch: Batch, size: int, error: BaseException) -> TrainingError:
    """Memory ran out: with how much at once, and what makes it less."""
    with torch.no_grad():
        tokens = run.model.tokens(run.learning.tokenizer.prepare(batch.signal[:1]))
    return TrainingError(
        "There isn't enough memory for a step; the run stands at its last checkpoint.",
        where=f"step {run.step + 1}, on {run.world.device}",
        got=f"{size} samples of {tokens.length} tokens at once ({' '.join(str(error).split())[:160]})",
        fix=f"Set train.accumulate={run.accumulate * 2} (the same result in more, smaller parts), "
        "train.on_out_of_memory=halve to let a run do so by itself, a smaller train.batch, or larger tokens.",
    )


def not_finite(run: Run, batch: Batch, loss: float, norm: float) -> TrainingError:
    """Why a run stops before the update that would spoil its weights."""
    ids = ", ".join(str(i) for i in batch.ids[:8]) + (", ..." if len(batch.ids) > 8 else "")
    kept = run.keep_batch(batch, loss, norm)
    return TrainingError(
        "The loss or its gradient isn't finite; the weights are as before this step.",
        where=f"step {run.step + 1}, samples {ids}",
        got=f"loss {loss}, gradient norm {norm}",
        fix=f"Look at these samples, which are kept in {kept}; lower optim.lr, set optim.clip=1 or "
        f"train.precision=fp32. The run stands at step {run.saved}, and the same command resumes from there.",
    )
