"""A sampling network that learns where errors are high (AdaMAE, Bandara et al. 2023)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Noise, Tokenizer, Tokens
from maskedmodel.schedulers import FeatureEncoder, Observed
from maskedmodel_masks.network import ScorerSettings, TokenScorer
from maskedmodel_masks.ranking import Sign, direction, gumbel
from maskedmodel_masks.uniform import Scheduled


class SampledSettings(ScorerSettings):
    """Tokens are drawn from a learned distribution (AdaMAE, Bandara et al. 2023)."""

    name: Literal["sampled"] = "sampled"
    sign: Sign = Field(
        "show",
        description="What the network learns to draw where errors are high. show: visible tokens, as AdaMAE does. "
        "hide: hidden ones.",
    )
    weight: float = Field(
        1e-4,
        gt=0,
        description="Weight of the sampling loss. It reaches the network alone, so under AdamW only clipping sees it.",
    )
    baseline: bool = Field(
        True,
        description="Whether errors count from their mean over the sample's hidden tokens, in their standard "
        "deviations. false: as they are, as in AdaMAE.",
    )
    entropy: float = Field(
        0.01, ge=0, description="Weight of the distribution's entropy within the sampling loss: it keeps all likely."
    )


class Sampled(Scheduled[SampledSettings]):
    """Draws tokens without replacement in proportion to a network's softmax, by the highest of logits + Gumbel noise.

    The mask can't be differentiated, so the network learns by a surrogate: the logarithm of the probability of hidden
    tokens is raised where their error is high, and lowered where it is low.
    """

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        super().attach(tokenizer, encoder)
        s = self.settings
        self.network = TokenScorer(tokenizer, s.width, s.depth, s.heads)

    @torch.no_grad()
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        logits: Tensor = self.network(tokens)
        return direction(self.settings.sign) * (logits + gumbel(tokens, noise))

    def observe(self, seen: Observed) -> Tensor:
        """The sampling loss, mean over samples."""
        s, mask = self.settings, seen.mask
        logits: Tensor = self.network(seen.tokens)
        if seen.tokens.valid is not None:
            logits = logits.masked_fill(~seen.tokens.valid, -1e9)  # finite, so that zero times it is zero
        log_p = logits.log_softmax(1)
        there = torch.ones_like(mask.ids_hidden, dtype=torch.bool) if mask.hidden_valid is None else mask.hidden_valid
        count = there.sum(1).clamp(min=1)
        error = seen.loss_per_token.float()
        if s.baseline:
            error = (error - error.sum(1, keepdim=True) / count[:, None]) * there
            error = error / (error.square().sum(1, keepdim=True) / count[:, None]).sqrt().clamp(min=1e-6)
        surrogate = -(log_p.gather(1, mask.ids_hidden) * error * there).sum(1) / count
        entropy = -(log_p.exp() * log_p).sum(1)
        return s.weight * (surrogate - s.entropy * entropy).mean()

    def flops(self, length: int) -> float:
        """A pass without gradient to draw, one with gradient to learn."""
        return 4 * self.network.flops(length)
