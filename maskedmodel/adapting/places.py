"""What a model says of a few signals, drawn beside what is true: evenly spread ones, and those that are most wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.components import SampleDataset
from maskedmodel.engine.finetuned import FineTuned
from maskedmodel.evaluation.canvas import Panel, Sheet, save_png
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.labelled import Subset
from maskedmodel.training.supervised import Predicted
from maskedmodel.training.targeted import target_of

SHOWN, WRONG = 6, 12  # samples
_LEAST = 208  # pixels: room for what is said under a picture
PLACES, MOST_WRONG = "places.png", "most_wrong.png"


def _beside(colours: Tensor, shown: Tensor) -> Tensor:
    """Colours (3, h, w) of the size of a picture (3, H, W): a picture of several channels has them under each other."""
    below = shown.shape[1] - colours.shape[1]
    if colours.shape[2] == shown.shape[2] and below >= 0:
        return F.pad(colours, (0, 0, 0, below), value=1.0)
    return F.interpolate(colours[None], tuple(shown.shape[1:]), mode="nearest-exact")[0]


@torch.inference_mode()
def draw_places(model: FineTuned, dataset: SampleDataset, reading: Reading, folder: Path) -> Path | None:
    """A picture, places.png: samples evenly spread over the data, the truth, and what the model says.

    None where the task takes no targets, or shows none. Raises DataError where the picture can't be written.
    """
    task, tokenizer = model.task, model.tokenizer
    if not task.takes_target:
        return None
    rows: list[list[Panel]] = []
    captions: list[str] = []
    headings: list[str] = []
    model.eval()
    for batch in eval_batches(dataset, tokenizer, reading):
        assert batch.stored is not None
        prediction, target = model(batch.signal).float(), target_of(task, tokenizer, batch)
        shown = task.shown(tokenizer, batch.signal, batch.stored, prediction, target)
        if shown is None:
            return None
        headings, pictures = list(shown), [picture.float().cpu() for picture in shown.values()]
        restored = (task.restore(tokenizer, values, batch.stored) for values in (prediction, target))
        told = task.told(*(values.cpu() for values in task.digest(*restored)))
        for index, (name, words) in enumerate(zip(batch.ids, told, strict=True)):
            first, *others = (picture[index] for picture in pictures)
            rows.append([Panel(first), *(Panel(_beside(other, first)) for other in others)])
            captions.append(f"{name}: {words}" if words else str(name))
    sheet = Sheet(
        "What is true and what is predicted",
        [f"Samples of the validation part, evenly spread over it. {task.legend}".strip()],
        headings,
        rows,
        captions,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return save_png(sheet.draw(), folder / PLACES)


@torch.inference_mode()
def draw_most_wrong(
    model: FineTuned, dataset: SampleDataset, found: Predicted, reading: Reading, folder: Path
) -> Path | None:
    """A picture, most_wrong.png: of the predictions `found` of a data set those that are most wrong, worst first.

    None where the task doesn't say which these are, or none is wrong; one of an earlier step is then removed. Raises
    DataError where the picture can't be written.
    """
    task, tokenizer = model.task, model.tokenizer
    wrong = task.wrongness(found.prediction, found.target)
    worst: list[int] = [] if wrong is None else wrong.argsort(descending=True)[:WRONG].tolist()
    chosen = [place for place in worst if wrong is not None and wrong[place] > 0]
    if not chosen:
        (folder / MOST_WRONG).unlink(missing_ok=True)
        return None
    ids = [found.ids[place] for place in chosen]
    few = Subset(dataset, chosen) if len(found.ids) == len(dataset) else dataset  # else samples were left out
    pictures: dict[str | int, Tensor] = {}
    for batch in eval_batches(few, tokenizer, reading):
        places = [place for place, name in enumerate(batch.ids) if name in ids]
        if places:
            shown = tokenizer.picture(batch.signal[places]).float().cpu()
            pictures |= zip((batch.ids[place] for place in places), shown, strict=True)
    told = task.told(found.prediction[chosen], found.target[chosen])
    sheet = Sheet(
        "Most wrong",
        [f"Of {len(found.ids):,} samples of the validation part, the worst first."],
        ["as the model sees it"],
        [[Panel(pictures[name])] for name in ids],
        [(str(name), words) for name, words in zip(ids, told, strict=True)],
        smallest=_LEAST,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return save_png(sheet.draw(), folder / MOST_WRONG)
