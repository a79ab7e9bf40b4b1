"""What makes a folder a run. Nothing here needs torch, so that a wrong path is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maskedmodel.errors import CheckpointError, suggestion

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"  # of our own layout
OWN = "maskedmodel"  # the value of `format` in the config.json of our own layout
EXPORT = "export.json"  # what `maskedmodel export` puts into each folder that it writes


def require_run(folder: Path) -> None:
    """Raise CheckpointError where the folder is no run, with the nearest one that is."""
    if (folder / CONFIG).is_file():
        return
    if not folder.exists():
        around = folder.parent if folder.parent.is_dir() else Path()
        runs = {
            path.parent.name: str(path.parent)
            for path in (*around.glob(f"*/{CONFIG}"), *Path("runs").glob(f"*/{CONFIG}"))
        }
        raise CheckpointError(f"There is no run {str(folder)!r}.", where=folder.absolute(), fix=_like(folder, runs))
    fix = "Give the folder that `maskedmodel pretrain` named at its end."
    if folder.is_file() or (folder / "config.json").exists():
        fix = "For weights of other makers use from_huggingface or from_facebook, or `maskedmodel import`."
    raise CheckpointError(
        f"{str(folder)!r} is no run.", where=folder.absolute(), expected=f"a folder with {CONFIG}", fix=fix
    )


def _like(folder: Path, runs: Mapping[str, str]) -> str:
    if folder.name in runs:
        return f"Did you mean {runs[folder.name]!r}?"
    return suggestion(folder.name, runs) if runs else "Pretrain first: `maskedmodel pretrain`."
