"""What can be said of a config before torch and the plugins are imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from maskedmodel.config.errors import Problem, config_error, dotted, translate
from maskedmodel.config.files import apply_overrides, find_config, parse_override, plain, read_config
from maskedmodel.config.listed import settle_lists
from maskedmodel.config.sections import RunConfig, Trained
from maskedmodel.engine.settings import PRESETS
from maskedmodel.errors import shown


@dataclass(frozen=True)
class Given:
    """A config as it was given: its raw mapping, the overrides, and where errors say it comes from."""

    data: dict[Any, Any]
    changes: list[tuple[tuple[str, ...], Any]]
    where: str

    def settled(self) -> dict[Any, Any]:
        """The mapping with the overrides in it. A preset of the encoder drops the dimensions that the config gave.

        A text for `start` stands for its weights.
        """
        if isinstance(self.data.get("start"), str):
            self.data["start"] = {"weights": self.data["start"]}
        for keys, value in self.changes:
            if keys == ("model", "encoder", "preset") and isinstance(value, str) and value in PRESETS:
                _drop_dimensions(self.data)
        changes = [
            (("start", "weights"), value) if keys == ("start",) and isinstance(value, str) else (keys, value)
            for keys, value in self.changes
        ]
        apply_overrides(self.data, settle_lists(self.data, changes))
        return self.data


def read_given(source: str | Path | Mapping[Any, Any] | None, overrides: Sequence[str]) -> Given:
    """The config that a user means. Raises ConfigError where there is none, or it or an override can't be read."""
    if isinstance(source, Mapping):
        data, where = plain(source), "the given mapping"
    else:
        path = find_config(source)
        data, where = read_config(path), str(path)
    changes = [parse_override(text) for text in overrides]
    return Given(data, changes, f"{where} and the overrides" if changes else where)


def check_early(
    source: str | Path | Mapping[Any, Any] | None, overrides: Sequence[str] = (), kind: type[Trained] = RunConfig
) -> None:
    """Raise the ConfigError of a config whose fault needs no component to be seen.

    Such as a wrong name, unreadable YAML, an unknown section, or a setting of `model`, `optim`, `train` or `evaluate`.
    What passes here may still be refused by `load_config`, which knows the components.
    """
    given = read_given(source, overrides)
    data = given.settled()
    known = {key: {} if value is None and key in kind.model_fields else value for key, value in data.items()}
    open_ = {*kind.components, *kind.lists}
    free: dict[str, Any] = {section: (Any, None) for section in open_}
    model = create_model("Early", __base__=kind, **free)
    problems: list[Problem] = []
    try:
        settled = model.model_validate(known)
    except ValidationError as error:
        problems += translate(error.errors(), known, lambda section: section_model(section, model))
    else:
        fixed = {key: value for key, value in known.items() if key not in open_}
        problems += truth_as_number(fixed, settled.model_dump(exclude=open_), ())
    if problems:
        rest = ", ".join([*kind.components, *kind.lists])
        raise config_error(problems, given.where, fix=f"Mend that first; {rest} are looked at after it.")


def section_model(section: str, model: type[Trained]) -> type[BaseModel] | None:
    """The model behind a section that every run has; "" is the whole config."""
    if not section:
        return model
    annotation = model.model_fields[section].annotation if section in model.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _drop_dimensions(data: dict[Any, Any]) -> None:
    """Leave to the encoder's section what a preset doesn't set."""
    model = data.get("model")
    encoder = model.get("encoder") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(encoder, dict):
        model["encoder"] = {key: value for key, value in encoder.items() if key not in ("dim", "depth", "heads")}


def truth_as_number(given: object, settled: object, path: tuple[str | int, ...]) -> list[Problem]:
    """Where true or false was given for a number: pydantic would read it as 1 or 0."""
    if isinstance(given, bool) and isinstance(settled, int | float) and not isinstance(settled, bool):
        return [Problem(dotted(path), f"expected a number, got {shown(given)}.")]
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(given, Mapping) and isinstance(settled, Mapping):
        pairs = [(key, value, settled[key]) for key, value in given.items() if key in settled]
    elif isinstance(given, list) and isinstance(settled, list | tuple):
        pairs = [(index, *both) for index, both in enumerate(zip(given, settled, strict=False))]
    return [problem for key, one, other in pairs for problem in truth_as_number(one, other, (*path, key))]
