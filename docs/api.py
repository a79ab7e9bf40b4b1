"""Writes docs/api.md, every public name with its signature and docstring.

python docs/api.py            writes it
python docs/api.py --check    exits with 1 where docs/api.md is not what the code says
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

import maskedmodel

PAGE = Path(__file__).parent / "api.md"
HEAD = """\
# Every public name

Written by `python docs/api.py` from the code; don't edit it by hand. The letters of shapes: B batch, L tokens, K
visible tokens, M hidden tokens, P values per token, A axes, D encoder width, E decoder width, Q target width, S class
and register tokens. What isn't here may change without notice.
"""
GROUPS = (*maskedmodel.GROUPS, "testing")
_SIGNATURE = 100  # characters of one line


def signature(name: str, value: Any) -> str:
    """A call as it would be written, one argument a line where it is long."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parts = list(_parameters(found))
    returned = "" if found.return_annotation in (inspect.Signature.empty, None) else _type(found.return_annotation)
    end = f" -> {returned}" if returned not in ("", "None") and not inspect.isclass(value) else ""
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= _SIGNATURE:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def _parameters(found: inspect.Signature) -> Iterator[str]:
    """Each parameter as it stands in a definition, and the bare star before those that are given by name alone."""
    starred = False
    for number, parameter in enumerate(found.parameters.values()):
        if number == 0 and parameter.name in ("self", "cls"):
            continue
        starred |= parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = star + parameter.name
        typed = parameter.annotation is not parameter.empty
        if typed:
            text += f": {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += (" = " if typed else "=") + repr(parameter.default).replace("'", '"')
        yield text


def _type(annotation: Any) -> str:
    """An annotation as it is written. What pydantic adds is left out: bounds stand in the reference of settings."""
    if isinstance(annotation, str):
        return annotation.replace("'", '"')
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]".replace("'", '"')
    if arguments:
        return f"{origin.__name__}[{', '.join('...' if part is Ellipsis else _type(part) for part in arguments)}]"
    return "None" if annotation is NoneType else getattr(annotation, "__name__", str(annotation))


def said(value: Any) -> str:
    """A docstring as Markdown: paragraphs as they are, what is laid out by blanks as a block."""
    text = inspect.cleandoc(value.__doc__ or "")
    parts = []
    for paragraph in re.split(r"\n\s*\n", text):
        laid_out = re.search(r"^( {2,}\S|\S+ {2,}\S)", paragraph, re.MULTILINE)
        parts.append(f"```text\n{paragraph}\n```" if laid_out else paragraph)
    return "\n\n".join(parts)


def members(cls: type) -> Iterator[tuple[str, Any, str]]:
    """The public methods and properties that a class defines itself, in the order of its code."""
    for name, value in vars(cls).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if name.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)):
            continue
        doc = plain.fget if isinstance(plain, property) else plain
        if doc is not None and doc.__doc__:
            yield name, doc, name if isinstance(plain, property) else signature(name, plain)


def entry(name: str, value: Any) -> str:
    """One public name."""
    if not (inspect.isclass(value) or callable(value)):
        shown = repr(value).replace("'", '"')  # as the formatter of this project writes texts
        return f"### {name}\n\n```python\n{name} = {shown}\n```\n"
    shown = f"class {signature(name, value)}" if inspect.isclass(value) else signature(name, value)
    parts = [f"### {name}", f"```python\n{shown}\n```", said(value)]
    if inspect.isclass(value):
        parts += [f"#### {name}.{own}\n\n```python\n{call}\n```\n\n{said(doc)}" for own, doc, call in members(value)]
    return "\n\n".join(part for part in parts if part) + "\n"


def written() -> str:
    """The page."""
    flat = [name for name in maskedmodel.__all__ if name != "__version__"]
    parts = [HEAD, "## maskedmodel\n", *(entry(name, getattr(maskedmodel, name)) for name in flat)]
    for group in GROUPS:
        module = import_module(f"maskedmodel.{group}")
        parts.append(
            f"## maskedmodel.{group}\n\n{said(module) if group != 'testing' else said(module).split('    ')[0]}\n"
        )
        parts += [entry(name, getattr(module, name)) for name in sorted(module.__all__) if name not in flat]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


if __name__ == "__main__":
    page = written()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page else "docs/api.md isn't current: run python docs/api.py")
    PAGE.write_text(page, encoding="utf-8")
