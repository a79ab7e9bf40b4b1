"""Predict what a teacher makes of hidden tokens, instead of their values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Settings, Tokenizer
from maskedmodel.nn import block_flops
from maskedmodel.scenes import Scene, SceneObjective
from maskedmodel.schedulers import FeatureEncoder

log = logging.getLogger("maskedmodel")
FEWEST = 32  # of tokens by which it is judged: N of them can have no rank above N - 1
MOST = 1024  # and more aren't needed: the work grows with them
COLLAPSED = 2.0  # an effective rank below it: features of different tokens lie on little more than a line


class LatentSettings(Settings):
    """Features of hidden tokens, by the encoder's moving average (data2vec, Baevski 2022; I-JEPA, Assran 2023)."""

    name: Literal["latent"] = "latent"
    momentum: float = Field(
        0.996, ge=0, lt=1, description="Share of itself that the teacher keeps in a step, at the first step."
    )
    momentum_end: float = Field(
        0.9999, ge=0, lt=1, description="Share of itself that the teacher keeps in a step, at the last step."
    )
    beta: float = Field(
        1.0, gt=0, description="Where the loss turns from squared to absolute (smooth L1), in spreads of a target."
    )


class Latent(SceneObjective[LatentSettings]):
    """Smooth L1 distance to the teacher's features of the last block, each normalised over its D values.

    The teacher sees the whole sample; the prediction comes from visible tokens alone. Targets made by what is trained
    may all become the same. So their effective rank, (sum of variances along principal axes) squared over the sum of
    their squares, is watched in training, and one near 1 is told once. data2vec's mean over several blocks isn't had.
    """

    names = ("latent",)
    _told = False

    def meet(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        super().meet(tokenizer, encoder)
        self._encoder, self._prefix, self._token_width = encoder.settings, encoder.prefix, tokenizer.token_width

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return int(self._encoder.dim)

    def momentum(self, progress: float) -> float:
        first, last = self.settings.momentum, self.settings.momentum_end
        return first + (last - first) * min(max(progress, 0.0), 1.0)

    def losses(self, scene: Scene) -> Mapping[str, Tensor]:
        assert scene.teacher is not None
        features = scene.at_hidden(scene.teacher)
        target = F.layer_norm(features, features.shape[-1:])
        if self.training and not self._told:
            self._watch(target if scene.mask.hidden_valid is None else target[scene.mask.hidden_valid])
        loss = F.smooth_l1_loss(scene.prediction, target, reduction="none", beta=self.settings.beta)
        return {"latent": loss.mean(-1)}

    def _watch(self, target: Tensor) -> None:
        rank = effective_rank(target.flatten(0, -2)[:MOST])
        if rank is not None and rank < COLLAPSED:
            self._told = True
            log.warning(
                "The teacher's features of different tokens are nearly the same: their effective rank is %.2f of %d. "
                "The loss may fall while nothing is learned; raise objective.momentum, or lower optim.lr.",
                rank,
                target.shape[-1],
            )

    def flops(self, visible: int, hidden: int) -> float:
        """The teacher's pass over all tokens, without gradient."""
        length, e = visible + hidden, self._encoder
        embedding = 2.0 * length * self._token_width * e.dim
        return float(e.depth * block_flops(self._prefix + length, e.dim, e.mlp_ratio, mlp=e.mlp) + embedding)


@torch.no_grad()
def effective_rank(features: Tensor) -> float | None:
    """The participation ratio of features (N, D): 1 where all lie on a line, up to D. None of fewer than 32.

    Zero where all are the same.
    """
    if len(features) < FEWEST:
        return None
    centred = features.double() - features.double().mean(0)
    total = centred.square().sum()
    if total <= 1e-12 * len(features):
        return 0.0
    small = centred.T @ centred if len(centred) > centred.shape[1] else centred @ centred.T
    return float(total.square() / small.square().sum())
