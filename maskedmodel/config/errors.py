"""What is wrong with a config, in the user's words: pydantic's errors with the paths that the user typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from maskedmodel.config.places import follow
from maskedmodel.errors import ConfigError, nearest, shown, suggestion

# What is allowed, by pydantic's error type. A name in braces comes from the error's context.
_EXPECTED = {
    **dict.fromkeys(["int_type", "int_parsing", "int_from_float", "int_parsing_size"], "a whole number"),
    **dict.fromkeys(["float_type", "float_parsing"], "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(["bool_type", "bool_parsing"], "true or false"),
    "string_type": "text",
    "path_type": "a path",
    "path_not_file": "a file that exists",
    "path_not_directory": "a folder that exists",
    "none_required": "null",
    **dict.fromkeys(["list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"], "a list"),
    **dict.fromkeys(["model_type", "model_attributes_type", "dict_type", "mapping_type"], "a section of settings"),
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "invalid_key": "a word as the key",
}
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_RANGE_ERRORS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config: `path` as in an override, `text` a phrase after a colon."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def at_path(path: str, message: str) -> PydanticCustomError:
    """For a validator to raise: an error of the setting at this full path, wherever the validator hangs."""
    return PydanticCustomError("setting", "{text}", {"path": path, "text": message})


def config_error(problems: Sequence[Problem], where: object, fix: str | None = None) -> ConfigError:
    """All of them in one error."""
    if len(problems) == 1:
        return ConfigError(f"The config has a problem. {problems[0]}", where=where, fix=fix)
    lines = "\n".join(f"  - {problem}" for problem in problems)
    return ConfigError(f"The config has {len(problems)} problems:\n{lines}", where=where, fix=fix)


def dotted(path: Location) -> str:
    """`optim.betas[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def translate(
    errors: Iterable[ErrorDetails], data: Mapping[Any, Any], model_at: Callable[[str], type[BaseModel] | None]
) -> list[Problem]:
    """The problems behind pydantic's errors, one per path.

    `data` is what was validated: whatever part of an error's location it doesn't hold (the tag or a branch of a union)
    wasn't typed by the user and is left out. `model_at` gives the model of a section.
    """
    found: dict[str, list[ErrorDetails]] = {}
    paths: dict[str, Location] = {}
    for error in errors:
        path = _typed(error, data)
        paths[dotted(path)] = path
        found.setdefault(dotted(path), []).append(error)
    problems = []
    for text, path in paths.items():
        # A list that fails inside fits no other branch of a union: only what is inside is news.
        if not any(len(other) > len(path) and other[: len(path)] == path for other in paths.values() if path):
            problems.append(Problem(text, _describe(path, found[text], data, model_at)))
    return problems


def _typed(error: ErrorDetails, data: object) -> Location:
    """The error's location without what pydantic added. The tag of a component's union is its name."""
    own = error.get("ctx", {}).get("path")
    if error["type"] == "setting" and own is not None:
        return tuple(str(own).split("."))
    path: Location = ()
    location = error["loc"]
    for position, part in enumerate(location):
        if position == 1 and isinstance(data, Mapping) and data.get("name") == part and len(location) > 2:
            continue
        if isinstance(data, Mapping) and part in data:
            path, data = (*path, part), data[part]
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int):
            path, data = (*path, part), data[part] if part < len(data) else None
        elif error["type"] in ("missing", "setting") and position == len(location) - 1:
            path = (*path, part)
    return path


def _describe(
    path: Location,
    errors: Sequence[ErrorDetails],
    data: Mapping[Any, Any],
    model_at: Callable[[str], type[BaseModel] | None],
) -> str:
    model, field = _field(path, data, model_at)
    first = errors[0]
    if first["type"] == "missing" and isinstance(path[-1], int):
        return "the list is too short"
    if first["type"] == "missing":
        return f"is missing. {field.description or ''}".strip() if field is not None else "is missing."
    if first["type"] == "extra_forbidden":
        return f"unknown setting. {_unknown(path, model, model_at)}"
    reasons = [text for error in errors if (text := _reason(error)) is not None]
    if reasons:
        return "; ".join(dict.fromkeys(reasons))
    allowed = " or ".join(dict.fromkeys(_expected(error, field) for error in errors))
    names = re.findall(r"'([^']*)'", allowed)
    match = nearest(first["input"], names)
    hint = f" Did you mean {match!r}?" if match is not None and isinstance(first["input"], str) else ""
    return f"expected {allowed}, got {shown(first['input'])}.{hint}"


def _reason(error: ErrorDetails) -> str | None:
    """The sentence of a validator, ours or a plugin's; pydantic's own only for kinds that the table doesn't know."""
    context = error.get("ctx", {})
    if error["type"] == "setting":
        return str(context["text"])
    if error["type"] in ("value_error", "assertion_error"):
        return f"{str(context.get('error', error['msg'])).rstrip('.')}."
    if error["type"] in _EXPECTED or error["type"] in _RANGE_ERRORS:
        return None
    return f"{error['msg']}, got {shown(error['input'])}."


def _expected(error: ErrorDetails, field: FieldInfo | None) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("too_short", "too_long") and isinstance(error["input"], Mapping):
        return _EXPECTED[error["type"]].replace("list", "mapping").format(**context)
    if error["type"] not in _RANGE_ERRORS:
        return _EXPECTED[error["type"]].format(**context)
    bounds = {_RANGE_ERRORS[error["type"]]: next(iter(context.values()))}
    for constraint in field.metadata if field is not None else ():
        bounds |= {key: getattr(constraint, key) for key in _BOUNDS if hasattr(constraint, key)}
    return f"a number {' and '.join(f'{_BOUNDS[key]} {bounds[key]}' for key in _BOUNDS if key in bounds)}"


def _unknown(path: Location, model: type[BaseModel] | None, model_at: Callable[[str], type[BaseModel] | None]) -> str:
    """The nearest key of the section, or where else a key of just this name lives."""
    key = str(path[-1])
    known = list(model.model_fields) if model is not None else []
    homes = [name for name in ("", *_sections(model_at)) if key in (_fields(model_at(name)))]
    if homes and nearest(key, known) is None:
        return f"Did you mean {', '.join(f'{home}.{key}'.lstrip('.') for home in homes)}?"
    return suggestion(key, known)


def _sections(model_at: Callable[[str], type[BaseModel] | None]) -> list[str]:
    return list(_fields(model_at("")))


def _fields(model: type[BaseModel] | None) -> Mapping[str, FieldInfo]:
    return model.model_fields if model is not None else {}


def _field(
    path: Location, data: Mapping[Any, Any], model_at: Callable[[str], type[BaseModel] | None]
) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The model that holds the last key of the path, and its field there."""
    if len(path) < 2:
        return model_at(""), _fields(model_at("")).get(str(path[0])) if path else None
    head, given, rest = str(path[0]), data.get(str(path[0])), path[1:]
    if isinstance(rest[0], int) and isinstance(given, list) and rest[0] < len(given):  # an entry of a list
        entry = model_at(dotted(path[:2]))
        if entry is not None:
            place = follow(entry, given[rest[0]], rest[1:])
            return place.model, place.field
    place = follow(model_at(head), given, rest)
    return place.model, place.field
