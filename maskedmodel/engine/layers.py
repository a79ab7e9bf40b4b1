"""Transformer blocks, pre-norm as in the vision transformer (Dosovitskiy et al. 2021).

Shapes: B batch, T tokens in the sequence, U tokens that ask (queries), H heads, d head width, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.engine import kernels
from maskedmodel.engine.fastest import settle

MlpKind = Literal["gelu", "swiglu"]


def attend(q_BHUd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, key_valid_BT: Tensor | None = None) -> Tensor:
    """Softmax attention (B, H, U, d). Keys where `key_valid_BT` is False get a weight of exactly zero.

    In a row without any valid key all count: what comes out means nothing, but is finite, and so is its gradient.
    """
    mask = None if key_valid_BT is None else usable_keys(key_valid_BT)[:, None, None, :]
    return kernels.attention(q_BHUd, k_BHTd, v_BHTd, mask)


def usable_keys(key_valid_BT: Tensor) -> Tensor:
    """`key_valid_BT` with all keys in rows that have none: a softmax over nothing is NaN, and so is its gradient."""
    return key_valid_BT | ~key_valid_BT.any(1, keepdim=True)


def apply_rotary(x_BHTd: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d/2) of each head by `angles` (T, d/2) or (B, T, d/2)."""
    angles = angles if angles.dim() == 2 else angles[:, None]
    cos, sin = angles.cos().to(x_BHTd.dtype), angles.sin().to(x_BHTd.dtype)
    a, b = x_BHTd.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def heads_first(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, D) to (B, H, T, d)."""
    batch, length, dim = x_BTD.shape
    return x_BTD.view(batch, length, heads, dim // heads).transpose(1, 2)


class Linear(nn.Linear):
    """torch's, by the kernel that is fastest on this machine."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        settle([min(in_features, out_features)])

    def forward(self, input: Tensor) -> Tensor:
        return kernels.linear(input, self.weight, self.bias)


class Mlp(nn.Module):
    """Two linear layers with `hidden` values between them: past the exact GELU, or gated (SwiGLU, Shazeer 2020).

    Gated, the first layer gives twice as many, gates and then values, and each value is multiplied by SiLU of its gate,
    as in DINOv2.
    """

    def __init__(self, dim: int, hidden: int, kind: MlpKind = "gelu") -> None:
        super().__init__()
        self.kind = kind
        self.fc1, self.fc2 = Linear(dim, hidden * (2 if kind == "swiglu" else 1)), Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "gelu":
            return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]
        gates, values = self.fc1(x).chunk(2, -1)
        return self.fc2(F.silu(gates) * values)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self-attention and an MLP, each behind a LayerNorm and a residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, norm_eps: float, mlp: MlpKind = "gelu") -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp)

    def forward(
        self,
        x_BTD: Tensor,
        angles: Tensor | None = None,
        key_valid_BT: Tensor | None = None,
        qkv: Tensor | None = None,
        ask_from: int = 0,
        kept_B2: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T - ask_from, D).

        `qkv` (B, T, 3D) is the normed projection where the caller already has it. Only tokens from `ask_from` on ask
        and are returned; all answer. `kept_B2` multiplies what attention and the MLP add to each sample: 0 drops it
        (stochastic depth, Huang et al. 2016).
        """
        dim = x_BTD.shape[-1]
        if qkv is not None:
            q, k, v = qkv[:, ask_from:, :dim], qkv[..., dim : 2 * dim], qkv[..., 2 * dim :]
        elif ask_from:
            normed, weight, bias = self.norm1(x_BTD), self.qkv.weight, self.qkv.bias
            q = kernels.linear(normed[:, ask_from:], weight[:dim], bias[:dim])
            k, v = kernels.linear(normed, weight[dim:], bias[dim:]).chunk(2, -1)
        else:
            q, k, v = self.qkv(self.norm1(x_BTD)).chunk(3, -1)
        q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
        if angles is not None:
            q, k = apply_rotary(q, angles[..., ask_from:, :]), apply_rotary(k, angles)
        mixed = attend(q, k, v, key_valid_BT).transpose(1, 2).flatten(2)
        if kept_B2 is None:
            x_BUD = x_BTD[:, ask_from:] + self.proj(mixed)
            return x_BUD + self.mlp(self.norm2(x_BUD))  # type: ignore[no-any-return]
        x_BUD = x_BTD[:, ask_from:] + self.proj(mixed) * kept_B2[:, 0, None, None]
        return x_BUD + self.mlp(self.norm2(x_BUD)) * kept_B2[:, 1, None, None]  # type: ignore[no-any-return]

    def class_attention(
        self, x_BTD: Tensor, angles: Tensor | None = None, key_valid_BT: Tensor | None = None
    ) -> Tensor:
        """How the first token's attention is shared out over all tokens, mean over heads, (B, T) float32."""
        normed, weights, biases = self.norm1(x_BTD), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q = heads_first(kernels.linear(normed[:, :1], weights[0], biases[0]), self.heads)  # the others don't ask,
        k = heads_first(kernels.linear(normed, weights[1], biases[1]), self.heads)  # and no value is mixed
        if angles is not None:
            q, k = apply_rotary(q, angles[..., :1, :]), apply_rotary(k, angles)
        scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-2, -1)
        if key_valid_BT is not None:
            scores = scores.masked_fill(~usable_keys(key_valid_BT)[:, None, None, :], -torch.inf)
        shares: Tensor = scores.softmax(-1)[:, :, 0].mean(1)
        return shares


class CrossBlock(nn.Module):
    """Tokens ask a context of another width, then pass an MLP; they don't see each other (CrossMAE)."""

    def __init__(
        self, dim: int, context_dim: int, heads: int, mlp_ratio: float, norm_eps: float, mlp: MlpKind = "gelu"
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.q = Linear(dim, dim)
        self.kv = Linear(context_dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp)

    def forward(
        self,
        x_BUD: Tensor,
        context_BTC: Tensor,
        angles: tuple[Tensor, Tensor] | None = None,
        key_valid_BT: Tensor | None = None,
        q: Tensor | None = None,
    ) -> Tensor:
        """(B, U, D) to (B, U, D). `angles` are those of the asking and of the context tokens."""
        q = self.q(self.norm1(x_BUD)) if q is None else q
        k, v = self.kv(context_BTC).chunk(2, -1)
        q, k, v = (heads_first(t, self.heads) for t in (q, k, v))
        if angles is not None:
            q, k = apply_rotary(q, angles[0]), apply_rotary(k, angles[1])
        x_BUD = x_BUD + self.proj(attend(q, k, v, key_valid_BT).transpose(1, 2).flatten(2))
        return x_BUD + self.mlp(self.norm2(x_BUD))  # type: ignore[no-any-return]


def init_linear(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform weights, zero biases. LayerNorm starts at one and zero already."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
