"""Pieces of HTML that the pages share. Every text that isn't ours goes through `text`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

CELL = 400  # characters of a text, unless more are asked for


def text(value: object, most: int = CELL) -> str:
    """Any text of a run, safe to put anywhere in a page, its middle left out where it is very long."""
    whole = str(value)
    if len(whole) > most:
        whole = f"{whole[: most // 2]} ... {whole[-most // 2 :]}"
    # A lone surrogate, as in a file name that isn't UTF-8, can't be written at all.
    return escape(whole.encode("utf-8", "backslashreplace").decode("utf-8"))


def section(heading: str, body: str) -> str:
    """A part of the page, or nothing where it has no body."""
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>" if body else ""


def number(value: Any, digits: int = 4) -> str:
    """A short number; "-" for what is none or isn't finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def table(caption: str, headings: Sequence[str], rows: Sequence[str]) -> str:
    """A table of rows that are markup already."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    top = (f"<caption>{caption}</caption>" if caption else "") + (f"<thead><tr>{head}</tr></thead>" if head else "")
    kind = ' class="two"' if len(headings) != 3 else ""
    return f'<div class="scroll"><table{kind}>{top}<tbody>{"".join(rows)}</tbody></table></div>'


def part(name: str) -> str:
    """A file that lies beside this module."""
    return resources.files("maskedmodel.report").joinpath(name).read_text("utf-8")
