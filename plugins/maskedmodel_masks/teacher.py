"""A teacher: the moving average of modules in training, which sees the whole sample."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import nn

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


def copy_of(module: Any) -> nn.Module:
    """A copy that takes no gradient."""
    copied: nn.Module = copy.deepcopy(module)
    return copied.requires_grad_(False)


@torch.no_grad()
def follow(teachers: Sequence[nn.Module], students: Sequence[Any], keep: float) -> None:
    """Move weights and buffers of the teachers towards those of the students."""
    for teacher, student in zip(teachers, students, strict=True):
        for weight, goal in zip(teacher.parameters(), student.parameters(), strict=True):
            weight.lerp_(goal, 1 - keep)
        for buffer, value in zip(teacher.buffers(), student.buffers(), strict=True):
            buffer.copy_(value)


def encoder_flops(settings: Any, prefix: int, length: int, width: int, *, blocks: int | None = None) -> float:
    """A forward pass of an encoder with these settings over a sample of which nothing is hidden.

    Only the first `blocks` of its blocks are passed (default: all).
    """
    passed: int = settings.depth if blocks is None else blocks
    embedding: float = 2.0 * length * width * settings.dim
    return passed * block_flops(prefix + length, settings.dim, settings.mlp_ratio, mlp=settings.mlp) + embedding
