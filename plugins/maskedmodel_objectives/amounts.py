"""Values that are amounts, which objectives on values need: of ids a mean or a difference says nothing."""

from __future__ import annotations

from typing import Any

from maskedmodel import Tokenizer
from maskedmodel.errors import ConfigError


def refuse_ids(objective: str, tokenizer: Tokenizer[Any]) -> None:
    """Raises ConfigError where the tokenizer's values are ids."""
    if tokenizer.vocabulary:
        raise ConfigError(
            f"Objective {objective!r} can't go with tokenizer {tokenizer.component_name()!r}: its values are ids, and "
            "the difference of two ids says nothing.",
            where="objective.name",
            expected="codes, or another objective on ids",
            got=objective,
            fix="Choose objective.name=codes.",
        )
