"""What a model says of the places of a few signals, drawn beside what is true."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.components import SampleDataset
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.evaluation.canvas import Panel, Sheet, save_png
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.targeted import target_of

SHOWN = 6  # samples


def _beside(colours: Tensor, shown: Tensor) -> Tensor:
    """Colours (3, h, w) of the size of a picture (3, H, W): a picture of several channels has them under each other."""
    below = shown.shape[1] - colours.shape[1]
    if colours.shape[2] == shown.shape[2] and below >= 0:
        return F.pad(colours, (0, 0, 0, below), value=1.0)
    return F.interpolate(colours[None], tuple(shown.shape[1:]), mode="nearest-exact")[0]


@torch.inference_mode()
def draw_places(model: FineTuned, dataset: SampleDataset, reading: Reading, folder: Path) -> Path | None:
    """A picture, places.png: samples evenly spread over the data, the truth, and what the model says.

    None where the task has no colours for what it predicts. Raises DataError where the picture can't be written.
    """
    task, tokenizer = model.task, model.tokenizer
    if not task.takes_target:
        return None
    rows, captions = [], []
    model.eval()
    for batch in eval_batches(dataset, tokenizer, reading):
        truth = task.paint(target_of(task, tokenizer, batch))
        found = task.paint(model(batch.signal).float())
        if truth is None or found is None:
            return None
        shown = tokenizer.picture(batch.signal).float().cpu()
        for index, name in enumerate(batch.ids):
            colours = (Panel(_beside(painted[index].cpu(), shown[index])) for painted in (truth, found))
            rows.append([Panel(shown[index]), *colours])
            captions.append(str(name))
    folder.mkdir(parents=True, exist_ok=True)
    sheet = Sheet(
        "A class for each place",
        [f"Samples of the validation part, evenly spread over it. {task.legend}".strip()],
        ["signal", "truth", "prediction"],
        rows,
        captions,
    )
    return save_png(sheet.draw(), folder / "places.png")
