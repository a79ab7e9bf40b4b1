"""Discovery of plugins: every entry point of the group `maskedmodel`, each on its own, into one Registry.

A broken plugin never stops the others. What went wrong is kept as a `Failure`, shown by `maskedmodel plugins`, and
named again when a component is asked for that it may have provided.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pluggy

from maskedmodel.callbacks import Callback
from maskedmodel.components import Component, DataSource, Objective, Settings, Tokenizer
from maskedmodel.errors import MaskedModelError, PluginError, nearest, suggestion
from maskedmodel.hookspecs import Hooks
from maskedmodel.installed import (
    ALLOW_VARIABLE,
    BLOCK_VARIABLE,
    PROJECT,
    Announced,
    Failure,
    Kind,
    Selection,
    announced,
    distribution_of,
    installed,
)
from maskedmodel.qualified import qualified
from maskedmodel.schedulers import MaskScheduler
from maskedmodel.tasks import Task

__all__ = ["KINDS", "Failure", "Kind", "Plugin", "Registry", "label", "load_registry", "registry_at_hand", "using"]

KINDS: Mapping[Kind, type[Component[Any]]] = MappingProxyType(
    {
        "tokenizer": Tokenizer,
        "mask_scheduler": MaskScheduler,
        "objective": Objective,
        "data_source": DataSource,
        "task": Task,
        "callback": Callback,
    }
)
_HOOKS: Mapping[str, Kind] = MappingProxyType({f"{PROJECT}_{kind}s": kind for kind in KINDS})


def label(kind: Kind) -> str:
    """The kind in words: `mask scheduler`."""
    return kind.replace("_", " ")


@dataclass(frozen=True)
class Plugin:
    """A plugin that was imported, with the names by which its components are addressed, by kind."""

    name: str
    distribution: str
    version: str
    components: Mapping[Kind, tuple[str, ...]]


@dataclass(frozen=True)
class Registry:
    """The components at hand, by kind and name. A value: two registries may live side by side.

    A component whose name a built-in one has, or that of another plugin too, stands here as `plugin:name`. `blocked`
    holds the plugins that the allow and block lists kept out.
    """

    tokenizers: Mapping[str, type[Tokenizer[Any]]] = field(default_factory=dict)
    mask_schedulers: Mapping[str, type[MaskScheduler[Any]]] = field(default_factory=dict)
    objectives: Mapping[str, type[Objective[Any]]] = field(default_factory=dict)
    data_sources: Mapping[str, type[DataSource[Any]]] = field(default_factory=dict)
    tasks: Mapping[str, type[Task[Any]]] = field(default_factory=dict)
    callbacks: Mapping[str, type[Callback[Any]]] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    failures: tuple[Failure, ...] = ()
    blocked: tuple[str, ...] = ()

    def of(self, kind: Kind) -> Mapping[str, type[Component[Any]]]:
        """All components of a kind, by name."""
        found: Mapping[str, type[Component[Any]]] = getattr(self, f"{kind}s")
        return found

    def canonical(self, kind: Kind, name: str) -> str:
        """The name by which `of` has a component: `plugin:name` is `name` where that belongs to this plugin alone."""
        plugin, colon, own = name.partition(":")
        if not colon or name in self.of(kind):
            return name
        owned = any(own in each.components.get(kind, ()) for each in self.plugins if each.name == plugin)
        return own if owned else name

    def get(self, kind: Kind, name: str) -> type[Any]:
        """The component class of this name. Raises PluginError with the nearest name, all names and likely causes."""
        known, name = self.of(kind), self.canonical(kind, name)
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
        broken = [f"{failure}" for failure in self.failures if not failure.lost and not failure.clash]
        if broken:
            parts.append(f"It may belong to what couldn't be loaded: {'; '.join(broken)}")
        if self.blocked:
            names = ", ".join(self.blocked)
            parts.append(f"Plugins kept out by {ALLOW_VARIABLE} or {BLOCK_VARIABLE}: {names}.")
        return " ".join(parts) or "Install the plugin that provides it; `maskedmodel plugins` lists what there is."

    def build(self, kind: Kind, settings: Settings) -> Any:
        """The component that these settings name, built from them; so are those that they hold."""
        with using(self):
            return self.get(kind, settings.name)(settings)


_at_hand: ContextVar[Registry | None] = ContextVar("registry", default=None)
_loading: ContextVar[bool] = ContextVar("loading", default=False)


@contextmanager
def using(registry: Registry) -> Iterator[None]:
    """Inside, components that are named by settings of others come from this registry."""
    token = _at_hand.set(registry)
    try:
        yield
    finally:
        _at_hand.reset(token)


def registry_at_hand() -> Registry:
    """The registry that is in use; elsewhere the installed plugins, read anew where those changed."""
    given = _at_hand.get()
    if given is not None:
        return given
    if _loading.get():
        raise PluginError(
            "A plugin names a component while plugins are imported, before it is known which there are.",
            fix="Give such a default as a mapping, default={'name': ...} with validate_default=True.",
        )
    points = tuple((point.name, point.value, distribution_of(point)) for point in installed(PROJECT)[0])
    return _installed(points, Selection.of())


@lru_cache(maxsize=1)
def _installed(points: tuple[tuple[str, str, str], ...], selection: Selection) -> Registry:
    return load_registry()


def load_registry(
    *,
    strict: bool = False,
    allow: Iterable[str] | None = None,
    block: Iterable[str] | None = None,
    entry_points: Iterable[EntryPoint] | None = None,
) -> Registry:
    """Import the installed plugins and collect their components.

    `allow` and `block` are names of plugins; where they aren't given the comma-separated environment variables
    MASKEDMODEL_PLUGINS and MASKEDMODEL_BLOCK_PLUGINS are read (empty counts as not set). Of a component name with two
    owners a built-in one keeps it; others are found as `plugin:name`. Raises PluginError on an unknown name in the
    allow list, and where `strict` on the first failure.
    """
    points, damaged = installed(PROJECT) if entry_points is None else (list(entry_points), [])
    plugins, clashes = announced(points)
    selection = Selection.of(allow, block)
    chosen = list(selection.of_plugins(plugins))
    collector = _Collector(strict)
    for failure in [*damaged, *(clash for clash in clashes if selection.takes(clash.plugin))]:
        collector.record(failure)
    token = _loading.set(True)
    try:
        for plugin in chosen:
            collector.load(plugin)
    finally:
        _loading.reset(token)
    return collector.registry(tuple(plugin.name for plugin in plugins if plugin not in chosen))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MaskedModelError) else f"{type(error).__name__}: {text}"


@dataclass
class _Collector:
    """Gathers offers (kind, name, class, plugin) and failures, one plugin after another."""

    strict: bool
    offers: list[tuple[Kind, str, type[Any], Announced]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    loaded: list[Announced] = field(default_factory=list)

    def record(self, failure: Failure, cause: BaseException | None = None) -> None:
        self.failures.append(failure)
        if self.strict:
            fix = "Rename, uninstall or block one." if failure.clash else "Repair, uninstall or block it."
            raise PluginError(f"Broken: {failure}.", fix=fix) from cause

    def fail(self, plugin: Announced, reason: str, cause: BaseException | None = None) -> None:
        self.record(plugin.failure(reason), cause)

    def attempt(self, plugin: Announced, doing: str, action: Callable[[], Any]) -> Any:
        """What `action` returns, or None after a recorded failure. A plugin may fail in any way, even by exiting."""
        try:
            return action()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and raised again where strict
            self.fail(plugin, f"{doing} failed: {_one_line(error)}", error)
            return None

    def load(self, plugin: Announced) -> None:
        implementations = self.attempt(
            plugin, f"importing {plugin.point.value}", lambda: dict(_implementations(plugin.point.load()))
        )
        if implementations is None:
            return
        self.loaded.append(plugin)
        if not implementations:
            self.fail(
                plugin, f"{plugin.point.value} implements no hook; expected one of {', '.join(_HOOKS)} with @hookimpl"
            )
        for hook, function in implementations.items():
            if hook not in _HOOKS:
                self.fail(plugin, f"unknown hook {hook}. {suggestion(hook, _HOOKS)}")
                continue
            results = self.attempt(plugin, f"calling {hook}", partial(_call, hook, function))
            if results is not None:
                self.take(plugin, hook, results)

    def take(self, plugin: Announced, hook: str, results: list[object]) -> None:
        """`results` is what pluggy hands back: one answer, or none where the hook returned None."""
        classes, kind = results[0] if results else None, _HOOKS[hook]
        if not isinstance(classes, Sequence) or isinstance(classes, str):
            self.fail(plugin, f"{hook} must return a list of {label(kind)} classes, got {classes!r}")
            return
        for cls in classes:
            name = self.attempt(plugin, f"reading a class of {hook}", partial(_checked_name, kind, cls))
            if name is not None:
                self.offers.append((kind, name, cls, plugin))

    def registry(self, blocked: tuple[str, ...]) -> Registry:
        classes: dict[Kind, dict[str, type[Any]]] = {kind: {} for kind in KINDS}
        owners: dict[tuple[Kind, str], Announced] = {}
        for kind, name in dict.fromkeys((kind, name) for kind, name, _, _ in self.offers):
            rivals = [(cls, plugin) for k, n, cls, plugin in self.offers if (k, n) == (kind, name)]
            for address, (cls, plugin) in self.addressed(kind, name, rivals).items():
                classes[kind][address], owners[kind, address] = cls, plugin
        return Registry(
            **{f"{kind}s": MappingProxyType(found) for kind, found in classes.items()},
            plugins=tuple(_plugin(plugin, owners) for plugin in self.loaded),
            failures=tuple(self.failures),
            blocked=blocked,
        )

    def addressed(
        self, kind: Kind, name: str, rivals: Sequence[tuple[type[Any], Announced]]
    ) -> dict[str, tuple[type[Any], Announced]]:
        """The classes that give one name, by the names under which they are to be had."""
        if len(rivals) == 1:
            return {name: rivals[0]}
        where = " and ".join(f"{plugin}" for _, plugin in rivals)
        what = f"the {label(kind)} {name!r} is provided by {where}"
        built_in = [rival for rival in rivals if rival[1].built_in]
        found = {name: built_in[0]} if len(built_in) == 1 else {}
        lost: tuple[tuple[Kind, str], ...] = () if found else ((kind, name),)
        others = [rival for rival in rivals if rival not in found.values()]
        for cls, plugin in others:
            if sum(other is plugin for _, other in others) > 1:
                self.record(plugin.failure(f"{what}, so none of these is used; rename one", lost))
                return found
            found[f"{plugin.name}:{name}"] = (qualified(cls, plugin.name), plugin)
        addresses = " and ".join(repr(address) for address in found if address != name)
        told = f"write {addresses}" if lost else f"{name!r} is the built-in one, {addresses} the other"
        self.record(others[-1][1].failure(f"{what}: {told}", lost, clash=True))
        return found


def _plugin(plugin: Announced, owners: Mapping[tuple[Kind, str], Announced]) -> Plugin:
    own = [(kind, name) for (kind, name), owner in owners.items() if owner is plugin]
    components = {kind: tuple(sorted(name for k, name in own if k == kind)) for kind in KINDS}
    used = {kind: names for kind, names in components.items() if names}
    return Plugin(plugin.name, plugin.distribution, plugin.version, MappingProxyType(used))


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
