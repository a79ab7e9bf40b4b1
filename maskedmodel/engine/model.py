"""The asymmetric encoder-decoder and the masked loss (He et al. 2021), for any tokens.

Shapes as in tokens.py, and S the number of class and register tokens before the visible ones. Savings that change
nothing in the result: visible values are gathered before they are embedded; nothing is un-shuffled, since attention
doesn't care for order; in the decoder's first block the mask tokens' projections are computed once per position
instead of once per sample; in its last block only hidden tokens ask; the head runs on hidden tokens alone.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from torch import Tensor

from maskedmodel.components import Objective, Tokenizer
from maskedmodel.engine.decoder import Decoder
from maskedmodel.engine.encoder import Encoder
from maskedmodel.engine.positions import gather_tokens
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.engine.signals import SignalModel
from maskedmodel.errors import CheckpointError, PluginError, ShapeError
from maskedmodel.noise import Noise
from maskedmodel.scenes import Scene, SceneObjective, score_values, scored
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tokens import Mask, Output, Tokens

log = logging.getLogger("maskedmodel")


class MaskedAutoencoder(SignalModel):
    """A masked autoencoder over whatever its tokenizer cuts.

    `model(signal)` gives a training Output; `encode` and `embed` give features and never mask.
    """

    settings: ModelSettings
    decoder_loaded: bool = True  # False after weights of an encoder alone: whatever needs the decoder then refuses

    def __init__(
        self,
        tokenizer: Tokenizer[Any],
        scheduler: MaskScheduler[Any],
        objective: Objective[Any],
        settings: ModelSettings | None = None,
    ) -> None:
        settings = settings or ModelSettings()
        super().__init__(tokenizer, settings)
        objective.attach(tokenizer)
        if tokenizer.overlapping:
            log.warning(
                "Tokens of %r overlap: part of a hidden token can be read off the visible ones next to it.",
                tokenizer.component_name(),
            )
        self.objective, self.scheduler = objective, scheduler
        self.encoder = Encoder(settings.encoder, tokenizer)
        if isinstance(objective, SceneObjective):
            objective.meet(tokenizer, self.encoder)
        self.decoder = Decoder(settings.decoder, settings.encoder, tokenizer, objective.width(tokenizer))
        # Last, so that weights drawn from one seed are the same whatever a scheduler draws for itself.
        scheduler.attach(tokenizer, self.encoder)

    def forward(
        self, signal: Tensor | Tokens, mask: Mask | None = None, *, progress: float = 0.0, noise: Noise | None = None
    ) -> Output:
        """One masked forward pass.

        signal    a prepared batch, or its tokens.
        mask      drawn by the run's scheduler at `progress` from `noise` where not given; without noise it is keyed
                  from torch's global generator. Padding that it hides is left out: it is neither visible nor scored.
        """
        tokens = self.tokens(signal)
        if mask is None:
            mask = self.scheduler.sample(tokens, progress, noise or Noise.random(tokens.batch, tokens.values.device))
        mask = fitting(mask, tokens)
        latent = self._encode(tokens, mask)
        prediction = self._decode(latent, tokens, mask)
        if isinstance(self.objective, SceneObjective):
            return self._scene(self.objective, prediction, tokens, mask, latent, progress)
        loss_per_token = self.score(prediction, tokens, mask)
        return Output(mean_loss(loss_per_token, mask), prediction, mask, latent, loss_per_token)

    def _scene(
        self,
        objective: SceneObjective[Any],
        prediction: Tensor,
        tokens: Tokens,
        mask: Mask,
        latent: Tensor,
        progress: float,
    ) -> Output:
        """The output by an objective that sees more than hidden values. Raises PluginError on values that are absent
        unless it is value by value: no rule says how a loss on features counts a token that is there in part.
        """
        if tokens.observed is not None and not objective.by_value:
            raise PluginError(
                f"Objective {objective.component_name()!r} can't score tokens that are there in part.",
                expected="data without missing values",
                fix="Choose an objective such as patch, or data without missing values.",
            )
        with torch.no_grad():
            teacher = objective.taught(tokens)
        with torch.autocast(prediction.device.type, enabled=False):
            found = scored(objective, Scene(tokens, mask, prediction.float(), latent, teacher, progress))
        loss = mean_loss(found.per_token, mask)
        if found.per_sample is not None:
            loss = loss + found.per_sample.mean()
        return Output(loss, prediction, mask, latent, found.per_token, found.per_sample, found.named)

    def score(self, prediction: Tensor, tokens: Tokens, mask: Mask) -> Tensor:
        """The loss of each hidden token, (B, M) float32, zero where the mask is filled up.

        Of a token that is there in part, only those values count. Raises PluginError on an objective that can't do so.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            hidden = gather_tokens(tokens.values, mask.ids_hidden).float()
            observed = None if tokens.observed is None else gather_tokens(tokens.observed, mask.ids_hidden)
            loss = score_values(self.objective, prediction.float(), hidden, observed)
        return loss if mask.hidden_valid is None else loss.masked_fill(~mask.hidden_valid, 0)

    def _encode(self, tokens: Tokens, mask: Mask) -> Tensor:
        return self.encoder(tokens.values, tokens.layout, mask.selection)  # type: ignore[no-any-return]

    def _decode(self, latent: Tensor, tokens: Tokens, mask: Mask, everywhere: bool = False) -> Tensor:
        if not self.decoder_loaded:
            raise CheckpointError(
                "These weights hold an encoder only: the decoder is random, so nothing can be predicted or compared.",
                fix="Import weights that hold the decoder too, use encode or embed, or, to train a fresh decoder on "
                "this encoder, set model.decoder_loaded = True.",
            )
        return self.decoder(latent, tokens.layout, mask.selection, everywhere)  # type: ignore[no-any-return]

    def predict_everywhere(self, tokens: Tokens, mask: Mask) -> Tensor:
        """Predictions for every token in raster order (B, L, Q), visible ones too: for pictures."""
        mask = fitting(mask, tokens)
        prediction = self._decode(self._encode(tokens, mask), tokens, mask, everywhere=True)
        ids = torch.cat([mask.ids_keep, mask.ids_hidden], 1)
        out = prediction.new_zeros(tokens.batch, tokens.length, prediction.shape[-1])
        if mask.keep_valid is not None and mask.hidden_valid is not None:
            # A filled-up id names a token that stands elsewhere in the row: send its prediction to a spare last place.
            real = torch.cat([mask.keep_valid, mask.hidden_valid], 1)
            out, ids = torch.cat([out, out[:, :1]], 1), ids.masked_fill(~real, tokens.length)
        return out.scatter(1, ids[..., None].expand_as(prediction), prediction)[:, : tokens.length]

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
        mask = fitting(mask, tokens)
        values = self.predicted_values(self.predict_everywhere(tokens, mask), tokens, mask, statistics)
        if paste:
            values = torch.where(mask.visible[..., None], tokens.values.to(values.dtype), values)
        return self.tokenizer.detokenize(values, tokens)

    def predicted_values(
        self, prediction: Tensor, tokens: Tokens, mask: Mask, statistics: Literal["visible", "oracle"] = "visible"
    ) -> Tensor:
        """Predictions of every token (B, L, Q) as raw values (B, L, P); `statistics` as in `reconstruct`.

        Raises PluginError where the objective's target can't be turned back into values.
        """
        if statistics not in ("visible", "oracle"):  # a slip must not borrow what was hidden
            raise ShapeError("There are no such statistics.", expected="visible or oracle", got=repr(statistics))
        own = self.objective.statistics(tokens.values.float())
        if own is not None and statistics == "visible":
            own = from_visible(own, tokens, mask)
        values = self.objective.to_values(prediction.float(), own)
        if values is None:
            raise PluginError(
                f"Objective {self.objective.component_name()!r} can't turn predictions back into a signal.",
                fix="Pretrain with an objective whose target is the signal, such as patch.",
            )
        return values

    def gives_signals(self) -> bool:
        """Whether predictions can be turned back into a signal, so that pictures can be drawn."""
        values = torch.zeros(1, 1, self.tokenizer.token_width, device=self.device)
        prediction = values.new_zeros(1, 1, self.objective.width(self.tokenizer))
        return self.objective.to_values(prediction, self.objective.statistics(values)) is not None

    def compile_engine(self) -> None:
        """Compile encoder and decoder in place; what a plugin brings stays eager."""
        self.encoder.compile()
        self.decoder.compile()


def fitting(mask: Mask, tokens: Tokens) -> Mask:
    """The mask of these tokens, padding left out. Raises ShapeError where it is of another size or device."""
    if not isinstance(mask, Mask):
        raise ShapeError("This is no mask.", expected="a maskedmodel Mask", got=type(mask).__name__)
    if mask.hidden.shape != (tokens.batch, tokens.length) or mask.hidden.device != tokens.values.device:
        raise ShapeError(
            "The mask doesn't fit the tokens.",
            expected=f"(B, L) = {(tokens.batch, tokens.length)} on {tokens.values.device}",
            got=f"{tuple(mask.hidden.shape)} on {mask.hidden.device}",
        )
    return mask.within(tokens.valid)


def mean_loss(loss_per_token: Tensor, mask: Mask) -> Tensor:
    """The mean (B, M) over the tokens that are scored, a scalar; zero where there is none."""
    if mask.hidden_valid is not None:
        return loss_per_token.sum() / mask.hidden_valid.sum().clamp(min=1)
    return loss_per_token.sum() / max(loss_per_token.numel(), 1)


def from_visible(statistics_BLR: Tensor, tokens: Tokens, mask: Mask) -> Tensor:
    """Statistics of every token (B, L, R) estimated from visible tokens alone.

    Visible tokens keep their own; a hidden one takes the mean of the visible ones of its channel, or of all channels
    where its own shows none, weighted by one over the squared distance in grid cells.
    """
    coords = tokens.coords.float()
    coords = coords if coords.dim() == 3 else coords[None]
    weight = mask.visible[:, None, :] / torch.cdist(coords, coords).square().clamp(min=1e-6)
    if tokens.channel is not None:
        channel = tokens.channel if tokens.channel.dim() == 2 else tokens.channel[None]
        own = weight * (channel[:, :, None] == channel[:, None])
        weight = torch.where(own.any(2, keepdim=True), own, weight)
    total = weight.sum(2, keepdim=True)
    estimate = (weight / torch.where(total > 0, total, 1)) @ statistics_BLR
    return torch.where(mask.visible[..., None], statistics_BLR, estimate)
