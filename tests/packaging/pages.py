"""The pages that people read, and their blocks: Python and YAML are fenced, commands and what they print indented."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


def written_by_a_script(page: Path) -> bool:
    """Whether a page is generated: its code is signatures, which the script's own test holds."""
    return "\nWritten by `python docs/" in page.read_text("utf-8")


def fenced(page: Path, language: str) -> list[str]:
    """The blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def indented(page: Path) -> list[str]:
    """The indented blocks, without their indentation."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in found]
