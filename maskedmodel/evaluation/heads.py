"""What is trained on a frozen encoder: attention that pools tokens, a mixture of layers, and a linear layer after it.

Shapes: B batch, T tokens, D width, Q queries, C classes. Every head maps tokens (B, T, D) and which of them are real
(B, T) or None to logits (B, C).

One query attends to many tokens, so keys and values needn't be made for each token: a query is multiplied by the key
weights, and what it gathered by the value weights. That is the same function at a fraction of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.engine.layers import Mlp, usable_keys
from maskedmodel.training.data import UNLABELLED

QUERIES = 32  # of efficient probing, as published


def shares(scores_BQT: Tensor, valid_BT: Tensor | None) -> Tensor:
    """Softmax over the tokens that are real."""
    if valid_BT is not None:
        scores_BQT = scores_BQT.masked_fill(~usable_keys(valid_BT)[:, None], -torch.inf)
    return scores_BQT.softmax(-1)


def head_count(dim: int) -> int:
    """Attention heads for a width: as many as have 64 values or more each."""
    return next(count for count in range(max(dim // 64, 1), 0, -1) if dim % count == 0)


def query_count(dim: int) -> int:
    """Queries of efficient probing for a width: 32, or the most below that divide it."""
    return next(count for count in range(min(QUERIES, dim), 0, -1) if dim % count == 0)


class Attentive(nn.Module):
    """One query for all classes in a cross-attention block with an MLP, then a linear layer (V-JEPA's probe).

    The LayerNorms have no weights of their own: those of the linear maps behind them express the same.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.heads = head_count(dim)
        self.query = nn.Parameter(torch.empty(dim))  # as it enters the residual
        self.ask = nn.Linear(dim, dim)
        self.key, self.value = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.norm1, self.norm2 = (nn.LayerNorm(dim, elementwise_affine=False) for _ in range(2))
        self.mlp = Mlp(dim, 4 * dim)
        self.out = nn.Linear(dim, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        x, width = self.norm1(x_BTD), x_BTD.shape[-1] // self.heads
        asked = self.ask(self.query).view(self.heads, 1, width)
        asked = (asked @ self.key.weight.view(self.heads, width, -1))[:, 0] * width**-0.5
        gathered = shares(asked @ x.transpose(1, 2), valid_BT) @ x  # (B, heads, D)
        values = torch.einsum("bhd,hwd->bhw", gathered, self.value.weight.view(self.heads, width, -1))
        y = self.query + values.flatten(1) + self.value.bias
        return self.out(y + self.mlp(self.norm2(y)))  # type: ignore[no-any-return]


class Efficient(nn.Module):
    """Several queries, each of which gathers its own part of the values; no key projection (efficient probing)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(query_count(dim), dim) * 0.02)
        self.value = nn.Linear(dim, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.out = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        count, dim = self.queries.shape
        gathered = shares(self.queries @ x_BTD.transpose(1, 2) * dim**-0.5, valid_BT) @ x_BTD  # (B, Q, D)
        values = torch.einsum("bqd,qwd->bqw", gathered, self.value.weight.view(count, dim // count, dim))
        return self.out(self.norm(values.flatten(1)))  # type: ignore[no-any-return]


class ClassQueries(nn.Module):
    """One query per class; its logit is a linear layer of its own on what it gathered."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(classes, dim) * 0.02)
        self.weight = nn.Parameter(torch.zeros(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        scale = x_BTD.shape[-1] ** -0.5
        gathered = shares(self.queries @ x_BTD.transpose(1, 2) * scale, valid_BT) @ x_BTD  # (B, C, D)
        return torch.einsum("bcd,cd->bc", gathered, self.weight) + self.bias


class Mixture(nn.Module):
    """The layers of an encoder weighted by a softmax that is learned, then a linear layer.

    The one token holds one vector per layer, one after the other.
    """

    def __init__(self, layers: int, dim: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.out = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        layers_BKD = x_BTD[:, 0].view(len(x_BTD), len(self.weights), -1)
        mixed = torch.einsum("k,bkd->bd", self.weights.softmax(0), layers_BKD)
        return self.out(self.norm(mixed))  # type: ignore[no-any-return]


class NormedLinear(nn.Module):
    """BatchNorm without weights of its own, then a linear layer: MAE's probe. The one token is the pooled feature."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.out = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        return self.out(self.norm(x_BTD[:, 0]))  # type: ignore[no-any-return]


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled to the size of each matrix (You et al. 2017), as MAE's probe is trained.

    Tensors of one dimension take plain steps. No weight decay.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.9, trust: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                step = parameter.grad
                if parameter.ndim > 1:
                    own, slope = parameter.norm(), step.norm()
                    scale = torch.where((own > 0) & (slope > 0), group["trust"] * own / slope, torch.ones_like(own))
                    step = step * scale
                state = self.state[parameter]
                state["speed"] = state["speed"].mul_(group["momentum"]).add_(step) if "speed" in state else step.clone()
                parameter.sub_(state["speed"], alpha=group["lr"])


def loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, C, ...) over the places of classes (B, ...) that have one."""
    return F.cross_entropy(logits, classes.long(), ignore_index=UNLABELLED)
