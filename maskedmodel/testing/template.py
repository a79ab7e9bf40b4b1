"""Write the skeleton of a plugin: what `maskedmodel plugins new NAME` does."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from maskedmodel.errors import PluginError
from maskedmodel.installed import PROJECT, announced, installed
from maskedmodel.plugins import KINDS, label, load_registry

# Where each file of the skeleton goes.
_PLACES = MappingProxyType(
    {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        "pretrain.yaml": "pretrain.yaml.txt",
        "src/maskedmodel_@NAME@/__init__.py": "init.py.txt",
        "src/maskedmodel_@NAME@/data.py": "data.py.txt",
        "tests/test_@NAME@.py": "test.py.txt",
    }
)


def skeleton(name: str) -> Mapping[str, str]:
    """The text of every file of a plugin `name`, by its path. Raises PluginError on a name that can't be used."""
    plain = re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) is not None
    if not plain or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise PluginError(
            f"A plugin can't be named {name!r}.",
            expected="small letters and digits, words joined by _, and no word or module of Python, "
            "such as ecg or heart_sound",
            got=name,
        )
    folder = files("maskedmodel.testing") / "skeleton"
    titles = "".join(word.capitalize() for word in name.split("_"))

    def fill(text: str) -> str:
        return text.replace("@NAME@", name).replace("@CLASS@", titles)

    return {fill(place): fill((folder / file).read_text(encoding="utf-8")) for place, file in _PLACES.items()}


def write(name: str, parent: str | Path = ".") -> Path:
    """Write the skeleton of a plugin `name` into the new folder maskedmodel-NAME in `parent`; returns that folder.

    Raises PluginError on a name that can't be used or is taken, and where the folder holds anything already: nothing is
    overwritten.
    """
    texts = skeleton(name)
    taken = _taken_by(name)
    if taken is not None:
        raise PluginError(
            f"The name {name!r} is taken: {taken}.",
            expected="a name of its own, since one of two would hide the other",
            fix=f"Choose another, such as my_{name}.",
        )
    folder = Path(parent) / f"maskedmodel-{name.replace('_', '-')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(
            "The new plugin would overwrite what is there.",
            where=folder,
            expected="a folder that doesn't exist, or an empty one",
            fix="Choose another name or place.",
        )
    for place, text in texts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _taken_by(name: str) -> str | None:
    """What has this name already: a plugin, a component, a module or a distribution of those installed."""
    for plugin in announced(installed(PROJECT)[0])[0]:
        if name in (plugin.name, plugin.point.name):
            return f"{plugin} has it"
    registry = load_registry()
    for kind in KINDS:
        if name in registry.of(kind):
            return f"there is a {label(kind)} of this name"
    if find_spec(f"{PROJECT}_{name}") is not None:
        return f"the module {PROJECT}_{name} can be imported"
    try:
        return f"the distribution {distribution(f'{PROJECT}-{name}').name} is installed"
    except PackageNotFoundError:
        return None
