"""Which of several exact kernels is fastest on this CPU. On other devices torch's own choice stands.

torch multiplies float32 matrices with MKL, which on an AMD processor leaves AVX-512 unused; oneDNN, built into the same
torch, is about twice as fast there, to the same accuracy. Attention follows: where MKL is fast, the plain product beats
the fused kernel for short rows; on AMD the fused kernel is at least as fast at every length (benchmarks/results).
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def _amd() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (cpuinfo.read_text() if cpuinfo.exists() else platform.processor())


def has_operator() -> bool:
    """Whether this torch has oneDNN's product as an operator."""
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    # The operator is what torch.compile emits for a Linear; it isn't public, hence the look before the leap.
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn_is_faster() -> bool:
    return has_operator() and torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _amd()


ONEDNN = _onednn_is_faster()
PLAIN_KEYS = 0 if ONEDNN else 400  # up to so many keys the plain attention is faster than the fused kernel
PLAIN_KEYS_OTHER = 400  # in another type than float32: in bf16 the fused kernel took up to twenty times as long


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I) times weight (O, I), plus bias (O,): (..., O). With oneDNN it has no second derivative."""
    plain = (
        not ONEDNN
        or not x.is_cpu
        or x.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or x.numel() == 0
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch.compiler.is_exporting()
    )
    if plain:
        return F.linear(x, weight, bias)
    return _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


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
