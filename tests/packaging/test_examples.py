"""The example scripts run as written, in an empty folder, on data they make themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ENVIRONMENT

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("own_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_runs_as_written(script: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("report.html"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
