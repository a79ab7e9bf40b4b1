"""The shape of the house: who may import whom, how long a file may be, and what a file may not say."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import maskedmodel

ROOT = Path(__file__).parents[2]
CORE, PLUGINS = ROOT / "maskedmodel", ROOT / "plugins"

# Lowest first; an import only ever goes down. A name covers its module or its package.
FLOORS = (
    ("aligned", "errors"),
    ("files", "limits", "noise", "schedules", "settings"),
    ("tokens", "installed"),
    ("pictures",),
    ("components",),
    ("callbacks", "schedulers", "tasks", "tokenizers", "sources"),
    ("scenes",),
    ("engine", "hookspecs", "qualified"),
    ("nn",),
    ("plugins",),
    ("nested",),
    ("config",),
    ("training",),
    ("evaluation", "weights"),
    ("report", "testing"),
    ("adapting",),
    ("comparison",),
    ("commands",),
    ("cli",),
    ("__main__",),
)


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of everything a file imports, wherever in it; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the whole name"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def floor(name: str) -> int:
    found = [index for index, names in enumerate(FLOORS) if name in names]
    assert found, f"maskedmodel.{name} stands on no floor: give it one in FLOORS"
    return found[0]


@pytest.mark.parametrize("path", modules(CORE), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_downwards_and_no_plugin(path: Path) -> None:
    relative = list(path.relative_to(CORE).with_suffix("").parts)
    for line, module, name in imports(path):
        package, *rest = module.split(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {module} {name}"
        assert not package.startswith("maskedmodel_"), f"{where}: the core knows no plugin"
        if package != "maskedmodel" or relative == ["__init__"]:
            continue
        parts = rest or [name]
        if parts in ([""], ["__version__"]):
            continue
        mine, theirs = relative[0], parts[0]
        assert mine == theirs or floor(theirs) < floor(mine), f"{where}: that is not further down than {mine}"


@pytest.mark.parametrize(
    "path", [*modules(PLUGINS), *modules(ROOT / "examples")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_plugin_imports_public_names_and_no_sibling(path: Path) -> None:
    own = next((part for part in path.parts if part.startswith("maskedmodel_") or part == "tests"), "a script")
    for line, module, name in imports(path):
        package = module.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line} imports {module} {name}"
        if package == "maskedmodel" and not (own == "tests" and module == "maskedmodel.testing"):
            group = module.partition(".")[2]
            names = getattr(maskedmodel, group).__all__ if group in maskedmodel.GROUPS else maskedmodel.__all__
            public = (module == "maskedmodel" or group in maskedmodel.GROUPS) and (not name or name in names)
            assert public, f"{where}: not public"
        elif package.startswith("maskedmodel_") and own != "tests":
            assert package == own, f"{where}: plugins don't know each other"


@pytest.mark.parametrize("path", [*modules(CORE), *modules(PLUGINS)], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("name", maskedmodel.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(maskedmodel, name) is not None
    assert name in dir(maskedmodel)


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((CORE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        (node.module, alias.asname)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazily = {(module, name) for module, names in maskedmodel._HOME.items() for name in names}
    assert seen == lazily


@pytest.mark.parametrize("name", maskedmodel._MOVED)
def test_a_name_of_the_first_release_still_works_and_says_where_it_lies(name: str) -> None:
    place, _, new = f"maskedmodel.{maskedmodel._MOVED[name]}".rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"Import {new} from {place}"):
        assert getattr(maskedmodel, name) is getattr(import_module(place), new)


@pytest.mark.parametrize("group", maskedmodel.GROUPS)
def test_every_name_of_a_group_resolves_and_says_what_it_is(group: str) -> None:
    module = getattr(maskedmodel, group)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{group}.{name} has no docstring"


def test_the_flat_surface_is_small() -> None:
    assert len(maskedmodel.__all__) <= 37


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        maskedmodel.pretrian  # noqa: B018


def test_importing_the_package_is_light() -> None:
    code = "import sys, maskedmodel; print([m for m in ('torch', 'numpy', 'pydantic', 'pluggy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this isn't a git checkout, so no file is tracked")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# In pieces, so that this file doesn't hold what it looks for.
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:"
    + "|".join(["wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers", "tm" + "p", "m" + "nt"])
    + r")/\w"
)
REGISTRIES = re.compile(
    "|".join(["pyth" + "onhosted", r"py" + r"pi\.org", r"down" + r"load\.pytorch", "index" + "-url"])
)


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRIES], ids=["machine path", "registry address"])
def test_no_tracked_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue  # an image, say
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_look_for() -> None:
    assert MACHINE_PATHS.search("see /" + "ho" + "me/someone/data")
    assert not MACHINE_PATHS.search("maskedmodel/work/x and ./tmp/y")
    assert REGISTRIES.search("https://files.pyth" + "onhosted.org/packages")
