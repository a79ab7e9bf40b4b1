"""An export: a folder written beside, compared with the model it came from, and kept only where both agree.

export.json in it says what it is: target, where it came from, what goes in and comes out, the largest difference
between the model and the export as it was read back from the disk, and the tolerance. README.md says it to people.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import torch

import maskedmodel
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.engine.signals import SignalModel
from maskedmodel.errors import CheckpointError, MaskedModelError, suggestion
from maskedmodel.files import folder_beside, path_of
from maskedmodel.plugins import Registry
from maskedmodel.weights.export import graph, head, own, timm, transformers
from maskedmodel.weights.export.card import card
from maskedmodel.weights.export.hub import check_name, upload
from maskedmodel.weights.export.written import Written, samples
from maskedmodel.weights.mapping import expected_input
from maskedmodel.weights.origin import origin
from maskedmodel.weights.place import EXPORT
from maskedmodel.weights.runs import load

Target = Literal["safetensors", "huggingface", "timm", "onnx", "torch"]
TARGETS: tuple[str, ...] = get_args(Target)
TOLERANCE = 1e-4  # largest difference of an output; features leave a LayerNorm, so they are about one
FORMAT = 1
FOLDER = "FOLDER"  # stands for its place in what an export says of itself, wherever it goes
log = logging.getLogger("maskedmodel")
_WRITERS: Mapping[str, Callable[[Any, Path, Registry | None], Written]] = {
    "safetensors": own.write,
    "huggingface": transformers.write,
    "timm": timm.write,
    "onnx": graph.write_onnx,
    "torch": graph.write_torch,
}
_HEAD_WRITERS: Mapping[str, Callable[[Any, Path, Registry | None], Written]] = {  # of fine-tuned models
    **_WRITERS,
    "safetensors": head.write_own,
    "huggingface": head.write_huggingface,
    "timm": head.write_timm,
}
_LIBRARY = {"huggingface": "transformers", "timm": "timm", "onnx": "onnxruntime", "torch": "torch.export"}


@dataclass(frozen=True)
class Exported:
    """An export that computes what its model computes: its folder and what its export.json says."""

    folder: Path
    about: dict[str, Any]
    uploaded: str | None = None

    def __str__(self) -> str:
        about = self.about
        lines = [
            f"{about['target']}: {about['what']}",
            f"largest difference  {about['difference']:.3g}   (tolerance {about['tolerance']:g}, fresh random input)",
            f"takes     {about['takes']}",
            f"gives     {about['gives']}",
            *(f"note      {note}" for note in about["notes"]),
            f"load it   {about['load'].replace(FOLDER, str(self.folder))}",
            *([] if self.uploaded is None else [f"uploaded  {self.uploaded}"]),
            str(self.folder),
        ]
        return "\n".join(lines)


def export(
    source: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    checkpoint: str | int | None = None,
    tolerance: float = TOLERANCE,
    push: str | None = None,
    public: bool = False,
    registry: Registry | None = None,
) -> Exported:
    """Write the model of a run or of imported weights for another library, and see that it computes the same.

    Of a fine-tuned run the head goes with it: to safetensors, onnx and torch that of any task, to huggingface that of
    `classify` on the class token.

    to           safetensors: our own layout, the whole model. huggingface: a folder for transformers' from_pretrained.
                 timm: a folder for timm.create_model("local-dir:..."). onnx, torch: the encoder as a graph.
    out          the folder to write; None: exports/<to> in the run's folder.
    checkpoint   as in `load`.
    tolerance    the largest difference of an output that is accepted. safetensors must be exact.
    push         OWNER/NAME: uploaded there, to the hub of huggingface_hub, once it stands; None: nothing is.
    public       whether a repository that is made for that can be seen by everybody.

    Raises CheckpointError where the target can't express the model, with the reason, and where the export computes
    something else: it is then removed. DependencyError where the target's library isn't installed.
    """
    if to not in _WRITERS:
        raise CheckpointError(
            f"There is no export to {to!r}.",
            where="--to",
            expected=", ".join(TARGETS),
            got=to,
            fix=suggestion(to, TARGETS),
        )
    check_name(push)
    source = path_of(source)
    model = load(source, checkpoint=checkpoint, registry=registry)
    folder = path_of(out) if out is not None else _home(source) / "exports" / to
    if folder.exists():
        raise CheckpointError(
            "There is something in this place already.",
            where=folder,
            fix="Name another folder with --out, or remove this one.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(folder) as beside:
            about = _written(model, source, to, beside, tolerance, registry)
            about["load"] = about["load"].replace(str(beside), FOLDER)
            (beside / "README.md").write_text(card(model, _home(source), about), encoding="utf-8")
            (beside / EXPORT).write_text(json.dumps(about, indent=1) + "\n")
            beside.rename(folder)
    except OSError as error:
        raise CheckpointError("The export can't be written.", where=folder, got=error.strerror or str(error)) from error
    return Exported(folder, about, None if push is None else upload(folder, push, public=public))


def _home(source: Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    return source.parent.parent if source.parent.name == "checkpoints" else source


def _written(
    model: SignalModel, source: Path, to: str, folder: Path, tolerance: float, registry: Registry | None
) -> dict[str, Any]:
    """Write, compare, and say what it is. Raises CheckpointError where it computes something else."""
    try:
        writers = _HEAD_WRITERS if isinstance(model, FineTuned) else _WRITERS
        written = writers[to](model, folder, registry)
    except (MaskedModelError, OSError):
        raise
    except Exception as error:  # whatever another library finds in a model that should suit it
        raise CheckpointError(
            f"The export to {to} failed in {_LIBRARY.get(to, 'safetensors')} or torch.",
            where=source,
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="Report this with the model's config; --to safetensors takes any model.",
        ) from error
    if to == "safetensors":
        tolerance = 0.0
    seed = torch.Generator().seed() % 2**31
    differences = {}
    with torch.no_grad():
        for batch in written.batches:
            difference = written.difference(samples(model, batch, seed + batch))
            differences[batch] = difference if math.isfinite(difference) else math.inf
    largest = max(differences.values())
    if largest > tolerance:
        raise CheckpointError(
            f"The {to} export computes something else than the model, so it was removed.",
            where=source,
            expected=f"outputs that differ by at most {tolerance:g}",
            got=", ".join(f"{value:.3g} in a batch of {batch}" for batch, value in differences.items()),
            fix="Report this with the model's config. --tolerance accepts a larger difference.",
        )
    return {
        "format": FORMAT,
        "target": to,
        "what": written.what,
        "source": _home(source).name,
        "difference": largest,
        "tolerance": tolerance,
        "seed": seed,
        "batches": list(written.batches),
        "takes": written.takes or expected_input(model),
        "gives": written.gives,
        "notes": written.notes,
        "load": written.load,
        "started_from": origin(source),
        "versions": {"maskedmodel": maskedmodel.__version__, "torch": torch.__version__}
        | {name: metadata.version(name) for name in written.libraries},
    }
