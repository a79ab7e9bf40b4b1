"""Floating-point work of the engine, counted from its settings: a multiplication and an addition are two.

Counted are the matrix products, as this engine does them: visible tokens alone in the encoder, the mask tokens' first
projection once per position, hidden tokens alone asking in the decoder's last block and passing the head.
Normalisation, activations, softmax, ranking and the optimizer aren't counted, as usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from maskedmodel.components import takes_coords
from maskedmodel.engine import kernels
from maskedmodel.engine.layers import MlpKind
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.engine.positions import PositionEmbedding

TRAIN = 3  # forward and backward together, in forward passes: a backward pass costs two


@dataclass(frozen=True)
class Work:
    """Forward work of one batch."""

    encoder: float
    decoder: float

    @property
    def total(self) -> float:
        return self.encoder + self.decoder


def flop_counter() -> FlopCounterMode:
    """torch's counter, which here knows oneDNN's product too: what it counts doesn't depend on the processor."""

    def product(inputs: torch.Size, weight: torch.Size, *rest: Any, **named: Any) -> int:
        return 2 * inputs.numel() * weight[0]

    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: product} if kernels.has_operator() else None
    )


def block_flops(
    tokens: int, dim: int, mlp_ratio: float = 4.0, asking: int | None = None, mlp: MlpKind = "gelu"
) -> float:
    """A self-attention block, forward, one sample: four projections, scores and mixing, the layers of the MLP.

    Of `tokens` that answer, `asking` ask and pass the MLP (default: all).
    """
    asking = tokens if asking is None else asking
    keys_and_values, queries_and_output = 2 * dim * dim * tokens, 2 * dim * dim * asking
    attention = 2 * asking * tokens * dim
    return 2 * float(keys_and_values + queries_and_output + attention + _mlp(asking, dim, mlp_ratio, mlp))


def _mlp(tokens: int, dim: int, ratio: float, kind: MlpKind) -> int:
    """Multiplications of an MLP: a gated one has a third product of the same size."""
    return (3 if kind == "swiglu" else 2) * dim * int(dim * ratio) * tokens


def cross_block_flops(
    asking: int, context: int, dim: int, context_dim: int, mlp_ratio: float = 4.0, mlp: MlpKind = "gelu"
) -> float:
    """A cross-attention block, forward, one sample: `asking` tokens of width `dim` ask `context` of `context_dim`."""
    projections = 2 * dim * dim * asking + 2 * context_dim * dim * context
    attention = 2 * asking * context * dim
    return 2 * float(projections + attention + _mlp(asking, dim, mlp_ratio, mlp))


def forward_flops(
    model: MaskedAutoencoder, visible: int, hidden: int, batch: int = 1, *, shared_positions: bool = True
) -> Work:
    """The work of a batch whose rows each keep `visible` tokens and hide `hidden`.

    `shared_positions` is False where coordinates, channels or their descriptions differ per sample: then no projection
    is shared over the batch.
    """
    e, d = model.settings.encoder, model.settings.decoder
    seen = model.encoder.prefix + visible
    encoder = visible * per_token(model.encoder.embed, model.tokenizer.token_width, len(model.tokenizer.axes))
    encoder += e.depth * block_flops(seen, e.dim, e.mlp_ratio, mlp=e.mlp)

    rows = batch * hidden
    projected = min(visible + hidden, rows) if shared_positions else rows  # mask tokens in the first block, per batch
    head = hidden * per_token(model.decoder.head, d.dim)
    if d.attention == "cross":
        decoder = d.depth * cross_block_flops(hidden, seen, d.dim, e.dim, d.mlp_ratio, d.mlp)
        saved = 2 * d.dim * d.dim * (rows - projected)
    else:
        length = seen + hidden
        decoder = 2 * seen * e.dim * d.dim
        decoder += (d.depth - 1) * block_flops(length, d.dim, d.mlp_ratio, mlp=d.mlp)
        decoder += block_flops(length, d.dim, d.mlp_ratio, asking=hidden, mlp=d.mlp)
        if d.depth == 1:  # the one block is the first as well, which projects queries of all tokens
            decoder += 2 * d.dim * d.dim * seen
        saved = 2 * 3 * d.dim * d.dim * (rows - projected)
    placed = (visible + hidden) * (1 if shared_positions else batch)  # once per position, as projections are
    placing = [
        placed * _per_position(stack.places, len(model.tokenizer.axes)) for stack in (model.encoder, model.decoder)
    ]
    return Work(batch * encoder + placing[0], batch * (decoder + head) - saved + placing[1])


def _per_position(places: PositionEmbedding, axes: int) -> float:
    """The work of what is learned of a token's coordinates, and of what describes its channel."""
    position = per_token(places.mlp, axes) if places.kind == "mlp" else 0.0
    description = places.description
    return position + (0.0 if description is None else per_token(description, description.fc1.in_features))


def per_token(module: nn.Module, width: int, axes: int = 0) -> float:
    """The work of a module that maps tokens of `width` values, at `axes` coordinates, one by one: for one token."""
    if isinstance(module, nn.Linear):
        return 2.0 * module.in_features * module.out_features
    parameter = next(module.parameters(), torch.zeros(()))
    token = torch.zeros(1, 1, width, dtype=parameter.dtype, device=parameter.device)
    given = (token, token.new_zeros(1, 1, axes)) if takes_coords(module) else (token,)
    with torch.no_grad(), flop_counter() as counter:
        module(*given)
    return float(counter.get_total_flops())
