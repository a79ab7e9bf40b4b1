"""One good component of each kind, and many that break it in one way each. `FAILS` says which checks must notice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from maskedmodel import (
    DataSource,
    GridTokenizer,
    Mask,
    MaskScheduler,
    Noise,
    Objective,
    Sample,
    Settings,
    Tokenizer,
    Tokens,
)
from maskedmodel.errors import ShapeError
from maskedmodel.schedulers import FeatureEncoder, Observed

FAILS: dict[type, set[str]] = {}


def fails(*checks: str) -> Any:
    """Marks a component with the checks, and no others, that must fail."""

    def mark(cls: type) -> type:
        FAILS[cls] = {f"check_{name}" for name in checks}
        return cls

    return mark


class LineSettings(Settings):
    name: Literal["line"] = "line"
    length: int = Field(24, gt=0, description="Length of a signal, in samples.")


@fails()
class Line(GridTokenizer[LineSettings]):
    axes = ("time",)
    channels = 2
    patch = (4,)

    @property
    def size(self) -> tuple[int]:
        return (self.settings.length,)


@fails("partition")
class Overlapping(Line):
    """Each token also holds the first sample of the next one."""

    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.token_width += 2

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, values=torch.cat([tokens.values, tokens.values.roll(-1, 1)[..., :2]], -1))

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return super().detokenize(values[..., :-2], like)


@fails("partition", "round_trip")
class NormalisesTheSignal(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, values=tokens.values - tokens.values.mean((1, 2), keepdim=True))


@fails("samples_independent", "round_trip", "overfit")
class NormalisesTheBatch(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        return super().tokenize(signal - signal.mean(0, keepdim=True))


@fails("round_trip")
class Lossy(Line):
    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return 0.99 * super().detokenize(values, like)


@fails()
class LossyAsDeclared(Lossy):
    round_trip_tolerance = 0.011


@fails("basics")
class WrongTokenWidth(Line):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.token_width += 1


@fails("embed_and_head", "overfit")
class WrongEmbed(Line):
    def make_embed(self, dim: int) -> torch.nn.Module:
        return torch.nn.Linear(self.token_width, dim + 1)


class Placed(nn.Module):
    """An embedding that sees where tokens stand."""

    takes_coords = True

    def __init__(self, width: int, axes: int, dim: int) -> None:
        super().__init__()
        self.values, self.places = nn.Linear(width, dim), nn.Linear(axes, dim)

    def forward(self, values: Tensor, coords: Tensor) -> Tensor:
        out: Tensor = self.values(values) + self.places(coords)
        return out


@fails()
class EmbedsPlaces(Line):
    def make_embed(self, dim: int) -> nn.Module:
        return Placed(self.token_width, len(self.axes), dim)


@fails()
class LeavesOut(Line):
    """What isn't there isn't drawn: lines break off at NaN."""

    leaves_out = True

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return super().detokenize(like.absent_as_nan(values), like)


@fails("left_out")
class DrawsWhatIsLeftOut(LeavesOut):
    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return Line.detokenize(self, values, like)


@fails("embed_and_head")
class MixesTokens(Line):
    """A token's vector depends on how many others there are, and which."""

    def make_embed(self, dim: int) -> nn.Module:
        class Centred(nn.Linear):
            def forward(self, values: Tensor) -> Tensor:
                return super().forward(values - values.mean((0, 1)))

        return Centred(self.token_width, dim)


@fails("dtype")
class ForcesFloat32(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        return super().tokenize(signal.float())


@fails("device")
class LeavesCoordsOnTheCPU(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, coords=torch.arange(tokens.length)[:, None])


@fails("wrong_shapes")
class ObscureRefusal(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or signal.shape[1] != 2 or signal.shape[2] % 4:
            raise ValueError("reshape failed")
        return super().tokenize(signal)


@fails("wrong_shapes")
class RefusalWithoutNumbers(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or signal.shape[1] != 2 or signal.shape[2] % 4:
            raise ShapeError("This signal has a wrong shape.")
        return super().tokenize(signal)


@fails("wrong_shapes")
class DropsTheRest(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() == 3:
            signal = signal[..., : signal.shape[2] // 4 * 4]
        return super().tokenize(signal)


@fails("layout")
class NotInRasterOrder(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, coords=tokens.coords.flip(0))


@fails("layout")
class AllInOnePlace(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, coords=torch.zeros_like(tokens.coords))


@fails("layout")
class ForgetsChannelCount(Line):
    separate_channels = True

    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channel_count = 0


class _Described(Line):
    """A tokenizer whose channels are described; not in the list, since it keeps the rules."""

    separate_channels = True
    channel_features = 1

    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channel_count = 0

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        assert tokens.channel is not None
        return replace(tokens, channel_features=tokens.channel[:, None].to(signal))


@fails("layout", "overfit")
class DescribesInAnotherWidth(_Described):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        assert tokens.channel_features is not None
        return replace(tokens, channel_features=tokens.channel_features.expand(-1, 2))


@fails("layout", "overfit")
class DescribesNothing(_Described):
    def tokenize(self, signal: Tensor) -> Tokens:
        return replace(super().tokenize(signal), channel_features=None)


@fails("layout", "overfit")
class DescribesByNaN(_Described):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        assert tokens.channel_features is not None
        return replace(tokens, channel_features=tokens.channel_features * torch.nan)


@fails("layout")
class DescribesTokensNotChannels(_Described):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        return replace(tokens, channel_features=tokens.coords.to(signal))


@fails("padding")
class PadsWithNaN(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        nothing = torch.full_like(tokens.values[:, :1], torch.nan)
        valid = torch.arange(tokens.length + 1, device=signal.device) < tokens.length
        return Tokens(
            torch.cat([tokens.values, nothing], 1),
            torch.cat([tokens.coords, tokens.coords[:1]]),
            tokens.axes,
            valid=valid.expand(tokens.batch, -1),
        )

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return super().detokenize(values[:, :-1], replace(like, grid=(like.length - 1,)))


@fails("example", "global_generators")
class ExampleOfTheGlobalGenerator(Line):
    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return super().example(batch, torch.default_generator)


@fails("example")
class ExampleIgnoresItsGenerator(Line):
    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return super().example(batch, torch.Generator().manual_seed(0))


@fails("inputs_kept")
class ClampsInPlace(Line):
    def tokenize(self, signal: Tensor) -> Tokens:
        return super().tokenize(signal.clamp_(-0.5, 0.5))


@fails("augment", "global_generators")
class AugmentsFromTheGlobalGenerator(Line):
    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        return signal * torch.rand(signal.shape[0], 1, 1)


@fails("augment")
class AugmentsAcrossTheBatch(Line):
    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        return signal + noise.uniform(1)[:, :, None] * signal.roll(1, 0)


@fails("prepare", "collate")
class PreparesEachTimeAnew(Line):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.calls = itertools.count()

    def prepare(self, signal: Tensor) -> Tensor:
        return signal + next(self.calls)

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        return signal


@fails("collate")
class CollatesBackwards(Line):
    def collate(self, signals: Any) -> Tensor:
        return super().collate(signals).flip(0)


@fails("picture")
class PictureOutOfRange(Line):
    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        return 255 * super().picture(signal)


@fails("overfit")
class HugeValues(Line):
    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return 1e5 * super().example(batch, generator)


class Rows(nn.Embedding):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.long().clamp(0, self.num_embeddings - 1)).sum(-2)


@fails()
class Letters(Line):
    """Ids, embedded by a table."""

    vocabulary = 9

    def make_embed(self, dim: int) -> nn.Module:
        return Rows(9, dim)

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(9, (batch, 2, self.settings.length), generator=generator).float()


@fails("vocabulary")
class MoreLettersThanItSays(Letters):
    vocabulary = 8


@fails("vocabulary")
class LettersAsAmounts(Letters):
    make_embed = Tokenizer.make_embed


class UndocumentedSettings(LineSettings):
    rate: float = 1.0


@fails("settings_documented")
class Undocumented(Line):
    settings_class = UndocumentedSettings


class LooseSettings(LineSettings):
    model_config = ConfigDict(extra="allow")


@fails("settings_strict")
class Loose(Line):
    settings_class = LooseSettings


class ShiftingSettings(LineSettings):
    @field_validator("length")
    @classmethod
    def _grow(cls, length: int) -> int:
        return 2 * length


@fails("settings_json", "rebuilt")
class Shifting(Line):
    settings_class = ShiftingSettings


def _local() -> type[Settings]:
    class LocalSettings(LineSettings):
        pass

    return LocalSettings


@fails("settings_pickle")
class SettingsOfAFunction(Line):
    settings_class = _local()


@fails("rebuilt")
class ChangesItsSettings(Line):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        given = settings or LineSettings(**values)
        super().__init__(LineSettings(length=2 * given.length))


class AwkwardSettings(LineSettings):
    name: Literal["My Line"] = "My Line"  # type: ignore[assignment]


@fails("name")
class Awkward(Line):
    settings_class = AwkwardSettings


class TakenSettings(LineSettings):
    name: Literal["image"] = "image"  # type: ignore[assignment]


@fails("name")
class Taken(Line):
    settings_class = TakenSettings


class HalfSettings(Settings):
    name: Literal["half"] = "half"


@fails()
class Half(MaskScheduler[HalfSettings]):
    def ratio(self, progress: float) -> float:
        return 0.4 + 0.2 * progress


@fails("polarity")
class Inverted(Half):
    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        return Mask.from_scores(-self.scores(tokens, progress, noise), self.ratio(progress), tokens.valid)


@fails("count", "noise", "padding", "progress", "samples_independent")
class CountsCalls(Half):
    def __init__(self, settings: Any = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.calls = 0

    def ratio(self, progress: float) -> float:
        self.calls += 1
        return 0.2 + 0.6 * (self.calls % 10) / 10


@fails("polarity", "padding", "noise", "samples_independent", "progress", "global_generators")
class ScoresOfTheGlobalGenerator(Half):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return torch.rand(tokens.batch, tokens.length)


@fails("epochs", "every_token")
class SameEveryEpoch(Half):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return torch.arange(float(tokens.length)).expand(tokens.batch, -1)


@fails()
class SameEveryEpochAsDeclared(SameEveryEpoch):
    deterministic = True


@fails("every_token")
class NeverHidesTheFirst(Half):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return super().scores(tokens, progress, noise).index_fill(1, torch.tensor([0]), -1)


@fails("padding", "count")
class HidesPadding(Half):
    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        return Mask.from_scores(self.scores(tokens, progress, noise), self.ratio(progress))


@fails("count")
class HidesFewer(Half):
    def sample(self, tokens: Tokens, progress: float, noise: Noise) -> Mask:
        return Mask.from_scores(self.scores(tokens, progress, noise), 0.5 * self.ratio(progress), tokens.valid)


@fails("samples_independent")
class ScoresOfTheNeighbour(Half):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return super().scores(tokens, progress, noise).roll(1, 0)


@fails("layouts", "ratio")
class HidesEverything(Half):
    def ratio(self, progress: float) -> float:
        return 1.0


@fails("layouts")
class TakesTwoAxesForGranted(Half):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return super().scores(tokens, progress, noise) + 0 * tokens.coords[..., 1]


@fails()
class RefusesOneAxis(TakesTwoAxesForGranted):
    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        if len(tokens.axes) < 2:
            raise ShapeError("This mask needs two axes.", expected="2 axes or more", got=tokens.axes)
        return super().scores(tokens, progress, noise)


@fails("observe", "overfit")
class ObservesAVector(Half):
    def observe(self, seen: Observed) -> Tensor:
        return seen.loss_per_token


@fails("observe", "flops")
class LeavesAWeightWithoutGradient(Half):
    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        self.used, self.idle = nn.Linear(encoder.settings.dim, 1), nn.Linear(1, 1)

    def observe(self, seen: Observed) -> Tensor:
        return self.used(seen.latent).mean()  # type: ignore[no-any-return]


class SquareSettings(Settings):
    name: Literal["square"] = "square"


@fails()
class Square(Objective[SquareSettings]):
    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return tokenizer.token_width

    def target(self, values: Tensor) -> Tensor:
        return values

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean(-1)


@fails("zero_at_target")
class NeverZero(Square):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().loss(prediction, target) + 0.01


@fails("loss_shape", "tokens_independent", "overfit")
class OneNumber(Square):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().loss(prediction, target).mean()


@fails("loss_shape", "zero_at_target")
class Negative(Square):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return -super().loss(prediction, target)


@fails("finite", "gradient")
class NoEpsilon(Square):
    def width(self, tokenizer: Tokenizer[Any]) -> int:
        if tokenizer.token_width < 2:
            raise ShapeError("One value has no spread.", expected="2 values a token or more", got=tokenizer.token_width)
        return super().width(tokenizer)

    def target(self, values: Tensor) -> Tensor:
        return (values - values.mean(-1, keepdim=True)) / values.std(-1, keepdim=True)


@fails("gradient")
class Root(Square):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().loss(prediction, target).sqrt()


@fails("gradient", "overfit")
class Detached(Square):
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().loss(prediction.detach(), target)


@fails("tokens_independent")
class NormalisesAcrossTokens(Square):
    def target(self, values: Tensor) -> Tensor:
        return values - values.mean(1, keepdim=True)


@fails("width")
class WrongWidth(Square):
    def width(self, tokenizer: Tokenizer[Any]) -> int:
        return super().width(tokenizer) + 1


@fails("by_value", "zero_at_target")
class MixesValues(Square):
    by_value = True

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return super().loss(prediction, target) + 0.1 * prediction.mean(-1).square()


@fails("loss_in_part")
class HalfInPart(Square):
    def loss_in_part(self, prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
        return 0.5 * self.loss(prediction, target)


@fails("to_values")
class NoWayBack(Square):
    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        return 2 * prediction


@fails("baseline")
class WrongBaseline(Square):
    def baseline(self, tokenizer: Tokenizer[Any]) -> float:
        return 5.0


@fails("pure")
class TargetInPlace(Square):
    def target(self, values: Tensor) -> Tensor:
        return values.clamp_(-0.5, 0.5)


@fails("pure", "global_generators", "tokens_independent")
class NoisyTarget(Square):
    def target(self, values: Tensor) -> Tensor:
        return values + torch.rand_like(values)


class CountedSettings(Settings):
    name: Literal["counted"] = "counted"


class Items:
    """Ten samples whose values name them."""

    def __init__(self, split: str, **changes: Any) -> None:
        self.split, self.changes = split, changes
        self.start = 0 if split == "train" else 100

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        return {"signal": torch.full((1, 4), float(self.start + index)), "id": self.start + index, "label": index % 2}


@fails()
class Counted(DataSource[CountedSettings]):
    items: type[Items] = Items

    def open(self, split: str) -> Items:
        return self.items(split)

    def class_names(self) -> list[str] | None:
        return ["even", "odd"]


class _Doubled(Items):
    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "id": self.start + index // 2}


@fails("ids")
class DuplicateIds(Counted):
    items = _Doubled


class _SameInBoth(Items):
    def __init__(self, split: str) -> None:
        super().__init__("train")


@fails("ids")
class OverlappingSplits(Counted):
    items = _SameInBoth


class _Shuffled(Items):
    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.order = torch.randperm(10).tolist()

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(self.order[index])


@fails("reopened", "global_generators")
class ShufflesWhenOpened(Counted):
    items = _Shuffled


class _Stream(Items):
    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.position = -1

    def __getitem__(self, index: int) -> Sample:
        self.position += 1
        return super().__getitem__(self.position % 10)


@fails("reopened")
class IgnoresTheIndex(Counted):
    items = _Stream


class _Broken(Items):
    def __getitem__(self, index: int) -> Sample:
        signal = torch.full((1, 4), torch.nan if index == 3 else float(self.start + index))
        return {**super().__getitem__(index), "signal": signal}


@fails("samples")
class HasNaN(Counted):
    items = _Broken


class _Empty(Items):
    def __len__(self) -> int:
        return 10 if self.split == "train" else 0


@fails("opens")
class NothingToValidate(Counted):
    items = _Empty


@fails("labels")
class TooFewClassNames(Counted):
    def class_names(self) -> list[str] | None:
        return ["even"]


@fails("labels")
class LabelsWithoutNames(Counted):
    def class_names(self) -> list[str] | None:
        return None


class _WithLambda(Items):
    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.read = lambda index: index


@fails("workers")
class StaysInItsProcess(Counted):
    items = _WithLambda
