"""Predict which of a number of classes a hidden token is: token ids of text, codes of a quantiser."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel import GridTokenizer, Objective, Settings, Tokenizer
from maskedmodel.errors import ConfigError, DataError


class CodesSettings(Settings):
    """Which id or code a hidden token is, by cross entropy (BERT, Devlin 2019; BEiT, Bao 2022)."""

    name: Literal["codes"] = "codes"
    classes: int = Field(256, gt=1, le=2**24, description="Number of different ids: a token is one of 0 ... classes-1.")


class Codes(Objective[CodesSettings]):
    """Cross entropy, in nats, of the hidden token's id. A prediction is one score (logit) per id.

    Ids travel as floating-point values, one per token, exact up to 2^24 in float32.
    """

    zero_at_target = False  # the target is an id, no prediction

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        """Raises ConfigError where a token is no single id, or where ids would be embedded as if they were amounts."""
        linear = type(tokenizer).make_embed is Tokenizer.make_embed
        if tokenizer.token_width != 1 or linear:
            how = ", taken as an amount (its make_embed is the default, linear)" if linear else ""
            raise ConfigError(
                f"Objective 'codes' can't go with tokenizer {tokenizer.component_name()!r}: its tokens are no ids.",
                where="objective.name",
                expected="one integer per token, and a table of vectors as make_embed",
                got=f"{tokenizer.token_width} value{'s' if tokenizer.token_width > 1 else ''} per token{how}",
                fix="Choose objective.name=patch, or a tokenizer that gives ids.",
            )

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return self.settings.classes

    def target(self, values: Tensor) -> Tensor:
        """Ids (B, M, 1) to one-hot (B, M, classes). Raises DataError on a value that is no id below `classes`."""
        given, classes = values[..., 0], self.settings.classes
        ids = given.round()
        if bool(((ids != given) | (ids < 0) | (ids >= classes)).any()):
            low, high = float(given.min()), float(given.max())
            raise DataError(
                "Objective 'codes' met a token that is none of its classes.",
                where="objective.classes",
                expected=f"integers from 0 to {classes - 1}",
                got=f"values from {low:g} to {high:g}" + ("" if bool((ids == given).all()) else ", not all integers"),
                fix="Set objective.classes to the number of ids that the tokenizer gives.",
            )
        return F.one_hot(ids.long(), classes).float()

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        # Chosen, not multiplied: a score of minus infinity for another id is no NaN.
        return -prediction.log_softmax(-1).gather(-1, target.argmax(-1, keepdim=True))[..., 0]

    def baseline(self, tokenizer: Tokenizer[Any]) -> float:
        """Scores that are all zero hold every id for equally likely."""
        return math.log(self.settings.classes)

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor:
        """The likeliest id, (..., 1)."""
        return prediction.argmax(-1, keepdim=True).to(prediction.dtype)

    @classmethod
    def example_tokenizer(cls) -> Tokenizer[Any]:
        """Ids along a line, for the conformance kit."""
        return _Ids()


class _IdsSettings(Settings):
    """A line of ids below 256."""

    name: Literal["example-ids"] = "example-ids"
    length: int = Field(16, gt=0, description="Number of ids.")
    patch: int = Field(1, gt=0, description="Ids of a token.")
    channels: int = Field(1, gt=0, description="Ids per place.")


class _Table(nn.Embedding):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values[..., 0].long())


class _Ids(GridTokenizer[_IdsSettings]):
    axes = ("place",)

    def make_embed(self, dim: int) -> nn.Module:
        return _Table(256, dim)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(256, (batch, 1, self.settings.length), generator=generator).float()
