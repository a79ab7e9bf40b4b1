"""The config of a run: YAML, overrides and a Registry in, one validated RunConfig out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, create_model

from maskedmodel.components import Settings
from maskedmodel.config.errors import Problem, config_error, dotted, shown, translate
from maskedmodel.config.files import apply_overrides, find_config, parse_override, plain, read_config, to_yaml
from maskedmodel.config.sections import SECTIONS, RunConfig
from maskedmodel.engine.settings import PRESETS
from maskedmodel.plugins import Registry, label

DEFAULTS: Mapping[str, Mapping[str, Any]] = {"mask": {"name": "uniform"}, "objective": {"name": "patch"}}


def build_model(registry: Registry, *, needs_data: bool = True) -> type[RunConfig]:
    """The run's pydantic model with the settings of every component in the registry, told apart by `name`."""
    fields: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        classes = [cls.settings_class for _, cls in sorted(registry.of(kind).items())]
        annotation: Any = reduce(or_, classes) if classes else Settings
        if len(classes) > 1:  # pydantic refuses a discriminator where there is nothing to tell apart
            annotation = Annotated[annotation, Field(discriminator="name")]
        description = RunConfig.model_fields[section].description
        default = DEFAULTS.get(section)
        if default is not None and default["name"] in registry.of(kind):
            fields[section] = (annotation, Field(dict(default), validate_default=True, description=description))
        elif section == "data" and not needs_data:
            fields[section] = (annotation | None, Field(None, description=description))
        else:
            fields[section] = (annotation, Field(description=description))
    return create_model("Run", __base__=RunConfig, __doc__=RunConfig.__doc__, **fields)


def load_config(
    source: str | Path | Mapping[Any, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    registry: Registry,
    needs_data: bool = True,
) -> RunConfig:
    """The validated config.

    `source` is None (the default config), the bare name of a config that comes with the package, a path, or a mapping.
    `overrides` are texts like `train.steps=500`, applied in order. An override of a component's name drops the
    settings that the config gave to the former component and the new one doesn't know; an override of the encoder's
    preset drops the dim, depth and heads that the config gave. Settings given as overrides stay, and are refused where
    they are unknown. `needs_data` False: the config may do without `data`.

    Raises one ConfigError that lists all problems.
    """
    if isinstance(source, Mapping):
        data, where = plain(source), "the given mapping"
    else:
        path = find_config(source)
        data, where = read_config(path), str(path)
    for section, default in DEFAULTS.items():
        data.setdefault(section, dict(default))
    changes = [parse_override(text) for text in overrides]
    for keys, value in changes:
        if len(keys) == 2 and keys[1] == "name":
            _drop_unknown(data, keys[0], value, registry)
        if keys == ("model", "encoder", "preset") and isinstance(value, str) and value in PRESETS:
            _drop_dimensions(data)
    apply_overrides(data, changes)
    if not needs_data and data.get("data") is None:
        data.pop("data", None)
    return _validate(data, registry, f"{where} and the overrides" if changes else where, needs_data)


def _drop_unknown(data: dict[Any, Any], section: str, name: object, registry: Registry) -> None:
    """Leave to a section only what the component `name` knows."""
    kind, given = SECTIONS.get(section), data.get(section)
    if kind is None or not isinstance(given, dict) or name == given.get("name") or name not in registry.of(kind):
        return
    known = registry.of(kind)[str(name)].settings_class.model_fields
    data[section] = {key: value for key, value in given.items() if key in known}


def _drop_dimensions(data: dict[Any, Any]) -> None:
    """Leave to the encoder's section what a preset doesn't set."""
    model = data.get("model")
    encoder = model.get("encoder") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(encoder, dict):
        model["encoder"] = {key: value for key, value in encoder.items() if key not in ("dim", "depth", "heads")}


def _validate(data: dict[Any, Any], registry: Registry, where: str, needs_data: bool) -> RunConfig:
    data = {key: {} if value is None and key in RunConfig.model_fields else value for key, value in data.items()}
    unnamed = _name_problems(data, registry)
    if not needs_data and "data" not in data:
        del unnamed["data"]
    model = build_model(registry, needs_data=needs_data)
    problems = list(unnamed.values())
    try:
        settled = model.model_validate({key: value for key, value in data.items() if key not in unnamed})
    except ValidationError as error:
        errors = [detail for detail in error.errors() if not detail["loc"] or detail["loc"][0] not in unnamed]
        problems += translate(errors, data, lambda section: _model_of(section, data, model, registry))
        raise config_error(problems, where) from None
    problems += _truth_as_number(data, settled.model_dump(), ())
    if problems:
        raise config_error(problems, where)
    return RunConfig(**{name: getattr(settled, name) for name in RunConfig.model_fields})


def _name_problems(data: Mapping[Any, Any], registry: Registry) -> dict[str, Problem]:
    """Component sections whose component can't be told, by section."""
    problems = {}
    for section, kind in SECTIONS.items():
        given, known = data.get(section, {}), registry.of(kind)
        listed = f"Known: {', '.join(sorted(known))}." if known else f"No {label(kind)} is installed."
        if not isinstance(given, Mapping):
            text = f"expected a section of settings with a name, got {shown(given)}."
            problems[section] = Problem(section, f"{text} {listed}")
        elif given.get("name") is None:
            problems[section] = Problem(f"{section}.name", f"is missing: which {label(kind)} to use. {listed}")
        elif not isinstance(given["name"], str):
            problems[section] = Problem(f"{section}.name", f"expected a name, got {shown(given['name'])}. {listed}")
        elif given["name"] not in known:
            text = f"there is no {label(kind)} {given['name']!r}. {registry.advice(kind, given['name'])} {listed}"
            problems[section] = Problem(f"{section}.name", text)
    return problems


def _model_of(
    section: str, data: Mapping[Any, Any], model: type[RunConfig], registry: Registry
) -> type[BaseModel] | None:
    """The model behind a section's settings; "" is the whole config."""
    if not section:
        return model
    if section in SECTIONS:
        given = data.get(section)
        component = registry.of(SECTIONS[section]).get(given.get("name", "")) if isinstance(given, Mapping) else None
        return component.settings_class if component is not None else None
    annotation = model.model_fields[section].annotation if section in model.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _truth_as_number(given: object, settled: object, path: tuple[str | int, ...]) -> list[Problem]:
    """Where true or false was given for a number: pydantic would read it as 1 or 0."""
    if isinstance(given, bool) and isinstance(settled, int | float) and not isinstance(settled, bool):
        return [Problem(dotted(path), f"expected a number, got {shown(given)}.")]
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(given, Mapping) and isinstance(settled, Mapping):
        pairs = [(key, value, settled[key]) for key, value in given.items() if key in settled]
    elif isinstance(given, list) and isinstance(settled, list | tuple):
        pairs = [(index, *both) for index, both in enumerate(zip(given, settled, strict=False))]
    return [problem for key, one, other in pairs for problem in _truth_as_number(one, other, (*path, key))]


def dump_config(config: RunConfig) -> str:
    """The config as YAML with every default written out; `load_config` reads the same config back."""
    return to_yaml(config.model_dump(mode="json"))


def config_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema of a config with the components at hand, for editors. `name` is required in each component."""
    schema = build_model(registry).model_json_schema()
    named = {cls.settings_class.__name__ for kind in SECTIONS.values() for cls in registry.of(kind).values()}
    for name, definition in schema.get("$defs", {}).items():
        if name.rsplit("__", 1)[-1] in named:
            definition["required"] = ["name", *(key for key in definition.get("required", ()) if key != "name")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "maskedmodel config"}


class _NotSet:
    def __repr__(self) -> str:
        return "not set"


NOT_SET = _NotSet()


def difference(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """Where two configs differ: (path, old value, new value), NOT_SET where one has no such setting."""
    before, after = (_leaves(config.model_dump(mode="json")) for config in (old, new))
    pairs = [(path, before.get(path, NOT_SET), after.get(path, NOT_SET)) for path in {**before, **after}]
    return [(path, one, other) for path, one, other in pairs if one != other]


def _leaves(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
