from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedmodel.engine import kernels
from maskedmodel.engine.layers import Block, CrossBlock, attend
from maskedmodel.noise import seeded

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[pytest.param(True, marks=needs_onednn), False])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(kernels, "chosen_products", kernels.everywhere(request.param))
    return bool(request.param)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(3, 5, 7), (200, 6, 40), (1, 1, 1), (50, 40, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(onednn: bool, rows: int, inputs: int, outputs: int, bias: bool) -> None:
    tensors = [values(2, rows, inputs), values(outputs, inputs, seed=1)] + [values(outputs, seed=2)] * bias
    tensors = [t.requires_grad_() for t in tensors]
    slope = values(2, rows, outputs, seed=3)
    ours, theirs = kernels.linear(*tensors), F.linear(*tensors)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous()
    for one, other in zip(
        torch.autograd.grad(ours, tensors, slope), torch.autograd.grad(theirs, tensors, slope), strict=True
    ):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_linear_takes_views(onednn: bool) -> None:
    """As the last decoder block calls it: some tokens of a sequence, some rows of a weight."""
    x, weight, bias = values(3, 9, 8).requires_grad_(), values(24, 8, seed=1).requires_grad_(), values(24, seed=2)
    ours = kernels.linear(x[:, 4:], weight[:8], bias[:8])
    theirs = F.linear(x[:, 4:], weight[:8], bias[:8])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    slope = values(3, 8, 5, seed=3).transpose(1, 2)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight), slope), torch.autograd.grad(theirs, (x, weight), slope), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_linear_computes_only_the_gradients_that_are_asked_for(onednn: bool) -> None:
    x, weight = values(4, 8), values(6, 8, seed=1).requires_grad_()
    kernels.linear(x, weight).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(6, 8))
    with torch.no_grad():
        assert not kernels.linear(x, weight).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_kept(onednn: bool, dtype: torch.dtype) -> None:
    x, weight = values(4, 8).to(dtype), values(6, 8, seed=1).to(dtype)
    assert torch.equal(kernels.linear(x, weight), F.linear(x, weight))


def test_autocast_reaches_the_products(onednn: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.linear(values(4, 8), values(6, 8)).dtype == torch.bfloat16


def test_no_rows_at_all(onednn: bool) -> None:
    assert kernels.linear(values(2, 0, 8), values(6, 8)).shape == (2, 0, 6)


@needs_onednn
def test_the_product_is_an_operator_that_torch_can_compile() -> None:
    arguments = (values(2, 3, 8), values(6, 8), values(6))
    torch.library.opcheck(kernels._opaque, arguments, test_utils=("test_schema", "test_faketensor"))
    assert torch.equal(kernels._opaque(*arguments), kernels._onednn(*arguments))


@needs_onednn
def test_the_same_product_twice_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "chosen_products", kernels.everywhere(True))
    x, weight = values(257, 48).requires_grad_(), values(96, 48, seed=1).requires_grad_()
    once, again = (
        torch.autograd.grad(kernels.linear(x, weight), (x, weight), values(257, 96, seed=2)) for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@pytest.mark.parametrize("padded", [False, True])
def test_both_attentions_agree(monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    q, k, v = (values(2, 3, count, 8, seed=seed).requires_grad_() for seed, count in enumerate([4, 7, 7]))
    valid = torch.arange(7) < torch.tensor([[7], [4]]) if padded else None
    results = []
    for most in (0, 1000):
        monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(most))
        mixed = attend(q, k, v, valid)
        results.append((mixed, *torch.autograd.grad(mixed, (q, k, v), values(2, 3, 4, 8, seed=5))))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    if valid is not None:
        for _, _, by_key, by_value in results:
            assert not by_key[1, :, 4:].any()
            assert not by_value[1, :, 4:].any()


def test_blocks_agree_whatever_the_kernels(monkeypatch: pytest.MonkeyPatch, onednn: bool) -> None:
    with seeded(0):
        blocks: list[nn.Module] = [Block(24, 2, 4.0, 1e-6), CrossBlock(24, 16, 2, 4.0, 1e-6)]
    x, context = values(2, 9, 24), values(2, 5, 16, seed=1)
    ours = blocks[0](x, ask_from=3), blocks[1](x, context)
    monkeypatch.setattr(kernels, "chosen_products", kernels.everywhere(False))
    monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(1000))
    theirs = blocks[0](x)[:, 3:], blocks[1](x, context)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
