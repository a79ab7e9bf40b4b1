"""What every model with an encoder takes and gives, whatever stands on the encoder."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from maskedmodel.components import Tokenizer
from maskedmodel.engine.encoder import Encoder
from maskedmodel.engine.settings import EncoderOnly
from maskedmodel.errors import PluginError, ShapeError
from maskedmodel.tokens import Tokens

log = logging.getLogger("maskedmodel")
Pool = Literal["mean", "class", "concat"]  # how a sample's tokens become one vector
RANGE_MARGIN = 0.5  # how far values may overshoot a range, as after interpolation, before that is told


class SignalModel(nn.Module):
    """A tokenizer and an encoder: signals in, features out."""

    _told_range: bool = False
    encoder: Encoder

    def __init__(self, tokenizer: Tokenizer[Any], settings: EncoderOnly) -> None:
        super().__init__()
        _complete(tokenizer)
        self.settings, self.tokenizer = settings, tokenizer

    @property
    def device(self) -> torch.device:
        return self.encoder.norm.weight.device

    def tokens(self, signal: Tensor | Tokens) -> Tokens:
        """The tokens of a prepared batch, on the model's device.

        The batch is a floating-point tensor or numpy array; another width than that of the weights is converted. Raises
        ShapeError on anything else. Values that a prepared signal of this kind can't have, such as pixels below zero
        where [0, 1] is expected, are told once: most likely somebody else has normalised them already.
        """
        if isinstance(signal, Tokens):
            return signal
        if isinstance(signal, np.ndarray):
            with suppress(TypeError):  # of objects, text or a width that torch hasn't: refused below
                signal = torch.from_numpy(np.ascontiguousarray(signal, signal.dtype.newbyteorder("=")))
        if not isinstance(signal, Tensor) or not _is_batch(signal, self.device):
            got = type(signal).__name__
            if isinstance(signal, Tensor | np.ndarray):
                layout = "" if getattr(signal, "layout", torch.strided) is torch.strided else f", {signal.layout}"
                got = f"{tuple(signal.shape)} {signal.dtype}{layout}"
            raise ShapeError(
                "The model takes a prepared batch of signals.",
                expected="a floating-point tensor or numpy array, samples along the first dimension",
                got=got,
                fix="Prepare a stored batch first: model.tokenizer.prepare(batch).",
            )
        if signal.is_floating_point() and not self.tokenizer.vocabulary:  # bfloat16 has no id 257
            signal = signal.to(self.device, self.encoder.norm.weight.dtype)
        self._look_at_range(signal)
        tokens = self.tokenizer.tokenize(signal.to(self.device))
        if not tokens.values.is_floating_point():
            raise ShapeError(
                "The model takes a prepared batch of signals, in floating point.",
                expected="what model.tokenizer.prepare gives",
                got=f"{tuple(signal.shape)} {signal.dtype}",
                fix="Convert it: batch.float(), or model.tokenizer.prepare(batch).",
            )
        return tokens

    def _look_at_range(self, signal: Tensor) -> None:
        """Tell once, where looking makes no device wait, that values lie outside what the tokenizer expects."""
        allowed = self.tokenizer.value_range
        if self._told_range or allowed is None or not signal.is_floating_point():
            return
        if not signal.is_cpu or not signal.numel():
            return
        low, high = (float(end) for end in torch.aminmax(signal.detach().nan_to_num(allowed[0])))
        if low < allowed[0] - RANGE_MARGIN or high > allowed[1] + RANGE_MARGIN:
            self._told_range = True
            log.warning(
                "Values from %.3g to %.3g where a prepared batch has %g to %g: the model normalises by itself, so give "
                "it values that nobody has normalised.",
                low,
                high,
                *allowed,
            )

    def encode(self, signal: Tensor | Tokens, layer: int | Literal["last"] = "last") -> Tensor:
        """Features of every token, (B, L, D) in raster order. Never masks; the same each time.

        signal  a prepared batch, as `model.tokenizer.prepare` gives it, or its tokens. The tokenizer normalises by
                itself: an image model takes pixels in [0, 1], not what transformers' image processors or torchvision's
                Normalize give. Imported models do so, too.
        layer   after which of the encoder's blocks: 1 to its depth, or -1 to -depth from the end. The last one's
                features are those after the final LayerNorm; earlier ones' are as the block gives them.

        Raises ShapeError where there is no such layer.
        """
        return self.encoder.features(self.tokens(signal), until=self.layer_of(layer))[:, self.encoder.prefix :]

    def embed(self, signal: Tensor | Tokens, pool: Pool = "mean", layer: int | Literal["last"] = "last") -> Tensor:
        """One feature vector per sample, (B, D): the mean over its real tokens, or its class token.

        With `pool="concat"` it is the class token with the mean behind it, (B, 2D). `signal` and `layer` as in
        `encode`. Raises ShapeError where there is no class token to pool by, and where there is no such layer.
        """
        self.require_pool(pool)
        tokens = self.tokens(signal)
        latent, valid = self.encoder.features(tokens, until=self.layer_of(layer)), tokens.valid
        if pool == "class":
            return latent[:, 0]
        features = latent[:, self.encoder.prefix :]
        if valid is None:
            mean = features.mean(1)
        else:
            weight = valid[..., None].to(features.dtype)
            mean = (features * weight).sum(1) / weight.sum(1).clamp(min=1)
        return mean if pool == "mean" else torch.cat([latent[:, 0], mean], 1)

    def require_pool(self, pool: str) -> None:
        """Raises ShapeError where there is no such way to pool, or no class token to pool by."""
        if pool not in get_args(Pool):
            raise ShapeError(
                "There is no such way to pool.",
                where="pool",
                expected="mean, class or concat",
                got=repr(pool),
                fix="For features of every token take model.encode, or tokens of `maskedmodel embed`.",
            )
        if pool != "mean" and not self.settings.encoder.class_token:
            raise ShapeError("This encoder has no class token.", where="pool", got=pool, fix='Pool with "mean".')

    def layer_of(self, layer: int | str) -> int | None:
        """After how many blocks a layer, as `encode` takes it, comes; None: after all of them and the final LayerNorm.

        Raises ShapeError where there is no such layer.
        """
        depth = len(self.encoder.blocks)
        if layer == "last":
            return None
        if not isinstance(layer, int) or isinstance(layer, bool) or not 1 <= abs(layer) <= depth:
            raise ShapeError(
                "The encoder has no such layer.",
                where="layer",
                expected=f"last, 1 to {depth}, or -1 to -{depth} from the end",
                got=repr(layer),
            )
        until = layer if layer > 0 else depth + 1 + layer
        return None if until == depth else until


def _complete(tokenizer: Tokenizer[Any]) -> None:
    """Raises PluginError where a tokenizer lacks what the engine is built from."""
    width, axes = getattr(tokenizer, "token_width", None), getattr(tokenizer, "axes", None)
    name = tokenizer.component_name()
    if not isinstance(width, int) or width < 1:
        raise PluginError(
            f"Tokenizer {name!r} doesn't say how many values a token has.",
            expected="token_width, a number above 0",
            got="no token_width" if width is None else repr(width),
            fix="Set token_width in the class, or self.token_width in __init__ from the settings.",
        )
    if not isinstance(axes, tuple) or not axes:
        raise PluginError(
            f"Tokenizer {name!r} doesn't say along which axes its tokens lie.",
            expected='axes, a tuple of names such as ("height", "width")',
            got="no axes" if axes is None else repr(axes),
            fix="Set axes in the class.",
        )


def _is_batch(signal: Tensor, device: torch.device) -> bool:
    """Whether a tensor may be a batch of signals: plain real numbers that are there."""
    plain = signal.layout is torch.strided and not signal.is_quantized and signal.is_meta == (device.type == "meta")
    return plain and signal.dim() >= 2 and not signal.is_complex() and signal.dtype != torch.bool
