"""Rows that keep different numbers of tokens, without work for those that aren't there."""

from __future__ import annotations

from dataclasses import replace

import torch

from maskedmodel.tokens import Mask, Tokens

GROUPS = 8  # at most: every further one makes products smaller, and a small product is a slow one
# Tokens of a batch times the encoder's width. Below it groups take longer than filling up, for the same reason: on a
# CPU 128 x 64 tokens of width 64 did, 64 x 64 of width 192 were about even, and 32 x 256 of width 192 took less.
WORTH = 2**20


def pays(rows: int, length: int, dim: int) -> bool:
    """Whether `rows` samples of `length` tokens for an encoder of width `dim` are enough to be grouped."""
    return rows * length * dim >= WORTH


def packed(tokens: Tokens, mask: Mask, dim: int) -> list[tuple[Tokens, Mask]]:
    """The batch in groups, where that pays for an encoder of width `dim`; else the batch whole, filled up."""
    return grouped(tokens, mask) if pays(tokens.batch, tokens.length, dim) else [(tokens, mask)]


def grouped(tokens: Tokens, mask: Mask) -> list[tuple[Tokens, Mask]]:
    """The batch in groups of samples that keep equally many tokens and hide equally many, so that nothing is filled up.

    A scheduler that lets counts follow content gives a few different ones, and a dense sample then costs what it keeps.
    The batch stays whole where all samples are alike, where there are more than `GROUPS` kinds, where a sample has
    nothing to hide, and where the mask has gates, which carry one gradient for the whole batch.
    """
    if mask.gates is not None or mask.keep_valid is None:
        return [(tokens, mask)]
    counts = torch.stack([mask.visible.sum(1), mask.hidden.sum(1)], 1)
    kinds, kind = counts.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    if len(kinds) > GROUPS or not kinds.all():
        return [(tokens, mask)]
    groups = []
    for index, (keep, hide) in enumerate(kinds.tolist()):
        rows = (kind == index).nonzero()[:, 0]
        groups.append((tokens.rows(rows), replace(mask.rows(rows), widths=(keep, hide), even=True)))
    return groups
