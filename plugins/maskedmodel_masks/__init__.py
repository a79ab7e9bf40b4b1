"""Mask schedulers: how many tokens are hidden, and which."""

from __future__ import annotations

from typing import Any

from maskedmodel import MaskScheduler, hookimpl
from maskedmodel_masks.ratio import Ramped, Uniform


@hookimpl
def maskedmodel_mask_schedulers() -> list[type[MaskScheduler[Any]]]:
    return [Uniform, Ramped]
