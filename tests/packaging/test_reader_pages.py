"""Each row of the tables of readers names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/readers").glob("*.md"))


def names(path: Path) -> set[str]:
    """The tests of a file, those of a class as Class::test."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_row_names_a_test_that_is_there(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    rows = [line for line, below in pairwise([*lines, ""]) if line.startswith("| ") and not below.startswith("|---")]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[^`]+\.py)::([^`]+)`", row)
        assert named, f"{page.name} names no test in the row {row!r}"
        for path, test in named:
            assert (ROOT / path).is_file(), f"{page.name}: there is no {path}"
            assert test in names(ROOT / path), f"{page.name}: there is no {test} in {path}"


def test_there_are_pages() -> None:
    assert {
        "images.md",
        "labels.md",
        "microscopy.md",
        "points.md",
        "signals.md",
        "sound.md",
        "spectra.md",
        "text.md",
        "timeseries.md",
        "video.md",
    } <= {page.name for page in PAGES}
