"""Pages point at files that are there, and their tables are those of committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.masking import table

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("benchmarks/**/*.md"),
    *ROOT.glob("examples/**/*.md"),
]
COMPARED = sorted(ROOT.glob("benchmarks/results/*/results.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    local = [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("kept", COMPARED, ids=lambda kept: kept.parent.name)
def test_a_table_is_that_of_its_results(kept: Path) -> None:
    assert kept.read_text("utf-8") == table(json.loads((kept.parent / "results.json").read_text("utf-8")))
    assert kept.read_text("utf-8") in (ROOT / "docs/masking.md").read_text("utf-8")


def test_there_are_pages_and_tables() -> None:
    assert len(PAGES) > 20
    assert len(COMPARED) > 4
