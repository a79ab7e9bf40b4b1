"""The lines of Python that stand in blocks of a page run as printed, on the models that the page speaks of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_image.tokenizer import ImageSettings

from maskedmodel.plugins import load_registry
from maskedmodel.weights.runs import save
from tests.engine.conftest import model_of

ROOT = Path(__file__).parents[2]
# What docs/plugins prints is fenced, and run by test_plugin_pages.py; the README's plugin by test_docs.py.
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def blocks(page: Path) -> list[str]:
    """Indented blocks of Python: those that begin with an import."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    code = [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in found]
    return [block for block in code if re.match(r"(import|from) \w+", block)]


SNIPPETS = [(page, block) for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize(("page", "block"), SNIPPETS, ids=[page.name for page, _ in SNIPPETS])
def test_a_snippet_runs(page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(load_registry().build("tokenizer", ImageSettings(size=16, patch=4)))
    for run in re.findall(r'"(runs/[\w-]+)"', block):
        save(model, tmp_path / run)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": torch.rand(2, 3, 16, 16)}
    exec(compile(block, page.name, "exec"), names)
    torch.testing.assert_close(names["features"], model.eval().embed(names["images"]))


def test_there_are_snippets() -> None:
    assert {page.name for page, _ in SNIPPETS} >= {"README.md", "pretrain.md"}
