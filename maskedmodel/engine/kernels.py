"""Exact kernels for the products and the attention of a CPU, by what was chosen for its class of shapes.

torch multiplies float32 matrices with MKL; oneDNN, built into the same torch, is about twice as fast on some processors
and level on others, to the same accuracy. The plain product of attention beats the fused kernel for short rows where
products are fast. `engine.fastest` measures and chooses; until then, and on other devices, torch's own stand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WIDTH_CLASSES = (128, 512)  # where one class of widths ends and the next begins
MOST_PLAIN_KEYS = 400  # beyond, the plain attention's scores take too much memory to be worth any speed
PLAIN_KEYS_OTHER = 400  # in another type than float32: in bf16 the fused kernel took up to twenty times as long


class Attention(NamedTuple):
    """How float32 attention is computed on a CPU.

    plain_keys  up to so many keys the plain product is taken, beyond them the fused kernel.
    contiguous  whether the fused kernel is faster on copies than on the views that a joint projection leaves behind.
    """

    plain_keys: int = MOST_PLAIN_KEYS
    contiguous: bool = True


chosen_products: dict[int, bool] = {}  # by class of widths, whether oneDNN's is the faster one
chosen_attention: Attention | None = None


def everywhere(onednn: bool) -> dict[int, bool]:
    """One choice for products of all classes."""
    return dict.fromkeys(range(len(WIDTH_CLASSES) + 1), onednn)


def width_class(width: int) -> int:
    """The class of a product, of which `width` is the smaller side of the weight."""
    return sum(width >= bound for bound in WIDTH_CLASSES)


def has_operator() -> bool:
    """Whether this torch has oneDNN's product as an operator."""
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    # The operator is what torch.compile emits for a Linear; it isn't public, hence the look before the leap.
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I) times weight (O, I), plus bias (O,): (..., O). With oneDNN it has no second derivative."""
    plain = (
        not x.is_cpu
        or not chosen_products.get(width_class(min(weight.shape)), False)
        or x.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or x.numel() == 0
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch.compiler.is_exporting()
    )
    if plain:
        return F.linear(x, weight, bias)
    return onednn_linear(x, weight, bias)


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` by oneDNN, float32 on a CPU."""
    return _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


def attention(q_BHUd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention (B, H, U, d); `mask` (..., U, T) bool, True = may be asked."""
    how = chosen_attention or Attention()
    most = how.plain_keys if q_BHUd.dtype == torch.float32 else PLAIN_KEYS_OTHER
    if q_BHUd.is_cpu and k_BHTd.shape[2] <= most:
        return plain_attention(q_BHUd, k_BHTd, v_BHTd, mask)
    fused = copied_attention if q_BHUd.is_cpu and how.contiguous else fused_attention
    return fused(q_BHUd, k_BHTd, v_BHTd, mask)


def plain_attention(q_BHUd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with its scores in memory."""
    scores = (q_BHUd * q_BHUd.shape[-1] ** -0.5) @ k_BHTd.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.matmul(scores.softmax(-1), v_BHTd)


def fused_attention(q_BHUd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's fused attention, on whatever views it is given."""
    return F.scaled_dot_product_attention(q_BHUd, k_BHTd, v_BHTd, attn_mask=mask)


def copied_attention(q_BHUd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's fused attention, on copies that lie in memory as it walks through them."""
    return fused_attention(q_BHUd.contiguous(), k_BHTd.contiguous(), v_BHTd.contiguous(), mask)


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")  # type: ignore[no-any-return]


# torch.compile takes that operator for one of its own and expects frozen weights; behind another name it's left alone.
@torch.library.custom_op("maskedmodel::product", mutates_args=())
def _opaque(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return _onednn(a, b, bias)


@_opaque.register_fake
def _shape_of_product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[0]))


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a (..., I) times the transpose of b (O, I), plus bias."""
    return _opaque(a, b, bias) if torch.compiler.is_compiling() else _onednn(a, b, bias)


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_weight = None
        if ctx.needs_input_grad[1]:
            # The operator lays its first argument out anew, so that should be the smaller one.
            (rows, outputs), inputs = grad.shape, x.shape[1]
            if rows * outputs > rows * inputs + inputs * outputs:
                grad_weight = _product(x.t(), grad.t()).t().contiguous()
            else:
                grad_weight = _product(grad.t(), x.t())
        return grad_x, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None
