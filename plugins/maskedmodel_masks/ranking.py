"""What schedulers that score tokens share: ranks among real tokens, Gumbel noise, counts per row, the sign.

Methods disagree about what to do with tokens of a high score. AdaMAE keeps them visible, HPM and AttMask hide them: so
each scheduler has a sign. hide: high scores are hidden more often, the mask is an adversary. show: a partner.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel.tokens import hidden_count

Sign = Literal["hide", "show"]


def direction(sign: Sign) -> float:
    """1 where high scores are hidden, -1 where they are shown."""
    return 1.0 if sign == "hide" else -1.0


def gumbel(tokens: Tokens, noise: Noise, purpose: str = "mask") -> Tensor:
    """(B, L) standard Gumbel noise. The k highest of `logits + gumbel` are drawn without replacement, one after the
    other in proportion to exp(logits) (Kool et al. 2019).
    """
    uniform = noise.uniform(tokens.length, purpose) + 2.0**-25  # in (0, 1): the noise lies on a grid of 2^-24
    return -(-uniform.log()).log()


def ranks(scores: Tensor, valid: Tensor | None) -> Tensor:
    """The rank of each token among the real ones of its sample (B, L), 0 for the lowest to 1 for the highest.

    Equal scores share the mean of their ranks, so that a sample of nothing but background has 0.5 throughout.
    """
    if valid is not None:
        scores = scores.masked_fill(~valid, torch.inf)
    ordered = scores.sort(dim=1).values.contiguous()
    scores = scores.contiguous()
    below = torch.searchsorted(ordered, scores, side="left")
    upto = torch.searchsorted(ordered, scores, side="right")
    last = real_counts(scores, valid)[:, None] - 1
    return ((below + upto - 1).to(scores.dtype) / 2 / last.clamp(min=1)).clamp(max=1)


def real_counts(like: Tensor, valid: Tensor | None) -> Tensor:
    """(B,) int64, the number of real tokens of each sample."""
    if valid is None:
        return torch.full((like.shape[0],), like.shape[1], device=like.device)
    return valid.sum(1)


def wanted(tokens: Tokens, ratio: float) -> Tensor:
    """(B,) int64, how many tokens a ratio hides in each sample, as `Mask.from_scores` counts them."""
    return hidden_count(real_counts(tokens.values[..., 0], tokens.valid), ratio)


def places_from_top(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, L) int64: 0 for the highest score of a sample, 1 for the next. Padding comes last; ties in raster order."""
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
