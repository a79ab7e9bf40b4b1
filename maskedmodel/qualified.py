"""A component under the name `plugin:name`, for one whose own name is another's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import create_model

from maskedmodel.components import Component

# The classes made here: there is one of a name in a process, so that settings of equal values are equal.
_made: dict[tuple[type, str], type[Component[Any]]] = {}


def qualified(cls: type[Component[Any]], plugin: str) -> type[Component[Any]]:
    """A subclass of the component whose settings have the name `plugin:name`, and which is the same in all else.

    It stands in no module, so settings and components tell pickle how to make their class again.
    """
    if (cls, plugin) not in _made:
        _made[cls, plugin] = _subclass(cls, plugin)
    return _made[cls, plugin]


def _subclass(cls: type[Component[Any]], plugin: str) -> type[Component[Any]]:
    name, given = f"{plugin}:{cls.component_name()}", cls.settings_class
    field: Any = (Literal[name], name)
    settings = create_model(
        given.__name__, __base__=given, __module__=given.__module__, __doc__=given.__doc__, name=field
    )

    def reduce_settings(self: Any, protocol: Any) -> tuple[Any, ...]:
        return (_new_settings, (cls, plugin), *given.__reduce_ex__(self, protocol)[2:])

    def reduce_component(self: Any, protocol: Any) -> tuple[Any, ...]:
        return (_new_component, (cls, plugin), *cls.__reduce_ex__(self, protocol)[2:])

    settings.__reduce_ex__ = reduce_settings  # type: ignore[method-assign]
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
