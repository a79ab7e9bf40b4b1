"""A small network that scores tokens: raw values and places in, one number per token out."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from maskedmodel import Tokenizer, Tokens
from maskedmodel.nn import Block, PositionEmbedding, block_flops
from maskedmodel_masks.uniform import RatioSettings

NORM_EPS = 1e-6


class ScorerSettings(RatioSettings):
    """Settings of a scheduler with a scoring network."""

    width: int = Field(64, ge=8, description="Width of the scoring network.")
    depth: int = Field(1, ge=0, description="Number of transformer blocks in the scoring network, over all tokens.")
    heads: int = Field(4, ge=1, description="Number of attention heads in the scoring network; must divide its width.")

    @model_validator(mode="after")
    def _whole_heads(self) -> ScorerSettings:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        return self


class TokenScorer(nn.Module):
    """Embeds raw values, adds sine-cosine positions and channels, lets all tokens see each other, gives (B, L).

    The last layer starts at zero, so that all tokens are as likely at first.
    """

    def __init__(self, tokenizer: Tokenizer[Any], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(tokenizer.token_width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.places = PositionEmbedding(
            "sincos",
            width,
            heads,
            tokenizer.extents,
            tokenizer.channel_count,
            len(tokenizer.axes),
            tokenizer.channel_features,
        )
        self.blocks = nn.ModuleList(Block(width, heads, 4.0, NORM_EPS) for _ in range(depth))
        self.last = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, L) float32."""
        with torch.autocast(tokens.values.device.type, enabled=False):
            x = self.norm(self.embed(tokens.values.float()))  # raw values may have any scale
            x = x + self.places(*tokens.layout)
            for block in self.blocks:
                x = block(x, None, tokens.valid)
            scores: Tensor = self.head(self.last(x)).squeeze(-1)
        return scores

    def flops(self, length: int) -> float:
        """A forward pass over one sample, a multiplication and an addition being two."""
        per_token = 2 * self.embed.in_features * self.embed.out_features + 2 * self.head.in_features
        width = self.embed.out_features
        return length * per_token + len(self.blocks) * block_flops(length, width)
