"""The dense probe: a linear layer per token gives the class of each place that the token covers.

Frozen features of every token, standardised, and nothing between them and the classes: what a token itself says of what
it shows. The same is fitted to the features of random weights and to the values of the tokens as they are.

Shapes: N samples, T cells of the grid, D width, C classes, P places (pixels) in a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from maskedmodel.components import DataSource, Tokenizer
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.evaluation.bank import Bank, Standardised, check_memory
from maskedmodel.evaluation.classifiers import Accuracy, hold_out
from maskedmodel.evaluation.encoders import Encoder
from maskedmodel.evaluation.features import evaluating
from maskedmodel.evaluation.fitting import Recipe, train
from maskedmodel.evaluation.outcome import Judgement, Score
from maskedmodel.tasks import Encoded, Labels
from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.tokens import Mask
from maskedmodel.training.data import UNLABELLED, Batch, Reading, eval_batches
from maskedmodel.training.labelled import LabelledData
from maskedmodel.training.targeted import targeted

RECIPE = Recipe((1e-3, 3e-3, 1e-2, 3e-2), batch=32, stratified=False)
RESAMPLES = 200
RAW = "raw values"
_SCORED = 64  # samples at a time

Progress = Callable[[str, int, int], None]
View = Callable[[tuple[int, ...], Tensor], Tensor]  # the extents of a grid and a prepared batch to (B, T, D)


class PerToken(nn.Module):
    """Tokens (B, T, D) to scores (B, C, T, P), each by the same linear layer."""

    def __init__(self, dim: int, classes: int, places: int) -> None:
        super().__init__()
        self.places = places
        self.out = nn.Linear(dim, classes * places)
        nn.init.trunc_normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        scores: Tensor = self.out(x_BTD)
        return rearrange(scores, "b t (c p) -> b c t p", p=self.places)


def cells_of(target: Tensor, patch: Sequence[int]) -> Tensor:
    """Class numbers of places (B, *size) as (B, T, P): cell by cell in raster order, the last axis fastest.

    Raises ConfigError where the patch doesn't divide the size.
    """
    if any(extent % step for extent, step in zip(target.shape[1:], patch, strict=True)):
        raise ConfigError(
            "Labels of places can't be cut into the cells of the tokens.",
            where="tokenizer.patch",
            expected=f"extents that divide by {tuple(patch)}",
            got=tuple(target.shape[1:]),
        )
    axes = range(len(patch))
    whole = " ".join(f"(g{axis} p{axis})" for axis in axes)
    grid, inside = (" ".join(f"{letter}{axis}" for axis in axes) for letter in "gp")
    sizes = {f"p{axis}": extent for axis, extent in enumerate(patch)}
    return rearrange(target, f"b {whole} -> b ({grid}) ({inside})", **sizes)


def crossed(guess: Tensor, true: Tensor, classes: int) -> Tensor:
    """(N, C, C) int64: places by true (row) and guessed class, of class numbers (N, ...); -1 is left out."""
    place = torch.where(true == UNLABELLED, classes * classes, true * classes + guess).flatten(1)
    counts = torch.zeros(len(true), classes * classes + 1, dtype=torch.int64)
    counts.scatter_add_(1, place, torch.ones_like(place))
    return counts[:, :-1].reshape(-1, classes, classes)


def overlaps(counts: Tensor) -> Tensor:
    """Intersection over union (C,) of counts (C, C); NaN for a class that is neither true nor guessed anywhere."""
    shared = counts.diagonal().double()
    return shared / (counts.sum(0) + counts.sum(1) - shared)


def mean_overlap(counts: Tensor, seed: int) -> Accuracy:
    """mIoU over all places of counts (N, C, C) together, and its 95 % bootstrap interval over samples."""
    draws = np.random.default_rng(seed)
    means = [
        float(overlaps(counts[torch.from_numpy(draws.integers(0, len(counts), len(counts)))].sum(0)).nanmean())
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(means, [0.025, 0.975])
    return Accuracy(float(overlaps(counts.sum(0)).nanmean()), float(low), float(high), len(counts))


def check(source: DataSource[Any], tokenizer: Tokenizer[Any]) -> None:
    """Refuse what has no classes of places. Raises DataError or ConfigError with the setting that settles it."""
    if source.target_names() is None:
        raise DataError(
            "The probe dense needs a class for each place, and these data have none.",
            where="data",
            expected="masks",
            got=f"source {source.component_name()!r} without masks",
            fix="Give data.masks and data.mask_classes for images, or data.mask_channel for microscopy; or leave dense "
            "out of the probes.",
        )
    if not isinstance(tokenizer, GridTokenizer):
        raise ConfigError(
            f"Tokenizer {tokenizer.component_name()!r} doesn't cut a signal into equal boxes, so a token isn't told "
            "which places it covers.",
            where="tokenizer.name",
            expected="a tokenizer that is a GridTokenizer, such as image or channels",
            fix="Leave dense out of the probes.",
        )


def raw_view(tokenizer: GridTokenizer[Any], extents: tuple[int, ...], signal: Tensor) -> Tensor:
    """The values of the tokens of each cell (B, T, D), those of several channels joined; absent ones are 0.

    Where a tokenizer knows no number of channels, their mean.
    """
    tokens = tokenizer.tokenize(signal)
    ids = Mask.nothing(tokens)
    channels = 0 if tokens.channel is None else tokenizer.channel_count  # not those of a batch, which may lack some
    values = tokens.values.float().nan_to_num()
    encoded = Encoded(values, 0, False, tokens, ids.ids_keep, ids.keep_valid)
    grid = encoded.on_grid(extents, channels)
    if not channels:
        return grid.flatten(1, -2)
    whole = grid.new_zeros(len(grid), channels, *grid.shape[2:])
    whole[:, : grid.shape[1]] = grid
    return whole.movedim(1, -2).flatten(-2).flatten(1, -2)


def judge_dense(
    encoders: Sequence[Encoder],
    tokenizer: Tokenizer[Any],
    source: DataSource[Any],
    settings: EvaluateSettings,
    reading: Reading,
    *,
    seed: int,
    baselines: bool,
    report: Progress,
) -> tuple[Judgement, list[str]]:
    """The probe of every encoder whose tokens lie on the tokenizer's grid, and of raw values; and notes.

    Raises DataError or ConfigError where the data have no classes of places, one class only, or one sample only.
    """
    check(source, tokenizer)
    assert isinstance(tokenizer, GridTokenizer)
    data = targeted(source, reading, None, seed)
    _refuse_one(data.labels)
    names, notes = data.labels.names, list[str]()
    views: dict[str, View] = {}
    for encoder in encoders:
        if encoder.cells is None:
            notes.append(
                f"{encoder.name}: its tokens lie on no grid of the tokenizer's, so the dense probe leaves it out."
            )
        else:
            views[encoder.name] = encoder.cells
    if baselines:
        views[RAW] = partial(raw_view, tokenizer)
    scores = {}
    recipe = replace(RECIPE, epochs=settings.probe_epochs)
    with ExitStack() as modes:
        for module in [tokenizer, *(module for encoder in encoders for module in encoder.modules)]:
            modes.enter_context(evaluating(module))
        for name, view in views.items():
            bank, target, fitted = _gather(name, view, data, tokenizer, settings, reading, report)
            scores[name] = _score(
                bank, target, fitted, names, recipe, seed, reading, partial(report, f"dense probe of {name}")
            )
    called = f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    protocol = (
        "a linear layer on each token, standardised value by value, gives the class of each of the "
        f"{math.prod(tokenizer.patch)} places that it covers; cross entropy over those that have a class. Mean over "
        f"{len(names)} classes ({called}) of intersection over union, of all places of {len(target) - fitted} "
        f"validation samples together; fitted to {fitted} training samples, whatever evaluate.protocol says. Interval: "
        f"bootstrap over samples. {recipe}."
    )
    return Judgement("dense", "dense, mIoU", scores, protocol), notes


def limit(count: int, settings: EvaluateSettings, split: str) -> int:
    """How many samples of a part are used."""
    most = settings.train_samples if split == "train" else settings.val_samples
    return count if most is None else min(count, most)


def _refuse_one(labels: Labels) -> None:
    present = [name for name, count in zip(labels.names, labels.counts, strict=True) if count]
    if len(present) < 2:
        raise DataError(
            "There is nothing to tell apart: all labelled places of the training samples have one class.",
            where="data",
            expected="2 classes or more",
            got=", ".join(present) or "none",
            fix="See that the values of the masks mean what data.mask_classes and data.mask_values say.",
        )


@torch.no_grad()
def _gather(
    name: str,
    view: View,
    data: LabelledData,
    tokenizer: GridTokenizer[Any],
    settings: EvaluateSettings,
    reading: Reading,
    report: Progress,
) -> tuple[Bank, Tensor, int]:
    """Features of all cells, the classes of their places (N, T, P) int16, and how many samples are the training's."""
    counts = [limit(len(data.train), settings, "train"), limit(len(data.val), settings, "val")]
    bank, targets = Bank(sum(counts), settings.token_memory), list[Tensor]()
    done = fitted = 0
    for dataset, count, what in ((data.train, counts[0], "training"), (data.val, counts[1], "validation")):
        for batch in eval_batches(dataset, tokenizer, replace(reading, limit=count)):
            target = _target(tokenizer, batch)
            cut = cells_of(target, tokenizer.patch)
            grid = tuple(size // step for size, step in zip(target.shape[1:], tokenizer.patch, strict=True))
            x = view(grid, batch.signal)  # of any size, since a tokenizer may prepare larger signals than it trains on
            if not done:
                check_memory(sum(counts), x.shape[1], x.shape[2], settings.token_memory)
            if cut.shape[1] != x.shape[1] or (targets and cut.shape[1:] != targets[0].shape[1:]):
                raise ConfigError(
                    "Samples differ in their extents, or their labels in those of their signals.",
                    where="tokenizer.size",
                    expected=f"{targets[0].shape[1] if targets else cut.shape[1]} cells of {cut.shape[2]} places",
                    got=f"{x.shape[1]} cells of tokens, {cut.shape[1]} of labels",
                    fix="Choose a tokenizer that makes all of one size.",
                )
            bank.add(x)
            targets.append(cut.cpu().to(torch.int16))
            done += len(cut)
            report(f"tokens of {name} on the {what} part", min(done, sum(counts)), sum(counts))
        fitted = fitted or done
    return bank, torch.cat(targets), fitted


def _target(tokenizer: GridTokenizer[Any], batch: Batch) -> Tensor:
    assert batch.target is not None, "these samples have one"
    stored = batch.signal if batch.stored is None else batch.stored
    return tokenizer.move_target(batch.target.to(stored.device), stored, None)


def _score(
    bank: Bank,
    target: Tensor,
    fitted: int,
    names: Sequence[str],
    recipe: Recipe,
    seed: int,
    reading: Reading,
    tell: Callable[[int, int], None],
) -> Score:
    """Choose the learning rate on held-out training samples, fit to all of them, score on the rest."""
    device, classes = torch.device(reading.device), len(names)
    rows, rest = torch.arange(fitted), torch.arange(fitted, bank.filled)
    held = torch.from_numpy(hold_out(np.zeros(fitted, dtype=np.int64), seed))
    if not bool(held.any()):
        raise DataError(
            "There are too few samples with classes of places for a probe.",
            where="data",
            expected="2 training samples or more",
            got=fitted,
        )
    make = partial(_made, bank.width, target.shape[2])
    part = Standardised.of(bank, rows[~held])
    heads = train(make, part, rows[~held], target[rows[~held]], classes, recipe, recipe.rates, seed, device, tell)
    tried = [overlaps(_counts(head, part, rows[held], target, classes, device).sum(0)).nanmean() for head in heads]
    best = max(range(len(tried)), key=lambda place: (float(tried[place].nan_to_num(-1)), -place))
    whole = Standardised.of(bank, rows)
    (head,) = train(make, whole, rows, target[rows], classes, recipe, (recipe.rates[best],), seed, device, tell)
    counts = _counts(head, whole, rest, target, classes, device)
    total = counts.sum(0)
    pixels = float(total.diagonal().sum() / total.sum())
    by_class = {"IoU": tuple(round(value, 4) for value in overlaps(total).nan_to_num(0).tolist())}
    return Score(mean_overlap(counts, seed), f"rate {recipe.rates[best]:g}, {pixels:.3f} of places right", by_class)


def _made(width: int, places: int, classes: int) -> PerToken:
    return PerToken(width, classes, places)


@torch.no_grad()
def _counts(
    head: nn.Module, data: Standardised, rows: Tensor, target: Tensor, classes: int, device: torch.device
) -> Tensor:
    found = []
    for part in torch.split(rows, _SCORED):
        guess = head(*data.batch(part, device)).argmax(1).cpu()
        found.append(crossed(guess, target[part].long(), classes))
    return torch.cat(found)
