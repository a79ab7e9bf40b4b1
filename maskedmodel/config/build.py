"""The components that a config names, built."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskedmodel.callbacks import Callback
from maskedmodel.components import DataSource, Objective, Settings, Tokenizer
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.errors import ConfigError, DependencyError, MaskedModelError, PluginError, shown
from maskedmodel.limits import limit_single_reads
from maskedmodel.noise import seeded, stable_hash
from maskedmodel.plugins import Kind, Registry, label
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tasks import Task

log = logging.getLogger("maskedmodel")
_KIND_OF: Mapping[str, Kind] = {**RunConfig.components, **FinetuneConfig.components}


@dataclass(frozen=True)
class Components:
    """The four components of a run."""

    tokenizer: Tokenizer[Any]
    scheduler: MaskScheduler[Any]
    objective: Objective[Any]
    source: DataSource[Any]


def build_components(config: RunConfig, registry: Registry) -> Components:
    """Build the components that the config names.

    What one draws from torch's generator as it is built, such as weights of its own, follows from `train.seed` and its
    section alone.

    What a component refuses keeps its error class and says which section of the config it belongs to. Any other
    exception becomes a PluginError, an ImportError a DependencyError. Raises ConfigError where tokenizer and data give
    different values to what they share, such as a sample rate, and where the data have NaN that the tokenizer refuses
    or the objective can't score.
    """
    source, seed = source_of(config, registry), config.train.seed
    parts = Components(
        tokenizer=component("tokenizer", config.tokenizer, registry, seed),
        scheduler=component("mask", config.mask, registry, seed),
        objective=component("objective", config.objective, registry, seed),
        source=source,
    )
    _agree_on_absence(parts.tokenizer, parts.source, registry)
    _scores_in_part(parts)
    _agree_on_names(parts.tokenizer, parts.source)
    return parts


def source_of(config: Trained, registry: Registry) -> DataSource[Any]:
    """The data source that the config names. Raises as `build_components`."""
    if config.data is None:
        raise ConfigError(
            "The run has no data of its own: its weights were imported.",
            where="data",
            fix="Name files or data to use, such as data.name=image_folder data.path=FOLDER.",
        )
    _agree(config.tokenizer, config.data, registry)
    return own_source(config, config.data, registry)


def own_source(config: Trained, data: Settings, registry: Registry) -> DataSource[Any]:
    """A data source with settings of its own that is read as the config says. Raises as `build_components`."""
    source: DataSource[Any] = component("data", data, registry, config.train.seed)
    source.read_timeout = config.train.data_timeout
    limit_single_reads(config.train.data_timeout)
    return source


@dataclass(frozen=True)
class FinetuneComponents:
    """The components of a fine-tuning run; no `scheduler` where nothing is hidden, no `source` for a model alone."""

    tokenizer: Tokenizer[Any]
    task: Task[Any]
    scheduler: MaskScheduler[Any] | None
    source: DataSource[Any] | None


def build_finetune(config: FinetuneConfig, registry: Registry) -> FinetuneComponents:
    """As `build_components`, for a fine-tuning run. Raises ConfigError, too, where data carry no labels."""
    source, seed = source_of(config, registry), config.train.seed
    parts = FinetuneComponents(
        tokenizer=component("tokenizer", config.tokenizer, registry, seed),
        task=component("task", config.task, registry, seed),
        scheduler=None if config.mask is None else component("mask", config.mask, registry, seed),
        source=source,
    )
    _agree_on_absence(parts.tokenizer, source, registry)
    _agree_on_names(parts.tokenizer, source)
    return parts


def _agree_on_absence(tokenizer: Tokenizer[Any], source: DataSource[Any], registry: Registry) -> None:
    """What one calls absent is a broken sample to the other, which a run would meet sample by sample."""
    if source.gives_nan and not tokenizer.accepts_nan:
        takes = [name for name, cls in sorted(registry.tokenizers.items()) if cls.accepts_nan is True]
        raise ConfigError(
            f"The data source {source.settings.name!r} gives NaN where a value is absent, and the tokenizer "
            f"{tokenizer.settings.name!r} takes none.",
            where="data.name, tokenizer.name",
            expected=f"a tokenizer with accepts_nan = True{': ' if takes else ''}{', '.join(takes)}",
            got=f"gives_nan = True in {type(source).__name__}, accepts_nan = False in {type(tokenizer).__name__}",
            fix="Choose another tokenizer, or other data. In a class of your own set accepts_nan = True: "
            "a GridTokenizer then leaves absent values out by itself.",
        )


def _scores_in_part(parts: Components) -> None:
    """Where values may be absent within a token, the objective must tell what one value costs."""
    if not parts.source.gives_nan or parts.tokenizer.token_width == 1:
        return
    objective = copy.deepcopy(parts.objective)  # whether it is value by value may follow from the tokenizer
    objective.attach(parts.tokenizer)
    if not objective.scores_in_part():
        raise ConfigError(
            f"The data source {parts.source.settings.name!r} gives NaN where a value is absent, and the objective "
            f"{objective.settings.name!r} can't score tokens that are there in part.",
            where="data.name, objective",
            expected="an objective with by_value = True under these settings, such as patch",
            got=f"by_value = False in {type(objective).__name__}",
            fix="Choose another objective, or other data. In a class of your own set by_value = True where the loss of "
            "a token is the mean of a loss for each of its values: `maskedmodel plugins check` tries it.",
        )


def _agree_on_names(tokenizer: Tokenizer[Any], source: DataSource[Any] | None) -> None:
    """A channel that is described as another one trains without an error, so the names of both are compared."""
    named = tuple(tokenizer.described_names)
    given = tuple(source.channel_names() or ()) if named and source is not None else ()
    if given and given[: len(named)] != named:
        raise ConfigError(
            "The data's channels have other names than those that the tokenizer describes, or another order.",
            where="tokenizer",
            expected=", ".join(given),
            got=", ".join(named),
            fix="Give both the same names in the same order.",
        )


def _agree(tokenizer: Settings, data: Settings, registry: Registry) -> None:
    """A signal that is taken for another one trains without an error, so what both are told is compared."""
    for name in registry.get("tokenizer", tokenizer.name).shared_with_data:
        cut, given = getattr(tokenizer, name), getattr(data, name, None)
        if given is not None and given != cut:
            cut, given = (f"[{', '.join(map(str, v))}]" if isinstance(v, tuple) else v for v in (cut, given))
            raise ConfigError(
                f"The data come with another {name} than the tokenizer takes them to have.",
                where=f"data.{name}, tokenizer.{name}",
                expected=f"one value; the tokenizer's is {cut}",
                got=f"{given} in the data",
                fix=f"Set data.{name}={cut}, or tokenizer.{name}={given}.",
            )


@dataclass(frozen=True)
class Listed:
    """A callback as a config lists it. Of one that isn't `needed` whatever keeps it from starting is told, no more."""

    where: str
    callback: Callback[Any]
    needed: bool = True


def build_callbacks(config: Trained, registry: Registry) -> tuple[Listed, ...]:
    """The callbacks of a run, those of `train.trackers` behind them that aren't listed already.

    Raises as `build_components`; a tracker that can't be built is told and left out.
    """
    places = [(f"callbacks[{number}]", settings) for number, settings in enumerate(config.callbacks)]
    found = [
        Listed(place, component(place, settings, registry, config.train.seed, "callback")) for place, settings in places
    ]
    for name in dict.fromkeys(config.train.trackers):
        if name in [settings.name for settings in config.callbacks]:
            continue
        try:
            settings = registry.get("callback", name).settings_class()
            tracker = component("train.trackers", settings, registry, config.train.seed, "callback")
        except MaskedModelError as error:
            log.warning("Tracker %s can't start and is left out (%s)", name, error.what)
        else:
            found.append(Listed("train.trackers", tracker, needed=False))
    return tuple(found)


def component(section: str, settings: Settings, registry: Registry, seed: int = 0, kind: Kind | None = None) -> Any:
    """The component of a section of the config, its errors told with the section. Raises as `build_components`.

    What it draws as it is built follows from the `seed`. `kind` is needed where the section alone doesn't say it.
    """
    kind = _KIND_OF[section] if kind is None else kind
    where = f"{section}: {shown(settings.model_dump(mode='json', include=settings.model_fields_set | {'name'}), 300)}"
    try:
        with seeded(stable_hash(f"{seed}/{section}")):
            return registry.build(kind, settings)
    except MaskedModelError as error:
        place = where if error.where is None else f"{error.where}, in {where}"
        told = type(error)(error.what, where=place, expected=error.expected, got=error.got, fix=error.fix)
        raise told from error
    except ImportError as error:
        what = f"The {label(kind)} {settings.name!r} needs a package that can't be imported: {error}."
        fix = "Install that package, with uv pip install or pip install."
        raise DependencyError(what, where=where, fix=fix) from error
    except Exception as error:  # raised again as the plugin's
        what = f"The {label(kind)} {settings.name!r} failed while it was built: {type(error).__name__}: {error}"
        raise PluginError(what, where=where, fix="This is a fault of the plugin; --debug shows where.") from error
