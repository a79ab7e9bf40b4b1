"""Writes docs/config.md, every setting of a config, from the JSON schema of the built-in components.

python docs/reference.py            writes it
python docs/reference.py --check    exits with 1 where docs/config.md is not what the schema says
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import config_schema
from maskedmodel.plugins import Registry, load_registry

PAGE = Path(__file__).parent / "config.md"
PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
BUILT_IN = tuple(PROJECT["entry-points"]["maskedmodel"])
HEAD = """\
# Every setting of a config

Written by `python docs/reference.py` from the schema that a config is checked against; don't edit it by hand.
`maskedmodel config schema` prints that schema for an editor, with the plugins that are installed, and
`maskedmodel config show NAME` prints a config with every default. A setting with the default *required* must be given.

"""
FINETUNE = """\
# Settings of fine-tuning

`maskedmodel finetune` takes `data`, `tokenizer`, `mask`, `model.encoder`, `start` and `callbacks` as above, and these.
`mask` may be null, which hides nothing and is the default.

"""
OWN = ("task", "adapt", "optim", "train")  # sections that pretraining has not, or with other defaults
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def built_in() -> Registry:
    """The components of this distribution, whatever else is installed."""
    return load_registry(strict=True, allow=BUILT_IN, block=())


def kind_of(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words: `integer > 0, or null`."""
    if "component" in schema:
        return f"a component of the kind {schema['component'].replace('_', ' ')}, by name"
    if "$ref" in schema:
        return kind_of(defs[schema["$ref"].rpartition("/")[2]], defs)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return ", or ".join(dict.fromkeys(kind_of(part, defs) for part in schema[key]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    if "prefixItems" in schema:
        return "[" + "; ".join(kind_of(part, defs) for part in schema["prefixItems"]) + "]"
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}), defs)}"
    named = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    if any(named):
        return f"mapping of {kind_of(next(filter(None, named)), defs)} by name"
    if schema.get("properties"):
        inner = (f"{name}: {kind_of(value, defs)}" for name, value in schema["properties"].items())
        return "mapping {" + "; ".join(inner) + "}"
    bounds = " and ".join(f"{sign} {schema[key]}" for key, sign in BOUNDS.items() if key in schema)
    return f"{schema.get('type', 'any value')} {bounds}".strip()


def default_of(name: str, schema: Mapping[str, Any], required: list[str]) -> str:
    """The default as it would stand in a config."""
    if name in required or "default" not in schema:
        return "*required*"
    return f"`{json.dumps(schema['default'])}`"


def cell(text: str) -> str:
    """Text that can't end a cell of a table or a line."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def table(schema: Mapping[str, Any], defs: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """The settings of one object, a row each."""
    required = schema.get("required", [])
    rows = [
        f"| `{name}` | {cell(kind_of(value, defs))} | {cell(default_of(name, value, required))} "
        f"| {cell(value.get('description', ''))} |\n"
        for name, value in schema.get("properties", {}).items()
        if name not in without
    ]
    return (
        "| setting | values | default | what it is |\n|---|---|---|---|\n" + "".join(rows) if rows else "No settings.\n"
    )


def nested(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The settings that are sections themselves, such as `model.encoder`."""
    properties = schema.get("properties", {})
    refs = {name: value["$ref"].rpartition("/")[2] for name, value in properties.items() if "$ref" in value}
    return {name: defs[ref] for name, ref in refs.items() if defs[ref].get("properties")}


def first_line(schema: Mapping[str, Any]) -> str:
    """What a class of settings says of itself, its first paragraph."""
    return str(schema.get("description", "")).partition("\n\n")[0]


def section(name: str, value: Mapping[str, Any], defs: Mapping[str, Any], of: str = "") -> Iterator[str]:
    """One section of a config: its components by name, or its own settings. `of` is which kind of config's, if told."""
    yield f"## {of}{name}\n\n{value.get('description', '')}\n\n"
    mapping = (value.get("discriminator") or value.get("items", {}).get("discriminator", {})).get("mapping")
    if mapping:
        for component, ref in sorted(mapping.items()):
            yield f"### {name}: {component}\n\n{table(defs[ref.rpartition('/')[2]], defs, ('name',))}\n"
        return
    own = defs[value["$ref"].rpartition("/")[2]]
    inner = nested(own, defs)
    if len(inner) < len(own["properties"]):
        yield f"{table(own, defs, tuple(inner))}\n"
    for key, part in inner.items():
        yield f"### {name}.{key}\n\n{first_line(part)}\n\n{table(part, defs)}\n"


def written() -> str:
    """The whole page."""
    registry = built_in()
    schema, tuning = config_schema(registry), config_schema(registry, FinetuneConfig)
    parts = [text for name, value in schema["properties"].items() for text in section(name, value, schema["$defs"])]
    own = {name: value for name, value in tuning["properties"].items() if name in OWN}
    parts += [
        FINETUNE,
        *(text for name, value in own.items() for text in section(name, value, tuning["$defs"], "fine-tuning: ")),
    ]
    return HEAD + "".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    text = written()
    if "--check" in sys.argv:
        sys.exit(not PAGE.exists() or text != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
