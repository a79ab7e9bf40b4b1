"""`maskedmodel plugins`: what is installed, what it takes, whether it keeps the contract, a skeleton to start from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from maskedmodel.cli.output import print_json, print_table

if TYPE_CHECKING:
    from maskedmodel.installed import Announced, Failure, Kind
    from maskedmodel.plugins import Plugin, Registry

app = typer.Typer(help="List, show, check or start plugins.", rich_markup_mode=None)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def plugins(context: typer.Context, as_json: Json = False) -> None:
    """Import the installed plugins and say what each provides and what is wrong; or list, show, check or start one."""
    if context.invoked_subcommand is None:
        _print_all(as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The installed plugins by their metadata: none is imported, so even one that hangs is listed at once."""
    from maskedmodel.installed import PROJECT, Selection, announced, installed

    points, damaged = installed(PROJECT)
    found, clashes = announced(points)
    chosen = list(Selection.of().of_plugins(found))
    failures = [*damaged, *clashes]
    blocked = [plugin.name for plugin in found if plugin not in chosen]
    if as_json:
        print_json({"plugins": [_metadata_dict(plugin) for plugin in chosen], **_troubles(failures, blocked)})
        return
    rows = [[plugin.name, plugin.distribution, plugin.version, plugin.point.value] for plugin in chosen]
    print_table(["plugin", "distribution", "version", "module"], rows)
    _print_troubles(failures, blocked)
    print("\n`maskedmodel plugins` imports them: it says what each provides, and what can't be loaded.")


def _metadata_dict(plugin: Announced) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.point.value,
    }


def _print_all(as_json: bool) -> None:
    from maskedmodel.plugins import label, load_registry

    registry = load_registry()
    if as_json:
        listed = [_plugin_dict(plugin) for plugin in registry.plugins]
        print_json({"plugins": listed, **_troubles(registry.failures, registry.blocked)})
        return
    rows = []
    for plugin in registry.plugins:
        provides = "; ".join(f"{label(kind)}: {', '.join(names)}" for kind, names in plugin.components.items())
        rows.append([plugin.name, plugin.distribution, plugin.version, provides or "nothing"])
    print_table(["plugin", "distribution", "version", "provides"], rows)
    _print_troubles(registry.failures, registry.blocked)


def _troubles(failures: Sequence[Failure], blocked: Sequence[str]) -> dict[str, Any]:
    keys = ("plugin", "distribution", "version", "reason", "clash")
    return {
        "failures": [{key: getattr(failure, key) for key in keys} for failure in failures],
        "blocked": list(blocked),
    }


def _print_troubles(failures: Sequence[Failure], blocked: Sequence[str]) -> None:
    for title, clash in (("Not usable:", False), ("Names given twice:", True)):
        lines = [f"  {failure}" for failure in failures if failure.clash is clash]
        if lines:
            print("\n".join(["", title, *lines]))
    if blocked:
        print(f"\nBlocked: {', '.join(blocked)}")


def _plugin_dict(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "components": {kind: list(names) for kind, names in plugin.components.items()},
    }


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A plugin or a component.")],
    as_json: Json = False,
) -> None:
    """The components of a plugin, or one component, with all settings."""
    from maskedmodel.errors import PluginError, suggestion
    from maskedmodel.plugins import KINDS, load_registry

    registry = load_registry()
    chosen: list[tuple[Kind, str]] = [
        (kind, one) for plugin in registry.plugins if plugin.name == name for kind, one in _provided(plugin)
    ]
    chosen = chosen or [
        (kind, one) for kind in KINDS for one in registry.of(kind) if name in (one, one.partition(":")[2])
    ]
    failures = [f for f in registry.failures if f.plugin == name or name in [lost for _, lost in f.lost]]
    if not chosen and not failures:
        known = {plugin.name for plugin in registry.plugins}.union(*(registry.of(kind) for kind in KINDS))
        fix = suggestion(name, known)
        if registry.failures:
            fix += f" Not usable: {'; '.join(map(str, registry.failures))}"
        raise PluginError(f"There is no plugin or component {name!r}.", fix=fix)
    if as_json:
        described = [_component_dict(registry, kind, one) for kind, one in chosen]
        print_json({"components": described, "failures": [str(failure) for failure in failures]})
        return
    for kind, one in chosen:
        _print_component(registry, kind, one)
    _print_troubles(failures, ())


def _provided(plugin: Plugin) -> list[tuple[Kind, str]]:
    return [(kind, name) for kind, names in plugin.components.items() for name in names]


def _owner(registry: Registry, kind: Kind, name: str) -> str:
    owner = next((p for p in registry.plugins if name in p.components.get(kind, ())), None)
    return f"plugin {owner.name!r} of {owner.distribution} {owner.version}" if owner else "no plugin"


def _component_dict(registry: Registry, kind: Kind, name: str) -> dict[str, Any]:
    cls = registry.get(kind, name)
    return {
        "name": name,
        "kind": kind,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "provided_by": _owner(registry, kind, name),
        "description": inspect.getdoc(cls),
        "settings": cls.settings_class.model_json_schema(),
    }


def _print_component(registry: Registry, kind: Kind, name: str) -> None:
    from maskedmodel.config.places import whole
    from maskedmodel.plugins import label

    cls = registry.get(kind, name)
    print(f"{label(kind)} {name}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
    print(f"{_owner(registry, kind, name)}, class {cls.__module__}.{cls.__qualname__}\n")
    rows = []
    for setting, field in cls.settings_class.model_fields.items():
        if setting != "name":
            default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
            rows.append([setting, _type_text(whole(field)), default, field.description or ""])
    if rows:
        print_table(["setting", "type", "default", "description"], rows)
        print()


def _type_text(annotation: Any) -> str:
    """An annotation as a user reads it: `"mse" or "l1"`, `int or null`, `list of float`, `{of: objective}`."""
    from pydantic import BaseModel

    from maskedmodel.config.places import nested_in, whole
    from maskedmodel.plugins import label

    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin is Annotated:
        mark = nested_in(annotation)
        return label(mark.kind) if mark is not None else _type_text(arguments[0])
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(map(_type_text, arguments))
    if origin in (list, tuple, set, frozenset):
        inner = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {inner[0]}" if len(inner) == 1 else f"[{', '.join(inner)}]"
    if origin in (dict, Mapping):
        return f"mapping of {_type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [f"{name}: {_type_text(whole(field))}" for name, field in annotation.model_fields.items()]
        return f"{{{', '.join(inner)}}}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A plugin or a component.")],
    as_json: Json = False,
) -> None:
    """Run the conformance checks. Exit code 1 where one fails."""
    from rich.console import Console

    from maskedmodel.plugins import load_registry
    from maskedmodel.testing import run_checks

    with Console(stderr=True).status("checking") as status:  # a line on a terminal, nothing elsewhere
        results = run_checks(load_registry(), name, lambda r: status.update(f"checking {r.component}: {r.check}"))
    failed = sum(result.status == "failed" for result in results)
    if as_json:
        keys = ("component", "check", "status", "message")
        print_json([{key: getattr(result, key) for key in keys} for result in results])
    else:
        rows = [[str(r.component), r.check, r.status, " ".join((r.message or "").split())] for r in results]
        print_table(["component", "check", "status", "message"], rows)
        print(f"\n{len(results)} checks, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin, such as ecg.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where its folder is made.")] = Path("."),
) -> None:
    """Write the skeleton of a plugin: a distribution with a tokenizer and its tests."""
    from maskedmodel.testing.template import write

    folder = write(name, to)
    print(f"Wrote {folder}. Next, where maskedmodel is installed:\n")
    print(f"    uv pip install -e {folder}     (or: pip install -e {folder})\n    maskedmodel plugins check {name}")
