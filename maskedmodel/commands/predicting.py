"""`maskedmodel predict`: what a fine-tuned model says of files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from maskedmodel.adapting.predictions import check_target, maps_of, write_predictions
from maskedmodel.commands.data import datasets_of, how_to_read
from maskedmodel.config.files import read_config
from maskedmodel.errors import CheckpointError
from maskedmodel.files import path_of
from maskedmodel.plugins import load_registry
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.data import Reading
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.tracking import Display
from maskedmodel.weights.finetuned import is_finetuned, load_finetuned
from maskedmodel.weights.place import CONFIG
from maskedmodel.weights.runs import chosen_checkpoint


@dataclass(frozen=True)
class PredictResult:
    """Where predictions were written, how many, and how many samples were left out since they can't be read."""

    path: Path
    rows: int
    left_out: int = 0
    maps: Path | None = None  # the folder of a class for each place, where the task predicts such

    def __str__(self) -> str:
        lost = f"; {self.left_out} samples can't be read and have none" if self.left_out else ""
        told = f"{self.rows} predictions in {self.path}{lost}"
        return told if self.maps is None else f"{told}\na class for each place in {self.maps}"


def predict(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    to: str | Path,
    overrides: Sequence[str] = (),
    checkpoint: str | int | None = None,
    quiet: bool = False,
) -> PredictResult:
    """What a fine-tuned run's model says of data, to a .parquet or .csv file: one row per sample.

    data        "train" or "val", the labelled and unlabelled samples of that split of the run's own data; files that
                the run's data source reads as one sample each; or the path of other data of the kind.
    to          the file. Columns: id, and what the task gives, such as the label and the probability of each class.
                Where the task gives a class for each place, these go to the folder <name>-maps beside it, a file per
                sample: an 8-bit PNG whose values are class numbers, as large as the model sees the sample.
    overrides   settings that say what other data are, such as "data.name=image_folder", and how samples are read, such
                as "train.on_bad_sample=skip".
    checkpoint  as in `load`.

    The same call after a kill goes on where that stopped. Raises CheckpointError where the run isn't fine-tuned.
    """
    target = check_target(path_of(to).absolute())
    given = [data] if isinstance(data, str | Path) else list(data)
    registry = load_registry()
    folder, chosen = chosen_checkpoint(path_of(run), checkpoint)
    if not is_finetuned(read_config(folder / CONFIG)):
        raise CheckpointError(
            "This run isn't fine-tuned: its model predicts hidden tokens and no labels.",
            where=folder,
            fix=f"Fine-tune it first: maskedmodel finetune {shlex.quote(str(folder))}",
        )
    model, config = load_finetuned(folder, chosen, registry)
    config, others = how_to_read(given, config, registry, overrides)
    datasets = datasets_of(given, config, registry, others)
    device = pick_device(config.train.device)
    key = (chosen / checkpoints.COMMITTED).read_text(encoding="utf-8")
    with Display("predicting", 1, quiet=quiet) as display:
        rows = write_predictions(
            model.to(device),
            datasets,
            target,
            key,
            replace(Reading.of(config.train, device), limit=None),
            config.train.precision,
            lambda done, total: display.phase("predicting", done, total),
        )
    maps = maps_of(target)
    shown = maps if model.task.takes_target and maps.is_dir() else None
    return PredictResult(target, rows, sum(map(len, datasets)) - rows, shown)
