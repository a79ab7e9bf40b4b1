"""Probes beside k-NN and the linear one: attention over tokens, layers, BatchNorm before a linear layer, class token.

Each is fitted to the same samples, chooses what it chooses on a part of these held out by class, and is scored on the
same test samples; each says its protocol in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.config.sections import EvaluateSettings
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.evaluation import heads
from maskedmodel.evaluation.bank import Bank, check_memory
from maskedmodel.evaluation.classifiers import C_GRID, HELD_OUT, Accuracy, Regression, hold_out, linear
from maskedmodel.evaluation.encoders import Encoder, Look, mean_over
from maskedmodel.evaluation.features import collect
from maskedmodel.evaluation.fitting import Recipe, fit
from maskedmodel.evaluation.outcome import Judgement, Score
from maskedmodel.training.data import Reading

Progress = Callable[[str, int, int], None]
Folds = Sequence[tuple[Tensor, Tensor]]
Tell = Callable[[int, int], None]  # steps done, steps in all
Fit = Callable[[Tensor, Tensor, Tensor, Tensor, Tell], Score]  # rows and labels to fit to, those to score on

OF_TOKENS: Mapping[str, tuple[str, Callable[[int, int], nn.Module], tuple[float, ...]]] = {
    "attentive": ("attentive, one query", heads.Attentive, (3e-4, 1e-3, 3e-3, 1e-2)),
    "efficient": ("efficient probing", heads.Efficient, (1e-3, 3e-3, 1e-2, 3e-2)),
    "class_queries": ("a query per class", heads.ClassQueries, (1e-2, 3e-2, 1e-1)),
}
NEED_LOOK = (*OF_TOKENS, "layers", "cls_mean")
OTHERS = (*OF_TOKENS, "layers", "batchnorm", "cls_mean")
_MIXTURE = Recipe((1e-2, 3e-2, 1e-1))
_BATCHNORM = Recipe((1.0, 10.0, 100.0, 1000.0), "lars", 1024, 90, 10 / 90, 0.0)
_SAID = {
    "attentive": "one learned query attends to all tokens in a cross-attention block with an MLP, its heads 64 values "
    "wide or more, then a linear layer (V-JEPA's probe, Bardes et al. 2024)",
    "efficient": f"at most {heads.QUERIES} learned queries attend to the tokens as they are, each gathers its own part "
    "of the values, then BatchNorm without weights and a linear layer (efficient probing, Psomas et al. 2025)",
    "class_queries": "one learned query per class attends to the tokens as they are; the class's score is a linear "
    "layer of its own on what its query gathered",
}
_STANDARD = "Tokens are standardised, value by value, by the part fitted to"


@dataclass
class Gathered:
    """What the probes need of an encoder, over all N samples.

    tokens (N, L, D) at half precision; layers (N, K, D) and class token beside mean (N, 2D) float32; None: not needed.
    """

    tokens: Bank | None = None
    layers: Tensor | None = None
    cls_mean: Tensor | None = None


@dataclass(frozen=True)
class Data:
    """The samples that are judged on, both parts, and how they are read."""

    parts: Sequence[tuple[SampleDataset, str, int | None]]  # samples, what they are called, at most how many
    tokenizer: Tokenizer[Any]
    reading: Reading

    @property
    def size(self) -> int:
        """How many samples at most."""
        return sum(len(data) if limit is None else min(limit, len(data)) for data, _, limit in self.parts)


def check(probes: Sequence[str], encoders: Sequence[Encoder], data: Data, settings: EvaluateSettings) -> None:
    """Refuse, before anything is read, what can't be done: no class token, or tokens that don't fit into memory."""
    if not set(probes) & set(NEED_LOOK):
        return
    example = data.tokenizer.prepare(
        data.tokenizer.example(1, torch.Generator().manual_seed(0)).to(data.reading.device)
    )
    for encoder in encoders:
        if encoder.look is None:
            continue
        with torch.no_grad():
            found = encoder.look(example, False)
        if "cls_mean" in probes and found.class_token is None:
            raise ConfigError(
                "The probe cls_mean joins the class token with the mean, but this encoder has no class token.",
                where=encoder.name,
                fix="Leave cls_mean out of evaluate.probes.",
            )
        if set(probes) & set(OF_TOKENS) and found.tokens is not None:
            _, length, width = found.tokens.shape
            check_memory(data.size, length, width, settings.token_memory)


def gather(
    encoder: Encoder, data: Data, probes: Sequence[str], settings: EvaluateSettings, report: Progress
) -> Gathered:
    """One pass over the data with one encoder. Raises DataError where its tokens pass the limit of memory."""
    assert encoder.look is not None
    look, by_layer = encoder.look, "layers" in probes
    bank = Bank(data.size, settings.token_memory) if set(probes) & set(OF_TOKENS) else None
    depth = 0

    def view(signal: Tensor) -> Tensor:
        nonlocal depth
        found: Look = look(signal, by_layer)
        assert found.tokens is not None
        if bank is not None:
            bank.add(found.tokens, found.valid)
        mean = mean_over(found.tokens, found.valid)
        parts = [found.class_token, mean] if "cls_mean" in probes and found.class_token is not None else []
        if found.layers is not None:
            depth = found.layers.shape[1]
            parts.append(found.layers.flatten(1))
        return torch.cat([part for part in parts if part is not None], 1) if parts else mean[:, :1]

    values = []
    for dataset, what, limit in data.parts:
        said = f"{encoder.name} on {what}"
        found = collect(
            dataset,
            data.tokenizer,
            {"": view},
            replace(data.reading, limit=limit),
            progress=lambda done, total, said=said: report(said, done, total),  # type: ignore[misc]
        )
        values.append(found[""].values)
    flat = torch.cat(values)
    width = 0
    result = Gathered(bank)
    if "cls_mean" in probes:
        width = (flat.shape[1]) // (2 + depth) * 2
        result.cls_mean = flat[:, :width]
    if depth:
        result.layers = flat[:, width:].reshape(len(flat), depth, -1)
    return result


def judge(
    probes: Sequence[str],
    encoders: Sequence[Encoder],
    data: Data,
    pooled: Mapping[str, Tensor],
    labels: Tensor,
    folds: Folds,
    settings: EvaluateSettings,
    seed: int,
    report: Progress,
) -> tuple[list[Judgement], list[str]]:
    """Every probe of `probes` that is none of k-NN and linear, and notes.

    `pooled` is one vector per sample (N, D) by kind of feature, those of the encoders among them by their names.
    """
    scores: dict[str, dict[str, Score]] = {}
    notes: list[str] = []
    device = torch.device(data.reading.device)

    def over_folds(probe: str, kind: str, run: Fit) -> None:
        found = []
        for number, (a, b) in enumerate(folds):
            said = f"{probe} probe of {kind}{f', fold {number + 1} of {len(folds)}' if len(folds) > 1 else ''}"
            report(said, 0, 1)
            found.append(run(a, labels[a], b, labels[b], partial(report, said)))
        scores.setdefault(probe, {})[kind] = Score.over(found)

    if "batchnorm" in probes:
        for kind, values in pooled.items():
            over_folds("batchnorm", kind, _trained(_vectors(values), heads.NormedLinear, _BATCHNORM, seed, device))
    if set(probes) & set(NEED_LOOK):
        for encoder in encoders:
            if encoder.look is None:
                notes.append(f"{encoder.name} gives one vector per sample: probes of tokens and layers leave it out.")
                continue
            found = gather(encoder, data, probes, settings, report)
            if found.tokens is not None and found.tokens.filled != len(labels):
                raise DataError(
                    "The data changed while they were probed.",
                    expected=f"{len(labels)} samples",
                    got=f"{found.tokens.filled}",
                )
            if found.tokens is not None and found.tokens.beyond:
                notes.append(f"{encoder.name}: {found.tokens.beyond} values of tokens lay beyond float16's range.")
            if "layers" in probes and found.layers is None:
                notes.append(f"{encoder.name} gives no layers of one width: the probe of layers leaves it out.")
            for probe, (_, make, rates) in OF_TOKENS.items():
                if probe in probes and found.tokens is not None:
                    recipe = Recipe(rates, epochs=settings.probe_epochs)
                    over_folds(probe, encoder.name, _trained(found.tokens, make, recipe, seed, device))
            if found.layers is not None:
                over_folds("layer", encoder.name, _best_layer(found.layers, seed))
                over_folds("mixture", encoder.name, _mixture(found.layers, settings, seed, device))
            if found.cls_mean is not None:
                over_folds("cls_mean", encoder.name, _linear(found.cls_mean, seed))
    order = ("attentive", "efficient", "class_queries", "layer", "mixture", "batchnorm", "cls_mean")
    return [Judgement(name, *_words(name, settings, scores[name])) for name in order if name in scores], notes


def _words(name: str, settings: EvaluateSettings, scores: dict[str, Score]) -> tuple[str, dict[str, Score], str]:
    """Title, scores and protocol."""
    grid = ", ".join(f"{c:g}" for c in C_GRID)
    regression = f"logistic regression, C from {grid} chosen as the linear probe does"
    if name in OF_TOKENS:
        title, _, rates = OF_TOKENS[name]
        return title, scores, f"{_SAID[name]}. {_STANDARD}. {Recipe(rates, epochs=settings.probe_epochs)}."
    if name == "layer":
        said = (
            f"mean over the tokens after each layer; layer and C chosen together on {HELD_OUT:.0%} of the part fitted"
        )
        return "best layer", scores, f"{said} to, held out by class; {regression}."
    if name == "mixture":
        said = "the same means, standardised and weighted by a softmax that is learned, then BatchNorm without weights "
        recipe = replace(_MIXTURE, epochs=settings.probe_epochs)
        return "mixture of layers", scores, f"{said}and a linear layer. {recipe}."
    if name == "batchnorm":
        said = "one vector per sample, BatchNorm without weights of its own, then a linear layer (MAE's probe, without "
        return "BatchNorm and linear", scores, f"{said}augmentation). {_BATCHNORM}."
    return "class token and mean", scores, f"class token and mean over the tokens in one vector; {regression}."


def _vectors(values: Tensor) -> Bank:
    """One vector per sample (N, D) as a bank of one token each, at full precision."""
    bank = Bank(len(values), values=values[:, None])
    bank.filled = len(values)
    return bank


def _trained(bank: Bank, make: Callable[[int, int], nn.Module], recipe: Recipe, seed: int, device: torch.device) -> Fit:
    def run(a: Tensor, y: Tensor, b: Tensor, z: Tensor, tell: Tell) -> Score:
        fitted = fit(lambda classes: make(bank.width, classes), bank, a, y, recipe, seed=seed, device=device, tell=tell)
        return Score(fitted.score(b, z), f"rate {fitted.rate:g}")

    return run


def _mixture(layers: Tensor, settings: EvaluateSettings, seed: int, device: torch.device) -> Fit:
    bank, recipe = _vectors(layers.flatten(1)), replace(_MIXTURE, epochs=settings.probe_epochs)

    def run(a: Tensor, y: Tensor, b: Tensor, z: Tensor, tell: Tell) -> Score:
        fitted = fit(
            lambda classes: heads.Mixture(layers.shape[1], layers.shape[2], classes),
            bank,
            a,
            y,
            recipe,
            seed=seed,
            device=device,
            tell=tell,
        )
        assert isinstance(fitted.head, heads.Mixture)
        weights = fitted.head.weights.softmax(0).tolist()
        return Score(fitted.score(b, z), f"rate {fitted.rate:g}", {"weights": tuple(round(w, 4) for w in weights)})

    return run


def _linear(values: Tensor, seed: int) -> Fit:
    def run(a: Tensor, y: Tensor, b: Tensor, z: Tensor, tell: Tell) -> Score:
        found = linear(values[a], y, values[b], z, seed=seed)
        return Score(found.accuracy, f"C {found.c:g}{'' if found.converged else ', not converged'}")

    return run


def _best_layer(layers: Tensor, seed: int) -> Fit:
    """The layer and the C that do best on the held-out part, then fitted to all; of equally good ones the deepest."""

    def run(a: Tensor, y: Tensor, b: Tensor, z: Tensor, tell: Tell) -> Score:
        classes, held = y.numpy(), hold_out(y.numpy(), seed)
        if len(np.unique(classes)) < 2 or not held.any() or len(np.unique(classes[~held])) < 2:
            linear(layers[a, -1], y, layers[b, -1], z, seed=seed)  # which says what is wrong
        best: tuple[int, int, float] = (-1, 0, 0.0)
        shares = []
        for layer in range(layers.shape[1]):
            tell(layer, layers.shape[1])
            x = layers[a, layer].double().numpy()
            search, right = Regression(x[~held], classes[~held]), []
            for c in C_GRID:
                search.fit(c)
                right.append(search.right(x[held], classes[held]))
            shares.append(round(max(right) / int(held.sum()), 4))
            if max(right) >= best[0]:
                best = max(right), layer, C_GRID[int(np.argmax(right))]
        _, layer, c = best
        final = Regression(layers[a, layer].double().numpy(), classes)
        converged = final.fit(c)
        right_ones = final.right(layers[b, layer].double().numpy(), z.numpy())
        chosen = f"layer {layer + 1} of {layers.shape[1]}, C {c:g}{'' if converged else ', not converged'}"
        return Score(Accuracy.of(right_ones, len(z)), chosen, {"held out": tuple(shares)})

    return run
