"""Where the weights of a run or an export came from, through any number of starts, and the licence they brought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.weights.place import EXPORT

START = "start.json"


def origin(folder: Path) -> dict[str, Any] | None:
    """{"source": its bare name, "licence": text or None} of the first weights, or None where all began fresh."""
    folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    kept = _json(folder / START)
    if kept is not None:
        told = kept.get("origin")
        return told if isinstance(told, dict) else None
    exported = _json(folder / EXPORT)
    if exported is not None:
        told = exported.get("started_from")
        return told if isinstance(told, dict) else None
    found = sorted((folder / "checkpoints").glob("step-*"))
    state = _json(found[-1] / "state.json") if found and checkpoints.damage(found[-1]) is None else None
    imported = None if state is None else state.get("imported")
    if not isinstance(imported, dict):
        return None
    return {"source": Path(str(imported.get("source"))).name, "licence": imported.get("licence")}


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none that can be read: it says where weights came from, no more."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
