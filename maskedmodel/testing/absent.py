"""The check of tokenizers that accept NaN: what is absent from a signal is absent from its tokens, and nothing else is.

The kit puts NaN into the examples: single values, whole tokens, a whole channel, and one sample alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from maskedmodel.noise import Noise
from maskedmodel.testing.fixtures import generator
from maskedmodel.testing.rules import NotApplicable, require, require_finite_padding, tokens_differ
from maskedmodel.testing.signals import BATCH, AnyTokenizer, prepared
from maskedmodel.tokens import Tokens

SHARE = 0.05  # of single values that are taken away


def check_absent(tokenizer: AnyTokenizer) -> None:
    """NaN is neither a value of a token nor scored: `observed` and `valid` say where it was, and `detokenize` gives it
    back. The other samples don't notice. Where `accepts_nan` is False there is nothing to check.
    """
    if not tokenizer.accepts_nan:
        raise NotApplicable("accepts_nan is False: a sample with NaN is a broken one")
    whole = prepared(tokenizer)  # fits statistics, where asked for
    if not whole.is_floating_point():
        raise NotApplicable("its signals hold integers, which have no NaN")
    stored = tokenizer.example(BATCH, generator())
    plain = tokenizer.tokenize(whole)
    for what, absent in _absences(tokenizer, stored, plain):
        poked = stored.masked_fill(absent, torch.nan)
        for how, signal in (
            ("prepare", tokenizer.prepare(poked)),
            ("augment", tokenizer.augment(poked, Noise.of(range(BATCH)))),
        ):
            tokens = tokenizer.tokenize(signal)
            require_finite_padding(tokenizer, tokens)
            _check_marks(tokenizer, f"{what}, after {how}", tokens)
        signal = tokenizer.prepare(poked)
        tokens = tokenizer.tokenize(signal)
        lacking = torch.zeros(BATCH, dtype=torch.bool)
        if signal.shape == whole.shape:  # else it is another signal, as text is that lacks letters
            lacking = (signal.isnan() & ~whole.isnan()).flatten(1).any(1)
        _check_nothing_invented(tokenizer, what, tokens, signal, plain, lacking)
        for row in range(BATCH):
            if not absent[row].any():
                found = tokens_differ(tokens, row, plain, row)
                require(
                    found is None,
                    tokenizer,
                    f"a sample changes where another one lacks values ({what})",
                    expected="the same tokens",
                    got=found,
                    fix="Let each sample's tokens depend on that sample alone.",
                )


def _absences(tokenizer: AnyTokenizer, stored: Tensor, plain: Tokens) -> Iterator[tuple[str, Tensor]]:
    """Where values of a stored batch are taken away, (B, ...) bool, by name; each sample keeps some."""
    odd = torch.arange(BATCH).reshape(-1, *[1] * (stored.dim() - 1)) % 2 == 1
    draw = torch.rand(stored.shape, generator=generator(11))
    yield "single values", draw < SHARE
    if stored.dim() > 2 and stored.shape[1] > 1:
        first = torch.zeros_like(stored, dtype=torch.bool)
        first[:, 0] = True
        yield "a whole channel", first & odd
    yield "half of one sample", (draw < 0.5) & (torch.arange(BATCH).reshape(odd.shape) == 1)
    token = _written_by(tokenizer, plain, 0)
    if token.shape == stored.shape and bool(token.any()) and not bool(token.flatten(1).all(1).any()):
        yield "a whole token", token & odd


def _written_by(tokenizer: AnyTokenizer, tokens: Tokens, index: int) -> Tensor:
    """(B, ...) bool: the values of the signal that one token holds."""
    one = torch.zeros_like(tokens.values)
    one[:, index] = 1
    moved = tokenizer.detokenize(tokens.values + one, tokens) - tokenizer.detokenize(tokens.values, tokens)
    return moved.abs() > 1e-6


def _check_marks(tokenizer: AnyTokenizer, what: str, tokens: Tokens) -> None:
    if tokens.observed is None:
        return
    empty = ~tokens.observed.any(-1)
    real = torch.ones_like(empty) if tokens.valid is None else tokens.valid
    wrong = int((empty & real).sum())
    require(
        wrong == 0,
        tokenizer,
        f"a token of which nothing is observed isn't padding ({what})",
        expected="valid False for each of them",
        got=f"{wrong} tokens",
        fix="Set Tokens.valid too: Tokens.without_nan does.",
    )


def _check_nothing_invented(
    tokenizer: AnyTokenizer, what: str, tokens: Tokens, signal: Tensor, plain: Tokens, lacking: Tensor
) -> None:
    """The values that tokens lack are those that the signal lacks. `lacking` (B,): samples made to lack some."""
    back = tokenizer.detokenize(tokens.values, tokens)
    unmarked = int((signal.isnan() & ~back.isnan()).sum())
    require(
        unmarked == 0,
        tokenizer,
        f"absent values come back as if they had been there ({what})",
        expected="NaN wherever the signal has it",
        got=f"{unmarked} of {int(signal.isnan().sum())} values are numbers",
        fix="Let tokenize end with tokens.without_nan(), and detokenize begin with like.absent_as_nan(values).",
    )
    lost = int((back.isnan() & ~signal.isnan()).sum())
    require(
        lost == 0 or not exact(tokenizer),
        tokenizer,
        f"values that are there are left out ({what})",
        expected="NaN nowhere else than in the signal",
        got=f"{lost} values",
        fix="Mark the absent values alone in Tokens.observed; what is there of a token is still scored.",
    )
    fewer_there = _missing(tokens) > _missing(plain)
    more = int((lacking & ~fewer_there).sum())
    require(
        more == 0,
        tokenizer,
        f"absent values are scored as if they were there ({what})",
        expected="fewer observed values than without NaN in each sample that lacks some",
        got=f"{more} samples without a mark in Tokens.observed or Tokens.valid",
        fix="Let tokenize end with tokens.without_nan().",
    )


def exact(tokenizer: AnyTokenizer) -> bool:
    """Whether each value of the signal stands in one token as it is, so that absences correspond."""
    return tokenizer.round_trip_tolerance < 1e-3 and not tokenizer.overlapping


def _missing(tokens: Tokens) -> Tensor:
    """(B,) how many values of a sample's tokens aren't there."""
    there = torch.ones_like(tokens.values, dtype=torch.bool) if tokens.observed is None else tokens.observed
    if tokens.valid is not None:
        there = there & tokens.valid[..., None]
    return (~there).sum((1, 2))
