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
from typing import Annotated, Any, Literal, get_args, get_origin

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
    parameters = [_plain(parameter) for parameter in found.parameters.values() if parameter.name not in ("self", "cls")]
    # A bare star or slash is no parameter, so the whole line is taken from Python where it is short.
    line = name + str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)).replace("'", "")
    if len(line) <= _SIGNATURE:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters).replace("'", "") + ")"


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """Without what pydantic adds to an annotation: bounds stand in the reference of settings."""
    if isinstance(parameter.annotation, str | type) or parameter.annotation is inspect.Parameter.empty:
        return parameter
    return parameter.replace(annotation=_bare(parameter.annotation))


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    parts = tuple(_bare(part) for part in get_args(annotation) if part is not Ellipsis)
    if get_origin(annotation) is tuple and Ellipsis in get_args(annotation):
        return tuple[parts[0], ...]
    return annotation if not parts or get_origin(annotation) is Literal else get_origin(annotation)


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
