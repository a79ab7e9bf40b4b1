"""Checks of tasks: what stands on an encoder, without data and without training for long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.settings import EncoderOnly, EncoderSettings
from maskedmodel.noise import seeded
from maskedmodel.tasks import Chart, Encoded, Labels, Task
from maskedmodel.testing.fixtures import Box, generator
from maskedmodel.testing.rules import NotApplicable, require, require_equal

AnyTask = Task[Any]
SAMPLES = 12
_ENCODER = EncoderOnly(encoder=EncoderSettings(dim=32, depth=1, heads=2))


def labels_for(task: AnyTask) -> Labels:
    """The task's example labels, four samples of each."""
    names, shape = task.example_labels(), tuple[int, ...]()
    if task.takes_target:
        target = task.example_target(Box(), 1, generator())
        shape = tuple(target.shape[1:]) if target.is_floating_point() else ()  # class numbers have any extents
    return Labels(names, (4,) * len(names), shape)


def _model(task: AnyTask) -> tuple[FineTuned, Tensor]:
    """A small model with the task on it, and the labels of SAMPLES samples, or their targets where it takes those."""
    labels = labels_for(task)
    with seeded(0):
        model = FineTuned(Box(), task, _ENCODER, labels)
    if task.takes_target:
        return model, task.example_target(model.tokenizer, SAMPLES, generator(3))
    return model, torch.arange(SAMPLES) % len(labels.names)


def _encoded(task: AnyTask) -> Encoded:
    """Latent tokens drawn at random."""
    tokens = Box().tokenize(Box().example(SAMPLES, generator()))
    latent = torch.randn(SAMPLES, 1 + tokens.length, _ENCODER.encoder.dim, generator=generator(1))
    return Encoded(latent, 1, True, tokens, torch.arange(tokens.length).expand(SAMPLES, -1))


def check_predicts(task: AnyTask) -> None:
    """Predictions are finite, one row per sample, and the task has weights of its own."""
    _model(task)
    prediction = task(_encoded(task))
    require(
        isinstance(prediction, Tensor) and prediction.dim() >= 1 and len(prediction) == SAMPLES,
        task,
        "a prediction isn't one row per sample",
        expected=f"({SAMPLES}, ...)",
        got=tuple(getattr(prediction, "shape", ())),
    )
    require(prediction.isfinite().all(), task, "a prediction isn't finite")
    require(
        any(True for _ in task.parameters()),
        task,
        "it has no weights, so nothing of it can be learned",
        fix="Make a module in attach, such as self.head = nn.Linear(dim, ...).",
    )


def check_samples_independent(task: AnyTask) -> None:
    """What is predicted of a sample doesn't depend on the others in its batch."""
    _model(task)
    task.eval()
    encoded = _encoded(task)
    with torch.no_grad():
        together = task(encoded)
        one = replace(encoded, latent=encoded.latent[:1], tokens=encoded.tokens.rows(slice(0, 1)), ids=encoded.ids[:1])
        alone = task(one)
    gap = float((together[:1] - alone).abs().max())
    limit = 1e-5 * max(float(together.abs().max()), 1e-3)
    require(gap <= limit, task, "a sample's prediction depends on its neighbours", expected=f"<= {limit:.2g}", got=gap)


def check_padding(task: AnyTask) -> None:
    """Tokens that only fill a row up have no say."""
    _model(task)
    task.eval()
    encoded = _encoded(task)
    valid = torch.ones(encoded.ids.shape, dtype=torch.bool)
    valid[:, -3:] = False
    other = encoded.latent.clone()
    other[:, -3:] = 100.0
    with torch.no_grad():
        first, again = (task(replace(encoded, latent=x, valid=valid)) for x in (encoded.latent, other))
    require_equal(
        first,
        again,
        task,
        "tokens that aren't there change a prediction",
        expected="the same whatever stands there",
        fix="Average with encoded.mean(), or leave out what encoded.valid says isn't there.",
    )


def check_loss(task: AnyTask) -> None:
    """The loss is one finite number per sample, none negative, and so is the weight."""
    _, labels = _model(task)
    prediction, target = task(_encoded(task)).float(), task.target(labels)
    for what, value in (("loss", task.loss(prediction, target)), ("weight", task.weight(target))):
        require(
            value.shape == (SAMPLES,),
            task,
            f"the {what} isn't one number per sample",
            expected=(SAMPLES,),
            got=tuple(value.shape),
            fix="Average over everything but the first dimension.",
        )
        require(value.isfinite().all() and value.min() >= 0, task, f"a {what} is negative or not finite")


def check_gradient(task: AnyTask) -> None:
    """The loss reaches the encoder and every weight of the head."""
    model, labels = _model(task)
    with torch.no_grad():  # a head may start at almost nothing
        for parameter in task.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(2)), alpha=0.1)
    signal = model.tokenizer.example(SAMPLES, generator())
    target = task.target(labels)
    (task.loss(model(signal).float(), target) * task.weight(target)).sum().backward()  # type: ignore[no-untyped-call]
    still = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    require(not still, task, "weights get no gradient", expected="a gradient for each", got=", ".join(still[:5]))


def check_metrics(task: AnyTask) -> None:
    """Metrics are plain numbers, the score among them, and those of its own targets can be had."""
    _, labels = _model(task)
    prediction, target = task.digest(task(_encoded(task)).detach().float(), task.target(labels))
    for what, rows in (("prediction", prediction), ("target", target)):
        require(len(rows) == SAMPLES, task, f"a digested {what} isn't one row per sample", got=tuple(rows.shape))
    found = task.metrics(prediction, target)
    require(
        isinstance(found, dict) and task.score in found,
        task,
        "the score is no metric",
        expected=f"a metric called {task.score!r}",
        got=", ".join(found) if isinstance(found, dict) else type(found).__name__,
    )
    for name, value in found.items():
        require(isinstance(value, float), task, f"the metric {name!r} is no float", got=type(value).__name__)
    require(math.isfinite(found[task.score]), task, "the score isn't finite on its example labels")


def check_columns(task: AnyTask) -> None:
    """What `predict` writes has one row per sample in every column."""
    _model(task)
    columns = task.columns(task(_encoded(task)).detach().float())
    require(bool(columns), task, "there are no columns to write")
    for name, values in columns.items():
        plain = isinstance(values, Tensor | Sequence) and not isinstance(values, str)
        require(
            plain and len(values) == SAMPLES and (not isinstance(values, Tensor) or values.dim() == 1),
            task,
            f"column {name!r} isn't one value per sample",
            expected=f"{SAMPLES} numbers or texts",
            got=tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__,
        )


def check_maps(task: AnyTask) -> None:
    """Maps, where there are some, are 8-bit class numbers of as many places as a target has."""
    _, targets = _model(task)
    prediction = task(_encoded(task)).detach().float()
    maps = task.maps(prediction)
    if maps is None:
        raise NotApplicable("it gives no class for each place")
    require(maps.dtype == torch.uint8, task, "a map isn't of 8-bit numbers", expected=torch.uint8, got=maps.dtype)
    require(
        maps.shape == targets.shape,
        task,
        "a map isn't of the places that a target has",
        expected=tuple(targets.shape),
        got=tuple(maps.shape),
    )


def check_shown(task: AnyTask) -> None:
    """What a report shows: a text per sample, how wrong each is, charts, and pictures where it takes targets."""
    model, labels = _model(task)
    prediction, target = task(_encoded(task)).detach().float(), task.target(labels)
    digested = task.digest(prediction, target)
    told, wrong = task.told(*digested), task.wrongness(*digested)
    require(
        len(told) == SAMPLES and all(isinstance(words, str) for words in told),
        task,
        "what it tells isn't one text per sample",
        expected=f"{SAMPLES} texts",
        got=f"{len(told)} of {', '.join(sorted({type(words).__name__ for words in told}))}",
    )
    if wrong is not None:
        right = wrong.shape == (SAMPLES,) and bool(wrong.isfinite().all() and (wrong >= 0).all())
        require(right, task, "how wrong it is isn't a number of 0 or above per sample", got=tuple(wrong.shape))
    require(all(isinstance(chart, Chart) for chart in task.charts(*digested)), task, "a chart isn't a Chart")
    signal = model.tokenizer.example(SAMPLES, generator())
    shown = task.shown(model.tokenizer, signal, signal, prediction, target) if task.takes_target else None
    for heading, picture in (shown or {}).items():
        plain = picture.dim() == 4 and picture.shape[:2] == (SAMPLES, 3)
        require(
            plain and float(picture.min()) >= 0 and float(picture.max()) <= 1,
            task,
            f"the pictures {heading!r} aren't one of colours in [0, 1] per sample",
            expected=f"({SAMPLES}, 3, height, width)",
            got=tuple(picture.shape),
        )


def check_learns(task: AnyTask) -> None:
    """A small encoder with the task on it learns twelve samples by heart."""
    model, labels = _model(task)
    signal, target = model.tokenizer.example(SAMPLES, generator()), task.target(labels)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    weight = task.weight(target)
    losses = []
    for _ in range(60):
        loss = (task.loss(model(signal).float(), target) * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    require(
        losses[-1] < 0.8 * losses[0],
        task,
        "it doesn't learn twelve samples by heart in 60 steps",
        expected=f"a loss below {0.8 * losses[0]:.3g}",
        got=f"{losses[-1]:.3g}",
        fix="See that the head's output is of the loss's scale, and that the loss falls as predictions get better.",
    )


def check_rebuilt_alike(task: AnyTask) -> None:
    """Attached again to the same labels it has the same tensors, so that a run can be loaded."""
    model, _ = _model(task)
    fresh = type(task)(task.settings)
    other, _ = _model(fresh)
    shapes = [{name: tuple(t.shape) for name, t in m.task.state_dict().items()} for m in (model, other)]
    require(shapes[0] == shapes[1], task, "built twice it has other tensors", expected=shapes[0], got=shapes[1])
