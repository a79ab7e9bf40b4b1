"""Masks by what a teacher's class token attends to (AttMask, Kakogeorgiou et al. 2022)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Noise, Tokenizer, Tokens
from maskedmodel.errors import ConfigError
from maskedmodel.scenes import follow, frozen_copy
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel_masks.ranking import Sign, direction, places_from_top, ranks, wanted
from maskedmodel_masks.teacher import TeacherSettings, encoder_flops
from maskedmodel_masks.uniform import Scheduled


class AttentionSettings(TeacherSettings):
    """The tokens that a teacher's class token attends to most are hidden (AttMask, Kakogeorgiou et al. 2022)."""

    name: Literal["attention"] = "attention"
    sign: Sign = Field(
        "hide",
        description="What happens to the most attended tokens. hide: AttMask-High. show: AttMask-Low.",
    )
    share: float = Field(
        0.5, gt=0, le=1, description="Share of the samples masked by attention; the rest are masked at random."
    )
    hint: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the tokens to hide by attention that stay visible after all, drawn anew each time; the "
        "next in order are hidden instead, so that the count is kept. Above 0: AttMask-Hint.",
    )


class Attention(Scheduled[AttentionSettings]):
    """A teacher, the encoder's moving average, looks at the whole sample; its class token says what matters."""

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the encoder has no class token."""
        super().attach(tokenizer, encoder)
        if not encoder.settings.class_token:
            raise ConfigError(
                "The mask 'attention' asks the class token, and this encoder has none.",
                where="model.encoder.class_token",
                expected="true",
                got="false",
                fix="Set model.encoder.class_token=true, or choose another mask.",
            )
        self.teacher = frozen_copy(encoder)
        self._width = tokenizer.token_width

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.settings.share == 1 and self.settings.hint == 0

    @torch.no_grad()
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        s, ratio = self.settings, self.ratio(progress)
        attention: Tensor = self.teacher.class_attention(tokens)  # type: ignore[operator]
        score = direction(s.sign) * ranks(attention, tokens.valid)
        if s.hint:
            count = wanted(tokens, ratio)[:, None]
            chosen = places_from_top(score, tokens.valid) < count
            drawn = places_from_top(noise.uniform(tokens.length, "mask/hint").masked_fill(~chosen, -1))
            score = score.masked_fill(drawn < (s.hint * count).long(), -2)
        guided = noise.uniform(1, "mask/guided") < s.share
        return torch.where(guided, score, noise.uniform(tokens.length))

    @torch.no_grad()
    def after_step(self, encoder: FeatureEncoder, progress: float) -> None:
        follow(self.teacher, encoder, self.settings.keep(progress))

    def flops(self, length: int) -> float:
        """The teacher's pass over all tokens, without gradient. In its last block only the class token asks."""
        settings: Any = self.teacher.settings
        prefix: Any = self.teacher.prefix
        seen, dim = prefix + length, settings.dim
        asked: float = 2.0 * (dim * dim * (1 + seen) + dim * seen)  # a query, the keys, their products
        return encoder_flops(settings, prefix, length, self._width, blocks=settings.depth - 1) + asked
