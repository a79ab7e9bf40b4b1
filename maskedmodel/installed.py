"""The plugins that are installed, read from metadata alone: no plugin is imported, and no torch.

Distributions are read one by one where one of them is damaged, so that its fault is named and the others stay.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, EntryPoints, distributions, entry_points
from typing import Any, Literal

from maskedmodel.errors import PluginError, suggestion

PROJECT = "maskedmodel"  # the distribution, and the group of entry points that name plugins
ALLOW_VARIABLE = "MASKEDMODEL_PLUGINS"
BLOCK_VARIABLE = "MASKEDMODEL_BLOCK_PLUGINS"

Kind = Literal["tokenizer", "mask_scheduler", "objective", "data_source", "task", "callback"]


@dataclass(frozen=True)
class Failure:
    """Why a plugin, or a part of it, can't be used, or not by the name that it gives.

    lost   the components that are missing for this reason, where it is known which.
    clash  whether nothing is broken: two plugins give one name, and `reason` says what each is called.
    """

    plugin: str
    distribution: str
    version: str
    reason: str
    lost: tuple[tuple[Kind, str], ...] = ()
    clash: bool = False

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}: {self.reason}"

    @property
    def notice(self) -> str:
        """One line for a run to begin with."""
        return f"{'A name is given twice' if self.clash else 'Plugin left out'}: {self}"


@dataclass(frozen=True)
class Announced:
    """A plugin as its metadata announces it: `name` is what it is called here, `point` its entry point."""

    name: str
    point: EntryPoint

    @property
    def distribution(self) -> str:
        return distribution_of(self.point)

    @property
    def version(self) -> str:
        return (self.point.dist.version if self.point.dist is not None else None) or "unknown version"

    @property
    def built_in(self) -> bool:
        """Whether it comes with this project."""
        return self.distribution == PROJECT

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}"

    def failure(
        self, reason: str, lost: tuple[tuple[Kind, str], ...] = (), clash: bool = False, name: str | None = None
    ) -> Failure:
        """A failure of this plugin."""
        return Failure(name or self.name, self.distribution, self.version, reason, lost, clash)


def distribution_of(point: EntryPoint) -> str:
    """The name of the distribution that an entry point comes from."""
    return (point.dist.name if point.dist is not None else None) or "unknown distribution"


def installed(group: str) -> tuple[list[EntryPoint], list[Failure]]:
    """The entry points of a group, and the distributions whose entry points can't be read."""
    failures: list[Failure] = []
    try:
        found = list(entry_points(group=group))
    except Exception:  # noqa: BLE001 - the one that is damaged is found, and told, below
        found, failures = _one_by_one(group)
    usable = []
    for point in found:
        if point.pattern.match(point.value) is not None:
            usable.append(point)
        else:
            reason = f"its entry point is {point.value!r}, which names no module; mend it or reinstall the distribution"
            failures.append(Announced(point.name, point).failure(reason))
    return usable, failures


def _one_by_one(group: str | None) -> tuple[list[EntryPoint], list[Failure]]:
    found: list[EntryPoint] = []
    failures: list[Failure] = []
    seen: set[str] = set()
    for distribution in distributions():
        name, version = _title(distribution)
        normal = re.sub(r"[-_.]+", "-", name).lower()
        if normal in seen:  # an older copy further down the path
            continue
        seen.add(normal)
        try:
            own = distribution.entry_points
            found += own if group is None else own.select(group=group)
        except Exception as error:  # noqa: BLE001 - recorded as what is wrong with this distribution
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            reason = f"its entry_points.txt can't be read ({text}); reinstall or uninstall {name}"
            failures.append(Failure(name, name, version, reason))
    return found, failures


def spare_others() -> None:
    """From now on a damaged distribution stops nobody in this process who asks for entry points.

    torch and pydantic ask for some as they are imported, and would end every command with an error of
    importlib.metadata. To be called before them, and only in a process that is this project's own.
    """

    def tolerant(**wanted: Any) -> Any:
        try:
            return entry_points(**wanted)
        except Exception:  # noqa: BLE001 - `installed` tells which one it is
            return EntryPoints(_one_by_one(wanted.pop("group", None))[0]).select(**wanted)

    importlib.metadata.entry_points = tolerant


def _title(distribution: Distribution) -> tuple[str, str]:
    name: str | None
    version: str | None
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
    except Exception:  # noqa: BLE001 - metadata may be damaged in any way; the distribution is named by its place
        name = version = None
    return name or f"without a name in {distribution.locate_file('')}", version or "unknown version"


def announced(points: Iterable[EntryPoint]) -> tuple[list[Announced], list[Failure]]:
    """The plugins behind entry points, in order of their names, each with a name of its own.

    Where two give one name a built-in one keeps it, and others are called by the name of their distribution. Of two
    that name one module Python imports only one, so the second is left out.
    """
    ordered = sorted(points, key=lambda point: (point.name, distribution_of(point) != PROJECT, distribution_of(point)))
    plugins: list[Announced] = []
    failures: list[Failure] = []
    for point in ordered:
        rivals = [other for other in ordered if other.name == point.name and _identity(other) != _identity(point)]
        twin = next((plugin for plugin in plugins if plugin.point.module == point.module), None)
        plugin = Announced(point.name, point)
        if twin is not None:
            if _identity(twin.point) != _identity(point):
                reason = f"its module {point.module} is also that of {twin}; rename the module, or uninstall one"
                failures.append(plugin.failure(reason))
            continue
        if rivals and not plugin.built_in:
            plugin = Announced(_free_name(point, plugins), point)
            others = " and ".join(sorted({distribution_of(other) for other in rivals}))
            reason = f"{others} has a plugin {point.name!r} too, so this one is called {plugin.name!r}"
            failures.append(plugin.failure(reason, clash=True, name=point.name))
        plugins.append(plugin)
    return plugins, failures


def _identity(point: EntryPoint) -> tuple[str, str, str]:
    return point.name, point.value, distribution_of(point)


def _free_name(point: EntryPoint, plugins: list[Announced]) -> str:
    taken = {plugin.name for plugin in plugins}
    name = distribution_of(point)
    return name if name not in taken else f"{name}.{point.module}"


@dataclass(frozen=True)
class Selection:
    """What the lists of allowed and blocked plugins leave: `allow` None allows all."""

    allow: frozenset[str] | None
    block: frozenset[str]

    @classmethod
    def of(cls, allow: Iterable[str] | None = None, block: Iterable[str] | None = None) -> Selection:
        """The lists that are given; in place of None those of the environment, where empty counts as not set."""
        allow = _listed(ALLOW_VARIABLE) if allow is None else allow
        block = _listed(BLOCK_VARIABLE) if block is None else block
        return cls(None if allow is None else frozenset(allow), frozenset(block or ()))

    def takes(self, *names: str) -> bool:
        """Whether a plugin of these names may be used: the name it is called by, and that of its entry point."""
        return (self.allow is None or not self.allow.isdisjoint(names)) and self.block.isdisjoint(names)

    def of_plugins(self, plugins: Iterable[Announced]) -> Iterator[Announced]:
        """Those that may be used. Raises PluginError where the allow list names one that isn't installed."""
        plugins = list(plugins)
        known = {name for plugin in plugins for name in (plugin.name, plugin.point.name)}
        for name in sorted(self.allow or ()):
            if name not in known:
                raise PluginError(
                    f"The list of allowed plugins names {name!r}, which isn't installed.",
                    where=ALLOW_VARIABLE,
                    fix=suggestion(name, known),
                )
        return (plugin for plugin in plugins if self.takes(plugin.name, plugin.point.name))


def _listed(variable: str) -> list[str] | None:
    names = [name.strip() for name in os.environ.get(variable, "").split(",")]
    return [name for name in names if name] or None
