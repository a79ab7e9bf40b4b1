"""Checks of the signals a tokenizer gives and takes: example, prepare, augment, collate, picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskedmodel.components import Tokenizer
from maskedmodel.noise import Noise, seeded
from maskedmodel.testing.fixtures import generator
from maskedmodel.testing.rules import (
    ROUNDING,
    NotApplicable,
    difference,
    require,
    require_equal,
    same,
    tokens_differ,
    untouched_generators,
)
from maskedmodel.tokens import Tokens

BATCH = 4
# The share of pixels that a footprint may get wrong. A line joins the last value of a token to the first of the next,
# a quarter of what a token of four values draws; a footprint that is laid out wrongly errs in half of them or more.
FOOTPRINT = 0.35

AnyTokenizer = Tokenizer[Any]


def prepared(tokenizer: AnyTokenizer, seed: int = 0) -> Tensor:
    """A batch of four examples made ready to tokenize, with statistics fitted to it where the tokenizer asks."""
    signal = tokenizer.prepare(tokenizer.example(BATCH, generator(seed)))
    if tokenizer.needs_statistics:
        tokenizer.fit_statistics([signal])
        signal = tokenizer.prepare(tokenizer.example(BATCH, generator(seed)))
    return signal


def check_basics(tokenizer: AnyTokenizer) -> None:
    """`example` and `prepare` give finite signals, and `tokenize` Tokens of `token_width` values along `axes`."""
    axes, width = getattr(tokenizer, "axes", None), getattr(tokenizer, "token_width", None)
    require(
        isinstance(axes, tuple) and all(isinstance(axis, str) for axis in axes),
        tokenizer,
        "axes is missing, or no tuple of names",
        expected='axes = ("time",), say',
        got=repr(axes),
        fix="State axes in the class.",
    )
    require(
        isinstance(width, int) and width > 0,
        tokenizer,
        "token_width is missing, or no number above 0",
        expected="the number of values in a token",
        got=repr(width),
        fix="Set self.token_width in __init__, from the settings.",
    )
    signal = tokenizer.example(BATCH, generator())
    _require_signal(tokenizer, "example", signal)
    _require_signal(tokenizer, "prepare", tokenizer.prepare(signal))
    tokens = tokenizer.tokenize(prepared(tokenizer))
    require(
        isinstance(tokens, Tokens), tokenizer, "tokenize gave no Tokens", expected="Tokens", got=type(tokens).__name__
    )
    got = tuple(tokens.values.shape)
    require(
        got[0] == BATCH and got[2] == width,
        tokenizer,
        "tokens have another shape than they should",
        expected=f"(B, L, token_width) = ({BATCH}, L, {width})",
        got=got,
        fix="Set token_width to the number of values in a token, and keep a row for each signal.",
    )
    values = tokens.values if tokens.valid is None else tokens.values[tokens.valid]
    wild = int((~torch.isfinite(values)).sum())
    require(
        wild == 0,
        tokenizer,
        "tokenize gave values that aren't finite",
        expected="finite values in every real token",
        got=f"{wild} of {values.numel()} values",
        fix="Guard what is divided by, and turn absent values into zeros: Tokens.without_nan does.",
    )


def _require_signal(tokenizer: AnyTokenizer, method: str, signal: object) -> None:
    fits = isinstance(signal, Tensor) and signal.dim() > 0 and signal.shape[0] == BATCH
    got = tuple(signal.shape) if isinstance(signal, Tensor) else type(signal).__name__
    require(fits, tokenizer, f"{method} gave another batch", expected=f"a tensor ({BATCH}, ...)", got=got)
    assert isinstance(signal, Tensor)
    wild = ~torch.isfinite(signal) & ~(signal.isnan() & tokenizer.accepts_nan)
    require(
        not wild.any(),
        tokenizer,
        f"{method} gave values that aren't finite",
        expected="finite values" + (", or NaN for what is absent" if tokenizer.accepts_nan else ""),
        got=f"{int(wild.sum())} of {signal.numel()} values are NaN or infinite",
        fix="Guard what is divided by. Where NaN says that a value is absent, set accepts_nan = True in the class.",
    )


def check_example(tokenizer: AnyTokenizer) -> None:
    """`example` gives as many signals as asked for, and depends on its generator alone."""
    for batch in (1, 3):
        signal = tokenizer.example(batch, generator())
        require(signal.shape[0] == batch, tokenizer, "example gave another batch", expected=batch, got=signal.shape[0])
    with seeded(1):
        first = tokenizer.example(3, generator())
    with seeded(2):
        again = tokenizer.example(3, generator())
    require_equal(
        first,
        again,
        tokenizer,
        "example isn't a function of its generator",
        expected="the same signals from two generators with the same seed",
        fix="Draw everything with generator=generator.",
    )
    require(
        not same(first, tokenizer.example(3, generator(1))),
        tokenizer,
        "example ignores its generator",
        expected="other signals from a generator with another seed",
        got="the same signals",
    )


def check_prepare(tokenizer: AnyTokenizer) -> None:
    """`prepare` gives the same result each time."""
    signal = tokenizer.example(BATCH, generator())
    first, again = tokenizer.prepare(signal.clone()), tokenizer.prepare(signal.clone())
    rule = "prepare gave two results for one batch"
    require_equal(first, again, tokenizer, rule, expected="the same each time", fix="Keep what is random in augment.")


def check_augment(tokenizer: AnyTokenizer) -> None:
    """`augment` is a function of the signal and the noise alone, sample by sample, and its result can be cut."""
    prepared(tokenizer)  # fits statistics
    signal = tokenizer.example(BATCH, generator())
    noise = Noise.of(range(BATCH))
    first, again = tokenizer.augment(signal.clone(), noise), tokenizer.augment(signal.clone(), noise)
    require_equal(
        first,
        again,
        tokenizer,
        "augment gave two results for one noise",
        expected="a pure function of signal and noise",
        fix="Draw with noise.uniform(count, purpose=...), never from a generator.",
    )
    order = torch.tensor([2, 0, 3, 1])
    away = difference(tokenizer.augment(signal[order], noise.rows(order)), first[order])
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone, among = tokenizer.augment(signal[one], noise.rows(one)), first[one]
        if alone.shape != among.shape and tokenizer.accepts_nan:  # a batch of ragged samples is as wide as its longest
            found = tokens_differ(tokenizer.tokenize(alone), 0, tokenizer.tokenize(among), 0)
            away = max(away, 0.0 if found is None else float("inf"))
        else:
            away = max(away, difference(alone, among))
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
    """`picture` gives (B, 3, height, width) in [0, 1], of a constant signal too, and of one with absent values."""
    signal = prepared(tokenizer)
    cases = {"an example": signal, "a constant signal": torch.zeros_like(signal)}
    if tokenizer.accepts_nan and signal.is_floating_point():
        cases["a signal with absent values"] = torch.where(signal > signal.nanmedian(), torch.nan, signal)
        cases["a signal that isn't there"] = torch.full_like(signal, torch.nan)
    for what, given in cases.items():
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


def check_footprint(tokenizer: AnyTokenizer) -> None:
    """`footprint` marks the pixels of the picture that change with the values of the chosen tokens, and no others."""
    signal = prepared(tokenizer)
    tokens = tokenizer.tokenize(signal)
    picture = tokenizer.picture(signal)
    place = torch.arange(tokens.length) / tokens.length
    middle = (place >= 1 / 3) & (place < 2 / 3)
    for what, one in (("the first half of the tokens", place < 0.5), ("the middle third of the tokens", middle)):
        chosen = one.expand(tokens.batch, -1)
        marked = tokenizer.footprint(tokens, chosen)
        if marked is None:
            raise NotApplicable("footprint returns None: it is found from the picture")
        require(
            marked.dtype == torch.bool and marked.shape == (picture.shape[0], *picture.shape[2:]),
            tokenizer,
            "footprint has another shape or type than the picture",
            expected=f"{(picture.shape[0], *picture.shape[2:])} bool",
            got=f"{tuple(marked.shape)} {marked.dtype}",
        )
        mine, theirs = (_pixels_of(tokenizer, tokens, which) for which in (chosen, ~chosen))
        for rule, among, wanted in (
            ("footprint leaves out pixels that show chosen tokens", mine & ~theirs, True),
            ("footprint marks pixels that show other tokens", theirs & ~mine, False),
        ):
            wrong = int((among & (marked != wanted)).sum())
            require(
                wrong <= FOOTPRINT * int(among.sum()),
                tokenizer,
                f"{rule} ({what})",
                expected=f"at most {FOOTPRINT:.0%} of them, for lines that join two tokens",
                got=f"{wrong} of {int(among.sum())} pixels that change with these tokens' values alone",
                fix="Lay tokens out as picture does, or return None: then it is found from the picture.",
            )


def check_left_out(tokenizer: AnyTokenizer) -> None:
    """With `leaves_out`, a token that isn't valid isn't drawn: no value and no place of it shows in the picture."""
    if not tokenizer.leaves_out:
        raise NotApplicable("leaves_out is False: hidden tokens are drawn in grey")
    signal = prepared(tokenizer)
    tokens = tokenizer.tokenize(signal)
    shown = (torch.arange(tokens.length) % 2 == 0).expand(tokens.batch, -1)
    if tokens.valid is not None:
        shown = shown & tokens.valid
    like = tokenizer.detokenize(tokens.values, tokens)
    pictures = []
    for moved in (0.0, 0.5):
        values = torch.where(shown[..., None], tokens.values, tokens.values + moved)
        coords = tokens.coords.expand(tokens.batch, -1, -1)
        coords = torch.where(shown[..., None], coords, coords + moved)
        part = replace(tokens, values=values, coords=coords, valid=shown)
        pictures.append(tokenizer.picture(tokenizer.detokenize(values, part), like))
    wrong = int((pictures[0] != pictures[1]).any(1).sum())
    require(
        wrong == 0,
        tokenizer,
        "a token that is left out shows in the picture",
        expected="the same picture whatever tokens that aren't valid hold",
        got=f"{wrong} pixels that differ",
        fix="Let detokenize give NaN where Tokens.valid is False, and picture draw no NaN.",
    )
    whole = tokenizer.picture(like, like)
    require(
        not same(whole, pictures[0]),
        tokenizer,
        "picture draws nothing of a token",
        expected="another picture with all tokens than with every second one",
        got="the same",
    )


def _pixels_of(tokenizer: AnyTokenizer, tokens: Tokens, which: Tensor) -> Tensor:
    """(B, height, width) bool: the pixels that change when tokens `which` (B, L) take the least or largest value."""
    like = tokenizer.detokenize(tokens.values, tokens)
    before = tokenizer.picture(like, like)
    changed = torch.zeros_like(before[:, 0], dtype=torch.bool)
    flat = tokens.values.flatten(1)
    for end in (flat.amin(1), flat.amax(1)):
        moved = torch.where(which[..., None], end[:, None, None], tokens.values)
        changed |= (tokenizer.picture(tokenizer.detokenize(moved, tokens), like) - before).abs().amax(1) > 1e-4
    return changed
