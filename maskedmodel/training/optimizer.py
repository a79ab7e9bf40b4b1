"""The optimizer, and which parameters it trains at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from maskedmodel.config.sections import OptimSettings


class Group(NamedTuple):
    """Named parameters that learn at one factor of the run's rate; `part` is what the group is called, if anything."""

    scale: float
    named: Sequence[tuple[str, nn.Parameter]]
    part: str = ""


Groups = Sequence[Group]


def trained(model: nn.Module) -> Groups:
    """All parameters that are trained, at one learning rate."""
    return [Group(1.0, [(name, p) for name, p in model.named_parameters() if p.requires_grad])]


def make_optimizer(groups: Groups, optim: OptimSettings) -> torch.optim.AdamW:
    """Fused AdamW. As in MAE, weight decay is for tensors of two or more dimensions that aren't biases.

    Each group of parameters keeps its factor of the learning rate as `scale`, and its name as `part`.
    """
    made: list[dict[str, Any]] = []
    for scale, named, part in groups:
        decayed = [p for name, p in named if p.ndim > 1 and not name.endswith("bias")]
        plain = [p for name, p in named if p.ndim <= 1 or name.endswith("bias")]
        made.append({"params": decayed, "weight_decay": optim.weight_decay, "scale": scale, "part": part})
        made.append({"params": plain, "weight_decay": 0.0, "scale": scale, "part": part})
    return torch.optim.AdamW(made, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)
