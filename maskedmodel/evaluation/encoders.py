"""What is judged: an encoder of ours, or anything that gives features of a prepared batch.

Shapes: B batch, L tokens, K layers, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.tasks import Encoded
from maskedmodel.tokens import Mask


class Look(NamedTuple):
    """What an encoder makes of a batch, beside one vector per sample.

    tokens       (B, L, D) after the last layer, or None.
    valid        (B, L) bool, which of them are real; None: all.
    class_token  (B, D), or None.
    layers       (B, K, D): the mean over the tokens after each layer, first to last; None where not asked for.
    """

    tokens: Tensor | None
    valid: Tensor | None = None
    class_token: Tensor | None = None
    layers: Tensor | None = None


@dataclass(frozen=True)
class Encoder:
    """Something to judge.

    embed   a prepared batch to one vector per sample, (B, D).
    look    a prepared batch, and whether layers are wanted, to a Look; None: it gives vectors only.
    cells   the extents of a tokenizer's grid and a prepared batch to its tokens where they stand, (B, cells, D); None:
            they lie on no grid of ours.
    modules what is put into eval mode while it is judged.
    about   what to know of it, in a sentence for the protocol.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    look: Callable[[Tensor, bool], Look] | None = None
    modules: tuple[nn.Module, ...] = ()
    about: str = ""
    cells: Callable[[tuple[int, ...], Tensor], Tensor] | None = None


def of_model(model: MaskedAutoencoder, name: str, pool: Literal["mean", "class"]) -> Encoder:
    """An encoder of ours."""
    return Encoder(
        name,
        lambda signal: model.embed(signal, pool),
        lambda *what: _look(model, *what),
        (model,),
        cells=lambda *what: _cells(model, *what),
    )


def of_callable(function: Callable[[Tensor], Tensor], name: str) -> Encoder:
    """Any function from a prepared batch to (B, D)."""
    modules = (function,) if isinstance(function, nn.Module) else ()
    return Encoder(name, function, modules=modules)


def mean_over(x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    """The mean over the tokens that are real, (B, D)."""
    if valid_BL is None:
        return x_BLD.mean(1)
    weight = valid_BL[..., None].to(x_BLD.dtype)
    return (x_BLD * weight).sum(1) / weight.sum(1).clamp(min=1)


def _cells(model: MaskedAutoencoder, extents: tuple[int, ...], signal: Tensor) -> Tensor:
    """Where several tokens stand in one cell, as those of channels do, their mean."""
    tokens = model.tokens(signal)
    all_of_them = Mask.nothing(tokens)
    latent, has_class = model.encoder.features(tokens), model.settings.encoder.class_token
    encoded = Encoded(latent, model.encoder.prefix, has_class, tokens, all_of_them.ids_keep, all_of_them.keep_valid)
    return encoded.on_grid(extents).flatten(1, -2)


def _look(model: MaskedAutoencoder, signal: Tensor, layers: bool) -> Look:
    """The layers are the outputs of the blocks, the last one after the final LayerNorm."""
    tokens, prefix = model.tokens(signal), model.encoder.prefix
    found: list[Tensor] = []

    def keep(module: nn.Module, given: object, out: Tensor) -> None:
        found.append(mean_over(out[:, prefix:], tokens.valid))

    hooks = [block.register_forward_hook(keep) for block in model.encoder.blocks] if layers else []
    try:
        latent = model.encoder.features(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    after = latent[:, prefix:]
    stacked = torch.stack([*found[:-1], mean_over(after, tokens.valid)], 1) if layers else None
    class_token = latent[:, 0] if model.settings.encoder.class_token else None
    return Look(after, tokens.valid, class_token, stacked)
