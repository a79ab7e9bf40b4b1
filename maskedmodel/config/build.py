"""The components that a config names, built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskedmodel.components import DataSource, Objective, Settings, Tokenizer
from maskedmodel.config.errors import shown
from maskedmodel.config.sections import SECTIONS, RunConfig
from maskedmodel.errors import ConfigError, DependencyError, MaskedModelError, PluginError
from maskedmodel.noise import seeded, stable_hash
from maskedmodel.plugins import Registry, label
from maskedmodel.schedulers import MaskScheduler


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
    different values to what they share, such as a sample rate, and where the data have NaN that the tokenizer refuses.
    """
    if config.data is None:
        raise ConfigError(
            "The run has no data of its own: its weights were imported.",
            where="data",
            fix="Name files or data to use, or write a config with a data section.",
        )
    _agree(config.tokenizer, config.data, registry)
    parts = Components(
        tokenizer=_build("tokenizer", config.tokenizer, registry, config.train.seed),
        scheduler=_build("mask", config.mask, registry, config.train.seed),
        objective=_build("objective", config.objective, registry, config.train.seed),
        source=_build("data", config.data, registry, config.train.seed),
    )
    _agree_on_absence(parts, registry)
    return parts


def _agree_on_absence(parts: Components, registry: Registry) -> None:
    """What one calls absent is a broken sample to the other, which a run would meet sample by sample."""
    if parts.source.gives_nan and not parts.tokenizer.accepts_nan:
        takes = [name for name, cls in sorted(registry.tokenizers.items()) if cls.accepts_nan is True]
        raise ConfigError(
            f"The data source {parts.source.settings.name!r} gives NaN where a value is absent, and the tokenizer "
            f"{parts.tokenizer.settings.name!r} takes none.",
            where="data.name, tokenizer.name",
            expected=f"a tokenizer with accepts_nan = True{': ' if takes else ''}{', '.join(takes)}",
            got=f"gives_nan = True in {type(parts.source).__name__}, "
            f"accepts_nan = False in {type(parts.tokenizer).__name__}",
            fix="Choose another tokenizer, or other data. In a class of your own set accepts_nan = True: "
            "a GridTokenizer then leaves absent values out by itself.",
        )


def _agree(tokenizer: Settings, data: Settings, registry: Registry) -> None:
    """A signal that is taken for another one trains without an error, so what both are told is compared."""
    for name in registry.get(SECTIONS["tokenizer"], tokenizer.name).shared_with_data:
        cut, given = getattr(tokenizer, name), getattr(data, name, None)
        if given is not None and given != cut:
            raise ConfigError(
                f"The data come with another {name} than the tokenizer takes them to have.",
                where=f"data.{name}, tokenizer.{name}",
                expected=f"one value; the tokenizer's is {cut}",
                got=f"{given} in the data",
                fix=f"Set data.{name}={cut}, or tokenizer.{name}={given}.",
            )


def _build(section: str, settings: Settings, registry: Registry, seed: int) -> Any:
    kind = SECTIONS[section]
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
