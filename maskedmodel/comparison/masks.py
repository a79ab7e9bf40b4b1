"""What a scheduler's masks are like along a run: how many tokens, which positions, how unpredictable, and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedmodel.comparison.budget import build
from maskedmodel.comparison.plan import QUARTERS
from maskedmodel.components import DataSource, SampleDataset
from maskedmodel.config.sections import RunConfig
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.evaluation.features import evaluating
from maskedmodel.evaluation.reconstruct import FIXED, masked_picture
from maskedmodel.pictures.scales import heat
from maskedmodel.plugins import Registry
from maskedmodel.tokens import Tokens
from maskedmodel.training import checkpoint as checkpoints
from maskedmodel.training.data import Batch, Reading, eval_batches
from maskedmodel.training.fitting import fit_statistics

SAMPLES = 256  # of the validation part, whose masks are looked at
SHOWN = 3  # samples in pictures
_SIDE, _WIDE = 128, 320  # pixels of a picture's longer side at most; of one twice as wide as high

Pictures = list[dict[str, Any]]  # columns: a title, and the files of its pictures from top to bottom


@dataclass(frozen=True)
class MaskReport:
    """Of masks drawn at five places along the run, over validation samples.

    ratio      share of real tokens hidden, mean over the run.
    entropy    mean over positions of the binary entropy of how often a position is hidden, in bits, mean over the run.
    most       the largest that entropy can be at these ratios.
    frequency  how often each position is hidden, (L,), mean over the run; NaN where no sample has a token.
    """

    ratio: float
    entropy: float
    most: float
    frequency: Tensor

    def to_dict(self) -> dict[str, float]:
        known = self.frequency[~self.frequency.isnan()]
        return {
            "ratio": self.ratio,
            "entropy": self.entropy,
            "entropy_most": self.most,
            "hidden_least": float(known.min()),
            "hidden_most": float(known.max()),
        }


def along_the_run(
    config: RunConfig, folder: Path, model: MaskedAutoencoder, learns: bool, registry: Registry, source: DataSource[Any]
) -> Iterator[tuple[float, MaskedAutoencoder]]:
    """Five places along the run, and a model whose scheduler is as it was there.

    One that learns is taken from the run's checkpoints; where one of those is gone, its place is left out.
    """
    places = [quarter / QUARTERS for quarter in range(QUARTERS + 1)]
    if not learns:
        yield from ((place, model) for place in places)
        return
    early, _ = build(config, registry)
    early.to(model.device)
    fit_statistics(early, source.open("train"), config.train)
    yield 0.0, early
    every, steps = max(config.train.steps // QUARTERS, 1), config.train.steps
    for quarter in range(1, QUARTERS):
        path = checkpoints.folder_of(folder, quarter * every)
        if quarter * every < steps and path.exists() and checkpoints.damage(path) is None:
            checkpoints.load_weights(early, checkpoints.read_model(path), path)
            yield quarter * every / steps, early
    yield 1.0, model


def entropy(share: Tensor) -> Tensor:
    """Binary entropy in bits of probabilities (...)."""
    inside = share.clamp(1e-12, 1 - 1e-12)
    bits = -(inside * inside.log2() + (1 - inside) * (1 - inside).log2())
    return torch.where((share <= 0) | (share >= 1), torch.zeros_like(bits), bits)


@torch.no_grad()
def look(
    states: Iterator[tuple[float, MaskedAutoencoder]], data: SampleDataset, config: RunConfig, folder: Path | None
) -> tuple[MaskReport, Pictures]:
    """Draw masks at every state. Pictures of a few samples, and of how often positions are hidden, go to `folder`."""
    ratios, entropies, most, frequencies = [], [], [], []
    pictures: Pictures = []
    for number, (progress, model) in enumerate(states):
        hidden_count = seen_count = torch.zeros(0)
        with evaluating(model):
            for first, batch in enumerate(_batches(data, model, config)):
                tokens = model.tokens(batch.signal)
                mask = model.scheduler.sample(tokens, progress, batch.noise(config.train.seed, FIXED - number))
                valid = torch.ones_like(mask.hidden) if mask.valid is None else mask.valid
                hidden_count = _sum(hidden_count, mask.hidden.sum(0).cpu())
                seen_count = _sum(seen_count, valid.sum(0).cpu())
                if folder is not None and first == 0:
                    shown = masked_picture(model.tokenizer, tokens.rows(slice(SHOWN)), mask.rows(slice(SHOWN)))
                    pictures.append(column(f"at {progress:.0%}", shown, folder, f"masks-{number}"))
                    layout = tokens
        frequency = hidden_count / seen_count  # NaN where nothing is
        ratios.append(float(hidden_count.sum() / seen_count.sum()))
        entropies.append(float(entropy(frequency).nanmean()))
        most.append(float(entropy(torch.tensor(ratios[-1]))))
        frequencies.append(frequency)
    mean = torch.stack(frequencies).mean(0)
    if folder is not None:
        level = positions_picture(mean, layout)
        pictures.append(column("how often hidden", heat(level[None]), folder, "frequency"))
    return MaskReport(_mean(ratios), _mean(entropies), _mean(most), mean), pictures


def _batches(data: SampleDataset, model: MaskedAutoencoder, config: RunConfig) -> Iterable[Batch]:
    size = max(config.train.batch // config.train.accumulate, SHOWN)
    return eval_batches(data, model.tokenizer, Reading.of(config.train, model.device, batch=size, limit=SAMPLES))


def _sum(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two vectors, the shorter filled up with zeros."""
    length = max(len(one), len(other))
    return torch.nn.functional.pad(one, (0, length - len(one))) + torch.nn.functional.pad(
        other.double(), (0, length - len(other))
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def positions_picture(frequency: Tensor, tokens: Tokens) -> Tensor:
    """(H, W): one value per position (L,) where it lies: channels under each other, slices of three axes side by side.

    Where time is the first of two axes it runs across and the other upwards, as in pictures of sound, and channels or
    windows of time stand side by side. Tokens off the grid are one row in their own order.
    """
    if tokens.grid is None or len(frequency) % math.prod(tokens.grid):
        return frequency[None]
    cells = frequency.reshape(-1, *tokens.grid)  # (channels, extents)
    while cells.dim() > 3:
        slices = torch.nn.functional.pad(cells, (0, 1), value=math.nan)  # a gap between slices
        cells = torch.cat(slices.unbind(1), -1)[..., :-1]
    if cells.dim() == 2:
        return cells
    if len(tokens.grid) == 2 and tokens.axes[0] == "time":
        cells = cells.transpose(1, 2).flip(1)
        return torch.cat(torch.nn.functional.pad(cells, (0, 1), value=math.nan).unbind(0), 1)[:, :-1]
    return torch.cat(torch.nn.functional.pad(cells, (0, 0, 0, 1), value=math.nan).unbind(0), 0)[:-1]


def column(title: str, pictures: Tensor, folder: Path, stem: str) -> dict[str, Any]:
    """Write pictures (B, 3, H, W) in [0, 1] one by one, large ones made smaller. Returns a title and the files."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, picture in enumerate(pictures):
        levels = (picture.detach().float().cpu().nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        image = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
        longest = _WIDE if image.width > 2 * image.height else _SIDE
        small = max(image.size) <= longest
        image.thumbnail((longest, longest))
        path = folder / f"{stem}-{number}.{'png' if small else 'jpg'}"
        image.save(path, quality=85) if not small else image.save(path, optimize=True)
        files.append(path.name)
    return {"title": title, "files": files}
