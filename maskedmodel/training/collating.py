"""Targets of samples as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskedmodel.errors import ShapeError

UNLABELLED = -1  # the label of a sample, or the class number of a place, that has none


def collated(targets: Sequence[Tensor | None]) -> Tensor | None:
    """Targets as a batch; None where a sample has none.

    Class numbers of signals that differ in their extents are filled up with -1, as those signals are with NaN. Raises
    ShapeError where they can't be one batch.
    """
    found = [target for target in targets if target is not None]
    if len(found) < len(targets):
        return None
    if len({target.shape for target in found}) == 1:
        return torch.stack(found)
    if len({target.dim() for target in found}) > 1 or any(target.is_floating_point() for target in found):
        raise ShapeError(
            "The targets of a batch differ in shape.",
            expected="one shape",
            got=", ".join(sorted({str(tuple(target.shape)) for target in found})),
        )
    most = [max(extents) for extents in zip(*(target.shape for target in found), strict=True)]
    batch = torch.full((len(found), *most), UNLABELLED)
    for row, target in zip(batch, found, strict=True):
        row[tuple(slice(extent) for extent in target.shape)] = target
    return batch
