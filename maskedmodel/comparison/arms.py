"""What is compared with what: each arm is the config under some overrides, with a label that tells it from the others.

A mask is a name, `name:key=value,key=value`, or a YAML mapping in braces. A variation is `key=value,key=value` with
whole keys, such as `model.decoder.depth=2`. Masks and variations are crossed; the first arm is the one that all others
are held against.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskedmodel.config.files import parse_override, parse_yaml
from maskedmodel.config.load import difference, load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError, MaskedModelError
from maskedmodel.plugins import Registry

Source = str | Path | Mapping[Any, Any] | None
Mask = str | Mapping[str, Any]

# What must stay as it is for all arms, and why.
_FIXED = {
    "callbacks": "they change no result",
    "data": "all arms read the same data",
    "evaluate": "all arms are measured in one way",
    "train.steps": "the budget decides it",
    "train.seed": "--seeds decides it",
    "train.device": "it changes no result",
    "train.validation_samples": "all arms are measured in one way",
    "train.validation_ratio": "all arms are measured in one way",
}
_OPEN, _CLOSE, _QUOTES = "[{(", "]})", "\"'"
_LONGEST = 80  # characters of a folder's name


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    label      as people read it, unique in the comparison.
    slug       the same as the name of a folder.
    overrides  what it changes in the config.
    origin     the option that asked for it, for errors.
    config     the settled config, before seed and steps are set.
    """

    label: str
    slug: str
    overrides: tuple[str, ...]
    origin: str
    config: RunConfig


def arms_of(
    source: Source, overrides: Sequence[str], masks: Sequence[Mask], vary: Sequence[str], registry: Registry
) -> list[Arm]:
    """The arms in the order asked for. Raises ConfigError, naming the option, on one that can't be."""
    first = [_of_mask(mask, registry) for mask in masks] or [("", (), "")]
    second = [_of_variation(text) for text in vary] or [("", (), "")]
    arms = []
    for mask_label, mask_changes, mask_origin in first:
        for label, changes, origin in second:
            named = ", ".join(part for part in (mask_label, label) if part) or "the config as it is"
            asked = " ".join(part for part in (mask_origin, origin) if part) or "the config"
            arms.append(make_arm(source, overrides, named, (*mask_changes, *changes), asked, registry))
    for index, arm in enumerate(arms):
        for other in arms[:index]:
            if not difference(arm.config, other.config):
                raise ConfigError(
                    "Two arms are the same.", where=arm.origin, got=f"{other.label!r} twice", fix="Leave one out."
                )
    return distinct(arms)


def make_arm(
    source: Source, overrides: Sequence[str], label: str, changes: Sequence[str], origin: str, registry: Registry
) -> Arm:
    """An arm and its settled config; what the config refuses says which option asked for it."""
    try:
        config = load_config(source, [*overrides, *changes], registry=registry)
    except MaskedModelError as error:
        if not changes:
            raise
        where = origin if error.where is None else f"{origin}, in {error.where}"
        raise type(error)(error.what, where=where, expected=error.expected, got=error.got, fix=error.fix) from error
    return Arm(label, slug_of(label), tuple(changes), origin, config)


def distinct(arms: Sequence[Arm]) -> list[Arm]:
    """The arms with labels and folders of their own, whatever the file system thinks of capitals."""
    seen: set[str] = set()
    named = []
    for arm in arms:
        label, number = arm.label, 1
        while slug_of(label).lower() in seen:
            number += 1
            label = f"{arm.label} ({number})"
        seen.add(slug_of(label).lower())
        named.append(replace(arm, label=label, slug=slug_of(label)))
    return named


def slug_of(label: str) -> str:
    """A label as the name of a folder: plain characters, not too long, still told from other labels."""
    plain = re.sub(r"=-+", "=", re.sub(r"[^A-Za-z0-9._=-]+", "-", label)).strip("-.=")
    if plain and len(plain) <= _LONGEST and not re.search(r"[^A-Za-z0-9._= ,:{}()\[\]-]", label):
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(label.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}".strip("-")


def _of_mask(mask: Mask, registry: Registry) -> tuple[str, tuple[str, ...], str]:
    """Label, overrides and option of a mask."""
    if isinstance(mask, Mapping):
        settings, origin = dict(mask), f"masks: {json.dumps(dict(mask), default=str)}"
    elif mask.lstrip().startswith("{"):
        origin = f"--mask {mask}"
        settings = parse_yaml(mask, where=origin)
    else:
        origin = f"--mask {mask}"
        head, _, rest = mask.partition(":")
        own, _, more = rest.partition(":")
        if registry.canonical("mask_scheduler", f"{head}:{own}") in registry.mask_schedulers:  # plugin:name
            head, rest = f"{head}:{own}", more
        settings = {"name": head.strip(), **_pairs(rest, origin)}
    name = settings.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            "A mask needs a name.",
            where=origin,
            expected="a name, name:key=value,key=value, or {name: ..., key: value}",
            fix="Write it like --mask uniform:ratio=0.5. `maskedmodel plugins` lists the names.",
        )
    others = {key: value for key, value in settings.items() if key != "name"}
    label = " ".join([name, *(f"{key}={_shown(value)}" for key, value in others.items())])
    changes = [f"mask.{key}={json.dumps(value)}" for key, value in others.items()]
    return label, (f"mask.name={json.dumps(name)}", *changes), origin


def _of_variation(text: str) -> tuple[str, tuple[str, ...], str]:
    origin = f"--vary {text}"
    pairs = _pairs(text, origin)
    if not pairs:
        raise ConfigError("A variation is empty.", where=origin, fix="Write it like --vary model.decoder.depth=2.")
    for key in pairs:
        for fixed, why in _FIXED.items():
            if key == fixed or key.startswith(f"{fixed}."):
                raise ConfigError(
                    f"{key} can't differ between arms: {why}.",
                    where=origin,
                    fix=f"Set it for all of them: {key}={_shown(pairs[key])} without --vary.",
                )
    label = ", ".join(f"{key}={_shown(value)}" for key, value in pairs.items())
    return label, tuple(f"{key}={json.dumps(value)}" for key, value in pairs.items()), origin


def _pairs(text: str, origin: str) -> dict[str, Any]:
    """`key=value,key=value` with commas inside brackets and quotes left alone."""
    pairs: dict[str, Any] = {}
    for part in _split(text):
        if not part.strip():
            continue
        try:
            keys, value = parse_override(part)
        except ConfigError as error:
            if "=" in part:  # it is the value that can't be read
                raise ConfigError(error.what, where=origin, got=part.strip(), fix=error.fix) from error
            raise ConfigError(
                "This isn't key=value.", where=origin, got=part.strip(), fix="Write it like key=value,key=value."
            ) from error
        pairs[".".join(keys)] = value
    return pairs


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def _shown(value: Any) -> str:
    """A value as people write it: {shape: linear, start: 0.6}."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
