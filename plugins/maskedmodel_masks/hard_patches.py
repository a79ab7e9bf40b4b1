"""Masks by predicted loss (hard patches mining, HPM, Wang et al. 2023)."""

from __future__ import annotations

from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel import Noise, Tokenizer, Tokens
from maskedmodel.nn import CrossBlock, PositionEmbedding, cross_block_flops, gather_tokens
from maskedmodel.scenes import follow, frozen_copy
from maskedmodel.schedulers import FeatureEncoder, Observed
from maskedmodel.tokens import hidden_count
from maskedmodel_masks.ranking import Sign, places_from_top, real_counts, wanted
from maskedmodel_masks.schedules import all_ratios
from maskedmodel_masks.teacher import TeacherSettings, encoder_flops
from maskedmodel_masks.uniform import Scheduled

NORM_EPS = 1e-6


class HardPatchesSettings(TeacherSettings):
    """A head learns which tokens will cost most, and a teacher's head picks them (HPM, Wang et al. 2023)."""

    name: Literal["hard_patches"] = "hard_patches"
    sign: Sign = Field(
        "hide",
        description="What happens to the tokens predicted to be hardest. hide: they are among the hidden, as in HPM. "
        "show: they are among the visible.",
    )
    share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the hidden (or visible) tokens that the prediction picks at the last step; at the first "
        "step none, in between in proportion. The rest is drawn at random.",
    )
    weight: float = Field(1.0, gt=0, description="Weight of the predictor's loss; 1 as in HPM.")
    detach: bool = Field(
        False,
        description="Whether the predictor's loss stops at the encoder; in HPM it doesn't, and trains it too.",
    )
    width: int = Field(128, ge=8, description="Width of the predictor.")
    heads: int = Field(4, ge=1, description="Number of attention heads in the predictor; must divide its width.")

    @model_validator(mode="after")
    def _whole_heads(self) -> HardPatchesSettings:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        return self


class LossPredictor(nn.Module):
    """Asks an encoder's output about places: one cross-attention block, then one number each."""

    def __init__(self, tokenizer: Tokenizer[Any], dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.places = PositionEmbedding(
            "sincos",
            width,
            heads,
            tokenizer.extents,
            tokenizer.channel_count,
            len(tokenizer.axes),
            tokenizer.channel_features,
        )
        self.query = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.block = CrossBlock(width, dim, heads, 4.0, NORM_EPS)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, 1)

    def forward(self, latent: Tensor, tokens: Tokens, ids: Tensor, key_valid: Tensor | None) -> Tensor:
        """Predictions (B, N) float32 for the tokens `ids` (B, N) from the latent (B, T, D)."""
        with torch.autocast(latent.device.type, enabled=False):
            rows = gather_tokens(self.query + self.places(*tokens.layout), ids)
            x = self.norm(self.block(rows, latent.float(), None, key_valid))
            predicted: Tensor = self.head(x).squeeze(-1)
        return predicted


class HardPatches(Scheduled[HardPatchesSettings]):
    """Easy to hard: a rising share of the mask is what a teacher, seeing the whole sample, predicts to cost most."""

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        super().attach(tokenizer, encoder)
        s = self.settings
        self.predictor = LossPredictor(tokenizer, encoder.settings.dim, s.width, s.heads)
        self.teacher, self.teacher_predictor = frozen_copy(encoder), frozen_copy(self.predictor)
        self._prefix, self._token_width = encoder.prefix, tokenizer.token_width

    @torch.no_grad()
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """Noise, but for the tokens that are picked: they come first, or last."""
        s, drawn = self.settings, noise.uniform(tokens.length)
        share = s.share * min(max(progress, 0.0), 1.0)
        if share == 0:
            return drawn
        hidden = wanted(tokens, self.ratio(progress))
        of = hidden if s.sign == "hide" else real_counts(drawn, tokens.valid) - hidden
        picked = places_from_top(self.predicted(tokens), tokens.valid) < (of * share).long()[:, None]
        return drawn.masked_fill(picked, 2.0 if s.sign == "hide" else -1.0)

    @torch.no_grad()
    def predicted(self, tokens: Tokens) -> Tensor:
        """What the teacher expects each token to cost (B, L), on no particular scale."""
        latent = self.teacher.features(tokens)  # type: ignore[operator]
        everything = torch.arange(tokens.length, device=latent.device).expand(tokens.batch, -1)
        key_valid = None if tokens.valid is None else self._after_prefix(tokens.valid)
        predicted: Tensor = self.teacher_predictor(latent, tokens, everything, key_valid)
        return predicted

    def _after_prefix(self, valid: Tensor) -> Tensor:
        """(B, S + N): class and register tokens are always there."""
        return F.pad(valid, (self._prefix, 0), value=True)

    def observe(self, seen: Observed) -> Tensor:
        """How often the predictor orders two hidden tokens of a sample wrongly, softly (HPM's relative loss)."""
        mask, latent = seen.mask, seen.latent.detach() if self.settings.detach else seen.latent
        key_valid = None if mask.keep_valid is None else self._after_prefix(mask.keep_valid)
        predicted = self.predictor(latent, seen.tokens, mask.ids_hidden, key_valid)
        harder = seen.loss_per_token[:, :, None] > seen.loss_per_token[:, None]  # (B, M, M)
        if mask.hidden_valid is not None:
            harder = harder & mask.hidden_valid[:, :, None] & mask.hidden_valid[:, None]
        wrong = F.softplus(predicted[:, None] - predicted[:, :, None]) * harder
        pairs = harder.sum((1, 2)).clamp(min=1)
        return self.settings.weight * (wrong.sum((1, 2)) / pairs).mean()

    @torch.no_grad()
    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        keep = self.settings.keep(progress)
        follow(self.teacher, encoder, keep)
        follow(self.teacher_predictor, self.predictor, keep)

    def flops(self, length: int) -> float:
        """The teacher's pass over all tokens, and the predictor's with gradient at the mean of the ratios."""
        settings: Any = self.teacher.settings
        width, hidden = self.settings.width, hidden_count(length, fmean(all_ratios(self.settings.ratio)))
        learnt = cross_block_flops(hidden, self._prefix + length - hidden, width, settings.dim)
        asked = cross_block_flops(length, self._prefix + length, width, settings.dim)
        return encoder_flops(settings, self._prefix, length, self._token_width) + asked + 3 * learnt
