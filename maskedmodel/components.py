"""What a plugin provides: components, each built from its own Settings.

A component is named by its settings class, so the two can't disagree:

    class ECGSettings(Settings):
        name: Literal["ecg"] = "ecg"
        leads: int = Field(12, description="Number of leads.")

    class ECG(GridTokenizer[ECGSettings]): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NotRequired, Protocol, TypedDict, TypeVar, get_args

import torch
from torch import Tensor, nn

from maskedmodel.errors import ConfigError, DataError, PluginError, ShapeError
from maskedmodel.noise import Noise
from maskedmodel.pictures.display import SignalDisplay
from maskedmodel.settings import Settings as Settings
from maskedmodel.tokens import Tokens

Split = Literal["train", "val"]


S = TypeVar("S", bound=Settings)


class Component(Generic[S]):
    """Base of everything a plugin provides. `Component(settings)` or `Component(field=value, ...)`."""

    settings_class: ClassVar[type[Settings]]
    settings: S

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Settings):
                    cls.settings_class = argument

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        super().__init__()
        self.settings = settings if settings is not None else self.settings_class(**values)  # type: ignore[assignment]

    @classmethod
    def example_settings(cls, folder: Path) -> S | None:
        """Settings to check the component with where its own have no defaults; the files they need go to `folder`."""
        return None

    @classmethod
    def component_name(cls) -> str:
        """The name a config uses, from the settings class. Raises PluginError where it has none."""
        settings = getattr(cls, "settings_class", None)
        name = settings.model_fields["name"].default if settings is not None else None
        if not isinstance(name, str):
            raise PluginError(
                f"{cls.__module__}.{cls.__qualname__} has no name.",
                expected='a Settings class with a field like name: Literal["ecg"] = "ecg"',
                got=settings.__qualname__ if settings is not None else "no Settings class",
                fix=f"Write class {cls.__name__}(<kind>[{cls.__name__}Settings]).",
            )
        return name


class Tokenizer(Component[S], SignalDisplay, nn.Module, ABC):
    """Cuts a signal into tokens and puts it together again.

    `signal` is a batch, first dimension B, on any device. Its further layout is the tokenizer's own. How it is shown to
    people stands in `SignalDisplay`, with a default for each.

    Attributes:
        axes: names of the A axes along which tokens lie, such as ("height", "width").
        token_width: P, the number of values in a token.
        channel_count: how many values of `Tokens.channel` the engine tells apart by a learned vector each; 0: none of
            them, as where tokens carry none or are known by `channel_features` alone.
        channel_features: F, how many values describe a channel in `Tokens.channel_features`, which a small network
            makes a vector of: so a channel that was never met in training is known by what describes it. 0: none.
        described_names: the channels that these describe, in the order of their numbers, where names are known. Data
            that give their channels other names are refused, as they would be taken for others.
        accepts_nan: whether NaN in a signal means a value that isn't there; otherwise such a sample is broken.
        overlapping: whether a value of the signal may stand in several tokens, as with windows that overlap. Then a
            hidden token can be read off a visible one in part, which is told when a model is built.
        value_range: the lowest and the highest value of a prepared signal where they are known, such as (0, 1): values
            outside give away a signal that was normalised by somebody else. None: any value will do.
        round_trip_tolerance: largest error of `detokenize(tokenize(x))`, as a share of the largest value.
        vocabulary: how many different ids a value may be, 0 to vocabulary - 1, where values are ids and no amounts: an
            objective such as `codes` reads it. 0: values are amounts.
        shared_with_data: names of settings that must be the same in the data's settings, where those have them.
    """

    axes: tuple[str, ...]
    token_width: int
    channel_count: int = 0
    channel_features: int = 0
    described_names: Sequence[str] = ()
    accepts_nan: bool = False
    overlapping: bool = False
    value_range: tuple[float, float] | None = None
    round_trip_tolerance: float = 0.0
    vocabulary: int = 0
    shared_with_data: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        nn.Module.__init__(self)
        Component.__init__(self, settings, **values)

    @abstractmethod
    def tokenize(self, signal: Tensor) -> Tokens:
        """Cut the batch. No value enters two tokens, unless `overlapping` says so. Raises ShapeError, with the
        numbers, on what it can't cut.
        """

    @abstractmethod
    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        """The signal whose tokens are `values` (B, L, P) laid out `like` others: the inverse of `tokenize`."""

    @abstractmethod
    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """A batch of plausible signals, drawn from `generator` alone. Feeds the kit, previews and docs without data."""

    @property
    def extents(self) -> tuple[int, ...] | None:
        """The usual grid extents along the axes, or None: learned position tables are built for them."""
        return None

    def prepare(self, signal: Tensor) -> Tensor:
        """A stored batch made ready to tokenize, the same way each time: for validation, features and pictures."""
        return signal

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """A stored batch made ready to tokenize in training, on the training device, random through `noise` alone."""
        return self.prepare(signal)

    def move_target(self, target: Tensor, stored: Tensor, noise: Noise | None = None) -> Tensor:
        """A target (B, ...) that belongs to places of a stored batch, after what is done to the signal.

        That is `prepare` where there is no `noise`, else `augment` with the same noise. Class numbers stay class
        numbers, and -1 says that a place has none. Points (B, K, 3) stay points, also where they end outside. Raises
        ConfigError where places are moved and this doesn't say how.
        """
        if type(self).prepare is Tokenizer.prepare and type(self).augment is Tokenizer.augment:
            return target
        raise ConfigError(
            f"Tokenizer {self.component_name()!r} crops, resizes or turns signals, and can't do the same to a target.",
            where="tokenizer.name",
            expected="a tokenizer with a move_target",
            fix="Choose another tokenizer, or a task with one label per sample, such as classify.",
        )

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """One batch out of samples. Raises ShapeError where they differ in shape."""
        shapes = {tuple(signal.shape) for signal in signals}
        if len(shapes) > 1:
            raise ShapeError(
                "The samples of a batch differ in shape.",
                expected="one shape",
                got=", ".join(map(str, sorted(shapes))),
                fix="Let the data source resize or crop, or use a tokenizer that takes ragged batches.",
            )
        return torch.stack(list(signals))

    @property
    def needs_statistics(self) -> bool:
        """Whether `fit_statistics` must see data before training. Its results are buffers, stored with the run."""
        return False

    def fit_statistics(self, signals: Iterable[Tensor]) -> None:
        """Measure what the settings leave to be measured, over prepared batches, once per run."""

    def make_embed(self, dim: int) -> nn.Module:
        """The module from raw values (..., P) to (..., D), which treats tokens one by one: it mixes no two of them.

        A module with an attribute `takes_coords`, True, is given where tokens stand as well: it is called with values
        (..., P) and coords (..., A), those of the same tokens, on the values' device and of their type.
        """
        return nn.Linear(self.token_width, dim)

    def make_head(self, dim: int, width: int) -> nn.Module:
        """The module from decoder states (..., E) to predictions (..., Q)."""
        return nn.Linear(dim, width)


def takes_coords(embed: nn.Module) -> bool:
    """Whether a module that `Tokenizer.make_embed` made is called with coordinates beside the values."""
    return bool(getattr(embed, "takes_coords", False))


class Objective(Component[S], ABC):
    """What hidden tokens are compared with. It never sees a visible token: the core masks and averages.

    Attributes:
        by_value: whether the loss of a token is the mean of a loss for each of its values, against a target at the same
            place, which is zero where the two are equal. Then a token that is there in part is scored by what is there;
            other objectives are refused on such data unless they write `loss_in_part`. What follows from the tokenizer
            is known once it is attached.
    """

    by_value: bool = False

    @abstractmethod
    def width(self, tokenizer: Tokenizer[Any]) -> int:
        """Q, the number of values to predict per token."""

    def attach(self, tokenizer: Tokenizer[Any]) -> None:
        """Called once, when a model is built: what a target must know of a token's layout is kept here.

        Raises ConfigError where this objective can't go with such tokens.
        """

    @abstractmethod
    def target(self, values: Tensor) -> Tensor:
        """(B, M, P) raw float32 values of hidden tokens to (B, M, Q)."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, M, Q) twice, in float32, to a loss per token (B, M)."""

    def loss_in_part(self, prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
        """As `loss`, of tokens of which only `observed` (B, M, P) values are there, where it isn't value by value.

        At the others `prediction` equals `target`, which is that of a token filled with the mean of what is there.
        """
        raise NotImplementedError

    def scores_in_part(self) -> bool:
        """Whether tokens that are there in part can be scored."""
        return self.by_value or type(self).loss_in_part is not Objective.loss_in_part

    def baseline(self, tokenizer: Tokenizer[Any]) -> float | None:
        """The loss of always predicting zero, where it is known beforehand: what a user reads a loss against."""
        return None

    def statistics(self, values: Tensor) -> Tensor | None:
        """What `target` leaves out of raw values (..., P), as (..., R): a patch's mean and spread, say.

        None where the target leaves nothing out. A picture needs these beside a prediction, and must say whose they
        are: the hidden tokens' own (an oracle) or an estimate from visible ones.
        """
        return None

    def to_values(self, prediction: Tensor, statistics: Tensor | None) -> Tensor | None:
        """Predictions (..., Q) as raw values (..., P), given `statistics` (..., R). None where there is no way back."""
        return None


class Sample(TypedDict):
    """One item of a dataset. `id` is unique within its split and the same on every machine.

    `group` names what must stay on one side of a fold: a recording, a field of view, a well. `notes` says in short
    phrases what was converted or left out of this sample when it was read, such as "transparency left out": whoever
    reads samples counts equal phrases and tells each once. `channels` names the signal's channels in order, where its
    file says: pictures of single files show them. `target` is what a task with `takes_target` learns in place of a
    label: int64 class numbers of the places of the signal as it is stored, (*extents) without its channels, -1 where a
    place has none; or floating-point values of any shape. Points are such values, (K, 3): x and y in pixels of the
    stored signal, from its left and upper edge, NaN where a point isn't known, and the number of the point that is its
    mirror image, its own where it has none to change with, -1 where a mirrored signal has no such point. `box` says
    which part of its file a signal shows, (A, 2) float32: where it begins and ends along each axis, in the file's
    pixels.
    """

    signal: Tensor
    id: str | int
    label: NotRequired[int]
    target: NotRequired[Tensor]
    group: NotRequired[str]
    notes: NotRequired[Sequence[str]]
    channels: NotRequired[Sequence[str]]
    box: NotRequired[Tensor]


class SampleDataset(Protocol):
    """A map-style dataset: what `DataSource.open` returns and torch's DataLoader takes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class Fact:
    """One thing a source says of its data as a whole, for people to check before a long run.

    about   what it is of, in a word: "files", "labels", "split", "channels", "time".
    text    the fact with its numbers, such as "46 files: 6 read, 40 .heic ignored".
    notice  whether something was left out, renamed, converted or guessed. A run tells notices in its opening lines and
            keeps them in its report; the rest is for `maskedmodel doctor`.
    """

    about: str
    text: str
    notice: bool = False


class DataSource(Component[S], ABC):
    """Where samples come from."""

    gives_nan: bool = False  # whether NaN in a signal says that a value is absent: for tokenizers that accept it
    read_timeout: float = 300  # seconds that reading one sample may take; 0: no limit. A run's `train.data_timeout`

    @abstractmethod
    def open(self, split: Split) -> SampleDataset:
        """The samples of a split. Reading one may raise DataError, which the run's policy then treats.

        Raises DataError at once, naming path and extensions, where there is nothing to read.
        """

    def class_names(self) -> list[str] | None:
        """What the labels 0, 1, ... mean; None where samples carry no label."""
        return None

    def target_names(self) -> Sequence[str] | None:
        """What the class numbers 0, 1, ... in targets mean, or what their points are called.

        None where targets are other values, or there are none.
        """
        return None

    def channel_names(self) -> Sequence[str] | None:
        """What the channels 0, 1, ... of a signal are called, for pictures; None where nothing says."""
        return None

    def facts(self) -> list[Fact]:
        """What the data was taken for, and what was left out, renamed, converted or guessed. Default: nothing is said.

        Files by kind, channels and their names, labels and splits with their counts and how they were decided, time
        range, step and gaps. Reads no more than `open` does: sizes and value ranges are measured by who reads samples.
        """
        return []

    def resolved(self) -> S:
        """The settings with everything filled in that they leave to be learned from the data, such as channel names.

        A run keeps these, and hands them to other data of the kind, which so means the same by the same number.
        """
        return self.settings

    def read(self, path: Path) -> Sample:
        """One file that a user names, as this source would hold it. Raises DataError where it can't be read."""
        raise DataError(
            f"Data source {self.component_name()!r} can't read single files.",
            where=path,
            fix="Leave the files out: samples of the run's own data are taken.",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether data of this kind lies at `path`: then `path` is a setting of the source, and enough to open it."""
        return False
