"""Checks of the signals a tokenizer gives and takes: example, prepare, augment, collate, picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.noise import Noise, seeded
from maskedmodel.testing.fixtures import generator
from maskedmodel.testing.rules import ROUNDING, difference, require, tokens_differ, untouched_generators

BATCH = 4

AnyTokenizer = Tokenizer[Any]


def prepared(tokenizer: AnyTokenizer, seed: int = 0) -> Tensor:
    """A batch of four examples made ready to tokenize; statistics are fitted to it where the tokenizer asks."""
    signal = tokenizer.prepare(tokenizer.example(BATCH, generator(seed)))
    if tokenizer.needs_statistics:
        tokenizer.fit_statistics([signal])
    return signal


def check_example(tokenizer: AnyTokenizer) -> None:
    """`example` gives as many finite signals as asked for, and depends on its generator alone."""
    for batch in (1, 3):
        signal = tokenizer.example(batch, generator())
        require(signal.shape[0] == batch, tokenizer, "example gave another batch", expected=batch, got=signal.shape[0])
    require(torch.isfinite(signal).all(), tokenizer, "example gave values that aren't finite", expected="finite values")
    with seeded(1):
        first = tokenizer.example(3, generator())
    with seeded(2):
        again = tokenizer.example(3, generator())
    require(
        torch.equal(first, again),
        tokenizer,
        "example isn't a function of its generator",
        expected="the same signals from two generators with the same seed",
        got=f"a difference of {difference(again, first):.2g} of the largest value",
        fix="Draw everything with generator=generator.",
    )
    require(
        not torch.equal(first, tokenizer.example(3, generator(1))),
        tokenizer,
        "example ignores its generator",
        expected="other signals from a generator with another seed",
        got="the same signals",
    )


def check_prepare(tokenizer: AnyTokenizer) -> None:
    """`prepare` gives the same result each time."""
    signal = tokenizer.example(BATCH, generator())
    first, again = tokenizer.prepare(signal.clone()), tokenizer.prepare(signal.clone())
    require(
        difference(again, first) == 0,
        tokenizer,
        "prepare gave two results for one batch",
        expected="the same each time",
        got=f"a difference of {difference(again, first):.2g} of the largest value",
        fix="Keep what is random in augment.",
    )


def check_augment(tokenizer: AnyTokenizer) -> None:
    """`augment` is a function of the signal and the noise alone, sample by sample, and its result can be cut."""
    prepared(tokenizer)  # fits statistics
    signal = tokenizer.example(BATCH, generator())
    noise = Noise.of(range(BATCH))
    first, again = tokenizer.augment(signal.clone(), noise), tokenizer.augment(signal.clone(), noise)
    require(
        difference(again, first) == 0,
        tokenizer,
        "augment gave two results for one noise",
        expected="a pure function of signal and noise",
        got=f"a difference of {difference(again, first):.2g} of the largest value",
        fix="Draw with noise.uniform(count, purpose=...), never from a generator.",
    )
    order = torch.tensor([2, 0, 3, 1])
    away = difference(tokenizer.augment(signal[order], noise.rows(order)), first[order])
    for row in range(BATCH):
        one = slice(row, row + 1)
        away = max(away, difference(tokenizer.augment(signal[one], noise.rows(one)), first[one]))
    require(
        away <= ROUNDING,
        tokenizer,
        "augment treats a sample differently in another batch",
        expected=f"the same result for the same sample and noise, within {ROUNDING} of the largest value",
        got=f"a difference of {away:.2g}",
        fix="Let each row depend on its own row of the noise alone.",
    )
    tokens = tokenizer.tokenize(first)
    require(tokens.batch == BATCH, tokenizer, "augment changed the batch", expected=BATCH, got=tokens.batch)


def check_collate(tokenizer: AnyTokenizer) -> None:
    """`collate` makes of single samples the batch they came from."""
    prepared(tokenizer)  # fits statistics
    stored = tokenizer.example(BATCH, generator())
    whole = tokenizer.tokenize(tokenizer.prepare(stored))
    collated = tokenizer.tokenize(tokenizer.prepare(tokenizer.collate(list(stored))))
    for row in range(BATCH):
        found = tokens_differ(collated, row, whole, row)
        require(found is None, tokenizer, f"collate changes sample {row}", expected="the same tokens", got=found)


def check_inputs_kept(tokenizer: AnyTokenizer) -> None:
    """No method changes the tensor it is handed."""
    signal = prepared(tokenizer)
    stored = tokenizer.example(BATCH, generator())
    tokens = tokenizer.tokenize(signal.clone())
    calls: dict[str, tuple[Tensor, Callable[[Tensor], object]]] = {
        "prepare": (stored, tokenizer.prepare),
        "augment": (stored, lambda given: tokenizer.augment(given, Noise.of(range(BATCH)))),
        "tokenize": (signal, tokenizer.tokenize),
        "detokenize": (tokens.values.clone(), lambda given: tokenizer.detokenize(given, tokens)),
        "picture": (signal, tokenizer.picture),
    }
    for method, (given, call) in calls.items():
        handed = given.clone()
        call(handed)
        changed = int((handed.nan_to_num() != given.nan_to_num()).sum())
        require(
            changed == 0,
            tokenizer,
            f"{method} changes its input in place",
            got=f"{changed} of {given.numel()} values changed",
            fix="Use out-of-place operations: the caller still needs the tensor.",
        )


def check_global_generators(tokenizer: AnyTokenizer) -> None:
    """No method draws from the global generators of torch, numpy or Python."""
    with untouched_generators(tokenizer):
        signal = prepared(tokenizer)
        tokenizer.augment(tokenizer.example(BATCH, generator()), Noise.of(range(BATCH)))
        tokens = tokenizer.tokenize(signal)
        tokenizer.detokenize(tokens.values, tokens)
        tokenizer.picture(signal)


def check_picture(tokenizer: AnyTokenizer) -> None:
    """`picture` gives (B, 3, height, width) in [0, 1], of a constant signal too."""
    signal = prepared(tokenizer)
    for what, given in (("an example", signal), ("a constant signal", torch.zeros_like(signal))):
        picture = tokenizer.picture(given)
        require(
            picture.dim() == 4 and picture.shape[:2] == (BATCH, 3) and picture.is_floating_point(),
            tokenizer,
            f"picture of {what} has a wrong shape or type",
            expected=f"({BATCH}, 3, height, width) floating point",
            got=f"{tuple(picture.shape)} {picture.dtype}",
        )
        low, high = float(picture.min()), float(picture.max())
        require(
            bool(torch.isfinite(picture).all()) and low >= 0 and high <= 1,
            tokenizer,
            f"picture of {what} leaves [0, 1]",
            expected="finite values from 0 to 1",
            got=f"{low:g} to {high:g}",
            fix="Scale, then clamp(0, 1).",
        )
