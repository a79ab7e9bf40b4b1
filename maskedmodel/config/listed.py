"""Sections that list components, such as `callbacks`: any number of entries, each a component's settings with its name.

A name alone stands for an entry with its defaults, and a mapping of names to settings for a list of entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskedmodel.config.errors import Problem
from maskedmodel.config.files import apply_overrides
from maskedmodel.config.sections import Trained
from maskedmodel.errors import ConfigError, shown

if TYPE_CHECKING:
    from maskedmodel.plugins import Registry

Change = tuple[tuple[str, ...], Any]


def settle_lists(data: dict[Any, Any], changes: Iterable[Change]) -> list[Change]:
    """Write overrides of such sections into `data`, each section as a list; the other overrides are returned.

    `callbacks=[...]` replaces a list. `callbacks.early_stopping.patience=3` sets it of the entry of that name, made
    where there is none, and `callbacks.0.patience=3` of the first. Raises ConfigError where two entries have the name.
    """
    others: list[Change] = []
    for section in Trained.lists:
        if section in data:
            data[section] = _entries(data[section])
    for keys, value in changes:
        if keys[0] not in Trained.lists:
            others.append((keys, value))
        elif len(keys) == 1:
            data[keys[0]] = _entries(value)
        else:
            _set(data, keys, value)
    return others


def _entries(given: Any) -> Any:
    """A section as a list of entries with names; what can be none is left to be refused."""
    if given is None:
        return []
    if isinstance(given, str):
        return [{"name": given}]
    if isinstance(given, Mapping) and not isinstance(given.get("name"), str):
        given = [
            {"name": name, **(own or {})} if own is None or isinstance(own, Mapping) else own
            for name, own in given.items()
        ]
    elif isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, Sequence):
        return given
    return [{"name": entry} if isinstance(entry, str) else entry for entry in given]


def _set(data: dict[Any, Any], keys: tuple[str, ...], value: Any) -> None:
    section, name, *inner = keys
    entries = data.setdefault(section, [])
    where = f"override {'.'.join(keys)}"
    if not isinstance(entries, list):
        raise ConfigError(f"{section} is a value, not a list of entries.", where=where)
    if name.isdecimal():
        if int(name) >= len(entries):
            raise ConfigError(f"{section} has no entry {name}.", where=where, got=f"{len(entries)} entries, from 0 on")
        entry = entries[int(name)]
    else:
        found = [entry for entry in entries if isinstance(entry, dict) and entry.get("name") == name]
        if len(found) > 1:
            numbers = " or ".join(f"{section}.{number}" for number, entry in enumerate(entries) if entry in found)
            raise ConfigError(f"{section} has {len(found)} entries {name!r}.", where=where, fix=f"Write {numbers}.")
        entry = found[0] if found else {"name": name}
        if not found:
            entries.append(entry)
    if not isinstance(entry, dict):
        raise ConfigError(f"{section}.{name} is a value, not a section of settings.", where=where, got=shown(entry))
    if inner:
        apply_overrides(entry, [(tuple(inner), value)])
    elif isinstance(value, Mapping):
        entry.update(value)
    elif value is not None:
        raise ConfigError(f"{section}.{name} is a section of settings.", where=where, got=shown(value))


def canonical_lists(data: dict[Any, Any], registry: Registry, config: type[Trained]) -> None:
    """An entry given as plugin:name where its name is its own again is named alone."""
    for section, kind in config.lists.items():
        given = data.get(section)
        if isinstance(given, list):
            data[section] = [
                {**entry, "name": registry.canonical(kind, entry["name"])}
                if isinstance(entry, dict) and isinstance(entry.get("name"), str)
                else entry
                for entry in given
            ]


def list_problems(data: Mapping[Any, Any], registry: Registry, config: type[Trained]) -> dict[tuple[str, int], Problem]:
    """Entries whose component can't be told, by section and number."""
    problems = {}
    for section, kind in config.lists.items():
        known, word = registry.of(kind), kind.replace("_", " ")
        listed = f"Known: {', '.join(sorted(known))}." if known else f"No {word} is installed."
        entries = data.get(section)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            place = f"{section}[{number}]"
            name = entry.get("name") if isinstance(entry, Mapping) else None
            if not isinstance(entry, Mapping):
                problem = Problem(place, f"expected a section of settings with a name, got {shown(entry)}. {listed}")
            elif name is None:
                problem = Problem(f"{place}.name", f"is missing: which {word} to use. {listed}")
            elif not isinstance(name, str):
                problem = Problem(f"{place}.name", f"expected a name, got {shown(name)}. {listed}")
            elif name not in known:
                text = f"there is no {word} {name!r}. {registry.advice(kind, name)} {listed}"
                problem = Problem(f"{place}.name", text)
            else:
                continue
            problems[section, number] = problem
    return problems
