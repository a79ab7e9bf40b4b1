"""The decoder: predicts hidden tokens from the latent (He et al. 2021; with cross-attention: Fu et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from maskedmodel.components import Tokenizer
from maskedmodel.engine.encoder import prepend
from maskedmodel.engine.layers import Block, CrossBlock, Linear, init_linear
from maskedmodel.engine.positions import PositionEmbedding, gather_tokens
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings
from maskedmodel.tokens import Layout, Selection


class Decoder(nn.Module):
    """Predicts hidden tokens from the latent. Light, and thrown away after pretraining."""

    def __init__(
        self, settings: DecoderSettings, encoder: EncoderSettings, tokenizer: Tokenizer[Any], width: int
    ) -> None:
        super().__init__()
        s = settings
        self.settings, self.prefix = s, int(encoder.class_token) + encoder.registers
        channels, described = (tokenizer.channel_count, tokenizer.channel_features) if s.channels else (0, 0)
        self.places = PositionEmbedding(
            s.positions, s.dim, s.heads, tokenizer.extents, channels, len(tokenizer.axes), described
        )
        self.mask_token = nn.Parameter(torch.empty(1, 1, s.dim))
        self.embed = Linear(encoder.dim, s.dim) if s.attention == "self" else None
        self.blocks = nn.ModuleList(
            Block(s.dim, s.heads, s.mlp_ratio, s.norm_eps, s.mlp)
            if s.attention == "self"
            else CrossBlock(s.dim, encoder.dim, s.heads, s.mlp_ratio, s.norm_eps, s.mlp)
            for _ in range(s.depth)
        )
        self.norm = nn.LayerNorm(s.dim, eps=s.final_norm_eps or s.norm_eps)
        self.head = tokenizer.make_head(s.dim, width)
        self.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        latent_BTD: Tensor,
        where: Layout,
        chosen: Selection,
        everywhere: bool = False,
    ) -> Tensor:
        """Predictions (B, M, Q) for hidden tokens; `everywhere`: (B, K + M, Q), visible tokens first."""
        places = self.places(*where).to(self.mask_token.dtype)
        angles = self.places.angles(where.coords)
        decode = self._decode_self if self.settings.attention == "self" else self._decode_cross
        x = decode(latent_BTD, places, angles, chosen, everywhere)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def _mask_rows(
        self, places: Tensor, ids: Tensor, project: Callable[[Any, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The mask tokens (B, M, E) at `ids`, and what the first block projects them to (B, M, ...)."""
        rows = self.mask_token[0] + places
        if rows.dim() == 2 and rows.shape[0] <= ids.numel():
            # Nothing of the sample is in them yet: project each position once.
            return gather_tokens(rows, ids), gather_tokens(project(self.blocks[0], rows), ids)
        rows = gather_tokens(rows, ids)
        return rows, project(self.blocks[0], rows)

    def _decode_self(
        self,
        latent: Tensor,
        places: Tensor,
        angles: Tensor | None,
        chosen: Selection,
        everywhere: bool,
    ) -> Tensor:
        ids_keep, ids_hidden, keep_valid, hidden_valid, _ = chosen
        assert self.embed is not None
        assert ids_hidden is not None
        seen = self.embed(latent)
        seen = torch.cat([seen[:, : self.prefix], seen[:, self.prefix :] + gather_tokens(places, ids_keep)], 1)
        asking, projected = self._mask_rows(places, ids_hidden, lambda first, rows: first.qkv(first.norm1(rows)))
        x = torch.cat([seen, asking.to(seen.dtype)], 1)
        first = self.blocks[0]
        qkv = torch.cat([first.qkv(first.norm1(seen)), projected], 1)  # type: ignore[operator]
        if angles is not None:
            angles = prepend(gather_tokens(angles, torch.cat([ids_keep, ids_hidden], 1)), self.prefix, 0)
        key_valid = None
        if keep_valid is not None and hidden_valid is not None:
            key_valid = prepend(torch.cat([keep_valid, hidden_valid], 1), self.prefix, True)
        skipped = self.prefix if everywhere else seen.shape[1]
        again = None
        if self.settings.repeat_positions:
            again = prepend(gather_tokens(places, torch.cat([ids_keep, ids_hidden], 1)), self.prefix, 0)
        for index, block in enumerate(self.blocks):
            if index and again is not None:
                x = x + again
            last = index == len(self.blocks) - 1
            x = block(x, angles, key_valid, qkv if index == 0 else None, skipped if last else 0)
        return x

    def _decode_cross(
        self,
        latent: Tensor,
        places: Tensor,
        angles: Tensor | None,
        chosen: Selection,
        everywhere: bool,
    ) -> Tensor:
        ids_keep, ids_hidden, keep_valid, _, _ = chosen
        assert ids_hidden is not None
        asked = torch.cat([ids_keep, ids_hidden], 1) if everywhere else ids_hidden
        x, q = self._mask_rows(places, asked, lambda first, rows: first.q(first.norm1(rows)))
        turns = None
        if angles is not None:
            turns = (gather_tokens(angles, asked), prepend(gather_tokens(angles, ids_keep), self.prefix, 0))
        key_valid = None if keep_valid is None else prepend(keep_valid, self.prefix, True)
        again = gather_tokens(places, asked) if self.settings.repeat_positions else None
        for index, block in enumerate(self.blocks):
            if index and again is not None:
                x = x + again
            x = block(x, latent, turns, key_valid, q if index == 0 else None)
        return x
