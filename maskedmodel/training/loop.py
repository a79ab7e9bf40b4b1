"""The training loop: read `train`, then `steps`, from top to bottom.

Every step: a global batch in the order of (seed, epoch); augmentation and masks keyed by sample; the count of hidden
tokens summed over micro-batches and ranks, by which each loss is weighted; one AdamW update. So gradient
accumulation and several ranks give what one process with the same global batch gives.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedmodel.components import DataSource, SampleDataset
from maskedmodel.config.sections import OptimSettings, RunConfig, TrainSettings
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import TrainingError
from maskedmodel.schedulers import MaskScheduler, Observed
from maskedmodel.tokens import Mask, Tokens
from maskedmodel.training.data import Batch, Broken, Reading, StepBatches, eval_batches, train_batches
from maskedmodel.training.distributed import World
from maskedmodel.training.interrupt import Interrupted, Signals
from maskedmodel.training.packing import packed
from maskedmodel.training.state import Run
from maskedmodel.training.tracking import Clock, Display, Records, has_bf16, peak_memory

log = logging.getLogger("maskedmodel")
Watch = Callable[[MaskedAutoencoder, World], Mapping[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run amounts to."""

    steps: int
    val_loss_start: float
    val_loss_end: float
    val_ratio: float  # the share of tokens that validation hid
    seconds: float  # in this process: a resumed run counts from its resume
    broken: list[Broken]


def learning_rate(step: int, settings: TrainSettings, optim: OptimSettings) -> float:
    """The rate of a step: linear warm-up, then half a cosine down to `min_lr`, which the last step has."""
    warmup, peak = optim.warmup_steps(settings.steps), optim.peak_lr(settings.batch)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / max(settings.steps - 1 - warmup, 1), 1.0)
    return optim.min_lr + (peak - optim.min_lr) * (0.5 + 0.5 * math.cos(math.pi * done))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context for `train.precision`; auto takes bf16 where the hardware has units for it."""
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def mean_ratio(scheduler: MaskScheduler[Any], points: int = 101) -> float:
    """The mean of a scheduler's ratio over a run."""
    return sum(scheduler.ratio(point / (points - 1)) for point in range(points)) / points


def validation_ratio(model: MaskedAutoencoder, settings: TrainSettings) -> float:
    """The share of tokens that validation hides: as set, else the mean of the mask's ratio over the run."""
    if settings.validation_ratio is not None:
        return settings.validation_ratio
    return round(mean_ratio(model.scheduler), 4)


def validation_loss(model: MaskedAutoencoder, dataset: SampleDataset, settings: TrainSettings, world: World) -> float:
    """Loss per hidden token under fixed masks: uniform, one ratio, keyed by seed and sample id.

    The training scheduler has no part in it, so curves compare across runs, and the same weights always score the same.
    """
    total = scored = 0.0
    ratio, was_training = validation_ratio(model, settings), model.training
    size = max(settings.batch // settings.accumulate, 1)
    reading = Reading.of(settings, world.device, batch=size, limit=settings.validation_samples)
    model.eval()
    with torch.inference_mode():
        for batch in eval_batches(dataset, model.tokenizer, reading):
            tokens = model.tokens(batch.signal)
            scores = batch.noise(settings.seed, epoch=-1).uniform(tokens.length, "validation")
            mask = Mask.from_scores(scores, ratio, tokens.valid)
            with autocast(settings.precision, world.device):
                output = model(tokens, mask)
            total += float(output.loss_per_token.sum())
            scored += mask.scored
    model.train(was_training)
    return total / max(scored, 1)


def micro_batches(
    model: MaskedAutoencoder, batch: Batch, settings: TrainSettings, progress: float, accumulate: int | None = None
) -> list[tuple[Tokens, Mask]]:
    """The tokens and masks of a step. All masks come first: the count of hidden tokens weights every loss.

    In `accumulate` parts; as many as the settings say where it isn't given. None of a batch without samples.
    """
    if not batch.ids:
        return []
    signal = model.tokenizer.augment(batch.signal, batch.noise(settings.seed))
    size = math.ceil(len(batch.ids) / (accumulate or settings.accumulate))
    parts = []
    for start in range(0, len(batch.ids), size):
        rows = slice(start, start + size)
        tokens = model.tokens(signal[rows])
        parts.append((tokens, model.scheduler.sample(tokens, progress, batch.noise(settings.seed).rows(rows))))
    return parts


def backward(
    model: nn.Module,
    parts: list[tuple[Tokens, Mask]],
    scored: float,
    settings: TrainSettings,
    world: World,
    progress: float = 0.0,
) -> float:
    """Gradients of the mean over all `scored` tokens of the global batch; returns this rank's share of the loss.

    A scheduler's own loss is a mean over samples, so each micro-batch's counts by its share of the samples.
    """
    if not parts and world.size > 1:
        return _nothing(model)
    core: MaskedAutoencoder = model.module if isinstance(model, DistributedDataParallel) else model  # type: ignore[assignment]
    if not settings.compile:  # for which shapes must stay what they are
        parts = [group for part in parts for group in packed(*part, core.settings.encoder.dim)]
    total, samples = 0.0, sum(tokens.batch for tokens, _ in parts)
    for index, (tokens, mask) in enumerate(parts):
        # DDP averages over ranks at the last micro-batch; times the world size makes that a sum.
        last = index == len(parts) - 1
        quiet = model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
        with quiet:
            with autocast(settings.precision, world.device):
                output = model(tokens, mask)
            loss = output.loss_per_token.sum() / scored
            seen = Observed(tokens, mask, output.loss_per_token.detach(), output.latent, progress)
            extra = core.scheduler.observe(seen)
            if extra is not None:
                loss = loss + (extra - extra.detach()) * (tokens.batch / samples / world.size)  # its gradient alone
            loss.mul(world.size).backward()
        total += float(loss.detach())
    return total


def _nothing(model: nn.Module) -> float:
    """A backward pass of zeros, for a rank whose samples are all broken: the others wait for its gradient."""
    assert isinstance(model, DistributedDataParallel)
    core: MaskedAutoencoder = model.module
    example = core.tokenizer.prepare(core.tokenizer.example(1, torch.Generator().manual_seed(0)).to(core.device))
    model(core.tokens(example)).loss.mul(0).backward()
    return 0.0


def train(
    config: RunConfig,
    folder: Path,
    model: MaskedAutoencoder,
    source: DataSource[Any],
    world: World,
    *,
    quiet: bool = False,
    watch: Watch | None = None,
) -> TrainResult:
    """Train to the end, from the newest checkpoint of `folder` if there is one.

    `watch` looks at the model every `evaluate.every` steps and gives figures to record; every rank is given one.
    Raises Interrupted after SIGTERM or SIGINT, the state saved; MaskedModelError for what the user can mend.
    """
    settings, began = config.train, time.monotonic()
    run = Run(config, folder, model.to(world.device), source, world)
    run.resume()
    run.rehearse()
    world.wait()
    if settings.compile:
        model.compile_engine()
    wrapped: nn.Module = model
    if world.size > 1:
        wrapped = DistributedDataParallel(model, device_ids=[world.device] if world.device.type == "cuda" else None)
    order = StepBatches(
        len(run.train_data), settings.batch, settings.seed, run.step, settings.steps, world.rank, world.size
    )
    batches = train_batches(
        run.train_data,
        model.tokenizer,
        order,
        workers=settings.workers,
        timeout=settings.data_timeout,
        pin=world.device.type == "cuda",
    )
    display = Display("pretraining", settings.steps, run.step, quiet=quiet or not world.leads)
    records = Records(folder, run.step if run.saved else None, settings.trackers, config, active=world.leads)
    model.train()
    with Signals() as signals, records, display:
        try:
            steps(run, wrapped, batches, records, signals, display, watch)
        except Interrupted:
            records.sync()
            run.save()
            raise
    losses = records.validated
    first, last = (losses[min(losses)], losses[max(losses)]) if losses else (math.nan, math.nan)
    ratio = validation_ratio(model, settings)
    return TrainResult(run.step, first, last, ratio, time.monotonic() - began, list(run.broken.values()))


def steps(
    run: Run,
    model: nn.Module,
    batches: Iterator[Batch],
    records: Records,
    signals: Signals,
    display: Display,
    watch: Watch | None = None,
) -> None:
    """From the run's step to the last."""
    settings, world, optim = run.settings, run.world, run.config.optim
    alone = world.size == 1  # a rank that leaves on its own would leave the others waiting
    clock = Clock()
    while True:
        every = settings.validate_every
        due = run.step == 0 or run.step >= settings.steps or (every > 0 and run.step % every == 0)
        if due and run.step not in records.validated:
            with clock.stopped():
                if world.leads:
                    with signals.may_cut(alone):
                        loss = validation_loss(run.model, run.val_data, settings, world)
                    records.validation(run.step, loss, validation_ratio(run.model, settings))
                    run.keep_best(records)
                world.wait_patiently()
                records.validated.setdefault(run.step, math.nan)  # the other ranks know that it was done
        every = run.config.evaluate.every
        due = every > 0 and (run.step % every == 0 or run.step >= settings.steps)
        if watch is not None and due and run.step not in records.watched:
            with clock.stopped():
                if world.leads:
                    with signals.may_cut(alone):
                        figures = watch(run.model, world)
                    records.watch(run.step, figures)
                world.wait_patiently()
                records.watched.add(run.step)
        if run.step >= settings.steps:
            return

        asked = time.monotonic()
        with signals.may_cut(alone):
            batch = next(batches).to(world.device)
        clock.read(time.monotonic() - asked, len(batch.ids) * world.size)
        run.note_broken(batch)

        progress = run.step / max(settings.steps - 1, 1)
        rate = learning_rate(run.step, settings, optim)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
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
            run.model.scheduler.after_step(run.model.encoder, progress)
        run.step += 1

        display.update(run.step, f"loss {loss:.4f}  {clock.rate:,.0f} samples/s")
        if run.step % settings.log_every == 0 or run.step in (1, settings.steps):
            records.step(
                run.step,
                epoch=(run.step * settings.batch) // len(run.train_data),
                **({"loss": loss} if scored else {}),
                lr=rate,
                ratio=run.model.scheduler.ratio(progress),
                grad_norm=norm,
                scored=int(scored),
            )
            records.timing(
                run.step,
                samples_per_second=round(clock.rate, 1),
                data_wait=round(clock.share_waited, 4),
                memory_mb=round(peak_memory(world.device)),
            )
            clock = Clock()
        if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
            with clock.stopped():
                records.sync()
                run.save()
        if stop or (alone and signals.received is not None):
            raise Interrupted(signals.received or signal.SIGTERM)


def gradient(
    run: Run, model: nn.Module, batch: Batch, signals: Signals, progress: float
) -> tuple[float, float, bool | float]:
    """Forward and backward of a step: its loss, the count of scored tokens, and whether any rank was told to stop.

    Where memory runs out and the settings say so, the step is done again in micro-batches of half the size: the same
    samples, masks and weights, so the same gradient. Raises TrainingError where that isn't asked for or doesn't help.
    """
    settings, world = run.settings, run.world
    halves = settings.on_out_of_memory == "halve" and world.size == 1
    before = {k: v.clone() for k, v in run.model.scheduler.state_dict().items()} if halves else {}
    while True:
        try:
            parts = micro_batches(run.model, batch, settings, progress, run.accumulate)
            scored, stop = world.total(sum(mask.scored for _, mask in parts), signals.received is not None)
            (loss,) = world.total(backward(model, parts, max(scored, 1), settings, world, progress))
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
        run.model.scheduler.load_state_dict(before)
        run.accumulate *= 2
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "Out of memory at step %d: going on with micro-batches of %d samples, %d a step.",
            run.step + 1,
            math.ceil(len(batch.ids) / run.accumulate),
            run.accumulate,
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory: CUDA's, Python's, or what torch's allocator says on a CPU."""
    said = str(error)
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in said for word in words)


def memory_error(run: Run, batch: Batch, size: int, error: BaseException) -> TrainingError:
    """Memory ran out: with how much at once, and what makes it less."""
    with torch.no_grad():
        tokens = run.model.tokens(run.model.tokenizer.prepare(batch.signal[:1]))
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
