"""Where a path in a config leads: through sections, lists and mappings, and into components that others hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Place(NamedTuple):
    """What stands at a path: the model that has the last key as a field, the field, and what it may hold.

    All are None where the path leads to no setting; the first two of an entry of a list or mapping.
    """

    model: type[BaseModel] | None
    field: FieldInfo | None
    holds: Any


def follow(model: type[BaseModel] | None, data: object, path: Sequence[str | int]) -> Place:
    """The place at `path`, below a section of this model that holds `data`."""
    place = Place(None, None, model)
    for key in path:
        place = _step(place.holds, data, key)
        data = _inside(data, key)
    return place


def nested_in(holds: Any) -> Any:
    """The mark of settings that hold a component, in what a field may hold; None without one."""
    return next((branch for branch in _branches(holds) if hasattr(branch, "settings_for")), None)


def _step(holds: Any, data: object, key: str | int) -> Place:
    models = []
    for branch in _branches(holds):
        if hasattr(branch, "settings_for"):  # maskedmodel.nested.Nested, which isn't imported: it needs torch
            models.append(branch.settings_for(data))
        elif isinstance(branch, type) and issubclass(branch, BaseModel):
            models.append(branch)
        elif get_args(branch):
            *_, last = [argument for argument in get_args(branch) if argument is not Ellipsis]
            return Place(None, None, last)
    known = [model for model in models if model is not None]
    chosen = next((model for model in known if key in model.model_fields), known[0] if known else None)
    field = chosen.model_fields.get(str(key)) if chosen is not None else None
    holds = None if field is None else whole(field)
    return Place(chosen, field, holds)


def whole(field: FieldInfo) -> Any:
    """What a field may hold, with the marks that pydantic takes off its annotation."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _branches(annotation: Any) -> Iterator[Any]:
    """The members of a union; of settings that hold a component its mark."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        nested = [mark for mark in marks if hasattr(mark, "settings_for")]
        yield from nested or _branches(inner)
    elif origin in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _branches(argument)
    else:
        yield annotation


def _inside(data: object, key: str | int) -> object:
    if isinstance(data, Mapping):
        return data.get(key)
    if isinstance(data, list | tuple) and str(key).isdecimal() and int(key) < len(data):
        return data[int(key)]
    return None
