"""`maskedmodel plugins`: what is installed, what it takes, whether it keeps the contract, a skeleton to start from."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from maskedmodel.cli.output import print_json, print_table

if TYPE_CHECKING:
    from maskedmodel.plugins import Kind, Plugin, Registry

app = typer.Typer(help="List, show, check or start plugins.", rich_markup_mode=None)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the installed plugins, or show, check or start one."""
    if context.invoked_subcommand is None:
        _print_list(as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The installed plugins, what they provide, and what couldn't be loaded."""
    _print_list(as_json)


def _print_list(as_json: bool) -> None:
    from maskedmodel.plugins import label, load_registry

    registry = load_registry()
    if as_json:
        print_json(
            {
                "plugins": [_plugin_dict(plugin) for plugin in registry.plugins],
                "failures": [
                    {"plugin": f.plugin, "distribution": f.distribution, "version": f.version, "reason": f.reason}
                    for f in registry.failures
                ],
                "blocked": list(registry.blocked),
            }
        )
        return
    rows = []
    for plugin in registry.plugins:
        provides = "; ".join(f"{label(kind)}: {', '.join(names)}" for kind, names in plugin.components.items())
        rows.append([plugin.name, plugin.distribution, plugin.version, provides or "nothing"])
    print_table(["plugin", "distribution", "version", "provides"], rows)
    if registry.failures:
        print("\nNot usable:")
        for failure in registry.failures:
            print(f"  {failure}")
    if registry.blocked:
        print(f"\nBlocked: {', '.join(registry.blocked)}")


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
    chosen = chosen or [(kind, name) for kind in KINDS if name in registry.of(kind)]
    failures = [failure for failure in registry.failures if failure.plugin == name]
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
    for failure in failures:
        print(f"Not usable: {failure}")


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
    from maskedmodel.plugins import label

    cls = registry.get(kind, name)
    print(f"{label(kind)} {name}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
    print(f"{_owner(registry, kind, name)}, class {cls.__module__}.{cls.__qualname__}\n")
    rows = []
    for setting, field in cls.settings_class.model_fields.items():
        if setting != "name":
            default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
            rows.append([setting, _type_text(field.annotation), default, field.description or ""])
    if rows:
        print_table(["setting", "type", "default", "description"], rows)
        print()


def _type_text(annotation: Any) -> str:
    """An annotation as a user reads it: `"mse" or "l1"`, `int or null`, `list of float`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(map(_type_text, arguments))
    if origin in (list, tuple, set, frozenset):
        inner = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {inner[0]}" if len(inner) == 1 else f"[{', '.join(inner)}]"
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
    print(f"Wrote {folder}. Next:\n\n    pip install -e {folder}\n    maskedmodel plugins check {name}")
