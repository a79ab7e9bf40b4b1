"""More that break one rule each: basics, absent values, footprints, FLOPs, and objectives made for one tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from broken import Counted, Half, Items, Line, LineSettings, Overlapping, fails  # type: ignore[import-not-found]
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Noise, Objective, Sample, Settings, Tokenizer, Tokens
from maskedmodel.errors import ConfigError, ShapeError


@fails("builds")
class FailsToBuild(Line):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        raise RuntimeError("no memory of its own")


@fails("builds")
class WithoutAxes(GridTokenizer[LineSettings]):
    channels = 2
    patch = (4,)
    size = (24,)


@fails("basics")
class WithoutTokenWidth(Line):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        del self.token_width


@fails("basics")
class PreparesNaN(Line):
    def prepare(self, signal: Tensor) -> Tensor:
        return signal / (signal - signal)


@fails("basics")
class GivesATensor(Line):
    def tokenize(self, signal: Tensor) -> Any:
        return super().tokenize(signal).values


@fails("basics")
class TokensOfFourDimensions(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, values=tokens.values[..., None])


@fails()
class OverlappingAsDeclared(Overlapping):
    overlapping = True


@fails()
class WithAbsentValues(Line):
    accepts_nan = True


@fails()
class WithAbsentValuesInItsExample(WithAbsentValues):
    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        signal = super().example(batch, generator)
        return signal.masked_fill(torch.rand(signal.shape, generator=generator) < 0.1, torch.nan)


@fails("absent")
class FillsAbsentValues(WithAbsentValues):
    """Zeros stand for what is absent, and nothing says so."""

    def tokenize(self, signal: Tensor) -> Tokens:
        return super().tokenize(signal.nan_to_num())


@fails("absent")
class LeavesAbsentValuesIn(WithAbsentValues):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        values = tokens.values if tokens.observed is None else tokens.values.masked_fill(~tokens.observed, torch.nan)
        return replace(tokens, values=values)


@fails("absent")
class ForgetsToPad(WithAbsentValues):
    """Tokens of which nothing is observed are taken for real ones."""

    def tokenize(self, signal: Tensor) -> Tokens:
        return replace(super().tokenize(signal), valid=None)


@fails("absent")
class DropsTokensThatLackAValue(WithAbsentValues):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        if tokens.observed is None:
            return tokens
        return replace(tokens, valid=tokens.observed.all(-1), observed=None)


@fails("absent")
class FillsFromTheBatch(WithAbsentValues):
    def prepare(self, signal: Tensor) -> Tensor:
        return signal - signal.isnan().sum()


@fails("footprint")
class FootprintBackwards(Line):
    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor | None:
        return super().footprint(tokens, chosen.flip(1))


@fails("footprint")
class FootprintOfAnotherSize(Line):
    def footprint(self, tokens: Tokens, chosen: Tensor) -> Tensor | None:
        found = super().footprint(tokens, chosen)
        return None if found is None else found[:, :-1]


class Multiplies(Half):
    """Scores each token by a product with 12 x 64 and one with 64 x 1, without a gradient."""

    work = 2.0 * 64 * 13

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return (
            super().scores(tokens, progress, noise)
            + 0 * (tokens.values @ torch.ones(12, 64) @ torch.ones(64, 1))[..., 0]
        )

    def flops(self, length: int) -> float:
        return self.work * length


@fails()
class CountsItsWork(Multiplies):
    pass


@fails("flops")
class CountsHalfItsWork(Multiplies):
    work = Multiplies.work / 2


@fails("flops")
class SaysNothingOfItsWork(Multiplies):
    work = 0.0


class LettersSettings(Settings):
    name: Literal["letters"] = "letters"


class Letters(Tokenizer[LettersSettings]):
    """Signals (B, 32) of the numbers 0 to 4, a token each."""

    axes = ("position",)
    token_width = 1
    alphabet = 5

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 2:
            raise ShapeError("Letters come in rows.", expected="(B, L)", got=tuple(signal.shape))
        length = signal.shape[1]
        return Tokens(signal[..., None], torch.arange(length, device=signal.device)[:, None], self.axes, (length,))

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return values[..., 0]

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        start = torch.randint(self.alphabet, (batch, 1), generator=generator)
        return ((start + torch.arange(32)) % self.alphabet).float()


class WhichLetterSettings(Settings):
    name: Literal["which_letter"] = "which_letter"


@fails()
class WhichLetter(Objective[WhichLetterSettings]):
    """Cross entropy over the alphabet: made for `Letters`, and for no other tokenizer."""

    zero_at_target = False

    @classmethod
    def example_tokenizer(cls) -> Letters:
        return Letters()

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        if not isinstance(tokenizer, Letters):
            raise ConfigError("It needs letters.", expected="the tokenizer 'letters'", got=type(tokenizer).__name__)

    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.alphabet  # type: ignore[no-any-return, return-value]

    def target(self, values: Tensor) -> Tensor:
        return nn.functional.one_hot(values[..., 0].long(), 5).float()

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return -(prediction.log_softmax(-1) * target).sum(-1)


@fails("refusals")
class RefusesByAccident(WhichLetter):
    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        pass


@fails("width")
class GoesWithNothing(WhichLetter):
    @classmethod
    def example_tokenizer(cls) -> Line:  # type: ignore[override]
        return Line()


@fails("zero_at_target")
class NotDeclaredAsLogits(WhichLetter):
    zero_at_target = True


@fails("zero_at_target", "overfit")
class ScoresTheTargetWorst(WhichLetter):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return 20 + (prediction.softmax(-1) * target).sum(-1)


class _WithoutIds(Items):
    def __getitem__(self, index: int) -> Sample:
        return {"signal": torch.zeros(1, 4)}  # type: ignore[typeddict-item]


@fails("opens")
class SamplesWithoutIds(Counted):
    items = _WithoutIds


@fails("opens")
class NothingThere(Counted):
    def open(self, split: str) -> Items:
        raise OSError("the disk isn't there")
