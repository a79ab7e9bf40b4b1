"""Uploading an export, when asked to, through huggingface_hub and whoever is logged in there."""

from __future__ import annotations

import re
from pathlib import Path

from maskedmodel.errors import CheckpointError
from maskedmodel.weights.export.written import library


def check_name(name: str | None) -> None:
    """Raise CheckpointError where it names no repository, before anything is written."""
    if name is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is None:
        raise CheckpointError("This is no name of a repository.", where="--push", expected="OWNER/NAME", got=name)


def upload(folder: Path, name: str, *, public: bool) -> str:
    """Upload a folder into a repository, made if need be; returns its address.

    Raises CheckpointError where that fails, DependencyError where huggingface_hub isn't installed. The folder stays.
    """
    hub = library("huggingface_hub", target="the hub", package="'maskedmodel[hub]'")
    api = hub.HfApi()
    try:
        api.create_repo(repo_id=name, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Export of maskedmodel"))
    except Exception as error:  # whatever a network, and the library that speaks to it, raise
        raise CheckpointError(
            "The export couldn't be uploaded; it stands in its folder.",
            where=folder,
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            fix="See that you are logged in (`hf auth login`) and may write there, then `hf upload` the folder.",
        ) from error
