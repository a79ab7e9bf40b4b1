"""Verbs that plugins add to the command line, through the entry-point group `maskedmodel.commands`:

    [project.entry-points."maskedmodel.commands"]
    forecast = "maskedmodel_timeseries.command:forecast"

names a function with typer's annotations. Help lists its name without importing it, so that help stays quick; it is
imported when it is run. A verb of maskedmodel's own can't be replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

import typer

from maskedmodel.errors import PluginError
from maskedmodel.installed import PROJECT, Selection, announced, distribution_of, installed

GROUP = "maskedmodel.commands"


def with_plugin_verbs(app: typer.Typer, arguments: Sequence[str]) -> Any:
    """The command of `app` with every plugin's verbs; the one that `arguments` run is imported.

    MASKEDMODEL_PLUGINS and MASKEDMODEL_BLOCK_PLUGINS hold for verbs as they do for components. Raises PluginError where
    the verb can't be imported or two distributions own it.
    """
    verbs = _verbs()
    own = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    own |= {group.name for group in app.registered_groups if group.name}
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    whole = typer.Typer(help=app.info.help, rich_markup_mode=None, add_completion=False)
    whole.registered_callback = app.registered_callback
    whole.registered_groups = app.registered_groups
    whole.registered_commands = list(app.registered_commands)
    for name, points in sorted(verbs.items()):
        if name in own:
            continue
        function = _load(name, points) if name == wanted else _stand_in(points[0])
        whole.command(name)(function)
    return typer.main.get_command(whole)


def _verbs() -> dict[str, list[EntryPoint]]:
    selection = Selection.of()
    plugins, _ = announced(installed(PROJECT)[0])
    names = {plugin.point.module.split(".")[0]: (plugin.name, plugin.point.name) for plugin in plugins}
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in installed(GROUP)[0]:  # what can't be read is named by `maskedmodel plugins`
        if selection.takes(*names.get(point.module.split(".")[0], (point.name,))):
            found.setdefault(point.name, {})[point.value] = point
    return {name: list(points.values()) for name, points in found.items()}


def _load(name: str, points: Sequence[EntryPoint]) -> Any:
    if len(points) > 1:
        owners = ", ".join(f"{distribution_of(point)} ({point.value})" for point in points)
        raise PluginError(
            f"Two plugins own the verb {name!r}.", got=owners, fix="Uninstall one, or set MASKEDMODEL_BLOCK_PLUGINS."
        )
    try:
        return points[0].load()
    except Exception as error:
        raise PluginError(
            f"The verb {name!r} can't be loaded.",
            where=f"{points[0].value} of {distribution_of(points[0])}",
            got=f"{type(error).__name__}: {error}",
            fix="Reinstall or update that distribution.",
        ) from error


def _stand_in(point: EntryPoint) -> Any:
    """What help shows of a verb that isn't imported."""

    def verb() -> None: ...

    verb.__doc__ = f"(of the plugin {point.module.split('.')[0]})"
    return verb
