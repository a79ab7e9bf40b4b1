"""The optimizer, and which parameters it trains at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from maskedmodel.config.sections import OptimSettings

Groups = Sequence[tuple[float, Sequence[tuple[str, nn.Parameter]]]]  # parameters by the factor of their rate


def trained(model: nn.Module) -> Groups:
    """All parameters that are trained, at one learning rate."""
    return [(1.0, [(name, p) for name, p in model.named_parameters() if p.requires_grad])]


def make_optimizer(groups: Groups, optim: OptimSettings) -> torch.optim.AdamW:
    """Fused AdamW. As in MAE, weight decay is for tensors of two or more dimensions that aren't biases.

    Each group of parameters keeps its factor of the learning rate as `scale`.
    """
    made: list[dict[str, Any]] = []
    for scale, named in groups:
        decayed = [p for name, p in named if p.ndim > 1 and not name.endswith("bias")]
        plain = [p for name, p in named if p.ndim <= 1 or name.endswith("bias")]
        made.append({"params": decayed, "weight_decay": optim.weight_decay, "scale": scale})
        made.append({"params": plain, "weight_decay": 0.0, "scale": scale})
    return torch.optim.AdamW(made, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)
