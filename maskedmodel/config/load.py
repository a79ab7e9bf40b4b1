"""The config of a run: YAML, overrides and a Registry in, one validated RunConfig out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from maskedmodel.components import Component
from maskedmodel.config.early import Given, read_given, section_model, truth_as_number
from maskedmodel.config.errors import Problem, config_error, dotted, translate
from maskedmodel.config.files import apply_overrides, plain, to_yaml
from maskedmodel.config.listed import canonical_lists, list_problems
from maskedmodel.config.places import follow, nested_in
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.nested import fault
from maskedmodel.plugins import KINDS, Kind, Registry, using
from maskedmodel.settings import Settings

C = TypeVar("C", bound=Trained)


@overload
def build_model(registry: Registry, *, needs_data: bool = True) -> type[RunConfig]: ...


@overload
def build_model(registry: Registry, *, needs_data: bool = True, kind: type[C]) -> type[C]: ...


def build_model(registry: Registry, *, needs_data: bool = True, kind: type[Any] = RunConfig) -> type[Any]:
    """The run's pydantic model with the settings of every component in the registry, told apart by `name`."""
    fields: dict[str, Any] = {}
    for section, of in kind.components.items():
        annotation = _settings_of(registry, of)
        description = kind.model_fields[section].description
        default = kind.defaults.get(section)
        if default is not None and default["name"] in registry.of(of):
            fields[section] = (annotation, Field(dict(default), validate_default=True, description=description))
        elif (section == "data" and not needs_data) or section in kind.nullable:
            fields[section] = (annotation | None, Field(None, description=description))
        else:
            fields[section] = (annotation, Field(description=description))
    for section, of in kind.lists.items():
        entries: Any = tuple[_settings_of(registry, of), ...]  # type: ignore[misc]
        fields[section] = (entries, Field((), description=kind.model_fields[section].description))
    return create_model("Run", __base__=kind, __doc__=kind.__doc__, **fields)


def _settings_of(registry: Registry, kind: Kind) -> Any:
    """The settings of every component of a kind, told apart by name."""
    classes = [cls.settings_class for _, cls in sorted(registry.of(kind).items())]
    annotation: Any = reduce(or_, classes) if classes else Settings
    if len(classes) > 1:  # pydantic refuses a discriminator where there is nothing to tell apart
        annotation = Annotated[annotation, Field(discriminator="name")]
    return annotation


@overload
def load_config(
    source: str | Path | Mapping[Any, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    registry: Registry,
    needs_data: bool = True,
) -> RunConfig: ...


@overload
def load_config(
    source: str | Path | Mapping[Any, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    registry: Registry,
    needs_data: bool = True,
    kind: type[C],
) -> C: ...


def load_config(
    source: str | Path | Mapping[Any, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    registry: Registry,
    needs_data: bool = True,
    kind: type[Any] = RunConfig,
) -> Any:
    """The validated config, of the `kind` that is asked for.

    `source` is None (the default config), the bare name of a config that comes with the package, a path, or a mapping.
    `overrides` are texts like `train.steps=500`, applied in order. An override of a component's name drops the
    settings that the config gave to the former component and the new one doesn't know; an override of the encoder's
    preset drops the dim, depth and heads that the config gave. Settings given as overrides stay, and are refused where
    they are unknown. An override of a component's setting to null
    means its default, where null is no value of its own. `needs_data` False: a run is opened and not trained, so the
    config may do without `data`, and its callbacks are left out, which may be those of another machine.

    Raises one ConfigError that lists all problems.
    """
    given = read_given(source, overrides)
    for section, default in kind.defaults.items():
        given.data.setdefault(section, dict(default))
    with using(registry):
        given = _spelled_out(given, registry, kind)
        for keys, value in given.changes:
            if len(keys) > 1 and keys[-1] == "name":
                _drop_unknown(given.data, keys[:-1], value, registry, kind)
        data = given.settled()
        _canonical(data, registry, kind)
        canonical_lists(data, registry, kind)
        for section in kind.nullable:
            if data.get(section) is None:
                data.pop(section, None)
        if not needs_data and data.get("data") is None:
            data.pop("data", None)
        if not needs_data:
            data.pop("callbacks", None)
        _unset(data, given.changes, registry, kind)
        return _validate(data, registry, given.where, needs_data, kind)


def _canonical(data: dict[Any, Any], registry: Registry, config: type[Trained]) -> None:
    """A component given as plugin:name where its name is its own again, since its rival has gone, is named alone."""
    for section, kind in config.components.items():
        given = data.get(section)
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            data[section] = {**given, "name": registry.canonical(kind, given["name"])}


def _named(registry: Registry, kind: Kind, name: object) -> type[Component[Any]] | None:
    """The component of this name; None where there is none. A config may give anything for a name."""
    return registry.of(kind).get(registry.canonical(kind, name)) if isinstance(name, str) else None


def _drop_unknown(
    data: dict[Any, Any], path: Sequence[str], name: object, registry: Registry, config: type[Trained]
) -> None:
    """Leave to a section, or to settings that hold a component, only what the component `name` knows."""
    kind, given = _kind_at(data, path, registry, config), _at(data, path)
    if kind is None or not isinstance(given, dict) or name == given.get("name"):
        return
    component = _named(registry, kind, name)
    if component is None:
        return
    for key in given.keys() - component.settings_class.model_fields.keys():
        del given[key]


def _spelled_out(given: Given, registry: Registry, config: type[Trained]) -> Given:
    """The overrides, and before each the defaults of nested components that it reaches into, to change them."""
    data = plain(given.data)  # as it is when an override's turn comes
    changes: list[tuple[tuple[str, ...], Any]] = []

    def change(keys: tuple[str, ...], value: Any) -> None:
        changes.append((keys, value))
        if keys[0] in config.components:
            apply_overrides(data, [(keys, copy.deepcopy(value))])

    for keys, value in given.changes:
        for depth in range(2, len(keys)):
            path, holder = keys[:depth], _at(data, keys[: depth - 1])
            missing = isinstance(holder, dict) and holder.get(path[-1]) is None
            if missing and _kind_at(data, path, registry, config) is not None:
                component = _named(registry, config.components[path[0]], data[path[0]]["name"])
                field = None if component is None else follow(component.settings_class, data[path[0]], path[1:]).field
                default = None if field is None else field.default
                if isinstance(default, Settings):
                    default = default.model_dump(mode="json")
                if isinstance(default, Mapping):
                    change(path, plain(default))
        change(keys, value)
    return replace(given, changes=changes)


def _at(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        if isinstance(data, list) and key.isdecimal() and int(key) < len(data):
            data = data[int(key)]
        elif isinstance(data, dict):
            data = data.get(key)
        else:
            return None
    return data


def _kind_at(data: Any, path: Sequence[str], registry: Registry, config: type[Trained]) -> Kind | None:
    """The kind of the component whose settings stand at a path; None where no component's do."""
    kind, given = config.components.get(path[0]), data.get(path[0])
    if kind is None or len(path) == 1:
        return kind
    component = _named(registry, kind, given.get("name")) if isinstance(given, Mapping) else None
    if component is None:
        return None
    mark = nested_in(follow(component.settings_class, given, path[1:]).holds)
    inner: Kind | None = None if mark is None else mark.kind
    return inner


def _unset(
    data: dict[Any, Any], changes: Sequence[tuple[tuple[str, ...], Any]], registry: Registry, config: type[Trained]
) -> None:
    """Leave out what an override sets to null and what can't be null: null then means its default."""
    for keys, value in changes:
        component = config.components.get(keys[0])
        section, holder = data.get(keys[0]), _at(data, keys[:-1])
        if value is not None or len(keys) < 2 or component is None or not isinstance(section, dict):
            continue
        known = _named(registry, component, section.get("name"))
        field = follow(known.settings_class, section, keys[1:]).field if known is not None else None
        if field is not None and not field.is_required() and not _takes_null(field) and isinstance(holder, dict):
            holder.pop(keys[-1], None)


def _takes_null(field: FieldInfo) -> bool:
    try:
        annotation: Any = field.annotation
        return TypeAdapter(annotation).validate_python(None) is None
    except ValidationError:
        return False


def _validate(data: dict[Any, Any], registry: Registry, where: str, needs_data: bool, config: type[C]) -> C:
    data = {key: {} if value is None and key in config.model_fields else value for key, value in data.items()}
    unnamed = _name_problems(data, registry, config)
    if not needs_data and "data" not in data:
        del unnamed["data"]
    for section in config.nullable - data.keys():
        unnamed.pop(section, None)
    model = build_model(registry, needs_data=needs_data, kind=config)
    entries = list_problems(data, registry, config)
    problems = [*unnamed.values(), *entries.values()]
    try:
        settled = model.model_validate({key: value for key, value in data.items() if key not in unnamed})
    except ValidationError as error:
        errors = [detail for detail in error.errors() if not detail["loc"] or detail["loc"][0] not in unnamed]
        errors = [detail for detail in errors if detail["loc"][:2] not in entries]
        problems += translate(errors, data, lambda section: _model_of(section, data, model, registry))
        raise config_error(problems, where) from None
    problems += truth_as_number(data, settled.model_dump(), ())
    if problems:
        raise config_error(problems, where)
    return config(**{name: getattr(settled, name) for name in config.model_fields})


def _name_problems(data: Mapping[Any, Any], registry: Registry, config: type[Trained]) -> dict[str, Problem]:
    """Component sections whose component can't be told, by section."""
    problems = {}
    for section, kind in config.components.items():
        found = fault(registry, kind, data.get(section, {}))
        if found is not None:
            problems[section] = Problem(dotted((section, *found[0])), found[1])
    return problems


def _model_of(
    section: str, data: Mapping[Any, Any], model: type[Trained], registry: Registry
) -> type[BaseModel] | None:
    """The model behind the settings of a section, or of an entry `section[0]`; "" is the whole config."""
    head, bracket, number = section.partition("[")
    if bracket and head in model.lists:
        given, kind = data[head][int(number[:-1])], model.lists[head]
    elif section in model.components:
        given, kind = data.get(section), model.components[section]
    else:
        return section_model(section, model)
    component = _named(registry, kind, given.get("name")) if isinstance(given, Mapping) else None
    return component.settings_class if component is not None else None


def dump_config(config: Trained) -> str:
    """The config as YAML with every default written out; `load_config` reads the same config back."""
    return to_yaml(config.model_dump(mode="json"))


def config_schema(registry: Registry, kind: type[Trained] = RunConfig) -> dict[str, Any]:
    """JSON Schema of a config with the components at hand, for editors. `name` is required in each component."""
    schema = _with_nested(build_model(registry, kind=kind).model_json_schema(), registry, kind)
    named = {cls.settings_class.__name__ for of in KINDS for cls in registry.of(of).values()}
    for name, definition in schema.get("$defs", {}).items():
        if name.rsplit("__", 1)[-1] in named:
            definition["required"] = ["name", *(key for key in definition.get("required", ()) if key != "name")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "maskedmodel config"}


def _with_nested(schema: dict[str, Any], registry: Registry, config: type[Trained]) -> dict[str, Any]:
    """The schema where settings that hold a component are those of the components at hand."""
    sections = {of: section for section, of in config.components.items()}
    branches = {of: schema["properties"][section] for of, section in sections.items()}

    def filled(part: Any) -> Any:
        if isinstance(part, list):
            return [filled(one) for one in part]
        if not isinstance(part, dict):
            return part
        of: Kind | None = next((kind for kind in KINDS if kind == part.get("component")), None)
        if of is None or part.get("type") != "object":
            return {key: filled(value) for key, value in part.items()}
        if of not in branches:
            several: Any = list[_settings_of(registry, of)]  # type: ignore[misc]
            listed = TypeAdapter(several).json_schema()
            branches[of], more = listed["items"], listed.get("$defs", {})
            schema["$defs"].update({name: more[name] for name in more.keys() - schema["$defs"].keys()})
            schema["$defs"].update(filled({name: schema["$defs"][name] for name in more}))
        kept = {key: part[key] for key in ("description", "default", "component") if key in part}
        own = ("oneOf", "anyOf", "discriminator", "$ref")
        return {**kept, **{key: branches[of][key] for key in own if key in branches[of]}}

    done = filled(dict(schema["$defs"]))  # which adds to the definitions
    schema["$defs"] = {**schema["$defs"], **done}
    return schema


class _NotSet:
    def __repr__(self) -> str:
        return "not set"


NOT_SET = _NotSet()


def difference(old: Trained, new: Trained) -> list[tuple[str, Any, Any]]:
    """Where two configs differ: (path, old value, new value), NOT_SET where one has no such setting."""
    before, after = (_leaves(config.model_dump(mode="json")) for config in (old, new))
    pairs = [(path, before.get(path, NOT_SET), after.get(path, NOT_SET)) for path in {**before, **after}]
    return [(path, one, other) for path, one, other in pairs if one != other]


def _leaves(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(entry, Mapping) and entry for entry in value):
            for index, entry in enumerate(value):
                leaves |= _leaves(entry, f"{prefix}{key}[{index}].")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
