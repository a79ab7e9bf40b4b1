"""A scheduler network that the reconstruction loss itself trains, through a hard mask (straight-through Gumbel top-k).

In the forward pass tokens are hidden or not, and the encoder works on visible ones alone: its work is saved. In the
backward pass the mask counts as a continuous map h in (0, 1), how much a token is hidden. Its gradient comes in two
ways: visible tokens pass a gate of value one and slope 1 - h as the encoder takes them in, which says how much each of
them helps; and the errors of hidden tokens, measured from their mean, say which of them cost most.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Mask, Noise, Tokenizer, Tokens
from maskedmodel.schedulers import FeatureEncoder, Observed
from maskedmodel_masks.network import ScorerSettings, TokenScorer
from maskedmodel_masks.ranking import Sign, direction, gumbel
from maskedmodel_masks.uniform import Scheduled


class GateFields(ScorerSettings):
    """Settings that both schedulers with gates have."""

    bound: float = Field(
        3.0,
        gt=0,
        description="Largest size of a score, beside Gumbel noise of spread 1.3: it keeps every token likely to be "
        "hidden and to be shown now and then.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="Softness of the map in the backward pass: the higher, the more tokens get a gradient.",
    )
    weight: float = Field(1.0, gt=0, description="Weight of the hidden tokens' errors beside the gates' gradient.")


G = TypeVar("G", bound=GateFields)


class Gates(Scheduled[G]):
    """The network and its two gradients. A subclass says whose side the network is on."""

    @abstractmethod
    def lean(self, progress: float) -> float:
        """1: the network makes reconstruction easy (a partner). -1: it makes it hard (an adversary)."""

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        super().attach(tokenizer, encoder)
        s = self.settings
        self.network = TokenScorer(tokenizer, s.width, s.depth, s.heads)

    def _noisy(self, tokens: Tokens, noise: Noise) -> Tensor:
        """Scores (B, L), high = hidden, with Gumbel noise: their highest are a draw without replacement."""
        bound = self.settings.bound
        scores: Tensor = bound * (self.network(tokens) / bound).tanh()
        return scores + gumbel(tokens, noise)

    @torch.no_grad()
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return self._noisy(tokens, noise)

    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        """The mask of the highest scores; in training with gates, by which the loss reaches the network."""
        if not (self.training and torch.is_grad_enabled()):
            return super().sample(tokens, progress, noise)
        noisy = self._noisy(tokens, noise)
        mask = self.ranked(noisy.detach(), tokens, progress, noise)
        shift = self.lean(progress) * self.soft(noisy, mask)
        return replace(mask, gates=1 - (shift - shift.detach()))

    def soft(self, noisy: Tensor, mask: Mask) -> Tensor:
        """The continuous map h (B, L): one half where a score would just be hidden."""
        given = noisy.detach()
        least = given.masked_fill(~mask.hidden, torch.inf).amin(1, keepdim=True)
        most = given.masked_fill(~mask.visible, -torch.inf).amax(1, keepdim=True)
        # A row with a single real token hides none, and its border lies nowhere.
        border = ((least + most) / 2).nan_to_num(0, 0, 0)
        return ((noisy - border) / self.settings.temperature).sigmoid()

    def observe(self, seen: Observed) -> Tensor | None:
        """What the errors of hidden tokens say; None for a mask that was drawn without gates."""
        mask = seen.mask
        if mask.gates is None:
            return None
        there = torch.ones_like(mask.ids_hidden, dtype=torch.bool) if mask.hidden_valid is None else mask.hidden_valid
        count = there.sum(1, keepdim=True).clamp(min=1)
        error = seen.loss_per_token.float()
        error = (error - error.sum(1, keepdim=True) / count) * there
        # The gates carry minus the gradient of h, and already the side that the network is on.
        return -self.settings.weight * (mask.gates.gather(1, mask.ids_hidden) * error / count).sum(1).mean()

    def flops(self, length: int) -> float:
        """A pass with gradient, for the mask and its gates."""
        return 3 * self.network.flops(length)


class GatedSettings(GateFields):
    """A network trained by the reconstruction loss through straight-through Gumbel top-k."""

    name: Literal["gated"] = "gated"
    sign: Sign = Field(
        "hide",
        description="What the network learns. hide: to hide what is hard to reconstruct. show: to hide what is easy.",
    )


class Gated(Gates[GatedSettings]):
    """An adversary, or a partner, of the autoencoder."""

    def lean(self, progress: float) -> float:
        return -direction(self.settings.sign)


class CurriculumSettings(GateFields):
    """The network starts as a partner and ends as an adversary (CL-MAE, Madan et al. 2024)."""

    name: Literal["curriculum"] = "curriculum"
    start: float = Field(
        1.0, ge=-1, le=1, description="Whose side the network is on at the first step: 1 = partner, -1 = adversary."
    )
    end: float = Field(-1.0, ge=-1, le=1, description="Whose side the network is on at the last step.")


class Curriculum(Gates[CurriculumSettings]):
    """Easy masks first, hard ones at the end, at an even pace."""

    def lean(self, progress: float) -> float:
        s = self.settings
        return s.start + (s.end - s.start) * min(max(progress, 0.0), 1.0)
