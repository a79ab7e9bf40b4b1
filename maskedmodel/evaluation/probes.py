"""How good a frozen encoder's features are, against random weights and against the raw values."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import DataSource, SampleDataset, Tokenizer
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import DataError
from maskedmodel.evaluation.classifiers import (
    C_GRID,
    DRAWS,
    HELD_OUT,
    MAX_ITERATIONS,
    Accuracy,
    Linear,
    at_a_time,
    few,
    knn,
    linear_over,
)
from maskedmodel.evaluation.dense import judge_dense
from maskedmodel.evaluation.encoders import Encoder, of_model
from maskedmodel.evaluation.features import Features, collect, evaluating, flat_tokens, joined
from maskedmodel.evaluation.judging import OTHERS, Data, check, judge
from maskedmodel.evaluation.landscape import check_method, survey
from maskedmodel.evaluation.outcome import Judgement
from maskedmodel.evaluation.outcome import ProbeResult as ProbeResult
from maskedmodel.evaluation.outcome import ProbeRow as ProbeRow
from maskedmodel.evaluation.thumbnails import thumbnails
from maskedmodel.noise import seeded
from maskedmodel.training.data import UNLABELLED, Broken, Reading

log = logging.getLogger("maskedmodel")
RAW_LIMIT = 1 << 26  # values of raw signals that a linear probe gets through in some minutes and 3 GiB

Progress = Callable[[str, int, int], None]  # (what is done, steps done, steps in all)


def random_twin(model: MaskedAutoencoder, seed: int) -> MaskedAutoencoder:
    """A model with the same settings and the same measured statistics of its tokenizer, but fresh weights.

    The weights are a function of the seed; torch's global generator is left alone.
    """
    with seeded(seed):
        tokenizer = type(model.tokenizer)(model.tokenizer.settings)
        # Copies: a model that is built attaches both anew, which would take a trained objective its networks.
        scheduler, objective = copy.deepcopy((model.scheduler, model.objective))
        twin = MaskedAutoencoder(tokenizer, scheduler, objective, model.settings)
    measured = dict(model.tokenizer.named_buffers())
    with torch.no_grad():
        for name, buffer in tokenizer.named_buffers():
            buffer.copy_(measured[name])
    return twin.to(model.device)


def probe(
    model: MaskedAutoencoder,
    source: DataSource[Any],
    settings: EvaluateSettings,
    reading: Reading | None = None,
    *,
    seed: int = 0,
    baselines: bool = True,
    beside: Sequence[Encoder] = (),
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe a trained encoder next to the same encoder with random weights and next to the raw values.

    Every row sees the same samples, which are read once, and once more per encoder where a probe needs its tokens or
    layers. Without `baselines` there is the encoder's row alone. `beside` are encoders of others, on the same data.
    Raises DataError where samples carry no labels, or too few.
    """
    own = [of_model(model, "trained encoder", settings.pool)]
    if baselines:
        own.append(of_model(random_twin(model, seed), "same encoder, random weights", settings.pool))
    pooled = "mean over the tokens" if settings.pool == "mean" else "class token"
    feature = f"{pooled} of the encoder's output after its final LayerNorm, {model.settings.encoder.dim} values"
    encoders = [*own, *beside]
    return probe_encoders(encoders, model.tokenizer, source, settings, reading, feature, seed, baselines, progress)


def probe_encoders(
    encoders: Sequence[Encoder],
    tokenizer: Tokenizer[Any],
    source: DataSource[Any],
    settings: EvaluateSettings,
    reading: Reading | None = None,
    feature: str = "",
    seed: int = 0,
    baselines: bool = True,
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe any encoders on the same samples, as the tokenizer prepares them; `feature` says what stands for a sample.

    `baselines` are the raw values and the tokenizer's plain features. Raises as `probe` does.
    """
    report = progress or (lambda what, done, total: None)
    how = reading or Reading()
    check_method(settings.map)
    placed: list[Judgement] = []
    first_notes: list[str] = []
    if "dense" in settings.probes:
        found, first_notes = judge_dense(
            encoders, tokenizer, source, settings, how, seed=seed, baselines=baselines, report=report
        )
        placed.append(found)
        if set(settings.probes) == {"dense"}:
            return ProbeResult((), _frozen(feature="", encoders=encoders), tuple(first_notes), others=tuple(placed))
    views: dict[str, Callable[[Tensor], Tensor]] = {encoder.name: encoder.embed for encoder in encoders}
    notes = first_notes
    unread: list[Broken] = []

    def read(dataset: SampleDataset, what: str, limit: int | None) -> dict[str, Features]:
        return collect(
            dataset,
            tokenizer,
            views,
            replace(how, limit=limit, record=unread.append),
            plain=baselines,
            digests=True,
            progress=lambda done, total: report(f"features of {what}", done, total),
        )

    training, validation = source.open("train"), source.open("val")
    size = len(training) if settings.train_samples is None else min(settings.train_samples, len(training))
    example = tokenizer.prepare(tokenizer.example(1, torch.Generator().manual_seed(0)).to(how.device))
    width = flat_tokens(tokenizer, example).shape[1]
    if baselines and size * width > RAW_LIMIT:
        notes.append(f"No row for raw values: {size} samples of {width} values are too many for a linear probe.")
    elif baselines:
        views["raw values"] = lambda signal: flat_tokens(tokenizer, signal)
    parts = [
        (training, "the training part", settings.train_samples),
        (validation, "the validation part", settings.val_samples),
    ]
    data, others = Data(parts, tokenizer, how), [name for name in settings.probes if name in OTHERS]
    with ExitStack() as modes:
        for module in [tokenizer, *(module for encoder in encoders for module in encoder.modules)]:
            modes.enter_context(evaluating(module))
        check(others, encoders, data, settings)
        train, test = (read(*part) for part in parts)
        first, second = next(iter(train.values())), next(iter(test.values()))
        both = {name: joined([train[name], test[name]]) for name in train}
        any_view = next(iter(both.values()))
        labels = _labels(any_view)
        folds = _folds(settings.protocol, any_view, labels, len(first.ids))
        if settings.protocol == "split":
            notes += _cautions(first, second, *(labels[rows] for rows in folds[0]))
        rows = _rows(both, labels, folds, settings, seed, report)
        values = {name: features.values for name, features in both.items()}
        judged, more = judge(others, encoders, data, values, labels, folds, settings, seed, report)
    if unread:
        named = ", ".join(sample.said for sample in unread[:3]) + (", ..." if len(unread) > 3 else "")
        notes.append(f"{len(unread)} samples can't be read and take no part: {named}.")
    stopped = [row.name for row in rows if row.linear is not None and not row.linear.converged]
    notes += [f"The linear probe of {name} didn't converge in {MAX_ITERATIONS} iterations." for name in stopped]
    left_out = int((labels == UNLABELLED).sum())
    if left_out:
        notes.append(f"{left_out} of {len(labels)} samples have no label and take no part.")
    sizes = Counter(labels[torch.cat([rows for _, rows in folds])].tolist()).values()
    uneven = max(sizes) > 2 * min(sizes)
    protocol = _protocol(feature, encoders, settings, labels, folds, seed)
    seen = None
    if baselines:
        seen = survey(
            encoders[0].name,
            values[encoders[0].name],
            any_view.ids,
            labels,
            folds[0],
            source.class_names(),
            neighbours=settings.neighbours,
            temperature=settings.temperature,
            method=settings.map,
            seed=seed,
        )
        if unread:
            notes.append("The map shows no pictures of samples, since some samples can't be read.")
        else:
            sized = [(training, len(first.ids)), (validation, len(second.ids))]
            report("small pictures", 0, 1)
            shown = (*seen.rows, *(row for rows_of in seen.near_rows for row in rows_of))
            with evaluating(tokenizer):
                seen = replace(seen, tiles=thumbnails(shown, sized, tokenizer, how))
    report("probes", len(both), len(both))
    return ProbeResult(tuple(rows), protocol, (*notes, *more), uneven, others=(*judged, *placed), landscape=seen)


def _rows(
    both: dict[str, Features],
    labels: Tensor,
    folds: list[tuple[Tensor, Tensor]],
    settings: EvaluateSettings,
    seed: int,
    report: Progress,
) -> list[ProbeRow]:
    """k-NN and the linear probe of every kind of feature, as far as they are asked for."""
    near_too, linear_too = "knn" in settings.probes, "linear" in settings.probes
    counts = _few_counts(settings, labels[folds[0][0]])
    rows: list[ProbeRow] = []
    began = time.monotonic()
    for name, features in both.items():
        x, near, fitted = features.values, [], []
        fits = linear_over(x, labels, folds, seed=seed)
        for number, (a, b) in enumerate(folds):
            report(f"probe of {name}", number, len(folds))
            if near_too:
                near.append(knn(x[a], labels[a], x[b], labels[b], settings.neighbours, settings.temperature))
            if linear_too:
                fitted.append(next(fits))
            if not rows and not number:
                _tell_time((time.monotonic() - began) / at_a_time(len(folds)), len(folds), len(both))
        fits.close()
        a, b = folds[0]
        learnt = {str(n): few(x[a], labels[a], x[b], labels[b], n, seed=seed) for n in counts}
        accuracy, linear_one = Accuracy.over(near) if near else None, Linear.over(fitted) if fitted else None
        rows.append(ProbeRow(name, x.shape[1], accuracy, linear_one, learnt))
    return rows


def _tell_time(first: float, folds: int, kinds: int) -> None:
    """Say how long all will take, where that is more than a minute, by how long the first fold took."""
    expected = first * folds * kinds
    if expected > 60:
        what = f"{folds} fold{'s' if folds > 1 else ''} of {kinds} kinds of features"
        log.warning("Probes will take some %.0f minutes: %s.", max(expected / 60, 1), what)


def _labels(features: Features) -> Tensor:
    if features.labels is None:
        raise DataError(
            "A probe needs labels.",
            where="data",
            got=f"{len(features.ids)} samples, none with a label",
            fix="Use labelled data, such as one folder per class.",
        )
    return features.labels


def _folds(protocol: str, features: Features, labels: Tensor, train: int) -> list[tuple[Tensor, Tensor]]:
    """Indices of labelled samples to fit to and to test on. The first `train` samples are the training part's."""
    known = (labels != UNLABELLED).nonzero()[:, 0]
    if protocol == "split":
        parts = known[known < train], known[known >= train]
        for name, part in zip(("train", "val"), parts, strict=True):
            if not len(part):
                raise DataError("A probe needs labels in both parts.", where=f"split {name!r} of the data source")
        return [parts]
    groups = features.groups if protocol == "folds" else tuple(map(str, range(len(labels))))
    number = {name: place for place, name in enumerate(dict.fromkeys(groups[i] for i in known.tolist()))}
    if len(number) < 2:
        raise DataError(
            "Folds need samples of two groups or more.",
            where="evaluate.protocol",
            got=f"{len(number)} group",
            fix="Say what groups samples, such as data.group=fold, or choose another protocol.",
        )
    own = torch.tensor([number[groups[i]] for i in known.tolist()])
    return [(known[own != fold], known[own == fold]) for fold in range(len(number))]


def _few_counts(settings: EvaluateSettings, fitted_to: Tensor) -> list[int]:
    """The numbers of labels to try: at least one of each class, and no more than half of those there are."""
    if settings.protocol != "split" or "linear" not in settings.probes:
        return []
    classes = len(set(fitted_to.tolist()))
    return [count for count in settings.few_labels if classes <= count <= len(fitted_to) // 2]


def _cautions(train: Features, test: Features, y: Tensor, z: Tensor) -> list[str]:
    notes = []
    seen = set(train.digests)
    twice = [name for name, digest in zip(test.ids, test.digests, strict=True) if digest in seen]
    if twice:
        named = ", ".join(str(name) for name in twice[:3]) + (", ..." if len(twice) > 3 else "")
        notes.append(
            f"{len(twice)} of {len(test.ids)} validation samples also stand in the training part, so that these "
            f"accuracies are too high: {named}"
        )
    strangers = sorted(set(z.tolist()) - set(y.tolist()))
    if strangers:
        notes.append(f"Classes {strangers[:10]} are in the validation part only: their samples count as wrong.")
    return notes


def _frozen(feature: str, encoders: Sequence[Encoder]) -> str:
    """What holds for every probe."""
    words = ["Frozen encoder, nothing masked, no augmentation.", f"Feature: {feature}." if feature else ""]
    words += [f"{encoder.name}: {encoder.about}" for encoder in encoders if encoder.about]
    return " ".join(filter(None, words))


def _protocol(
    feature: str,
    encoders: Sequence[Encoder],
    settings: EvaluateSettings,
    labels: Tensor,
    folds: list[tuple[Tensor, Tensor]],
    seed: int,
) -> str:
    fewest = min(len(fitted) for fitted, _ in folds)
    k, grid = min(settings.neighbours, fewest), ", ".join(f"{c:g}" for c in C_GRID)
    tested = torch.cat([rows for _, rows in folds])
    classes = Counter(labels[torch.unique(torch.cat([rows for fold in folds for rows in fold]))].tolist())
    always = [Counter(labels[fitted].tolist()).most_common(1)[0][0] for fitted, _ in folds]
    right = sum(int((labels[rows] == guess).sum()) for guess, (_, rows) in zip(always, folds, strict=True))
    counts = ", ".join(map(str, _few_counts(settings, labels[folds[0][0]])))
    learnt = f"{counts} labels: logistic regression (C = 1) on so many training samples, mean of {DRAWS} draws. "
    parts = {
        "split": f"{len(folds[0][0])} training and {len(folds[0][1])} validation samples",
        "folds": f"{len(folds)}-fold cross validation by group over {len(tested)} samples of both parts; the encoder "
        "saw the training part without labels",
        "leave_one_out": f"leave-one-out over {len(tested)} samples of both parts; the encoder saw the training part "
        "without labels",
    }[settings.protocol]
    near = f"k-NN: k={k}, cosine similarity, votes exp(similarity / {settings.temperature:g}). "
    fitted = (
        f"Linear probe: multinomial logistic regression on features standardised by the part it is fitted to; "
        f"C chosen from {grid} on {HELD_OUT:.0%} of that part held out by class, then fitted to all of it. "
    )
    return (
        f"{_frozen(feature, encoders)} "
        f"{near if 'knn' in settings.probes else ''}{fitted if 'linear' in settings.probes else ''}"
        f"{learnt if counts else ''}"
        f"{parts}, {len(classes)} classes; always answering the commonest gives {right / len(tested):.3f}. "
        f"Seed {seed}. Intervals: 95 %, Wilson, over tested samples."
    )
