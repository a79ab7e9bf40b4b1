"""Config text in and out: where configs lie, YAML 1.2 within limits, overrides from the command line."""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.representer import SafeRepresenter

from maskedmodel.errors import ConfigError, suggestion

DEFAULT_CONFIG = "image-quickstart"
MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # values in a config with every alias written out
MAX_DEPTH = 32


class _Constructor(SafeConstructor):
    """YAML 1.2 has no dates: 2024-01-01 is text, such as the name of a folder."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


class _Representer(SafeRepresenter):
    """Text with anything but printable characters is escaped: some would be read back as line breaks."""

    def represent_str(self, data: str) -> Any:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


def configs_folder() -> Path:
    """The configs that come with the package: beside it in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.stem for path in configs_folder().glob("*.yaml"))


def find_config(source: str | Path | None) -> Path:
    """The file that a config argument means: None = the default, a bare word = one that comes with the package.

    Raises ConfigError, with the nearest name, where there is none.
    """
    if source is None:
        source = DEFAULT_CONFIG
    path = Path(source)
    if isinstance(source, str) and source and path.name == source and not path.suffix:
        packaged = configs_folder() / f"{source}.yaml"
        if packaged.is_file() or not os.path.isfile(path):
            path = packaged
    if os.path.isdir(path):
        inner = path / "config.yaml"
        fix = f"Name the file: {inner}" if os.path.isfile(inner) else "Name a YAML file."
        raise ConfigError(f"{source} is a folder, not a config.", fix=fix)
    if not _missing(path):
        return path
    siblings = [str(path.with_name(other.name)) for other in _yaml_files(path.parent)]
    close = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    fix = f"Did you mean {close[0]}?" if close else suggestion(source, config_names())
    if path.parent == configs_folder():
        fix = suggestion(source, config_names())
    raise ConfigError(f"There is no config {str(source)!r}.", where=path, fix=fix)


def _missing(path: Path) -> bool:
    """Whether nothing is there. What can't be told, such as for want of permission, reading will say."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a null byte
        return True
    except OSError:
        return False
    return False


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):  # only for a suggestion
        return []


def read_config(path: Path) -> dict[Any, Any]:
    """The raw mapping in a file. Raises ConfigError where it can't be read, isn't YAML, or passes the limits."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError("The config can't be read.", where=path, got=error.strerror or str(error)) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError("The config is too large.", where=path, expected=f"at most {MAX_BYTES // 1024} KiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("The config isn't text in UTF-8.", where=path, got=f"a bad byte at {error.start}") from error
    value = parse_yaml(text, where=path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError("A config is a mapping of sections.", where=path, got=f"a {type(value).__name__}")
    return value


def parse_yaml(text: str, where: object = None) -> Any:
    """The value of a YAML 1.2 document, made of plain Python values.

    1e-4 is a number and `no` a word. Refused with a ConfigError: tags, duplicate keys, other versions of YAML, aliases
    that contain themselves, and more depth or values than a config needs (which stops an alias bomb early).
    """
    try:
        _check_events(text, where)
        yaml = _yaml()
        yaml.Constructor = _Constructor
        return _unshare(yaml.load(text), where)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = " ".join(str(error.problem or error.context or "unreadable").split())
        raise ConfigError(f"The YAML is wrong: {problem}.", where=f"{where or 'value'}{position}") from error
    except (YAMLError, ValueError) as error:  # ValueError: a number of more digits than Python reads
        raise ConfigError(f"The YAML is wrong: {' '.join(str(error).split())}", where=where) from error


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_events(text: str, where: object) -> None:
    """Read the document as a stream, before anything is built from it."""

    def refuse(what: str, fix: str) -> ConfigError:
        return ConfigError(what, where=f"{where or 'value'}, line {event.start_mark.line + 1}", fix=fix)

    sizes: dict[str, int] = {}  # values under each anchor, aliases written out
    open_: list[tuple[str | None, int]] = []  # collections being read: anchor, and the total when they began
    total = 0
    for event in _yaml().parse(text):
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise refuse("A config is YAML 1.2.", "Remove the %YAML line.")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            raise refuse(f"A config holds plain values, no tags such as {event.tag}.", "Remove the tag.")
        if isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise refuse(f"The alias *{event.anchor} isn't defined before it is used.", "Write the value out.")
            total += sizes[event.anchor]
        elif isinstance(event, CollectionStartEvent):
            open_.append((event.anchor, total))
            total += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, NodeEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MAX_NODES or len(open_) > MAX_DEPTH:
            raise refuse(
                f"A config has at most {MAX_NODES} values, {MAX_DEPTH} levels deep, aliases written out.",
                "Shorten it, or use fewer aliases.",
            )


def _unshare(value: Any, where: object = None, depth: int = 0) -> Any:
    """A copy in which nothing is shared, so that an override of one place doesn't change an alias of it.

    Raises ConfigError where it is deeper than a config may be, holds a number of more than 64 bits, or text that no
    file can hold.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"A config is at most {MAX_DEPTH} levels deep.", where=where, fix="Flatten it.")
    if isinstance(value, Mapping):
        return {_scalar(key, where): _unshare(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unshare(item, where, depth + 1) for item in value]
    return _scalar(value, where)


def _scalar(value: Any, where: object) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        bits = f"one of {value.bit_length()} bits"
        raise ConfigError("A number in a config has at most 64 bits.", where=where, got=bits)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError("Text in a config is UTF-8.", where=where, got=f"{value[:40]!r}") from error
    return value


def plain(source: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy of a config given in Python, made of dicts and lists."""
    copy: dict[Any, Any] = _unshare(source, "the given mapping")
    return copy


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """`a.b.c=value` as its keys and its value.

    An entry of a list is named by its number: `a[0].b` or `a.0.b`. The value is a YAML scalar, or a list or mapping in
    brackets: [0.9, 0.95]. Anything else is text, as it stands.
    """
    dotted, equals, value = text.partition("=")
    keys = tuple(key.strip() for key in re.sub(r"\[(\d+)\]", r".\1", dotted).split("."))
    if not equals or not all(keys):
        raise ConfigError("An override reads key=value.", got=text, fix="Write it like train.steps=500.")
    return keys, _override_value(value.strip(), dotted.strip())


def _override_value(text: str, dotted: str) -> Any:
    if text.startswith(("[", "{", '"', "'", "!")):
        value = parse_yaml(text, where=dotted)
        for key in value if isinstance(value, dict) else ():
            if value[key] is None and ":" in str(key):  # {width:0.5} is a key without a value
                fix = f"Write {{{str(key).replace(':', ': ', 1)}}}, in quotes for the shell."
                raise ConfigError("A colon in YAML takes a space behind it.", where=dotted, got=text, fix=fix)
        return value
    try:
        scalars = [event for event in _yaml().parse(text) if isinstance(event, NodeEvent)]
    except YAMLError:
        return text  # text that YAML would read otherwise, such as *.png or a: b: c
    if len(scalars) == 1 and isinstance(scalars[0], ScalarEvent) and scalars[0].value == text:
        return parse_yaml(text, where=dotted)
    return text or None


def apply_overrides(data: dict[Any, Any], overrides: Iterable[tuple[tuple[str, ...], Any]]) -> None:
    """Write each override into `data`, in order, making sections where there are none. Entries of lists must exist.

    Raises ConfigError on an entry that a list hasn't, and on a key below a value.
    """
    for keys, value in overrides:
        section: Any = data
        for depth, key in enumerate(keys):
            where = f"override {'.'.join(keys)}"
            if isinstance(section, list):
                if not key.isdecimal() or int(key) >= len(section):
                    raise ConfigError(
                        f"{'.'.join(keys[:depth])} is a list, and {key!r} is none of its entries.",
                        where=where,
                        expected=f"a number from 0 to {len(section) - 1}" if section else "a list that isn't empty",
                        got=key,
                    )
                place: Any = int(key)
            elif isinstance(section, dict):
                place = key
            else:
                raise ConfigError(f"{'.'.join(keys[:depth])} is a value, not a section.", where=where)
            if depth == len(keys) - 1:
                section[place] = value
            elif isinstance(section, dict) and section.get(place) is None:
                section[place] = {}
            section = section[place]


def to_yaml(data: Mapping[str, Any]) -> str:
    """Block style, in the order given; what `parse_yaml` reads back as the same values."""
    yaml = _yaml()
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    out = io.StringIO()
    yaml.dump(dict(data), out)
    return out.getvalue()
