"""Pages point at files that are there, and their tables are those of committed results."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
import unicodedata
from collections import Counter
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from benchmarks.masking import table
from maskedmodel.testing.rules import NotApplicable
from maskedmodel.testing.runner import checks_of, run_check
from tests.packaging import pages
from tests.packaging.pages import ROOT, fenced

PAGES = [*pages.PAGES, *ROOT.glob("benchmarks/**/*.md")]
COMPARED = sorted(ROOT.glob("benchmarks/results/*/results.md"))


def script(name: str) -> Any:
    """One of the scripts in docs that write a page."""
    spec = spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    local = [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


def headings(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"^#{1,6} (.*)$", text, re.M)


def on_github(headings: list[str]) -> set[str]:
    """What GitHub makes of headings: letters of any script, each blank a hyphen, and -1 after one that comes again."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings:
        name = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def on_the_site(headings: list[str]) -> set[str]:
    """What Python-Markdown makes of them: ASCII alone, blanks and hyphens in a row one hyphen, and _1."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings:
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        name = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        found.add(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(text: str, page: Path) -> list[tuple[str, str]]:
    """Links to headings that don't work in both places. One that comes again has two names, so it can't be linked."""
    targets = re.findall(r"\]\(([^)\s]*)#([^)\s]+)\)", text)
    local = [(page.parent / path if path else page, anchor) for path, anchor in targets if not path.startswith("http")]
    there = {path: on_github(headings(path)) & on_the_site(headings(path)) for path, _ in local}
    return [(str(path), anchor) for path, anchor in local if anchor not in there[path]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_are_headings_here_and_on_the_site(page: Path) -> None:
    assert broken(page.read_text("utf-8"), page) == []


def test_anchors_that_hold_in_one_place_alone_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## Say it\n\n## Say it\n\n## This - that\n\n## Größe\n", "utf-8")
    assert on_github(headings(page)) == {"a-page", "say-it", "say-it-1", "this---that", "größe"}
    assert on_the_site(headings(page)) == {"a-page", "say-it", "say-it_1", "this-that", "groe"}
    for anchor, holds in (("a-page", 1), ("say-it", 1), ("say-it-1", 0), ("say-it_1", 0), ("this-that", 0), ("no", 0)):
        assert (broken(f"[x](#{anchor})", page) == []) == bool(holds), anchor


def messages() -> set[str]:
    """Every text in the code, with an ellipsis where something is put in, line by line."""
    found: set[str] = set()
    for path in [*ROOT.glob("maskedmodel/**/*.py"), *ROOT.glob("plugins/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(node.value.split("\n"))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found |= set("".join(map(str, parts)).replace("\n", "").split("\n"))
    return found


def test_each_message_of_the_page_of_troubles_is_one_that_is_printed() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    headings = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert len(headings) > 15
    assert set(headings) - messages() == set()


def test_the_reference_of_names_is_that_of_the_code() -> None:
    """docs/api.md is current, and every public name has a docstring there."""
    api = script("api")
    page = (ROOT / "docs/api.md").read_text("utf-8")
    assert page == api.written(), "run python docs/api.py"
    for name in ("MaskedAutoencoder", "Tokenizer", "Tokens", "gather_tokens", "LabelledFiles", "parametrize_checks"):
        assert f"\n### {name}\n" in page
    assert "#### Tokenizer.tokenize\n" in page
    assert not re.search(r"0x[0-9a-f]{6}|FieldInfo|ForwardRef|UnionType|<class '", page)
    assert '    budget: str = "flops",\n' in page
    assert "val_path: str | None = None," in page
    assert "tokenize(signal: Tensor) -> Tokens" in page
    assert "    config: Source = None,\n    masks: Sequence[Mask] = (),\n    *,\n    vary:" in page


@pytest.mark.parametrize("kept", COMPARED, ids=lambda kept: kept.parent.name)
def test_a_table_is_that_of_its_results(kept: Path) -> None:
    assert kept.read_text("utf-8") == table(json.loads((kept.parent / "results.json").read_text("utf-8")))
    assert kept.read_text("utf-8") in (ROOT / "docs/masking.md").read_text("utf-8")


def test_there_are_pages_and_tables() -> None:
    assert len(PAGES) > 20
    assert len(COMPARED) > 4


def test_the_readme_is_short_and_shows_the_tree_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == script("house").written(readme), "run python docs/house.py"
    assert len(readme.splitlines()) < 150
    assert set(re.findall(r"\]\(#([a-z-]+)\)", readme)) <= {
        heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", readme, re.MULTILINE)
    }


def test_the_reference_of_settings_is_that_of_the_schema() -> None:
    """docs/config.md is current, and names every setting of the schema in a table of its own section."""
    reference = script("reference")
    page = (ROOT / "docs/config.md").read_text("utf-8")
    assert page == reference.written(), "run python docs/reference.py"
    sections = dict(part.split("\n", 1) for part in re.split(r"^#{2,3} ", page, flags=re.MULTILINE)[1:])
    assert "| `steps` | integer > 0 | `2000` | Optimizer steps of the whole run. |" in sections["train"]
    assert "| `clip` | number > 0, or null | `null` |" in sections["optim"]
    assert "| `dim` | integer > 0 | `192` |" in sections["model.encoder"]
    assert "| `steps` | integer > 0 | `200` | Optimizer steps of the whole run. |" in sections["fine-tuning: train"]
    assert "| `smoothing` |" in sections["task: classify"]
    assert sections["mask: uniform"].count("| `ratio` |") == 1
    registry = reference.built_in()
    for section, kind in (("data", "data_source"), ("tokenizer", "tokenizer"), ("mask", "mask_scheduler")):
        for name, cls in registry.of(kind).items():
            rows = re.findall(r"^\| `(\w+)` ", sections[f"{section}: {name}"], re.MULTILINE)
            assert {"name", *rows} == set(cls.settings_class.model_fields)


def test_the_plugin_of_the_readme_keeps_the_contract_as_printed() -> None:
    """The block is run as it stands, and every check of the kit passes or doesn't apply."""
    (block,) = (block for block in fenced(ROOT / "README.md", "python") if "@hookimpl" in block)
    module = types.ModuleType("maskedmodel_readme")
    sys.modules[module.__name__] = module
    try:
        exec(compile(block, "README.md", "exec"), module.__dict__)
        applied = 0
        for check in checks_of(module.EcgTokenizer):
            with suppress(NotApplicable):
                run_check(check, module.EcgTokenizer)
                applied += 1
        assert applied > 15
    finally:
        del sys.modules[module.__name__]
