"""Discovery of plugins: every entry point of the group `maskedmodel`, each on its own, into one Registry.

A broken plugin never stops the others. What went wrong is kept as a `Failure`, shown by `maskedmodel plugins`, and
named again when a component is asked for that it may have provided.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points as installed_entry_points
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pluggy

from maskedmodel.components import Component, DataSource, Objective, Settings, Tokenizer
from maskedmodel.errors import MaskedModelError, PluginError, nearest, suggestion
from maskedmodel.hookspecs import PROJECT, Hooks
from maskedmodel.schedulers import MaskScheduler

ALLOW_VARIABLE = "MASKEDMODEL_PLUGINS"
BLOCK_VARIABLE = "MASKEDMODEL_BLOCK_PLUGINS"

Kind = Literal["tokenizer", "mask_scheduler", "objective", "data_source"]
KINDS: Mapping[Kind, type[Component[Any]]] = MappingProxyType(
    {"tokenizer": Tokenizer, "mask_scheduler": MaskScheduler, "objective": Objective, "data_source": DataSource}
)
_HOOKS: Mapping[str, Kind] = MappingProxyType({f"{PROJECT}_{kind}s": kind for kind in KINDS})


def label(kind: Kind) -> str:
    """The kind in words: `mask scheduler`."""
    return kind.replace("_", " ")


@dataclass(frozen=True)
class Failure:
    """Why a plugin, or a part of it, can't be used.

    `lost` names the components that are missing for this reason, where it is known which.
    """

    plugin: str
    distribution: str
    version: str
    reason: str
    lost: tuple[tuple[Kind, str], ...] = ()

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True)
class Plugin:
    """A plugin that was imported, with the names of the components it provides, by kind."""

    name: str
    distribution: str
    version: str
    components: Mapping[Kind, tuple[str, ...]]


@dataclass(frozen=True)
class Registry:
    """The components at hand, by kind and name. A value: two registries may live side by side.

    `blocked` holds the entry points that the allow and block lists kept out.
    """

    tokenizers: Mapping[str, type[Tokenizer[Any]]] = field(default_factory=dict)
    mask_schedulers: Mapping[str, type[MaskScheduler[Any]]] = field(default_factory=dict)
    objectives: Mapping[str, type[Objective[Any]]] = field(default_factory=dict)
    data_sources: Mapping[str, type[DataSource[Any]]] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    failures: tuple[Failure, ...] = ()
    blocked: tuple[str, ...] = ()

    def of(self, kind: Kind) -> Mapping[str, type[Component[Any]]]:
        """All components of a kind, by name."""
        found: Mapping[str, type[Component[Any]]] = getattr(self, f"{kind}s")
        return found

    def get(self, kind: Kind, name: str) -> type[Any]:
        """The component class of this name. Raises PluginError with the nearest name, all names and likely causes."""
        known = self.of(kind)
        if name in known:
            return known[name]
        raise PluginError(
            f"There is no {label(kind)} {name!r}.",
            expected=f"one of: {', '.join(sorted(known))}" if known else f"a plugin that provides a {label(kind)}",
            fix=self.advice(kind, name),
        )

    def advice(self, kind: Kind, name: str) -> str:
        """What to do about an unknown name: the reason it is missing where that is known, else the likely ones."""
        known = [f"{failure}" for failure in self.failures if (kind, name) in failure.lost]
        if known:
            return "; ".join(known)
        match = nearest(name, self.of(kind))
        parts = [f"Did you mean {match!r}?"] if match else []
        broken = [f"{failure}" for failure in self.failures if not failure.lost]
        if broken:
            parts.append(f"It may belong to what couldn't be loaded: {'; '.join(broken)}")
        if self.blocked:
            names = ", ".join(self.blocked)
            parts.append(f"Plugins kept out by {ALLOW_VARIABLE} or {BLOCK_VARIABLE}: {names}.")
        return " ".join(parts) or "Install the plugin that provides it; `maskedmodel plugins` lists what there is."

    def build(self, kind: Kind, settings: Settings) -> Any:
        """The component that these settings name, built from them."""
        return self.get(kind, settings.name)(settings)


def load_registry(
    *,
    strict: bool = False,
    allow: Iterable[str] | None = None,
    block: Iterable[str] | None = None,
    entry_points: Iterable[EntryPoint] | None = None,
) -> Registry:
    """Import the installed plugins and collect their components.

    `allow` and `block` are names of entry points; where they aren't given the comma-separated environment variables
    MASKEDMODEL_PLUGINS and MASKEDMODEL_BLOCK_PLUGINS are read (empty counts as not set). A component name with two
    owners is given to neither. Raises PluginError on an unknown name in the allow list, and where `strict` on the
    first failure.
    """
    found = installed_entry_points(group=PROJECT) if entry_points is None else entry_points
    points = sorted(found, key=lambda point: (point.name, _distribution(point)))
    wanted, blocked = _selection({point.name for point in points}, allow, block)
    chosen = [point for point in points if point.name in wanted and point.name not in blocked]
    collector = _Collector(strict)
    for name in dict.fromkeys(point.name for point in chosen):
        owners = [point for point in chosen if point.name == name]
        if len(owners) == 1:
            collector.load(owners[0])
        else:
            where = " and ".join(f"{_distribution(point)} {_version(point)}" for point in owners)
            collector.fail(owners[-1], f"{where} both have a plugin of this name, so neither is used; uninstall one")
    return collector.registry(tuple(dict.fromkeys(p.name for p in points if p not in chosen)))


def _selection(
    installed: set[str], allow: Iterable[str] | None, block: Iterable[str] | None
) -> tuple[set[str], set[str]]:
    allow = _listed(ALLOW_VARIABLE) if allow is None else list(allow)
    block = _listed(BLOCK_VARIABLE) if block is None else list(block)
    for name in allow or ():
        if name not in installed:
            raise PluginError(
                f"The list of allowed plugins names {name!r}, which isn't installed.",
                where=ALLOW_VARIABLE,
                fix=suggestion(name, installed),
            )
    return installed if allow is None else set(allow), set(block or ())


def _listed(variable: str) -> list[str] | None:
    names = [name.strip() for name in os.environ.get(variable, "").split(",")]
    return [name for name in names if name] or None


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown distribution"


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist is not None else "unknown version"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MaskedModelError) else f"{type(error).__name__}: {text}"


@dataclass
class _Collector:
    """Gathers offers (kind, name, class, entry point) and failures, one plugin after another."""

    strict: bool
    offers: list[tuple[Kind, str, type[Any], EntryPoint]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    loaded: list[EntryPoint] = field(default_factory=list)

    def fail(
        self,
        point: EntryPoint,
        reason: str,
        cause: BaseException | None = None,
        lost: tuple[tuple[Kind, str], ...] = (),
    ) -> None:
        failure = Failure(point.name, _distribution(point), _version(point), reason, lost)
        self.failures.append(failure)
        if self.strict:
            raise PluginError(f"Broken: {failure}.", fix="Repair, uninstall or block it.") from cause

    def attempt(self, point: EntryPoint, doing: str, action: Callable[[], Any]) -> Any:
        """What `action` returns, or None after a recorded failure. A plugin may fail in any way, even by exiting."""
        try:
            return action()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and raised again where strict
            self.fail(point, f"{doing} failed: {_one_line(error)}", error)
            return None

    def load(self, point: EntryPoint) -> None:
        implementations = self.attempt(point, f"importing {point.value}", lambda: dict(_implementations(point.load())))
        if implementations is None:
            return
        self.loaded.append(point)
        if not implementations:
            self.fail(point, f"{point.value} implements no hook; expected one of {', '.join(_HOOKS)} with @hookimpl")
        for hook, function in implementations.items():
            if hook not in _HOOKS:
                self.fail(point, f"unknown hook {hook}. {suggestion(hook, _HOOKS)}")
                continue
            results = self.attempt(point, f"calling {hook}", partial(_call, hook, function))
            if results is not None:
                self.take(point, hook, results)

    def take(self, point: EntryPoint, hook: str, results: list[object]) -> None:
        """`results` is what pluggy hands back: one answer, or none where the hook returned None."""
        classes, kind = results[0] if results else None, _HOOKS[hook]
        if not isinstance(classes, Sequence) or isinstance(classes, str):
            self.fail(point, f"{hook} must return a list of {label(kind)} classes, got {classes!r}")
            return
        for cls in classes:
            name = self.attempt(point, f"reading a class of {hook}", partial(_checked_name, kind, cls))
            if name is not None:
                self.offers.append((kind, name, cls, point))

    def registry(self, blocked: tuple[str, ...]) -> Registry:
        classes: dict[Kind, dict[str, type[Any]]] = {kind: {} for kind in KINDS}
        for kind, name in dict.fromkeys((kind, name) for kind, name, _, _ in self.offers):
            rivals = [(cls, point) for k, n, cls, point in self.offers if (k, n) == (kind, name)]
            if len(rivals) == 1:
                classes[kind][name] = rivals[0][0]
                continue
            where = " and ".join(f"plugin {p.name!r} of {_distribution(p)} {_version(p)}" for _, p in rivals)
            reason = f"the {label(kind)} {name!r} is provided by {where}, so none is used; block or uninstall one"
            self.fail(rivals[-1][1], reason, lost=((kind, name),))
        return Registry(
            **{f"{kind}s": MappingProxyType(found) for kind, found in classes.items()},
            plugins=tuple(self.plugin(point, classes) for point in self.loaded),
            failures=tuple(self.failures),
            blocked=blocked,
        )

    def plugin(self, point: EntryPoint, classes: Mapping[Kind, Mapping[str, type[Any]]]) -> Plugin:
        own = [(kind, name) for kind, name, cls, p in self.offers if p is point and classes[kind].get(name) is cls]
        components = {kind: tuple(sorted(name for k, name in own if k == kind)) for kind in KINDS}
        used = {kind: names for kind, names in components.items() if names}
        return Plugin(point.name, _distribution(point), _version(point), MappingProxyType(used))


def _implementations(module: object) -> Iterator[tuple[str, Callable[..., object]]]:
    """The functions that the plugin marked with `hookimpl`, under the name of the hook they implement."""
    manager = pluggy.PluginManager(PROJECT)
    for attribute in dir(module):
        options = manager.parse_hookimpl_opts(module, attribute)
        if options is not None:
            yield options.get("specname") or attribute, getattr(module, attribute)


def _call(hook: str, function: Callable[..., object]) -> list[object]:
    """Let pluggy check one implementation against its specification, and call it alone."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(SimpleNamespace(**{hook: function}))
    results: list[object] = getattr(manager.hook, hook)()
    return results


def _checked_name(kind: Kind, cls: object) -> str:
    base = KINDS[kind]
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise PluginError(f"{cls!r} is no {label(kind)}.", expected=f"a subclass of maskedmodel.{base.__name__}")
    name = cls.component_name()
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise PluginError(
            f"The {label(kind)} {name!r} ({cls.__qualname__}) is unfinished.", expected=f"definitions of {missing}"
        )
    annotation = cls.settings_class.model_fields["name"].annotation
    if get_origin(annotation) is not Literal or get_args(annotation) != (name,):
        raise PluginError(
            f"The settings of the {label(kind)} {name!r} don't fix their name.",
            expected=f'name: Literal["{name}"] = "{name}"',
            got=f"name: {annotation}",
        )
    return name
