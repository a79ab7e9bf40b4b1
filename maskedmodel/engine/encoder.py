"""The encoder: a vision transformer over visible tokens (Dosovitskiy et al. 2021; He et al. 2021).

Shapes as in tokens.py, and S the number of class and register tokens before the visible ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.components import Tokenizer, takes_coords
from maskedmodel.engine.layers import Block, init_linear
from maskedmodel.engine.positions import PositionEmbedding, gather_tokens
from maskedmodel.engine.settings import EncoderSettings
from maskedmodel.errors import ConfigError
from maskedmodel.tokens import Layout, Selection, Tokens


class Encoder(nn.Module):
    """A vision transformer that sees visible tokens only."""

    def __init__(self, settings: EncoderSettings, tokenizer: Tokenizer[Any]) -> None:
        super().__init__()
        s = settings
        self.settings = s
        self.embed = tokenizer.make_embed(s.dim)
        channels, described = (tokenizer.channel_count, tokenizer.channel_features) if s.channels else (0, 0)
        self.places = PositionEmbedding(
            s.positions, s.dim, s.heads, tokenizer.extents, channels, len(tokenizer.axes), described
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, s.dim)) if s.class_token else None
        self.registers = nn.Parameter(torch.empty(1, s.registers, s.dim)) if s.registers else None
        self.blocks = nn.ModuleList(Block(s.dim, s.heads, s.mlp_ratio, s.norm_eps, s.mlp) for _ in range(s.depth))
        self.norm = nn.LayerNorm(s.dim, eps=s.final_norm_eps or s.norm_eps)
        self.apply(init_linear)
        for token in (self.class_token, self.registers):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    @property
    def prefix(self) -> int:
        """S, the number of class and register tokens."""
        return int(self.settings.class_token) + self.settings.registers

    def forward(
        self,
        values_BLP: Tensor,
        where: Layout,
        chosen: Selection,
        until: int | None = None,
        kept: Tensor | None = None,
        norm: bool = True,
    ) -> Tensor:
        """The latent (B, S + K, D). What the first `until` blocks give, without the final norm, where that is said.

        `kept` (B, blocks, 2) multiplies what each half of a block adds, as in `Block`. Without the `norm` the latent is
        what the last block gives.

        It takes named tuples of tensors and not Tokens and Mask, whose ids are computed when asked for: torch.compile
        would trace that, and its reads of a mask's counts, with the engine.
        """
        ids_keep_BK, keep_valid_BK, gates_BL = chosen.ids_keep, chosen.keep_valid, chosen.gates
        visible_BKP = gather_tokens(values_BLP, ids_keep_BK)
        if keep_valid_BK is not None:
            # Filled-up ids point at tokens of any kind, hidden ones too: nothing of those may get in.
            visible_BKP = visible_BKP.masked_fill(~keep_valid_BK[..., None], 0)
        places = self.places(*where).to(self.norm.weight.dtype)  # float32, but in a model that was made narrower
        places = gather_tokens(places, ids_keep_BK)
        x = self._embedded(visible_BKP, where, chosen) + places
        if gates_BL is not None:
            x = x * gates_BL.gather(1, ids_keep_BK)[..., None].to(x.dtype)
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.class_token, self.registers) if token is not None]
        x = torch.cat([*prefix, x], 1)
        angles = self.places.angles(where.coords)
        if angles is not None:
            angles = prepend(gather_tokens(angles, ids_keep_BK), self.prefix, 0)
        key_valid = None if keep_valid_BK is None else prepend(keep_valid_BK, self.prefix, True)
        again = prepend(places, self.prefix, 0) if self.settings.repeat_positions else None
        for index, block in enumerate(self.blocks if until is None else self.blocks[:until]):
            if index and again is not None:
                x = x + again
            x = block(x, angles, key_valid, kept_B2=None if kept is None else kept[:, index])
        return self.norm(x) if until is None and norm else x

    def _embedded(self, visible_BKP: Tensor, where: Layout, chosen: Selection) -> Tensor:
        """Visible tokens (B, K, D); their coordinates go along where the tokenizer's module takes them."""
        if not takes_coords(self.embed):
            return self.embed(visible_BKP)  # type: ignore[no-any-return]
        coords_BKA = gather_tokens(where.coords.to(visible_BKP.dtype), chosen.ids_keep)
        if chosen.keep_valid is not None:
            coords_BKA = coords_BKA.masked_fill(~chosen.keep_valid[..., None], 0)
        return self.embed(visible_BKP, coords_BKA)  # type: ignore[no-any-return]

    def features(self, tokens: Tokens, norm: bool = True, until: int | None = None) -> Tensor:
        """The latent (B, S + L, D) of tokens of which nothing is hidden; `norm` and `until` as in `forward`."""
        everything = torch.arange(tokens.length, device=tokens.values.device).expand(tokens.batch, -1)
        chosen = Selection(everything, keep_valid=tokens.valid)
        return self(tokens.values, tokens.layout, chosen, until, norm=norm)  # type: ignore[no-any-return]

    def class_attention(self, tokens: Tokens) -> Tensor:
        """How much the class token attends to each token in the last block, mean over heads, (B, L) float32.

        Nothing is hidden; padding gets zero. Raises ConfigError where the encoder has no class token.
        """
        if self.class_token is None:
            raise ConfigError("This encoder has no class token to ask.", where="model.encoder.class_token", got=False)
        x = self.features(tokens, until=len(self.blocks) - 1)
        if self.settings.repeat_positions and len(self.blocks) > 1:
            places = self.places(*tokens.layout).to(x.dtype)
            x = x + prepend(places if places.dim() == 3 else places[None], self.prefix, 0)
        angles = self.places.angles(tokens.coords)
        if angles is not None:
            angles = angles if angles.dim() == 3 else angles[None]
            angles = prepend(angles.expand(tokens.batch, -1, -1), self.prefix, 0)
        key_valid = None if tokens.valid is None else prepend(tokens.valid, self.prefix, True)
        return self.blocks[-1].class_attention(x, angles, key_valid)[:, self.prefix :]  # type: ignore[operator,no-any-return]


def prepend(x: Tensor, count: int, value: float | bool) -> Tensor:
    """`x` (B, T, ...) with `count` entries of `value` put before it along the second dimension."""
    return torch.cat([x.new_full((x.shape[0], count, *x.shape[2:]), value), x], 1)
