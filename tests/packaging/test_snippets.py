"""The Python and the YAML that pages print work as printed: Python runs, block after block, and YAML is a config."""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_image.tokenizer import ImageSettings
from PIL import Image
from ruamel.yaml import YAML

import maskedmodel
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import MaskedModelError
from maskedmodel.plugins import load_registry
from maskedmodel.weights.runs import save
from tests.engine.conftest import model_of
from tests.packaging.pages import PAGES, ROOT, fenced, indented, written_by_a_script
from tests.test_modalities import SMALLER

BY_HAND = [page for page in PAGES if not written_by_a_script(page)]
WITH_PYTHON = [page for page in BY_HAND if fenced(page, "python")]
YAMLS = [(page, block) for page in BY_HAND for block in fenced(page, "yaml")]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks in one namespace. What the page speaks of and doesn't make is there: its runs, and two images.

    Features are those of the run's model; components are the page's own (the kit holds them: test_plugin_pages.py).
    """
    blocks = fenced(page, "python")
    model = model_of(load_registry().build("tokenizer", ImageSettings(size=16, patch=4)))
    for run in re.findall(r'"(runs/[\w-]+)"', "".join(blocks)):
        save(model, tmp_path / run)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"page_{page.stem}")
    module.__dict__["images"] = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, block {number}", "exec"), module.__dict__)
    names = module.__dict__
    if "features" in names:
        torch.testing.assert_close(names["features"], model.eval().embed(names["images"]))
    hooks = [name for name in names if name.startswith("maskedmodel_")]
    assert all(issubclass(component, maskedmodel.Component) for hook in hooks for component in names[hook]())
    made = [name for name, value in names.items() if getattr(value, "__module__", None) == module.__name__]
    assert "features" in names or made, "the blocks of the page leave nothing"


def configs(block: str) -> list[dict[str, Any]]:
    """A block as configs: one, or one for each line where a block gives several values of one section."""
    lines = block.splitlines()
    keys = [line.partition(":")[0] for line in lines if re.match(r"\w", line)]
    texts = [block] if len(set(keys)) == len(keys) else lines
    return [dict(YAML(typ="safe").load(text)) for text in texts]


def checked(config: dict[str, Any], folder: Path) -> None:
    """A whole config is loaded; parts of one, within the first quickstart of which they can be drawn."""
    if {"data", "tokenizer"} <= config.keys():
        load_config(config, registry=load_registry())
        return
    refused = []
    for name, smaller in SMALLER.items():
        whole = {**dict(YAML(typ="safe").load(ROOT / f"configs/{name}.yaml")), **config}
        try:
            assert Image.open(maskedmodel.preview(whole, overrides=smaller, out=folder / "drawn.png")).width > 100
        except MaskedModelError as error:
            refused.append(f"{name}: {error}")
        else:
            return
    raise AssertionError("\n".join(refused))


@pytest.mark.parametrize(("page", "block"), YAMLS, ids=[named(page) for page, _ in YAMLS])
def test_the_yaml_of_a_page_is_a_config(page: Path, block: str, tmp_path: Path) -> None:
    for config in configs(block):
        checked(config, tmp_path)


def test_wrong_yaml_is_seen(tmp_path: Path) -> None:
    several = configs("mask: {name: uniform}\nmask: {name: strips, shares: {thyme: 0.7}}\n")
    assert [config["mask"]["name"] for config in several] == ["uniform", "strips"]
    checked(several[0], tmp_path)
    with pytest.raises(AssertionError, match="thyme"):
        checked(several[1], tmp_path)
    with pytest.raises(MaskedModelError, match="stepz"):
        checked({"data": {"name": "digits"}, "tokenizer": {"name": "image"}, "train": {"stepz": 1}}, tmp_path)


@pytest.mark.parametrize("page", BY_HAND, ids=named)
def test_python_and_yaml_are_fenced(page: Path) -> None:
    """An indented block is commands or what they print, so that none of the others escapes the tests above."""
    for block in indented(page):
        assert not re.match(rf"(#.*\n)*({'|'.join(RunConfig.model_fields)}):", block), block
        assert not re.match(r"(@\w|class \w+\b.*:$|def \w+\(|(import|from) \w)", block, re.MULTILINE), block
        try:
            tree = ast.parse(block)
        except SyntaxError:
            continue
        assert not any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom) for node in ast.walk(tree)), block


def test_there_are_blocks() -> None:
    assert {page.name for page in WITH_PYTHON} >= {"README.md", "pretrain.md", "index.md", "grid.md"}
    assert {page.name for page, _ in YAMLS} >= {"pretrain.md", "weights.md", "strips.md"}
    assert {page.name for page in PAGES if written_by_a_script(page)} == {"api.md", "config.md"}
