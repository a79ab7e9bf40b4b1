"""The plugins that come with the package, by the names of their entry points."""

from __future__ import annotations

import tomllib
from pathlib import Path

_PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def built_in_plugins() -> tuple[str, ...]:
    """As pyproject.toml lists them."""
    return tuple(tomllib.loads(_PROJECT.read_text("utf-8"))["project"]["entry-points"]["maskedmodel"])
