"""A class for each place of a signal: each pixel of a picture, each step in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel import GridTokenizer, Settings, Task, Tokenizer
from maskedmodel.errors import ConfigError
from maskedmodel.tasks import Encoded, Labels, Table
from maskedmodel_tasks.cells import unfolded

NONE = -1  # the class number of a place without a label
MOST_CLASSES = 255  # a map has 8 bits, and its last value says that there is no label
_LINEAR = ("linear", "bilinear", "trilinear")  # interpolation along one, two and three axes
# Colours that are told apart with most kinds of colour blindness (Okabe and Ito 2008), the first for a background.
_COLOURS = (
    *(("dark blue", 0x1F2A44), ("orange", 0xE69F00), ("light blue", 0x56B4E9), ("green", 0x009E73)),
    *(("yellow", 0xF0E442), ("blue", 0x0072B2), ("red", 0xD55E00), ("pink", 0xCC79A7), ("grey", 0x8C8C8C)),
)


class SegmentSettings(Settings):
    name: Literal["segment"] = "segment"
    head: Literal["pixels", "upsample"] = Field(
        "pixels",
        description="pixels: a linear layer gives the classes of every pixel of a token, as fine as the labels. "
        "upsample: it gives one class per token, and scores are interpolated to pixels (DINOv2's linear protocol).",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a pixel counts by one over how many have its class, so that rare ones are heard."
    )


class Segment(Task[SegmentSettings]):
    """Cross entropy over the pixels that have a label: the mean over all of them in a batch, whosever they are.

    Predictions are scores (B, classes, *extents), as large as the prepared signal. Tokens of several channels in one
    place are averaged before the head, so a sample may lack some.
    """

    score = "mIoU"
    takes_target = True
    weights: Tensor

    @classmethod
    def example_labels(cls) -> tuple[str, ...]:
        return ("background", "thing", "other")

    @classmethod
    def example_target(cls, tokenizer: Tokenizer[Any], batch: int, generator: torch.Generator) -> Tensor:
        assert isinstance(tokenizer, GridTokenizer)
        drawn = torch.randint(0, 3, (batch, *tokenizer.extents), generator=generator)
        for axis, patch in enumerate(tokenizer.patch):
            drawn = drawn.repeat_interleave(patch, 1 + axis)
        drawn[..., -1] = NONE
        return drawn

    def attach(self, tokenizer: Tokenizer[Any], dim: int, labels: Labels) -> None:
        if not isinstance(tokenizer, GridTokenizer):
            raise ConfigError(
                f"Tokenizer {tokenizer.component_name()!r} doesn't cut a signal into equal boxes, which is what labels "
                "of places are put together from.",
                where="tokenizer.name",
                expected="a tokenizer that is a GridTokenizer, such as image or channels",
            )
        self._refuse(labels)
        self.names, self.patch, self.extents = labels.names, tokenizer.patch, tokenizer.extents
        counts = torch.tensor(labels.counts, dtype=torch.float32)
        weights = torch.ones_like(counts)
        if self.settings.class_weights == "balanced":
            weights = torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)), 0)
        self.register_buffer("weights", weights)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        each = math.prod(self.patch) if self.settings.head == "pixels" else 1
        self.head = nn.Linear(dim, len(self.names) * each)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @staticmethod
    def _refuse(labels: Labels) -> None:
        if labels.shape:
            raise ConfigError(
                "These data have points or values to learn, and no class for each place.",
                where="data, task.name",
                expected="data.masks or data.mask_channel",
                fix="Choose task.name=points for keypoints, or forecast for a horizon.",
            )
        present = [name for name, count in zip(labels.names, labels.counts, strict=True) if count]
        if len(present) < 2:
            raise ConfigError(
                "There is nothing to tell apart: all labelled places of the training samples have one class.",
                where="data",
                expected="2 classes or more",
                got=", ".join(present) or "none",
                fix="See that the values of the masks mean what data.mask_classes and data.mask_values say.",
            )
        if len(labels.names) > MOST_CLASSES:
            raise ConfigError(
                "There are too many classes.", where="data", expected=f"at most {MOST_CLASSES}", got=len(labels.names)
            )

    def forward(self, encoded: Encoded) -> Tensor:
        """(B, classes, *extents)."""
        cells: Tensor = self.head(self.norm(encoded.on_grid(self.extents)))
        grid, classes = cells.shape[1:-1], len(self.names)
        if self.settings.head == "upsample":
            axes, size = len(grid), [count * patch for count, patch in zip(grid, self.patch, strict=True)]
            return F.interpolate(cells.movedim(-1, 1), size, mode=_LINEAR[axes - 1], align_corners=False)
        return unfolded(cells, classes, self.patch)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses = F.cross_entropy(prediction, target, self.weights, ignore_index=NONE, reduction="none")
        return losses.flatten(1).sum(1) / self.weight(target).clamp(min=torch.finfo(torch.float32).tiny)

    def weight(self, target: Tensor) -> Tensor:
        """How many pixels have a label, each by the weight of its class."""
        labelled = target != NONE
        return (self.weights[target.clamp(min=0)] * labelled).flatten(1).sum(1)

    def digest(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels by true and predicted class, (B, classes, classes) int64, and how many there are, (B,)."""
        classes, guess = len(self.names), prediction.argmax(1).flatten(1)
        true = target.flatten(1)
        place = torch.where(true == NONE, classes * classes, true * classes + guess)
        counts = torch.zeros(len(true), classes * classes + 1, dtype=torch.int64, device=true.device)
        counts.scatter_add_(1, place, torch.ones_like(place))
        crossed = counts[:, :-1].reshape(-1, classes, classes)
        return crossed, crossed.sum((1, 2))

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Mean over classes of intersection over union, of classes that are true or predicted anywhere; pixel accuracy.

        Of all pixels together, not the mean over samples.
        """
        crossed = self._crossed(prediction, target).sum(0).double()
        shared, union = _shared(crossed)
        present = union > 0
        nan = float("nan")
        return {
            "mIoU": float((shared / union)[present].mean()) if bool(present.any()) else nan,
            "pixel_accuracy": float(shared.sum() / crossed.sum()) if bool(crossed.sum()) else nan,
        }

    def _crossed(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What `digest` gives; it is made here of predictions that weren't digested."""
        return self.digest(prediction, target)[0] if prediction.is_floating_point() else prediction

    def tables(self, prediction: Tensor, target: Tensor) -> list[Table]:
        crossed = self._crossed(prediction, target).sum(0).double()
        shared, union = _shared(crossed)
        columns = (shared / union, shared / crossed.sum(0), shared / crossed.sum(1))
        rows: list[tuple[str | float, ...]] = [
            (name, *(float(column[place]) for column in columns), int(crossed[place].sum()))
            for place, name in enumerate(self.names)
        ]
        headings = ("class", "IoU", "precision", "recall", "pixels")
        tables = [Table("By class", headings, rows)]
        if len(self.names) <= len(_COLOURS):
            shares = (crossed / crossed.sum(1, keepdim=True)).nan_to_num(0).tolist()
            by_true = [(name, *row) for name, row in zip(self.names, shares, strict=True)]
            caption = "Confusion: shares of the pixels of a true class (row) by predicted class"
            tables.append(Table(caption, ("", *self.names), by_true, shaded=True))
        return tables

    def columns(self, prediction: Tensor) -> Mapping[str, Tensor | Sequence[str]]:
        """The share of each class in the pixels of a sample."""
        guess = prediction.argmax(1).flatten(1)
        return {f"share_{name}": (guess == place).float().mean(1) for place, name in enumerate(self.names)}

    def maps(self, prediction: Tensor) -> Tensor:
        return prediction.argmax(1).to(torch.uint8)

    def paint(self, places: Tensor) -> Tensor | None:
        """A colour per class, white where there is no label, of scores (B, classes, ...) or class numbers (B, ...)."""
        numbers = places.argmax(1) if places.is_floating_point() else places
        if numbers.dim() not in (2, 3):
            return None
        numbers = numbers if numbers.dim() == 3 else numbers[:, None]
        codes = torch.tensor([code for _, code in _COLOURS], device=numbers.device)
        palette = torch.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], 1) / 255
        colours = palette[numbers.clamp(min=0) % len(_COLOURS)]
        return torch.where((numbers == NONE)[..., None], 1.0, colours).movedim(-1, 1)

    @property
    def legend(self) -> str:
        if len(self.names) > len(_COLOURS):
            return f"{len(self.names)} classes share {len(_COLOURS)} colours in turn; white: no label."
        told = (f"{name}: {colour}" for name, (colour, _) in zip(self.names, _COLOURS, strict=False))
        return f"{', '.join(told)}; white: no label."


def _shared(crossed: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of truth and prediction by class."""
    shared = crossed.diagonal()
    return shared, crossed.sum(0) + crossed.sum(1) - shared
