"""The notebook runs from its first cell to its last, in an empty folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "examples/digits.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return found


@pytest.mark.slow
def test_it_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells()):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    training, rows = names["result"].training, {row.name: row for row in names["result"].probe.rows}
    assert training.val_loss_end < 0.6 * training.val_loss_start
    trained, random = rows["trained encoder"].few["10"], rows["same encoder, random weights"].few["10"]
    assert trained > random + 0.1  # what the notebook says of ten labels
    neighbours = names["digits"].target[names["nearest"]]
    assert (neighbours == neighbours[0]).sum() >= 6
    assert Image.open(names["picture"]).width > 300
    assert (names["run"] / "report.html").is_file()


def test_it_is_kept_without_outputs() -> None:
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
