"""`maskedmodel import` and `maskedmodel export`: weights in and out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maskedmodel.files import path_of
from maskedmodel.weights.export.write import TOLERANCE as TOLERANCE
from maskedmodel.weights.export.write import export as export
from maskedmodel.weights.read import read_weights
from maskedmodel.weights.report import LoadReport
from maskedmodel.weights.runs import save


@dataclass(frozen=True)
class Imported:
    """Foreign weights as a run: its folder, and what was found in them."""

    folder: Path
    report: LoadReport

    def __str__(self) -> str:
        return f"{self.report.summary()}\n{self.folder}"


def import_weights(
    source: str | Path,
    *,
    to: str | Path | None = None,
    heads: int | None = None,
    decoder_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: bool | None = None,
) -> Imported:
    """Read weights of transformers, timm, or the authors of MAE, VideoMAE, AudioMAE, DINO and DINOv2 into a run folder.

    The last four settle what a bare file of weights doesn't say; see `from_facebook`.
    """
    model, report = read_weights(
        source, heads=heads, decoder_heads=decoder_heads, image_size=image_size, normalise=normalise
    )
    folder = path_of(to) if to is not None else Path("runs") / Path(source).stem
    return Imported(save(model, folder, report=report), report)
