"""The opposite of a pattern: what it would hide is shown, what it would show is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch import Tensor

from maskedmodel import Mask, Noise, Settings, Tokenizer, Tokens
from maskedmodel.errors import ConfigError
from maskedmodel.nested import Nested
from maskedmodel.schedulers import FeatureEncoder, Observed
from maskedmodel_masks.combined import Combined, count_of, gated, learns, touching
from maskedmodel_masks.ranking import real_counts
from maskedmodel_masks.schedules import Drawn, Ratio, all_ratios, opposite, ratio_at, refuse_extremes
from maskedmodel_masks.uniform import usual_count


class InvertSettings(Settings):
    """The opposite of a pattern, such as inverse blocks: a few blocks are shown, the rest is hidden (data2vec 2.0)."""

    name: Literal["invert"] = "invert"
    of: Annotated[Settings, Nested("mask_scheduler")] = Field(
        {"name": "blocks"},
        validate_default=True,
        description="The mask whose pattern is shown, by name, with its settings. Its own ratio follows from ratio.",
    )
    ratio: Ratio | None = Field(
        0.75,
        validate_default=True,
        description="Share of the tokens that are hidden in the end, or a schedule of it (linear, cosine, steps). "
        "null: what the pattern leaves under settings of its own.",
    )


class Invert(Combined[InvertSettings]):
    """Hides the tokens that a pattern would hide last.

    The pattern is made for the rest: its ratio is set to 1 minus `ratio`, so blocks cover what is to be seen. The count
    is exact; of patterns that keep whole structures it is all but those structures.
    """

    def _places(self) -> list[tuple[str, Settings]]:
        return [("of", self._of())]

    def _of(self) -> Settings:
        """The pattern's settings, its ratio the rest. Raises ConfigError where that can't be."""
        given, ratio = self.settings.of, self.settings.ratio
        if ratio is None:
            return given
        field = type(given).model_fields.get("ratio")
        if field is None or isinstance(ratio, Drawn):
            raise ConfigError(
                f"The mask {given.name!r} has no ratio of its own that could be set to the rest."
                if field is None
                else "Nothing is the opposite of a ratio that is drawn anew at every step.",
                where="mask.ratio",
                expected="null: what the pattern leaves under its own settings is hidden",
                got="a number or a schedule" if field is None else "shape: random",
                fix="Set mask.ratio=null, and mask.of as it is to be.",
            )
        rest, own = opposite(ratio), getattr(given, "ratio")  # noqa: B009 - a field of some settings only
        if own not in (field.default, rest):
            raise ConfigError(
                "The ratio of the pattern has no say: it is what the mask's ratio leaves.",
                where="mask.of.ratio",
                got=own,
                fix="Leave mask.of.ratio out and set mask.ratio, or set mask.ratio=null.",
            )
        values = {name: getattr(given, name) for name in type(given).model_fields}
        try:
            return type(given).model_validate({**values, "ratio": rest})
        except ValidationError as error:
            raise ConfigError(
                f"The mask {given.name!r} can't be made for what the ratio leaves.",
                where="mask.of",
                got="; ".join(one["msg"] for one in error.errors()),
                fix="Choose another mask.ratio, or set mask.ratio=null.",
            ) from error

    @property
    def _part(self) -> Any:
        return self.parts[0]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError, too, where the ratio hides none or all of the usual number of tokens."""
        count = usual_count(tokenizer)
        if count is not None and self.settings.ratio is not None:
            refuse_extremes(all_ratios(self.settings.ratio), count, "mask.ratio", "tokens")
        super().attach(tokenizer, encoder)

    def ratio(self, progress: float) -> float:
        if self.settings.ratio is None:
            return float(1 - self._part.ratio(progress))
        return ratio_at(self.settings.ratio, progress)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        scores: Tensor = self._part.scores(tokens, progress, noise)
        return -scores

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor | int | None:
        counts = self._part.counts(tokens, progress, noise)
        if counts is None and self.settings.ratio is not None:
            return None
        if isinstance(counts, int):
            return tokens.length - counts
        real = real_counts(tokens.values[..., 0], tokens.valid)
        return real - count_of(self._part, tokens, real, progress, noise)

    def bounds(self, tokens: Tokens, progress: float) -> tuple[int, int] | None:
        known = self._part.bounds(tokens, progress)
        return None if known is None else (tokens.length - known[1], tokens.length - known[0])

    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        mask = super().sample(tokens, progress, noise)
        if not gated(self._part):
            return mask
        own = self._part.sample(tokens, progress, noise)
        # Gates have the slope of being shown: to show what the part would hide turns it round.
        return replace(mask, gates=None if own.gates is None else 2 - own.gates, made_by=own.made_by)

    def flops(self, length: int) -> float:
        work: float = self._part.flops(length)
        return work * (4 / 3 if gated(self._part) else 1)

    def observe(self, seen: Observed) -> Tensor | None:
        return touching(self._part.observe(seen), self._part) if learns(self._part) else None
