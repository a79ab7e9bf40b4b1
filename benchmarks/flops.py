"""Floating-point work of a training step, counted as in a textbook: a multiplication and an addition are two.

Counted are the matrix products, forward and backward (twice the forward). Normalisation, activations, softmax and the
optimizer aren't. The count is that of the plain method, whatever an implementation saves: all mask tokens pass all
decoder blocks and the head, and every patch is embedded. What maskedmodel's own engine multiplies is counted in
maskedmodel/engine/flops.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskedmodel.engine.flops import TRAIN, block_flops


@dataclass(frozen=True)
class Work:
    """One size of masked autoencoder on square RGB images, and its batch."""

    size: int
    patch: int
    batch: int
    dim: int
    depth: int
    heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    ratio: float = 0.75

    @property
    def tokens(self) -> int:
        return (self.size // self.patch) ** 2

    @property
    def token_width(self) -> int:
        return 3 * self.patch**2

    @property
    def hidden(self) -> int:
        return round(self.ratio * self.tokens)


WORKS = {
    "vit-b": Work(
        size=224, patch=16, batch=8, dim=768, depth=12, heads=12, decoder_dim=512, decoder_depth=8, decoder_heads=16
    ),
    "vit-ti": Work(
        size=32, patch=2, batch=32, dim=192, depth=12, heads=3, decoder_dim=192, decoder_depth=4, decoder_heads=3
    ),
}


def step_flops(work: Work, hidden: int | None = None) -> float:
    """A training step with `hidden` tokens hidden of each sample (default: what the work says)."""
    w = work
    hidden = w.hidden if hidden is None else hidden
    seen = 1 + w.tokens - hidden
    embed = 2 * w.tokens * w.token_width * w.dim
    encoder = w.depth * block_flops(seen, w.dim)
    project = 2 * seen * w.dim * w.decoder_dim
    decoder = w.decoder_depth * block_flops(1 + w.tokens, w.decoder_dim)
    head = 2 * (1 + w.tokens) * w.decoder_dim * w.token_width
    return TRAIN * w.batch * (embed + encoder + project + decoder + head)
