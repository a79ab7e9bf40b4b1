"""Predict which of a number of classes a hidden token is: token ids of text, codes of a quantiser."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import Objective, Settings, Tokenizer
from maskedmodel.errors import ConfigError, DataError
from maskedmodel_objectives.example_ids import ExampleIds


class CodesSettings(Settings):
    """Which id or code a hidden token is, by cross entropy (BERT, Devlin 2019; BEiT, Bao 2022)."""

    name: Literal["codes"] = "codes"
    classes: int | None = Field(
        None,
        gt=1,
        le=2**24,
        description="Number of different ids: a value is one of 0 ... classes-1. null: as many as the tokenizer says.",
    )


class Codes(Objective[CodesSettings]):
    """Cross entropy, in nats, of the hidden token's id; the mean over its ids where a token holds several.

    A prediction is one score (logit) per class, for each id of a token: Q = P * classes. Ids travel as floating-point
    values, exact up to 2^24 in float32.
    """

    zero_at_target = False  # the target is an id, no prediction

    def __init__(self, settings: CodesSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self._classes = self.settings.classes or 0  # 0: the tokenizer says, once it is known

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        """Raises ConfigError where tokens are no ids, or where ids would be embedded as if they were amounts."""
        linear = type(tokenizer).make_embed is Tokenizer.make_embed
        if linear or (tokenizer.token_width != 1 and not tokenizer.vocabulary):
            how = ", taken as an amount (its make_embed is the default, linear)" if linear else ""
            raise ConfigError(
                f"Objective 'codes' can't go with tokenizer {tokenizer.component_name()!r}: its tokens are no ids.",
                where="objective.name",
                expected="integers below the tokenizer's `vocabulary`, and a table of vectors as make_embed",
                got=f"{tokenizer.token_width} value{'s' if tokenizer.token_width > 1 else ''} per token{how}",
                fix="Choose objective.name=patch, or a tokenizer that gives ids.",
            )
        self._classes = self._count(tokenizer)

    def _count(self, tokenizer: Tokenizer[Any]) -> int:
        classes = self.settings.classes or tokenizer.vocabulary
        if not classes:
            raise ConfigError(
                f"Nothing says how many ids tokenizer {tokenizer.component_name()!r} has.",
                where="objective.classes",
                expected="the number of different ids",
                got="null, and no `vocabulary` in the class of the tokenizer",
                fix="Set objective.classes.",
            )
        return classes

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return self._count(tokenizer) * tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        """Ids (B, M, P) to one-hot (B, M, P * classes). Raises DataError on a value that is no id below `classes`."""
        ids, classes = values.round(), self._classes
        if bool(((ids != values) | (ids < 0) | (ids >= classes)).any()):
            low, high = float(values.min()), float(values.max())
            raise DataError(
                "Objective 'codes' met a token that is none of its classes.",
                where="objective.classes",
                expected=f"integers from 0 to {classes - 1}",
                got=f"values from {low:g} to {high:g}" + ("" if bool((ids == values).all()) else ", not all integers"),
                fix="Set objective.classes to the number of ids that the tokenizer gives.",
            )
        return F.one_hot(ids.long(), classes).flatten(-2).float()

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        # Chosen, not multiplied: a score of minus infinity for another id is no NaN.
        scores, wanted = self._by_id(prediction), self._by_id(target)
        loss: Tensor = -scores.log_softmax(-1).gather(-1, wanted.argmax(-1, keepdim=True))[..., 0].mean(-1)
        return loss

    def _by_id(self, values: Tensor) -> Tensor:
        """(..., P * classes) to (..., P, classes)."""
        return values.reshape(*values.shape[:-1], values.shape[-1] // self._classes, self._classes)

    def baseline(self, tokenizer: Tokenizer[Any]) -> float:
        """Scores that are all zero hold every id for equally likely."""
        return math.log(self._count(tokenizer))

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor:
        """The likeliest ids, (..., P)."""
        return self._by_id(prediction).argmax(-1).to(prediction.dtype)

    @classmethod
    def example_tokenizer(cls) -> Tokenizer[Any]:
        """Ids along a line, for the conformance kit."""
        return ExampleIds()
