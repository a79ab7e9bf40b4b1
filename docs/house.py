"""Writes the tree of the package into README.md, from the first sentence of each module's docstring.

python docs/house.py            writes it
python docs/house.py --check    exits with 1 where README.md doesn't show it
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- the tree: python docs/house.py -->\n", "<!-- end of the tree -->\n"


def sentence(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.splitlines()[0].rstrip(".") if said else ""


def tree() -> str:
    """The packages below maskedmodel, each with what it says of itself, and the plugins in a row."""
    packages = sorted((ROOT / "maskedmodel").glob("*/__init__.py"))
    rows = [(f"maskedmodel/{path.parent.name}/", sentence(path)) for path in packages]
    plugins = sorted(path.parent.name.removeprefix("maskedmodel_") for path in (ROOT / "plugins").glob("*/__init__.py"))
    rows.append(("plugins/maskedmodel_*/", ", ".join(plugins)))
    width = max(len(name) for name, _ in rows)
    return "".join(f"    {name.ljust(width)}  {said}\n" for name, said in rows)


def written(readme: str) -> str:
    """README.md with the tree as it is."""
    head, _, rest = readme.partition(BEGIN)
    return head + BEGIN + "\n" + tree() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = written(before)
    if "--check" in sys.argv:
        sys.exit(before != after)
    readme.write_text(after, encoding="utf-8")
