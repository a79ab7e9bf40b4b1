"""What docs/plugins prints is a plugin: each page is installed as printed and held to the conformance kit."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from maskedmodel_image.tokenizer import ImageSettings
from typer.testing import CliRunner

import maskedmodel
from maskedmodel.errors import MaskedModelError
from maskedmodel.installed import PROJECT
from maskedmodel.plugins import KINDS, load_registry
from maskedmodel.testing import run_checks
from maskedmodel.weights.runs import save
from tests.engine.conftest import model_of
from tests.packaging.pages import ROOT, fenced
from tests.runs import ENVIRONMENT, SMALL

PAGES = sorted((ROOT / "docs/plugins").glob("*.md"))
# Pages that provide no component, and so are run in another way below.
OTHERS = ("command", "index")


def code(page: Path) -> str:
    (block,) = fenced(page, "python")
    return block


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's block as a module that any process can import; its name."""
    name = f"maskedmodel_page_{request.param.stem}"
    (tmp_path / f"{name}.py").write_text(code(request.param), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield name
    sys.modules.pop(name, None)


PLUGINS = [page for page in PAGES if page.stem not in OTHERS]
# Much like what the default suite holds to the kit anyway.
ALIKE = ("grid", "mask", "objective", "ragged")
CASES = [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in ALIKE else []) for page in PLUGINS]


@pytest.mark.parametrize("module", CASES, indirect=True)
def test_a_page_is_a_plugin_that_keeps_the_contract(module: str) -> None:
    points = [*entry_points(group=PROJECT), EntryPoint(module, module, PROJECT)]
    registry = load_registry(strict=True, allow=[module, "objectives"], entry_points=points)  # which a page may hold
    results = run_checks(registry, module)
    assert [result for result in results if result.status == "failed"] == []
    assert sum(result.status == "passed" for result in results) > 10


def test_the_command_of_its_page_counts_weights(tmp_path: Path) -> None:
    """As a plugin's verb is called, on a run and where there is none."""
    model = model_of(load_registry().build("tokenizer", ImageSettings(size=16, patch=4)))
    save(model, tmp_path / "run")
    namespace: dict[str, Any] = {}
    exec(compile(code(ROOT / "docs/plugins/command.md"), "command.md", "exec"), namespace)
    app = typer.Typer()
    app.command()(namespace["count"])
    done = CliRunner().invoke(app, [str(tmp_path / "run")])
    assert done.output == f"{sum(weight.numel() for weight in model.encoder.parameters()):,} weights\n"
    assert isinstance(CliRunner().invoke(app, [str(tmp_path / "none")]).exception, MaskedModelError)


def test_the_callback_of_its_page_writes_the_table_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as a stranger's distribution is, by metadata beside a module."""
    about = tmp_path / "maskedmodel_tables-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: maskedmodel-tables\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text("[maskedmodel]\ntables = maskedmodel_page_tables\n", "utf-8")
    (tmp_path / "maskedmodel_page_tables.py").write_text(code(ROOT / "docs/plugins/callback.md"), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = [*SMALL, "train.steps=3", "evaluate.pictures=0", "callbacks.csv.file=table.csv"]
    run = tmp_path / "run"
    maskedmodel.pretrain(run=run, overrides=settings, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    rows = [[line["step"], name, value] for line in lines for name, value in line.items() if name != "step"]
    with (run / "table.csv").open(encoding="utf-8", newline="") as table:
        written = list(csv.reader(table))
    assert written == [["step", "figure", "value"], *([str(cell) for cell in row] for row in rows)]


@pytest.mark.slow
def test_the_kit_runs_as_the_first_page_prints_it(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(code(ROOT / "docs/plugins/index.md"), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"(\d+) passed", done.stdout)


def test_there_are_pages_for_every_kind() -> None:
    hooks = set(re.findall(r"^def (maskedmodel_\w+)", "\n".join(code(page) for page in PLUGINS), re.MULTILINE))
    assert hooks == {f"maskedmodel_{kind}s" for kind in KINDS}
    linked = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/plugins/index.md").read_text("utf-8"))
    assert {page.name for page in PAGES} == {"index.md", *linked}
