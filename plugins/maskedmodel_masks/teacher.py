"""A teacher: the moving average of modules in training, which sees the whole sample."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from maskedmodel.nn import block_flops
from maskedmodel_masks.uniform import RatioSettings


class TeacherSettings(RatioSettings):
    """Settings of a scheduler with a teacher."""

    decay: float = Field(
        0.999, ge=0, lt=1, description="Share of itself that the teacher keeps in a step, at the first step."
    )
    decay_end: float = Field(
        0.9999, ge=0, lt=1, description="Share of itself that the teacher keeps in a step, at the last step."
    )

    def keep(self, progress: float) -> float:
        """The share at `progress`. At the first step nothing is kept: the teacher is what it follows."""
        return 0.0 if progress <= 0 else self.decay + (self.decay_end - self.decay) * min(progress, 1.0)


def encoder_flops(settings: Any, prefix: int, length: int, width: int, *, blocks: int | None = None) -> float:
    """A forward pass of an encoder with these settings over a sample of which nothing is hidden.

    Only the first `blocks` of its blocks are passed (default: all).
    """
    passed: int = settings.depth if blocks is None else blocks
    embedding: float = 2.0 * length * width * settings.dim
    return passed * block_flops(prefix + length, settings.dim, settings.mlp_ratio, mlp=settings.mlp) + embedding
