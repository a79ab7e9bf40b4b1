"""A component under the name `plugin:name`, for one whose own name is another's."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import create_model

from maskedmodel.components import Component


@cache
def qualified(cls: type[Component[Any]], plugin: str) -> type[Component[Any]]:
    """A subclass of the component whose settings have the name `plugin:name`, and which is the same in all else.

    It stands in no module, so settings and components tell pickle how to make their class again.
    """
    name, given = f"{plugin}:{cls.component_name()}", cls.settings_class
    field: Any = (Literal[name], name)
    settings = create_model(
        given.__name__, __base__=given, __module__=given.__module__, __doc__=given.__doc__, name=field
    )

    def reduce_settings(self: Any, protocol: Any) -> tuple[Any, ...]:
        return (_new_settings, (cls, plugin), *given.__reduce_ex__(self, protocol)[2:])

    def reduce_component(self: Any, protocol: Any) -> tuple[Any, ...]:
        return (_new_component, (cls, plugin), *cls.__reduce_ex__(self, protocol)[2:])

    settings.__reduce_ex__ = reduce_settings  # type: ignore[method-assign,assignment]
    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": reduce_component,
        "settings_class": settings,
    }
    return type(cls.__name__, (cls,), body)


def _new_settings(cls: type[Component[Any]], plugin: str) -> Any:
    settings = qualified(cls, plugin).settings_class
    return settings.__new__(settings)


def _new_component(cls: type[Component[Any]], plugin: str) -> Any:
    made = qualified(cls, plugin)
    return made.__new__(made)
