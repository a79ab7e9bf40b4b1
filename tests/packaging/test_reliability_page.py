"""docs/reliability.md: every fault has its number and tests that are there, or the reason why nothing holds it."""

from __future__ import annotations

import re

from tests.packaging.test_reader_pages import ROOT, names

ROWS = [
    [cell.strip() for cell in line.strip("|").split(" |")]
    for line in (ROOT / "docs/reliability.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d", line)
]


def test_rows_are_numbered_without_gaps() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 76))
    assert all(len(row) == 4 for row in ROWS)


def test_every_row_names_tests_that_are_there_or_says_why_not() -> None:
    for number, _, outcome, tests in ROWS:
        named = re.findall(r"`(tests/[^`]+\.py)::([^`]+)`", tests)
        assert tests == ", ".join(f"`{path}::{test}`" for path, test in named), f"row {number}: {tests}"
        assert bool(named) != outcome.startswith("not held: "), f"row {number} names no test and gives no reason"
        for path, test in named:
            assert (ROOT / path).is_file(), f"row {number}: there is no {path}"
            assert test in names(ROOT / path), f"row {number}: there is no {test} in {path}"
