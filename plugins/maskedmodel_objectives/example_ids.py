"""Ids along a line, with which the conformance kit tries objectives on ids."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Settings


class ExampleIdsSettings(Settings):
    """A line of ids below 256."""

    name: Literal["example-ids"] = "example-ids"
    length: int = Field(16, gt=0, description="Number of ids.")
    patch: int = Field(1, gt=0, description="Ids of a token.")
    channels: int = Field(1, gt=0, description="Ids per place.")


class _Table(nn.Embedding):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values[..., 0].long())


class ExampleIds(GridTokenizer[ExampleIdsSettings]):
    """Random ids along a line, with a table of vectors."""

    axes = ("place",)
    vocabulary = 256

    def make_embed(self, dim: int) -> nn.Module:
        return _Table(256, dim)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(256, (batch, 1, self.settings.length), generator=generator).float()
