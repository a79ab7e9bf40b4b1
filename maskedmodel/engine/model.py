"""The asymmetric encoder-decoder and the masked loss (He et al. 2021), for any tokens.

Shapes as in tokens.py, and S the number of class and register tokens before the visible ones. Savings that change
nothing in the result: visible values are gathered before they are embedded; nothing is un-shuffled, since attention
doesn't care for order; in the decoder's first block the mask tokens' projections are computed once per position
instead of once per sample; in its last block only hidden tokens ask; the head runs on hidden tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskedmodel.components import MaskScheduler, Objective, Tokenizer
from maskedmodel.engine.layers import Block, CrossBlock, Linear, init_linear
from maskedmodel.engine.positions import Places, pick
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import CheckpointError, PluginError, ShapeError
from maskedmodel.noise import Noise
from maskedmodel.tokens import Mask, Output, Tokens

Grid = tuple[int, ...] | None


class Encoder(nn.Module):
    """A vision transformer that sees visible tokens only."""

    def __init__(self, settings: EncoderSettings, tokenizer: Tokenizer[Any]) -> None:
        super().__init__()
        s = settings
        self.settings = s
        self.embed = tokenizer.make_embed(s.dim)
        channels = tokenizer.channel_count if s.channels else 0
        self.places = Places(s.positions, s.dim, s.heads, tokenizer.extents, channels, len(tokenizer.axes))
        self.class_token = nn.Parameter(torch.empty(1, 1, s.dim)) if s.class_token else None
        self.registers = nn.Parameter(torch.empty(1, s.registers, s.dim)) if s.registers else None
        self.blocks = nn.ModuleList(Block(s.dim, s.heads, s.mlp_ratio, s.norm_eps) for _ in range(s.depth))
        self.norm = nn.LayerNorm(s.dim, eps=s.norm_eps)
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
        coords: Tensor,
        grid: Grid,
        channel: Tensor | None,
        ids_keep_BK: Tensor,
        keep_valid_BK: Tensor | None,
    ) -> Tensor:
        """The latent (B, S + K, D)."""
        visible_BKP = pick(values_BLP, ids_keep_BK)
        if keep_valid_BK is not None:
            # Filled-up ids point at tokens of any kind, hidden ones too: nothing of those may get in.
            visible_BKP = visible_BKP.masked_fill(~keep_valid_BK[..., None], 0)
        x = self.embed(visible_BKP) + pick(self.places(coords, grid, channel), ids_keep_BK)
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.class_token, self.registers) if token is not None]
        x = torch.cat([*prefix, x], 1)
        angles = self.places.angles(coords)
        if angles is not None:
            angles = before(pick(angles, ids_keep_BK), self.prefix, 0)
        key_valid = None if keep_valid_BK is None else before(keep_valid_BK, self.prefix, True)
        for block in self.blocks:
            x = block(x, angles, key_valid)
        return self.norm(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Predicts hidden tokens from the latent. Light, and thrown away after pretraining."""

    def __init__(
        self, settings: DecoderSettings, encoder: EncoderSettings, tokenizer: Tokenizer[Any], width: int
    ) -> None:
        super().__init__()
        s = settings
        self.settings, self.prefix = s, int(encoder.class_token) + encoder.registers
        channels = tokenizer.channel_count if s.channels else 0
        self.places = Places(s.positions, s.dim, s.heads, tokenizer.extents, channels, len(tokenizer.axes))
        self.mask_token = nn.Parameter(torch.empty(1, 1, s.dim))
        self.embed = Linear(encoder.dim, s.dim) if s.attention == "self" else None
        self.blocks = nn.ModuleList(
            Block(s.dim, s.heads, s.mlp_ratio, s.norm_eps)
            if s.attention == "self"
            else CrossBlock(s.dim, encoder.dim, s.heads, s.mlp_ratio, s.norm_eps)
            for _ in range(s.depth)
        )
        self.norm = nn.LayerNorm(s.dim, eps=s.norm_eps)
        self.head = tokenizer.make_head(s.dim, width)
        self.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        latent_BTD: Tensor,
        coords: Tensor,
        grid: Grid,
        channel: Tensor | None,
        ids_keep_BK: Tensor,
        ids_hidden_BM: Tensor,
        keep_valid_BK: Tensor | None,
        hidden_valid_BM: Tensor | None,
        everywhere: bool = False,
    ) -> Tensor:
        """Predictions (B, M, Q) for hidden tokens; `everywhere`: (B, K + M, Q), visible tokens first."""
        places = self.places(coords, grid, channel)
        angles = self.places.angles(coords)
        decode = self._decode_self if self.settings.attention == "self" else self._decode_cross
        x = decode(latent_BTD, places, angles, ids_keep_BK, ids_hidden_BM, keep_valid_BK, hidden_valid_BM, everywhere)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def _mask_rows(
        self, places: Tensor, ids: Tensor, project: Callable[[Any, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The mask tokens (B, M, E) at `ids`, and what the first block projects them to (B, M, ...)."""
        rows = self.mask_token[0] + places
        if rows.dim() == 2 and rows.shape[0] <= ids.numel():
            # Nothing of the sample is in them yet: project each position once.
            return pick(rows, ids), pick(project(self.blocks[0], rows), ids)
        rows = pick(rows, ids)
        return rows, project(self.blocks[0], rows)

    def _decode_self(
        self,
        latent: Tensor,
        places: Tensor,
        angles: Tensor | None,
        ids_keep: Tensor,
        ids_hidden: Tensor,
        keep_valid: Tensor | None,
        hidden_valid: Tensor | None,
        everywhere: bool,
    ) -> Tensor:
        assert self.embed is not None
        seen = self.embed(latent)
        seen = torch.cat([seen[:, : self.prefix], seen[:, self.prefix :] + pick(places, ids_keep)], 1)
        asking, projected = self._mask_rows(places, ids_hidden, lambda first, rows: first.qkv(first.norm1(rows)))
        x = torch.cat([seen, asking.to(seen.dtype)], 1)
        first = self.blocks[0]
        qkv = torch.cat([first.qkv(first.norm1(seen)), projected], 1)  # type: ignore[operator]
        if angles is not None:
            angles = before(pick(angles, torch.cat([ids_keep, ids_hidden], 1)), self.prefix, 0)
        key_valid = None
        if keep_valid is not None and hidden_valid is not None:
            key_valid = before(torch.cat([keep_valid, hidden_valid], 1), self.prefix, True)
        skipped = self.prefix if everywhere else seen.shape[1]
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            x = block(x, angles, key_valid, qkv if index == 0 else None, skipped if last else 0)
        return x

    def _decode_cross(
        self,
        latent: Tensor,
        places: Tensor,
        angles: Tensor | None,
        ids_keep: Tensor,
        ids_hidden: Tensor,
        keep_valid: Tensor | None,
        hidden_valid: Tensor | None,
        everywhere: bool,
    ) -> Tensor:
        asked = torch.cat([ids_keep, ids_hidden], 1) if everywhere else ids_hidden
        x, q = self._mask_rows(places, asked, lambda first, rows: first.q(first.norm1(rows)))
        turns = None
        if angles is not None:
            turns = (pick(angles, asked), before(pick(angles, ids_keep), self.prefix, 0))
        key_valid = None if keep_valid is None else before(keep_valid, self.prefix, True)
        for index, block in enumerate(self.blocks):
            x = block(x, latent, turns, key_valid, q if index == 0 else None)
        return x


def before(x: Tensor, count: int, value: float | bool) -> Tensor:
    """`x` (B, T, ...) with `count` entries of `value` put before it along the second dimension."""
    return torch.cat([x.new_full((x.shape[0], count, *x.shape[2:]), value), x], 1)


class MaskedAutoencoder(nn.Module):
    """A masked autoencoder over whatever its tokenizer cuts.

    `model(signal)` gives a training Output; `encode` and `embed` give features and never mask.
    """

    decoder_loaded: bool = True  # False after weights of an encoder alone: whatever needs the decoder then refuses

    def __init__(
        self,
        tokenizer: Tokenizer[Any],
        scheduler: MaskScheduler[Any],
        objective: Objective[Any],
        settings: ModelSettings | None = None,
    ) -> None:
        super().__init__()
        settings = settings or ModelSettings()
        objective.attach(tokenizer)
        self.settings, self.objective = settings, objective
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.encoder = Encoder(settings.encoder, tokenizer)
        self.decoder = Decoder(settings.decoder, settings.encoder, tokenizer, objective.width(tokenizer))

    @property
    def device(self) -> torch.device:
        return self.decoder.mask_token.device

    def forward(
        self, signal: Tensor | Tokens, mask: Mask | None = None, *, progress: float = 0.0, noise: Noise | None = None
    ) -> Output:
        """One masked forward pass.

        signal    a prepared batch, or its tokens.
        mask      drawn by the run's scheduler at `progress` from `noise` where not given; without noise it is keyed
                  from torch's global generator.
        """
        tokens = self.tokens(signal)
        if mask is None:
            mask = self.scheduler.sample(tokens, progress, noise or Noise.random(tokens.batch, tokens.values.device))
        if mask.hidden.shape != (tokens.batch, tokens.length):
            raise ShapeError(
                "The mask doesn't fit the tokens.",
                expected=f"(B, L) = {(tokens.batch, tokens.length)}",
                got=tuple(mask.hidden.shape),
            )
        latent = self._encode(tokens, mask)
        prediction = self._decode(latent, tokens, mask)
        loss_per_token = self.score(prediction, tokens, mask)
        scored = mask.hidden_valid.sum().clamp(min=1) if mask.hidden_valid is not None else loss_per_token.numel()
        return Output(loss_per_token.sum() / scored, prediction, mask, latent, loss_per_token)

    def score(self, prediction: Tensor, tokens: Tokens, mask: Mask) -> Tensor:
        """The loss of each hidden token, (B, M) float32, zero where the mask is filled up.

        Of a token that is there in part, only those values count. Raises PluginError on an objective that can't do so.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            hidden, prediction = pick(tokens.values, mask.ids_hidden).float(), prediction.float()
            target = self.objective.target(hidden)
            share: Tensor | None = None
            if tokens.observed is not None:
                observed = pick(tokens.observed, mask.ids_hidden)
                if target.shape != observed.shape:
                    raise PluginError(
                        f"Objective {self.objective.component_name()!r} can't score tokens that are there in part.",
                        expected=f"a target of one number per value, {tuple(observed.shape)}",
                        got=tuple(target.shape),
                        fix="Choose an objective such as patch, or data without missing values.",
                    )
                # A prediction that equals its target costs nothing, so the mean is over what was observed.
                prediction = torch.where(observed, prediction, target)
                share = observed.sum(-1).clamp(min=1) / observed.shape[-1]
            loss = self.objective.loss(prediction, target)
        if loss.shape != mask.ids_hidden.shape:
            raise PluginError(
                f"Objective {self.objective.component_name()!r} gave a loss of a wrong shape.",
                expected=f"(B, M) = {tuple(mask.ids_hidden.shape)}",
                got=tuple(loss.shape),
            )
        if share is not None:
            loss = loss / share
        return loss if mask.hidden_valid is None else loss.masked_fill(~mask.hidden_valid, 0)

    def tokens(self, signal: Tensor | Tokens) -> Tokens:
        """The tokens of a batch, on the model's device."""
        return signal if isinstance(signal, Tokens) else self.tokenizer.tokenize(signal.to(self.device))

    def _encode(self, tokens: Tokens, mask: Mask) -> Tensor:
        return self.encoder(  # type: ignore[no-any-return]
            tokens.values, tokens.coords, tokens.grid, tokens.channel, mask.ids_keep, mask.keep_valid
        )

    def _decode(self, latent: Tensor, tokens: Tokens, mask: Mask, everywhere: bool = False) -> Tensor:
        if not self.decoder_loaded:
            raise CheckpointError(
                "These weights hold an encoder only: the decoder is random, so nothing can be predicted or compared.",
                fix="Import weights that hold the decoder too, use encode or embed, or, to train a fresh decoder on "
                "this encoder, set model.decoder_loaded = True.",
            )
        return self.decoder(  # type: ignore[no-any-return]
            latent,
            tokens.coords,
            tokens.grid,
            tokens.channel,
            mask.ids_keep,
            mask.ids_hidden,
            mask.keep_valid,
            mask.hidden_valid,
            everywhere,
        )

    def predict_everywhere(self, tokens: Tokens, mask: Mask) -> Tensor:
        """Predictions for every token in raster order (B, L, Q), visible ones too: for pictures."""
        prediction = self._decode(self._encode(tokens, mask), tokens, mask, everywhere=True)
        ids = torch.cat([mask.ids_keep, mask.ids_hidden], 1)
        out = prediction.new_zeros(tokens.batch, tokens.length, prediction.shape[-1])
        if mask.keep_valid is not None and mask.hidden_valid is not None:
            # A filled-up id names a token that stands elsewhere in the row: send its prediction to a spare last place.
            real = torch.cat([mask.keep_valid, mask.hidden_valid], 1)
            out, ids = torch.cat([out, out[:, :1]], 1), ids.masked_fill(~real, tokens.length)
        return out.scatter(1, ids[..., None].expand_as(prediction), prediction)[:, : tokens.length]

    def encode(self, signal: Tensor | Tokens) -> Tensor:
        """Features of every token, (B, L, D) in raster order. Never masks; the same each time."""
        return self._features(signal)[0][:, self.encoder.prefix :]

    def embed(self, signal: Tensor | Tokens, pool: Literal["mean", "class"] = "mean") -> Tensor:
        """One feature vector per sample, (B, D): the mean over its real tokens, or its class token."""
        latent, valid = self._features(signal)
        if pool == "class":
            if not self.settings.encoder.class_token:
                raise ShapeError("This encoder has no class token.", fix='Pool with "mean".')
            return latent[:, 0]
        features = latent[:, self.encoder.prefix :]
        if valid is None:
            return features.mean(1)
        weight = valid[..., None].to(features.dtype)
        return (features * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _features(self, signal: Tensor | Tokens) -> tuple[Tensor, Tensor | None]:
        tokens = self.tokens(signal)
        everything = torch.arange(tokens.length, device=tokens.values.device).expand(tokens.batch, -1)
        latent = self.encoder(tokens.values, tokens.coords, tokens.grid, tokens.channel, everything, tokens.valid)
        return latent, tokens.valid

    def reconstruct(
        self,
        signal: Tensor | Tokens,
        mask: Mask | None = None,
        *,
        statistics: Literal["visible", "oracle"] = "visible",
        paste: bool = True,
    ) -> Tensor:
        """The signal as the model completes it.

        statistics  where a normalised target lacks a patch's mean and spread: "visible" estimates them from visible
                    tokens near by, "oracle" borrows the hidden tokens' own, which no user of the model has.
        paste       visible tokens are shown as they were given instead of as predicted.

        Raises PluginError where the objective's target can't be turned back into values.
        """
        tokens = self.tokens(signal)
        if mask is None:
            mask = self.scheduler.sample(tokens, 1.0, Noise.random(tokens.batch, tokens.values.device))
        prediction = self.predict_everywhere(tokens, mask).float()
        own = self.objective.statistics(tokens.values.float())
        if own is not None and statistics == "visible":
            own = from_visible(own, tokens, mask)
        values = self.objective.to_values(prediction, own)
        if values is None:
            raise PluginError(
                f"Objective {self.objective.component_name()!r} can't turn predictions back into a signal.",
                fix="Pretrain with an objective whose target is the signal, such as patch.",
            )
        if paste:
            values = torch.where(mask.visible[..., None], tokens.values.to(values.dtype), values)
        return self.tokenizer.detokenize(values, tokens)

    def compile_engine(self) -> None:
        """Compile encoder and decoder in place; what a plugin brings stays eager."""
        self.encoder.compile()
        self.decoder.compile()


def from_visible(statistics_BLR: Tensor, tokens: Tokens, mask: Mask) -> Tensor:
    """Statistics of every token (B, L, R) estimated from visible tokens alone.

    Visible tokens keep their own; a hidden one takes the mean of the visible ones of its channel, weighted by one over
    the squared distance in grid cells.
    """
    coords = tokens.coords.float()
    coords = coords if coords.dim() == 3 else coords[None]
    weight = 1 / torch.cdist(coords, coords).square().clamp(min=1e-6)
    if tokens.channel is not None:
        channel = tokens.channel if tokens.channel.dim() == 2 else tokens.channel[None]
        weight = weight * (channel[:, :, None] == channel[:, None]).float().clamp(min=1e-9)
    weight = weight * mask.visible[:, None, :]
    estimate = (weight / weight.sum(2, keepdim=True).clamp(min=1e-12)) @ statistics_BLR
    return torch.where(mask.visible[..., None], statistics_BLR, estimate)
