"""Components inside components: a setting that holds the settings of another component, of any kind.

    class HalvedSettings(Settings):
        name: Literal["halved"] = "halved"
        of: Annotated[Settings, Nested("objective")] = Field(description="The objective whose loss is halved.")

    class Halved(Objective[HalvedSettings]):
        def __init__(self, settings=None, **values):
            super().__init__(settings, **values)
            self.of = build("objective", self.settings.of, "of")

Which components there are isn't known when such a class is written: a name is looked up when settings are read, among
the components at hand. A list, a mapping and a section of settings may hold `Annotated[Settings, Nested(...)]` too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from maskedmodel.errors import MaskedModelError, shown
from maskedmodel.plugins import Kind, Registry, label, registry_at_hand
from maskedmodel.settings import Settings

__all__ = ["Nested", "build", "inside"]

DEEPEST = 8  # components inside one another

_depth: ContextVar[int] = ContextVar("depth", default=0)

# The section of a config that a component of a kind takes itself to stand in.
_SECTIONS: Mapping[Kind, str] = {
    "tokenizer": "tokenizer",
    "mask_scheduler": "mask",
    "objective": "objective",
    "data_source": "data",
    "task": "task",
}


@dataclass(frozen=True)
class Nested:
    """Says that a setting holds the settings of a component of this kind: `Annotated[Settings, Nested("objective")]`.

    A config gives them as it does at the top level, by `name`. They are checked by the settings class of that
    component, and errors have the whole path. In Python a Settings object will do, too.
    """

    kind: Kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Without a registry it isn't known which components there are; `config_schema` puts them in."""
        name = {"type": "string", "description": f"Which {label(self.kind)}, by name."}
        return {"type": "object", "component": self.kind, "properties": {"name": name}, "required": ["name"]}

    def settings_for(self, value: object) -> type[Settings] | None:
        """The settings class of the component that a value names; None where it names none."""
        name = value.get("name") if isinstance(value, Mapping) else None
        registry = registry_at_hand()
        known = registry.of(self.kind).get(registry.canonical(self.kind, name)) if isinstance(name, str) else None
        return None if known is None else known.settings_class

    def _validated(self, value: object) -> Settings:
        registry = registry_at_hand()
        if isinstance(value, Settings):
            known = registry.of(self.kind).get(value.name)
            if known is None or not isinstance(value, known.settings_class):
                raise _error(
                    (), f"expected settings of the kind {label(self.kind)}, got {type(value).__name__}.", value
                )
            return value
        found = fault(registry, self.kind, value)
        if found is not None:
            raise _error(found[0], found[1], value)
        assert isinstance(value, Mapping)
        depth = _depth.get()
        if depth >= DEEPEST:
            raise _error((), f"more than {DEEPEST} components stand inside one another.", value)
        token = _depth.set(depth + 1)
        try:
            name = registry.canonical(self.kind, value["name"])
            settings: Settings = registry.get(self.kind, name).settings_class.model_validate({**value, "name": name})
        finally:
            _depth.reset(token)
        return settings


def fault(registry: Registry, kind: Kind, given: object) -> tuple[tuple[str, ...], str] | None:
    """Why it can't be told which component is meant: where, below the setting, and a phrase. None: it can be told."""
    known = registry.of(kind)
    listed = f"Known: {', '.join(sorted(known))}." if known else f"No {label(kind)} is installed."
    if not isinstance(given, Mapping):
        return (), f"expected a section of settings with a name, got {shown(given)}. {listed}"
    name = given.get("name")
    if name is None:
        return ("name",), f"is missing: which {label(kind)} to use. {listed}"
    if not isinstance(name, str):
        return ("name",), f"expected a name, got {shown(name)}. {listed}"
    if registry.canonical(kind, name) not in known:
        return ("name",), f"there is no {label(kind)} {name!r}. {registry.advice(kind, name)} {listed}"
    return None


def _error(place: tuple[str, ...], text: str, value: object) -> ValidationError:
    """An error below the setting that is looked at, in the words of a config's problems."""
    error = PydanticCustomError("setting", "{text}", {"text": text})
    return ValidationError.from_exception_data("nested", [InitErrorDetails(type=error, loc=place, input=value)])


def build(kind: Kind, settings: Settings, path: str = "") -> Any:
    """The component that nested settings name, of the components at hand.

    `path` is where they stand in the settings of who holds them, such as "parts[0].of": errors tell it.
    """
    with inside(kind, path):
        return registry_at_hand().build(kind, settings)


@contextmanager
def inside(kind: Kind, path: str) -> Iterator[None]:
    """Errors of a component that stands at `path` in another one's settings, told with the whole path.

    To be held around every call of it that may refuse, such as `attach`: it takes itself to stand at the top.
    """
    try:
        yield
    except MaskedModelError as error:
        if not path:
            raise

        def moved(text: Any) -> Any:
            whole = rf"{_SECTIONS[kind]}.{path}."
            return re.sub(rf"(?<![\w.]){_SECTIONS[kind]}\.(?=[a-z])", whole, text) if isinstance(text, str) else text

        details = {key: moved(getattr(error, key)) for key in ("where", "expected", "got", "fix")}
        raise type(error)(error.what, **details) from error
